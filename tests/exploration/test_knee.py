"""Where a frontier bends, on figures whose bend is plain."""

from __future__ import annotations

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.exploration.output.knee import knee
from circuitspec.exploration.search.circuit_selection import FrontierPoint


def point(entries: int, recovered: float, *, pareto: bool = True) -> FrontierPoint:
    return FrontierPoint(entries, entries, Estimate(recovered, None, None, 0.95, 10, "none"), pareto)


def test_the_bend_is_where_the_rest_adds_little() -> None:
    """From (1, 0.1) to (12, 0.91): at 3 the share won is 0.84 of 0.18 of the way; nowhere is the difference larger."""
    frontier = [point(1, 0.1), point(3, 0.78), point(6, 0.8), point(12, 0.91), point(2, 0.9, pareto=False)]
    found = knee(frontier)
    assert found is not None
    assert [one.entries for one in found] == [3, 12]


def test_two_circuits_or_a_fall_have_no_bend() -> None:
    assert knee([point(1, 0.1), point(4, 0.9)]) is None
    assert knee([point(1, 0.9), point(2, 0.7), point(4, 0.5)]) is None
