"""Rows of a prompts file that agree with another one on some of its columns. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask
from circuitspec.prompts.scrubbing.drawn_prompts import DrawnPrompts
from circuitspec.prompts.templates.slots import Dice


@dataclass
class AgreeingRows:
    """Draws rows, with replacement, among those that agree on the carried columns; the reference is one of them.

    Only rows whose tokens correspond one by one can stand for each other: of one template, equally long, and with all
    positions at the same tokens.
    """

    task: TokenizedTask
    _made: dict[DrawnPrompts, tuple[int, ...]] = field(default_factory=dict)
    _classes: dict[tuple[str, ...], dict[object, list[int]]] = field(default_factory=dict)

    def of(self, drawn: DrawnPrompts) -> tuple[int, ...]:
        """The number of the row that is drawn for each prompt."""
        if drawn not in self._made:
            references = range(self.task.n) if drawn.reference is None else self.of(drawn.reference)
            classes = self._class_of(drawn.carried)
            found = []
            for number, reference in enumerate(references):
                rows = classes[self._key(reference, drawn.carried)]
                found.append(rows[Dice(drawn.seed, "scrub", drawn.use, drawn.draw, number).below(len(rows))])
            self._made[drawn] = tuple(found)
        return self._made[drawn]

    def _class_of(self, carried: tuple[str, ...]) -> dict[object, list[int]]:
        if carried not in self._classes:
            classes: dict[object, list[int]] = {}
            for number in range(self.task.n):
                classes.setdefault(self._key(number, carried), []).append(number)
            self._classes[carried] = classes
        return self._classes[carried]

    def _key(self, number: int, carried: tuple[str, ...]) -> object:
        prompt = self.task.prompts.prompts[number]
        places = tuple(sorted((role, self.task.tokens_at(role, number)) for role in self.task.roles))
        columns = tuple(prompt.metadata.get(name) for name in carried)
        return prompt.template, len(self.task.ids[CLEAN][number]), places, columns
