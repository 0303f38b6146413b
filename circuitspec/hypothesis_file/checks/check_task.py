"""Checks of a task: one source of prompts; slots, lists, corruptions and positions that exist and are used."""

from __future__ import annotations

from collections.abc import Iterator

from circuitspec.hypothesis_file.checks.scope import PROMPT_SOURCES, Scope, counts, meant
from circuitspec.hypothesis_file.grammar.fields import (
    Copy,
    TemplateField,
    parse_list_reference,
    parse_slot_rule,
    template_fields,
)
from circuitspec.hypothesis_file.grammar.positions import parse_position
from circuitspec.hypothesis_file.schema.blocks import Above, AnswerOf
from circuitspec.hypothesis_file.schema.position_blocks import SlotPosition
from circuitspec.hypothesis_file.yaml.source import Path_

GENERATE = "write repeated_tokens: {length: 24}"
ONLY_TEMPLATED = ("slots", "lists", "answer", "wrong", "corruptions", "fillings")
ONLY_FROM_FILE = ("columns", "layout", "skip", "by")


def check_task(scope: Scope) -> None:
    """Note what is wrong within the task."""
    if scope.parts.task is None:
        return
    _check_prompt_source(scope)
    if not scope.is_templated:
        return
    _check_slots(scope)
    _check_fields(scope)
    _check_answers(scope)
    _check_positions(scope)
    _check_unused(scope)


def _check_prompt_source(scope: Scope) -> None:
    given = [key for key in PROMPT_SOURCES if scope.at("task", key) is not None]
    if not given:
        scope.add(
            "CS126",
            "the task does not say where its prompts come from",
            ("task",),
            hint="add templates, file or generate",
            key=True,
        )
    for key in given[1:]:
        scope.add(
            "CS126",
            "the task has more than one source of prompts",
            ("task", key),
            label=f"it has {given[0]} already",
            hint=f"keep one of {' and '.join(given)}",
            key=True,
        )
    if given == ["templates"] and scope.at("task", "templates") == []:
        scope.add("CS126", "the task has no templates", ("task", "templates"), hint='write ["{S1} went to"]', key=True)
    if len(given) == 1 and given != ["templates"]:
        for key in ONLY_TEMPLATED:
            if scope.at("task", key) is not None:
                scope.add(
                    "CS127",
                    f"{key} does not go with {given[0]}",
                    ("task", key),
                    label="only templates have it",
                    hint=f"remove it: the prompts of {given[0]} bring their own",
                    key=True,
                )
    _check_file_keys(scope, given)
    generate = scope.task.generate
    if generate is not None and generate.repeated_tokens is None:
        scope.add(
            "CS126", "generate names no generator", ("task", "generate"), hint="write repeated_tokens: {length: 24}"
        )


def _check_file_keys(scope: Scope, given: list[str]) -> None:
    """Keys that say how a file is read go with a file; and what its columns are is said once."""
    for key in ONLY_FROM_FILE:
        if given and "file" not in given and scope.at("task", key) is not None:
            hint = f"remove it, or write `file: prompts.jsonl` instead of {given[0]}"
            label = "it says how a prompts file is read"
            scope.add("CS174", f"{key} does not go with {given[0]}", ("task", key), label=label, hint=hint, key=True)
    if scope.at("task", "columns") is not None and scope.at("task", "layout") is not None:
        hint = "keep `layout` where the file has that layout, `columns` where you name its columns yourself"
        scope.add("CS175", "both columns and layout say what the columns are", ("task", "layout"), hint=hint, key=True)
    skips = scope.at("task", "skip")
    if isinstance(skips, list) and (twice := sorted({str(one) for one in skips if skips.count(one) > 1})):
        scope.add("CS175", f"skip names {', '.join(twice)} twice", ("task", "skip"), hint="name it once", key=True)


def _check_slots(scope: Scope) -> None:
    slots = scope.declared("task", "slots")
    for slot, text in scope.task.slots.items():
        _check_rule(scope, text, ("task", "slots", slot))
    for name, changes in scope.task.corruptions.items():
        for slot, text in changes.items():
            path = ("task", "corruptions", name, slot)
            if slot not in slots:
                scope.add("CS135", f"there is no slot {slot}", path, hint=meant(slot, slots), key=True)
            _check_rule(scope, text, path)
    _check_circles(scope)


def _check_rule(scope: Scope, text: str, path: Path_) -> None:
    rule = parse_slot_rule(text)
    if isinstance(rule, Copy):
        slots = scope.declared("task", "slots")
        if rule.slot not in slots:
            scope.add("CS135", f"there is no slot {rule.slot}", path, hint=meant(rule.slot, slots))
    else:
        _check_list(scope, rule.list, path)


def _check_list(scope: Scope, name: str, path: Path_) -> None:
    lists = scope.declared("task", "lists")
    if name not in lists:
        hint = meant(name, lists, f"add it: lists: {{{name}: [one, two]}}")
        scope.add("CS134", f"there is no list {name}", path, hint=hint)


def _check_circles(scope: Scope) -> None:
    slots = scope.task.slots
    told: set[str] = set()
    for start in slots:
        walk = [start]
        while walk[-1] in slots and walk[-1] not in told:
            rule = parse_slot_rule(slots[walk[-1]])
            if not isinstance(rule, Copy):
                break
            if rule.slot in walk:
                circle = walk[walk.index(rule.slot) :]
                scope.add(
                    "CS136",
                    f"the slot {circle[0]} copies itself",
                    ("task", "slots", circle[0]),
                    label=" = ".join([*circle, circle[0]]),
                    hint="let one of these slots draw from a list",
                )
                break
            walk.append(rule.slot)
        told.update(walk)


def answer_fields(scope: Scope) -> Iterator[tuple[TemplateField, Path_]]:
    """Every slot that an answer is made of, with its place."""
    for key, answer in (("answer", scope.task.answer), ("wrong", scope.task.wrong)):
        if isinstance(answer, str):
            yield from ((one, ("task", key)) for one in template_fields(answer))
        elif isinstance(answer, tuple):
            for i, text in enumerate(answer):
                yield from ((one, ("task", key, i)) for one in template_fields(text))
        elif isinstance(answer, Above):
            for bound, reference in (("above", answer.above), ("at_most", answer.at_most)):
                if reference is not None:
                    slot, _, column = reference.partition(".")
                    yield TemplateField(slot, column or None, 0, len(reference)), ("task", key, bound)


def template_uses(scope: Scope) -> Iterator[tuple[TemplateField, Path_]]:
    """Every slot in a template, with its place."""
    for i, fields in enumerate(scope.templates):
        yield from ((one, ("task", "templates", i)) for one in fields)


def _check_fields(scope: Scope) -> None:
    slots = scope.declared("task", "slots")
    for used in (template_uses(scope), answer_fields(scope)):
        for one, path in used:
            if one.slot not in slots:
                scope.add(
                    "CS131",
                    f"the slot {one.slot} is not declared",
                    path,
                    hint=meant(one.slot, slots, f"add it: slots: {{{one.slot}: $list}}"),
                    within=(one.offset, one.length),
                )


def _check_answers(scope: Scope) -> None:
    for key, answer in (("answer", scope.task.answer), ("wrong", scope.task.wrong)):
        if isinstance(answer, Above):
            _check_list(scope, parse_list_reference(answer.source)[0], ("task", key, "from"))
        elif isinstance(answer, AnswerOf):
            corruptions = scope.declared("task", "corruptions")
            path = ("task", key, "answer_of")
            if answer.answer_of not in corruptions:
                hint = meant(answer.answer_of, corruptions, "declare it under corruptions")
                scope.add("CS144", f"there is no corruption {answer.answer_of}", path, hint=hint)
            if scope.at("task", "answer") is None:
                scope.add(
                    "CS128", "a corruption has no answer, for the task has none", path, hint='add answer: " {SLOT}"'
                )


def _check_positions(scope: Scope) -> None:
    slots = scope.declared("task", "slots")
    for name, value in scope.task.positions.items():
        path: Path_ = ("task", "positions", name)
        if name.partition("#")[0] in slots:
            scope.add(
                "CS142",
                f"{name} is a slot, and so a position already: its last token",
                path,
                hint="give this position another name",
                key=True,
            )
        spelled: object = value
        if isinstance(value, SlotPosition):
            spelled, path = value.slot, (*path, "slot")
        if not isinstance(spelled, str | int) or (slot := parse_position(spelled).slot) is None:
            continue
        if slot not in slots:
            scope.add("CS135", f"there is no slot {slot}", path, hint=meant(slot, [*slots, "last", "start"]))
        else:
            check_occurrence(scope, slot, parse_position(spelled).occurrence, path)


def check_occurrence(scope: Scope, slot: str, occurrence: int, path: Path_) -> None:
    """Note a position that some template does not have."""
    found = [counts(fields).get(slot, 0) for fields in scope.templates]
    lacking = [i for i, count in enumerate(found) if count < occurrence]
    if not lacking:
        return
    said = slot if occurrence == 1 else f"occurrence {occurrence} of {slot}"
    if len(lacking) == len(found):
        scope.add("CS143", f"no template has {said}", path, hint="name a slot that the templates contain")
        return
    line = scope.source.span(scope.usable.path(("task", "templates", lacking[0]))).line
    scope.add(
        "CS133",
        f"not every template has {said}",
        path,
        label=f"it is missing in the template on line {line}",
        hint=f"put {{{slot}}} into every template, or use another position",
    )


def _check_unused(scope: Scope) -> None:
    """Only told where every template can be read and names known slots, for one that does not may mean this one."""
    written = scope.at("task", "templates")
    used = {one.slot for one, _ in (*template_uses(scope), *answer_fields(scope))}
    if not isinstance(written, list) or len(written) != len(scope.templates):
        return
    if not written or not used <= set(scope.declared("task", "slots")):
        return
    rules = [*scope.task.slots.items()]
    rules += [pair for changes in scope.task.corruptions.values() for pair in changes.items() if pair[0] in used]
    for slot, text in reversed(rules):  # a slot is used where a used slot copies it
        rule = parse_slot_rule(text)
        if isinstance(rule, Copy) and slot in used:
            used.add(rule.slot)
    for slot in scope.task.slots:
        if slot not in used:
            scope.add(
                "CS132",
                f"the slot {slot} is not used",
                ("task", "slots", slot),
                hint=f"put {{{slot}}} into the templates, or remove it",
                key=True,
            )
