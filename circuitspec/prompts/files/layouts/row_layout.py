"""What a layout is: its name, how a file is recognised to have it, and how a row is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from circuitspec.prompts.files.given_rows import as_label

Content: TypeAlias = dict[str, object]
"""An entry before it is validated: `clean`, `corrupt`, `answers`, `wrong`, `positions`, `template`."""


@dataclass(frozen=True)
class Made:
    """An entry that a row gives, and what the row's other columns say of it."""

    content: Content
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Layout:
    """A layout of rows.

    A file is recognised by having all columns of one of `columns`, and none of `without`; where that does not tell,
    by its first row (`when`). `read` gives the entries of a row, most often one, and raises Unfit where there is none.
    `texts` are columns that are prompts or answers, and so tell no groups apart.
    """

    name: str
    title: str  # "EAP-IG's tables"
    columns: tuple[tuple[str, ...], ...]
    read: Callable[[Mapping[str, object]], Sequence[Content]]
    without: tuple[str, ...] = ()
    when: Callable[[Mapping[str, object]], bool] | None = None
    texts: tuple[str, ...] = ()

    def recognised_by(self, columns: Sequence[str], first: Mapping[str, object]) -> tuple[str, ...]:
        """The columns that show it; empty for another layout."""
        if any(name in columns for name in self.without):
            return ()
        shown = next((needed for needed in self.columns if set(needed) <= set(columns)), ())
        return shown if shown and (self.when is None or self.when(first)) else ()

    def made(self, row: Mapping[str, object]) -> tuple[Made, ...]:
        """The entries of a row with what its other columns say. Raises Unfit."""
        other = {key: as_label(value) for key, value in row.items() if key not in self.texts}
        entries = []
        for content in self.read(row):
            own = content.pop("metadata", {})
            assert isinstance(own, Mapping)
            entries.append(Made(content, {**other, **own}))
        return tuple(entries)
