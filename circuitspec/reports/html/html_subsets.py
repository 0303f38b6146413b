"""Claims that many figures decide as pictures of these, as their kinds describe them."""

from __future__ import annotations

from collections.abc import Iterator

from circuitspec.analysis.claims.claim_kind import Bars, Cloud
from circuitspec.analysis.claims.registry import kind_of
from circuitspec.analysis.verification_result import Verification
from circuitspec.reports.figures import IntervalPoint, IntervalSeries, intervals
from circuitspec.reports.figures.scatter import Dots, NamedPoint, scatter
from circuitspec.reports.views import Chart


def subset_charts(found: Verification) -> Iterator[Chart]:
    """One picture for every claim whose kind has one, such as completeness and minimality."""
    for claim in found.claims:
        match kind_of(claim).picture(claim):
            case Cloud() as cloud:
                yield _scattered(cloud)
            case Bars() as bars:
                yield _side_by_side(bars)


def _scattered(cloud: Cloud) -> Chart:
    by_kind: dict[str, list[tuple[float, float]]] = {kind: [] for kind in cloud.kinds}
    for dot in cloud.dots:
        by_kind[dot.kind].append((dot.across, dot.upward))
    picture = scatter(
        [Dots(kind, tuple(places)) for kind, places in by_kind.items() if places],
        title=cloud.title,
        across=cloud.across,
        upward=cloud.upward,
        alt=cloud.alt,
        line_label=cloud.diagonal,
        named=[NamedPoint(cloud.named, cloud.named_at)],
    )
    return Chart(picture, cloud.note)


def _side_by_side(bars: Bars) -> Chart:
    points = tuple(IntervalPoint(part.name, part.estimate, part.at_least, part.at_most) for part in bars.parts)
    return Chart(intervals([IntervalSeries(bars.series, points)], title=bars.title, quantity=bars.quantity), bars.note)
