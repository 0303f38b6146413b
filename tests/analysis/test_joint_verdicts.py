"""Verdicts of claims that several figures decide."""

from __future__ import annotations

import numpy as np
import pytest

from circuitspec.analysis.claims.kinds.gate import GateRuns, PlannedGate
from circuitspec.analysis.claims.kinds.traces import PlannedTraces, Traced
from circuitspec.analysis.claims.verdict import ClaimResult, judge
from circuitspec.analysis.statistics.scores import Anchors, anchors, denominators
from circuitspec.analysis.statistics.stats import Values
from circuitspec.analysis.warnings.prompt_warnings import too_few_prompts
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.experiments.planner import Plan
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.schema.claims.gate_block import Gate, GateName
from circuitspec.hypothesis_file.schema.claims.traces_block import Traces
from tests.analysis.support import CIRCUIT, CLEAN, CORRUPT, evidence, make_records


def patched(base: str, source: str, *heads: int) -> Experiment:
    return Experiment(base, Source("resample", source), frozenset(Site(Head(0, h), Where.everywhere()) for h in heads))


NOISED = (patched("clean", "abc", 0), patched("clean", "abc", 1), patched("clean", "abc", 0, 1))
DENOISED = (patched("abc", "clean", 0), patched("abc", "clean", 1), patched("abc", "clean", 0, 1))
OTHERS = ("abc", "flip", "none")


def around(mean: float, n: int, spread: float, seed: int) -> Values:
    draws = np.random.default_rng(seed).normal(0, spread, n)
    return np.asarray(mean + draws - draws.mean())


def records(means: dict[Experiment, float], n: int, spread: float) -> Records:
    columns = {run: {"logit_diff": around(mean, n, spread, i)} for i, (run, mean) in enumerate(means.items())}
    return make_records(columns)


def gate_plan(claimed: GateName) -> Plan:
    claim = Gate(nodes=("a0.h0", "a0.h1"), gate=claimed, metric="logit_diff")
    runs = GateRuns(("a0.h0", "a0.h1"), NOISED, DENOISED)
    planned = PlannedGate(0, claim, NOISED[2], CLEAN, CORRUPT, "interaction", gate=runs)
    labels = {run: str(i) for i, run in enumerate(planned.runs)}
    return Plan(labels, CLEAN, CORRUPT, CIRCUIT, (planned,))


def gate(
    claimed: GateName, noised: tuple[float, ...], denoised: tuple[float, ...], n: int = 40, spread: float = 0.2
) -> ClaimResult:
    """A gate claimed of parts with these scores (first, second, both) between 0 corrupt and 4 clean."""
    means = {CLEAN: 4.0, CORRUPT: 0.0, **dict(zip(NOISED + DENOISED, noised + denoised, strict=True))}
    (claim,) = judge(gate_plan(claimed), records(means, n, spread))
    return claim


def test_a_supported_gate_has_two_figures() -> None:
    claim = gate("and", (0, 0, 0), (0, 0, 4))
    assert (claim.status, claim.kind, claim.measure, claim.reason) == ("SUPPORTED", "gate", "interaction", "")
    assert claim.found == "and: both are needed, neither is enough"
    assert (claim.estimate, claim.at_least, claim.at_most) == (None, None, None)
    noised, denoised = claim.parts
    assert noised.estimate is not None
    assert denoised.estimate is not None
    assert noised.estimate.value == pytest.approx((4 + 4 - 4) / 4)
    assert denoised.estimate.value == pytest.approx((0 + 0 - 4) / 4)
    assert [(p.name, p.status, p.at_least, p.at_most) for p in claim.parts] == [
        ("noised", "SUPPORTED", 0.5, None),
        ("denoised", "SUPPORTED", None, -0.5),
    ]
    assert claim.experiment == "noising and denoising a0.h0, a0.h1, and both"


def test_one_direction_refutes_a_gate() -> None:
    claim = gate("and", (0, 0, 0), (2, 2, 4))  # denoised, effects add up
    assert [part.status for part in claim.parts] == ["SUPPORTED", "REFUTED"]
    assert (claim.status, claim.reason) == ("REFUTED", "")


def test_an_interval_across_the_bound_is_inconclusive() -> None:
    claim = gate("and", (1, 1, 0), (0, 0, 4))  # (3 + 3 - 4) / 4 is just the bound
    assert [part.status for part in claim.parts] == ["INCONCLUSIVE", "SUPPORTED"]
    assert claim.status == "INCONCLUSIVE"
    assert claim.found is not None
    assert claim.found.startswith("partly AND: ")
    assert claim.reason == "noised: the confidence interval crosses the bound"


def test_the_undecided_figure_asks_for_more_prompts() -> None:
    """CS424 names the figure, and counts by its own bound."""
    claim = gate("and", (1, 1.04, 0), (0, 0, 4))  # (3 + 2.96 - 4) / 4 is 0.49
    (warning,) = too_few_prompts(evidence(claims=[claim]))
    assert warning.message.startswith("40 prompts do not decide `gate` (noised): 0.49 [")
    assert "the bound (at least 0.5) is 0.01 away" in warning.message
    assert too_few_prompts(evidence(claims=[gate("and", (0, 0, 0), (0, 0, 4))])) == []


def test_parts_that_do_nothing_together_are_inconclusive() -> None:
    """A third part keeps the behaviour up where both are noised."""
    claim = gate("or", (4, 4, 4), (4, 4, 4))
    assert [part.estimate is None for part in claim.parts] == [True, False]
    assert (claim.status, claim.reason) == ("INCONCLUSIVE", "noised: both together break next to nothing")
    claim = gate("and", (0, 0, 0), (0, 0, 0))
    assert (claim.status, claim.reason) == ("INCONCLUSIVE", "denoised: both together restore next to nothing")


def test_too_few_prompts_decide_no_gate() -> None:
    claim = gate("and", (0, 0, 0), (0, 0, 4), n=6)
    assert (claim.status, claim.reason) == ("INCONCLUSIVE", "6 prompts are too few for a verdict, which needs 10")
    assert len(claim.parts) == 2


def test_without_a_difference_between_the_anchors_there_are_no_parts() -> None:
    means = dict.fromkeys((CLEAN, CORRUPT, *NOISED, *DENOISED), 1.0)
    (claim,) = judge(gate_plan("and"), records(means, 40, 0.2))
    assert (claim.status, claim.parts) == ("INCONCLUSIVE", ())
    assert "CS403" in claim.reason


def test_every_run_of_a_gate_must_be_measured() -> None:
    means = dict.fromkeys((CLEAN, CORRUPT, *NOISED, *DENOISED), 1.0)
    found = records(means, 40, 0.2)
    lacking = Records({**found.values, DENOISED[1]: {"kl": np.zeros(40)}}, found.templates)
    with pytest.raises(CircuitspecError, match="CS512"):
        judge(gate_plan("and"), lacking)


def traces_plan(*to: str, at_least: float = 0.5, others_at_most: float = 0.1) -> Plan:
    claim = Traces.model_validate(
        {"nodes": ("a0.h0",), "to": to, "metric": "logit_diff", "at_least": at_least, "others_at_most": others_at_most},
        by_alias=True,
    )
    traced = tuple(Traced(c, c in to, patched("clean", c, 0), Experiment(c)) for c in OTHERS)
    planned = PlannedTraces(0, claim, traced[0].noised, CLEAN, CORRUPT, "reaction", traced=traced)
    return Plan({run: str(run.base) for run in planned.runs}, CLEAN, CORRUPT, CIRCUIT, (planned,))


def traces(plan: Plan, noised: tuple[float, ...], corrupt: tuple[float, ...] = (0, 2, 4), n: int = 40) -> ClaimResult:
    """4 clean; `abc`, `flip` and `none` leave `corrupt`, and the component noised from them leaves `noised`."""
    runs = {one.noised: value for one, value in zip(plan.claims[0].traced, noised, strict=True)}
    means = {CLEAN: 4.0, **dict(zip(map(Experiment, OTHERS), corrupt, strict=True)), **runs}
    (claim,) = judge(plan, records(means, n, 0.2))
    return claim


def test_reactions_are_shares_of_what_each_corruption_takes_away() -> None:
    claim = traces(traces_plan("abc", "flip"), (1, 2.5, 3.9))
    values = [part.estimate.value for part in claim.parts if part.estimate is not None]
    assert values == pytest.approx([(4 - 1) / 4, (4 - 2.5) / 2, (4 - 3.9) / 4])  # `none` takes nothing: of abc's 4
    assert [part.note for part in claim.parts] == ["", "", "of what abc takes away"]
    assert [(part.at_least, part.at_most) for part in claim.parts] == [(0.5, None), (0.5, None), (-0.1, 0.1)]
    assert (claim.status, claim.found, claim.measure) == ("SUPPORTED", "abc, flip", "reaction")
    assert claim.experiment == "noising a0.h0 from abc, flip, none"


def test_a_corruption_that_helps_is_no_measure_either() -> None:
    claim = traces(traces_plan("abc"), (1, 4, 4), (0, 5, 4))
    assert [part.note for part in claim.parts] == ["", "of what abc takes away", "of what abc takes away"]
    assert claim.status == "SUPPORTED"


def test_a_corruption_that_hardly_breaks_anything_is_no_measure() -> None:
    """0.02 of 4 is surely something where all prompts agree, and still nothing to take a share of."""
    claim = traces(traces_plan("abc"), (1, 3.98, 4), (0, 3.98, 4))
    assert claim.parts[1].note == "of what abc takes away"


def test_a_reaction_to_another_corruption_refutes() -> None:
    claim = traces(traces_plan("abc"), (0, 2, 4))
    assert [part.status for part in claim.parts] == ["SUPPORTED", "REFUTED", "SUPPORTED"]
    assert (claim.status, claim.found) == ("REFUTED", "abc, flip")


def test_so_does_one_in_the_other_direction() -> None:
    assert traces(traces_plan("abc"), (0, 5, 4)).status == "REFUTED"


def test_a_missing_reaction_refutes() -> None:
    claim = traces(traces_plan("abc", "flip"), (0, 4, 4))
    assert (claim.status, claim.found) == ("REFUTED", "abc")
    assert traces(traces_plan("flip"), (4, 4, 4)).found == "none"


def test_a_reaction_between_the_bounds_is_refuted_by_both() -> None:
    assert traces(traces_plan("abc"), (0, 3.4, 4)).status == "REFUTED"  # 0.3 is more than 0.1
    assert traces(traces_plan("abc", "flip"), (0, 3.4, 4)).status == "REFUTED"  # and less than 0.5
    assert traces(traces_plan("abc", others_at_most=0.4), (0, 3.4, 4)).status == "SUPPORTED"


def test_runs_are_measured_between_their_own_anchors() -> None:
    plan = traces_plan("abc")
    flip = plan.claims[0].traced[1]
    assert anchors(plan, flip.noised) == Anchors(CLEAN, Experiment("flip"))
    means = dict.fromkeys(plan.claims[0].runs, 1.0)
    assert Anchors(CLEAN, Experiment("flip")) in denominators(plan, records(means, 12, 0.2))
