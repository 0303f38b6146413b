"""The text of a hypothesis that says of a variable where a submission aligns it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from circuitspec.exchange.imported_text import head, quoted, subject
from circuitspec.exchange.loss import Loss
from circuitspec.exchange.placeholders import MODEL, PROMPTS

PAIRS = "PLACEHOLDER-name-the-pairs.jsonl"


@dataclass(frozen=True)
class DraftedAlignment:
    """A variable and its one component, by their names in a hypothesis file. `rank` and `file` go together."""

    variable: str
    component: str
    position: str
    is_last: bool  # the position is the last token
    rank: int | None = None
    file: str | None = None


def alignment_text(
    name: str, origin: str, model: str | None, drafted: DraftedAlignment, losses: Sequence[Loss], prompts: str | None
) -> str:
    """The file: the variable is read from a column of the prompts, which the user names."""
    return "\n".join([*_lines(name, origin, model, drafted, losses, prompts), ""])


def _lines(
    name: str, origin: str, model: str | None, drafted: DraftedAlignment, losses: Sequence[Loss], prompts: str | None
) -> Iterator[str]:
    variable, column = drafted.variable, f"{drafted.variable}_value"
    yield from head(origin, "folder", losses)
    yield from subject(name, origin)
    yield "model:"
    yield f"  id: {quoted(model or MODEL)}"
    yield ""
    yield "task:"
    if prompts is None:
        yield "  # PLACEHOLDER: the folder has no prompts. Name a file of them, with the variable's value beside each:"
        yield f'  # {{"clean": "...", "answers": [" right"], "wrong": [" wrong"], "{column}": "..."}}'
    if not drafted.is_last:
        yield f'  # The position {drafted.position} is said by each row: "positions": {{"{drafted.position}": 7}}'
    yield f"  file: {quoted(prompts or PROMPTS)}"
    if drafted.is_last:
        yield f"  positions: {{{drafted.position}: last}}"
    yield ""
    yield "circuit:"
    yield "  groups:"
    yield f"    carrier: {{nodes: [{drafted.component}], at: {drafted.position}}}"
    yield ""
    yield "ablation: {value: zero} # of no account: values come from the sources of pairs"
    yield ""
    yield "abstraction:"
    yield "  variables: # PLACEHOLDER: write what the variable is computed from, and what it makes the answer"
    yield f"    {variable}: {column}"
    yield f'  output: " {{{variable}}}"'
    yield "  align:"
    subspace = ""
    if drafted.rank is not None and drafted.file is not None:
        subspace = f", subspace: {{rank: {drafted.rank}, file: {json.dumps(drafted.file, ensure_ascii=False)}}}"
    yield f"    {variable}: {{nodes: [{drafted.component}], at: {drafted.position}{subspace}}}"
    yield "  pairs: # PLACEHOLDER: a file of bases and sources, or permute: true"
    yield f"    given: {{file: {PAIRS}}}"
    yield ""
    yield "claims: # the folder claims nothing: write what you expect"
    yield f"  - interchange: {{variable: {variable}, at_least: 0.8}}"
