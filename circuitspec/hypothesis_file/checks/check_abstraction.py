"""Checks of the high-level model: names that expressions know, an output that is an answer, pairs that can be made."""

from __future__ import annotations

from collections.abc import Mapping

from circuitspec.hypothesis_file.checks.check_circuit import check_corruption, check_node, check_places
from circuitspec.hypothesis_file.checks.scope import Scope, meant
from circuitspec.hypothesis_file.checks.word_lists import Row, columns
from circuitspec.hypothesis_file.grammar.fields import Copy, Draw, parse_slot_rule, template_fields
from circuitspec.hypothesis_file.grammar.variable_expressions import (
    Kind,
    NotEvaluated,
    Reference,
    kind_of_value,
    parse_expression,
    references,
)
from circuitspec.hypothesis_file.schema.abstraction.abstraction_block import AbstractionSpec, PairFamily
from circuitspec.hypothesis_file.schema.abstraction.interchange_block import AboutVariables
from circuitspec.hypothesis_file.yaml.source import Path_

_ADD = "add abstraction: {variables: ..., output: ..., align: ..., pairs: ...}"


def check_abstraction(scope: Scope, lists: Mapping[str, tuple[Row, ...]]) -> None:
    """Note what is wrong with the high-level model, its pairs, and claims about its variables."""
    _check_claims(scope)
    spec = scope.parts.abstraction
    if spec is None:
        return
    if scope.parts.task is not None and not scope.is_templated and not _has_columns(scope):
        scope.add(
            "CS194",
            "variables are made of slots or columns, and these prompts have none",
            ("abstraction",),
            hint="write the task with templates, or name a prompts file with columns beside the prompts",
            key=True,
        )
        return
    kinds = _check_variables(scope, spec, lists)
    _check_output(scope, spec, kinds)
    _check_alignments(scope, spec)
    for name, family in spec.pairs.items():
        _check_family(scope, family, ("abstraction", "pairs", name), lists)


def _has_columns(scope: Scope) -> bool:
    """Whether prompts come from a file, whose columns are known once it is read."""
    return scope.at("task", "file") is not None and scope.at("task", "templates") is None


def _check_variables(scope: Scope, spec: AbstractionSpec, lists: Mapping[str, tuple[Row, ...]]) -> dict[str, Kind]:
    """Note names that expressions do not know, and values that do not go together; the kind of each variable."""
    slots = scope.declared("task", "slots")
    kinds: dict[str, Kind] = {}
    written = scope.declared("abstraction", "variables")
    for name, text in spec.variables.items():
        path: Path_ = ("abstraction", "variables", name)
        if name in slots:
            scope.add("CS190", f"{name} is a slot already", path, hint="give the variable another name", key=True)
        expression = parse_expression(text)
        sound = [_check_reference(scope, one, path, (*kinds,), lists) for one in references(expression)]
        earlier = {one.name for one in references(expression)} - set(slots)
        if not all(sound) or any(one in written and one not in kinds for one in earlier):
            kinds[name] = "text"  # whatever it is: it is told above what is wrong
            continue
        try:
            kinds[name] = kind_of_value(expression, kinds)
        except NotEvaluated as error:
            scope.add("CS189", str(error), path, hint="`circuitspec explain CS189` says which values go together")
            kinds[name] = "text"
    return kinds


def _check_reference(
    scope: Scope, one: Reference, path: Path_, earlier: tuple[str, ...], lists: Mapping[str, tuple[Row, ...]]
) -> bool:
    slots = scope.declared("task", "slots")
    within = (one.offset, one.length)
    if one.name in earlier and one.name not in slots:
        if one.column is not None:
            scope.add("CS188", f"the variable {one.name} has no columns", path, hint=f"write {one.name}", within=within)
        return one.column is None
    later = one.name in scope.declared("abstraction", "variables")
    if one.name not in slots and not later and _has_columns(scope):
        if one.column is not None:
            said = f"{one.name}.{one.column}: a column of a prompts file is a text, and has no columns"
            scope.add("CS188", said, path, hint=f"write {one.name}", within=within)
        return one.column is None
    if one.name not in slots:
        said = f"the variable {one.name} is not known yet" if later else f"there is no slot or variable {one.name}"
        hint = "write variables in the order in which they follow from each other"
        scope.add("CS188", said, path, hint=hint if later else meant(one.name, [*slots, *earlier]), within=within)
        return False
    known = _columns(scope, one.name, lists)
    if known is None or (one.column is None and not known) or one.column in known:
        return True
    if one.column is None:
        scope.add("CS188", f"{one.name} is a row of a table", path, hint=f"write {one.name}.{known[0]}", within=within)
    else:
        said = f"{one.name} has no column {one.column}"
        scope.add("CS188", said, path, hint=meant(one.column, known, f"write {one.name}"), within=within)
    return False


def _columns(scope: Scope, slot: str, lists: Mapping[str, tuple[Row, ...]]) -> tuple[str, ...] | None:
    """The columns of what a slot holds, none of plain texts; None where that is not known."""
    for _ in scope.task.slots:
        text = scope.task.slots.get(slot)
        rule = None if text is None else parse_slot_rule(text)
        if rule is None:
            return None
        if isinstance(rule, Draw):
            return _of_list(rule.list, lists)
        slot = rule.slot
    return None


def _of_list(name: str, lists: Mapping[str, tuple[Row, ...]]) -> tuple[str, ...] | None:
    return columns(lists[name]) if name in lists else None


def _said(names: tuple[str, ...]) -> str:
    return f"the columns {', '.join(names)}" if names else "no columns"


def _check_output(scope: Scope, spec: AbstractionSpec, kinds: Mapping[str, Kind]) -> None:
    path = ("abstraction", "output")
    fields = template_fields(spec.output)
    slots = scope.declared("task", "slots")
    if not fields:
        name = spec.output.strip()
        if name not in kinds:
            hint = meant(name, kinds) if name not in slots else f'write a text with it: " {{{name}}}"'
            scope.add("CS191", f"the output {name} is no variable", path, hint=hint)
            return
        answer = scope.task.answer
        own = template_fields(answer) if isinstance(answer, str) else ()
        if len(own) != 1 and scope.parts.task is not None and not _has_columns(scope):
            scope.add(
                "CS191",
                f"{name} can take no slot's place in the task's answer, which is not a text with one slot",
                path,
                hint=f'write the answer with the variable in it: output: " {{{name}}}"',
            )
        if kinds[name] == "truth":
            scope.add("CS191", f"{name} is true or false, which is no answer", path, hint="name a variable of text")
        return
    listed = _has_columns(scope)
    if scope.parts.task is not None and scope.at("task", "answer") is None and not listed:
        scope.add("CS128", "the output is compared with the answer, which the task does not give", path, hint="add one")
    for one in fields:
        within = (one.offset, one.length)
        if one.slot not in kinds and one.slot not in slots and not listed:
            hint = meant(one.slot, [*kinds, *slots])
            scope.add("CS191", f"there is no slot or variable {one.slot}", path, hint=hint, within=within)
        elif kinds.get(one.slot) == "truth":
            scope.add("CS191", f"{one.slot} is true or false, which is no answer", path, within=within)


def _check_alignments(scope: Scope, spec: AbstractionSpec) -> None:
    variables = scope.declared("abstraction", "variables")
    for name, aligned in spec.align.items():
        path: Path_ = ("abstraction", "align", name)
        if name not in variables:
            scope.add("CS192", f"there is no variable {name}", path, hint=meant(name, variables), key=True)
        for i, text in enumerate(aligned.nodes):
            check_node(scope, text, (*path, "nodes", i))
        check_places(scope, aligned.at, path)


def _check_family(scope: Scope, family: PairFamily, path: Path_, lists: Mapping[str, tuple[Row, ...]]) -> None:
    """Note slots, lists and a corruption that there are not, and values that cannot stand in a slot."""
    if _has_columns(scope):
        for key in ("redraw", "slots", "corruption"):
            if getattr(family, key):
                said = f"prompts from a file have no lists or rules by which `{key}` could make a source"
                scope.add("CS193", said, (*path, key), hint="write permute: true, or file: pairs.csv", key=True)
        return
    slots = scope.declared("task", "slots")
    for i, slot in enumerate(family.redraw):
        if slot not in slots:
            scope.add("CS135", f"there is no slot {slot}", (*path, "redraw", i), hint=meant(slot, slots))
            continue
        if slot in family.slots:
            scope.add("CS193", f"{slot} is both redrawn and set", (*path, "redraw", i), hint="keep one of the two")
        rule = parse_slot_rule(scope.task.slots[slot]) if slot in scope.task.slots else None
        if isinstance(rule, Copy):
            hint = f"redraw {rule.slot}, which {slot} then follows, or write slots: {{{slot}: $list}}"
            scope.add("CS193", f"{slot} copies {rule.slot}, and is not drawn", (*path, "redraw", i), hint=hint)
    for slot, text in family.slots.items():
        place = (*path, "slots", slot)
        if slot not in slots:
            scope.add("CS135", f"there is no slot {slot}", place, hint=meant(slot, slots), key=True)
        rule = parse_slot_rule(text)
        if isinstance(rule, Copy) and rule.slot not in slots:
            scope.add("CS135", f"there is no slot {rule.slot}", place, hint=meant(rule.slot, slots))
        named = scope.declared("task", "lists")
        if isinstance(rule, Draw) and rule.list not in named:
            scope.add("CS134", f"there is no list {rule.list}", place, hint=meant(rule.list, named))
        own = _columns(scope, slot, lists)
        given = _columns(scope, rule.slot, lists) if isinstance(rule, Copy) else _of_list(rule.list, lists)
        if own is not None and given is not None and set(own) != set(given):
            said = f"{slot} has {_said(own)}, and what it is set to has {_said(given)}"
            scope.add("CS193", said, place, hint="set it to values of the same columns")
    if family.corruption is not None:
        check_corruption(scope, family.corruption, (*path, "corruption"))


def _check_claims(scope: Scope) -> None:
    has = scope.at("abstraction") is not None
    variables, aligned = scope.declared("abstraction", "variables"), scope.declared("abstraction", "align")
    families = scope.declared("abstraction", "pairs")
    for i, claim in enumerate(scope.parts.claims):
        if not isinstance(claim, AboutVariables):
            continue
        path: Path_ = ("claims", i, claim.kind)
        if not has:
            message = f"{claim.kind} is about variables, and the file declares none"
            scope.add("CS195", message, ("claims", i), hint=_ADD)
            continue
        for name, place in (*claim.set_together, *claim.set_apart):
            if name not in variables:
                scope.add("CS195", f"there is no variable {name}", (*path, *place), hint=meant(name, variables))
        for name, place in claim.set_together:
            if name in variables and name not in aligned:
                message = f"the variable {name} is aligned with no component"
                hint = f"add abstraction: align: {{{name}: {{nodes: [GROUP]}}}}"
                scope.add("CS192", message, (*path, *place), hint=hint)
        apart = {name for name, _ in claim.set_together}
        for name, place in claim.set_apart:
            if name in apart:
                scope.add(
                    "CS195", f"{name} cannot be left alone and set", (*path, *place), hint="name another variable"
                )
        for name, place in claim.families:
            if name not in families:
                message = f"there is no family of pairs {name}"
                scope.add("CS195", message, (*path, *place), hint=meant(name, families))
