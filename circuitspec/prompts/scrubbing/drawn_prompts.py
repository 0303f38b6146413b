"""What is to be drawn for causal scrubbing, as values. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import rfc8785

from circuitspec.prompts.prompt_set import CLEAN

_PREFIX = "scrub:"  # no corruption has a colon in its name


@dataclass(frozen=True)
class DrawnPrompts:
    """A prompt for each of the task's: it agrees with the `reference` on the slots and variables that are `carried`.

    The reference is itself drawn, or (None) the task's clean prompt; the template is always the reference's. Slots that
    are not carried are drawn `by` corruptions, or by the task's own rules ("clean"). What is drawn depends on the
    seed, the number of the draw, the `use` (which place of which tree it is for) and the prompt's number alone.
    """

    reference: DrawnPrompts | None
    carried: tuple[str, ...]
    by: tuple[str, ...]
    use: str
    draw: int
    seed: int

    @cached_property
    def variant(self) -> str:
        """The name of the variant that these prompts are."""
        content: list[Any] = [
            variant_of(self.reference),
            sorted(self.carried),
            list(self.by),
            self.use,
            self.draw,
            self.seed,
        ]
        return _PREFIX + hashlib.sha256(rfc8785.dumps(content)).hexdigest()[:16]

    @property
    def spoken(self) -> str:
        """For messages: `input@S1 -> a2.h2 (draw 1)`."""
        return f"{self.use} (draw {self.draw + 1})"


def variant_of(drawn: DrawnPrompts | None) -> str:
    """The variant of these prompts; without any, of the clean ones."""
    return CLEAN if drawn is None else drawn.variant
