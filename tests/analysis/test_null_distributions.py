"""P-values where nothing is the matter: uniform, and corrected ones wrong in no more families than they say.

Those of the tests of circuit hypotheses are in `test_hypothesis_tests`.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from scipy.stats import chisquare, kstest, ttest_1samp

from circuitspec.analysis.circuit_effects.backup_behaviour import Knockable, knockout
from circuitspec.analysis.circuit_effects.component_effects import most_needed_besides, two_sided
from circuitspec.analysis.claims.random_circuit_tests import beaten
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.prompt_groups import Grouping, Runs, heterogeneity
from circuitspec.engine.attribution.direct_contributions import DirectRun, Part
from circuitspec.experiments.circuits.random_circuits import random_circuits
from circuitspec.experiments.experiment import Experiment, Site
from circuitspec.experiments.levels.whole_circuit import whole_circuit
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.components import Head, sort_key
from tests.analysis.support import make_records
from tests.experiments.test_random_circuits import laid, shuffled

FAMILIES = 200
REPETITIONS = 400
SHAPE = ModelShape(
    family="gpt2", n_layers=3, n_heads=8, n_kv_heads=8, d_model=8, d_head=1, d_mlp=8, n_vocab=50, max_positions=32
)


def error(share: float, n: int) -> float:
    """Three standard errors of a share of `n`."""
    return float(3 * (share * (1 - share) / n) ** 0.5)


@pytest.mark.parametrize("n", [9, 14, 50])
@pytest.mark.parametrize("shape", ["normal", "t5"])
def test_paired_tests_have_uniform_p_values(n: int, shape: str) -> None:
    """Sign flips up to 13 prompts, the t test from 14 on, which long tails hardly bend."""
    dice = np.random.default_rng(n)
    draw = dice.standard_normal if shape == "normal" else lambda size: dice.standard_t(5, size)
    p_values = [stats.lowers(draw(n)).p_value for _ in range(REPETITIONS)]
    assert kstest(p_values, "uniform").pvalue > 0.01
    for alpha in (0.05, 0.2):
        step = 2**-n if n < stats.EXACT_MAX else 0.0  # sign patterns are counted
        assert np.mean(np.asarray(p_values) <= alpha) == pytest.approx(alpha, abs=error(alpha, REPETITIONS) + step)


@pytest.mark.parametrize("n", [30, pytest.param(100, marks=pytest.mark.nightly)])
def test_skew_does_not_make_components_significant(n: int) -> None:
    """Most prompts lose a little, a few gain much, nothing on average: a t test alone too often calls that a loss."""
    dice = np.random.default_rng(n)
    samples = dice.exponential(1.0, (4000, n)) - 1.0
    ours = np.array([stats.lowers(sample).p_value for sample in samples])
    plain = ttest_1samp(samples, 0.0, axis=1, alternative="less").pvalue
    assert np.mean(ours <= 0.05) == pytest.approx(0.05, abs=0.02)
    assert np.mean(ours <= 0.005) <= 0.012 < np.mean(plain <= 0.005)


def test_templates_that_recover_the_same_have_uniform_p_values() -> None:
    dice = np.random.default_rng(0)
    member = np.repeat(np.arange(4), 15)
    grouping = Grouping("template", ("a", "b", "c", "d"), member.astype(np.int64))
    p_values = []
    for _ in range(150):
        one, zero = dice.normal(4, 1, 60), dice.normal(0, 1, 60)
        runs = Runs(zero + 0.8 * (one - zero) + dice.normal(0, 0.5, 60), zero, one)
        found = heterogeneity(runs, grouping)
        assert found is not None
        p_values.append(found.p_value if found.spread else 1.0)
    # where templates differ by less than prompts do, no permutation is drawn: those p-values are above 0.3 or so
    for alpha in (0.02, 0.1, 0.2):
        assert np.mean(np.asarray(p_values) <= alpha) == pytest.approx(alpha, abs=error(alpha, 150))


@pytest.mark.nightly
def test_of_twenty_idle_components_one_is_rarely_called_anything() -> None:
    """Benjamini-Hochberg: where no component does anything, some is said to in at most one family of twenty."""
    dice = np.random.default_rng(1)
    smallest = [min(two_sided(list(dice.normal(0, 1, (20, 30))))) for _ in range(REPETITIONS // 2)]
    share = np.mean(np.asarray(smallest) <= 0.05)
    assert share == pytest.approx(0.05, abs=error(0.05, REPETITIONS // 2))  # exactly, of tests that are independent


def test_what_matters_besides_nothing_is_rarely_said_to() -> None:
    dice = np.random.default_rng(2)
    wrong = 0
    for _ in range(FAMILIES):
        clean, corrupt = dice.normal(4, 1, 30), dice.normal(0, 1, 30)
        others = []
        for number in range(6):
            alone = clean - dice.normal(1, 1, 30)
            others.append((str(number), alone, alone + dice.normal(0, 1, 30)))
        wrong += most_needed_besides(clean, others, clean, corrupt) is not None
    assert wrong / FAMILIES <= 0.05 + error(0.05, FAMILIES)


def test_later_heads_that_do_not_react_are_rarely_called_backups() -> None:
    dice = np.random.default_rng(3)
    main: Part = Head(0, 0)
    later: list[Part] = [Head(layer, head) for layer in (1, 2) for head in range(8)]
    out = Knockable("main", frozenset({Head(0, 0)}), frozenset({"main"}))
    graph = CircuitGraph(SHAPE, (), frozenset())
    wrong = 0
    for _ in range(FAMILIES // 4):
        effects = {head: dice.normal(0, 1, 30) for head in later}
        clean = DirectRun({main: dice.normal(5, 1, 30), **effects}, np.zeros(30), {}, dice.normal(5, 1, 30))
        moved = {head: own + dice.normal(0, 1, 30) for head, own in effects.items()}
        patched = {main: np.ones(30, dtype=np.bool_)}
        run = DirectRun({main: np.zeros(30), **moved}, np.zeros(30), patched, dice.normal(0, 1, 30))
        found = knockout(out, clean, run, graph, 5.0)
        assert found is not None
        wrong += bool(found.compensators)
    assert wrong / (FAMILIES // 4) <= 0.05 + error(0.05, FAMILIES // 4)


@pytest.mark.nightly
def test_a_circuit_drawn_as_its_rivals_are_ranks_uniformly_among_them() -> None:
    """The whole pipeline of random circuits, with scores in which no component differs from the others of its layer.

    A claim beats_random then holds by chance, in no more than `at_most_p` of cases.
    """
    circuit = "{groups: {one: {nodes: [a0.h1@A, a0.h2@END, a1.h0]}, two: {nodes: [a2.h3, a2.h5]}}, free: [m0, m1, m2]}"
    graph, document = laid(circuit, replace(SHAPE, d_head=2, d_mlp=16))
    n, places, supported = 39, [], 0
    for repetition in range(REPETITIONS):
        dice = np.random.default_rng(repetition)
        drawn = shuffled(graph, Random(repetition), whole_groups=False)
        own = whole_circuit(document.hypothesis.ablation, drawn, document.source)
        rivals = random_circuits(drawn, own, n, 1000 + repetition, document.source, ("circuit",))
        worth: dict[Site, float] = {}
        scores = {
            run: {"logit_diff": np.full(2, -sum(worth.setdefault(s, dice.standard_normal()) for s in _sorted(run)))}
            for run in (own.circuit, *rivals.kept)
        }
        found = beaten(make_records(scores), "logit_diff", own.circuit, rivals.kept, 0.9, 0.05)
        places.append(round(found.share.value * n))
        supported += found.test.rejects()
    counts = np.bincount(np.asarray(places) // 4, minlength=10)
    assert chisquare(counts).pvalue > 0.01
    assert supported / REPETITIONS <= 0.05 + error(0.05, REPETITIONS)


def _sorted(run: Experiment) -> list[Site]:
    return sorted(run.sites, key=lambda site: (sort_key(site.component), site.where.canonical()))
