"""Names of components and paths, as a call has them, laid over a model: what is patched where. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.experiment import Experiment
from circuitspec.graph.edge_circuit import hopless
from circuitspec.graph.nodes import NodeComponent, existing, expand, is_node, nodes_of
from circuitspec.graph.overlap import Declared, overlaps
from circuitspec.graph.paths import DeclaredPath, cuttable, read_path
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.names import Name, NameSyntaxError, format_name, parse_name, parse_path
from circuitspec.hypothesis_file.schema.position_blocks import Position
from circuitspec.hypothesis_file.yaml.source import SourceText, parse_source
from circuitspec.hypothesis_file.yaml.yaml_writer import write_yaml
from circuitspec.prompts.prompt_set import PromptSet, TokenizedTask

END = "END"  # the last token, where no position is called so


@dataclass(frozen=True)
class NamedSites:
    """What is patched together, with the names of it in one text."""

    label: str
    sites: Mapping[NodeComponent, Where]
    kind: str = ""  # of what was named, where that is one component: an attention layer is patched as its heads


def listed(names: str | Sequence[str], what: str) -> list[str]:
    """One name or several. Raises TypeError for what are no texts; `what` is what the call names them."""
    found = [names] if isinstance(names, str) else list(names) if isinstance(names, Iterable) else [names]
    if wrong := [one for one in found if not isinstance(one, str)]:
        raise TypeError(f"`{what}` holds a {type(wrong[0]).__name__}: give names as texts, such as 'a9.h6@END'")
    return found


def sites_named(texts: Sequence[str], shape: ModelShape, *, together: bool = False) -> tuple[NamedSites, ...]:
    """Every component that the names stand for, one by one; or all of them `together`.

    A name is as in a file: `a9.h6`, `a9.h6@END`, `m3@{S1,S2}`, `a9` (all heads of the layer, patched together),
    `a9.h*` (each head by itself). Without positions a component is patched at all tokens.

    Raises CircuitspecError, all at once: CS117 for what is no name, CS202 for inputs (`<q>`), CS220, CS221 and CS225
    for what this model cannot be patched at, CS223 for what is named twice `together`.
    """
    source = as_source("components", texts)
    found: list[NamedSites] = []
    declared: list[Declared] = []
    problems: list[Diagnostic] = []
    for number, text in enumerate(texts):
        place = ("components", number)
        name = _parsed(text, source, place, problems)
        if name is None:
            continue
        where = Where.at(*name.positions) if name.positions else Where.everywhere()
        target = Name(name.target)
        nodes = expand(target, shape, source, place, problems)
        declared += [Declared(node, where, text, place) for node in nodes]
        for component in existing(target, shape, source, place, []) if nodes else ():
            members = [node for node in nodes_of(component, shape) if is_node(node)]
            label = format_name(Name(component, (), name.positions))
            found.append(NamedSites(label, dict.fromkeys(members, where), component.kind.name))
    if together:
        problems += overlaps(declared, shape, source)
    if problems:
        raise CircuitspecError(*problems)
    if not together or not found:
        return tuple(found)
    sites: dict[NodeComponent, Where] = {}
    for one in found:
        for component, where in one.sites.items():
            sites[component] = sites.get(component, Where.at()) | where
    return (NamedSites(", ".join(one.label for one in found), sites),)


def path_named(text: str, shape: ModelShape) -> tuple[DeclaredPath, SourceText]:
    """A path as in a file: `a1.h0 -> a3.h1<q>`, `a1.h0@S2 -> m2 -> logits`.

    Raises CircuitspecError: CS203 for what is no path, CS220 and CS226 for stops that this model does not have or that
    cannot be cut, CS227 where one of its hops leads nowhere.
    """
    source = as_source("paths", [text])
    place = ("paths", 0)
    problems: list[Diagnostic] = []
    try:
        parse_path(text)
    except NameSyntaxError as error:
        span = source.inner_span(place, error.offset, error.length)
        raise CircuitspecError(Diagnostic("CS203", error.message, span, hint=error.hint)) from None
    path = read_path(text, (), shape, source, place, problems)
    problems = problems or cuttable(path, source, shape) or [*hopless(path, shape, source)]
    if problems:
        raise CircuitspecError(*problems)
    return path, source


def with_end(positions: Mapping[str, Position], prompts: PromptSet) -> dict[str, Position]:
    """The positions and END, the last token of every prompt, unless a position or a slot is called so."""
    called = [*positions]
    for prompt in prompts.prompts:
        called += [*prompt.positions, *(slot for slots in prompt.slots.values() for slot in slots)]
    return {**positions, **({} if END in called else {END: "last"})}


def check_named(experiments: Sequence[Experiment], task: TokenizedTask) -> None:
    """CS507 for positions that not every prompt has."""
    named = {role for experiment in experiments for role in experiment.roles}
    check_roles(named, task)


def check_roles(named: set[str], task: TokenizedTask) -> None:
    """CS507 for names that are no position of every prompt."""
    problems = []
    for role in sorted(named - set(task.roles)):
        known = ", ".join(sorted(task.roles))
        hint = f"positions that every prompt has: {known}; or pass positions={{{role!r}: ...}}"
        problems.append(Diagnostic("CS507", f"position `{role}` is not in every prompt", hint=hint))
    if problems:
        raise CircuitspecError(*problems)


def _parsed(text: str, source: SourceText, place: tuple[str | int, ...], problems: list[Diagnostic]) -> Name | None:
    if "->" in text:
        hint = "circuitspec.path_patch patches a path"
        problems.append(Diagnostic("CS117", f"{text} is a path, not a component", source.span(place), hint=hint))
        return None
    try:
        name = parse_name(text)
    except NameSyntaxError as error:
        span = source.inner_span(place, error.offset, error.length)
        problems.append(Diagnostic("CS117", error.message, span, hint=error.hint))
        return None
    if name.ports:
        hint = f"write {format_name(Name(name.target, (), name.positions))}, or patch a path into that input"
        said = f"{text} names inputs, but a component is patched whole"
        problems.append(Diagnostic("CS202", said, source.span(place), hint=hint))
        return None
    return name


def as_source(what: str, texts: Sequence[str]) -> SourceText:
    """Texts of a call as a file in which mistakes can be shown, each an entry of the list `what`."""
    return parse_source(write_yaml({what: list(texts)}), f"<{what}>")
