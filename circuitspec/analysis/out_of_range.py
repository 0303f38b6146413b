"""Recovered performance that is no figure to go by, as the patched run left all range of its anchors.

An example: at path level with zeros, all that is not kept is zero, the embeddings included. The final norm divides by
what is left of the residual stream, and so may magnify it a thousandfold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circuitspec.analysis import stats
from circuitspec.analysis.scores import MATERIAL, Anchors, gap
from circuitspec.analysis.wording import number, plural
from circuitspec.engine.records import Records
from circuitspec.plan.methods import MethodRun

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
            return Outside(_said(said, run), measurable=False)
    between = gap(records, metric, Anchors(run.clean, run.corrupt))
    if between.state != "sound":
        return Outside()
    distance = abs(between.difference.value)
    patched = float(np.mean(records[run.patched][metric]))
    if abs(patched - between.corrupt) > TIMES * distance:
        anchors = f"{number(between.clean)} clean and {number(between.corrupt)} corrupt"
        return Outside(_said(f"{metric} is {number(patched)}, against {anchors}", run))
    if own is not None and _measured(own, records, metric):
        usual = abs(float(np.mean(records[own.clean][metric]) - np.mean(records[own.corrupt][metric])))
        if distance < MATERIAL * usual:
            said = f"its anchors differ by {number(distance, 4)}, those of the file's method by {number(usual)}"
            return Outside(f"out of range: {said}")
    return Outside()


def _measured(run: MethodRun, records: Records, metric: str) -> bool:
    ends = (run.clean, run.corrupt)
    return all(metric in records[one] and bool(np.isfinite(records[one][metric]).all()) for one in ends)


def _said(what: str, run: MethodRun) -> str:
    emptied = run.method.ablation == "zero" and run.method.level != "node"
    why = "; zeros also in place of the embeddings leave little for the final norm to divide by" if emptied else ""
    return f"out of range: {what}{why}"
