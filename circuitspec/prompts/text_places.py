"""Where a text stands in a prompt: its occurrences, as words. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator


def occurrences(text: str, whole: str) -> Iterator[tuple[int, int]]:
    """The character spans of `text` in `whole`, as words: not where a letter or digit of its end goes on.

    Letters of scripts without capitals go on with anything, since many of these put no spaces between words.
    """
    start = whole.find(text)
    while start >= 0:
        end = start + len(text)
        if not (_goes_on(whole[start - 1 : start], text[:1]) or _goes_on(text[-1:], whole[end : end + 1])):
            yield start, end
        start = whole.find(text, start + 1)


def _goes_on(one: str, other: str) -> bool:
    return all(c.isdigit() or c.lower() != c.upper() for c in (one, other)) if one and other else False


def nth_at(text: str, whole: str, start: int) -> int:
    """Which occurrence of `text` in `whole` begins at `start`, counted from 1."""
    return 1 + sum(1 for begins, _ in occurrences(text, whole) if begins < start)
