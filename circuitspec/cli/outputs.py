"""What a command writes: nothing over what it reads, and how the command was called, for a draft to say."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from circuitspec.runtime.visible_text import visible

if TYPE_CHECKING:
    from circuitspec.hypothesis_file.load_file import Document, Study


def check_outputs(inputs: Iterable[tuple[str, Path | None]], outputs: Iterable[tuple[str, Path | None]]) -> None:
    """Refuse, as a usage error, an output that is one of the inputs, under whatever name, or another output.

    Each comes with what it is called: `FILE`, `--html`. Those that are None are not given.
    """
    taken = [(called, path) for called, path in inputs if path is not None]
    for option, path in outputs:
        if path is None:
            continue
        if _is_pipe(path):  # several reports may go to one terminal
            continue
        for called, other in taken:
            if _is_same(path, other):
                raise click.UsageError(f"{option} would replace {path}, which is {called}: give it a name of its own")
        taken.append((option, path))


def files_of(document: Document | Study) -> Iterator[tuple[str, Path]]:
    """The files that a hypothesis names, each with what it is."""
    from circuitspec.experiments.direction_files import direction_places
    from circuitspec.experiments.subspaces.subspace_files import subspace_places
    from circuitspec.hypothesis_file.checks.pair_places import pair_places
    from circuitspec.hypothesis_file.load_file import Document
    from circuitspec.hypothesis_file.schema.blocks import ReferenceFile
    from circuitspec.models.model_reference import local_model

    subject = document.hypothesis if isinstance(document, Document) else document.exploration
    folder, task = document.base_dir, subject.task
    if task.file is not None:
        yield "the prompts file", folder / task.file
    if task.fillings is not None:
        yield "the file of fillings", folder / task.fillings
    for name, written in task.lists.items():
        if isinstance(written, str):
            yield f"the file of the list {name}", folder / written
    if subject.ablation is not None and isinstance(subject.ablation.reference, ReferenceFile):
        yield "the file of reference prompts", folder / subject.ablation.reference.file
    for name in pair_places(subject.abstraction, document.source):
        yield "a file of pairs", folder / name
    if isinstance(document, Document):
        for name in direction_places(document.hypothesis, document.source):
            yield "a direction", folder / name
        for name in subspace_places(document.hypothesis, document.source):
            yield "a file of subspaces", folder / name
        for called, spec in document.hypothesis.dictionaries.items():
            if isinstance(spec.source, str) and (folder / spec.source).is_file():
                yield f"the dictionary {called}", folder / spec.source
    model = local_model(subject.model.id, folder)
    if model is not None and model.is_dir():
        yield from ((f"{one.name} of the model", one) for one in sorted(model.iterdir()) if one.is_file())
    elif model is not None:
        yield "the model", model


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # one of them is not there yet
        return os.path.realpath(one) == os.path.realpath(other)


def _is_pipe(path: Path) -> bool:
    try:
        return path.exists() and not path.is_file() and not path.is_dir()
    except OSError:
        return False


_UNSAID = (
    "--store",
    "--output-dir",
    "--html",
    "--device",
    "--batch-size",
    "--workers",
)  # with a value; no result depends on them
_NAMED = ("--draft", "--draft-helpful", "--task-from")  # files, of which the name is said


def command_line(file: Path) -> str:
    """The command as it was given, with names of files alone: a draft says how it was made, not where."""
    said: list[str] = []
    before = ""
    given = iter(sys.argv[1:])
    for argument in given:
        option, equals, value = argument.partition("=")
        may_be_address = before == "--ray" and not argument.startswith("-") and argument != str(file)
        before = argument
        if option == "--ray" or may_be_address:
            continue
        if option in _UNSAID:
            if not equals:
                next(given, None)
        elif option in _NAMED:
            said += [option, Path(value if equals else next(given, "")).name]
        elif argument != "--no-store":
            said.append(file.name if argument == str(file) else argument)
    return visible("circuitspec " + shlex.join(said))
