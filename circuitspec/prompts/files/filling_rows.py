"""What slots hold, as rows of a file say it: for prompts of templates, and for bases and sources of pairs. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from circuitspec.hypothesis_file.grammar.fields import Copy, Draw
from circuitspec.prompts.files.row_values import NoColumn, Unfit
from circuitspec.prompts.task_findings import meant
from circuitspec.prompts.templates.slots import column_of, with_copies
from circuitspec.prompts.templates.template import Row, Value, Values, row_of, showing
from circuitspec.prompts.templates.template_task import TemplateTask


def flat(content: Mapping[str, object], before: str = "") -> dict[str, object]:
    """`{"base": {"IO": "Mary"}}` as `{"base.IO": "Mary"}`: keys inside keys are columns as a table has them."""
    found: dict[str, object] = {}
    for key, value in content.items():
        name = f"{before}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def cells_under(content: Mapping[str, object], prefix: str) -> dict[str, str]:
    """The cells of a flat row whose columns begin so, by the rest of their names. Raises Unfit for what is no text."""
    found = {}
    for name, value in content.items():
        if not name.startswith(prefix):
            continue
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise Unfit(f"`{name}` is no text")
        if not value.strip():
            raise Unfit(f"there is nothing in `{name}`")
        found[name.removeprefix(prefix)] = value
    return found


def slot_values(cells: Mapping[str, str], task: TemplateTask, otherwise: Values | None, prefix: str = "") -> Values:
    """The value of every slot: what the cells say (`SLOT`, or `SLOT.column` of a table's row), else what it holds
    `otherwise`; slots that copy others follow, unless cells say what they hold.

    Without `otherwise` every slot that is drawn must be said (NoColumn), and copies hold what they copy. Raises Unfit.
    """
    said = _by_slot(cells, task, prefix)
    if otherwise is None:
        lacking = [slot for slot, rule in task.rules.items() if isinstance(rule, Draw) and slot not in said]
        if lacking:
            raise NoColumn(f"there is no column {', '.join(f'`{prefix}{slot}`' for slot in lacking)}")
    values: dict[str, Value] = {}
    for slot, rule in task.rules.items():
        if slot in said and (isinstance(rule, Draw) or otherwise is not None):
            values[slot] = _entry(slot, said[slot], task, prefix)
        elif isinstance(rule, Draw) and otherwise is not None:
            values[slot] = otherwise[slot]
    filled = with_copies(values, task.rules, but=values)
    if otherwise is None:
        _check_copies(said, filled, task, prefix)
    return filled


def entries_said(cells: Mapping[str, str], task: TemplateTask, prefix: str) -> dict[str, Value]:
    """What cells say that slots hold, of some of them. Raises Unfit for what no slot can hold."""
    return {slot: _entry(slot, own, task, prefix) for slot, own in _by_slot(cells, task, prefix).items()}


def holds(values: Values, said: Values) -> bool:
    """Whether the slots hold what is said of some of them."""
    return all(_same(value, values[slot]) for slot, value in said.items())


def _check_copies(said: Mapping[str, Mapping[str, str]], values: Values, task: TemplateTask, prefix: str) -> None:
    """Unfit where a slot that copies another is said to hold something else."""
    for slot, own in said.items():
        rule = task.rules[slot]
        if isinstance(rule, Copy) and not _same(_entry(slot, own, task, prefix), values[slot]):
            raise Unfit(f"`{prefix}{slot}` is not what the slot {rule.slot} holds, which {slot} copies")


def _by_slot(cells: Mapping[str, str], task: TemplateTask, prefix: str) -> dict[str, dict[str, str]]:
    """By slot what is said of it: by column of its table, or by `` of an entry."""
    found: dict[str, dict[str, str]] = {}
    for name, text in cells.items():
        slot, _, column = name.partition(".")
        if slot not in task.rules:
            hint = meant(slot, task.rules)
            raise Unfit(f"`{prefix}{name}` is of no slot{f'; {hint}' if hint else ''}")
        found.setdefault(slot, {})[column] = text
    return found


def _entry(slot: str, said: Mapping[str, str], task: TemplateTask, prefix: str) -> Value:
    """The entry of the slot's list that the cells mean."""
    rule = task.rules[slot]
    name, shown = task.list_of(rule), column_of(rule, task.rules)
    rows = task.lists[name]
    asked = {column or shown: text for column, text in said.items()}
    written = ", ".join(repr(text) for text in said.values())
    if isinstance(rows[0], str):
        if set(said) != {""}:
            raise Unfit(f"`{prefix}{slot}` has no columns: the list {name} is of texts")
        if said[""] not in rows:
            raise Unfit(f"{written} in `{prefix}{slot}` is no entry of the list {name}")
        return said[""]
    if None in asked:
        raise Unfit(f"`{prefix}{slot}` is a row of the table {name}: say a column of it, `{prefix}{slot}.COLUMN`")
    found = [row for row in rows if not isinstance(row, str) and all(row.get(str(c)) == t for c, t in asked.items())]
    if len(found) != 1:
        several = "several rows" if found else "no row"
        columns = ", ".join(f"`{prefix}{slot}{f'.{column}' if column else ''}`" for column in said)
        raise Unfit(f"{written} in {columns} is in {several} of the table {name}")
    return showing(found[0], shown)


def _same(one: Value, other: Value) -> bool:
    def key(value: Value) -> Row:
        row = row_of(value)
        return row if isinstance(row, str) else dict(row)

    return key(one) == key(other)
