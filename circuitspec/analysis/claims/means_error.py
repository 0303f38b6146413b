"""How far the means that are patched in may be trusted: what they add to an interval, and how far they bias its value.

Means over few prompts are noisy. Noise in them moves a figure about, and it damages what runs on them, so that it also
moves it one way: to first order by something that falls off with one over the number of prompts averaged. Both show
where the same figure is taken with means over parts of these prompts (`experiments.experiment.Part`).

Where means are over other prompts than those that are scored (a reference), each scored prompt is run once more with
the means of one of four parts of the reference. Fewer prompts averaged show the bias (by how much the figure falls from
the whole to a part), and the differences between the parts show the error. Where the scored prompts are averaged
themselves, both are so entangled that parts are left out of means and scores at once: the delete-a-group jackknife
(Quenouille; Efron and Tibshirani 1993, chapter 11).

The correction holds to first order alone; `DOUBT` (`JACKKNIFED_DOUBT`) of it is counted as a standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy

from circuitspec.analysis.claims.claim_result import ClaimResult
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.stats import Values
from circuitspec.engine.records import Records, RunsExperiments
from circuitspec.experiments.averaging import MeanGroups, grouping
from circuitspec.experiments.deciding import deciding
from circuitspec.experiments.experiment import Experiment, Own, Part, SourceKind, Without, texts_of
from circuitspec.experiments.planner import Plan
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask
from circuitspec.prompts.reference_prompts import largest_size

DOUBT = 0.3  # of the correction, where the error that it has itself does not show
JACKKNIFED_DOUBT = 0.1  # of the jackknife's, whose spread is that of corrected figures
MARGIN = 1.2  # more prompts are taken than the error asks for, since that is an estimate too
ENOUGH = 0.1  # of an interval's length: a smaller standard error of the means widens it by less than a tenth
FEWEST = 5  # prompts in a mean over the scored prompts: with fewer the correction holds nothing

Scores = tuple[Values, Values, Values]
"""Of the patched run and of the runs at 0 and at 1, `[prompt]` each."""
Lookup = Callable[[Experiment], Values]
Runs = Callable[[Lookup], Scores]
"""From the scores of every run to those that a figure is made of."""
Parted = Callable[[Part], Scores]


@dataclass(frozen=True)
class Read:
    """What a figure is made of: its `whole` scores, and those with means over a part of the prompts (`over`).

    `kind` is that of its means, None where none are patched in; `halved` says whether there are runs with halves.
    """

    whole: Scores
    kind: SourceKind | None
    over: Parted
    halved: bool


@dataclass(frozen=True)
class MeansError:
    """What tells the error of the means: the runs with means over parts of the prompts, and how parts were made.

    `groupings` has for each kind of mean which prompts it goes over; with a `reference` these are others than the
    scored ones.
    """

    reference: bool
    groupings: Mapping[SourceKind, MeanGroups]
    records: Records

    def recovered(
        self,
        plain: Records,
        runs: Runs,
        metric: str,
        *,
        level: float = stats.LEVEL,
        resamples: int = stats.RESAMPLES,
        summed: bool = False,
    ) -> Estimate:
        """As `stats.recovered` of these runs, corrected for the bias of the means and widened for their error.

        `plain` has the runs with means over all prompts. Scores that are `summed` over runs keep not to the bounds
        of their metric.
        """
        read = self.read(plain, runs, metric)
        own = stats.recovered(*read.whole, level=level, resamples=resamples)
        if read.kind is None or own.n < 2:
            return own
        if not self.reference:
            return self._against_others(own, read.whole, read.over, read.kind)
        correction, error, freedom = self.of_reference(own.value, read)
        return _widened(own, read.whole, correction, error, freedom)

    def read(self, plain: Records, runs: Runs, metric: str) -> Read:
        """The scores that a figure is made of, and how it would be with means over parts of the prompts."""
        used: set[Experiment] = set()

        def look(part: Part | None) -> Lookup:
            def found(experiment: Experiment) -> Values:
                used.add(experiment)
                parted = experiment.over(part)
                records = plain if part is None or parted == experiment else self.records
                return records[parted][metric]

            return found

        whole = runs(look(None))
        kinds = {e.source.kind for e in used if e.source is not None and e.source.is_mean}
        if not kinds:
            return Read(whole, None, lambda part: whole, False)
        (kind,) = kinds

        def over(part: Part) -> Scores:
            return runs(look(part))

        halved = all(e.over(Own(2)) in self.records.values for e in used if e.averages)
        return Read(whole, kind, over, halved)

    def first(self, n: int) -> MeansError:
        """The same of the first `n` of the scored prompts, where means go over others."""
        return replace(self, groupings=self._groupings_of(n), records=self.records.first(n))

    def _groupings_of(self, n: int) -> Mapping[SourceKind, MeanGroups]:
        return {kind: groups.first(n) for kind, groups in self.groupings.items()}

    def too_few(self, experiment: Experiment) -> str:
        """Why no correction holds of a run with means over the scored prompts; empty where one does."""
        if self.reference or experiment.source is None or not experiment.averages:
            return ""
        groups = self.groupings[experiment.source.kind]
        if groups.spread(None) * FEWEST <= 1:
            return ""
        return (
            f"the means go over {min(groups.sizes)} prompts at the fewest, too few to correct for ({FEWEST} are needed)"
        )

    def of_reference(self, value: float, read: Read) -> tuple[float, float, int]:
        """Of a figure with means over other prompts: its correction, the means' standard error, degrees of freedom."""
        whole, over, halved = read.whole, read.over, read.halved
        assert read.kind is not None
        groups = self.groupings[read.kind]
        quarters = Own(groups.n_cells)
        parts = over(quarters)
        gap = _linear(parts, value, whole) - _linear(whole, value, whole)  # [prompt]: by parts less whole
        blocks = np.asarray(groups.blocks)
        each = [gap[blocks == block] for block in range(groups.n_cells)]
        each = [values for values in each if len(values)]
        between = float(np.var([values.mean() for values in each], ddof=1)) if len(each) > 1 else math.inf
        within = float(np.mean([values.var(ddof=1) / len(values) if len(values) > 1 else 0.0 for values in each]))
        error = math.sqrt(max(0.0, between - within) / groups.n_cells)
        part = Own(2) if halved else quarters
        coarse = _ratio(over(part) if halved else parts)
        at, further = groups.spread(None), groups.spread(part)
        correction = (value - coarse) * at / (further - at) if further > at else 0.0
        return correction, error, len(each) - 1

    def _against_others(self, own: Estimate, whole: Scores, over: Parted, kind: SourceKind) -> Estimate:
        groups = self.groupings[kind]
        cells, count = np.asarray(groups.cells), groups.n_cells
        left = []
        for cell in range(count):
            patched, zero, one = over(Without(cell, count))
            kept = cells != cell
            left.append(_ratio((patched[kept], zero[kept], one[kept])))
        pseudo = count * own.value - (count - 1) * np.asarray(left)
        correction = float(pseudo.mean()) - own.value
        total = float(pseudo.std(ddof=1)) / math.sqrt(count)
        return _jackknifed(own, _prompts_error(whole, own.value), correction, total, count)


def recovered(
    records: Records,
    runs: tuple[Experiment, Experiment, Experiment],
    metric: str,
    error: MeansError | None = None,
    *,
    level: float = stats.LEVEL,
    resamples: int = stats.RESAMPLES,
) -> Estimate:
    """As `stats.recovered` of three runs (the patched one, that at 0, that at 1), with the means' `error` if known."""

    def scores(look: Lookup) -> Scores:
        patched, zero, one = runs
        return look(patched), look(zero), look(one)

    if error is None:
        return stats.recovered(*scores(lambda run: records[run][metric]), level=level, resamples=resamples)
    return error.recovered(records, scores, metric, level=level, resamples=resamples)


def _ratio(values: Scores) -> float:
    """Recovered performance; nan where the anchors do not differ."""
    patched, zero, one = values
    below = float((one - zero).mean())
    return float((patched - zero).mean()) / below if below else math.nan


def _linear(values: Scores, at: float, whole: Scores) -> Values:
    """What each prompt adds to the ratio, to first order around its value."""
    patched, zero, one = values
    below = float((whole[2] - whole[1]).mean())
    linear: Values = ((patched - zero) - at * (one - zero)) / below
    return linear


def _prompts_error(whole: Scores, value: float) -> float:
    linear = _linear(whole, value, whole)
    return float(linear.std(ddof=1)) / math.sqrt(len(linear))


def _t(level: float, freedom: float) -> float:
    return float(scipy.stats.t.ppf((1 + level) / 2, freedom))


def _widened(own: Estimate, whole: Scores, correction: float, error: float, freedom: int) -> Estimate:
    """The interval of the prompts alone, moved and stretched for an independent error of the means."""
    prompts = _prompts_error(whole, own.value)
    doubt = DOUBT * abs(correction)
    variance = prompts**2 + error**2 + doubt**2
    if variance == 0:  # and no correction
        return replace(own, means_error=0.0)
    # Satterthwaite: a variance that few parts tell is itself less certain
    weighed = prompts**4 / max(own.n - 1, 1) + error**4 / max(freedom, 1)
    degrees = variance**2 / weighed if weighed else math.inf
    return _stretched(own, prompts, math.sqrt(variance), correction, math.hypot(error, doubt), degrees)


def _jackknifed(own: Estimate, prompts: float, correction: float, total: float, groups: int) -> Estimate:
    """The interval of the prompts alone, moved and stretched to what leaving out groups of them shows."""
    doubt = JACKKNIFED_DOUBT * abs(correction)
    spread = math.hypot(max(total, prompts), doubt)
    if spread == 0:  # and no correction
        return replace(own, means_error=0.0)
    means = math.sqrt(max(0.0, total**2 - prompts**2) + doubt**2)
    return _stretched(own, prompts, spread, correction, means, groups - 1)


def _stretched(
    own: Estimate, prompts: float, spread: float, correction: float, means: float, degrees: float
) -> Estimate:
    """An interval of the prompts alone, for a standard error of `prompts`, as one for a standard error of `spread`."""
    value = own.value + correction
    if not math.isfinite(value) or not math.isfinite(spread):  # a part of the means leaves no gap to divide by
        return replace(own, low=None, high=None, method="none")
    if own.interval is None:
        return replace(own, value=value, correction=correction, means_error=means)
    low, high = own.interval
    if prompts > 0 and high > low:
        stretch = spread / prompts * max(1.0, _t(own.level, degrees) / _t(own.level, own.n - 1))
        below, above = stretch * (own.value - low), stretch * (high - own.value)
    else:
        below = above = _t(own.level, degrees) * spread
    method = "means" if own.method in ("bca", "percentile", "constant") else own.method
    return replace(
        own, value=value, low=value - below, high=value + above, method=method, correction=correction, means_error=means
    )


def parts_of(error: MeansError, kind: SourceKind, *, halves: bool = False) -> tuple[Part, ...]:
    """Over which parts a mean is taken to tell its error."""
    count = error.groupings[kind].n_cells
    if not error.reference:
        return tuple(Without(cell, count) for cell in range(count))
    return (Own(count), *((Own(2),) if halves else ()))


def means_error(plan: Plan, task: TokenizedTask, stored: RunsExperiments, *, halves: bool = False) -> MeansError | None:
    """The runs that tell the error of the means behind a plan's claims; None where no claim rests on means.

    Raises CircuitspecError as running experiments does.
    """
    runs = deciding(plan)
    if not runs:
        return None
    averaged = {run.source.kind: run.source.prompts or CLEAN for run in reversed(runs) if run.source is not None}
    groupings = {kind: grouping(task, kind, texts_of(prompts)) for kind, prompts in averaged.items()}
    empty = MeansError(task.reference is not None, groupings, stored.run(()))
    parted = [
        run.over(part)
        for run in runs
        if run.source is not None
        for part in parts_of(empty, run.source.kind, halves=halves)
    ]
    return replace(empty, records=stored.run(parted))


def largest_share(claims: Iterable[ClaimResult]) -> float:
    """The largest standard error of the means as a share of its interval's length, over all figures of the claims."""
    figures = [claim.estimate for claim in claims] + [part.estimate for claim in claims for part in claim.parts]
    return max((share_of(figure) for figure in figures if figure is not None), default=0.0)


def share_of(estimate: Estimate) -> float:
    """The standard error of the means as a share of the interval's length."""
    if estimate.interval is None or not estimate.means_error:
        return 0.0
    low, high = estimate.interval
    return estimate.means_error / (high - low) if high > low else math.inf


def larger_size(n: int, now: int, share: float) -> int | None:
    """How many other prompts to take means over instead of `now`, for so many scored ones; None to leave it."""
    if share <= ENOUGH or now >= largest_size(n):
        return None
    times = min(max(MARGIN * (share / ENOUGH) ** 2, 2.0), 8.0)
    return min(math.ceil(now * times), largest_size(n))
