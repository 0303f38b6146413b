"""The parts of a templated task, parsed and checked against each other. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from circuitspec.spec.fields import Draw, SlotRule, parse_list_reference, parse_slot_rule
from circuitspec.spec.hypothesis import Above, AnswerOf, TaskSpec
from circuitspec.spec.lists import Row, columns
from circuitspec.tasks.answers import (
    AnswerRule,
    NotANumber,
    Numbers,
    OfCorruption,
    Texts,
    WrongRule,
    entries_of,
    number,
)
from circuitspec.tasks.findings import Findings, Path, counted, meant
from circuitspec.tasks.slots import root_of
from circuitspec.tasks.templates import Field, Template, parse_field, parse_template


@dataclass(frozen=True)
class TemplateTask:
    """Everything that drawing prompts needs; every name in it is known to exist."""

    templates: tuple[Template, ...]
    labels: tuple[str, ...]  # the templates as written
    rules: Mapping[str, SlotRule]
    corruptions: Mapping[str, Mapping[str, SlotRule]]
    lists: Mapping[str, tuple[Row, ...]]
    answer: AnswerRule | None
    wrong: WrongRule | None


def template_task(task: TaskSpec, lists: Mapping[str, tuple[Row, ...]], findings: Findings) -> TemplateTask:
    """Parse and cross-check the parts of `task`.

    What is wrong goes to `findings` and is raised from there (CS322 to CS333).
    """
    return _Parser(task, lists, findings).parse()


class _Parser:
    def __init__(self, task: TaskSpec, lists: Mapping[str, tuple[Row, ...]], findings: Findings) -> None:
        self.task, self.lists, self.findings = task, lists, findings
        self.uses: list[tuple[Field, Path]] = []  # every field of a template or an answer

    def parse(self) -> TemplateTask:
        rules = dict(self._rules(self.task.slots, ("task", "slots")))
        self._check_circles(rules)
        corruptions = {name: self._corruption(name) for name in self.task.corruptions}
        templates = tuple(self._template(text, ("task", "templates", i)) for i, text in enumerate(self.task.templates))
        answer = self._answer(self.task.answer, "answer")
        wrong = self._wrong()
        self.findings.check()
        checked = TemplateTask(
            templates,
            self.task.templates,
            rules,
            corruptions,
            self.lists,
            answer,
            wrong,
        )
        self._check_columns(checked)
        self._check_lengths(checked)
        self.findings.check()
        self._check_numbers(checked)
        self.findings.check()
        return checked

    def _rules(self, slots: Mapping[str, str], path: Path) -> Iterator[tuple[str, SlotRule]]:
        for slot, text in slots.items():
            rule, at = parse_slot_rule(text), (*path, slot)
            if isinstance(rule, Draw) and rule.list not in self.lists:
                self.findings.add("CS325", f"there is no list {rule.list}", at, hint=meant(rule.list, self.lists))
            elif isinstance(rule, Draw) or self._known(rule.slot, at):
                yield slot, rule

    def _known(self, slot: str, at: Path) -> bool:
        if slot in self.task.slots:
            return True
        self.findings.add("CS322", f"there is no slot {slot}", at, hint=meant(slot, self.task.slots))
        return False

    def _check_circles(self, rules: Mapping[str, SlotRule]) -> None:
        for slot in rules:
            try:
                root_of(slot, rules)
            except ValueError as error:
                self.findings.add(
                    "CS326",
                    f"the slot {slot} copies itself ({error})",
                    ("task", "slots", slot),
                    hint="let one of these slots draw from a list",
                )
            except KeyError:
                continue  # a slot on the way is missing, which is reported where it is named

    def _corruption(self, name: str) -> dict[str, SlotRule]:
        path = ("task", "corruptions", name)
        named = self.task.corruptions[name]
        known = {slot: text for slot, text in named.items() if self._known(slot, (*path, slot))}
        return dict(self._rules(known, path))

    def _template(self, text: str, at: Path) -> Template:
        template = parse_template(text)
        self.uses.extend((field, at) for field in template.fields if self._known(field.slot, at))
        return template

    def _answer(self, answer: str | tuple[str, ...] | Above | None, key: str) -> AnswerRule | None:
        at: Path = ("task", key)
        if answer is None:
            return None
        if isinstance(answer, Above):
            return self._numbers(answer, at)
        if isinstance(answer, str):
            return Texts((self._template(answer, at),))
        return Texts(tuple(self._template(text, (*at, i)) for i, text in enumerate(answer)))

    def _numbers(self, said: Above, at: Path) -> Numbers | None:
        name, column = parse_list_reference(said.source)
        if name not in self.lists:
            self.findings.add("CS325", f"there is no list {name}", (*at, "from"), hint=meant(name, self.lists))
            return None
        if not self._column_fits(column, columns(self.lists[name]), f"${name}", (*at, "from")):
            return None
        bounds = {
            key: self._bound(text, (*at, key)) for key, text in (("above", said.above), ("at_most", said.at_most))
        }
        return Numbers(entries_of(self.lists[name], column), bounds["above"], bounds["at_most"])

    def _bound(self, text: str | None, at: Path) -> Field | None:
        if text is None:
            return None
        field = parse_field(text)
        if not self._known(field.slot, at):
            return None
        self.uses.append((field, at))
        return field

    def _wrong(self) -> WrongRule | None:
        wrong = self.task.wrong
        if not isinstance(wrong, AnswerOf):
            return self._answer(wrong, "wrong")
        name, at = wrong.answer_of, ("task", "wrong", "answer_of")
        if name not in self.task.corruptions:
            hint = meant(name, self.task.corruptions)
            self.findings.add("CS333", f"there is no corruption {name}", at, hint=hint)
        if self.task.answer is None:
            self.findings.add("CS333", "without `answer`, a corruption has none either", at, hint="add `answer`")
        return OfCorruption(name)

    def _check_columns(self, task: TemplateTask) -> None:
        for field, at in dict.fromkeys(self.uses):
            shape = columns(self.lists[_list_of(task.rules[field.slot], task.rules)])
            if not self._column_fits(field.column, shape, field.slot, at):
                continue
            for name, named in task.corruptions.items():
                if field.slot in named:
                    drawn = _list_of(named[field.slot], task.rules)
                    path = ("task", "corruptions", name, field.slot)
                    self._column_fits(field.column, columns(self.lists[drawn]), field.slot, path)

    def _column_fits(self, column: str | None, shape: tuple[str, ...], name: str, at: Path) -> bool:
        if (column is None and not shape) or column in shape:
            return True
        if not shape:
            message, hint = f"{name} is plain text and has no column {column}", f"write {name}"
        elif column is None:
            message = f"{name} is a row of a table"
            hint = f"name one of its columns: {', '.join(f'{name}.{one}' for one in shape)}"
        else:
            message, hint = f"{name} has no column {column}", meant(column, shape)
        self.findings.add("CS323", message, at, hint=hint)
        return False

    def _check_lengths(self, task: TemplateTask) -> None:
        clean = _draws(task.rules)
        for name, count in clean.items():
            self._long_enough(name, count, f"the slots draw {count}", ("task", "slots"))
        for corruption, named in task.corruptions.items():
            for name, count in _draws(named).items():
                need = clean.get(name, 0) + count
                said = f"the clean prompt holds {clean.get(name, 0)} and the corruption {corruption} draws {count} more"
                self._long_enough(name, need, said, ("task", "corruptions", corruption))

    def _long_enough(self, name: str, need: int, said: str, at: Path) -> None:
        have = len(self.lists[name])
        if have < need:
            self.findings.add(
                "CS327",
                f"the list {name} has {counted(have, 'entry', 'entries')}, but {need} different ones are needed",
                at,
                label=said,
                hint=f"add entries to {name}: values drawn from one list differ within a prompt and its corruption",
            )

    def _check_numbers(self, task: TemplateTask) -> None:
        for key, rule in (("answer", task.answer), ("wrong", task.wrong)):
            if not isinstance(rule, Numbers):
                continue
            self._all_numbers(rule.entries, f"an answer by `{key}`", ("task", key, "from"))
            for bound, field in (("above", rule.above), ("at_most", rule.at_most)):
                if field is not None:
                    entries = entries_of(self.lists[_list_of(task.rules[field.slot], task.rules)], field.column)
                    self._all_numbers(entries, str(field), ("task", key, bound))
        if isinstance(task.wrong, OfCorruption) and isinstance(task.answer, Numbers):
            named = task.corruptions[task.wrong.corruption]
            for field in filter(None, (task.answer.above, task.answer.at_most)):
                if field.slot in named:
                    entries = entries_of(self.lists[_list_of(named[field.slot], task.rules)], field.column)
                    path = ("task", "corruptions", task.wrong.corruption, field.slot)
                    self._all_numbers(entries, str(field), path)

    def _all_numbers(self, entries: tuple[str, ...], what: str, at: Path) -> None:
        bad = [entry for entry in entries if not _is_number(entry)]
        if bad:
            shown = ", ".join(map(repr, bad[:5])) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
            self.findings.add("CS332", f"{shown}: not a number, but {what} is compared as one", at)


def _list_of(rule: SlotRule, rules: Mapping[str, SlotRule]) -> str:
    """The list whose entries a rule gives."""
    root = rule if isinstance(rule, Draw) else rules[root_of(rule.slot, rules)]
    assert isinstance(root, Draw)
    return root.list


def _draws(rules: Mapping[str, SlotRule]) -> dict[str, int]:
    """How many entries of each list the rules draw."""
    counts: dict[str, int] = {}
    for rule in rules.values():
        if isinstance(rule, Draw):
            counts[rule.list] = counts.get(rule.list, 0) + 1
    return counts


def _is_number(text: str) -> bool:
    try:
        number(text)
    except NotANumber:
        return False
    return True
