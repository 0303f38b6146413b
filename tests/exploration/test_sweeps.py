"""Sweeps as they are asked for: all places of a kind, or from coarse to fine, within an allowance of forwards."""

from __future__ import annotations

import itertools
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.cache.stored_runner import StoredRunner, stored_runner
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.experiment import Source
from circuitspec.exploration.exploration_findings import ExplorationFindings, ExploreOptions
from circuitspec.exploration.forward_budget import Allowance, AllowanceSpent
from circuitspec.exploration.output.exploration_tables import tables
from circuitspec.exploration.output.exploration_text import render_exploration
from circuitspec.exploration.request import SWEPT
from circuitspec.exploration.search.exact_sweeps import Cell, coarse_first, sweep_all
from circuitspec.exploration.search.patching_series import series_of
from circuitspec.exploration.setting import ExplorationSetting
from circuitspec.hypothesis_file.grammar.components import AttentionLayer, Head, Mlp
from circuitspec.hypothesis_file.load_file import load_exploration
from circuitspec.pipelines import session
from circuitspec.pipelines.explore import explore
from circuitspec.runtime.progress import Silent
from tests.engine.support import Silent as Quiet
from tests.engine.support import model, oracle_records, random_prompts, runner, task_of

TOYS = Path(__file__).parents[2] / "hypotheses" / "toys"
VALUES = ("resample", "mean", "zero")


@cache
def explored(toy: str, **options: Any) -> ExplorationFindings:
    return explore(load_exploration(TOYS / f"{toy}.circuit.yaml"), ExploreOptions(**options), Silent(), "explore")


def share_of(
    found: ExplorationFindings, component: str, position: str, direction: str, corruption: str, value: str
) -> float:
    table = tables(found)["sweeps"].set_index(["component", "position", "direction", "corruption", "value"])
    return float(table.loc[(component, position, direction, corruption, value), "share"])


# ------------------------------------------------------------------------------------------------- against the oracle


@pytest.mark.parametrize(
    "family",
    ["gpt2", pytest.param("llama", marks=pytest.mark.nightly), pytest.param("olmo2", marks=pytest.mark.nightly)],
)
def test_every_place_in_every_series_is_what_the_oracle_computes(family: str) -> None:
    m = model(family, exactly=True, **{"n_inner" if family == "gpt2" else "intermediate_size": 12})
    prompts = [p for seed in (3, 4) for p in random_prompts(seed, [6])]
    prompts = [type(p)(p.clean, p.corrupt, 0, p.answers, p.wrong, {"A": 1, "B": 3, "END": 5}) for p in prompts]
    with borrowed(m):
        run = runner(m, task_of(prompts), rows=8)
        shape = run.loaded.shape
        claimed = (
            *(Head(layer, head) for layer in range(shape.n_layers) for head in range(shape.n_heads)),
            *(Mlp(layer) for layer in range(shape.n_layers)),
        )
        stored = StoredRunner(run, None, Quiet())
        allowance = Allowance(None, lambda: run.forwards)
        setting = ExplorationSetting(
            run, stored, "logit_diff", claimed, ("A", "B", "END"), Source("resample", "abc"), "abc", allowance
        )
        grid = sweep_all(setting, series_of(VALUES, ("abc",), None), SWEPT)
    wheres = 5  # three roles, the other positions, all of them
    targets = {"resid": 3, "attention": 3, "mlps": 3, "heads": 3 * shape.n_heads, "neurons": 3 * shape.d_mlp}
    targets["patterns"] = targets["heads"]
    absent = {"features", "experts", "expert_neurons"}  # a model without dictionaries and experts has none
    kinds = [kind for kind in SWEPT if kind not in absent]
    assert {kind: len(grid.spots(kind)) for kind in kinds} == {kind: wheres * n for kind, n in targets.items()}
    assert not any(grid.spots(kind) for kind in absent)
    assert len(grid.series) == 4
    # patterns are those of a run: not replaced by means or zeros
    assert len(grid.cells) == 4 * wheres * sum(targets.values()) - 2 * wheres * targets["patterns"]
    assert sorted(grid.wheres.values()) == ["A", "B", "END", "all", "other positions"]
    rng = np.random.default_rng(0)
    chosen: list[Cell] = [grid.cells[i] for i in rng.choice(len(grid.cells), 6, replace=False)]
    chosen += [grid.of(kind, grid.series[i % 4])[7] for i, kind in enumerate(kinds)]
    for cell in chosen:
        target, where = cell.spot.target, cell.spot.where
        heads = [Head(target.layer, h) for h in range(shape.n_heads)] if isinstance(target, AttentionLayer) else None
        experiment = cell.series.patched(dict.fromkeys(heads or [target], where))  # type: ignore[list-item]
        expected = oracle_records(m, prompts, experiment)
        base = oracle_records(m, prompts, cell.series.base)["logit_diff"].mean()
        assert cell.change == pytest.approx(expected["logit_diff"].mean() - base, abs=1e-8), cell.spot
        assert cell.means == pytest.approx({name: column.mean() for name, column in expected.items()}, abs=1e-8)


# ------------------------------------------------------------------------------------------------------- known answers


@pytest.mark.nightly
def test_sweeping_all_places_of_a_toy() -> None:
    """Two switches in series: arithmetic says what each place does, noised and denoised, from each corruption."""
    found = explored("and", sweeps=tuple(SWEPT)[:-1])
    close = pytest.approx
    for component, drop, rise in (("a0.h0", 1, 0), ("a0.h1", 1, 0), ("a0.h2", 0, 0), ("a0", 1, 1), ("m1", 1, 1)):
        assert share_of(found, component, "END", "noising", "both", "resample") == close(drop, abs=1e-4)
        assert share_of(found, component, "END", "denoising", "both", "resample") == close(rise, abs=1e-4)
    # from the first switch alone: its head is all, and the other's does nothing
    for component, effect in (("a0.h0", 1), ("a0.h1", 0), ("a1", 0)):
        for direction in ("noising", "denoising"):
            assert share_of(found, component, "END", direction, "first", "resample") == close(effect, abs=1e-4)
    # the stream carries the switches where they stand, and after the first block at the end
    assert share_of(found, "r0", "A", "noising", "both", "resample") == close(1, abs=1e-4)
    assert share_of(found, "r0", "END", "noising", "both", "resample") == close(0, abs=1e-4)
    assert share_of(found, "r1", "A", "noising", "both", "resample") == close(0, abs=1e-4)
    assert share_of(found, "r1", "END", "denoising", "both", "resample") == close(1, abs=1e-4)
    assert share_of(found, "r1", "other positions", "denoising", "both", "resample") == close(0, abs=1e-4)
    assert share_of(found, "r0", "all", "denoising", "both", "resample") == close(1, abs=1e-4)
    assert not found.unseen


@pytest.mark.nightly
def test_values_side_by_side() -> None:
    """Zero and mean take the switch's feature away as the corruption does: A = 0 in all of them, so relu(0 + 1 - 1)."""
    found = explored("and", sweeps=("heads", "attention"), values=("zero", "mean", "resample"))
    for value, corruption in (("resample", "both"), ("mean", "both"), ("mean", "first"), ("zero", "")):
        assert share_of(found, "a0.h0", "END", "noising", corruption, value) == pytest.approx(1, abs=1e-4)
    table = tables(found)["sweeps"]
    assert set(table["source"]) >= {"zero", "mean of both", "resample of second", "resample of clean"}
    assert set(table[table["direction"] == "denoising"]["base"]) == {"both", "first", "second"}
    text = render_exploration(found)
    assert "[1] noising, resample of both" in text  # the file's own value and corruption come first
    assert "swept each by itself: 12 attention layers, 48 heads" in text


def test_coarse_to_fine_finds_the_circuit_and_says_what_it_left_out() -> None:
    found = explored("nobel", start="resid", neurons=True, drawn=0)
    (grid,) = found.grids
    strong = {(s.name, grid.wheres[s.where]) for kind in SWEPT for s in grid.spots(kind) if grid.sizes[s] >= 0.5}
    assert strong == {
        *(("r0", "first"), ("r0", "second"), ("r1", "second")),
        *(("a0", "second"), ("m1", "second"), ("a0.h0", "second"), ("m1.n42", "second")),
    }
    # every place of every kind was looked at or is accounted for
    places = len(grid.wheres)
    for kinds, what, total in (
        (("attention", "mlps"), "attention layers and MLPs", 4 * places),
        (("heads",), "heads", 8 * places),
        (("neurons",), "neurons", 128 * places),
    ):
        looked = sum(len(grid.spots(kind)) for kind in kinds)  # type: ignore[arg-type]
        assert looked + sum(one.count for one in grid.unseen if one.what.startswith(what)) == total
    assert set(found.circuits[0].entries) == {("a0.h0", "second", "positive"), ("m1.n42", "second", "positive")}
    report = render_exploration(found)
    assert "not looked at:\n  16 of 20 attention layers and MLPs" in report
    assert "swept from coarse to fine: 10 residual streams, 2 attention layers, 2 MLPs, 4 heads, 64 neurons" in report


NOISED = """
circuitspec: 1
name: noised
model: {id: "zoo:or"}
task:
  templates: ["{room} lamp: one switch {A}, one switch {B}, so it is"]
  slots: {room: $rooms, A: $flows, B: $flows}
  lists: {rooms: [Kitchen, Hall, Cellar], flows: ["on", closed, up], stops: ["off", open, down]}
  answer: " lit"
  wrong: " dark"
  corruptions: {both: {A: $stops, B: $stops}}
  positions: {END: last}
  prompts: 6
ablation: {value: gaussian, at: [A, B], std: 60.0, draws: 4, seed: 1}
"""


@pytest.mark.nightly
def test_noise_is_swept_beside_a_corruption_and_searched_with(tmp_path: Path) -> None:
    """All of the noise is where the words about the switches stand, so restoring the input there restores it all."""
    file = tmp_path / "noised.yaml"
    file.write_text(NOISED)
    options = ExploreOptions(sweeps=("resid", "heads"), values=("gaussian", "resample"))
    found = explore(load_exploration(file), options, Silent(), "explore")
    close = pytest.approx
    assert share_of(found, "r0", "all", "noising", "noise", "gaussian") == close(1, abs=1e-4)
    assert share_of(found, "r0", "all", "denoising", "noise", "gaussian") == close(1, abs=1e-4)
    assert share_of(found, "r0", "other positions", "noising", "noise", "gaussian") == close(0, abs=1e-4)
    assert share_of(found, "a0.h0", "END", "denoising", "both", "resample") == close(1, abs=1e-4)
    assert set(found.corruptions) == {"both", "noise"}
    assert {component for component, _, _ in found.circuits[0].entries} >= {"a0.h0", "a0.h1"}
    assert 'ablation: {value: gaussian, at: ["A", "B"], std: 60, draws: 4, seed: 1' in found.circuits[0].draft.text
    # what noising a head by the noise does, by definition: each draw's mean, and over draws
    effects = tables(found)["effects"].set_index(["component", "position"])
    swept = share_of(found, "a0.h0", "END", "noising", "noise", "gaussian")
    assert effects.loc[("a0.h0", "END"), "drop"] == close(swept, abs=1e-9)


def test_noise_of_which_nothing_is_said_cannot_be_swept() -> None:
    with pytest.raises(CircuitspecError) as error:
        explore(load_exploration(TOYS / "and.circuit.yaml"), ExploreOptions(values=("gaussian",)), Silent(), "explore")
    assert [d.code for d in error.value.diagnostics] == ["CS541"]
    assert "where noise is added" in error.value.diagnostics[0].message


def test_a_corruption_that_breaks_nothing_has_changes_and_no_shares(tmp_path: Path) -> None:
    file = tmp_path / "rooms.yaml"
    text = NOISED.replace("{both: {A: $stops, B: $stops}}", "{both: {A: $stops, B: $stops}, other: {room: $rooms}}")
    file.write_text(text.partition("ablation")[0])
    found = explore(load_exploration(file), ExploreOptions(sweeps=("heads",)), Silent(), "explore")
    by_corruption = {
        name: [c for c in found.grids[0].cells if c.series.corruption == name] for name in found.corruptions
    }
    assert all(cell.share is not None for cell in by_corruption["both"])
    assert all(cell.share is None and abs(cell.change) < 1e-4 for cell in by_corruption["other"])
    assert len(by_corruption["both"]) == len(by_corruption["other"]) > 0


# ------------------------------------------------------------------------------------------------------- the allowance


@pytest.mark.parametrize("layers", [1, 2, 3, 12, 30])
def test_every_beginning_of_the_layers_is_spread_over_the_model(layers: int) -> None:
    order = coarse_first(layers)
    assert sorted(order) == list(range(layers))
    assert order[:2] == [0, layers - 1][:layers]
    for count in range(2, layers):
        seen = sorted(order[:count])
        gaps = [b - a for a, b in itertools.pairwise(seen)]
        assert max(gaps) <= 4 * layers / count


def test_what_is_kept_back_adds_up() -> None:
    spent = 0.0
    allowance = Allowance(100, lambda: spent)
    with allowance.holding(30):
        assert allowance.left == 70
        with allowance.holding(20):
            assert allowance.left == 50
            with pytest.raises(AllowanceSpent, match="the allowance of 100 forwards ended"):
                allowance.require(51)
        assert allowance.left == 70
    assert allowance.left == 100


@pytest.mark.parametrize(
    "limit", [pytest.param(12, marks=pytest.mark.nightly), 40, pytest.param(90, marks=pytest.mark.nightly), 200]
)
def test_the_allowance_holds_and_what_it_cut_is_said(limit: int) -> None:
    found = explored("nobel", start="resid", max_forwards=limit)
    assert found.forwards <= limit
    (warning,) = [w for w in render_exploration(found).split("\n\n") if w.startswith("warning[CS412]")]
    assert f"the allowance of {limit} forwards ended; not looked at: " in warning
    cut = [one for one in found.unseen if one.spent]
    assert cut
    assert all(one.counted in warning for one in cut)
    assert len(tables(found)["not-looked-at"]) == len(found.unseen)
    if limit >= 200:
        assert found.circuits


@pytest.mark.nightly
def test_the_allowance_holds_where_what_is_measured_is_stored_in_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each chunk repeats the clean run and the source's; as many of them as there can be."""
    file = tmp_path / "ioi.task.yaml"
    text = (TOYS.parent / "explored" / "ioi-tiny.task.yaml").read_text(encoding="utf-8")
    file.write_text(text.replace("prompts: 100", "prompts: 2").replace("mean_per_template", "resample"))
    monkeypatch.setattr(session, "stored_runner", partial(stored_runner, least=0))
    options = ExploreOptions(max_forwards=650, store=tmp_path / "store")
    found = explore(load_exploration(file), options, Silent(), "explore")
    assert 600 < found.forwards <= 650


def test_coarse_kinds_come_before_fine_ones_and_what_was_patched_is_not_called_unseen() -> None:
    found = explored("nobel", sweeps=("neurons", "mlps"), max_forwards=150)
    (grid,) = found.grids
    kinds = [cell.spot.kind for cell in grid.cells]
    assert kinds == sorted(kinds, key=list(SWEPT).index)
    of = {name: {cell.spot for cell in grid.cells if cell.spot.kind == name} for name in ("mlps", "neurons")}
    places = len(grid.wheres)
    assert len(of["mlps"]) == 2 * places
    neurons = 2 * 64 * places
    told = {one.what: (one.count, one.of) for one in found.unseen if one.what.startswith(("mlps", "neurons"))}
    whole = [spot for spot in of["neurons"] if len([c for c in grid.cells if c.spot == spot]) == len(grid.series)]
    what = "neurons (each, at each position)"
    expected = {what: neurons - len(of["neurons"]), f"{what} in some series": len(of["neurons"]) - len(whole)}
    assert told == {name: (count, neurons) for name, count in expected.items() if count}
    assert of["neurons"]


def test_where_sweeping_takes_all_forwards_there_is_no_circuit_and_no_cross_section_of_one() -> None:
    """Sweeping takes all that there is for exact effects, and estimates see nothing in this toy."""
    found = explored("nobel", sweeps=("neurons",), max_forwards=300)
    assert found.forwards <= 300
    assert not found.circuits
    assert sum(one.what.startswith("a circuit (") for one in found.unseen) == 2
    assert [one.circuit for one in found.sections] == ["the file's circuit"] * len(found.sections)


def test_under_a_small_allowance_what_tells_most_comes_first(tmp_path: Path) -> None:
    """150 forwards for the four layers of ioi-tiny: the head that does most is found where the answer is read."""
    file = tmp_path / "ioi.task.yaml"
    text = (TOYS.parent / "explored" / "ioi-tiny.task.yaml").read_text(encoding="utf-8")
    file.write_text(text.replace("prompts: 100", "prompts: 24"))
    found = explore(load_exploration(file), ExploreOptions(start="resid", max_forwards=150), Silent(), "explore")
    assert found.forwards <= 150
    (grid,) = found.grids
    assert {kind: bool(grid.spots(kind)) for kind in ("resid", "attention", "mlps", "heads")} == dict.fromkeys(
        ("resid", "attention", "mlps", "heads"), True
    )
    wheres = [grid.wheres[spot.where] for spot in grid.spots("resid")]
    telling = {"IO", "S1", "S2", "END"}  # which the corruption changes, and where the answer is read
    assert set(wheres[: 4 * len(telling)]) <= telling
    for circuit in found.circuits:
        assert ("a2.h2", "END", "positive") in circuit.entries


@pytest.mark.nightly
def test_a_large_allowance_changes_nothing() -> None:
    free, bound = (explored("nobel", start="resid", max_forwards=most) for most in (None, 100_000))
    for name, table in tables(free).items():
        pd.testing.assert_frame_equal(table, tables(bound)[name])
    assert free.forwards == bound.forwards


def test_run_again_it_goes_on_where_the_allowance_ended(tmp_path: Path) -> None:
    study = load_exploration(TOYS / "nobel.circuit.yaml")
    whole = explored("nobel", start="resid")
    seen = []
    for _ in range(12):
        found = explore(study, ExploreOptions(start="resid", max_forwards=120, store=tmp_path), Silent(), "explore")
        assert found.forwards <= 120
        seen.append(len(found.grids[0].cells) if found.grids else 0)
        if not [one for one in found.unseen if one.spent]:
            break
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]
    pd.testing.assert_frame_equal(tables(found)["sweeps"], tables(whole)["sweeps"])
    pd.testing.assert_frame_equal(tables(found)["effects"], tables(whole)["effects"])
    assert found.circuits[0].entries == whole.circuits[0].entries


# ------------------------------------------------------------------------------------------------ as a user asks for it


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["explore", *arguments, "--no-store"])


@pytest.mark.nightly
def test_tables_and_pictures_of_a_sweep(tmp_path: Path) -> None:
    result = run(
        str(TOYS / "mediation.circuit.yaml"),
        *("--start", "resid", "--value", "resample", "--value", "zero", "--output-dir", str(tmp_path)),
    )
    assert result.exit_code == 0, result.output
    table = pd.read_parquet(tmp_path / "sweeps.parquet")
    assert len(table) == len(pd.read_csv(tmp_path / "sweeps.csv"))
    assert {"kind", "component", "layer", "position", "direction", "value", "corruption", "share", "kl"} <= set(table)
    assert set(table["kind"]) == {"resid", "attention", "mlps", "heads"}
    kinds, series = ("resid", "attention", "mlps", "heads"), ("noising-resample-stopped", "noising-zero")
    expected = {f"zoom-{kind}-{one}" for kind in kinds for one in (*series, "denoising-resample-stopped")}
    assert expected <= {path.stem for path in tmp_path.glob("*.svg")}
    drawn = (tmp_path / "zoom-attention-noising-resample-stopped.svg").read_text(encoding="utf-8")
    assert "1.00 at layer 0, position END" in drawn
    assert "cells were not measured" in drawn


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--value", "zero"), "--value is what sweeps patch in"),
        (("--steps", "3", "--recompute-attention"), "give one of them"),
    ],
)
def test_options_that_do_not_go_together(arguments: tuple[str, ...], said: str) -> None:
    result = run(str(TOYS / "and.circuit.yaml"), *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_too_few_forwards(tmp_path: Path) -> None:
    file, draft = str(TOYS / "and.circuit.yaml"), tmp_path / "draft.circuit.yaml"
    result = run(file, "--max-forwards", "1")
    assert result.exit_code == 5
    assert "CS542" in result.stderr
    result = run(file, "--max-forwards", "16", "--draft", str(draft))
    assert result.exit_code == 5
    assert "error[CS542]: --max-forwards 16 ended before a circuit was chosen" in result.stderr
    assert "warning[CS412]" in result.stdout
    assert not draft.exists()
