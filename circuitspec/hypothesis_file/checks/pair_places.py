"""The files of pairs that a hypothesis names, and where."""

from __future__ import annotations

from circuitspec.diagnostics.diagnostic import Span
from circuitspec.hypothesis_file.schema.abstraction.abstraction_block import AbstractionSpec
from circuitspec.hypothesis_file.yaml.source import SourceText


def pair_places(spec: AbstractionSpec | None, text: SourceText) -> dict[str, Span]:
    """Every file that families of pairs are read from, and where it is named first."""
    places: dict[str, Span] = {}
    for name, family in ({} if spec is None else spec.pairs).items():
        if family.file is not None:
            places.setdefault(family.file, text.span(("abstraction", "pairs", name, "file")))
    return places
