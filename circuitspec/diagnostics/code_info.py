"""What a code stands for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CodeInfo:
    """What a code stands for: a few words, and an explanation with the way to mend it."""

    title: str
    explanation: str
