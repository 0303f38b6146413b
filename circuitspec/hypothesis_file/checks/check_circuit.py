"""Checks of circuit, ablation and claims: members, positions, paths, and the corruption that is ablated to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from circuitspec.hypothesis_file.checks.check_task import check_occurrence
from circuitspec.hypothesis_file.checks.scope import Scope, meant
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS, NOISE_SETTINGS
from circuitspec.hypothesis_file.grammar.component_kinds import MLP
from circuitspec.hypothesis_file.grammar.components import (
    OF_DICTIONARY,
    Component,
    FeaturePattern,
    Pattern,
    Range,
    stage,
)
from circuitspec.hypothesis_file.grammar.internal_metric_names import Attention, Projection, is_internal, parse_internal
from circuitspec.hypothesis_file.grammar.names import (
    GroupRef,
    Name,
    PathItem,
    format_name,
    has_inputs,
    is_group_name,
    parse_name,
    parse_path,
    suggest_name,
)
from circuitspec.hypothesis_file.grammar.positions import parse_position
from circuitspec.hypothesis_file.grammar.texts import RESERVED_CORRUPTION, did_you_mean
from circuitspec.hypothesis_file.schema.blocks import AblationSpec, Group, ReferenceFile
from circuitspec.hypothesis_file.yaml.source import Path_

FEWEST_REFERENCE = 8  # prompts that means are over
NEEDS_WRONG = ("logit_diff", "logprob_diff", "prob_diff")
INSTEAD = {"logit_diff": "logprob_diff", "logit": "logprob", "rank": "accuracy"}  # of answers of several tokens
NEEDS_NOTHING = ("kl",)


def check_circuit(scope: Scope) -> None:
    """Note what is wrong with groups and paths."""
    if scope.parts.circuit is None:
        return
    groups = scope.parts.circuit.groups
    for name, group in groups.items():
        _check_positions(scope, group, ("circuit", "groups", name))
    _check_repeats(scope, groups)
    for i, text in enumerate(scope.parts.circuit.paths):
        check_path(scope, text, ("circuit", "paths", i))


def check_claims(scope: Scope) -> None:
    """Note claims about what the circuit does not have, and scores that need answers the task does not give."""
    for i, claim in enumerate(scope.parts.claims):
        path: Path_ = ("claims", i, claim.kind)
        for place, text in claim.named_paths():
            check_path(scope, text, (*path, *place))
        for place, text in claim.named_nodes():
            check_node(scope, text, (*path, *place))
        for place, name in claim.named_corruptions():
            check_corruption(scope, name, (*path, *place))
        for wrong in claim.wrong_here(None if scope.parts.ablation is None else scope.parts.ablation.level):
            scope.add(wrong.code, wrong.message, (*path, *wrong.place), hint=wrong.hint, key=wrong.key)
        _check_metric(scope, claim.metric, (*path, "metric"))
    if scope.task.checks.accuracy is not None:
        _check_metric(scope, "accuracy", ("task", "checks", "accuracy"))


def check_node(scope: Scope, text: str, path: Path_) -> None:
    """Note a group that there is not, or a position that a component has not."""
    if is_group_name(text):
        _check_group(scope, text, path, (0, len(text)))
        return
    for position in parse_name(text).positions:
        _check_position(scope, position, path)


def check_places(scope: Scope, at: str | tuple[str, ...] | None, path: Path_) -> None:
    """Note positions at `at` that there are not."""
    if isinstance(at, str):
        _check_position(scope, at, (*path, "at"))
    for i, position in enumerate(at if isinstance(at, tuple) else ()):
        _check_position(scope, position, (*path, "at", i))


def check_corruption(scope: Scope, name: str, path: Path_) -> None:
    known = scope.declared("task", "corruptions")
    if scope.is_templated and name not in known:
        hint = meant(name, known, "declare it under task.corruptions")
        scope.add("CS144", f"there is no corruption {name}", path, hint=hint)


def check_ablation(scope: Scope) -> None:
    """Note a corruption that is missing, unknown, or of no use."""
    ablation = scope.parts.ablation
    if ablation is None:
        return
    corruptions = scope.declared("task", "corruptions")
    path, source = ("ablation", "from"), ablation.source
    kind = ABLATIONS[ablation.value]
    if kind.takes_prompts:
        example = corruptions[0] if corruptions else "corrupt" if not scope.is_templated else "CORRUPTION"
        if source is None:
            # the only one is taken; those of a file are known once it is read
            if len(corruptions) != 1 and scope.is_templated:
                scope.add(
                    "CS145",
                    f"{ablation.value} needs to know from which prompts",
                    ("ablation", "value"),
                    hint=f"add from: {example}",
                )
        elif source == RESERVED_CORRUPTION:
            if kind.is_run:
                message = "resampling from the clean prompts changes nothing"
                scope.add("CS144", message, path, hint=f"write from: {example}")
        elif scope.is_templated and source not in corruptions:
            hint = meant(source, corruptions, "declare it under task.corruptions")
            scope.add("CS144", f"there is no corruption {source}", path, hint=hint)
    elif source is not None:
        message = f"{ablation.value} takes nothing from other prompts"
        scope.add("CS146", message, path, hint="remove from, or write value: mean_per_template", key=True)
    _check_reference(scope, ablation)
    if ablation.through is not None and ablation.level != "path":
        message = f"at {ablation.level} level nothing passes along paths, so through says nothing"
        scope.add("CS161", message, ("ablation", "through"), hint="remove through, or write level: path", key=True)
    lacking = scope.parts.circuit is not None and not scope.parts.circuit.paths and not scope.at("circuit", "paths")
    if ablation.level != "node" and lacking:  # not where paths are written and cannot be read, which is told there
        scope.add(
            "CS162",
            f"{ablation.level} level is about the declared paths, and there are none",
            ("ablation", "level"),
            hint="add circuit: paths: [A -> B<q>, B -> logits], or write level: node",
        )
    _check_free(scope, ablation)
    _check_noise(scope, ablation)


def _check_reference(scope: Scope, ablation: AblationSpec) -> None:
    """Note (CS169) a reference where no means are taken, and numbers where no prompts can be drawn."""
    reference = ablation.reference
    if reference is None:
        return
    path = ("ablation", "reference")
    task = scope.parts.task
    if not ABLATIONS[ablation.value].averages:
        message = f"{ablation.value} takes no means, so reference says nothing"
        scope.add("CS169", message, path, hint="remove reference, or write value: mean_per_template", key=True)
    elif task is not None and task.file is not None and isinstance(reference, int):
        message = "prompts from a file are not drawn, so that no others can be"
        hint = "write reference: {file: more.jsonl}, or reference: prompts for those that are scored"
        scope.add("CS169", message, path, hint=hint)
    elif task is not None and task.file is None and isinstance(reference, ReferenceFile):
        message = "a file of other prompts goes with prompts from a file; here they are drawn"
        scope.add("CS169", message, path, hint="write how many others to draw: reference: 2000")
    elif isinstance(reference, int) and reference < FEWEST_REFERENCE:
        message = f"a mean over {reference} prompts is none to rely on"
        scope.add("CS169", message, path, hint=f"write {FEWEST_REFERENCE} or more")


def _check_free(scope: Scope, ablation: AblationSpec) -> None:
    """At path level heads are sent or frozen, and MLPs pass effects on or do not, as `through` says."""
    if ablation.level != "path" or scope.parts.circuit is None:
        return
    passing = ablation.through is None or "mlp" in ablation.through
    for i, text in enumerate(scope.parts.circuit.free):
        target = parse_name(text).target
        is_mlp = target.kind is MLP
        if is_mlp and passing:
            continue
        scope.add(
            "CS163",
            "through: [] lets nothing pass MLPs, and here they are free"
            if is_mlp
            else f"at path level {text} is sent along a path or frozen, and cannot be free",
            ("circuit", "free", i),
            hint="remove it from free, or write level: edge",
        )


def _check_noise(scope: Scope, ablation: AblationSpec) -> None:
    if not ABLATIONS[ablation.value].noise:
        for key in NOISE_SETTINGS:
            if getattr(ablation, key) is not None:
                message = f"{ablation.value} ablation adds no noise, so {key} says nothing"
                scope.add("CS147", message, ("ablation", key), hint=f"remove {key}, or write value: gaussian", key=True)
    elif ablation.at is None:
        message = f"{ablation.value} needs to know at which tokens noise is added"
        scope.add("CS147", message, ("ablation", "value"), hint="add at: SLOT, or a list of slots and positions")
    else:
        for i, position in enumerate((ablation.at,) if isinstance(ablation.at, str) else ablation.at):
            place: Path_ = ("ablation", "at") if isinstance(ablation.at, str) else ("ablation", "at", i)
            _check_position(scope, position, place)


def _check_metric(scope: Scope, metric: str, path: Path_) -> None:
    if is_internal(metric):
        _check_internal(scope, metric, path)
        return
    whole = scope.parts.task is not None and scope.parts.task.score == "sum_logprob"
    if whole and metric in INSTEAD:
        scope.add(
            "CS181",
            f"{metric} is not defined for answers of several tokens, which `score: sum_logprob` scores",
            path,
            hint=f"use {INSTEAD[metric]}, or `score: first_token`",
        )
        return
    if scope.parts.task is None or not scope.is_templated or metric in NEEDS_NOTHING:
        return
    needs_wrong = metric in NEEDS_WRONG or (whole and metric == "accuracy")
    needed = ("answer", "wrong") if needs_wrong else ("answer",)
    lacking = [key for key in needed if scope.at("task", key) is None]
    if lacking:
        scope.add(
            "CS128",
            f"{metric} needs {' and '.join(lacking)}, which the task does not give",
            path,
            hint="add to the task " + " and ".join(f'{key}: " {{SLOT}}"' for key in lacking),
        )


def _check_internal(scope: Scope, text: str, path: Path_) -> None:
    """Note positions that there are not, and levels at which a metric inside the model is not defined."""
    metric = parse_internal(text)
    for position in (metric.source, metric.target) if isinstance(metric, Attention) else (metric.at,):
        _check_position(scope, position, path)
    level = None if scope.parts.ablation is None else scope.parts.ablation.level
    about = scope.parts.claims[int(path[1])]
    if level == "path" or about.output_only:
        said = "along paths nothing but the output is measured"
    elif isinstance(metric, Projection) and (level == "edge" or about.patches_edges):
        said = "at edge level every component reads a residual stream of its own, so there is none to project"
    else:
        return
    scope.add(
        "CS168", f"{text} cannot be measured here: {said}", path, hint="use a score of the output, or level: node"
    )


def _check_positions(scope: Scope, group: Group, path: Path_) -> None:
    check_places(scope, group.at, path)
    for i, node in enumerate(group.nodes):
        for position in parse_name(node).positions:
            _check_position(scope, position, (*path, "nodes", i))


def _check_position(scope: Scope, position: str, path: Path_) -> None:
    if scope.parts.task is None or not scope.is_templated:
        return
    slots, declared = scope.declared("task", "slots"), scope.declared("task", "positions")
    if position in declared:
        return
    expression = parse_position(position)
    if expression.slot in slots and expression.offset == 0:
        check_occurrence(scope, expression.anchor, expression.occurrence, path)
        return
    hint = did_you_mean(position, [*declared, *slots])
    if expression.slot in slots or expression.slot is None:
        sign = f"{expression.offset:+d}"
        spelled = f"{expression.anchor} {sign[0]} {sign[1:]}" if expression.offset else expression.anchor
        hint = f"declare it: positions: {{{position}: {spelled}}}"
    known = ", ".join([*declared, *slots])
    scope.add(
        "CS141", f"there is no position {position}", path, hint=hint or (f"the positions are {known}" if known else "")
    )


@dataclass(frozen=True)
class _Member:
    """A component of a group, where it stands in the file, and at which positions it is meant."""

    name: Name
    group: str
    path: Path_
    positions: frozenset[str]  # empty: everywhere


def _check_repeats(scope: Scope, groups: dict[str, Group]) -> None:
    earlier: dict[Component | Pattern, list[_Member]] = {}
    wide: dict[Component | Pattern, list[_Member]] = {}  # those that stand for several components
    for group_name, group in groups.items():
        at = (group.at,) if isinstance(group.at, str) else group.at or ()
        for i, text in enumerate(group.nodes):
            name = parse_name(text)
            path = ("circuit", "groups", group_name, "nodes", i)
            member = _Member(name, group_name, path, frozenset(name.positions or at))
            target = name.target
            if isinstance(target, Pattern) or target.kind.stands_for is not None:
                candidates = [other for key, others in earlier.items() if _overlap(target, key) for other in others]
                wide.setdefault(target, []).append(member)
            else:
                candidates = list(earlier.get(target, ()))
                candidates += [other for key, others in wide.items() if _overlap(key, target) for other in others]
            first = next((other for other in candidates if _meet(member.positions, other.positions)), None)
            if first is not None:
                _tell_repeat(scope, member, first)
            earlier.setdefault(target, []).append(member)


def _tell_repeat(scope: Scope, member: _Member, first: _Member) -> None:
    line = scope.source.span(scope.usable.path(first.path)).line
    shared = sorted(member.positions & first.positions)
    where = f" at {', '.join(shared)}" if shared else ""
    shown = format_name(member.name.target)
    if first.group == member.group:
        scope.add(
            "CS200",
            f"{shown} stands in the group {member.group} more than once",
            member.path,
            label=f"already on line {line}"
            if first.name.target == member.name.target
            else f"already meant by {format_name(first.name.target)} on line {line}",
            hint="remove one of the two",
        )
    else:
        scope.add(
            "CS201",
            f"{shown}{where} is in two groups, {first.group} and {member.group}",
            member.path,
            label=f"already on line {line}",
            hint="keep it in one of them, or give the groups different positions",
        )


def _meet(first: frozenset[str], second: frozenset[str]) -> bool:
    return not first or not second or bool(first & second)


def _overlap(wide: Component | Pattern, other: Component | Pattern) -> bool:
    """Whether a pattern or attention layer surely means (part of) what another name means."""
    if wide == other:
        return True
    for one, two in ((wide, other), (other, wide)):
        if isinstance(two, Pattern):
            continue
        if isinstance(one, Pattern):
            if one.matches(two):
                return True
        elif one.kind.stands_for is two.kind and one.place[0] == two.place[0]:
            return True
    return False


def check_path(scope: Scope, text: str, path: Path_) -> None:
    """Note groups that do not exist, inputs that a group's members lack, and hops against the order of layers."""
    expression = parse_path(text)
    for hop in expression.hops:
        for item in hop:
            if isinstance(item, GroupRef):
                _check_group(scope, item.group, path, _place_of(scope, path, item.group))
                _check_inputs(scope, item, path)
            else:
                for position in item.positions:
                    _check_position(scope, position, path)
    for senders, receivers in pairwise(expression.hops):
        latest = [_latest(scope, receiver) for receiver in receivers]
        for sender in senders:
            earliest = _earliest(scope, sender)
            for receiver, last in zip(receivers, latest, strict=True):
                if earliest is not None and last is not None and earliest >= last:
                    _note_order(scope, sender, receiver, path)


def _note_order(scope: Scope, sender: PathItem, receiver: PathItem, path: Path_) -> None:
    scope.add(
        "CS205",
        f"{_shown(sender)} does not come before {_shown(receiver)}",
        path,
        hint="a component reaches later layers only, and attention the MLP of its own layer",
        within=_place_of(scope, path, _shown(receiver)),
    )


def _check_group(scope: Scope, name: str, path: Path_, within: tuple[int, int]) -> None:
    groups = scope.declared("circuit", "groups")
    if name not in groups:
        suggestion = did_you_mean(name, groups)
        component = suggest_name(name)
        if not suggestion and component is not None:
            suggestion = f"did you mean {component}?"
        scope.add(
            "CS204",
            f"{name} is neither a group nor a component",
            path,
            hint=suggestion or (f"the groups are {', '.join(groups)}" if groups else ""),
            within=within,
        )


def _check_inputs(scope: Scope, item: GroupRef, path: Path_) -> None:
    for member in _members(scope, item.group):
        target = member.target
        if item.ports and not has_inputs(target):
            scope.add(
                "CS209",
                f"{format_name(target)} in the group {item.group} has no q, k and v inputs",
                path,
                hint=f"write {item.group} without <...>, or name its heads apart",
                within=_place_of(scope, path, item.group),
            )
            return


def _members(scope: Scope, group: str) -> tuple[Name, ...]:
    circuit = scope.parts.circuit
    if circuit is None or group not in circuit.groups:
        return ()
    written = scope.at("circuit", "groups", group, "nodes")
    nodes = circuit.groups[group].nodes
    if isinstance(written, list) and len(written) != len(nodes):
        return ()  # some members are wrong, so nothing can be said about all
    return tuple(parse_name(text) for text in nodes)


def _targets(scope: Scope, item: PathItem) -> Iterable[Component | Pattern]:
    names = _members(scope, item.group) if isinstance(item, GroupRef) else (item,)
    return [name.target for name in names]


def _earliest(scope: Scope, item: PathItem) -> int | None:
    stages = [_stage(scope, target, first=True) for target in _targets(scope, item)]
    known = [one for one in stages if one is not None]
    return min(known) if known and len(known) == len(stages) else None


def _latest(scope: Scope, item: PathItem) -> int | None:
    stages = [_stage(scope, target, first=False) for target in _targets(scope, item)]
    known = [one for one in stages if one is not None]
    return max(known) if known and len(known) == len(stages) else None


def _stage(scope: Scope, target: Component | Pattern, *, first: bool) -> int | None:
    if isinstance(target, (*OF_DICTIONARY, FeaturePattern)):  # of a dictionary whose place is in the file
        spec = scope.parts.dictionaries.get(target.dictionary)
        if spec is None or (not first and spec.place.kind in ("z", "attention")):  # no path leads there (CS248)
            return None
        return spec.place.stage
    if not isinstance(target, Pattern):
        return stage(target)
    layers = target.layers if isinstance(target.layers, Range) else Range(target.layers, target.layers)
    layer = (layers.first or 0) if first else layers.last
    return None if layer is None else stage(target.at_layer(layer))


def _place_of(scope: Scope, path: Path_, word: str) -> tuple[int, int]:
    """(offset, length) of an item in the path as written; the whole of it where its spelling differs."""
    written = scope.source.raw(scope.usable.path(path)) or ""
    found = written.find(word)
    return (found, len(word)) if found >= 0 else (0, len(written))


def _shown(item: PathItem) -> str:
    return item.group if isinstance(item, GroupRef) else format_name(item.target)
