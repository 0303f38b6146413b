"""Pairs that a file gives, matched with the task's prompts; of templated tasks the slots of sources. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from circuitspec.prompts.files.filled_prompts import BASE, SOURCE, flat_content, template_of
from circuitspec.prompts.files.filling_rows import cells_under, entries_said, holds, slot_values
from circuitspec.prompts.files.given_rows import GivenRow, GivenRows
from circuitspec.prompts.files.row_values import Unfit
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet
from circuitspec.prompts.task_findings import TaskFindings, counted
from circuitspec.prompts.templates.template import Values
from circuitspec.prompts.templates.template_task import TemplateTask

Source = TypeVar("Source")
EXPLAINED = "`circuitspec explain CS379` says what a file of pairs holds"


def slots_of_sources(
    given: GivenRows, task: TemplateTask, prompts: PromptSet, family: str, findings: TaskFindings, *, some: bool
) -> dict[int, tuple[Values, GivenRow]]:
    """By prompt the slots of its source, and the row that says so.

    With `some` rows of bases that are no prompts are passed over, since the task takes some of a file's prompts alone.
    Notes CS379 for rows that say no pair, CS378 for bases that are no prompt, or that have no row or several.
    """
    by_text = {prompt.texts[CLEAN]: prompt for prompt in prompts.prompts}
    found: dict[int, tuple[Values, GivenRow]] = {}
    for row in given.rows:
        try:
            content = flat_content(row)
            matching = _bases(content, task, prompts.prompts, by_text)
            cells = cells_under(content, SOURCE)
            if not cells:
                raise Unfit(f"the row has no column `{SOURCE}SLOT`, so there is no source")
            if len(matching) == 1:
                values = slot_values(cells, task, matching[0].fillings[CLEAN], SOURCE)
        except Unfit as error:
            row.note(findings, "CS379", str(error), hint=EXPLAINED)
            continue
        if len(matching) == 1:
            take(found, matching[0], values, row, findings)
        elif matching or not some:
            note_base(row, matching, findings)
    check_all_have_one(found, prompts, given, family, findings)
    return found


def take(
    found: dict[int, tuple[Source, GivenRow]], base: Prompt, source: Source, row: GivenRow, findings: TaskFindings
) -> None:
    """Keep the source of a base, unless it has one (CS378)."""
    if base.index in found:
        said = f"{base.described()} is the base of the row on {found[base.index][1].place} already"
        hint = "put its other sources into other families of pairs: each is counted once in a family"
        row.note(findings, "CS378", said, hint=hint)
        return
    found[base.index] = (source, row)


def note_base(row: GivenRow, matching: Sequence[Prompt] | None, findings: TaskFindings) -> None:
    """CS378 for a base that is no prompt, or several; `matching` is None where prompts come from a file."""
    if matching:
        said = f"the base may be {' or '.join(prompt.described() for prompt in matching[:2])}"
        row.note(findings, "CS378", said, hint="say more of its slots, or its template in a column `template`")
        return
    hint = (
        "a base is a clean prompt of the task, word for word"
        if matching is None
        else "prompts of templates are drawn: write task: {fillings: FILE} to take the bases of the file as prompts"
    )
    row.note(findings, "CS378", "the base is none of the task's prompts", hint=hint)


def check_all_have_one(
    found: Mapping[int, object], prompts: PromptSet, given: GivenRows, family: str, findings: TaskFindings
) -> None:
    """CS378 where prompts have no source; nothing where something else is wrong, which may be why."""
    lacking = [prompt for prompt in prompts.prompts if prompt.index not in found]
    if not lacking or findings.found:
        return
    findings.add(
        "CS378",
        f"{counted(len(lacking), 'prompt')} of {len(prompts.prompts)} have no source in {given.name}, "
        f"the first is {lacking[0].described()}",
        ("abstraction", "pairs", family, "file"),
        label=f"{lacking[0].texts[CLEAN]!r}",
        hint="add rows for them; of templates, task: {fillings: FILE} makes the bases of the file the prompts",
    )


def _bases(
    content: Mapping[str, object], task: TemplateTask, prompts: Sequence[Prompt], by_text: Mapping[str, Prompt]
) -> list[Prompt]:
    """The prompts that the base of a row may be. Raises Unfit."""
    said = content.get("base")
    if isinstance(said, str):
        return [by_text[said]] if said in by_text else []
    cells = cells_under(content, BASE)
    if not cells:
        raise Unfit(f"the row has no column `{BASE}SLOT`, nor a prompt in `base`, so there is no base")
    number, said_of_base = template_of(content, task), entries_said(cells, task, BASE)
    return [
        prompt
        for prompt in prompts
        if number in (None, prompt.template) and holds(prompt.fillings[CLEAN], said_of_base)
    ]
