"""Claims about paths, and path patching of each declared path: values and intervals against numpy, by hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from scipy.stats import t as student

from circuitspec.analysis.circuit_effects.path_effects import PathEffect, path_effects
from circuitspec.analysis.claims.registry import make_plan
from circuitspec.analysis.claims.verdict import ClaimResult, judge
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.wording import falls, rises
from circuitspec.analysis.warnings.path_warnings import (
    edges_that_are_none,
    idle_paths,
    overruled_paths,
    unfed_senders,
)
from circuitspec.analysis.warnings.score_warnings import unbroken_behaviour
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import Plan, PlannedClaim
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.reports.reported import value_of
from tests.analysis.support import evidence
from tests.graph.test_circuit import FILE, SHAPE

N = 200
SUFFICIENT = "  - sufficient: {metric: logit_diff, at_least: 0.8}\n"
CIRCUIT = "{groups: {one: {nodes: [a0.h0]}}, paths: [one -> m1, m1 -> logits]}"


def plan_of(*claims: str, value: str = "resample, from: abc", level: str = "edge", circuit: str = CIRCUIT) -> Plan:
    text = FILE.format(circuit=circuit).replace("{value: resample, from: abc}", f"{{value: {value}, level: {level}}}")
    given = parse_hypothesis(text.replace(SUFFICIENT, "".join(f"  - {claim}\n" for claim in claims)), "t.circuit.yaml")
    return make_plan(given.hypothesis, lay_out(given.hypothesis.circuit, SHAPE, given.source), given.source)


def about(kind: str, direction: str, metric: str) -> str:
    path, bound = {
        "path": ("one -> m1", "drop_at_least: 0.25" if direction == "noising" else "rise_at_least: 0.25"),
        "mediation": ("one -> m0 -> m1", "direct_at_least: 0.25"),
    }[kind]
    return f"{kind}: {{of: {path}, direction: {direction}, metric: {metric}, {bound}}}"


def drawn(means: Mapping[Experiment, float], metric: str, n: int = N, spread: float = 0.5) -> Records:
    """Values around the means that have something in common, prompt by prompt."""
    rng = np.random.default_rng(7)
    common = rng.normal(0, spread, n)
    values = {run: {metric: mean + common + rng.normal(0, spread, n)} for run, mean in means.items()}
    return Records(values, np.zeros(n, dtype=np.int64))


def by_hand(top: np.ndarray, bottom: np.ndarray) -> tuple[float, float, float]:
    """A ratio of means, and its interval to first order: the t interval of what is left of the top, by prompt."""
    value = top.mean() / bottom.mean()
    error = (top - value * bottom).std(ddof=1) / np.sqrt(len(top)) / abs(bottom.mean())
    reach = student.ppf(0.975, len(top) - 1) * error
    return value, value - reach, value + reach


def assert_estimate(found: Estimate | None, top: np.ndarray, bottom: np.ndarray) -> None:
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    value, low, high = by_hand(top, bottom)
    assert found.value == pytest.approx(value, rel=1e-12)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.06 * (high - low))
    assert found.n == len(top)


METRICS = {"logit_diff": (4.0, -1.0), "kl": (0.0, 5.0), "rank": (0.5, 30.5)}
"""Means in the clean and the corrupt run: of kl and rank lower ones are better."""

SHARES = [0.9, 0.5, 0.1]  # of the way from one anchor to the other


def judged(kind: str, direction: str, metric: str, share: float) -> tuple[PlannedClaim, Records, ClaimResult]:
    """A claim whose patched run lies at this share of the way: from clean to corrupt when noising, and back."""
    plan = plan_of(about(kind, direction, metric))
    (planned,) = plan.claims
    clean, corrupt = METRICS[metric]
    start, end = (clean, corrupt) if direction == "noising" else (corrupt, clean)
    means = {Experiment("clean"): clean, Experiment("abc"): corrupt}
    if kind == "mediation":  # the far anchor is the run with both paths patched: half of the way
        end = (start + end) / 2
        means[planned.corrupt if direction == "noising" else planned.clean] = end
    means[planned.patched] = start + share * (end - start)
    records = drawn(means, metric)
    (result,) = judge(plan, records)
    return planned, records, result


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_drops_and_rises(direction: str, metric: str, share: float) -> None:
    planned, records, result = judged("path", direction, metric, share)
    clean, corrupt, patched = (records[run][metric] for run in (planned.clean, planned.corrupt, planned.patched))
    assert (planned.clean, planned.corrupt) == (Experiment("clean"), Experiment("abc"))
    if direction == "noising":
        assert_estimate(result.estimate, clean - patched, clean - corrupt)
    else:
        assert_estimate(result.estimate, patched - corrupt, clean - corrupt)
    assert result.measure == ("drop" if direction == "noising" else "rise")
    assert result.status == ("SUPPORTED" if share > 0.25 else "REFUTED")
    assert result.experiment == f"{direction} one -> m1"


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_direct_shares(direction: str, metric: str, share: float) -> None:
    """Of the effect that both paths have together, which is not that of the corruption."""
    planned, records, result = judged("mediation", direction, metric, share)
    base = planned.clean if direction == "noising" else planned.corrupt
    both = planned.corrupt if direction == "noising" else planned.clean
    start, end, patched = (records[run][metric] for run in (base, both, planned.patched))
    assert base == Experiment("clean" if direction == "noising" else "abc")
    assert len(both.readings) == len(planned.patched.readings) == 1
    assert_estimate(result.estimate, start - patched, start - end)
    assert result.measure == "direct share"
    assert result.status == ("SUPPORTED" if share > 0.25 else "REFUTED")
    assert result.experiment == f"{direction} one -> m1, beside one -> m0 -> m1"


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_no_share_is_taken_of_next_to_nothing(direction: str) -> None:
    """Both paths together move KL by 0.04 of 5 nats, for every prompt alike: significant, and no ground for a share."""
    plan = plan_of(about("mediation", direction, "kl"))
    (planned,) = plan.claims
    base, both = (planned.clean, planned.corrupt) if direction == "noising" else (planned.corrupt, planned.clean)
    means = {Experiment("clean"): 0.0, Experiment("abc"): 5.0}
    for moved, status in ((0.04, "INCONCLUSIVE"), (0.4, "SUPPORTED")):
        way = moved if direction == "noising" else -moved
        records = drawn({**means, both: means[base] + way, planned.patched: means[base] + 0.9 * way}, "kl", spread=1e-4)
        (result,) = judge(plan, records)
        assert result.status == status
        if status == "INCONCLUSIVE":
            assert result.estimate is None
            assert result.reason == (
                "both paths together change kl by -0.04, next to nothing of the -5 by which all of it changes"
            )


@pytest.mark.parametrize(
    ("metric", "noising", "denoising"),
    [("logit_diff", "falls", "rises"), ("kl", "worsens", "improves"), ("rank", "worsens", "improves")],
)
def test_what_gets_worse_is_said_so(metric: str, noising: str, denoising: str) -> None:
    """KL rises when a path is noised: it does not fall by a share."""
    for direction, verb in (("noising", noising), ("denoising", denoising)):
        _, _, result = judged("path", direction, metric, 0.5)
        assert value_of(result).startswith(f"{metric} {verb} by 0.")


def test_what_the_model_does_inside_falls_and_rises() -> None:
    """An attention or an activation is neither better nor worse."""
    assert (falls("attention(a0.h1, END, IO)"), rises("attention(a0.h1, END, IO)")) == ("falls", "rises")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_inverted_anchors(direction: str, metric: str) -> None:
    """Where the corrupt run does better there is no drop and no rise, and no share of what is no effect on the task."""
    clean, corrupt = METRICS[metric]
    plan = plan_of(about("path", direction, metric), about("mediation", direction, metric))
    path, mediation = plan.claims
    means = {Experiment("clean"): corrupt, Experiment("abc"): clean, path.patched: clean}
    both = mediation.corrupt if direction == "noising" else mediation.clean
    base = mediation.clean if direction == "noising" else mediation.corrupt
    means |= {both: means[base] + 2.0, mediation.patched: means[base] + 1.0}
    records = drawn(means, metric, spread=0.1)
    for result in judge(plan, records):
        assert (result.status, result.estimate) == ("INCONCLUSIVE", None)
        assert result.reason == "no meaningful ratio: the corrupt run does better than the clean one (see CS403)"
    (warning,) = unbroken_behaviour(evidence(plan, records))  # about the prompts, not about paths
    assert warning.code == "CS403"
    alone = plan_of(about("mediation", direction, metric))
    assert unbroken_behaviour(evidence(alone, records)) == [warning]
    (result,) = judge(alone, drawn({**means, Experiment("clean"): clean, Experiment("abc"): clean}, metric))
    assert result.reason == "no ratio: the clean and corrupt runs do not differ (see CS403)"


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_of_an_effect_in_the_other_direction_there_are_shares(direction: str, metric: str) -> None:
    """Both paths together improve what the corruption breaks (or worsen it): by 2, of which the direct one has half."""
    clean, corrupt = METRICS[metric]
    plan = plan_of(about("mediation", direction, metric))
    (planned,) = plan.claims
    both = planned.corrupt if direction == "noising" else planned.clean
    base = planned.clean if direction == "noising" else planned.corrupt
    means = {Experiment("clean"): clean, Experiment("abc"): corrupt}
    away = 2.0 if (clean > corrupt) == (direction == "noising") else -2.0
    means |= {both: means[base] + away, planned.patched: means[base] + away / 2}
    records = drawn(means, metric, spread=0.1)
    (result,) = judge(plan, records)
    start, end, patched = (records[run][metric] for run in (base, both, planned.patched))
    assert_estimate(result.estimate, patched - start, end - start)
    assert result.status == "SUPPORTED"


def test_no_share_of_nothing() -> None:
    plan = plan_of(about("mediation", "noising", "logit_diff"))
    (planned,) = plan.claims
    means = {planned.clean: 4.0, planned.corrupt: 4.0, planned.patched: 4.0, Experiment("abc"): 0.0}
    (result,) = judge(plan, drawn(means, "logit_diff"))
    assert (result.status, result.estimate) == ("INCONCLUSIVE", None)
    assert result.reason == "both paths together have no effect to take a share of"


def test_a_share_may_be_above_one_and_below_zero() -> None:
    """Where the mediated path works against the direct one; nothing is clamped."""
    for share in (1.8, -0.6):
        planned, records, result = judged("mediation", "noising", "logit_diff", share)
        start, end, patched = (records[run]["logit_diff"] for run in (planned.clean, planned.corrupt, planned.patched))
        assert_estimate(result.estimate, start - patched, start - end)
        assert result.estimate is not None
        assert result.estimate.value == pytest.approx(share, abs=0.1)


# ----------------------------------------------------------------------- path patching of each declared path


def effects(
    ablated: float,
    restored: float,
    *,
    metric: str = "logit_diff",
    value: str = "resample, from: abc",
    spread: float = 0.5,
) -> tuple[Plan, Records, tuple[PathEffect, ...]]:
    """Of both declared paths, the second one of which does all there is to do."""
    plan = plan_of("sufficient: {metric: logit_diff, at_least: 0.8}", value=value)
    clean, corrupt = METRICS[metric]
    first, second = plan.checks
    means = {plan.clean: clean, first.anchor: corrupt, first.ablated: ablated, second.ablated: corrupt}
    for check, mean in ((first, restored), (second, clean)):
        if check.restored is not None and check.corrupt is not None:
            means |= {check.corrupt: corrupt, check.restored: mean}
    records = drawn(means, metric, spread=spread)
    return plan, records, path_effects(plan, records, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_effects_of_declared_paths(metric: str) -> None:
    clean, corrupt = METRICS[metric]
    between = (clean + corrupt) / 2
    plan, records, found = effects(between, between, metric=metric)
    assert [effect.path for effect in found] == ["one -> m1", "m1 -> logits"]
    for check, effect in zip(plan.checks, found, strict=True):
        assert check.restored is not None
        assert check.corrupt is not None
        own = {name: records[run][metric] for name, run in vars(check).items() if isinstance(run, Experiment)}
        whole = records[plan.clean][metric]
        assert_estimate(effect.drop, whole - own["ablated"], whole - own["anchor"])
        assert_estimate(effect.rise, own["restored"] - own["corrupt"], whole - own["corrupt"])
        assert not effect.is_idle(0.01)


def test_means_have_two_anchors_and_zeros_no_corrupt_run() -> None:
    plan, _, found = effects(1.5, 1.5, value="mean, from: abc")
    assert plan.checks[0].anchor.level == "edge"
    assert plan.checks[0].corrupt == Experiment("abc")
    assert all(effect.drop is not None and effect.rise is not None for effect in found)
    _, _, found = effects(1.5, 1.5, value="zero")
    assert [effect.rise for effect in found] == [None, None]
    assert all(effect.drop is not None for effect in found)


def test_without_a_gap_there_are_no_effects_and_no_idle_paths() -> None:
    plan, records, _ = effects(4.0, -1.0)
    same = Records(dict.fromkeys(records.values, records[plan.clean]), records.templates)
    found = path_effects(plan, same, "logit_diff")
    assert [(effect.drop, effect.rise) for effect in found] == [(None, None)] * 2
    assert idle_paths(evidence(paths=found)) == []
    assert path_effects(plan, records, "prob")[0].drop is None  # which was not measured


def estimate(value: float, low: float | None, high: float | None) -> Estimate:
    return Estimate(value, low, high, 0.95, N, "none" if low is None else "bca")


def test_idle_is_what_surely_does_nothing_either_way() -> None:
    nothing, little, unsure = estimate(0.0, -0.004, 0.005), estimate(0.02, 0.015, 0.025), estimate(0.0, -0.03, 0.03)
    for drop, rise, idle in (
        (nothing, nothing, True),
        (nothing, None, True),
        (None, nothing, True),
        (nothing, little, False),
        (little, nothing, False),
        (nothing, unsure, False),
        (nothing, estimate(0.0, None, None), False),
        (None, None, False),
    ):
        assert PathEffect("A -> B", "logit_diff", drop, rise).is_idle(0.01) == idle, (drop, rise)


def test_idle_paths_are_warned_of() -> None:
    """CS406, from the records to the words."""
    plan, records, found = effects(4.0, -1.0)
    quiet = dict(records.values)
    quiet[plan.checks[0].ablated] = records[plan.clean]
    assert plan.checks[0].restored is not None
    quiet[plan.checks[0].restored] = records[Experiment("abc")]
    found = path_effects(plan, Records(quiet, records.templates), "logit_diff")
    (warning,) = idle_paths(evidence(paths=found))
    assert (warning.code, warning.message) == ("CS406", "the path one -> m1 has no effect by itself")
    same = "0.00 [0.00, 0.00] (the same for every prompt)"
    assert (
        warning.detail
        == f"ablated, logit_diff falls by {same}; restored in the corrupt run, logit_diff rises by {same}"
    )
    assert warning.help == (
        "take it out, or say what compensates for it: paths in parallel (OR, backup) hide each other's effect"
    )
    told = {"value": 0.0, "ci": [0.0, 0.0], "level": 0.95, "n": N, "method": "constant"}
    assert warning.data == {"path": "one -> m1", "metric": "logit_diff", "drop": told, "rise": told}


def test_components_that_nothing_feeds_are_warned_of() -> None:
    """CS407; eight of them by name, all in the data."""
    assert unfed_senders(evidence(unfed=())) == []
    (warning,) = unfed_senders(evidence(unfed=("a0.h1", "m0")))
    assert (warning.code, warning.message) == ("CS407", "no kept edge leads into a0.h1, m0")
    assert warning.detail == (
        "at edge level a component computes from the edges that are kept; from none it computes what it does in "
        "the source's run, so that the edges that leave it carry nothing"
    )
    assert warning.help == "declare what feeds it, down to the embeddings: `input -> NAME<q,k,v>`"
    many = tuple(f"a1.h{h}" for h in range(10))
    (warning,) = unfed_senders(evidence(unfed=many))
    assert warning.message == f"no kept edge leads into {', '.join(many[:8])} and 2 more"
    assert warning.data == {"components": [*many]}


CLAIM = "sufficient: {metric: logit_diff, at_least: 0.8}"


@pytest.mark.parametrize("level", ["edge", "path"])
def test_pairs_that_share_no_position_are_warned_of(level: str) -> None:
    """CS408: a0.h0 writes at A alone, which queries and MLPs at END do not read; a2.h0 comes too late anyway."""
    groups = "one: {nodes: [a0.h0, a2.h0], at: A}, two: {nodes: [a1.h0, m1], at: END}"
    apart = plan_of(CLAIM, level=level, circuit=f"{{groups: {{{groups}}}, paths: [one -> two -> logits]}}")
    (warning,) = edges_that_are_none(evidence(apart))
    assert warning.code == "CS408"
    assert warning.message == "paths name what is no edge: a0.h0 -> a1.h0<q>, a0.h0 -> m1"
    assert warning.detail == "a0.h0 writes at A, and that reads at END, so that nothing is kept between the two"
    assert warning.data == {"pairs": ["a0.h0 -> a1.h0<q>", "a0.h0 -> m1"]}
    met = plan_of(CLAIM, level=level, circuit=f"{{groups: {{{groups}}}, paths: ['one -> a1.h0<k,v> -> logits']}}")
    assert edges_that_are_none(evidence(met)) == []


def test_paths_into_what_starts_anyway_are_warned_of() -> None:
    """CS409: a1.h0 sends its whole clean value to the logits by the second path, whatever the first brings it."""
    start = "{groups: {one: {nodes: [a0.h0]}}, paths: ['one -> a1.h0<v> -> logits', 'a1.h0 -> logits']}"
    (warning,) = overruled_paths(evidence(plan_of(CLAIM, level="path", circuit=start)))
    assert (warning.code, warning.message) == ("CS409", "paths into a1.h0 add nothing")
    assert warning.data == {"components": ["a1.h0"]}
    assert (
        overruled_paths(evidence(plan_of(CLAIM, level="edge", circuit=start))) == []
    )  # edges are kept each for itself
    for continued in (
        "['one -> a1.h0<v>', 'a1.h0 -> logits']",  # the second goes on where the first ends
        "['one -> a1.h0<v> -> logits', 'a1.h0 -> m2 -> logits']",  # another rest of the path
        "['one -> a1.h0<v>@END -> logits', 'a1.h0@A -> logits']",  # other positions
    ):
        circuit = f"{{groups: {{one: {{nodes: [a0.h0]}}}}, paths: {continued}}}"
        assert overruled_paths(evidence(plan_of(CLAIM, level="path", circuit=circuit))) == []
