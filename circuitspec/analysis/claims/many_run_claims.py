"""Claims that many figures decide: how one of many counts, and what is to hold under several methods.

Such a claim holds if each of its figures lies inside the bound; showing that needs no correction, since a single one
outside would be enough against it (an intersection-union test). That some figure lies outside is another matter: among
many, one does by chance. So a figure counts as outside only if its interval, widened for their number (Bonferroni),
still lies there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from circuitspec.analysis.claims.claim_result import ClaimPart, Judgement, part_of, place, together
from circuitspec.analysis.claims.means_error import MeansError, recovered
from circuitspec.analysis.claims.subset_search import ALPHA, widened
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.out_of_range import out_of_range
from circuitspec.analysis.statistics.scores import Anchors, gap
from circuitspec.analysis.statistics.wording import number, plural
from circuitspec.engine.records import Records
from circuitspec.experiments.circuits.method_grid import CHOICES, Method, MethodRun, Methods
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS
from circuitspec.hypothesis_file.schema.claims.written_claim import Claim

_MOST_NAMED = 8  # of nodes in a sentence


def confirmed(part: ClaimPart, tests: int, wider: Callable[[], Estimate]) -> ClaimPart:
    """The part, refuted only if the interval that is widened for the number of tests lies outside its bound too."""
    if part.status != "REFUTED" or tests < 2:
        return part
    interval = wider().interval
    if interval is not None and place(interval, part.at_least, part.at_most) == "REFUTED":
        return part
    why = f"outside the bound, but not with the interval widened for {tests} figures"
    return replace(part, status="INCONCLUSIVE", reason=why)


# -- the same claim under several methods ------------------------------------------------------------------------------


def judge_methods(methods: Methods, claim: Claim, records: Records, error: MeansError | None = None) -> Judgement:
    """What the claim says under each method that it is to hold under, the file's own first."""
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
            parts.append(confirmed(part, tests, partial(_widened, run, records, claim.metric, tests, error)))
    known = [part for part in parts if part.estimate is not None and part.name not in lost]
    values = [part.estimate.value for part in known if part.estimate is not None]
    said = f"{number(min(values))} to {number(max(values))} over {plural(len(known), 'method')}" if values else ""
    if lost:
        said = "; ".join(filter(None, (said, f"out of range under {listed(tuple(lost))}")))
    notes = [
        f"under each of {plural(tests, 'method')}; the claim holds if all intervals ({stats.LEVEL:.0%}) lie inside the "
        f"bound, and one method refutes it only with an interval widened for all (Bonferroni, {1 - ALPHA / tests:.2%})"
    ]
    if lost:
        notes.append("a method with which the patched run is out of all range of its anchors fails, whatever the bound")
    notes += [f"not run: {method_name(one.method, methods.own)} ({one.reason})" for one in methods.left_out]
    status, reason = together(tuple(parts), records.n_prompts)
    return Judgement(status, reason, parts=tuple(parts), found=said, notes=tuple(notes))


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
    if not ABLATIONS[method.ablation].takes_prompts:
        changed = [choice for choice in changed if choice != "corruption"]
    if "direction" in changed:  # clean values are patched in then
        changed = [choice for choice in changed if choice != "ablation"]
    if not changed and method != own:
        return "the other set"
    return ", ".join(f"{choice} {method.value(choice)}" for choice in changed) or "as in the file"


def listed(names: tuple[str, ...]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:_MOST_NAMED])
    return shown + (f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else "")
