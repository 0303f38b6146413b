"""What an imported hypothesis still waits for: its format named no model or carried no prompts."""

from __future__ import annotations

from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.hypothesis_file.load_file import Document

MODEL = "placeholder/name-the-model"
PROMPTS = "PLACEHOLDER-name-the-prompts.jsonl"
DICTIONARIES = "PLACEHOLDER-name-the-dictionary"


def placeholders(document: Document) -> tuple[Diagnostic, ...]:
    """CS387 for every placeholder that is still there: a warning, for the file is valid and cannot be run.

    `data["key"]` says which one: `model.id`, `task.file` or `dictionaries`.
    """
    found = []
    if document.hypothesis.model.id == MODEL:
        found.append(
            Diagnostic(
                "CS387",
                "the model is not named yet: the format that this circuit came from has no place for it",
                document.source.span(("model", "id")),
                label="a placeholder",
                hint="write the model in which the circuit was found, as in id: openai-community/gpt2",
                severity="warning",
                data={"key": "model.id"},
            )
        )
    if document.hypothesis.task.file == PROMPTS:
        found.append(
            Diagnostic(
                "CS387",
                "there are no prompts yet: the format that this circuit came from has no place for them",
                document.source.span(("task", "file")),
                label="a placeholder",
                hint='name a file with one object a line: {"clean": "...", "corrupt": "...", "answers": [" a"], '
                '"wrong": [" b"]}; or write templates',
                severity="warning",
                data={"key": "task.file"},
            )
        )
    waiting = [name for name, spec in document.hypothesis.dictionaries.items() if spec.source == DICTIONARIES]
    if waiting:
        also = "" if len(waiting) == 1 else f" and {len(waiting) - 1} more"
        found.append(
            Diagnostic(
                "CS387",
                f"the files of the dictionary {waiting[0]}{also} are not named yet: the circuit came without them",
                document.source.span(("dictionaries", waiting[0], "from")),
                label="a placeholder",
                hint="write the folder that the tool saved it in, as in from: ./transcoders",
                severity="warning",
                data={"key": "dictionaries"},
            )
        )
    return tuple(found)
