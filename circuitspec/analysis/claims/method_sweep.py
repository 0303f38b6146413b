"""One circuit under many methods: what each recovers, and over which range the choice of method moves the figure.

Miller, Chughtai and Saunders (2024): published figures go from below 0 to above 100 % with these choices alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from circuitspec.analysis.claims.many_run_claims import recovered_under
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.out_of_range import out_of_range
from circuitspec.engine.records import Records
from circuitspec.experiments.circuits.method_grid import CHOICES, Choice, Method, MethodRun, Methods, NotRun, changed

RESAMPLES = 1999  # of intervals that decide nothing


@dataclass(frozen=True)
class MethodScore:
    """What a circuit recovers under one method; None where there is no ratio, and `why`.

    `out_of_range` says why a figure, if there is one, is no figure to go by; empty where it is one.
    """

    run: MethodRun
    recovered: Estimate | None
    why: str = ""
    out_of_range: str = ""

    @property
    def method(self) -> Method:
        return self.run.method


@dataclass(frozen=True)
class Spread:
    """The figures of all methods with one value of a choice: how many, and their range."""

    choice: Choice
    value: str
    values: tuple[float, ...]

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def median(self) -> float:
        return float(np.median(self.values))

    @property
    def high(self) -> float:
        return max(self.values)


@dataclass(frozen=True)
class MethodSweep:
    """A circuit under every combination of the six choices, by one metric; `own` is the file's method."""

    metric: str
    own: Method
    scores: tuple[MethodScore, ...]
    left_out: tuple[NotRun, ...]

    def values(self, *, keeps_circuit: bool) -> tuple[float, ...]:
        """Recovered performance of the methods that keep the circuit (or the rest) clean, as far as it is in range."""
        return tuple(_values(self.scores, keeps_circuit))

    @property
    def outside(self) -> tuple[MethodScore, ...]:
        """The methods whose figure is out of all range: in no range and no median, but told by name."""
        return tuple(score for score in self.scores if score.out_of_range)

    def spreads(self, *, keeps_circuit: bool) -> tuple[Spread, ...]:
        """The range for every value of every choice, in the order of the choices; `set` follows from the direction."""
        found: dict[tuple[Choice, str], list[MethodScore]] = {}
        for choice in CHOICES:
            for score in self.scores:
                if choice != "set":
                    found.setdefault((choice, score.method.value(choice)), []).append(score)
        spreads = [
            Spread(choice, value, tuple(_values(scores, keeps_circuit))) for (choice, value), scores in found.items()
        ]
        return tuple(spread for spread in spreads if spread.values)

    def single_changes(self) -> tuple[MethodScore, ...]:
        """The file's own method, and those in which one choice is another."""
        known = {score.method: score for score in self.scores}
        wanted = [self.own]
        for choice in CHOICES:
            wanted += [changed(self.own, choice, getattr(method, choice)) for method in known]
        return tuple(known[method] for method in dict.fromkeys(wanted) if method in known)

    @property
    def reasons(self) -> dict[str, int]:
        """Why combinations are not run or have no figure, and how many they are."""
        found: dict[str, int] = {}
        for why in (*(one.reason for one in self.left_out), *(score.why for score in self.scores if score.why)):
            found[why] = found.get(why, 0) + 1
        return found


def method_sweep(methods: Methods, records: Records, metric: str) -> MethodSweep:
    """Recovered performance under every method that was run. Raises CS511 where a value of the clean run is not finite.

    Figures out of all range are marked, by `out_of_range`.
    """
    own = next((run for run in methods.runs if run.method == methods.own), None)
    scores = []
    for run in methods.runs:
        outside = out_of_range(run, records, metric, own)
        found = recovered_under(run, records, metric, resamples=RESAMPLES) if outside.measurable else (None, "")
        scores.append(MethodScore(run, *found, out_of_range=outside.why if found[0] or not outside.measurable else ""))
    return MethodSweep(metric, methods.own, tuple(scores), methods.left_out)


def _values(scores: tuple[MethodScore, ...] | list[MethodScore], keeps_circuit: bool) -> Iterator[float]:
    return (
        score.recovered.value
        for score in scores
        if score.recovered is not None and not score.out_of_range and score.method.keeps_circuit == keeps_circuit
    )
