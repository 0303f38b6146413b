"""Text-level prompts: clean, corruptions, answers, and where each slot stands. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CLEAN = "clean"


@dataclass(frozen=True)
class Prompt:
    """One clean prompt with its corrupted twins.

    `slots[variant][slot]` is the character span of a slot in that variant's text, where variant is
    "clean" or a corruption; a slot's second occurrence is `S#2`. `positions` are explicit token
    indices (from a prompts file), otherwise empty.
    """

    index: int
    template: int
    texts: Mapping[str, str]  # variant -> text; "clean" always present
    answers: tuple[str, ...]
    wrong: tuple[str, ...]
    slots: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    positions: Mapping[str, int] = field(default_factory=dict)
    where: str = ""  # for messages: "prompts.jsonl:12" or "templates[3]"


@dataclass(frozen=True)
class PromptSet:
    prompts: tuple[Prompt, ...]
    corruptions: tuple[str, ...]
    templates: tuple[str, ...]  # a label per template number


@dataclass(frozen=True)
class TokenizedTask:
    """Token ids per variant and prompt; clean and corrupt are aligned token by token.

    `roles[name][i]` is the token index of position `name` in prompt i, counted from the first token
    of the unpadded prompt. `answers[i]`, `wrong[i]` are token ids. The answer is read at the last token.
    """

    prompts: PromptSet
    ids: Mapping[str, tuple[tuple[int, ...], ...]]
    roles: Mapping[str, tuple[int, ...]]
    answers: tuple[tuple[int, ...], ...]
    wrong: tuple[tuple[int, ...], ...]
