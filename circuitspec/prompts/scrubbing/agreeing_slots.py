"""Slots drawn anew but for what is carried: exact for slots, tried until they agree for variables. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from circuitspec.hypothesis_file.grammar.fields import Draw, SlotRule
from circuitspec.hypothesis_file.grammar.variable_expressions import NotEvaluated, Scalar
from circuitspec.prompts.pairs.high_level_model import HighLevelModel
from circuitspec.prompts.prompt_set import CLEAN, PromptSet
from circuitspec.prompts.scrubbing.drawn_prompts import DrawnPrompts
from circuitspec.prompts.templates.slots import Dice, draw_corruption, root_of, with_copies
from circuitspec.prompts.templates.template import Row, Value, Values, row_of, showing
from circuitspec.prompts.templates.template_task import TemplateTask

TRIES = 1000  # for a prompt that agrees on variables


class NoneAgrees(Exception):
    """Of so many prompts that were tried none agrees with the reference."""

    def __init__(self, prompt: int) -> None:
        super().__init__(f"no prompt agrees with the reference of prompt {prompt}")
        self.prompt = prompt


@dataclass
class AgreeingSlots:
    """Draws the slots of prompts; each set of them is made once."""

    task: TemplateTask
    prompts: PromptSet
    model: HighLevelModel | None
    _made: dict[DrawnPrompts, tuple[Values, ...]] = field(default_factory=dict)

    def of(self, drawn: DrawnPrompts) -> tuple[Values, ...]:
        """The slots of each prompt. Raises NoneAgrees, and ListTooShort where a list has nothing left to draw."""
        if drawn not in self._made:
            self._made[drawn] = tuple(self._one(drawn, i, each) for i, each in enumerate(self._references(drawn)))
        return self._made[drawn]

    def _references(self, drawn: DrawnPrompts) -> Sequence[Values]:
        if drawn.reference is not None:
            return self.of(drawn.reference)
        return [prompt.fillings[CLEAN] for prompt in self.prompts.prompts]

    def _one(self, drawn: DrawnPrompts, number: int, reference: Values) -> Values:
        slots = [name for name in drawn.carried if name in self.task.rules]
        variables = [name for name in drawn.carried if name not in self.task.rules]
        wanted = self._variables(variables, reference)
        dice = Dice(drawn.seed, "scrub", drawn.use, drawn.draw, number)
        for _ in range(0 if wanted is None else TRIES):
            values = self._draw(slots, drawn.by, reference, dice)
            if self._variables(variables, values) == wanted:
                return values
        raise NoneAgrees(number)

    def _variables(self, names: Sequence[str], slots: Values) -> Mapping[str, Scalar] | None:
        """Their values; None where one has none for these slots."""
        if not names:
            return {}
        assert self.model is not None
        try:
            found = self.model.run(slots)
        except NotEvaluated:
            return None
        return {name: found[name] for name in names}

    def _draw(self, carried: Sequence[str], by: Sequence[str], reference: Values, dice: Dice) -> Values:
        """A prompt as the task draws it, with the carried slots the reference's, and the others then as in `by`."""
        rules, kept = self.task.rules, {}
        for slot in sorted(carried, key=lambda slot: root_of(slot, rules) == slot):  # a root's own value counts
            root = root_of(slot, rules)
            rule = rules[root]
            assert isinstance(rule, Draw)
            kept[root] = showing(row_of(reference[slot]), rule.column)
        values = {**self._clean(kept, dice), **{slot: reference[slot] for slot in carried}}
        changed: dict[str, SlotRule] = {}
        for slot in rules:
            name = by[dice.below(len(by))] if len(by) > 1 else by[0]
            rule_there = None if name == CLEAN else self.task.corruptions[name].get(slot)
            if slot not in carried and rule_there is not None:
                changed[slot] = rule_there
        return draw_corruption(changed, rules, values, self.task.lists, dice) if changed else values

    def _clean(self, kept: Mapping[str, Value], dice: Dice) -> dict[str, Value]:
        """As `draw_clean`, given some of the slots that are drawn: every way to fill the others is equally likely."""
        values: dict[str, Value] = {}
        taken: dict[str, list[Row]] = {}
        drawn = {slot: rule for slot, rule in self.task.rules.items() if isinstance(rule, Draw)}
        for slot, rule in drawn.items():
            if slot in kept:
                taken.setdefault(rule.list, []).append(row_of(kept[slot]))
        for slot, rule in drawn.items():
            if slot in kept:
                values[slot] = kept[slot]
                continue
            used = taken.setdefault(rule.list, [])
            entries = [row for row in self.task.lists[rule.list] if row not in used]
            entry = entries[dice.below(len(entries))]
            used.append(entry)
            values[slot] = showing(entry, rule.column)
        return with_copies(values, self.task.rules)
