"""Prompts as a person has them in Python, as the prompt set that everything else takes. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias, cast

from circuitspec.diagnostics.diagnostic import Span
from circuitspec.hypothesis_file.builder import FORMAT
from circuitspec.hypothesis_file.load_file import Document, Study, load_exploration, parse_exploration
from circuitspec.hypothesis_file.schema.blocks import Subject
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.hypothesis_file.yaml.yaml_writer import write_yaml
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.files.prompt_entry import Entry, Placed, prompt_set, validate
from circuitspec.prompts.prompt_set import PromptSet
from circuitspec.prompts.task_findings import TaskFindings

PromptsLike: TypeAlias = (
    "str | PathLike[str] | Mapping[str, Any] | Iterable[Mapping[str, Any]] | PromptSet | Document | Study | Any"
)
"""A file's path, a `task` block, rows, a DataFrame, prompts that were built, or a hypothesis of which they are."""

_NAME = "<prompts>"  # in messages, where there is no file


@dataclass(frozen=True)
class GivenTask:
    """Prompts, the positions that are declared beside them, and the text in which mistakes are shown."""

    prompts: PromptSet
    positions: Mapping[str, str | int]
    source: SourceText | None = None


def given_task(prompts: PromptsLike, positions: Mapping[str, str | int] | None = None) -> GivenTask:
    """The prompts that are meant.

    A text or path names a `.circuit.yaml` file, of which the task is taken, or a prompts file (`.jsonl`, `.csv`,
    `.json`). A mapping is a `task` block as a file has it. Rows (a list of mappings, or a DataFrame) have the keys of a
    line of a `.jsonl` file: clean, corrupt, answers, wrong, positions, template. `positions` are added to those that
    the task declares, and win over them.

    Raises CircuitspecError as reading files does, with every mistake; TypeError for what is none of these.
    """
    positions = _checked(positions)
    match prompts:
        case PromptSet():
            return GivenTask(prompts, positions)
        case Document():
            return _of_task(prompts.hypothesis, prompts.base_dir, prompts.source, positions)
        case Study():
            return _of_task(prompts.exploration, prompts.base_dir, prompts.source, positions)
        case str() | PathLike():
            return _of_file(Path(fspath(prompts)), positions)
        case Mapping():
            return _of_block(prompts, Path(), positions)
    return GivenTask(_of_rows(_rows(prompts)), positions)


def _checked(positions: Mapping[str, str | int] | None) -> Mapping[str, str | int]:
    """Positions as a file's task may have them. Raises CircuitspecError (CS140, CS149) for what is none."""
    if not positions:
        return {}
    study = _block_study({"file": "prompts.jsonl", "positions": dict(positions)}, Path())
    return study.exploration.task.positions


def given_study(task: str | PathLike[str] | Mapping[str, Any] | Document | Study) -> Study:
    """A file to explore, or what is one: a `task` mapping, a hypothesis. Raises TypeError for prompts by themselves."""
    match task:
        case Study():
            return task
        case Document():
            return parse_exploration(task.source.text, task.source.file, task.base_dir, model_given=True)
        case str() | PathLike():
            return load_exploration(Path(fspath(task)), model_given=True)
        case Mapping():
            return _block_study(task, Path())
    raise TypeError(
        f"`task` is a {type(task).__name__}: give a file's path, a `task` mapping such as "
        '{"file": "prompts.jsonl"} or {"templates": [...], ...}, or a hypothesis'
    )


def _of_task(
    subject: Subject, base_dir: Path, source: SourceText, positions: Mapping[str, str | int] | None
) -> GivenTask:
    declared = {**subject.task.positions, **(positions or {})}
    return GivenTask(build_prompts(subject.task, base_dir, source), declared, source)


def _of_file(path: Path, positions: Mapping[str, str | int] | None) -> GivenTask:
    if path.suffix.lower() in (".yaml", ".yml"):
        study = load_exploration(path, model_given=True)
        return _of_task(study.exploration, study.base_dir, study.source, positions)
    return _of_block({"file": path.name}, path.parent, positions)


def _of_block(block: Mapping[str, Any], folder: Path, positions: Mapping[str, str | int] | None) -> GivenTask:
    study = _block_study(block, folder)
    return _of_task(study.exploration, folder, study.source, positions)


def _block_study(block: Mapping[str, Any], folder: Path) -> Study:
    written = write_yaml({"circuitspec": FORMAT, "name": "in memory", "task": dict(block)})
    return parse_exploration(written, _NAME, folder, model_given=True)


def _rows(prompts: object) -> list[Mapping[str, Any]]:
    """Rows of a DataFrame, or of any other collection of mappings."""
    if hasattr(prompts, "to_dict") and hasattr(prompts, "columns"):
        table = cast("Any", prompts)
        return [{key: value for key, value in row.items() if not _missing(value)} for row in table.to_dict("records")]
    if isinstance(prompts, Iterable) and not isinstance(prompts, bytes):
        return list(prompts)
    raise TypeError(
        f"`prompts` is a {type(prompts).__name__}: give a file's path, a `task` mapping, a list of mappings such as "
        '{"clean": ..., "corrupt": ..., "answers": [...], "wrong": [...]}, or a DataFrame with these columns'
    )


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _of_rows(rows: Iterable[Mapping[str, Any]]) -> PromptSet:
    """Raises CircuitspecError (CS330 to CS340, CS351); a mistake's line is the row's number, from 1."""
    findings = TaskFindings()
    placed: list[Placed] = []
    for number, row in enumerate(rows, start=1):
        place = Span(_NAME, number, 1)
        entry = validate(Entry, _plain(row), place, findings)
        if isinstance(entry, Entry):
            placed.append(Placed(entry, f"{_NAME}:{number}", place))
    findings.check()
    if not placed:
        findings.add("CS339", "there are no prompts in this collection", hint="give one mapping for each prompt")
    findings.check()
    return prompt_set(placed, _NAME, findings)


def _plain(row: object) -> object:
    """The row with lists for tuples and for single answers, which a file writes as lists."""
    if not isinstance(row, Mapping):
        return row
    found: dict[str, Any] = dict(row)
    for key in ("answers", "wrong"):
        if isinstance(found.get(key), str):
            found[key] = [found[key]]
        elif isinstance(found.get(key), tuple):
            found[key] = list(found[key])
    return found
