"""auto-circuit's files: an object with `prompts`, and with `word_idxs` for all of them.

A prompt that stands there several times, each time with another corruption, is one prompt with several corruptions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import BaseModel

from circuitspec.prompts.files.given_rows import GivenRow, GivenRows
from circuitspec.prompts.files.prompt_entry import (
    CORRUPT,
    AutoCircuitEntry,
    Entry,
    Placed,
    Text,
    TokenIndex,
    validate,
)
from circuitspec.prompts.task_findings import TaskFindings


class _AutoCircuitFile(BaseModel, frozen=True, extra="forbid", strict=True):
    prompts: list[object]
    word_idxs: dict[Text, TokenIndex] = {}
    seq_labels: list[str] | None = None


def read_auto_circuit(given: GivenRows, whole_row: GivenRow, findings: TaskFindings) -> list[tuple[int, Placed]]:
    """The prompts of the file, each with the number of the last row that it needs; what is wrong is noted (CS338)."""
    whole = validate(_AutoCircuitFile, given.whole, whole_row, findings)
    placed = []
    for number, row in enumerate(given.rows):
        read = validate(AutoCircuitEntry, row.content, row, findings)
        if isinstance(read, AutoCircuitEntry) and isinstance(whole, _AutoCircuitFile):
            entry = Entry(
                clean=read.clean,
                corrupt=read.corrupt,
                answers=read.answers,
                wrong=read.wrong_answers,
                positions={**whole.word_idxs},
            )
            placed.append((number, Placed(entry, row)))
    return _joined(placed)


def _joined(placed: Sequence[tuple[int, Placed]]) -> list[tuple[int, Placed]]:
    """Prompts with all their corruptions, where each has as many, under the same answers; else as they are."""
    by_clean: dict[str, list[tuple[int, Placed]]] = {}
    for number, one in placed:
        by_clean.setdefault(str(one.entry.clean), []).append((number, one))
    groups = [([number for number, _ in group], [one for _, one in group]) for group in by_clean.values()]
    sizes = {len(group) for _, group in groups}
    alike = all(
        (one.entry.answers, one.entry.wrong) == (group[0].entry.answers, group[0].entry.wrong)
        for _, group in groups
        for one in group
    )
    different = all(len({str(one.entry.corrupt) for one in group}) == len(group) for _, group in groups)
    if len(sizes) != 1 or sizes == {1} or not alike or not different:
        return list(placed)
    return [
        (numbers[-1], replace(group[0], entry=group[0].entry.model_copy(update={"corrupt": _named(group)})))
        for numbers, group in groups
    ]


def _named(group: Sequence[Placed]) -> Mapping[str, object]:
    return {f"{CORRUPT}_{number}": one.entry.corrupt for number, one in enumerate(group, start=1)}
