"""Prompts as a person has them in Python, as the prompt set that everything else takes. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias

from circuitspec.hypothesis_file.builder import FORMAT
from circuitspec.hypothesis_file.load_file import Document, Study, load_exploration, parse_exploration
from circuitspec.hypothesis_file.schema.blocks import Subject
from circuitspec.hypothesis_file.schema.position_blocks import Position
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.hypothesis_file.yaml.yaml_writer import write_yaml
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.files.prompts_in_memory import prompts_from
from circuitspec.prompts.prompt_set import PromptSet

PromptsLike: TypeAlias = (
    "str | PathLike[str] | Mapping[str, Any] | Iterable[Mapping[str, Any]] | PromptSet | Document | Study | Any"
)
"""A file's path, a `task` block, rows, a DataFrame, prompts that were built, or a hypothesis of which they are."""

_NAME = "<prompts>"  # in messages, where there is no file


@dataclass(frozen=True)
class GivenTask:
    """Prompts, the positions that are declared beside them, and the text in which mistakes are shown."""

    prompts: PromptSet
    positions: Mapping[str, Position]
    source: SourceText | None = None


def given_task(prompts: PromptsLike, positions: Mapping[str, Position] | None = None) -> GivenTask:
    """The prompts that are meant.

    A text or path names a `.circuit.yaml` file, of which the task is taken, or a prompts file (`.jsonl`, `.csv`,
    `.json`). A mapping is a `task` block as a file has it. Rows (a list of mappings, a DataFrame, a data set of Hugging
    Face) are read as `prompts_from` reads them: with the keys of a line of a `.jsonl` file (clean, corrupt, answers,
    wrong, positions, template), or in a layout that is recognised. `positions` are added to those that the task
    declares, and win over them.

    Raises CircuitspecError as reading files does, with every mistake; CS358 for what holds no rows.
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
        case Mapping() if not _has_rows(prompts):
            return _of_block(prompts, Path(), positions)
    return GivenTask(prompts_from(prompts), positions)


def _has_rows(block: Mapping[str, Any]) -> bool:
    """Whether it is auto-circuit's form of prompts rather than a task: `prompts` of a task is a number."""
    return isinstance(block.get("prompts"), Sequence)


def _checked(positions: Mapping[str, Position] | None) -> Mapping[str, Position]:
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
    subject: Subject, base_dir: Path, source: SourceText, positions: Mapping[str, Position] | None
) -> GivenTask:
    declared = {**subject.task.positions, **(positions or {})}
    return GivenTask(build_prompts(subject.task, base_dir, source), declared, source)


def _of_file(path: Path, positions: Mapping[str, Position] | None) -> GivenTask:
    if path.suffix.lower() in (".yaml", ".yml"):
        study = load_exploration(path, model_given=True)
        return _of_task(study.exploration, study.base_dir, study.source, positions)
    return _of_block({"file": path.name}, path.parent, positions)


def _of_block(block: Mapping[str, Any], folder: Path, positions: Mapping[str, Position] | None) -> GivenTask:
    study = _block_study(block, folder)
    return _of_task(study.exploration, folder, study.source, positions)


def _block_study(block: Mapping[str, Any], folder: Path) -> Study:
    written = write_yaml({"circuitspec": FORMAT, "name": "in memory", "task": dict(block)})
    return parse_exploration(written, _NAME, folder, model_given=True)
