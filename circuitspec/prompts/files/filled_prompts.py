"""Templated prompts whose slots a file fills, row by row, instead of drawing them. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from circuitspec.prompts.files.filling_rows import cells_under, flat, slot_values
from circuitspec.prompts.files.given_rows import GivenRow, GivenRows
from circuitspec.prompts.files.row_values import NoColumn, Unfit, without_nulls
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet
from circuitspec.prompts.task_findings import TaskFindings, counted
from circuitspec.prompts.templates.answer_rules import NotANumber
from circuitspec.prompts.templates.sampling import PromptMaker, PromptsSoFar, Refusal
from circuitspec.prompts.templates.slots import ListTooShort
from circuitspec.prompts.templates.template_task import TemplateTask

BASE, SOURCE, TEMPLATE = "base.", "source.", "template"
_WHY: dict[Refusal, str] = {
    "repeated": "gives a prompt that an earlier row gives: it would be one observation counted twice",
    "no answer": "gives a prompt for which `answer` has no entry",
    "no wrong answer": "gives a prompt for which `wrong` has no entry",
    "answer is wrong": "gives a prompt of which an answer is also a wrong answer",
    "unchanged": "gives a prompt that is left as it is by the corruption",
}


def fill_prompts(
    task: TemplateTask, given: GivenRows, limit: int | None, seed: int, findings: TaskFindings
) -> PromptSet:
    """A prompt for each row, or for the first `limit` of them; row i fills template `i % n`, unless it says which.

    In a file of pairs (columns `base.SLOT`) these are the bases. Corruptions are drawn as they are of prompts that are
    drawn. Raises CircuitspecError: CS379 for rows that no prompt can be made of, CS339 for too few.
    """
    rows = given.rows[:limit]
    if not rows or (limit is not None and len(rows) < limit):
        asked = f", but {limit} are asked for" if limit is not None and rows else ""
        findings.add("CS339", f"{given.name} holds {counted(len(rows), 'row')}{asked}", ("task", "fillings"))
    drawn = PromptsSoFar()
    made = []
    for index, row in enumerate(rows):
        try:
            made.append(_prompt(task, index, row, seed, drawn, findings))
        except NoColumn as error:
            hint = "fillings need a column for every slot that is drawn; slots that copy others need none"
            row.note(findings, "CS379", str(error), hint=hint)
            if given.cells:  # a table's rows all lack it
                break
    findings.check()
    lists = {slot: task.list_of(rule) for slot, rule in task.rules.items()}
    return PromptSet(tuple(one for one in made if one), tuple(task.corruptions), task.labels, lists=lists)


def _prompt(
    task: TemplateTask, index: int, row: GivenRow, seed: int, drawn: PromptsSoFar, findings: TaskFindings
) -> Prompt | None:
    """The row's prompt; None for one that is noted. Raises NoColumn."""
    try:
        content = flat_content(row)
        prefix = BASE if any(name.startswith(BASE) for name in content) else ""
        said = None
        if prefix or TEMPLATE not in task.rules:  # else it is the slot that is called so
            said = template_of(content, task)
            content.pop(TEMPLATE, None)
        number = index % len(task.templates) if said is None else said
        values = slot_values(cells_under(content, prefix), task, None, prefix)
        found = PromptMaker(task, index, number, seed).make(values, drawn)
    except NoColumn:
        raise
    except (Unfit, NotANumber, ListTooShort) as error:
        row.note(findings, "CS379", str(error), hint="`circuitspec explain CS379` says what such a file holds")
        return None
    if isinstance(found, Prompt):
        drawn.texts.add(found.texts[CLEAN])
        return found
    why, corruption = found
    row.note(findings, "CS379", f"the row {_WHY[why]} {corruption}".rstrip(), hint="mend the row, or remove it")
    return None


def flat_content(row: GivenRow) -> dict[str, object]:
    """What a row says by column, keys inside keys as `a.b`. Raises Unfit for what is no row of a table."""
    if not isinstance(row.content, Mapping):
        raise Unfit("this is no object with a key for each column")
    content = without_nulls(row.content) if row.by_number else row.content
    return flat(content) if isinstance(content, Mapping) else {}


def template_of(content: Mapping[str, object], task: TemplateTask) -> int | None:
    """The number of the template that a row names, if it names one. Raises Unfit."""
    said = content.get(TEMPLATE)
    if said is None:
        return None
    numbers = {str(number): number for number in range(len(task.templates))}
    if isinstance(said, bool) or str(said).strip() not in numbers:
        raise Unfit(f"`{TEMPLATE}` is {said!r}, and the task's templates have the numbers 0 to {len(numbers) - 1}")
    return numbers[str(said).strip()]
