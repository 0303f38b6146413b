"""Completeness and minimality on made-up models whose scores are sums, gates and backups of their nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from circuitspec.analysis.claims.claim_result import ClaimResult
from circuitspec.analysis.claims.kinds.subset_claims import PlannedSubsets
from circuitspec.analysis.claims.registry import make_plan, search_claims
from circuitspec.analysis.claims.subset_search import size_of
from circuitspec.analysis.claims.verdict import judge
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.split_sample import halves
from circuitspec.analysis.warnings.prompt_warnings import prompts_needed, too_few_prompts
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import Plan
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from tests.analysis.support import evidence
from tests.graph.test_circuit import FILE, SHAPE

# six heads: a, b, c, d are the circuit, e and f outside
HEADS = {"a": Head(0, 0), "b": Head(0, 1), "c": Head(1, 0), "d": Head(1, 1), "e": Head(2, 0), "f": Head(2, 1)}
CIRCUIT = "{groups: {one: {nodes: [a0.h0, a0.h1]}, two: {nodes: [a1.h0, a1.h1]}}, free: ['m*']}"
Score = Callable[[frozenset[str]], float]  # of the heads that are not ablated


@dataclass
class Model:
    """Scores a run by the heads that it leaves; `noise` is of every prompt, with mean 0 and spread 1 in each half."""

    score: Score
    n: int = 60
    noise: float = 0.01
    templates: int = 2
    ran: list[Experiment] = field(default_factory=list)

    def run(self, experiments: Iterable[Experiment]) -> Records:
        values = {}
        for one in experiments:
            self.ran.append(one)
            gone = {site.component for site in one.sites}
            assert all(site.where.is_everywhere for site in one.sites)
            left = frozenset(name for name, head in HEADS.items() if head not in gone)
            score = self.score(left if one.base == "clean" else frozenset())
            values[one] = {"logit_diff": score + self.noise * self._noise(int(one.digest[:8], 16))}
        return Records(values, self._templates)

    @property
    def _templates(self) -> NDArray[np.int64]:
        return np.arange(self.n, dtype=np.int64) % self.templates

    def _noise(self, seed: int) -> NDArray[np.float64]:
        drawn = np.random.default_rng(seed).standard_normal(self.n)
        divided = halves(self._templates)
        for half in (divided.search, divided.judge):
            drawn[half] = (drawn[half] - drawn[half].mean()) / drawn[half].std(ddof=1)
        return drawn


def planned(claim: str) -> Plan:
    text = FILE.format(circuit=CIRCUIT).replace("  - sufficient: {metric: logit_diff, at_least: 0.8}\n", claim)
    document = parse_hypothesis(text, "t.circuit.yaml")
    graph = lay_out(document.hypothesis.circuit, SHAPE, document.source)
    return make_plan(document.hypothesis, graph, document.source)


def judged(claim: str, model: Model) -> tuple[ClaimResult, Plan]:
    plan = planned(claim)
    records = model.run(plan.experiments)
    plan, records = search_claims(plan, records, model)
    (found,) = judge(plan, records)
    return found, plan


COMPLETE = "  - complete: {metric: logit_diff, at_most: 0.1, subsets: {random: %d, greedy: %d, candidates: %d}}\n"
MINIMAL = "  - minimal: {metric: logit_diff, at_least: 0.05, subsets: {random: %d, greedy: %d, candidates: %d}}\n"


def additive(left: frozenset[str]) -> float:
    """a, b, c and d bring 1 each; e and f nothing."""
    return float(len(left & set("abcd")))


def backed_up(left: frozenset[str]) -> float:
    """e, which the circuit leaves out, takes over where both a and b fail, half if c and d do too; full score is 4."""
    main, others = 2.0 if left & {"a", "b"} else 0.0, float(len(left & {"c", "d"}))
    return main + others + ((2.0 if others else 1.0) if "e" in left and not main else 0.0)


def test_a_circuit_of_all_that_matters_is_complete() -> None:
    claim, plan = judged(COMPLETE % (3, 2, 4), Model(additive))
    assert (claim.kind, claim.measure, claim.status, claim.reason) == ("complete", "incompleteness", "SUPPORTED", "")
    assert {part.name for part in claim.parts} >= {"nothing", "all of it", "one", "two"}
    assert claim.n == 30
    for part in claim.parts:
        assert part.estimate is not None
        assert part.estimate.value < 0.02
        assert (part.at_least, part.at_most, part.estimate.n) == (None, 0.1, 30)
    assert isinstance(plan.claims[0], PlannedSubsets)
    assert plan.claims[0].trials.settled


def test_a_backup_that_was_left_out_shows_where_its_group_is_taken_out() -> None:
    """Without a and b, e gives the model its 2 back and the circuit nothing: |2 - 4| of 4."""
    claim, plan = judged(COMPLETE % (0, 0, 1), Model(backed_up))
    worst = claim.parts[0]
    assert worst.estimate is not None
    assert (claim.status, worst.name) == ("REFUTED", "one")
    assert worst.estimate.value == pytest.approx(abs((1 + 1) - (2 + 1 + 1)) / 4, abs=0.01)
    assert worst.means == pytest.approx((4.0, 2.0), abs=0.02)  # the model without it, the circuit without it
    assert worst.nodes == ("a0.h0", "a0.h1")
    assert claim.found == "without one: the circuit keeps less than the model"
    others = {part.name: part.estimate.value for part in claim.parts[1:] if part.estimate is not None}
    # without all of it, half of e is left to the model: (1 - 0) / 4
    assert others == pytest.approx({"all of it": 0.25, "nothing": 0.0, "two": 0.0}, abs=0.01)
    assert plan.labels[plan.claims[0].trials.subsets[2].circuit] == "circuit without one"  # type: ignore[union-attr]


def test_the_greedy_search_finds_what_no_group_shows() -> None:
    """e compensates for a and c where both are gone, and for a little of either."""

    def hidden(left: frozenset[str]) -> float:
        gone = {"a", "c"} - left
        return additive(left) + ((0.0, 0.2, 3.0)[len(gone)] if "e" in left and {"b", "d"} <= left else 0.0)

    alone, _ = judged(COMPLETE % (0, 0, 1), Model(hidden))
    assert alone.status == "SUPPORTED"
    claim, _ = judged(COMPLETE % (0, 2, 4), Model(hidden))
    worst = claim.parts[0]
    assert (claim.status, worst.name, set(worst.nodes or ())) == ("REFUTED", "greedy", {"a0.h0", "a1.h0"})
    assert worst.estimate is not None
    assert worst.estimate.value == pytest.approx(3 / 4, abs=0.01)


def test_the_greedy_search_takes_the_worst_of_what_it_tries_step_by_step() -> None:
    """e compensates for each node that is taken out, by more for those later in the alphabet: d, then c, then b."""
    worth = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}

    def compensated(left: frozenset[str]) -> float:
        return additive(left) + (sum(v for name, v in worth.items() if name not in left) if "e" in left else 0.0)

    model = Model(compensated, noise=1e-3)
    claim, plan = judged((COMPLETE % (0, 3, 4)).replace("random: 0", "groups: false, random: 0"), model)
    (greedy,) = (part for part in claim.parts if part.name == "greedy")
    assert greedy.nodes == ("a1.h1", "a1.h0", "a0.h1")
    assert greedy.estimate is not None
    assert greedy.estimate.value == pytest.approx((0.4 + 0.3 + 0.2) / 4, abs=0.01)
    trials = plan.claims[0].trials
    assert trials is not None
    # two subsets beforehand; then 4, 3 and 2 nodes tried, each with circuit and model
    assert len(model.ran) == len(planned(COMPLETE % (0, 0, 1)).experiments) - 2 * 2 + 2 * (4 + 3 + 2)


def test_figures_come_from_prompts_that_nothing_was_searched_on() -> None:
    """Noise alone: the worst of many subsets looks bad where it was found, and not on the other half."""
    n, flattered, honest = 40, [], []
    for seed in range(12):
        model = Model(additive, n=n, noise=0.0)
        noisy = np.random.default_rng(seed)
        run = model.run

        def noised(experiments: Iterable[Experiment], run=run, noisy=noisy) -> Records:  # type: ignore[no-untyped-def]
            found = run(experiments)
            return Records(
                {e: {"logit_diff": v["logit_diff"] + noisy.standard_normal(n)} for e, v in found.values.items()},
                found.templates,
            )

        model.run = noised  # type: ignore[method-assign]
        plan = planned(COMPLETE % (10, 3, 4))
        records = model.run(plan.experiments)
        plan, records = search_claims(plan, records, model)
        (claim,) = judge(plan, records)
        half, trials = halves(records.templates), plan.claims[0].trials
        assert trials is not None
        differences = (records[s.circuit]["logit_diff"] - records[s.model]["logit_diff"] for s in trials.subsets)
        flattered.append(max(abs(np.mean(values[half.search])) for values in differences) / 4)
        assert claim.parts[0].estimate is not None
        honest.append(claim.parts[0].estimate.value)
    # the mean of 20 differences of two standard normals has a spread of sqrt(2 / 20) = 0.32, 0.08 of the 4; so half
    # of a folded normal's mean is 0.063, and the largest of a dozen is about twice as large
    assert np.mean(honest) < 0.1 < np.mean(flattered)


def redundant(left: frozenset[str]) -> float:
    """c and d do the same: either is enough."""
    return float("a" in left) + float("b" in left) + (2.0 if left & {"c", "d"} else 0.0)


def test_a_redundant_node_matters_without_its_twin() -> None:
    """Minimality is about some subset K: with nothing else out, c makes no difference."""
    claim, plan = judged(MINIMAL % (0, 0, 1), Model(redundant))
    assert (claim.kind, claim.measure, claim.status) == ("minimal", "effect", "SUPPORTED")
    parts = {part.name: (part.note, part.nodes) for part in claim.parts}
    assert parts["a1.h0"] == ("without rest of two", ("a1.h1",))
    assert parts["a1.h1"] == ("without rest of two", ("a1.h0",))
    values = {part.name: part.estimate.value for part in claim.parts if part.estimate is not None}
    assert values == pytest.approx({"a0.h0": 1 / 4, "a0.h1": 1 / 4, "a1.h0": 2 / 4, "a1.h1": 2 / 4}, abs=0.01)
    c = claim.parts[2]
    assert c.means == pytest.approx((4.0, 2.0), abs=0.02)  # circuit without d, and without d and c
    assert isinstance(plan.claims[0], PlannedSubsets)
    assert len(plan.claims[0].trials.removals) == 4


def test_an_idle_node_is_no_part_of_a_minimal_circuit() -> None:
    claim, _ = judged(MINIMAL % (2, 2, 2), Model(lambda left: additive(left - {"d"})))
    status = {part.name: part.status for part in claim.parts}
    assert status == {"a0.h0": "SUPPORTED", "a0.h1": "SUPPORTED", "a1.h0": "SUPPORTED", "a1.h1": "REFUTED"}
    assert claim.status == "REFUTED"
    assert claim.found.startswith("a1.h1 without ")


@pytest.mark.parametrize(
    ("search", "taken", "note"),
    [
        ((0, 0, 1), {"a0.h0", "a0.h1"}, "without one"),  # the other group
        ((0, 2, 4), {"a0.h0", "a0.h1"}, "without one"),
    ],
)
def test_other_groups_are_tried_for_a_node_that_needs_them(search: tuple[int, ...], taken: set[str], note: str) -> None:
    """d acts only where a and b are both gone."""

    def stand_in(left: frozenset[str]) -> float:
        gone = not left & {"a", "b"}
        return 2.0 * bool(left & {"a", "b"}) + float("c" in left) + (1.0 if gone and "d" in left else 0.0)

    claim, _ = judged(MINIMAL % search, Model(stand_in))
    d = claim.parts[3]
    assert (d.name, set(d.nodes or ()), d.note) == ("a1.h1", taken, note)
    assert d.estimate is not None
    assert d.estimate.value == pytest.approx(1 / 3, abs=0.02)


def test_the_greedy_search_grows_a_subset_for_a_node() -> None:
    """d acts only where a and c are gone, which are in no group together, and b is not."""

    def deep(left: frozenset[str]) -> float:
        alone = "b" in left and not left & {"a", "c"}
        return float(len(left & set("abc"))) + (0.3 * ("a" not in left) + 1.0 * alone if "d" in left else 0.0)

    model = Model(deep, noise=1e-3)
    claim, _ = judged((MINIMAL % (0, 2, 4)).replace("0.05, subsets: {", "0.2, subsets: {groups: false, "), model)
    d = claim.parts[3]
    assert (d.name, set(d.nodes or ()), d.status) == ("a1.h1", {"a0.h0", "a1.h0"}, "SUPPORTED")
    assert d.estimate is not None
    assert d.estimate.value == pytest.approx((0.3 + 1.0) / 3, abs=0.01)


def test_nodes_that_matter_at_once_cost_no_search() -> None:
    model = Model(additive)
    plan = planned(MINIMAL % (3, 2, 4))
    records = model.run(plan.experiments)
    before = len(model.ran)
    search_claims(plan, records, model)
    assert len(model.ran) == before


def test_half_of_too_few_prompts_decides_nothing() -> None:
    claim, _ = judged(COMPLETE % (0, 0, 1), Model(additive, n=18))
    assert (claim.status, claim.parts) == ("INCONCLUSIVE", ())
    assert claim.reason == (
        "9 prompts are too few for a verdict, which needs 10: the other 9 are searched on, so that the file needs 20"
    )


def test_runs_that_do_not_differ_decide_nothing() -> None:
    claim, _ = judged(COMPLETE % (0, 2, 1), Model(lambda left: 1.0))
    assert claim.status == "INCONCLUSIVE"
    assert "CS403" in claim.reason


def test_one_figure_outside_is_confirmed_by_a_wider_interval() -> None:
    """One subset of eight just outside the bound, with an interval that the correction stretches over it.

    Its differences have a spread of 0.14 * sqrt(2), of 4: 0.049, and their mean over 30 prompts one of 0.009. So 1.96
    of these below 0.1175 is 0.100 (0.103, as it is drawn), and 2.7 of them (a level of 1 - 0.05 / 8) 0.094 (0.098).
    """

    def short(left: frozenset[str]) -> float:
        return additive(left) - (4 * 0.1175 if left == frozenset("cd") else 0.0)  # the circuit without group one

    claim, _ = judged((COMPLETE % (10, 0, 1)).replace("random: 10", "random: 12, seed: 1"), Model(short, noise=0.14))
    (one,) = (part for part in claim.parts if part.name == "one")
    assert one.estimate is not None
    assert one.estimate.low is not None
    assert one.estimate.low > 0.1  # by itself it lies outside
    assert (one.status, claim.status) == ("INCONCLUSIVE", "INCONCLUSIVE")
    assert one.reason == f"outside the bound, but not with the interval widened for {len(claim.parts)} figures"
    assert any("Bonferroni" in note for note in claim.notes)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.3, -0.1, (0.1, 0.3)), (0.1, 0.3, (0.1, 0.3)), (-0.3, 0.1, (0.0, 0.3)), (-0.1, 0.3, (0.0, 0.3))],
)
def test_sizes_are_intervals_of_absolute_values(low: float, high: float, expected: tuple[float, float]) -> None:
    found = size_of(Estimate((low + high) / 2, low, high, 0.95, 30, "bca"))
    assert (found.low, found.high) == expected
    assert found.value == abs((low + high) / 2)


def test_halves_divide_every_template() -> None:
    templates = np.repeat([0, 1, 2], [10, 7, 4]).astype(np.int64)
    found = halves(templates)
    assert not (found.search & found.judge).any()
    assert (found.search | found.judge).all()
    for template, size in enumerate((10, 7, 4)):
        assert abs(int(found.judge[templates == template].sum()) - size / 2) <= 0.5
    assert found.n_judge == found.n_search + 1 == 11
    other = halves(templates, seed=1)
    assert (other.judge != found.judge).any()


def test_more_prompts_are_asked_for_where_half_of_them_judge() -> None:
    """CS424: the intervals are of half of the prompts, so that the file needs twice as many as those."""

    def near(left: frozenset[str]) -> float:
        return additive(left) - (4 * 0.095 if left == frozenset("cd") else 0.0)

    claim, _ = judged(COMPLETE % (0, 0, 1), Model(near, noise=0.14))
    (part,) = (part for part in claim.parts if part.name == "one")
    assert part.status == "INCONCLUSIVE"
    by_itself = replace(claim, parts=(), estimate=part.estimate, measure="recovered")
    needed = prompts_needed(by_itself)
    assert needed is not None
    (warning,) = too_few_prompts(evidence(claims=[claim]))
    assert (warning.data["n"], warning.data["needed"]) == (30, 2 * needed)
