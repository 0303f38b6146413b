"""Checks of a task's word lists against their use: enough entries, and the columns that are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from circuitspec.hypothesis_file.checks.check_task import answer_fields, template_uses
from circuitspec.hypothesis_file.checks.scope import Scope, meant
from circuitspec.hypothesis_file.checks.word_lists import Row, columns
from circuitspec.hypothesis_file.grammar.fields import Draw, SlotRule, parse_list_reference, parse_slot_rule
from circuitspec.hypothesis_file.schema.blocks import Above
from circuitspec.hypothesis_file.yaml.source import Path_


def check_lists(scope: Scope, lists: Mapping[str, tuple[Row, ...]]) -> None:
    """Note lists too short for the slots drawn from them, and columns that are missing or superfluous."""
    if scope.parts.task is None or not scope.is_templated:
        return
    _check_sizes(scope, lists)
    _check_columns(scope, lists)


def _check_sizes(scope: Scope, lists: Mapping[str, tuple[Row, ...]]) -> None:
    clean = Counter(rule.list for rule in _rules(scope.task.slots).values() if isinstance(rule, Draw))
    short = {name for name, count in clean.items() if name in lists and len(lists[name]) < count}
    for name in short:
        scope.add(
            "CS137",
            f"the list {name} is too short for the slots drawn from it",
            ("task", "lists", name),
            label=f"{_counted(len(lists[name]))} for {clean[name]} slots that must differ",
            hint=f"give it at least {clean[name]} entries",
        )
    for corruption, changes in scope.task.corruptions.items():
        fresh = Counter(rule.list for rule in _rules(changes).values() if isinstance(rule, Draw))
        for name, count in fresh.items():
            if name in lists and name not in short and len(lists[name]) < clean[name] + count:
                short.add(name)
                scope.add(
                    "CS137",
                    f"the list {name} is too short for the corruption {corruption}",
                    ("task", "lists", name),
                    label=f"{_counted(len(lists[name]))} for {clean[name]} clean and {count} fresh values",
                    hint=f"give it at least {clean[name] + count} entries: fresh values differ from the clean ones",
                )


def _check_columns(scope: Scope, lists: Mapping[str, tuple[Row, ...]]) -> None:
    for one, path in (*template_uses(scope), *answer_fields(scope)):
        for source in _sources(scope, one.slot):
            if source.list in lists and (one.column is not None or source.column is None):
                problem = _column_problem(one.slot, one.column, source.list, columns(lists[source.list]))
                if problem is not None:
                    said, hint = problem
                    where = f"in the corruption {source.corruption}" if source.corruption else ""
                    scope.add("CS139", said, path, label=where, hint=hint, within=(one.offset, one.length))
                    break
    for key, answer in (("answer", scope.task.answer), ("wrong", scope.task.wrong)):
        if isinstance(answer, Above):
            name, column = parse_list_reference(answer.source)
            problem = _column_problem(f"${name}", column, name, columns(lists[name])) if name in lists else None
            if problem is not None:
                scope.add("CS139", problem[0], ("task", key, "from"), hint=problem[1])
    _check_rules(scope, lists)


def _check_rules(scope: Scope, lists: Mapping[str, tuple[Row, ...]]) -> None:
    """Note columns of `$table.column` and `=SLOT.column` that there are not, and those that no template shows."""
    rules: list[tuple[Path_, str, str]] = [(("task", "slots", s), s, text) for s, text in scope.task.slots.items()]
    for name, changes in scope.task.corruptions.items():
        rules += [(("task", "corruptions", name, slot), slot, text) for slot, text in changes.items()]
    shown = {one.slot for one, _ in (*template_uses(scope), *answer_fields(scope)) if one.column is None}
    for path, slot, text in rules:
        rule = parse_slot_rule(text)
        if rule.column is None:
            continue
        source = _source(scope, rule)
        said = f"${rule.list}" if isinstance(rule, Draw) else rule.slot
        known = columns(lists[source.list]) if source is not None and source.list in lists else None
        if source is None or known is None:
            continue
        problem = _column_problem(said, rule.column, source.list, known)
        if problem is not None:
            at = text.index(".") + 1
            scope.add("CS139", problem[0], path, hint=problem[1], within=(at, len(text) - at))
        elif path[1] == "corruptions" and slot not in shown:
            drawn = f"${source.list}.{known[0]}"
            scope.add(
                "CS179",
                f"no template shows {slot} itself, so that another column of it changes nothing",
                path,
                hint=f"draw it as {slot}: {drawn}, and write {{{slot}}} where that column is meant",
            )


@dataclass(frozen=True)
class _Source:
    """The list that a slot's values come from, the column that it shows, and the corruption that says so, if any."""

    list: str
    column: str | None
    corruption: str = ""


def _sources(scope: Scope, slot: str) -> Iterator[_Source]:
    """What a slot can hold: in the clean prompt, and in each corruption that changes it."""
    rules = _rules(scope.task.slots)
    if slot in rules and (found := _source(scope, rules[slot])) is not None:
        yield found
    for corruption, changes in scope.task.corruptions.items():
        if slot in changes and (found := _source(scope, parse_slot_rule(changes[slot]))) is not None:
            yield replace(found, corruption=corruption)


def _source(scope: Scope, rule: SlotRule) -> _Source | None:
    """The list and column of a rule, through all slots that it copies; None in a circle, which is told elsewhere."""
    rules = _rules(scope.task.slots)
    column = rule.column
    for _ in range(len(rules) + 1):
        if isinstance(rule, Draw):
            return _Source(rule.list, column)
        if rule.slot not in rules:
            return None
        rule = rules[rule.slot]
        column = column or rule.column
    return None


def _rules(slots: Mapping[str, str]) -> dict[str, SlotRule]:
    return {slot: parse_slot_rule(text) for slot, text in slots.items()}


def _column_problem(said: str, column: str | None, name: str, known: tuple[str, ...]) -> tuple[str, str] | None:
    if column is None and known:
        return f"{said} is a row of the table {name}", f"say which column: {said}.{known[0]}"
    if column is not None and not known:
        return f"{said} has no columns: {name} is a plain list", f"write {said}, or make {name} a table"
    if column is not None and column not in known:
        return f"the table {name} has no column {column}", meant(column, known)
    return None


def _counted(n: int) -> str:
    return f"{n} entry" if n == 1 else f"{n} entries"
