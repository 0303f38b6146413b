"""Checks of a task's word lists against their use: enough entries, and the columns that are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from circuitspec.hypothesis_file.checks.check_task import answer_fields, template_uses
from circuitspec.hypothesis_file.checks.scope import Scope, meant
from circuitspec.hypothesis_file.checks.word_lists import Row, columns
from circuitspec.hypothesis_file.grammar.fields import Copy, Draw, parse_list_reference, parse_slot_rule
from circuitspec.hypothesis_file.schema.blocks import Above


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
        for name, place in _lists_of(scope, one.slot):
            if name in lists:
                problem = _column_problem(one.slot, one.column, name, columns(lists[name]))
                if problem is not None:
                    said, hint = problem
                    scope.add("CS139", said, path, label=place, hint=hint, within=(one.offset, one.length))
                    break
    for key, answer in (("answer", scope.task.answer), ("wrong", scope.task.wrong)):
        if isinstance(answer, Above):
            name, column = parse_list_reference(answer.source)
            problem = _column_problem(f"${name}", column, name, columns(lists[name])) if name in lists else None
            if problem is not None:
                scope.add("CS139", problem[0], ("task", key, "from"), hint=problem[1])


def _lists_of(scope: Scope, slot: str) -> Iterator[tuple[str, str]]:
    """The lists that a slot's values can come from, each with where this is said if not in `slots`."""
    root = _root(scope, slot)
    if root is not None:
        yield root, ""
    for corruption, changes in scope.task.corruptions.items():
        if slot in changes:
            rule = parse_slot_rule(changes[slot])
            name = rule.list if isinstance(rule, Draw) else _root(scope, rule.slot)
            if name is not None:
                yield name, f"in the corruption {corruption}"


def _root(scope: Scope, slot: str) -> str | None:
    """The list from which a slot, or the slot that it copies, is drawn."""
    rules = _rules(scope.task.slots)
    for _ in range(len(rules)):
        rule = rules.get(slot)
        if isinstance(rule, Draw):
            return rule.list
        if rule is None:
            return None
        slot = rule.slot
    return None  # a circle, told elsewhere


def _rules(slots: Mapping[str, str]) -> dict[str, Draw | Copy]:
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
