"""Prompts as a person has them in Python, as the prompt set that everything else takes. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias

from circuitspec.dictionaries.declared_dictionaries import DeclaredDictionaries
from circuitspec.hypothesis_file.builder import FORMAT
from circuitspec.hypothesis_file.load_file import Document, Study, load_exploration, parse_exploration
from circuitspec.hypothesis_file.schema.blocks import Exploration, Hypothesis
from circuitspec.hypothesis_file.schema.position_blocks import Position
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.hypothesis_file.yaml.yaml_writer import write_yaml
from circuitspec.pipelines.interactive.named_sites import with_end
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.files.prompts_in_memory import as_file, prompts_from
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
    dictionaries: DeclaredDictionaries | None = None  # of the file that the prompts are from


def given_dictionaries(dictionaries: Mapping[str, Mapping[str, Any]]) -> DeclaredDictionaries:
    """Dictionaries as the block of a file has them, whose files are named from the working directory.

    Raises CircuitspecError, with every mistake.
    """
    blocks = {
        name: {key: fspath(value) if isinstance(value, PathLike) else value for key, value in block.items()}
        for name, block in dictionaries.items()
    }
    study = _block_study({"file": "prompts.jsonl"}, Path(), {"dictionaries": blocks})
    return DeclaredDictionaries(study.exploration.dictionaries, Path(), study.source)


def given_task(prompts: PromptsLike, positions: Mapping[str, Position] | None = None) -> GivenTask:
    """The prompts that are meant.

    A text or path names a `.circuit.yaml` file, of which the task is taken, or a prompts file (`.jsonl`, `.csv`,
    `.json`). A mapping is a `task` block as a file has it, of which `file` may be rows. Rows
    (a list of mappings, a DataFrame, a data set of Hugging Face, one prompt, columns) are read as `prompts_from` reads
    them: with the keys of a line of a `.jsonl` file (clean, corrupt, answers, wrong, positions, template), or in a
    layout that is recognised. `positions` are added to those that the task declares, and win over them.

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
    return GivenTask(prompts_from(_rows(prompts)), positions)


def with_rows(task: Any, *, always_end: bool = True) -> tuple[Any, Mapping[str, str]]:
    """A task as a file can have it, and the prompts files that it names and that are in memory: name -> text.

    Rows may stand for the whole task, or be its `file`. Of rows alone END is declared as the last token unless they
    call something so; without `always_end` only where every prompt has a position. Raises CircuitspecError as
    `given_task`.
    """
    if isinstance(task, str | PathLike):
        return task, {}
    if isinstance(task, Mapping) and not _has_rows(task):
        file = task.get("file")
        if file is None or isinstance(file, str):
            return task, {}
        if isinstance(file, PathLike):
            return {**task, "file": fspath(file)}, {}
        name, text = as_file(_rows(file))
        return {**task, "file": name}, {name: text}
    made = prompts_from(_rows(task))
    name, text = as_file(_rows(task))
    shared = frozenset.intersection(*(frozenset(one.positions) for one in made.prompts))
    ends = with_end({}, made) if always_end or shared else {}
    return {"file": name, **({"positions": ends} if ends else {})}, {name: text}


def _has_rows(block: Mapping[str, Any]) -> bool:
    """Whether a mapping is prompts: auto-circuit's form (`prompts` of a task is a number), one prompt, or columns."""
    if isinstance(block.get("prompts"), Sequence) or "clean" in block:
        return True
    return bool(block) and not _SOURCES & {*block} and all(isinstance(one, list | tuple) for one in block.values())


_SOURCES = frozenset({"templates", "file", "generate"})  # one of which every task has


def _rows(prompts: Any) -> Any:
    """Prompts as `prompts_from` takes them: one by itself is a list of one."""
    return [prompts] if isinstance(prompts, Mapping) and isinstance(prompts.get("clean"), str) else prompts


def _checked(positions: Mapping[str, Position] | None) -> Mapping[str, Position]:
    """Positions as a file's task may have them. Raises CircuitspecError (CS140, CS149) for what is none."""
    if not positions:
        return {}
    study = _block_study({"file": "prompts.jsonl", "positions": dict(positions)}, Path())
    return study.exploration.task.positions


def is_prompts_file(path: Path) -> bool:
    """Whether a path is that of prompts rather than of a hypothesis or a task."""
    return path.suffix.lower() in _PROMPTS_FILES or path.is_dir()


_PROMPTS_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def given_study(task: PromptsLike, call: str = "explore") -> Study:
    """A file to explore, or what is one: a `task` mapping, a hypothesis, rows.

    Raises CircuitspecError as `given_task`; TypeError for a model, which stands behind the task in a `call`.
    """
    match task:
        case Study():
            return task
        case Document():
            read = parse_exploration(task.source.text, task.source.file, task.base_dir, model_given=True)
            return replace(read, source=replace(read.source, beside=task.source.beside))
        case str() | PathLike():
            path = Path(fspath(task))
            if is_prompts_file(path):
                return _block_study({"file": path.name}, path.parent)
            return load_exploration(path, model_given=True)
        case PromptSet():
            raise TypeError(
                "`task` is a PromptSet: give the rows that it was made of, a file's path, or a `task` mapping"
            )
    if hasattr(task, "named_modules") or hasattr(task, "convert_tokens_to_ids"):
        raise TypeError(
            f"`task` is a {type(task).__name__}: the task comes first, as in {call}(task, model, tokenizer)"
        )
    block, beside = with_rows(task, always_end=False)
    study = _block_study(block, Path())
    return replace(study, source=replace(study.source, beside=beside))


def _of_task(
    subject: Hypothesis | Exploration, base_dir: Path, source: SourceText, positions: Mapping[str, Position] | None
) -> GivenTask:
    declared = {**subject.task.positions, **(positions or {})}
    named = DeclaredDictionaries(subject.dictionaries, base_dir, source) if subject.dictionaries else None
    return GivenTask(build_prompts(subject.task, base_dir, source), declared, source, named)


def _of_file(path: Path, positions: Mapping[str, Position] | None) -> GivenTask:
    if path.suffix.lower() in (".yaml", ".yml"):
        study = load_exploration(path, model_given=True)
        return _of_task(study.exploration, study.base_dir, study.source, positions)
    return _of_block({"file": path.name}, path.parent, positions)


def _of_block(block: Mapping[str, Any], folder: Path, positions: Mapping[str, Position] | None) -> GivenTask:
    block, beside = with_rows(block)
    study = _block_study(block, folder)
    return _of_task(study.exploration, folder, replace(study.source, beside=beside), positions)


def _block_study(block: Mapping[str, Any], folder: Path, others: Mapping[str, Any] | None = None) -> Study:
    written = write_yaml({"circuitspec": FORMAT, "name": "in memory", "task": dict(block), **(others or {})})
    return parse_exploration(written, _NAME, folder, model_given=True)
