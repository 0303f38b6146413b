"""Recovered performance that is no figure to go by, as the patched run left all range of its anchors.

An example: at edge and path level with zeros, all that is not kept is zero, the embeddings included. The final norm
divides by what is left of the residual stream, and so may magnify it a thousandfold. What is found on such a run, or by
changing it, says nothing about the circuit either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.scores import MATERIAL, Anchors, Gap, gap
from circuitspec.analysis.statistics.wording import number, plural
from circuitspec.engine.records import Records
from circuitspec.experiments.circuits.method_grid import MethodRun
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import PlannedClaim

TIMES = 10.0  # |patched - corrupt| beyond so many times |clean - corrupt| says nothing about the behaviour


@dataclass(frozen=True)
class Outside:
    """`why` a method's figure is out of range, empty where it is not; `measurable` unless a value is not finite."""

    why: str = ""
    measurable: bool = True

    def __bool__(self) -> bool:
        return bool(self.why)


def out_of_range(run: MethodRun, records: Records, metric: str, own: MethodRun | None = None) -> Outside:
    """Whether the method's patched run lies out of all range, or its anchors too close to each other for a ratio.

    Out of range is |M(patched) - M(corrupt)| > 10 |M(clean) - M(corrupt)|, of means over prompts, and what is not
    finite. Too close is a hundredth of the distance of the anchors of the file's `own` method.
    Raises CS511 where the clean run is not finite.
    """
    if any(metric not in records[one] for one in (run.patched, run.corrupt, run.clean)):
        return Outside()
    stats.require_finite(records[run.clean][metric], f"{metric} in the clean anchor")
    for one, name in ((run.corrupt, "the corrupt anchor"), (run.patched, "the patched run")):
        lost = int(np.count_nonzero(~np.isfinite(records[one][metric])))
        if lost:
            said = f"{metric} in {name} is not finite on {lost} of {plural(records.n_prompts, 'prompt')}"
            return Outside(_said(said, run.patched), measurable=False)
    between = gap(records, metric, Anchors(run.clean, run.corrupt))
    if between.state != "sound":
        return Outside()
    distance = abs(between.difference.value)
    patched = float(np.mean(records[run.patched][metric]))
    if beyond(patched, between):
        return Outside(_said(_against(metric, patched, between), run.patched))
    if own is not None and _measured(own, records, metric):
        usual = abs(float(np.mean(records[own.clean][metric]) - np.mean(records[own.corrupt][metric])))
        if distance < MATERIAL * usual:
            said = f"its anchors differ by {number(distance, 4)}, those of the file's method by {number(usual)}"
            return Outside(f"out of range: {said}")
    return Outside()


def _measured(run: MethodRun, records: Records, metric: str) -> bool:
    ends = (run.clean, run.corrupt)
    return all(metric in records[one] and bool(np.isfinite(records[one][metric]).all()) for one in ends)


def claim_out_of_range(planned: PlannedClaim, records: Records) -> str:
    """Why no verdict rests on a claim's figures: a run that decides it lies out of all range of its anchors; else "".

    A share of another path's effect has no such range, and what is to hold under several methods says so of each.
    """
    if not planned.judged_in_range:
        return ""
    metric = planned.claim.metric
    for patched, (clean, corrupt) in planned.anchored.items():
        if said := run_out_of_range(patched, records, metric, Anchors(clean, corrupt)):
            return said
    return ""


def run_out_of_range(patched: Experiment, records: Records, metric: str, anchors: Anchors) -> str:
    """Why what a run scores is no figure to go by; "" where it is one, or where its anchors allow no ratio anyway."""
    between = gap(records, metric, anchors)
    mean = float(np.mean(records[patched][metric]))
    if between.state != "sound" or not beyond(mean, between):
        return ""
    return _said(_against(metric, mean, between), patched)


def beyond(patched: float, between: Gap) -> bool:
    """Whether a mean over prompts lies more than `TIMES` as far from the corrupt anchor as the clean one does."""
    return abs(patched - between.corrupt) > TIMES * abs(between.difference.value)


def _against(metric: str, patched: float, between: Gap) -> str:
    return f"{metric} is {number(patched)}, against {number(between.clean)} clean and {number(between.corrupt)} corrupt"


def is_emptied(patched: Experiment) -> bool:
    """Whether the run has zeros also in place of what the final norm divides by."""
    return patched.source is not None and patched.source.row.is_zero and patched.level != "node"


def _said(what: str, patched: Experiment) -> str:
    why = "; zeros also in place of the embeddings leave little for the final norm to divide by"
    return f"out of range: {what}{why if is_emptied(patched) else ''}"
