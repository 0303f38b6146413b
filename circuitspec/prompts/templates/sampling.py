"""Templated tasks become prompts: each prompt is drawn from the seed and its own number. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from circuitspec.hypothesis_file.grammar.fields import Draw
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet
from circuitspec.prompts.task_findings import TaskFindings, counted
from circuitspec.prompts.templates.answer_rules import OfCorruption
from circuitspec.prompts.templates.slots import Dice, ListTooShort, draw_clean, draw_corruption, every_clean, root_of
from circuitspec.prompts.templates.template import Value, Values
from circuitspec.prompts.templates.template_task import TemplateTask

TRIES = 100  # random draws before all possibilities are gone through in order
REFERENCE = "reference"  # the stream of prompts that means are over
EXHAUSTIVE_LIMIT = 20_000  # of those; a template for which none of so many serves is given up

Refusal: TypeAlias = Literal["repeated", "no answer", "no wrong answer", "answer is wrong", "unchanged"]


@dataclass
class PromptsSoFar:
    """What was drawn so far."""

    texts: set[str] = field(default_factory=set)
    per_template: Counter[int] = field(default_factory=Counter)
    rest: dict[int, Iterator[Values]] = field(default_factory=dict)  # template -> possibilities not yet gone through


def draw_prompts(task: TemplateTask, n: int, seed: int, findings: TaskFindings) -> PromptSet:
    """`n` prompts; prompt i uses template `i % n_templates`.

    Prompt i depends on the seed, on i and (so that none is repeated) on the prompts before it: asking
    for more prompts, or adding a corruption, leaves the earlier clean texts as they are. A draw is
    repeated when its clean text was drawn before, when an answer by number has no entry, when an answer
    is also a wrong answer, and when a corruption leaves the text as it was; if nothing else can be
    drawn, an error (CS327 to CS331) is raised.
    """
    drawn = PromptsSoFar()
    prompts = tuple(_draw_prompt(task, index, n, seed, drawn, findings) for index in range(n))
    return PromptSet(
        prompts,
        tuple(task.corruptions),
        task.labels,
        lists={slot: task.list_of(rule) for slot, rule in task.rules.items()},
    )


def draw_others(task: TemplateTask, n: int, seed: int, scored: PromptSet) -> tuple[Prompt, ...]:
    """Up to `n` prompts by the same rules, from a stream of their own: none has the clean text of a `scored` one.

    Fewer where the lists give no more. Asking for more leaves the earlier ones as they are.
    """
    drawn = PromptsSoFar({prompt.texts[CLEAN] for prompt in scored.prompts})
    found: list[Prompt] = []
    exhausted: set[int] = set()
    index = 0
    while len(found) < n and len(exhausted) < len(task.templates):
        number = index % len(task.templates)
        if number not in exhausted:
            prompt = _other(task, index, number, seed, drawn)
            if prompt is None:
                exhausted.add(number)
            else:
                found.append(replace(prompt, index=len(found)))
        index += 1
    return tuple(found)


def _other(task: TemplateTask, index: int, number: int, seed: int, drawn: PromptsSoFar) -> Prompt | None:
    maker = PromptMaker(task, index, number, seed, REFERENCE)
    try:
        for values in _candidates(task, number, Dice(seed, REFERENCE, index, CLEAN), drawn):
            made = maker.make(values, drawn)
            if isinstance(made, Prompt):
                drawn.texts.add(made.texts[CLEAN])
                return made
    except ListTooShort:
        return None
    return None


def _draw_prompt(
    task: TemplateTask, index: int, n: int, seed: int, drawn: PromptsSoFar, findings: TaskFindings
) -> Prompt:
    number = index % len(task.templates)
    maker = PromptMaker(task, index, number, seed)
    refused: Counter[tuple[Refusal, str]] = Counter()
    try:
        for values in _candidates(task, number, Dice(seed, index, CLEAN), drawn):
            made = maker.make(values, drawn)
            if isinstance(made, Prompt):
                drawn.texts.add(made.texts[CLEAN])
                drawn.per_template[number] += 1
                return made
            refused[made] += 1
    except ListTooShort as short:
        findings.add(
            "CS327", f"the list {short.list} is too short: nothing different is left to draw", ("task", "lists")
        )
    else:
        _explain(refused, task, number, n, drawn, findings)
    findings.check()
    raise AssertionError("a prompt is made or an error is raised")


def _candidates(task: TemplateTask, number: int, dice: Dice, drawn: PromptsSoFar) -> Iterator[Values]:
    values: Values = {}
    for _ in range(TRIES):
        values = draw_clean(task.rules, task.lists, dice)
        yield values
    if number not in drawn.rest:
        visible = frozenset(root_of(field.slot, task.rules) for field in task.templates[number].fields)
        drawn.rest[number] = every_clean(task.rules, task.lists, visible, values)
    for _, values in zip(range(EXHAUSTIVE_LIMIT), drawn.rest[number], strict=False):
        yield values


class PromptMaker:
    """Turns one draw of the clean slots into a prompt, or says why it will not do."""

    def __init__(self, task: TemplateTask, index: int, number: int, seed: int, *stream: str) -> None:
        self.task, self.index, self.number = task, index, number
        self.template = task.templates[number]
        self.dice = {name: Dice(seed, *stream, index, "corruption", name) for name in task.corruptions}

    def make(self, values: Values, drawn: PromptsSoFar) -> Prompt | tuple[Refusal, str]:
        """The prompt; else why it will not do, and of a corruption that it does not change which one."""
        text, spans = self.template.render_with_spans(values)
        if text in drawn.texts:
            return "repeated", ""
        answers = () if self.task.answer is None else self.task.answer.read(values)
        if self.task.answer is not None and not answers:
            return "no answer", ""
        wrong: tuple[str, ...] = ()
        rule = self.task.wrong
        if rule is not None and not isinstance(rule, OfCorruption):
            wrong = rule.read(values)
            if refusal := _refuse_wrong(answers, wrong):
                return refusal, ""
        texts, slots, fillings = {CLEAN: text}, {CLEAN: spans}, {CLEAN: values}
        for name in self.task.corruptions:
            corrupted = self._corrupt(name, values, text, answers)
            if not isinstance(corrupted, dict):
                return corrupted, name
            texts[name], slots[name] = self.template.render_with_spans(corrupted)
            fillings[name] = corrupted
            if isinstance(rule, OfCorruption) and rule.corruption == name and self.task.answer is not None:
                wrong = self.task.answer.read(corrupted)
        where = f"templates[{self.number}]"
        return Prompt(self.index, self.number, texts, answers, wrong, slots, fillings=fillings, where=where)

    def _corrupt(self, name: str, clean: Values, text: str, answers: tuple[str, ...]) -> dict[str, Value] | Refusal:
        named = self.task.corruptions[name]
        random = any(isinstance(rule, Draw) for rule in named.values())
        refusal: Refusal | None = None
        for _ in range(TRIES if random else 1):
            values = draw_corruption(named, self.task.rules, clean, self.task.lists, self.dice[name])
            refusal = self._refuse_corruption(name, values, text, answers)
            if refusal is None:
                return values
        assert refusal is not None
        return refusal

    def _refuse_corruption(self, name: str, values: Values, text: str, answers: tuple[str, ...]) -> Refusal | None:
        if self.template.render(values) == text:
            return "unchanged"
        rule = self.task.wrong
        if isinstance(rule, OfCorruption) and rule.corruption == name and self.task.answer is not None:
            return _refuse_wrong(answers, self.task.answer.read(values))
        return None


def _refuse_wrong(answers: tuple[str, ...], wrong: tuple[str, ...]) -> Refusal | None:
    if not wrong:
        return "no wrong answer"
    return "answer is wrong" if set(answers) & set(wrong) else None


def _explain(
    refused: Counter[tuple[Refusal, str]],
    task: TemplateTask,
    number: int,
    n: int,
    drawn: PromptsSoFar,
    findings: TaskFindings,
) -> None:
    """Note why no further prompt could be drawn from a template."""
    others = Counter({reason: count for reason, count in refused.items() if reason[0] != "repeated"})
    reason, corruption = (others or refused).most_common(1)[0][0]
    at = ("task", "templates", number)
    given = drawn.per_template[number]
    asked = len(range(number, n, len(task.templates)))
    match reason:
        case "repeated":
            findings.add(
                "CS328",
                f"this template gives only {counted(given, 'different prompt')}, but {asked} are asked of it",
                at,
                label=f"{n} prompts in rotation over {counted(len(task.templates), 'template')}",
                hint=f"lengthen the lists, or write `prompts: {max(1, given * len(task.templates))}`; "
                "a repeated prompt would count as evidence twice",
            )
        case "no answer" | "no wrong answer":
            key = "answer" if reason == "no answer" else "wrong"
            findings.add(
                "CS329",
                f"no {'further ' if given else ''}prompt can be drawn for which `{key}` has an entry",
                ("task", key),
                hint="extend the list that `from` names beyond the numbers that the slot takes",
            )
        case "answer is wrong":
            findings.add(
                "CS330",
                "an answer is also a wrong answer in every prompt that can be drawn",
                ("task", "wrong"),
                hint="let `wrong` name another slot than `answer`, or a corruption that changes the answer",
            )
        case "unchanged":
            findings.add(
                "CS331",
                f"the corruption {corruption} leaves this template as it is",
                at,
                hint=f"let {corruption} change a slot that stands in every template",
            )
