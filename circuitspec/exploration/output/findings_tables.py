"""The findings of an exploration on its page: a sentence for the whole, and a table for each kind."""

from __future__ import annotations

from collections.abc import Iterator

from circuitspec.analysis.statistics.wording import MISSING, briefly, number, plural
from circuitspec.exploration.exploration_findings import Circuit, ExplorationFindings
from circuitspec.exploration.output.knee import knee_in_words
from circuitspec.exploration.search.component_sweep import MATERIAL
from circuitspec.exploration.setting import places_of
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.reports.views import Table

_ROWS = 20  # of the strongest effects and paths
_SHARES = "shares of clean - corrupt"


def headline(found: ExplorationFindings) -> str:
    """What the first circuit recovers, where its frontier bends, and which components do most; empty without any."""
    circuits = [one for one in found.circuits if not one.is_empty]
    if not circuits:
        return ""
    first = circuits[0]
    said = [f"{plural(first.heads, found.unit)} of {found.units} recover {number(first.recovered)} of {found.metric}."]
    knee = knee_in_words(first)
    said += [f"{knee[:1].upper()}{knee[1:]}."] if knee else []
    strongest = [
        f"{format_name(one.component)} at {', '.join(places_of(one.where))} ({number(one.drop)})"
        for one in sorted(found.sweep.exact, key=lambda one: -abs(one.drop_best))[:3]
        if one.drop is not None
    ]
    said += [f"What is lost most when ablated alone: {', '.join(strongest)}."] if strongest else []
    return " ".join(said)


def findings_tables(found: ExplorationFindings) -> tuple[Table, ...]:
    """Circuits, the strongest effects of components, the direct paths that matter."""
    return tuple(_tables(found))


def _tables(found: ExplorationFindings) -> Iterator[Table]:
    if found.circuits:
        head = (
            "circuit",
            f"{found.unit}s",
            f"recovered {found.metric}",
            "left without it",
            "on other prompts",
            "members",
        )
        rows = tuple(_circuit(one) for one in found.circuits)
        yield Table("Circuits that were chosen", head, rows, prose=(5,))
    effects = [one for one in found.largest(_ROWS) if one.size >= MATERIAL]
    if effects:
        rows = tuple(
            (
                format_name(one.component),
                ", ".join(places_of(one.where)),
                *(number(value) for value in (one.drop, one.rise, one.drop_estimate, one.rise_estimate)),
            )
            for one in effects
        )
        head = (
            "component",
            "position",
            "drop when ablated",
            "rise when restored",
            "drop, estimated",
            "rise, estimated",
        )
        yield Table(f"The strongest components, {_SHARES}", head, rows, numeric=2)
    links = [pair for pair in zip(found.links.found, found.links.names, strict=True) if pair[0].size >= MATERIAL]
    if links:
        rows = tuple(
            (f"{sender} -> {receiver}", number(link.drop), number(link.rise))
            for link, (sender, receiver) in links[:_ROWS]
        )
        yield Table(f"Direct paths that matter, {_SHARES}", ("path", "drop", "rise"), rows, numeric=1)


def _circuit(one: Circuit) -> tuple[str, ...]:
    low, high = one.interval or (None, None)
    interval = "" if low is None else f" [{number(low)}, {number(high)}]"
    recovered, left = one.held_out or (None, None)
    other = MISSING if recovered is None or left is None else f"{briefly(recovered)}, {briefly(left)} left"
    members = ", ".join(f"{component}@{role}" for component, role, _ in one.entries)
    return one.kind, str(one.heads), f"{number(one.recovered)}{interval}", number(one.knocked_out), other, members
