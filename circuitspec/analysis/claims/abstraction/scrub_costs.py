"""What each part of causal scrubbing costs, and which entries could carry less: figures of one draw of a claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from circuitspec.analysis.claims.abstraction.scrubbed import KL, PlannedScrub, uncomputable
from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.follow_ups.scrub_parts import Narrowed, ScrubPart, ScrubRuns, apart
from circuitspec.experiments.levels.scrub_level import ScrubDraw, scrub_draw
from circuitspec.experiments.levels.scrub_tree import ScrubTree
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.hypothesis_file.yaml.source import SourceText

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from circuitspec.analysis.statistics.estimate import Estimate

ROUNDING = 1e-4  # of what is recovered: by less two runs do not differ
DIVERGED = 0.02  # of the KL divergence of random prompts' outputs: by so much more single prompts may move


@dataclass(frozen=True)
class PartCost:
    """What is recovered with a part scrubbed alone, and with all others; None where that was not run."""

    part: ScrubPart
    alone: Estimate | None
    without: Estimate | None


@dataclass(frozen=True)
class LessCarried:
    """An entry that carries one name less: what is then recovered, and whether that is without loss.

    Where there is no figure, `why` says why the file could not say so.
    """

    part: ScrubPart
    dropped: str
    recovered: Estimate | None
    lossless: bool
    why: str = ""


@dataclass(frozen=True)
class ScrubCosts:
    """A claim's first draw, taken apart. `together` is what it recovers, `by_key` the parts by entry."""

    index: int
    metric: str
    draws: int
    tree: ScrubTree
    together: Estimate
    parts: tuple[PartCost, ...]
    narrowed: tuple[LessCarried, ...]
    left_out: int

    def of(self, key: str, *, others: bool) -> PartCost | None:
        """The part of this entry."""
        return next((one for one in self.parts if (one.part.key, one.part.others) == (key, others)), None)

    @property
    def costliest(self) -> PartCost | None:
        """The part without which most is recovered, if it makes a difference."""
        known = [(one.without.value, one) for one in self.parts if one.without is not None]
        if not known:
            return None
        value, most = max(known, key=lambda pair: pair[0])
        return most if value > self.together.value + ROUNDING else None


def runs_of_claim(planned: PlannedScrub, hypothesis: Hypothesis, text: SourceText, *, thorough: bool) -> ScrubRuns:
    """The runs that take a claim's first draw apart: all of them if it is to be looked at thoroughly."""
    first = planned.draws[0]
    (by, seed), rule = (first.rests[0].by, first.rests[0].seed), first.scrubbed.rule
    assert rule is not None
    through = ("mlp",) if rule.through_mlps else ()

    def drawing(tree: ScrubTree) -> ScrubDraw:
        return scrub_draw(tree, 0, by=by, seed=seed, through=through)

    def wrong(tree: ScrubTree) -> list[Diagnostic]:
        return uncomputable(tree, hypothesis, text)

    return apart(planned.tree, drawing, wrong, thorough=thorough)


def costs_of(planned: PlannedScrub, runs: ScrubRuns, records: Records) -> ScrubCosts:
    """What these runs recover, with intervals over the reference prompts."""
    figures = _Figures(planned, runs, records)
    together = figures.recovered(runs.together)
    parts = tuple(
        PartCost(
            part,
            figures.recovered(runs.alone[part]) if part in runs.alone else None,
            figures.recovered(runs.without[part]) if part in runs.without else None,
        )
        for part in (*runs.alone, *(part for part in runs.without if part not in runs.alone))
    )
    narrowed = tuple(figures.less(one, together) for one in runs.narrowed)
    return ScrubCosts(
        planned.index, planned.claim.metric, len(planned.draws), planned.tree, together, parts, narrowed, runs.left_out
    )


class _Figures:
    def __init__(self, planned: PlannedScrub, runs: ScrubRuns, records: Records) -> None:
        self._metric, self._records = planned.claim.metric, records
        self._clean: NDArray[np.float64] = records[planned.clean][self._metric]
        self._random, self._runs = runs.together.nothing_kept, runs

    def recovered(self, draw: ScrubDraw) -> Estimate:
        from circuitspec.analysis.statistics import stats

        random = self._records[self._random][self._metric]
        return stats.recovered(self._records[draw.scrubbed][self._metric], random, self._clean)

    def _kl(self, run: Experiment) -> float:
        return float(self._records[run][KL].mean())

    def less(self, one: Narrowed, together: Estimate) -> LessCarried:
        if one.draw is None:
            return LessCarried(one.part, one.dropped, None, False, one.why)
        found = self.recovered(one.draw)
        low, high = together.interval or (together.value, together.value)
        inside = low - ROUNDING <= found.value <= high + ROUNDING
        moved = self._kl(one.draw.scrubbed) - self._kl(self._runs.together.scrubbed)
        return LessCarried(one.part, one.dropped, found, inside and moved <= DIVERGED * self._kl(self._random))
