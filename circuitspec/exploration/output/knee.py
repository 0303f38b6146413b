"""Where a frontier bends: the size of circuit from which on each further component adds little."""

from __future__ import annotations

from collections.abc import Sequence

from circuitspec.analysis.statistics.wording import number, plural
from circuitspec.exploration.exploration_findings import Circuit
from circuitspec.exploration.search.circuit_selection import FrontierPoint


def knee(frontier: Sequence[FrontierPoint]) -> tuple[FrontierPoint, FrontierPoint] | None:
    """The point farthest above the line from the smallest to the largest circuit, and the largest; None without one.

    Only points on the frontier count. Sizes and figures are taken as shares of their ranges.
    """
    best = sorted((point for point in frontier if point.pareto and point.entries), key=lambda point: point.entries)
    if len(best) < 3:
        return None
    first, last = best[0], best[-1]
    across, upward = last.entries - first.entries, last.recovered.value - first.recovered.value
    if across <= 0 or upward <= 0:
        return None

    def above(point: FrontierPoint) -> float:
        return (point.recovered.value - first.recovered.value) / upward - (point.entries - first.entries) / across

    bend = max(best, key=lambda point: (above(point), -point.entries))
    return (bend, last) if bend is not last else None


def knee_in_words(circuit: Circuit) -> str:
    """`3 components give 0.78, the next 9 add 0.13`; empty where the frontier has no bend."""
    found = knee([point for point in circuit.frontier if point.entries <= len(circuit.entries)])
    if found is None:
        return ""
    bend, last = found
    added = last.recovered.value - bend.recovered.value
    gives = "gives" if bend.entries == 1 else "give"
    return (
        f"{plural(bend.entries, 'component')} {gives} {number(bend.recovered.value)}, "
        f"the next {last.entries - bend.entries} add {number(added)}"
    )
