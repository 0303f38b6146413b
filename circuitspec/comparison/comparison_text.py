"""A comparison as text: tables two by two, bars of what is shared, and lists of what is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from circuitspec.analysis.statistics.wording import MISSING, number, plural
from circuitspec.comparison.comparison_result import CircuitComparison, CircuitFacts
from circuitspec.comparison.measured_text import measured_blocks
from circuitspec.comparison.shared_parts import Overlap, SharedParts
from circuitspec.runtime.text_columns import aligned
from circuitspec.runtime.visible_text import no_command, visible

LISTED = 8  # nodes or edges that are named of each list
BAR = 40  # characters of a bar


def render_comparison(found: CircuitComparison) -> str:
    """The report, ending in a newline."""
    parts = [_head(found), *(part for pair in found.pairs for part in _pair(pair))]
    parts += [] if found.measured is None else measured_blocks(found.measured)
    return no_command(visible("\n\n".join(parts) + "\n", lines=True))


def _head(found: CircuitComparison) -> str:
    models = " and ".join(dict.fromkeys(one.model for one in found.circuits))
    of = models if found.one_model else f"models of one shape: {models}"
    rows = [[f"  {one.letter}", one.name, _size(one), one.ablation, one.file] for one in found.circuits]
    return f"{plural(len(found.circuits), 'circuit')} of {of}\n{aligned(rows)}"


def _size(one: CircuitFacts) -> str:
    edges = f", {plural(one.edges, 'edge')}" if one.edges else ""
    free = f", {one.free} free" if one.free else ""
    return f"{plural(one.nodes, 'node')} in {plural(one.groups, 'group')}{edges}{free}"


def _pair(pair: SharedParts) -> Iterator[str]:
    yield f"{pair.first} and {pair.second}: what they share\n\n{_table(pair)}"
    yield _bars(pair)
    yield _listed(pair)
    if pair.groups and (len(pair.groups) > 1 or pair.groups[0].shared == 0):
        yield _groups(pair)
    if pair.notes:
        yield "\n".join(f"note: {note}" for note in pair.notes)


def _table(pair: SharedParts) -> str:
    a, b = pair.first, pair.second
    head = ["", a, b, "shared", f"of {a}", f"of {b}", "Jaccard", "random circuits share", "Jaccard", "p", ""]
    rows = [[f"  {head[0]}", *head[1:]]]
    for one in pair.overlaps:
        chance = one.chance
        rows.append(
            [
                f"  {one.level}",
                str(one.first),
                str(one.second),
                str(one.shared),
                number(one.of_first),
                number(one.of_second),
                number(one.jaccard),
                number(chance.shared),
                number(chance.jaccard),
                probability(chance.p_as_many),
                f"({chance.method})",
            ]
        )
    said = (
        f"random circuits: {a}'s components exchanged within their layers, beside {b} as it is; "
        "p: how often they share as much or more"
    )
    return f"{aligned(rows)}\n  {said}"


def probability(p: float) -> str:
    """`0.03`, `0.002`, `4e-06`."""
    return number(p) if p >= 0.01 else f"{p:.1g}"


def _bars(pair: SharedParts) -> str:
    """What one has alone, both, the other alone, to one scale a row."""
    rows = [["  " + one.level, _bar(one)] for one in pair.overlaps]
    return f"{aligned(rows)}\n  - in {pair.first} alone   = in both   + in {pair.second} alone"


def _bar(one: Overlap) -> str:
    counts = (one.first - one.shared, one.shared, one.second - one.shared)
    total = sum(counts)
    if not total:
        return MISSING
    ends = [round(BAR * sum(counts[:k]) / total) for k in range(4)]
    return "".join(sign * (end - start) for sign, start, end in zip("-=+", ends, ends[1:], strict=False))


def _listed(pair: SharedParts) -> str:
    lists = [
        ("nodes in both", pair.both),
        (f"in {pair.first} alone", pair.only_first),
        (f"in {pair.second} alone", pair.only_second),
        ("edges in both", pair.edges_both),
        (f"edges in {pair.first} alone", pair.edges_first),
        (f"edges in {pair.second} alone", pair.edges_second),
    ]
    with_edges = any((pair.edges_both, pair.edges_first, pair.edges_second))
    rows = [[f"  {name}", short(names)] for name, names in (lists if with_edges else lists[:3])]
    return aligned(rows)


def short(names: Sequence[str]) -> str:
    """The first of a list, and how many more there are."""
    if not names:
        return "none"
    more = f", ... ({len(names)} in all)" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _groups(pair: SharedParts) -> str:
    rows = [[f"  group of {pair.first}", f"matched with, of {pair.second}", "sizes", "shared"]]
    for one in pair.groups:
        sizes = f"{one.size_first or MISSING}, {one.size_second or MISSING}"
        rows.append([f"  {one.first or MISSING}", one.second or MISSING, sizes, str(one.shared)])
    return aligned(rows)
