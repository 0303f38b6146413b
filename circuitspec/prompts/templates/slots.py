"""Filling slots: `$list` draws an entry, `=X` copies slot X. Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import TypeAlias

from circuitspec.hypothesis_file.grammar.fields import Copy, Draw, SlotRule
from circuitspec.prompts.templates.template import Row, Value, Values, row_of, showing

Lists: TypeAlias = Mapping[str, Sequence[Row]]


class ListTooShort(Exception):
    """Nothing of a list is left to draw from."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the list {name} has no entry left")
        self.list = name


class Dice:
    """Uniform choices from a seed and a name, the same on every platform and Python version.

    Only `Random.random` and seeding by a string are guaranteed never to change, so nothing else is used.
    """

    def __init__(self, seed: int, *name: object) -> None:
        self._random = random.Random(":".join(map(str, (seed, *name))))

    def below(self, n: int) -> int:
        """An integer from 0 to n - 1."""
        return int(self._random.random() * n)

    def sample(self, entries: Sequence[str], k: int) -> list[str]:
        """k different entries, in random order."""
        rest = list(entries)
        return [rest.pop(self.below(len(rest))) for _ in range(k)]


def draw_clean(rules: Mapping[str, SlotRule], lists: Lists, dice: Dice) -> dict[str, Value]:
    """Values of all slots: those drawn from one list differ, copies follow.

    Raises ListTooShort.
    """
    values: dict[str, Value] = {}
    taken: dict[str, list[Row]] = {}
    for slot, rule in rules.items():
        if isinstance(rule, Draw):
            values[slot] = showing(_draw(rule.list, lists, taken.setdefault(rule.list, []), dice), rule.column)
    return with_copies(values, rules)


def every_clean(rules: Mapping[str, SlotRule], lists: Lists, varied: frozenset[str], fixed: Values) -> Iterator[Values]:
    """All ways to fill the slots in `varied`, the other drawn slots staying as in `fixed`; lazily, in order."""
    drawn = [(slot, rule.list, rule.column) for slot, rule in rules.items() if isinstance(rule, Draw)]
    varying = [one for one in drawn if one[0] in varied]
    start = {slot: fixed[slot] for slot, _, _ in drawn if slot not in varied}

    def fill(values: dict[str, Value], depth: int) -> Iterator[Values]:
        if depth == len(varying):
            yield with_copies(values, rules)
            return
        slot, name, column = varying[depth]
        taken = [row_of(values[other]) for other, its, _ in drawn if its == name and other in values]
        for entry in lists[name]:
            if entry not in taken:
                yield from fill({**values, slot: showing(entry, column)}, depth + 1)

    yield from fill(start, 0)


def draw_corruption(
    named: Mapping[str, SlotRule], rules: Mapping[str, SlotRule], clean: Values, lists: Lists, dice: Dice
) -> dict[str, Value]:
    """A corruption's values of all slots; those it does not name keep their clean value.

    A draw is fresh: it differs from every clean value of the same list, from this corruption's other
    draws of it, and from what the slot held. Raises ListTooShort.
    """
    values = dict(clean)
    taken: dict[str, list[Row]] = {}
    for slot, rule in named.items():
        if isinstance(rule, Copy):
            values[slot] = copied(clean[rule.slot], rule.column)
            continue
        if rule.list not in taken:
            drawn = [s for s, r in rules.items() if isinstance(r, Draw) and r.list == rule.list]
            taken[rule.list] = [row_of(clean[s]) for s in drawn]
        values[slot] = showing(_draw(rule.list, lists, taken[rule.list], dice, but=row_of(clean[slot])), rule.column)
    return values


def copied(value: Value, column: str | None) -> Value:
    """What a slot holds; with a column its row, showing that."""
    return value if column is None else showing(row_of(value), column)


def with_copies(values: Values, rules: Mapping[str, SlotRule], but: Container[str] = ()) -> dict[str, Value]:
    """The values in the order of the rules, copies (also of copies) filled in, but for slots that hold what they are
    given; the rules go in no circle."""
    return {slot: _value(slot, values, rules, but) for slot in rules}


def _value(slot: str, values: Values, rules: Mapping[str, SlotRule], but: Container[str]) -> Value:
    rule = rules[slot]
    if slot in but or not isinstance(rule, Copy):
        return values[slot]
    return copied(_value(rule.slot, values, rules, but), rule.column)


def column_of(rule: SlotRule, rules: Mapping[str, SlotRule]) -> str | None:
    """The column of a table that a slot with this rule shows; None for a plain list's entry, or a row as a whole."""
    while isinstance(rule, Copy) and rule.column is None:
        rule = rules[rule.slot]
    return rule.column


def root_of(slot: str, rules: Mapping[str, SlotRule]) -> str:
    """The drawn slot that a slot copies, in however many steps; the rules go in no circle."""
    while isinstance(rule := rules[slot], Copy):
        slot = rule.slot
    return slot


def _draw(name: str, lists: Lists, taken: list[Row], dice: Dice, but: Row | None = None) -> Row:
    left = [entry for entry in lists[name] if entry != but and entry not in taken]
    if not left:
        raise ListTooShort(name)
    entry = left[dice.below(len(left))]
    taken.append(entry)
    return entry
