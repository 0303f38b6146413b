"""What a sweep for a variable found, as text, tables and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

import numpy as np
import pandas as pd

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.wording import MISSING, number, plural, with_interval
from circuitspec.exploration.request import SWEPT, Kind
from circuitspec.exploration.variables.place_trials import PlaceFigures
from circuitspec.exploration.variables.variable_findings import Lowest, VariableFindings
from circuitspec.reports.figures.heatmap import heatmaps
from circuitspec.reports.figures.picture import Picture
from circuitspec.reports.html.html_exploration import Gallery, render_gallery
from circuitspec.reports.machine.table_files import Writer, table_files, text_file
from circuitspec.reports.text.result_frame import ResultFrame
from circuitspec.runtime.text_columns import aligned
from circuitspec.runtime.visible_text import visible

SHOWN = 12  # places, at most, that are shown with all their figures
HALF = 0.5  # of the pairs that must change: as many come out right where a variable is one of two words by chance
_PACKAGES = ("circuitspec", "torch", "transformers", "pyvene")
_FIGURES = {"": "IIA, changed", "top1": "top-1, changed", "unchanged": "unchanged", "all_pairs": "all pairs"}


def interchange_frame(found: VariableFindings) -> ResultFrame:
    """One row per place and family of pairs.

    `iia` with its interval `low` to `high`: of the `n` pairs whose answer must change, the share on which it becomes
    the one that the high-level model asks for, as the likeliest of the pair's candidates (`top1`: of the vocabulary).
    `unchanged`: the same of the pairs whose answer must stay, `all_pairs` of both, and `do_nothing` of both without any
    patch. `kept` of the `pairs` count: the model answers their base and source right. `asked_minus_base` is the
    mean logit of the expected answer less that of the base's on the pairs that must change, `asked_minus_base_before`
    the same without the patch.
    """
    rows = []
    for one in found.figures:
        place, nothing = one.place, one.shares["doing nothing"]
        row: dict[str, object] = {
            "component": place.name,
            "kind": place.component.kind.name,
            "layer": place.layer,
            "head": place.head,
            "position": place.position,
            "family": one.family,
        }
        for name, label in _FIGURES.items():
            row |= _columns(name, one.shares[label])
        row["do_nothing"] = None if nothing is None else nothing.value
        before, after = one.moved or (None, None)
        row |= {"kept": one.kept, "pairs": one.pairs, "asked_minus_base": after, "asked_minus_base_before": before}
        rows.append(row)
    frame = pd.DataFrame(rows)
    texts, whole = ("component", "kind", "position", "family"), ("layer", "head", "n", "kept", "pairs")
    kinds: dict[str, str] = {}
    for column in map(str, frame.columns):
        if column not in texts:
            kinds[column] = "Int64" if column in whole or column.endswith("_n") else "float64"
    return ResultFrame(frame.astype(kinds))


def _columns(name: str, estimate: Estimate | None) -> dict[str, object]:
    prefix = f"{name}_" if name else ""
    return {
        name or "iia": None if estimate is None else estimate.value,
        f"{prefix}low": None if estimate is None else estimate.low,
        f"{prefix}high": None if estimate is None else estimate.high,
        f"{prefix}n": 0 if estimate is None else estimate.n,
    }


def learned_frame(found: VariableFindings) -> ResultFrame:
    """One row per subspace that was learned: `rank` at a place, what it scores on held-out pairs of all families.

    Columns as those of `interchange_frame`; those of the whole vector on the same pairs begin with `whole_`.
    """
    rows = []
    for one in found.learned:
        row: dict[str, object] = {"component": one.place.name, "position": one.place.position, "rank": one.rank}
        row |= _columns("", one.iia) | _columns("top1", one.top) | _columns("unchanged", one.unchanged)
        row |= _columns("whole_iia", one.whole_iia) | _columns("whole_top1", one.whole_top)
        row |= _columns("whole_unchanged", one.whole_unchanged)
        rows.append({**row, "kept": one.kept, "pairs": one.pairs})
    return ResultFrame(pd.DataFrame(rows))


def interchange_pictures(found: VariableFindings) -> dict[str, Picture]:
    """By file name without its ending: for each kind IIA by layer and position, a panel for each family of pairs; of
    heads by layer and head, at the position where each has most."""
    drawn = {}
    for kind in found.kinds:
        panels = {}
        columns = _heads(found, kind) if SWEPT[kind].has_members else list(found.positions)
        for family in found.families:
            values = np.full((found.n_layers, len(columns)), np.nan)
            for one in found.figures:
                if one.place.kind != kind or one.family != family or one.iia is None:
                    continue
                column = str(one.place.head) if SWEPT[kind].has_members else one.place.position
                cell = one.place.layer, columns.index(column)
                values[cell] = np.fmax(values[cell], one.iia.value)
            panels[f"pairs of {family}"] = values
        word = SWEPT[kind].singular if SWEPT[kind].is_stream else SWEPT[kind].plural
        drawn[f"interchange-{found.variable}-{kind}"] = heatmaps(
            panels,
            rows=[str(layer) for layer in range(found.n_layers)],
            columns=columns,
            title=f"Interchange of {found.variable}: {word}",
            row_axis="layer",
            column_axis="head, at its best position" if SWEPT[kind].has_members else "position",
            quantity="IIA on pairs whose answer must change (hatched: there are none)",
        )
    return drawn


def _heads(found: VariableFindings, kind: Kind) -> list[str]:
    heads = {one.place.head for one in found.figures if one.place.kind == kind and one.place.head is not None}
    return [str(head) for head in sorted(heads)]


def interchange_files(found: VariableFindings) -> dict[str, Writer]:
    """The table as parquet and CSV, the pictures as SVG, and the drafted entry where there is one: by file name."""
    subspaces = {"subspaces": learned_frame(found)} if found.learned else {}
    files = table_files({"interchange": interchange_frame(found), **subspaces})
    svgs = {f"{name}.svg": text_file(one.standalone()) for name, one in interchange_pictures(found).items()}
    drafts = {f"align-{found.variable}.yaml": text_file(found.draft + "\n")} if found.draft else {}
    return {**files, **svgs, **drafts}


def interchange_html(found: VariableFindings, command: str) -> str:
    """What was found as a page for a browser; `command` is what was typed."""
    drafts = ((f"align: {found.variable}", tuple(found.draft.splitlines())),) if found.draft else ()
    gallery = Gallery(
        found.name,
        f"{found.model}, {plural(found.n_prompts, 'prompt')}",
        f"interchange of {found.variable}",
        (),
        tuple(interchange_pictures(found).values()),
        tuple(render_interchange(found).splitlines()),
        drafts,
        (
            ("command", command),
            ("cost", f"{found.forwards:.0f} forwards over all prompts, {found.seconds:.1f} s"),
            ("versions", ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)),
        ),
    )
    return render_gallery(gallery)


def render_interchange(found: VariableFindings) -> str:
    """The report for the terminal, ending in a newline."""
    parts = [_head(found), _pairs(found)]
    parts += [_map(found, kind) for kind in found.kinds if not SWEPT[kind].has_members]
    parts += [_best(found), _learned(found), _draft(found)]
    taken = f"{found.saved:.1f} of them taken from the base run, as the patch leaves it"
    cost = f"{found.forwards:.1f} forwards over all prompts, {taken}; {found.seconds:.1f} s"
    return "\n\n".join(part for part in [*parts, cost] if part) + "\n"


def _head(found: VariableFindings) -> str:
    families = f"{len(found.families)} families" if len(found.families) > 1 else "1 family"
    lines = [
        f"{visible(found.name)}   {visible(found.model)}   {plural(found.n_prompts, 'prompt')}, {families} of pairs",
        f"interchange of {found.variable}: one place at a time takes the value that it has in the source, as a whole",
    ]
    lines += [
        f"   note: {visible(position)} is not swept: a source of {visible(family)} has other tokens there"
        for position, family in found.misplaced.items()
    ]
    return "\n".join(lines)


def _pairs(found: VariableFindings) -> str:
    rows = [["   pairs", "kept", "must change", "doing nothing, all pairs"]]
    for family in found.families:
        one = next(one for one in found.figures if one.family == family)
        nothing = one.shares["doing nothing"]
        count = "0" if one.iia is None else str(one.iia.n)
        said = MISSING if nothing is None else with_interval(nothing)
        rows.append([f"   {family}", f"{one.kept} of {one.pairs}", count, said])
    note = "pairs whose base or source the unpatched model answers wrong are left out; intervals are Wilson's"
    return aligned(rows) + f"\n   note: {note}"


def _map(found: VariableFindings, kind: Kind) -> str:
    """IIA by layer and position, in the family in which it is lowest; the last layer first."""
    own = {one.place: one for one in found.lowest if one.place.kind == kind}
    if not own:
        return ""
    rows = [["   layer", *found.positions]]
    by_layer: dict[int, dict[str, str]] = {}
    for place, one in own.items():
        by_layer.setdefault(place.layer, {})[place.position] = number(one.iia.value)
    for layer in sorted(by_layer, reverse=True):
        rows.append([f"   {layer}", *(by_layer[layer].get(position, MISSING) for position in found.positions)])
    word = SWEPT[kind].singular if SWEPT[kind].is_stream else SWEPT[kind].plural
    among = ", in the family in which it is lowest" if len(found.families) > 1 else ""
    return f"IIA on pairs whose answer must change{among}: {word}\n{aligned(rows)}"


def _best(found: VariableFindings) -> str:
    """The places with the highest IIA, with all their figures, family by family."""
    if not found.lowest:
        return "in no pair that counts must the answer change: nothing tells where the variable is"
    ranked = sorted(found.lowest, key=lambda one: (-one.iia.value, one.place.layer))
    ranked = [one for one in ranked if one.iia.value > 0] or ranked[:1]
    figures: dict[object, list[PlaceFigures]] = {}
    for one in found.figures:
        figures.setdefault(one.place, []).append(one)
    head = ["   place", "pairs", "IIA, changed [95% CI]", "top-1, changed", "unchanged", "asked - base"]
    rows = [head, *(row for place in ranked[:SHOWN] for row in _rows(place, figures[place.place]))]
    left = f" (of {len(found.lowest)} places)"
    return f"places with the highest IIA{left}\n{aligned(rows)}"


def _rows(lowest: Lowest, figures: list[PlaceFigures]) -> Iterator[list[str]]:
    for number_, one in enumerate(figures):
        shown = (one.shares[name] for name in ("IIA, changed", "top-1, changed", "unchanged"))
        moved = MISSING if one.moved is None else " -> ".join(map(number, one.moved))
        name = f"   {lowest.place.name}@{lowest.place.position}" if number_ == 0 else "   "
        yield [name, one.family, *(MISSING if share is None else with_interval(share) for share in shown), moved]


def _learned(found: VariableFindings) -> str:
    """What subspaces score on held-out pairs, and the whole vector on the same."""
    if not found.learned:
        return ""
    head = ["   place", "", "IIA, changed [95% CI]", "top-1, changed", "unchanged", "pairs"]
    rows = [head]
    for one in found.learned:
        own, whole = (one.iia, one.top, one.unchanged), (one.whole_iia, one.whole_top, one.whole_unchanged)
        count = f"{one.kept} of {one.pairs}"
        name = f"   {one.place.name}@{one.place.position}"
        rows.append([name, f"rank {one.rank}", *map(_or_missing, own), count])
        rows.append(["   ", "whole vector", *map(_or_missing, whole), count])
    words = "".join(f"\n   {one}" for one in found.split)
    note = "\n   note: the places were chosen on all words; `circuitspec align` adds the controls"
    return f"subspaces learned there, on held-out pairs of all families\n{aligned(rows)}{words}{note}"


def _or_missing(share: Estimate | None) -> str:
    return MISSING if share is None else with_interval(share)


def _draft(found: VariableFindings) -> str:
    if not found.draft:
        return "no place is proposed: each fails on all pairs of some family" if found.lowest else ""
    why = "the earliest layer as good as the best at its position (by intervals), judged by the family it does worst in"
    return f"drafted: {why}\n" + "\n".join(f"   {line}" for line in found.draft.splitlines()) + _doubt(found)


def _doubt(found: VariableFindings) -> str:
    """A note where no place is surely right on more than half of the pairs of every family."""
    best = max(found.lowest, key=lambda one: one.iia.value)
    if (best.iia.low or 0.0) > HALF:
        return ""
    return (
        f"\n   note: no place carries {visible(found.variable)} in every family: the best, {best.place.name}@"
        f"{best.place.position}, has an IIA of {with_interval(best.iia)} on {visible(best.family)}"
    )
