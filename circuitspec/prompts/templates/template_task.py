"""The parts of a templated task, parsed. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from circuitspec.hypothesis_file.checks.word_lists import Row
from circuitspec.hypothesis_file.grammar.fields import Draw, SlotRule, parse_list_reference, parse_slot_rule
from circuitspec.hypothesis_file.schema.blocks import Above, AnswerOf, TaskSpec
from circuitspec.prompts.task_findings import Path, TaskFindings
from circuitspec.prompts.templates.answer_rules import (
    AnswerRule,
    NotANumber,
    Numbers,
    OfCorruption,
    Texts,
    WrongRule,
    entries_of,
    number,
)
from circuitspec.prompts.templates.slots import column_of, root_of
from circuitspec.prompts.templates.template import Field, Template, parse_field, parse_template


@dataclass(frozen=True)
class TemplateTask:
    """Everything that drawing prompts needs."""

    templates: tuple[Template, ...]
    labels: tuple[str, ...]  # the templates as written
    rules: Mapping[str, SlotRule]
    corruptions: Mapping[str, Mapping[str, SlotRule]]
    lists: Mapping[str, tuple[Row, ...]]
    answer: AnswerRule | None
    wrong: WrongRule | None

    def list_of(self, rule: SlotRule) -> str:
        """The list whose entries a rule gives, in the clean prompt or in a corruption."""
        root = rule if isinstance(rule, Draw) else self.rules[root_of(rule.slot, self.rules)]
        assert isinstance(root, Draw)
        return root.list


def template_task(task: TaskSpec, lists: Mapping[str, tuple[Row, ...]], findings: TaskFindings) -> TemplateTask:
    """The parts of a task of a checked hypothesis: slots, lists and columns exist, and no copies go in a circle.

    Raises CircuitspecError (CS332) where words are compared as numbers.
    """
    parsed = TemplateTask(
        templates=tuple(map(parse_template, task.templates)),
        labels=task.templates,
        rules=_rules(task.slots),
        corruptions={name: _rules(named) for name, named in task.corruptions.items()},
        lists=lists,
        answer=_answer(task.answer, lists),
        wrong=OfCorruption(task.wrong.answer_of) if isinstance(task.wrong, AnswerOf) else _answer(task.wrong, lists),
    )
    _check_numbers(parsed, findings)
    findings.check()
    return parsed


def _rules(slots: Mapping[str, str]) -> dict[str, SlotRule]:
    return {slot: parse_slot_rule(text) for slot, text in slots.items()}


def _answer(said: str | tuple[str, ...] | Above | None, lists: Mapping[str, tuple[Row, ...]]) -> AnswerRule | None:
    match said:
        case None:
            return None
        case str():
            return Texts((parse_template(said),))
        case Above():
            name, column = parse_list_reference(said.source)
            above = None if said.above is None else parse_field(said.above)
            at_most = None if said.at_most is None else parse_field(said.at_most)
            return Numbers(entries_of(lists[name], column), above, at_most)
        case _:
            return Texts(tuple(map(parse_template, said)))


def _check_numbers(task: TemplateTask, findings: TaskFindings) -> None:
    """Note (CS332) every entry that a comparison could meet and that is no number."""
    for key, rule in (("answer", task.answer), ("wrong", task.wrong)):
        if not isinstance(rule, Numbers):
            continue
        _all_numbers(rule.entries, f"an answer by `{key}`", ("task", key, "from"), findings)
        for bound, field in (("above", rule.above), ("at_most", rule.at_most)):
            if field is not None:
                _check_bound(task, field, task.rules[field.slot], ("task", key, bound), findings)
    if isinstance(task.wrong, OfCorruption) and isinstance(task.answer, Numbers):
        name = task.wrong.corruption
        named = task.corruptions[name]
        for field in filter(None, (task.answer.above, task.answer.at_most)):
            if field.slot in named:
                at = ("task", "corruptions", name, field.slot)
                _check_bound(task, field, named[field.slot], at, findings)


def _check_bound(task: TemplateTask, field: Field, rule: SlotRule, at: Path, findings: TaskFindings) -> None:
    column = field.column or column_of(rule, task.rules)
    _all_numbers(entries_of(task.lists[task.list_of(rule)], column), str(field), at, findings)


def _all_numbers(entries: tuple[str, ...], what: str, at: Path, findings: TaskFindings) -> None:
    bad = [entry for entry in entries if not _is_number(entry)]
    if bad:
        shown = ", ".join(map(repr, bad[:5])) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        hint = "let the list hold numbers only, or write the answers as texts"
        findings.add("CS332", f"{shown}: not a number, but {what} is compared as one", at, hint=hint)


def _is_number(text: str) -> bool:
    try:
        number(text)
    except NotANumber:
        return False
    return True
