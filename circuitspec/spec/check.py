"""Every check of a hypothesis that looks at more than one of its values and needs no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from circuitspec.diagnostics import Diagnostic
from circuitspec.spec.lists import Row
from circuitspec.spec.source import Path_, Source


@dataclass(frozen=True)
class Checked:
    """What the checks found, and the word lists that were read on the way."""

    findings: tuple[Diagnostic, ...] = ()
    lists: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)


def check_parts(source: Source, base_dir: Path, unusable: tuple[Path_, ...] = ()) -> Checked:
    return Checked()
