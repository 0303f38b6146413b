"""Clean and corrupt prompts of other lengths against the oracle: at named positions, float64 below 1e-9."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.attribution.node_attribution import attribute
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.experiments.levels.path_level import along, travelling
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Logits, Mlp, Resid
from tests.engine.answer_cases import assert_same, oracle_records, random_cases, swapped, task_of, unequal_cases
from tests.engine.support import Silent, loaded, model
from tests.engine.test_edges_against_oracle import (
    Edges,
    every_edge,
    experiment_of,
    oracle_receiver,
    oracle_sender,
)
from tests.engine.test_paths_against_oracle import FILE, declared, oracle_end, stop
from tests.oracle import answers, edge, families, node, path

THREE = pytest.mark.parametrize("family", ["gpt2", pytest.param("llama", marks=pytest.mark.nightly), "gpt_neox"])
LENGTHS = [(6, 8), (7, 5), (6, 8), (7, 5), (6, 6)]
NAMED = (Where.at("A"), Where.at("END"), Where.at("B", "END"))
SOURCES = (Source("resample", "abc"), Source("mean_per_template", "abc"), Source("zero", None))


def sites(where: Where) -> frozenset[Site]:
    return frozenset({Site(Head(1, 1), where), Site(Mlp(0), where), Site(Resid(2), Where.at("A"))})


def run(m: Any, cases: list[answers.Case], wanted: list[Experiment], **options: Any) -> Any:
    with borrowed(m):
        return Runner(loaded(m), task_of(cases), rows=6, progress=Silent(), **options).run(wanted)


@THREE
def test_node_level(family: str) -> None:
    """Noising, denoising, means and zeros at named positions; zeros anywhere; one by one, and swept."""
    cases = [*unequal_cases(3, LENGTHS[:4]), *unequal_cases(4, [(6, 6)] * 2)]
    m = model(family, exactly=True)
    wanted = [Experiment("clean"), Experiment("abc")]
    wanted += [Experiment("clean", source, sites(where)) for source in SOURCES for where in NAMED]
    wanted += [Experiment("abc", Source("resample", "clean"), sites(where)) for where in NAMED]
    wanted.append(Experiment("abc", Source("mean_per_template", "clean"), sites(NAMED[1])))
    wanted.append(Experiment("clean", SOURCES[2], frozenset({Site(Mlp(1), Where.everywhere())})))
    expected = {experiment: oracle_records(m, cases, experiment) for experiment in wanted}
    for found in (run(m, cases, wanted, sweeps=False, side="left"), run(m, cases, wanted)):
        for experiment in wanted:
            assert_same(found[experiment], expected[experiment])


@THREE
def test_edge_level(family: str) -> None:
    m = model(family, exactly=True)
    net, cases = families.read(m), unequal_cases(7, LENGTHS)
    rng = np.random.default_rng(2)
    shape = loaded(m).shape
    cut: Edges = {e: NAMED[int(rng.integers(3))] for e in every_edge(shape) if rng.random() < 0.4}
    wanted = {
        base: experiment_of(cut, Source("resample", source), base)
        for base, source in (("clean", "abc"), ("abc", "clean"))
    }
    found = run(m, cases, list(wanted.values()), edges=True)
    for base, experiment in wanted.items():
        rows = []
        for case in cases:
            own = case if base == "clean" else swapped(case)

            def logits(after: answers.Ids, own: answers.Case = own) -> np.ndarray:
                n = len(own.clean) + len(after)
                there = edge.contributions(net, [*own.corrupt, *after])
                given = {
                    sender: torch.stack([value[_token(own, p, after)] for p in range(n)])
                    for sender, value in there.items()
                }
                kept: dict[Any, Any] = dict.fromkeys(edge.edges(net))
                for (sender, receiver), where in cut.items():
                    at = answers.tokens_at(own.clean, after, [own.roles[r] for r in where.roles], False)
                    kept[oracle_sender(sender), oracle_receiver(receiver)] = set(range(n)) - set(at)
                return edge.edge_run(net, [*own.clean, *after], given, kept).logits.numpy()

            rows.append(answers.metrics(logits, len(own.clean), case, answers.plain(net, case.clean)))
        assert_same(found[experiment], {name: np.array([row[name] for row in rows]) for name in answers.NAMES})


def _token(own: answers.Case, token: int, after: answers.Ids) -> int:
    """The source's token; of one that has none any, since nothing is patched there."""
    if token < len(own.clean) and token not in own.tokens:
        return 0
    return answers.source_token(token, own.clean, own.corrupt, own.tokens)


@THREE
@pytest.mark.parametrize("open_end", [True, False], ids=["open end", "to the logits"])
def test_path_level(family: str, open_end: bool) -> None:
    m = model(family, exactly=True)
    net, cases = families.read(m), unequal_cases(8, LENGTHS)
    shape = loaded(m).shape
    last = stop(Head(2, 1), ports=("q",)) if open_end else stop(Logits())
    one = declared((stop(Head(0, 2), NAMED[2]),), (last,))
    experiment = travelling("clean", Source("resample", "abc"), along([one], shape, FILE), [one], through=("mlp",))
    found = run(m, cases, [experiment], edges=True)[experiment]
    rows = []
    for case in cases:

        def logits(after: answers.Ids, case: answers.Case = case) -> np.ndarray:
            n = len(case.clean) + len(after)
            there = node.resample_values(net, [*case.corrupt, *after])
            given = {c: torch.stack([value[_token(case, p, after)] for p in range(n)]) for c, value in there.items()}
            at = answers.tokens_at(case.clean, after, [case.roles[r] for r in ("B", "END")], False)
            ends = [oracle_end(last)]
            return path.open_ends(net, [*case.clean, *after], given, ("head", 0, 2), ends, ("mlp",), at).numpy()

        rows.append(answers.metrics(logits, len(case.clean), case, answers.plain(net, case.clean)))
    assert_same(found, {name: np.array([row[name] for row in rows]) for name in answers.NAMES})


def test_nothing_is_patched_at_a_token_without_a_counterpart() -> None:
    """By the runner, and by estimates to first order; the same where base and source have the same lengths is run."""
    m = model("gpt2", exactly=True)
    cases = unequal_cases(3, LENGTHS)
    wide = Experiment("clean", SOURCES[0], frozenset({Site(Head(1, 1), Where.except_at("END"))}))
    with pytest.raises(CircuitspecError) as caught:
        run(m, cases, [wide])
    (finding,) = caught.value.diagnostics
    assert finding.code == "CS366"
    assert "every token but END" in finding.message
    with borrowed(m), pytest.raises(CircuitspecError, match="CS366"):
        attribute(
            Runner(loaded(m), task_of(cases), rows=6, progress=Silent()),
            "clean",
            SOURCES[0],
            "logprob_diff",
            [Head(0, 0)],
            [Where.at("END")],
        )
    own = Experiment("abc", Source("resample", "abc"), wide.sites)
    assert_same(run(m, cases, [own])[own], oracle_records(m, cases, Experiment("abc")))


def test_estimates_to_first_order_are_derivatives_of_the_whole_answers_score() -> None:
    """The estimate of patching a residual stream is the slope of the oracle's score along that patch."""
    m = model("gpt2", exactly=True)
    net, cases = families.read(m), random_cases(seed=12, lengths=[5, 6])
    where = Where.at("END")
    with borrowed(m):
        found = attribute(
            Runner(loaded(m), task_of(cases), rows=6, progress=Silent()),
            "clean",
            SOURCES[0],
            "logprob_diff",
            [Resid(1), Head(1, 0)],
            [where],
        )
    step = 1e-4
    for component, name in ((Resid(1), ("resid", 1, "pre")), (Head(1, 0), ("head", 1, 0))):
        slopes = []
        for case in cases:

            def moved(size: float, case: answers.Case = case, name: Any = name) -> float:
                def values(after: answers.Ids) -> Any:
                    own, other = (
                        node.forward(net, [*ids, *after], record=True).values[name]
                        for ids in (case.clean, case.corrupt)
                    )
                    return {name: own + size * (other - own)}

                def at(after: answers.Ids) -> Any:
                    return [(name, p) for p in answers.tokens_at(case.clean, after, [case.roles["END"]], False)]

                patched = answers.patched(net, case.clean, at, values)
                return answers.metrics(patched, len(case.clean), case, answers.plain(net, case.clean))["logprob_diff"]

            slopes.append((moved(step) - moved(-step)) / (2 * step))
        assert found.effects[component, where] == pytest.approx(np.mean(slopes), rel=1e-5, abs=1e-7)
