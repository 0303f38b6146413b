"""A claim of the file and what the runs say about it, as values; `verdict` makes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.experiments.planner import Measure

Status = Literal["SUPPORTED", "REFUTED", "INCONCLUSIVE"]

EXIT_CODES: dict[Status, int] = {"SUPPORTED": 0, "REFUTED": 1, "INCONCLUSIVE": 4}

MIN_PROMPTS = 10  # with fewer, a bootstrap interval at 95 % holds the truth less than 90 % of the time

CROSSES = "the confidence interval crosses the bound"


@dataclass(frozen=True)
class ClaimPart:
    """One of several figures that decide a claim together, called `name`, with its own bound.

    `nodes` are the components that were taken out, where the figure is about that, and `means` what it then compares.
    `figures` are further ones, by name, that are reported with it and decide nothing.
    """

    name: str
    status: Status
    estimate: Estimate | None
    at_least: float | None
    at_most: float | None
    reason: str = ""  # why it is inconclusive
    note: str = ""  # what a reader has to know to read the figure
    nodes: tuple[str, ...] | None = None
    means: tuple[float, ...] = ()
    figures: tuple[tuple[str, Estimate], ...] = ()


@dataclass(frozen=True)
class ClaimResult:
    """A claim of the file and what the runs say about it.

    `estimate` is the recovered performance, or what else the claim bounds (`measure`), None where there is none;
    `reason` says why a claim is inconclusive and is empty otherwise; `experiment` says in words what was run.
    Claims that several figures decide have `parts` instead of an estimate and a bound (or, where a claim is to hold
    under several methods, beside those of the file's own); `found` is what these say together: the kind of gate, the
    corruptions that there is a reaction to, the worst subset. `notes` say how it was judged: null hypotheses, what
    was searched for on which prompts, corrections. `out_of_range` says why no verdict rests on its figures, where a run
    lies out of all range of its anchors.
    """

    index: int
    kind: str
    metric: str
    status: Status
    estimate: Estimate | None
    at_least: float | None
    at_most: float | None
    n: int
    reason: str
    experiment: str
    measure: Measure = "recovered"
    parts: tuple[ClaimPart, ...] = ()
    found: str = ""
    notes: tuple[str, ...] = ()
    out_of_range: str = ""

    @property
    def value(self) -> float:
        """The estimate's value; NaN where there is no estimate: `reason` or `parts` say what there is instead."""
        return math.nan if self.estimate is None else self.estimate.value


@dataclass(frozen=True)
class Judgement:
    """What the runs of a claim come to: the fields of its `ClaimResult` that its kind decides.

    `n` is how many prompts it was judged on, where these are not all.
    """

    status: Status
    reason: str = ""
    estimate: Estimate | None = None
    parts: tuple[ClaimPart, ...] = ()
    found: str = ""
    notes: tuple[str, ...] = ()
    n: int | None = None
    out_of_range: str = ""


def place(interval: tuple[float, float], at_least: float | None, at_most: float | None) -> Status:
    """Where an interval lies relative to a bound whose ends belong to it."""
    low, high = interval
    least = float("-inf") if at_least is None else at_least
    most = float("inf") if at_most is None else at_most
    if least <= low and high <= most:
        return "SUPPORTED"
    return "REFUTED" if high < least or low > most else "INCONCLUSIVE"


def too_few(n: int) -> str:
    return f"{n} prompts are too few for a verdict, which needs {MIN_PROMPTS}"


def together(parts: tuple[ClaimPart, ...], n: int) -> tuple[Status, str]:
    """The status of a claim that all of its parts decide, and why it is inconclusive."""
    if n < MIN_PROMPTS:
        return "INCONCLUSIVE", too_few(n)
    statuses = {part.status for part in parts}
    if "REFUTED" in statuses:
        return "REFUTED", ""
    if statuses == {"SUPPORTED"}:
        return "SUPPORTED", ""
    return "INCONCLUSIVE", "; ".join(f"{part.name}: {part.reason}" for part in parts if part.reason)


def part_of(
    name: str, estimate: Estimate | None, at_least: float | None, at_most: float | None, reason: str, note: str = ""
) -> ClaimPart:
    """The part, judged by its interval; `reason` says why it has no estimate, where it has none."""
    if estimate is None or estimate.interval is None:
        why = reason if estimate is None else "too close to nothing for an interval"
        return ClaimPart(name, "INCONCLUSIVE", estimate, at_least, at_most, why, note)
    status = place(estimate.interval, at_least, at_most)
    return ClaimPart(name, status, estimate, at_least, at_most, CROSSES if status == "INCONCLUSIVE" else "", note)
