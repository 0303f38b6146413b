"""Filling slots: `$list` draws an entry, `=X` copies slot X. Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from circuitspec.hypothesis_file.grammar.fields import Copy, Draw, SlotRule
from circuitspec.prompts.templates.template import Value, Values

Lists: TypeAlias = Mapping[str, Sequence[Value]]


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
    taken: dict[str, list[Value]] = {}
    for slot, rule in rules.items():
        if isinstance(rule, Draw):
            values[slot] = _draw(rule.list, lists, taken.setdefault(rule.list, []), dice)
    return with_copies(values, rules)


def every_clean(rules: Mapping[str, SlotRule], lists: Lists, varied: frozenset[str], fixed: Values) -> Iterator[Values]:
    """All ways to fill the slots in `varied`, the other drawn slots staying as in `fixed`; lazily, in order."""
    drawn = [(slot, rule.list) for slot, rule in rules.items() if isinstance(rule, Draw)]
    varying = [pair for pair in drawn if pair[0] in varied]
    start = {slot: fixed[slot] for slot, _ in drawn if slot not in varied}

    def fill(values: dict[str, Value], depth: int) -> Iterator[Values]:
        if depth == len(varying):
            yield with_copies(values, rules)
            return
        slot, name = varying[depth]
        taken = [values[other] for other, its in drawn if its == name and other in values]
        for entry in lists[name]:
            if entry not in taken:
                yield from fill({**values, slot: entry}, depth + 1)

    yield from fill(start, 0)


def draw_corruption(
    named: Mapping[str, SlotRule], rules: Mapping[str, SlotRule], clean: Values, lists: Lists, dice: Dice
) -> dict[str, Value]:
    """A corruption's values of all slots; those it does not name keep their clean value.

    A draw is fresh: it differs from every clean value of the same list, from this corruption's other
    draws of it, and from what the slot held. Raises ListTooShort.
    """
    values = dict(clean)
    taken: dict[str, list[Value]] = {}
    for slot, rule in named.items():
        if isinstance(rule, Copy):
            values[slot] = clean[rule.slot]
            continue
        if rule.list not in taken:
            taken[rule.list] = [clean[s] for s, r in rules.items() if isinstance(r, Draw) and r.list == rule.list]
        values[slot] = _draw(rule.list, lists, taken[rule.list], dice, but=clean[slot])
    return values


def with_copies(drawn: Values, rules: Mapping[str, SlotRule]) -> dict[str, Value]:
    """The values in the order of the rules, copies (also of copies) filled in; the rules go in no circle."""
    values: dict[str, Value] = {}
    for slot in rules:
        values[slot] = drawn[root_of(slot, rules)]
    return values


def root_of(slot: str, rules: Mapping[str, SlotRule]) -> str:
    """The drawn slot that a slot copies, in however many steps; the rules go in no circle."""
    while isinstance(rule := rules[slot], Copy):
        slot = rule.slot
    return slot


def _draw(name: str, lists: Lists, taken: list[Value], dice: Dice, but: Value | None = None) -> Value:
    left = [entry for entry in lists[name] if entry != but and entry not in taken]
    if not left:
        raise ListTooShort(name)
    entry = left[dice.below(len(left))]
    taken.append(entry)
    return entry
