"""Every check of a hypothesis that looks at more than one of its values and needs no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.hypothesis_file.checks.check_abstraction import check_abstraction
from circuitspec.hypothesis_file.checks.check_carries import check_carries
from circuitspec.hypothesis_file.checks.check_circuit import check_ablation, check_circuit, check_claims
from circuitspec.hypothesis_file.checks.check_dictionaries import check_dictionaries
from circuitspec.hypothesis_file.checks.check_lists import check_lists
from circuitspec.hypothesis_file.checks.check_size import check_size
from circuitspec.hypothesis_file.checks.check_task import check_task
from circuitspec.hypothesis_file.checks.partial import usable_parts
from circuitspec.hypothesis_file.checks.scope import Scope
from circuitspec.hypothesis_file.checks.word_lists import Row, load_lists
from circuitspec.hypothesis_file.yaml.source import Path_, SourceText


@dataclass(frozen=True)
class Checked:
    """What the checks found, and the word lists that were read on the way."""

    findings: tuple[Diagnostic, ...] = ()
    untold: int = 0  # errors beyond those in `findings`
    lists: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)


def check_parts(source: SourceText, base_dir: Path, unusable: tuple[Path_, ...] = ()) -> Checked:
    """Check what is usable of a file apart from the parts at the paths `unusable`, told elsewhere.

    Reads the list files that the task names, relative to `base_dir`.
    """
    scope = Scope(source, usable_parts(source, unusable))
    lists = _load_lists(scope, base_dir)
    check_task(scope)
    check_lists(scope, lists)
    check_circuit(scope)
    check_dictionaries(scope)
    check_ablation(scope)
    check_claims(scope)
    check_abstraction(scope, lists)
    check_carries(scope)
    check_size(scope)
    return Checked(tuple(scope.findings), scope.untold, lists)


def _load_lists(scope: Scope, base_dir: Path) -> dict[str, tuple[Row, ...]]:
    """The lists that can be read; what is wrong with the others is noted."""
    lists: dict[str, tuple[Row, ...]] = {}
    for name, content in scope.task.lists.items():
        whole = scope.at("task", "lists", name)  # as written, so that places fit
        is_whole = isinstance(content, str) or _size(whole) == _size(content)
        if not is_whole:
            continue
        try:
            lists |= load_lists({name: content}, base_dir, scope.source)
        except CircuitspecError as error:
            scope.findings.extend(error.diagnostics)
    return lists


def _size(content: object) -> int:
    if isinstance(content, dict):
        return sum(map(_size, content.values()))
    return sum(map(_size, content)) if isinstance(content, (list, tuple)) else 1
