"""The `task:` block becomes prompts: drawn from templates, read from a file, or generated. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from circuitspec.hypothesis_file.checks.word_lists import load_lists
from circuitspec.hypothesis_file.schema.blocks import TaskSpec
from circuitspec.prompts.files.filled_prompts import fill_prompts
from circuitspec.prompts.files.prompt_files import read_prompts, read_rows
from circuitspec.prompts.files.prompts_in_memory import prompts_beside
from circuitspec.prompts.files.reading_rows import ReadAs
from circuitspec.prompts.prompt_set import Framing, PromptSet
from circuitspec.prompts.task_findings import TaskFindings
from circuitspec.prompts.templates.generators import generate
from circuitspec.prompts.templates.sampling import draw_prompts
from circuitspec.prompts.templates.template_task import template_task

if TYPE_CHECKING:
    from circuitspec.hypothesis_file.yaml.source import SourceText


def build_prompts(task: TaskSpec, base_dir: Path, source: SourceText | None = None) -> PromptSet:
    """The prompts of a checked hypothesis's task, the same for the same task and files on every machine.

    `base_dir` is the folder that file names are relative to, `source` the hypothesis file's places, and files that are
    in memory.
    From a file come all prompts, or the first `prompts` of them where that is written.
    Raises CircuitspecError (CS327 to CS341, CS351, CS379, and CS150 to CS157 for lists).
    """
    framing = Framing(task.special_tokens, task.chat)
    return replace(_made(task, base_dir, source), framing=framing, score=task.score)


def _made(task: TaskSpec, base_dir: Path, source: SourceText | None) -> PromptSet:
    findings = TaskFindings(source)
    limit = task.prompts if "prompts" in task.model_fields_set else None  # of a file's rows
    if task.file is not None:
        if source is not None and task.file in source.beside:
            return prompts_beside(task.file, source.beside[task.file], ReadAs.of(task), limit, findings)
        return read_prompts(base_dir / task.file, findings, limit, how=ReadAs.of(task))
    if task.generate is not None:
        return generate(task.generate, task.prompts, task.seed, findings)
    parsed = template_task(task, load_lists(task.lists, base_dir, source), findings)
    if task.fillings is not None:
        rows = read_rows(base_dir / task.fillings, findings, None, ("task", "fillings"))
        return fill_prompts(parsed, rows, limit, task.seed, findings)
    return draw_prompts(parsed, task.prompts, task.seed, findings)
