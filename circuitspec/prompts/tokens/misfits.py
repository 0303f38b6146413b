"""Prompts of a file that do not fit the tokenizer, left out and counted where the task says so. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.prompts.files.reading_rows import nothing_left, settled, too_few
from circuitspec.prompts.prompt_set import CLEAN, PromptSet
from circuitspec.prompts.task_findings import TaskFindings

CODES: Mapping[str, frozenset[str]] = {
    "misaligned": frozenset({"CS343", "CS344", "CS345", "CS360"}),
    "split_answers": frozenset({"CS346"}),
    "unfit": frozenset({"CS347", "CS349"}),
}
"""What a kind of `skip` leaves out: prompts that would be refused with one of these."""

_TOGETHER = 64  # prompts that are tried at once: most fit


def fitting(prompts: PromptSet, attempt: Callable[[PromptSet], object], findings: TaskFindings) -> PromptSet:
    """The prompts that fit, as many as are asked for; what is left out is counted in their `choice`.

    `attempt` raises CircuitspecError for prompts that do not fit the tokenizer. A prompt with an error that `skip` does
    not name is kept, so that it is told. Raises CS357 where none is left, and CS339 where too few are.
    """
    choice, file = prompts.choice, prompts.file
    assert choice is not None
    assert file is not None
    kept: list[int] = []
    left_out: list[tuple[int, str]] = []
    first: tuple[Diagnostic, ...] = ()
    numbers = range(len(prompts.prompts))
    seen: set[str] = set()
    for start in range(0, len(numbers), _TOGETHER):
        if choice.wanted is not None and len(kept) >= choice.wanted:
            break
        some = list(numbers[start : start + _TOGETHER])
        all_fit = not _found(prompts, some, attempt)
        for number in some:
            text = prompts.prompts[number].texts[CLEAN]
            found = () if all_fit else _found(prompts, [number], attempt)
            why = _why({one.code for one in found}, choice.skip)
            if why is None and "repeats" in choice.skip and text in seen:
                why = "repeats"
            if why is None:
                kept.append(number)
                seen.add(text)
            else:
                left_out.append((choice.rows[number], why))
                first = first or found
    kept = kept[: choice.wanted]
    if not kept:
        code, message = nothing_left(file.name, [*choice.left_out, *left_out])
        raise CircuitspecError(Diagnostic(code, message, findings.span("task", "skip")), *first)
    if choice.wanted is not None and len(kept) < choice.wanted:
        findings.add(*too_few(file.name, len(kept), choice.wanted, fitting=True), ("task", "prompts"))
        findings.check()
    choice = replace(choice, left_out=tuple(sorted([*choice.left_out, *left_out])))
    rows = [choice.rows[number] for number in kept]
    return replace(prompts, choice=settled(choice, rows, file.holds)).chosen(kept)


def _found(
    prompts: PromptSet, numbers: Sequence[int], attempt: Callable[[PromptSet], object]
) -> tuple[Diagnostic, ...]:
    try:
        attempt(prompts.chosen(numbers))
    except CircuitspecError as error:
        return error.diagnostics
    return ()


def _why(codes: set[str], skip: Sequence[str]) -> str | None:
    """The kind of row that these errors show; None for one that is to be kept, or refused."""
    allowed = frozenset().union(*(CODES.get(kind, frozenset()) for kind in skip))
    if not codes or not codes <= allowed:
        return None
    return next(kind for kind in CODES if kind in skip and codes & CODES[kind])
