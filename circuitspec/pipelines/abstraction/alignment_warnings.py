"""What stands against a learned subspace, in the test's own figures: warnings of `align`'s report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from circuitspec.analysis.claims.abstraction.subspace_figures import PARTS, by_directions, decomposed
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.proportions import share_of
from circuitspec.analysis.statistics.wording import with_interval
from circuitspec.analysis.warnings.abstraction.subspace_warnings import MOST_OUTSIDE, outside_words
from circuitspec.engine.attribution.subspace_training import PairHits
from circuitspec.experiments.levels.interchange_level import WHOLE
from circuitspec.experiments.subspaces.subspace import is_random
from circuitspec.pipelines.abstraction.alignment_controls import Control
from circuitspec.pipelines.abstraction.subspace_search import AlignedVariable

CARRIED = 0.5  # of the pairs that must change: below, there is nothing whose evidence could be doubted


def warnings_of(one: AlignedVariable) -> Iterator[tuple[str, str]]:
    """Code and sentence of each, of what was found for a variable."""
    own = changed_share(one.test)
    if own is None:
        return
    yield from _single_family(one)
    yield from _beyond_the_whole(one, own)
    yield from _matched(one, own)
    yield from _unnatural(one, own)
    if one.rows.shared:
        lists = ", ".join(one.rows.shared)
        yield (
            "CS458",
            f"training, validation and test share the words of {lists}, which {one.variable} is read from: what was "
            "learned may be these words, and the test is not held out; lengthen the lists",
        )


def _single_family(one: AlignedVariable) -> Iterator[tuple[str, str]]:
    """CS454: a single family has pairs that must change, or does surely better than every other."""
    shares = family_shares(one)
    if len(shares) == 1 and len(set(one.rows.families)) > 0:
        (name,) = shares
        yield "CS454", f"the answer must change in one family of pairs alone, {name}: add another"
    elif len(shares) > 1:
        best, *others = sorted(shares.items(), key=lambda item: -item[1].value)
        if all((best[1].low or 0.0) > (other.high or 0.0) for _, other in others):
            said = ", ".join(f"{name} {with_interval(share)}" for name, share in others)
            yield (
                "CS454",
                f"one family of pairs carries the result: {best[0]} {with_interval(best[1])} against {said}",
            )


def _beyond_the_whole(one: AlignedVariable, own: Estimate) -> Iterator[tuple[str, str]]:
    """CS455: a subspace surely better than the whole vector, with what its parts do alone."""
    shares = _shares(one.controls)
    whole = shares.get(WHOLE)
    if whole is None or (own.low or 0.0) <= (whole.high or 0.0):
        return
    parts = {name: shares[name] for name in PARTS if name in shares}
    yield (
        "CS455",
        f"the subspace ({with_interval(own)}) does more than the whole vector ({with_interval(whole)}): "
        + decomposed(own, parts),
    )


def _matched(one: AlignedVariable, own: Estimate) -> Iterator[tuple[str, str]]:
    """CS456: controls that score as much, as far as the intervals tell; of random subspaces the best."""
    shares = {name: share for name, share in _shares(one.controls).items() if name not in (WHOLE, *PARTS)}
    drawn = [name for name in shares if is_random(name)]
    best = max(drawn, key=lambda name: shares[name].value, default=None)
    for name, share in shares.items():
        if name in drawn and name != best:
            continue
        if own.value > 0 and (own.low or 0.0) <= (share.high or 0.0):
            said = f"{name} ({with_interval(share)}) is not surely worse than the subspace ({with_interval(own)})"
            yield "CS456", said


def _unnatural(one: AlignedVariable, own: Estimate) -> Iterator[tuple[str, str]]:
    """CS457: most patched states are surely outside the natural range, while answers are those asked for."""
    states = one.rows.states
    if states is None or (own.high or 0.0) < CARRIED:
        return
    counted = one.test.kept & one.test.changed
    for where, found in by_directions(states).items():
        share = share_of(found.outside[counted])
        if share is not None and (share.low or 0.0) > MOST_OUTSIDE:
            yield "CS457", outside_words(where, share, found.ratio(counted))
            return


def family_shares(one: AlignedVariable) -> dict[str, Estimate]:
    """IIA on the changed pairs of each family that has some."""
    families = np.array(one.rows.families, dtype=object)
    found = {}
    for name in dict.fromkeys(one.rows.families):
        share = share_of(one.test.hit[one.test.kept & one.test.changed & (families == name)])
        if share is not None:
            found[name] = share
    return found


def changed_share(hits: PairHits) -> Estimate | None:
    """IIA on the pairs that must change."""
    return share_of(hits.hit[hits.kept & hits.changed])


def _shares(controls: Sequence[Control]) -> dict[str, Estimate]:
    """IIA on changed pairs of each control that has such pairs."""
    found = {one.name: changed_share(one.hits) for one in controls}
    return {name: share for name, share in found.items() if share is not None}
