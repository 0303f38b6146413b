"""An estimate that is interrupted goes on where it was: what is lost is the pass in flight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuitspec.engine.attribution.edge_attribution import attribute_edges
from circuitspec.engine.attribution.node_attribution import attribute
from circuitspec.engine.attribution.partial_estimates import Pieces
from circuitspec.engine.attribution.restoration_screen import screen_restorations
from circuitspec.engine.cache.stored_estimates import PIECES, recalled_estimates
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Noised, Site, Source
from circuitspec.graph.edges import Edge
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp
from tests.engine.support import loaded, model, random_prompts, runner, task_of
from tests.engine.test_edges_against_oracle import every_edge

ALL = Where.everywhere()
WHERES = [ALL, Where.at("A")]
RESAMPLE = Source("resample", "abc")
NOISE = Noised(1.0, ALL, draws=2, seed=0)
COMPONENTS = [Head(0, 1), Head(1, 0), Mlp(1)]
SITES = frozenset(Site(component, ALL) for component in COMPONENTS)

Lists = Mapping[str, Any]


def nodes(run: Runner, pieces: Pieces, **options: Any) -> Lists:
    found = attribute(run, "clean", RESAMPLE, "logit_diff", COMPONENTS, WHERES, pieces=pieces, **options)
    lists = {"effects": [*found.effects.values()], "magnitudes": [*found.magnitudes.values()]}
    return {name: values for name, values in lists.items() if values}


def noised(run: Runner, pieces: Pieces) -> Lists:
    found = attribute(run, NOISE, Source("resample", "clean"), "logit_diff", COMPONENTS, WHERES, pieces=pieces)
    return {"effects": [*found.effects.values()]}


def edges(run: Runner, pieces: Pieces) -> Lists:
    chosen = [Edge(*pair, ALL) for pair in every_edge(loaded(run.loaded.model).shape)[::7]]
    assert {edge.receiver.port for edge in chosen} >= {"q", "k", "v", None}
    found = attribute_edges(run, "clean", RESAMPLE, "logit_diff", chosen, steps=2, recomputing=True, pieces=pieces)
    return {"effects": [*found.effects.values()], "linear": [*found.linear.values()]}


def screened(run: Runner, pieces: Pieces) -> Lists:
    found = screen_restorations(run, Experiment("clean", RESAMPLE, SITES), "logit_diff", pieces)
    return {"effects": np.concatenate([*found.effects.values()])}


class Killed(BaseException):
    """As a signal does it: nothing is caught, nothing is tidied up."""


def interrupted(run: Runner, forwards: int) -> None:
    """The run ends in its forward after so many."""
    original = run.executor.forward

    def forward(*arguments: Any) -> Any:
        nonlocal forwards
        forwards -= 1
        if forwards < 0:
            raise Killed
        return original(*arguments)

    run.executor.forward = forward  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("estimate", "again"),
    [
        # forwards that are repeated for what is left of a batch: the source's, the base's, and those of the steps
        (lambda run, pieces: nodes(run, pieces, steps=4), 2),
        (lambda run, pieces: nodes(run, pieces, dropping=True), 1),
        pytest.param(noised, 1, marks=pytest.mark.nightly),
        (edges, 2 + 2 + 1),
        pytest.param(screened, 1, marks=pytest.mark.nightly),
    ],
    ids=["steps", "dropping", "draws", "edges", "screen"],
)
def test_what_was_computed_of_an_estimate_is_not_computed_again(
    estimate: Callable[[Runner, Pieces], Lists], again: int, tmp_path: Path
) -> None:
    m = model("gpt2", exactly=True)
    task = task_of(random_prompts(13, [5, 5, 6, 6]))

    def ran(folder: Path | None, forwards: int | None = None) -> tuple[Mapping[str, Any], int]:
        run = runner(m, task, rows=2)
        taken = [0]
        if forwards is not None:
            interrupted(run, forwards)
        original = run.executor.forward

        def counted(*arguments: Any) -> Any:
            taken[0] += 1
            return original(*arguments)

        run.executor.forward = counted  # type: ignore[method-assign]
        with recalled_estimates(run, folder) as recalled:
            return recalled.get(["an estimate"], lambda pieces: estimate(run, pieces)), taken[0]

    with borrowed(m):
        expected, whole = ran(None)
        for forwards in range(1, whole, max(1, whole // 4)):
            folder = tmp_path / str(forwards)
            with pytest.raises(Killed):
                ran(folder, forwards)
            found, taken = ran(folder)
            for name, values in expected.items():
                np.testing.assert_array_equal(found[name], values)
            assert taken <= whole - forwards + again
            assert ran(folder)[1] == 0
            left = [*folder.glob(f"*/{PIECES}/*.records")]
            assert len(left) <= 1  # of the process that was killed


def test_pieces_are_gone_once_the_estimate_is_done(tmp_path: Path) -> None:
    m = model("gpt2")
    run = runner(m, task_of(random_prompts(13, [5, 6])))
    with borrowed(m), recalled_estimates(run, tmp_path) as recalled:
        recalled.get(["an estimate"], lambda pieces: nodes(run, pieces))
        assert [*tmp_path.glob("*/*.records")]
        assert not [*tmp_path.glob(f"*/{PIECES}/*.records")]


def test_pieces_of_another_question_are_not_taken(tmp_path: Path) -> None:
    m = model("gpt2", exactly=True)
    task = task_of(random_prompts(13, [5, 5, 6, 6]))
    with borrowed(m):
        run = runner(m, task, rows=2)
        interrupted(run, 3)
        with recalled_estimates(run, tmp_path) as recalled, pytest.raises(Killed):
            recalled.get(["one"], lambda pieces: nodes(run, pieces))
        run = runner(m, task, rows=2)
        with recalled_estimates(run, tmp_path) as recalled:
            recalled.get(["another"], lambda pieces: nodes(run, pieces))
        assert run.forwards == 1 + 3  # the source, a forward, and a backward worth two
