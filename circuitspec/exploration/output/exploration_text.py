"""What an exploration found, as text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from circuitspec.analysis.statistics.gate_statistics import MARGIN
from circuitspec.analysis.statistics.wording import MISSING, briefly, number, plural
from circuitspec.exploration.draft import fewest
from circuitspec.exploration.exploration_findings import Circuit, ExplorationFindings
from circuitspec.exploration.output.exploration_warnings import exploration_warnings
from circuitspec.exploration.output.stability_output import circuit_lines, circuit_rows, edge_rows, stability_lines
from circuitspec.exploration.request import SWEPT
from circuitspec.exploration.search.circuit_selection import FrontierPoint
from circuitspec.exploration.search.component_sweep import MATERIAL, Drawn
from circuitspec.exploration.search.cross_sections import RESTORES, Sections, named
from circuitspec.exploration.search.estimable import inestimable
from circuitspec.exploration.search.exact_sweeps import LEAST, Grid
from circuitspec.exploration.search.reactions.corruption_traces import CorruptionTraces
from circuitspec.exploration.setting import places_of
from circuitspec.exploration.stability.circuit_stability import Stability
from circuitspec.hypothesis_file.grammar.internal_metric_names import is_internal
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.runtime.visible_text import no_command, visible

SHOWN = 20
SEEN = 0.005  # what is smaller is written 0.00
UNNAMED = (
    "the prompts name no positions: components are patched at the last token, which drafts call END, and at all tokens"
    "\n(to tell apart what acts in between, name positions: under `task`, or in the rows of the prompts file)"
)


def render_exploration(found: ExplorationFindings) -> str:
    """The report on stdout: what was compared, the strongest effects, circuits and their frontiers, links."""
    parts = [
        f"{visible(found.name)}   {visible(found.model)}   {plural(found.n_prompts, 'prompt')}\n"
        + ("" if found.rows is None else f"{visible(found.rows.described())}\n")
        + f"{found.metric}, {visible(found.ablation)}",
        *([UNNAMED] if found.unnamed else []),
        *([_features(found)] if found.features else []),
        _corruptions(found),
        *(_grid(grid) for grid in found.grids),
    ]
    if found.sweep.effects:
        parts.append(_effects(found))
    if found.traces is not None:
        parts.append(_traces(found.traces))
    if found.circuits:
        parts.append(_frontiers(found))
    if found.gates:
        parts.append(_gates(found))
    if found.links.found:
        parts.append(_links(found))
    parts += [_sections(one) for one in found.sections]
    if found.stability is not None:
        parts += _stability(found.stability)
    if found.unseen:
        parts.append("not looked at:\n" + "\n".join(f"  {one.counted}: {one.why}" for one in found.unseen))
    for warning in exploration_warnings(found):
        lines = [f"warning[{warning.code}]: {warning.message}", f"   {warning.detail}", f"   help: {warning.help}"]
        parts.append("\n".join(map(visible, lines)))
    parts.append(f"({found.forwards:.0f} forwards over all prompts, {found.seconds:.1f} s)")
    return no_command(visible("\n\n".join(parts), lines=True)) + "\n"


def _features(found: ExplorationFindings) -> str:
    """Of every dictionary what was searched, and what became of the rest."""
    rows = [["dictionary", "of", "features", "active here", "searched"]]
    for one in found.features:
        rows.append([one.name, one.place, *(f"{count:,}" for count in (one.n_features, one.moving, one.searched))])
    return (
        "features are searched, heads and MLPs are free. Active here are features whose weight differs at a searched\n"
        "position, in some prompt, from what is patched in: the others do nothing there. All of these are estimated;\n"
        "a feature that is not searched, or in no circuit, is ablated with all that is outside.\n\n" + _table(rows)
    )


def _corruptions(found: ExplorationFindings) -> str:
    rows = [["corruption", "clean", "corrupt"]]
    rows += [[name, number(clean), number(corrupt)] for name, (clean, corrupt) in found.corruptions.items()]
    return _table(rows)


def _grid(grid: Grid) -> str:
    """What a sweep found: of every kind the strongest places, the series side by side."""
    swept = [kind for kind in SWEPT if grid.spots(kind)]
    how = "from coarse to fine" if grid.coarse_to_fine else "each by itself"
    title = f"swept {how}: " + ", ".join(f"{len(grid.spots(kind))} {SWEPT[kind].plural}" for kind in swept)
    parts = [f"{title}\ndrop when ablated, rise when restored, as shares of clean - corrupt ({MISSING}: it has none)"]
    labels = [series.title for series in grid.series]
    if len(labels) > 3:
        parts.append("\n".join(f"[{i}] {visible(label)}" for i, label in enumerate(labels, 1)))
        labels = [f"[{i}]" for i in range(1, len(labels) + 1)]
    by_place = {(cell.spot, cell.series): cell for cell in grid.cells}
    for kind in swept:
        spots = sorted(grid.spots(kind), key=lambda spot: -grid.sizes[spot])
        strong = [spot for spot in spots if grid.sizes[spot] >= LEAST]
        rows = [[SWEPT[kind].plural, *labels]]
        for spot in strong[:SHOWN]:
            cells = [by_place.get((spot, series)) for series in grid.series]
            shares = [number(None if cell is None else cell.share) for cell in cells]
            rows.append([f"{spot.name}@{grid.wheres[spot.where]}", *shares])
        more = f"\n({len(strong) - SHOWN} more with at least {LEAST:g})" if len(strong) > SHOWN else ""
        parts.append(_table(rows) + more if strong else f"no {SWEPT[kind].plural} with at least {LEAST:g}")
    return "\n\n".join(parts)


def _effects(found: ExplorationFindings) -> str:
    rows = [["component", "drop when ablated", "rise when restored", "estimated", ""]]
    for e in found.largest(SHOWN):
        if e.size < SEEN:
            break
        name = f"{format_name(e.component)}@{','.join(places_of(e.where))}"
        rows.append([name, number(e.drop), number(e.rise), number(e.drop_estimate), number(e.rise_estimate)])
    sweep = found.sweep
    if inestimable(found.metric):
        measured = "a metric inside the model" if is_internal(found.metric) else found.metric
        title = f"{plural(len(sweep.effects), 'effect')} of components at positions on {measured}, all exact"
        return f"{title}; shares of clean - corrupt" + ("\n\n" + _table(rows) if len(rows) > 1 else "")
    drawn = sweep.drawn
    chosen = len(sweep.exact) - (0 if drawn is None else drawn.count)
    overlap = "" if sweep.overlap is None else f"; {sweep.overlap[1]:.0%} of the top {sweep.overlap[0]} are the same"
    lines = [
        f"{chosen} of {len(sweep.effects)} components and positions patched exactly; shares of clean - corrupt",
        f"(rank agreement of estimates and exact effects: {number(sweep.agreement[0])} noising, "
        f"{number(sweep.agreement[1])} denoising{overlap})",
    ]
    lines += _on_some([by for effect in sweep.exact for by in effect.prompts], found.n_prompts)
    if drawn is not None:
        lines.append(_drawn(drawn).rstrip())
    return "\n".join(lines) + ("\n\n" + _table(rows) if len(rows) > 1 else "")


def _on_some(by: Sequence[int | None], prompts: int) -> list[str]:
    """What was measured on some of the prompts alone, if anything was."""
    few = sorted({one for one in by if one is not None})
    if not few:
        return []
    count = sum(one is not None for one in by)
    return [
        f"({count} of these {len(by)} runs were on {' or '.join(map(str, few))} of the {prompts} prompts: enough to "
        f"see which side of {MATERIAL:g} their effect lies on, 95 %; --thorough runs all on all)"
    ]


def _drawn(drawn: Drawn[object]) -> str:
    return (
        f"(of {drawn.count} drawn from the other {drawn.population}, {len(drawn.mattering) or 'none'} "
        f"{'does' if len(drawn.mattering) == 1 else 'do'} {MATERIAL:g} or more: at most {drawn.at_most:.0%} of "
        "them may, 95 % confidence)\n"
    )


def _traces(traces: CorruptionTraces) -> str:
    """Every corruption side by side: lost when noised from it, won when restored in its run."""
    if not traces.reactions:
        return f"no component does {MATERIAL:g} or more with any corruption by itself"
    rows = [["component", *traces.corruptions, "reacts to"]]
    for (component, role), reactions in list(traces.reactions.items())[:SHOWN]:
        pairs = [f"{number(one.drop)} {number(one.rise)}" for one in reactions.values()]
        rows.append([f"{format_name(component)}@{role}", *pairs, ", ".join(traces.traced((component, role)))])
    left = len(traces.reactions) - SHOWN
    more = f"\n({left} more in the table of traces)" if left > 0 else ""
    return (
        "drop when noised from each corruption, rise when restored in its run, as shares of the largest clean - "
        "corrupt\n\n" + _table(rows) + more
    )


def _frontiers(found: ExplorationFindings) -> str:
    """The circuits, and their frontiers side by side: a row is a size."""
    lines = [_circuit(circuit, found) for circuit in found.circuits]
    head = [cell for circuit in found.circuits for cell in (f"{found.unit}s", f"recovered {circuit.kind}", "")]
    rows = [["  entries", *head]]
    for size in sorted({point.entries for circuit in found.circuits for point in circuit.frontier}):
        own = [[point for point in circuit.frontier if point.entries == size] for circuit in found.circuits]
        for points in zip_longest(*own):
            rows.append([f"  {size}", *(cell for point in points for cell in _point(point))])
    lines.append(_table(rows))
    lines.append("(every circuit that was tried; * of those none is both smaller and closer to 1)")
    return "\n".join(lines)


def _point(point: FrontierPoint | None) -> list[str]:
    if point is None:
        return ["", "", ""]
    return [str(point.heads), briefly(point.recovered), "*" if point.pareto else ""]


def _circuit(circuit: Circuit, found: ExplorationFindings) -> str:
    interval = "" if circuit.interval is None else " [{}, {}]".format(*(number(end) for end in circuit.interval))
    members = ", ".join(
        f"{component}@{role}" + ("" if effect == "positive" else f" ({effect})")
        for component, role, effect in circuit.entries
    )
    size = f"{circuit.heads} of {found.units} {found.unit}s"
    return (
        f"circuit {circuit.kind}: recovered {number(circuit.recovered)}{interval}, "
        f"{size}, {number(circuit.knocked_out)} is left without it{_held_out(circuit, found)}\n  {members or 'nothing'}"
        + _spared(circuit, found.unit)
    )


def _held_out(circuit: Circuit, found: ExplorationFindings) -> str:
    """What it does on prompts that it was not chosen on."""
    if circuit.held_out is None:
        return f" (all on the prompts that it was chosen on: {found.not_judged})" if found.not_judged else ""
    recovered, left = circuit.held_out
    return f"\n  on {found.judged_on}: recovered {briefly(recovered)}, {briefly(left)} is left"


def _spared(circuit: Circuit, unit: str) -> str:
    helpful, others = ([f"{c}@{role}" for c, role in own] for own in (circuit.spared, circuit.unproven))
    said = fewest(helpful, others, SHOWN, "helpful", unit)
    return f"\n  {said}" if said else ""


def _links(found: ExplorationFindings) -> str:
    rows = [["direct path", "drop", "rise", "estimated", ""]]
    links = found.links
    strong = [pair for pair in zip(links.found, links.names, strict=True) if pair[0].size >= MATERIAL]
    for link, (sender, receiver) in strong[:SHOWN]:
        estimates = number(link.drop_estimate), number(link.rise_estimate)
        rows.append([f"{sender} -> {receiver}", number(link.drop), number(link.rise), *estimates])
    overlap = "" if links.overlap is None else f"; {links.overlap[1]:.0%} of the top {links.overlap[0]} are the same"
    drawn = "" if links.drawn is None else _drawn(links.drawn)
    some = "".join(f"{line}\n" for line in _on_some([by for one in links.found for by in one.prompts], found.n_prompts))
    said = (
        f"{links.chosen} of {links.candidates} direct paths between members patched exactly\n(rank agreement of "
        f"estimates and exact effects: {number(links.agreement[0])} noising, {number(links.agreement[1])} "
        f"denoising{overlap})\n{some}{drawn}\n"
    )
    if len(rows) == 1:
        return f"{said}no direct path between members moves the metric by itself ({MISSING})"
    return said + _table(rows)


def _gates(found: ExplorationFindings) -> str:
    """Every pair that was patched, and the gate that its runs make it."""
    rows = [["together", "noised alone, both", "interaction", "denoised alone, both", "interaction", ""]]
    for pair in found.gates:
        shares = [
            text
            for t in (pair.finding.noising, pair.finding.denoising)
            for text in (
                f"{number(t.first)} {number(t.second)}, {number(t.both)}",
                MISSING if t.interaction is None else briefly(t.interaction),
            )
        ]
        rows.append([f"{format_name(pair.first)}, {format_name(pair.second)}", *shares, pair.finding.label])
    return (
        "interaction: what two members do alone, added up, less what both do together, as a share of the latter "
        f"[95 % CI]\n(1: either does what both do; -1: neither alone does anything; within {MARGIN:g} of 0: effects "
        "add up)\n\n" + _table(rows, words=True)
    )


def _stability(stability: Stability) -> list[str]:
    """How often the search, repeated on halves of the prompts, chose what: a table for each circuit."""
    parts = ["\n".join([*stability_lines(stability), f"subsets: on {stability.judged_on}"])]
    for one in stability.circuits:
        rows, edges = circuit_rows(one), edge_rows(one)
        table = _table(rows, words=True) if len(rows) > 1 else "nothing was chosen"
        parts.append("\n".join([f"circuit {one.kind}", "", table, *(f"({line})" for line in circuit_lines(one))]))
        if edges:
            parts.append(_table(edges, words=True))
    return parts


def _sections(sections: Sections) -> str:
    """Every cross-section of a circuit, those that do not restore it first, and what is missing beside them."""
    title = f"minimal cross-sections of {sections.circuit}, each restored in the corrupt run"
    if sections.direct:
        return f"{title}: none, a link leads from the input to the logits themselves"
    if not sections.found:
        return f"{title}: none was" if sections.left else f"{title}: there are none"
    ordered = [*sections.broken, *(one for one in sections.found if one.restores)]
    rows = [["restored", "recovered", ""]]
    for section in ordered[:SHOWN]:
        verdict = (
            "restores it" if section.restores else "restores too much" if section.exceeds else "does not restore it"
        )
        rows.append([section.name, briefly(section.recovered), verdict])
    lines = [title, "", _table([[briefer(row[0]), *row[1:]] for row in rows])]
    if len(ordered) > SHOWN:
        lines.append(f"({len(ordered) - SHOWN} more in the table of cross-sections)")
    if sections.more:
        lines.append(
            f"(the first {len(sections.found) + sections.left}, nearest to the input; there are more: --sections)"
        )
    if sections.assumed:
        lines.append(
            "(no links are known that lead from the input to the logits: members without any were taken to read the "
            "one and to write to the other)"
        )
    if sections.unlinked:
        lines.append(f"(on no path from the input to the logits: {', '.join(map(named, sections.unlinked))})")
    if sections.whole is not None:
        lines.append(f"(all members restored at once: {briefly(sections.whole)})")
    return "\n".join([*lines, *_missing(sections)])


def _missing(sections: Sections) -> list[str]:
    """Why cross-sections do not restore the behaviour."""
    notes = []
    unlooked = 0
    for section in sections.broken:
        if section.tried is None:
            unlooked += 1
            continue
        what = "a negative component is missing" if section.exceeds else "something is missing"
        note = f"beside {briefer(section.name)} {what}"
        if section.missing:
            note += " (" + plural(section.tried, "component") + " at positions tried); restored on top:"
            note += "".join(f"\n  {one.name} {_signed(one.change)}: {one.said}" for one in section.missing)
        else:
            note += f"; of {section.tried} components at positions none adds to it by itself"
            note += _several(sections)
        notes.append(note)
    if unlooked:
        notes.append(
            f"beside {plural(unlooked, 'other')} that {'do' if unlooked > 1 else 'does'} not, it was not looked for"
        )
    return notes


def _several(sections: Sections) -> str:
    if sections.whole is None:
        return ""
    if RESTORES[0] <= sections.whole.value <= RESTORES[1]:
        return ": several members together do, so that several links are missing"
    return ", nor do all members together: several components are missing, or some that are free"


def _signed(change: float) -> str:
    return f"{'+' if change > 0 else ''}{number(change)}"


def briefer(name: str, most: int = 100) -> str:
    """The start of a long list."""
    if len(name) <= most:
        return name
    kept = name[: most - 12].rsplit(", ", 1)[0]
    return f"{kept} and {name.count(', ') - kept.count(', ')} more"


def _table(rows: list[list[str]], *, words: bool = False) -> str:
    """Columns to the right but for the first, and for the last where it has words."""
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    if words:
        widths[-1] = 0
    return "\n".join(
        "   ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    )
