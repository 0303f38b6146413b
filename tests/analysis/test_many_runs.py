"""Claims that many runs decide: random circuits, and one claim under several methods."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from circuitspec.analysis.additional_results import evaluate_beside
from circuitspec.analysis.claims.claim_result import ClaimResult
from circuitspec.analysis.claims.many_run_claims import method_name
from circuitspec.analysis.claims.method_sweep import MethodSweep, method_sweep
from circuitspec.analysis.claims.random_circuit_tests import beaten, circuit_tests
from circuitspec.analysis.claims.verdict import judge
from circuitspec.engine.records import Records
from circuitspec.experiments.circuits.additional_runs import Beside
from circuitspec.experiments.circuits.circuit_tests import TestRuns
from circuitspec.experiments.circuits.method_grid import Method, Methods, all_values, own_method, plan_methods
from circuitspec.experiments.circuits.random_circuits import RandomCircuits
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import Plan, make_plan
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.reports.text import additional_tables as told
from circuitspec.reports.text.additional_tables import _sweep_lines, sweep_data
from tests.analysis.support import around, make_records
from tests.graph.test_circuit import FILE, SHAPE

CIRCUIT = "{groups: {one: {nodes: [a0.h1], at: END}, two: {nodes: [a2.h0]}}, paths: [one -> two<q> -> logits]}"


def planned(claim: str) -> Plan:
    text = FILE.format(circuit=CIRCUIT).replace("  - sufficient: {metric: logit_diff, at_least: 0.8}\n", claim)
    document = parse_hypothesis(text, "t.circuit.yaml")
    graph = lay_out(document.hypothesis.circuit, SHAPE, document.source)
    return make_plan(document.hypothesis, graph, document.source, ["abc", "flip"])


def recorded(plan: Plan, means: dict[Experiment, float], metric: str = "logit_diff", n: int = 40) -> Records:
    return make_records({run: {metric: around(means[run], n)} for run in plan.labels})


# -- random circuits --------------------------------------------------------------------------------------------------


def random_plan(beaten_by: int, metric: str = "logit_diff", **settings: object) -> tuple[ClaimResult, Plan]:
    """A circuit that scores 3 of 4, and random ones of which some score 3.5 and the rest 1."""
    said = "".join(f", {key}: {value}" for key, value in settings.items())
    plan = planned(f"  - beats_random: {{metric: {metric}{said}}}\n")
    (claim,) = plan.claims
    assert claim.rivals is not None
    sign = -1.0 if metric == "kl" else 1.0
    others = list(dict.fromkeys(claim.rivals.kept))
    means = dict.fromkeys(plan.labels, 0.0) | {claim.clean: 4.0, claim.corrupt: 0.0}
    means |= {run: 3.5 if i < beaten_by else 1.0 for i, run in enumerate(others)} | {claim.patched: 3.0}
    records = recorded(plan, {run: sign * (value - 4) + 4 * (sign > 0) for run, value in means.items()}, metric)
    (result,) = judge(plan, records)
    return result, plan


def test_a_circuit_that_beats_all_random_ones() -> None:
    claim, plan = random_plan(0)
    (part,) = claim.parts
    assert (claim.kind, claim.measure, claim.status, claim.n) == ("beats_random", "share beaten", "SUPPORTED", 40)
    assert part.estimate is not None
    assert (part.estimate.value, part.estimate.high, part.estimate.method, part.estimate.n) == (1.0, 1.0, "exact", 100)
    assert part.estimate.low == pytest.approx(0.05 ** (1 / 100))  # all of 100: the share p with p ** 100 = 0.05
    assert part.at_least == 0.9
    rivals = plan.claims[0].rivals
    assert rivals is not None
    assert claim.notes[0] == (
        "null hypothesis: the circuit recovers more than at most 90% of random circuits of the same size and profile; "
        f"p = {0.9**100:.2g} (exact binomial test, claimed at most 0.05)"
    )
    assert f"{rivals.n_different} of them different" in claim.notes[1]
    assert rivals.n_different == 2 * 2 - 1  # of two heads in each layer, all but the circuit itself


def test_one_that_most_of_them_beat() -> None:
    claim, plan = random_plan(3)
    assert claim.status == "REFUTED"
    assert claim.parts[0].estimate is not None
    assert (claim.parts[0].estimate.value, plan.labels[plan.claims[0].patched]) == (0.0, "circuit")


def test_between_nothing_is_shown() -> None:
    """Of three different circuits one beats it: about two thirds are beaten, against a quantile of 0.6."""
    claim, plan = random_plan(1, circuits=30, quantile=0.6)
    rivals = plan.claims[0].rivals
    assert rivals is not None
    first = rivals.kept[0]
    wins = sum(run != first for run in rivals.kept)
    p = float(scipy_stats.binom.sf(wins - 1, 30, 0.6))
    assert 0.05 < p < 0.95
    assert (claim.status, claim.found) == ("INCONCLUSIVE", f"p = {p:.2g}")
    assert claim.reason == f"p = {p:.2g} is above 0.05"


def test_less_kl_is_better() -> None:
    assert random_plan(0, "kl")[0].status == "SUPPORTED"
    assert random_plan(3, "kl")[0].status == "REFUTED"


@pytest.mark.parametrize("wins", range(80, 101))
def test_the_interval_and_the_test_say_the_same(wins: int) -> None:
    """Clopper and Pearson's interval is made of the very test that Shi et al. use."""
    runs = [Experiment(f"v{i}") for i in range(101)]
    scores = [0.5] + [0.0] * wins + [1.0] * (100 - wins)
    records = make_records({run: {"prob": [score] * 12} for run, score in zip(runs, scores, strict=True)})
    found = beaten(records, "prob", runs[0], runs[1:], 0.9, 0.05)
    assert found.share.low is not None
    assert found.test.p_value == pytest.approx(float(scipy_stats.binom.sf(wins - 1, 100, 0.9)))
    assert (found.test.p_value <= 0.05) == (found.share.low >= 0.9)


# -- one claim under several methods ----------------------------------------------------------------------------------


def robust(values: dict[str, float], claim: str = "robust_to: [ablation]", n: int = 40) -> ClaimResult:
    """A sufficiency claim of 0.8 to 1.2, recovering these shares by ablation value (4 clean, 0 ablated)."""
    plan = planned(f"  - sufficient: {{metric: logit_diff, at_least: 0.8, at_most: 1.2, {claim}}}\n")
    (one,) = plan.claims
    assert one.methods is not None
    means = dict.fromkeys(plan.labels, 0.0) | {one.clean: 4.0}
    means |= {run.patched: 4 * values[run.method.ablation] for run in one.methods.runs}
    (found,) = judge(plan, recorded(plan, means, n=n))
    return found


SOUND = {"resample": 1.0, "mean": 0.95, "mean_per_template": 0.9, "zero": 1.1}


def test_a_claim_that_holds_under_all_methods() -> None:
    claim = robust(SOUND)
    assert (claim.status, claim.reason, claim.measure) == ("SUPPORTED", "", "recovered")
    assert {part.name: part.estimate.value for part in claim.parts if part.estimate is not None} == pytest.approx(
        {"as in the file": 1.0, "ablation mean": 0.95, "ablation mean_per_template": 0.9, "ablation zero": 1.1}
    )
    assert claim.estimate is not None
    assert claim.estimate.value == pytest.approx(1.0)  # the file's own
    assert claim.found == "0.90 to 1.10 over 4 methods"
    assert [(part.at_least, part.at_most) for part in claim.parts] == [(0.8, 1.2)] * 4


def test_one_method_refutes_it() -> None:
    claim = robust({**SOUND, "zero": 0.1})
    assert claim.status == "REFUTED"
    assert [part.status for part in claim.parts] == ["SUPPORTED", "SUPPORTED", "SUPPORTED", "REFUTED"]


def test_one_method_just_outside_does_not() -> None:
    """Just so far below the bound that the interval ends below it, and the one widened for 4 methods above."""
    claim = robust({**SOUND, "mean": 0.7675})
    (part,) = (part for part in claim.parts if part.name == "ablation mean")
    assert part.estimate is not None
    assert part.estimate.high is not None
    assert part.estimate.high < 0.8
    assert (part.status, claim.status) == ("INCONCLUSIVE", "INCONCLUSIVE")
    assert part.reason == "outside the bound, but not with the interval widened for 4 figures"


def test_a_method_without_a_ratio_decides_nothing() -> None:
    plan = planned("  - sufficient: {metric: logit_diff, at_least: 0.8, robust_to: {ablation: [zero]}}\n")
    (one,) = plan.claims
    assert one.methods is not None
    zero = next(run for run in one.methods.runs if run.method.ablation == "zero")
    means = dict.fromkeys(plan.labels, 4.0) | {one.corrupt: 0.0, zero.corrupt: 5.0}
    (claim,) = judge(plan, recorded(plan, means))
    assert (claim.status, claim.reason) == ("INCONCLUSIVE", "ablation zero: the corrupt run does better")


def test_what_is_not_run_is_said() -> None:
    plan = planned("  - sufficient: {metric: logit_diff, at_least: 0.8, robust_to: [ablation, direction]}\n")
    means = dict.fromkeys(plan.labels, 4.0)
    means |= {run.corrupt: 0.0 for run in plan.claims[0].methods.runs}  # type: ignore[union-attr]
    (claim,) = judge(plan, recorded(plan, means))
    assert [note for note in claim.notes if "not run" in note] == [
        "not run: direction denoising (zero ablation has no corrupt prompts to restore anything in)"
    ]
    assert [part.name for part in claim.parts] == [
        "as in the file",
        "direction denoising",
        "ablation mean",
        "ablation mean_per_template",
        "ablation zero",
    ]


# -- a sweep over all methods -----------------------------------------------------------------------------------------


def swept(score: dict[tuple[str, str], float]) -> MethodSweep:
    """A sweep at node level in which recovered performance depends on level and ablation as given."""
    document = parse_hypothesis(FILE.format(circuit=CIRCUIT), "t.circuit.yaml")
    graph, ablation = lay_out(document.hypothesis.circuit, SHAPE, document.source), document.hypothesis.ablation
    own = own_method(ablation)
    methods: Methods = plan_methods(own, all_values(ablation, ["abc"]), ablation, graph, document.source)
    means = dict.fromkeys(methods.labels, 0.0) | {Experiment("clean"): 4.0}
    for run in methods.runs:
        key = (run.method.level, run.method.value("ablation"))
        means[run.patched] = 4 * (score.get(key, 0.5) if run.method.keeps_circuit else 0.25)
    records = make_records({run: {"logit_diff": around(value, 20)} for run, value in means.items()})
    return method_sweep(methods, records, "logit_diff")


def test_ranges_by_choice() -> None:
    sweep = swept({("node", "resample"): 0.9, ("edge", "zero"): 1.3, ("node", "clean values"): 1.0})
    assert (min(sweep.values(keeps_circuit=True)), max(sweep.values(keeps_circuit=True))) == pytest.approx((0.5, 1.3))
    assert set(np.round(sweep.values(keeps_circuit=False), 9)) == {0.25}
    by_value = {(one.choice, one.value): (one.low, one.median, one.high) for one in sweep.spreads(keeps_circuit=True)}
    assert by_value["level", "node"] == pytest.approx((0.5, 0.5, 1.0))  # 3 others, resample and denoised, by positions
    assert by_value["ablation", "zero"] == pytest.approx((0.5, 0.5, 1.3))
    assert by_value["level", "path"] == pytest.approx((0.5, 0.5, 0.5))
    assert ("set", "circuit") not in by_value
    assert sweep.reasons == {"zero ablation has no corrupt prompts to restore anything in": 12}


def test_the_file_and_one_change() -> None:
    sweep = swept({("node", "resample"): 0.9})
    names = [method_name(score.method, sweep.own) for score in sweep.single_changes()]
    assert names == [
        "as in the file",
        "level edge",
        "level path",
        "ablation mean",
        "ablation mean_per_template",
        "ablation zero",
        "positions all",
        "direction denoising",
    ]
    denoised = sweep.single_changes()[-1].method
    assert denoised == Method("node", "resample", "abc", "declared", "denoising", "circuit")


# -- figures out of all range -----------------------------------------------------------------------------------------


def test_a_patched_run_beyond_its_anchors_is_in_the_table_and_in_no_range() -> None:
    """|patched - corrupt| over |clean - corrupt|: 10.5 is out of range on either side, 9.5 is not."""
    sweep = swept({("path", "zero"): 10.5, ("edge", "zero"): -10.5, ("node", "zero"): 9.5})
    assert {(s.method.level, round(s.recovered.value, 6)) for s in sweep.outside if s.recovered is not None} == {
        ("path", 10.5),
        ("edge", -10.5),
    }
    assert max(sweep.values(keeps_circuit=True)) == pytest.approx(9.5)
    assert min(sweep.values(keeps_circuit=True)) == pytest.approx(0.5)
    assert len(sweep.outside) == 4  # two sets of positions each
    said = next(s.out_of_range for s in sweep.outside if s.method.level == "path")
    assert said.startswith("out of range: logit_diff is 42.00, against 4.00 clean and 0.00 corrupt; zeros also")
    text = "\n".join(_sweep_lines(sweep))
    assert f"{len(sweep.scores) - 4} + 4 out of range" in text
    assert text.count("not counted in lowest, median and highest: recovered 10.50 (path level, noising") == 2
    rows = [row for row in sweep_data(sweep)["methods"] if not row["in_range"] and row["recovered"]]  # type: ignore[attr-defined]
    assert len(rows) == 4
    assert all(row["reason"].startswith("out of range: ") for row in rows)


def _with_one(values: np.ndarray, apart: float = 4.0) -> MethodSweep:
    """A sweep in which means, at node level, give these values, with a corrupt anchor so far below the clean one."""
    document = parse_hypothesis(FILE.format(circuit=CIRCUIT), "t.circuit.yaml")
    graph, ablation = lay_out(document.hypothesis.circuit, SHAPE, document.source), document.hypothesis.ablation
    methods = plan_methods(own_method(ablation), {"ablation": ("resample", "mean")}, ablation, graph, document.source)
    found = {run: around(4.0 if run == Experiment("clean") else 0.0, 20) for run in methods.labels}
    (other,) = (run for run in methods.runs if run.method.ablation == "mean")
    found[other.patched] = np.broadcast_to(values, 20)
    found[other.corrupt] = around(4.0, 20) - apart
    return method_sweep(methods, make_records({run: {"logit_diff": v} for run, v in found.items()}), "logit_diff")


def test_what_is_not_finite_is_out_of_range_and_stops_nothing() -> None:
    sweep = _with_one(np.where(np.arange(20) < 3, np.inf, 4.0))
    (score,) = sweep.outside
    assert score.recovered is None
    assert score.out_of_range == "out of range: logit_diff in the patched run is not finite on 3 of 20 prompts"
    assert len(sweep.values(keeps_circuit=True)) == len(sweep.scores) - 1


def test_anchors_that_hardly_differ_give_no_figure_to_go_by() -> None:
    """0.03 against 4: less than a hundredth; 0.05 is more."""
    (score,) = _with_one(around(4.0, 20), apart=0.03).outside
    assert score.out_of_range == "out of range: its anchors differ by 0.0300, those of the file's method by 4.00"
    assert _with_one(around(4.0, 20), apart=0.05).outside == ()


def test_a_claim_does_not_hold_where_a_method_is_out_of_range() -> None:
    """At least 0.8 would be met by 16384 of 4."""
    plan = planned("  - sufficient: {metric: logit_diff, at_least: 0.8, robust_to: {ablation: [zero]}}\n")
    (one,) = plan.claims
    assert one.methods is not None
    zero = next(run for run in one.methods.runs if run.method.ablation == "zero")
    means = dict.fromkeys(plan.labels, 4.0) | {one.corrupt: 0.0, zero.corrupt: 0.0, zero.patched: 16384.0}
    (claim,) = judge(plan, recorded(plan, means))
    assert claim.status == "REFUTED"
    assert claim.found == "1.00 to 1.00 over 1 method; out of range under ablation zero"
    part = claim.parts[-1]
    assert (part.status, part.reason) == (
        "REFUTED",
        "out of range: logit_diff is 16384.00, against 4.00 clean and 0.00 corrupt",
    )
    assert "a method with which the patched run is out of all range of its anchors fails" in str(claim.notes)


# -- tests of the whole circuit ---------------------------------------------------------------------------------------


def test_the_tests_of_shi_et_al() -> None:
    """A circuit as good as the model, that beats all random ones, with one node that does nothing."""
    n = 40
    runs = {name: Experiment(name) for name in ("model", "circuit", "out", "corrupt", "v1", "v2")}
    kept = tuple(Experiment(f"r{i}") for i in range(50))
    out = tuple(Experiment(f"o{i}") for i in range(50))
    more = tuple(Experiment(f"m{i}") for i in range(50))
    dice = np.random.default_rng(0)
    base = 4 + dice.standard_normal(n)
    even = np.where(np.arange(n) % 2 == 0, 0.1, -0.1)
    values = {
        runs["model"]: base,
        runs["circuit"]: base + even,
        runs["out"]: dice.standard_normal(n),
        runs["corrupt"]: np.zeros(n),
        runs["v1"]: base + even - 2,
        runs["v2"]: base + even,
        **dict.fromkeys(kept, base - 3),
        **dict.fromkeys(out, base - 0.5),
        **{run: base + even + 0.01 * (i + 1) for i, run in enumerate(more)},
    }
    records = make_records({run: {"logit_diff": value} for run, value in values.items()}, [i % 2 for i in range(n)])
    planned_runs = TestRuns(
        runs["model"],
        runs["circuit"],
        runs["out"],
        runs["corrupt"],
        RandomCircuits(kept, out),
        {"a0.h0": runs["v1"], "a0.h1": runs["v2"]},
        more,
    )
    found = circuit_tests(planned_runs, records, "logit_diff")
    by_name = {test.name: test for test in found.tests}
    assert list(by_name) == [
        "equivalence",
        "equivalence shown",
        "independence",
        "sufficiency",
        "partial necessity",
        "minimality of a0.h0",
        "minimality of a0.h1",
    ]
    assert by_name["equivalence"].statistic == 0.5
    assert by_name["independence"].null.endswith(", within each template")
    assert by_name["sufficiency"].p_value == pytest.approx(0.9**50)
    assert by_name["partial necessity"].p_value == pytest.approx(0.9**50)
    assert (by_name["minimality of a0.h0"].statistic, by_name["minimality of a0.h1"].statistic) == (1.0, 0.0)
    assert by_name["minimality of a0.h1"].p_value == pytest.approx(0.1**50)
    rejected = {name for name, test in by_name.items() if test.rejects(found.alpha)}
    assert rejected == {"sufficiency", "partial necessity", "minimality of a0.h1"}
    # Holm: the smallest p times 7, the next times 6, ...
    assert by_name["minimality of a0.h1"].p_adjusted == pytest.approx(7 * 0.1**50)
    assert by_name["sufficiency"].p_adjusted == pytest.approx(6 * 0.9**50)
    assert told.tests_said(found) == (
        "tests of the circuit by logit_diff, rejected at 0.05 for it: sufficiency, partial necessity; against it: "
        "minimality of a0.h1; not rejected, and so not shown: equivalence shown"
    )
    assert told.tests_data(found)["summary"] == {
        "for": ["sufficiency", "partial necessity"],
        "against": ["minimality of a0.h1"],
        "not_shown": ["equivalence shown"],
    }
    whole = evaluate_beside(Beside(None, planned_runs), records, "logit_diff")
    assert (whole.sweep, whole.tests) == (None, found)


def test_where_nothing_can_be_tested_the_reason_is_kept() -> None:
    records = make_records({Experiment("clean"): {"logit_diff": [1.0, 2.0]}})
    found = evaluate_beside(Beside(None, "it has no outside"), records, "logit_diff")
    assert found.tests is not None
    assert (found.tests.tests, found.tests.not_run) == ((), ("it has no outside",))
