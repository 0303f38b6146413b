"""Scrubbed circuits part by part: as the tree of their paths in text, as tables of a page, and as data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from circuitspec.analysis.claims.abstraction.scrub_costs import LessCarried, PartCost, ScrubCosts
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.plain_data import estimate_data
from circuitspec.analysis.statistics.wording import MISSING, briefly, number, plural
from circuitspec.experiments.follow_ups.scrub_parts import LOGITS, key_of
from circuitspec.experiments.levels.scrub_tree import TreeInput, TreeNode
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.schema.carries_block import NOTHING
from circuitspec.reports.figures.tree_figure import Branch, tree_figure
from circuitspec.reports.views import Chart, Table
from circuitspec.runtime.text_columns import aligned
from circuitspec.runtime.visible_text import visible

_MOST_NODES = 60  # of a tree that is written out
_OTHERS = "all else"


# -- text -------------------------------------------------------------------------------------------------------------


def scrubs_text(scrubs: Iterable[ScrubCosts]) -> Iterator[str]:
    """A block a claim: the tree with what each value carries and what scrubbing it costs, then what could be less."""
    for found in scrubs:
        head, *rows = _tree_rows(found)
        yield f"{_title(found)}\n\n{aligned([head, *rows])}" + "".join(f"\n  note: {note}" for note in _notes(found))
        if found.narrowed:
            yield f"{_LESS}\n\n{aligned(_less_rows(found))}"


_LESS = "entries of `carries` with one name left out, all others as in the file"


def _title(found: ScrubCosts) -> str:
    of = f"draw 1 of {found.draws}" if found.draws > 1 else "its one draw"
    return (
        f"claim {found.index + 1} (scrubbed) part by part, {of}: recovered {found.metric}, "
        f"all parts together {briefly(found.together)}"
    )


def _notes(found: ScrubCosts) -> Iterator[str]:
    most = found.costliest
    if most is not None and most.without is not None:
        gain = most.without.value - found.together.value
        yield visible(
            f"scrubbing {_named(most)} costs most: with all others scrubbed and this not, "
            f"{number(most.without.value)} is recovered, {number(gain)} more"
        )
        if most.part.others:
            what = "what is outside the circuit" if most.part.key == LOGITS else f"paths into {most.part.key}"
            yield visible(f"no entry of `carries` mends that: look for {what} that the file does not declare")
    if found.left_out:
        yield f"{plural(found.left_out, 'run')} of its parts left out: they are many"


def _named(one: PartCost) -> str:
    return one.part.described if one.part.others else f"the entry {one.part.described}"


def _tree_rows(found: ScrubCosts) -> list[list[str]]:
    """The head, the logits, then every node below what reads it; of a large tree every entry once."""
    thorough = any(one.without is not None for one in found.parts)
    head = ["  value", "carries", "scrubbed alone", *(["all others scrubbed"] if thorough else [])]
    rows = [head, ["  logits", "", *[""] * (len(head) - 2)]]
    if len(found.tree.nodes) > _MOST_NODES:
        rows += [[f"  {one.part.described}", "", *_figures(one, thorough)] for one in found.parts]
        return rows
    rows.append([f"    {_OTHERS}", NOTHING, *_figures(found.of(LOGITS, others=True), thorough)])
    told: set[tuple[str, bool]] = set()

    def figures(key: str, others: bool) -> list[str]:
        part = found.of(key, others=others)
        if part is not None and (key, others) in told:
            return ["as above", *(["as above"] if thorough else [])]
        told.add((key, others))
        return _figures(part, thorough)

    for depth, node, port in _walk(found.tree.inputs, 1):
        entry = f" ({node.key})" if node.key and node.key != _place(node) else ""
        rows.append([f"{'  ' * (depth + 1)}{port}{_place(node)}{entry}", node.carried, *figures(key_of(node), False)])
        if node.inputs and node.tested:
            rows.append([f"{'  ' * (depth + 2)}{_OTHERS}", NOTHING, *figures(key_of(node), True)])
    return rows


def _walk(inputs: Sequence[TreeInput], depth: int) -> Iterator[tuple[int, TreeNode, str]]:
    """Every node with its depth and the input that reads it (`<v> `, or nothing), each before those that it reads."""
    for one in inputs:
        for node in one.nodes:
            yield depth, node, f"<{one.receiver.port}> " if one.receiver.port else ""
            yield from _walk(node.inputs if node.tested else (), depth + 1)


def _place(node: TreeNode) -> str:
    return format_name(node.sender) + ("" if node.where.is_everywhere else node.where.canonical())


def _figures(one: PartCost | None, thorough: bool) -> list[str]:
    shown = [None, None] if one is None else [one.alone, one.without]
    return [MISSING if each is None else briefly(each) for each in shown[: 1 + thorough]]


def _less_rows(found: ScrubCosts) -> list[list[str]]:
    rows = [["  entry", "left out", "recovered", ""]]
    for one in found.narrowed:
        rows.append([f"  {one.part.key}", one.dropped, *_told(one)])
    return rows


def _told(one: LessCarried) -> tuple[str, str]:
    if one.recovered is None:
        return MISSING, "something that reads it carries it"
    return briefly(one.recovered), "no loss" if one.lossless else ""


# -- page and data ----------------------------------------------------------------------------------------------------


def scrubs_charts(scrubs: Iterable[ScrubCosts]) -> Iterator[Chart]:
    """The tree of each claim, with what scrubbing each part alone costs; none of a tree that is too large."""
    for found in scrubs:
        if len(found.tree.nodes) > _MOST_NODES:
            continue
        title = f"Claim {found.index + 1} (scrubbed): what each value carries, and what scrubbing it alone costs"
        picture = tree_figure(list(_branches(found)), title=title, quantity=f"costs alone ({found.metric})")
        yield Chart(picture, _NOTE)


_NOTE = (
    "Below each value what it reads on the declared paths, by the input in angle brackets. A bar is what is lost of "
    "the difference between the clean and the random runs where this alone is taken from other prompts, which agree on "
    "what it carries; all else is what the reader reads by no path. Values of one entry are taken together."
)


def _branches(found: ScrubCosts) -> Iterator[Branch]:
    def cost(key: str, others: bool) -> float | None:
        part = found.of(key, others=others)
        return None if part is None or part.alone is None else 1 - part.alone.value

    yield Branch(0, LOGITS)
    yield Branch(1, _OTHERS, NOTHING, cost(LOGITS, True))
    for depth, node, port in _walk(found.tree.inputs, 1):
        yield Branch(depth, f"{port}{_place(node)}", node.carried, cost(key_of(node), False))
        if node.inputs and node.tested:
            yield Branch(depth + 1, _OTHERS, NOTHING, cost(key_of(node), True))


def scrubs_tables(scrubs: Iterable[ScrubCosts]) -> Iterator[Table]:
    """The same rows as in the text, without their indents."""
    for found in scrubs:
        head, *rows = _tree_rows(found)
        caption = " ".join([f"{_title(found)}.", *(f"{note}." for note in _notes(found))])
        yield Table(caption[:1].upper() + caption[1:], _cells(head), tuple(map(_cells, rows)))
        if found.narrowed:
            head, *rows = _less_rows(found)
            yield Table(f"{_LESS[:1].upper()}{_LESS[1:]}", _cells(head), tuple(map(_cells, rows)))


def _cells(row: Sequence[str]) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in row)


def scrubs_data(scrubs: Iterable[ScrubCosts]) -> list[dict[str, object]]:
    """A claim, its parts and its narrowed entries."""

    def figure(one: Estimate | None) -> object:
        return None if one is None else estimate_data(one)

    return [
        {
            "claim": found.index,
            "metric": found.metric,
            "together": figure(found.together),
            "parts": [
                {
                    "entry": one.part.key,
                    "carries": None if one.part.others else list(one.part.carried),
                    "all_else": one.part.others,
                    "alone": figure(one.alone),
                    "without": figure(one.without),
                }
                for one in found.parts
            ],
            "less": [
                {
                    "entry": one.part.key,
                    "dropped": one.dropped,
                    "recovered": figure(one.recovered),
                    "lossless": one.lossless,
                    "reason": one.why or None,
                }
                for one in found.narrowed
            ],
            "left_out": found.left_out,
        }
        for found in scrubs
    ]
