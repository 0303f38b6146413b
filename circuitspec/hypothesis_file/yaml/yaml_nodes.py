"""A value of a YAML file together with its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from circuitspec.diagnostics.diagnostic import Span


@dataclass(frozen=True)
class YamlNode:
    """A value of the file. Scalars have `text` as written; lists `items`; mappings `entries` (key, value)."""

    span: Span
    value: object
    text: str = ""
    items: tuple[YamlNode, ...] = ()
    entries: Mapping[str, tuple[YamlNode, YamlNode]] = field(default_factory=dict)

    def child(self, step: str | int) -> YamlNode | None:
        if isinstance(step, str):
            return self.entries[step][1] if step in self.entries else None
        return self.items[step] if 0 <= step < len(self.items) else None
