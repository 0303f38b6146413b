"""The files of numbers along which claims project: where they are named, and what they hold. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span
from circuitspec.hypothesis_file.grammar.internal_metric_names import Projection, is_internal, parse_internal
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.hypothesis_file.yaml.textfile import TextFile, read_text_file

MAX_BYTES = 10_000_000


def direction_places(hypothesis: Hypothesis, text: SourceText) -> dict[str, Span]:
    """Every file that a claim's metric projects along, and where it is named first."""
    places: dict[str, Span] = {}
    for index, claim in enumerate(hypothesis.claims):
        metric = parse_internal(claim.metric) if is_internal(claim.metric) else None
        if isinstance(metric, Projection):
            whole = ("claims", index, claim.kind, "metric")
            named = (*whole, "along")
            places.setdefault(metric.along, text.span(whole if text.raw(named) is None else named))
    return places


def read_numbers(
    names: Iterable[str], base_dir: Path, d_model: int | None, places: Mapping[str, Span]
) -> dict[str, tuple[float, ...]]:
    """The numbers in every file, apart by commas or white space: d_model, where that is known.

    Raises CS432, at the file's place if it has one, for each that cannot be read or holds something else.
    """
    found: dict[str, tuple[float, ...]] = {}
    problems: list[Diagnostic] = []
    for name in names:
        try:
            found[name] = _read(name, base_dir, d_model, places.get(name))
        except CircuitspecError as error:
            problems += error.diagnostics
    if problems:
        raise CircuitspecError(*problems)
    return found


def _read(name: str, base_dir: Path, d_model: int | None, place: Span | None) -> tuple[float, ...]:
    kind = TextFile(name, MAX_BYTES, unreadable="CS432", too_large="CS432", not_utf8="CS432")
    words = read_text_file(base_dir / name, kind, place).replace(",", " ").split()
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError as error:
        raise _wrong(f"{name} does not hold numbers alone: {error}", place) from error
    if not all(map(math.isfinite, numbers)) or not any(numbers):
        raise _wrong(f"{name} holds {len(numbers)} numbers; they must be finite and not all 0", place)
    if d_model is not None and len(numbers) != d_model:
        raise _wrong(f"{name} holds {len(numbers)} numbers; the model's vectors have {d_model}", place)
    return numbers


def _wrong(message: str, place: Span | None) -> CircuitspecError:
    hint = "write one number for each of the model's dimensions"
    return CircuitspecError(Diagnostic("CS432", message, place, hint=hint))
