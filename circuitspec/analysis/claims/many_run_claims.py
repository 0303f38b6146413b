"""Claims that many runs decide: completeness, minimality, random circuits, and what is to hold under several methods.

Such a claim holds if each of its figures lies inside the bound; showing that needs no correction, since a single one
outside would be enough against it (an intersection-union test). That some figure lies outside is another matter: among
many, one does by chance. So a figure counts as outside only if its interval, widened for their number (Bonferroni),
still lies there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from circuitspec.analysis.claims.claim_result import MIN_PROMPTS, ClaimPart, Status, part_of, place, together, too_few
from circuitspec.analysis.claims.means_error import MeansError, recovered
from circuitspec.analysis.claims.random_circuit_tests import beaten
from circuitspec.analysis.claims.subset_search import ALPHA, Difference, corrected, effects, incompleteness, widened
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.out_of_range import out_of_range, run_out_of_range
from circuitspec.analysis.statistics.scores import MATERIAL, Anchors, gap
from circuitspec.analysis.statistics.split_sample import halves
from circuitspec.analysis.statistics.wording import number, plural
from circuitspec.engine.records import Records
from circuitspec.experiments.circuits.method_grid import CHOICES, Method, MethodRun
from circuitspec.experiments.planner import PlannedClaim
from circuitspec.hypothesis_file.schema.tested_claims import BeatsRandom, Complete, Minimal

_MOST_NAMED = 8  # of nodes in a sentence


@dataclass(frozen=True)
class Judgement:
    """What a claim with many runs comes to."""

    status: Status
    reason: str
    parts: tuple[ClaimPart, ...]
    found: str
    notes: tuple[str, ...]
    n: int  # prompts that it was judged on


def judge_subsets(planned: PlannedClaim, records: Records) -> Judgement:
    """A claim of completeness or minimality, judged on the half of the prompts on which nothing was searched for."""
    divided = halves(records.templates)
    n = divided.n_judge
    if n < MIN_PROMPTS:
        said = f"{too_few(n)}: the other {divided.n_search} are searched on, so that the file needs {2 * MIN_PROMPTS}"
        return Judgement("INCONCLUSIVE", said, (), "", (), n)
    judged = {run: {m: v[divided.judge] for m, v in records[run].items()} for run in (planned.clean, planned.corrupt)}
    own = gap(
        Records(judged, records.templates[divided.judge]), planned.claim.metric, Anchors(planned.clean, planned.corrupt)
    )
    if own.state != "sound":
        said = f"the clean and corrupt runs do not differ on the {n} prompts that are judged on"
        return Judgement("INCONCLUSIVE", said, (), "", (), n)
    claim = planned.claim
    if isinstance(claim, Complete):
        return _complete(claim, incompleteness(planned, records), planned, records, n)
    assert isinstance(claim, Minimal)
    return _minimal(claim, effects(planned, records), planned, records, n)


def _complete(
    claim: Complete, found: tuple[Difference, ...], planned: PlannedClaim, records: Records, n: int
) -> Judgement:
    parts = tuple(_subset_part(one, claim.at_least, claim.at_most, planned, records, len(found)) for one in found)
    worst = found[0]
    kept = "more" if worst.signed.value > 0 else "less"
    said = f"without {_listed(worst.taken) if worst.drawn else worst.name}"
    said += f": the circuit keeps {kept} than the model" if worst.size.value >= MATERIAL else ""
    return Judgement(*together(parts, n), parts, said, _subset_notes(planned, records, len(found), "subset"), n)


def _minimal(
    claim: Minimal, found: tuple[Difference, ...], planned: PlannedClaim, records: Records, n: int
) -> Judgement:
    assert planned.trials is not None
    names = {one.node.name: one.name for one in planned.trials.removals}
    parts = []
    for one in found:
        part = _subset_part(one, claim.at_least, claim.at_most, planned, records, len(found))
        parts.append(replace(part, note=f"without {_listed(one.taken) if one.drawn else names[one.name]}"))
    weakest = min(found, key=lambda one: one.size.value)
    said = f"{weakest.name} {parts[found.index(weakest)].note}"
    notes = _subset_notes(planned, records, len(found), "node")
    return Judgement(*together(tuple(parts), n), tuple(parts), said, notes, n)


def _subset_part(
    one: Difference,
    at_least: float | None,
    at_most: float | None,
    planned: PlannedClaim,
    records: Records,
    tests: int,
) -> ClaimPart:
    part = part_of(one.name, one.size, at_least, at_most, "")
    part = replace(part, nodes=one.taken, means=(one.before, one.after))
    anchors = Anchors(planned.clean, planned.corrupt)
    for run in one.runs:
        if outside := run_out_of_range(run, records, planned.claim.metric, anchors):
            return replace(part, status="INCONCLUSIVE", reason=outside)
    return _confirmed(part, tests, partial(corrected, planned, records, one, tests))


def _confirmed(part: ClaimPart, tests: int, wider: Callable[[], Estimate]) -> ClaimPart:
    """The part, refuted only if the interval that is widened for the number of tests lies outside its bound too."""
    if part.status != "REFUTED" or tests < 2:
        return part
    interval = wider().interval
    if interval is not None and place(interval, part.at_least, part.at_most) == "REFUTED":
        return part
    why = f"outside the bound, but not with the interval widened for {tests} figures"
    return replace(part, status="INCONCLUSIVE", reason=why)


def _subset_notes(planned: PlannedClaim, records: Records, count: int, what: str) -> tuple[str, ...]:
    assert planned.trials is not None
    divided, search = halves(records.templates), planned.trials.search
    tried = [f"{search.random} random"] if search.random else []
    tried = ["each group", *tried] if search.groups else tried
    if search.greedy:
        tried.append(f"greedily, up to {search.greedy} nodes one by one, {search.candidates} tried at a time")
    return (
        f"subsets were searched for ({', '.join(tried) or 'none'}) on {plural(divided.n_search, 'prompt')} and judged "
        f"on the other {divided.n_judge}, from which all figures come: the worst of many looks worse than it is",
        f"each interval is at {stats.LEVEL:.0%} by itself; the claim holds if all lie inside the bound, and a {what} "
        f"refutes it only with an interval widened for all {count} (Bonferroni, {1 - ALPHA / count:.2%})",
        "not every subset can be tried: others may be worse"
        if what == "subset"
        else "a node without effect may have one under a subset that was not tried",
    )


def judge_random(planned: PlannedClaim, records: Records) -> Judgement:
    """A claim that the circuit beats random circuits."""
    claim, rivals = planned.claim, planned.rivals
    assert isinstance(claim, BeatsRandom)
    assert rivals is not None
    between = Anchors(planned.clean, planned.corrupt)
    found = beaten(records, claim.metric, planned.patched, rivals.kept, claim.quantile, claim.at_most_p, between)
    part = part_of("random circuits", found.share, claim.quantile, None, "")
    if part.status == "INCONCLUSIVE":
        part = replace(part, reason=f"p = {_p(found.test.p_value)} is above {claim.at_most_p:g}")
    lost = [run for run in set(rivals.kept) if run_out_of_range(run, records, claim.metric, between)]
    if lost:
        said = run_out_of_range(lost[0], records, claim.metric, between)
        why = f"{len(lost)} of {rivals.n_different} random circuits say nothing, one of them {said}"
        part = replace(part, status="INCONCLUSIVE", reason=why)
    test = found.test
    notes = (
        f"null hypothesis: {test.null}; p = {_p(test.p_value)} (exact binomial test, claimed at most "
        f"{claim.at_most_p:g})",
        f"{test.n} random circuits, {rivals.n_different} of them different: heads of each layer exchanged at random; "
        "all else is ablated as for the circuit itself, and scores are means over the same prompts",
    )
    return Judgement(part.status, part.reason, (part,), f"p = {_p(test.p_value)}", notes, records.n_prompts)


def _p(value: float) -> str:
    return f"{value:.2g}"


# -- the same claim under several methods ------------------------------------------------------------------------------


def judge_methods(planned: PlannedClaim, records: Records, error: MeansError | None = None) -> Judgement:
    """What the claim says under each method that it is to hold under, the file's own first."""
    methods, claim = planned.methods, planned.claim
    assert methods is not None
    tests = len(methods.runs)
    parts, lost = [], []
    own = next((run for run in methods.runs if run.method == methods.own), None)
    for run in methods.runs:
        outside = out_of_range(run, records, claim.metric, own)
        estimate, why = (
            recovered_under(run, records, claim.metric, error=error) if outside.measurable else (None, outside.why)
        )
        part = part_of(method_name(run.method, methods.own), estimate, claim.at_least, claim.at_most, why)
        if outside:  # whatever the bound: no figure that the claim could rest on
            parts.append(replace(part, status="REFUTED", reason=outside.why))
            lost.append(part.name)
        else:
            parts.append(_confirmed(part, tests, partial(_widened, run, records, claim.metric, tests, error)))
    known = [part for part in parts if part.estimate is not None and part.name not in lost]
    values = [part.estimate.value for part in known if part.estimate is not None]
    said = f"{number(min(values))} to {number(max(values))} over {plural(len(known), 'method')}" if values else ""
    if lost:
        said = "; ".join(filter(None, (said, f"out of range under {_listed(tuple(lost))}")))
    notes = [
        f"under each of {plural(tests, 'method')}; the claim holds if all intervals ({stats.LEVEL:.0%}) lie inside the "
        f"bound, and one method refutes it only with an interval widened for all (Bonferroni, {1 - ALPHA / tests:.2%})"
    ]
    if lost:
        notes.append("a method with which the patched run is out of all range of its anchors fails, whatever the bound")
    notes += [f"not run: {method_name(one.method, methods.own)} ({one.reason})" for one in methods.left_out]
    return Judgement(*together(tuple(parts), records.n_prompts), tuple(parts), said, tuple(notes), records.n_prompts)


def recovered_under(
    run: MethodRun,
    records: Records,
    metric: str,
    *,
    resamples: int = stats.RESAMPLES,
    error: MeansError | None = None,
) -> tuple[Estimate | None, str]:
    """Recovered performance under one method, or why there is none."""
    if any(metric not in records[one] for one in (run.patched, run.corrupt, run.clean)):
        return None, f"{metric} is not measured at {run.method.level} level"
    state = gap(records, metric, Anchors(run.clean, run.corrupt)).state
    if state != "sound":
        return None, "the clean and corrupt runs do not differ" if state == "zero" else "the corrupt run does better"
    if error is not None and (why := error.too_few(run.patched)):
        return None, why
    return recovered(records, (run.patched, run.corrupt, run.clean), metric, error, resamples=resamples), ""


def _widened(run: MethodRun, records: Records, metric: str, tests: int, error: MeansError | None) -> Estimate:
    level, resamples = widened(tests)
    runs = (run.patched, run.corrupt, run.clean)
    return recovered(records, runs, metric, error, level=level, resamples=resamples)


def method_name(method: Method, own: Method) -> str:
    """What of it is not as in the file: `ablation zero, positions all`."""
    changed = [choice for choice in CHOICES if choice != "set" and method.value(choice) != own.value(choice)]
    if method.ablation == "zero":
        changed = [choice for choice in changed if choice != "corruption"]
    if "direction" in changed:  # clean values are patched in then
        changed = [choice for choice in changed if choice != "ablation"]
    if not changed and method != own:
        return "the other set"
    return ", ".join(f"{choice} {method.value(choice)}" for choice in changed) or "as in the file"


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    return shown + (f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else "")
