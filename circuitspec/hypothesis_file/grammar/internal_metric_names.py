"""Internal metrics: what a model does inside, as scores beside its output's (Heimersheim & Nanda 2024, section 4).

Attention that a head pays from one position to another, a neuron's value, how far a vector of the model points along a
direction, and the weight with which a router chooses an expert. Each has one spelling, by which it is known everywhere:
`attention(a9.h9, END -> IO)`, `neuron(m1.n42@END)`, `projection(r5@END, probe.txt)`, `routing(m3.e5@END)`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from circuitspec.hypothesis_file.grammar import texts
from circuitspec.hypothesis_file.grammar.components import Component, Expert, Head, Mlp, Neuron, Pattern, Resid
from circuitspec.hypothesis_file.grammar.names import NameSyntaxError, format_name, is_position_name, parse_name

_CALL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*")
_ATTENTION = re.compile(r"\s*([^,\s]+)\s*,\s*(.+?)\s*->\s*(.+?)\s*")
_AT = re.compile(r"\s*([^@,\s]+)\s*@\s*([^,]+?)\s*")
_ALONG = re.compile(r"\s*([^@,\s]+)\s*@\s*([^,]+?)\s*,\s*(.+?)\s*")

EXAMPLES = (
    "attention(a9.h9, END -> IO)",
    "neuron(m1.n42@END)",
    "projection(r5@END, probe.txt)",
    "routing(m3.e5@END)",
)
FORMS = (
    "{attention: a9.h9, from: END, to: IO}, {neuron: m1.n42, at: END}, {projection: r5, at: END, along: FILE} or "
    "{routing: m3.e5, at: END}"
)


@dataclass(frozen=True)
class Attention:
    """The attention weight of a head from one token to another: a share of 1."""

    head: Head
    source: str  # the position that attends
    target: str  # the position attended to

    def __str__(self) -> str:
        return f"attention({format_name(self.head)}, {self.source} -> {self.target})"


@dataclass(frozen=True)
class Activation:
    """A neuron at a position: its entry in the input of the MLP's output projection."""

    neuron: Neuron
    at: str

    def __str__(self) -> str:
        return f"neuron({format_name(self.neuron)}@{self.at})"


@dataclass(frozen=True)
class Projection:
    """The scalar product of a residual stream, or an MLP's output, at a position with a direction from a file."""

    of: Resid | Mlp
    at: str
    along: str  # file name, relative to the hypothesis

    def __str__(self) -> str:
        return f"projection({format_name(self.of)}@{self.at}, {self.along})"


@dataclass(frozen=True)
class RoutingWeight:
    """The weight with which an MLP's router chooses an expert at a position; zero where it does not."""

    expert: Expert
    at: str

    def __str__(self) -> str:
        return f"routing({format_name(self.expert)}@{self.at})"


Internal: TypeAlias = Attention | Activation | Projection | RoutingWeight


def is_internal(name: str) -> bool:
    """Whether a metric is an internal one, going by its spelling."""
    return "(" in name


def parse_internal(text: str) -> Internal:
    """The metric that a text names. Raises pydantic's error with CS168."""
    call = _CALL.fullmatch(text)
    kind, inside = ("", "") if call is None else call.groups()
    match kind:
        case "attention" if found := _ATTENTION.fullmatch(inside):
            return _attention(*found.groups())
        case "neuron" if found := _AT.fullmatch(inside):
            return _activation(*found.groups())
        case "routing" if found := _AT.fullmatch(inside):
            return _routing(*found.groups())
        case "projection" if found := _ALONG.fullmatch(inside):
            return _projection(*found.groups())
    raise texts.problem("CS168", f"{text.strip()} is no metric", hint=f"write {', '.join(EXAMPLES)}, or a score's name")


def from_mapping(value: Mapping[Any, Any]) -> str:
    """The spelling of a metric given as a mapping. Raises pydantic's error with CS168."""
    keys = {"attention": ("from", "to"), "neuron": ("at",), "projection": ("at", "along"), "routing": ("at",)}
    kinds = [kind for kind in keys if kind in value]
    if len(kinds) != 1:
        raise texts.problem("CS168", "a metric inside the model is of one kind", hint=f"write {FORMS}")
    kind = kinds[0]
    for key in value:
        if key not in (kind, *keys[kind]):
            raise texts.problem("CS168", f"{kind} has no {key}", hint=f"write {FORMS}", at=(key,), key=True)
    for key in (kind, *keys[kind]):
        if key not in value:
            raise texts.problem("CS168", f"{kind} needs {key}", hint=f"write {FORMS}", at=(kind,), key=True)
        if not isinstance(value[key], str):
            raise texts.problem("CS168", f"{key} must be a text", hint=f"write {FORMS}", at=(key,))
    match kind:
        case "attention":
            return str(_attention(value[kind], value["from"], value["to"]))
        case "neuron":
            return str(_activation(value[kind], value["at"]))
        case "routing":
            return str(_routing(value[kind], value["at"]))
        case _:
            return str(_projection(value[kind], value["at"], value["along"]))


def _attention(head: str, source: str, target: str) -> Attention:
    found = _component(head, "head", "a9.h9")
    if not isinstance(found, Head):
        raise _other(head, "attention is paid by a head", "a9.h9")
    return Attention(found, _position(source), _position(target))


def _activation(neuron: str, at: str) -> Activation:
    found = _component(neuron, "neuron", "m1.n42")
    if not isinstance(found, Neuron):
        raise _other(neuron, "an activation is a neuron's", "m1.n42")
    return Activation(found, _position(at))


def _routing(expert: str, at: str) -> RoutingWeight:
    found = _component(expert, "expert", "m3.e5")
    if not isinstance(found, Expert):
        raise _other(expert, "a router chooses experts", "m3.e5")
    return RoutingWeight(found, _position(at))


def _projection(of: str, at: str, along: str) -> Projection:
    found = _component(of, "residual stream", "r5")
    if not isinstance(found, Resid | Mlp):
        raise _other(of, "a projection is of a residual stream or an MLP's output", "r5, r5.mid or m3")
    return Projection(found, _position(at), along.strip())


def _component(text: str, what: str, example: str) -> Component:
    try:
        name = parse_name(text.strip())
    except NameSyntaxError as error:
        raise texts.problem("CS168", error.message, hint=error.hint or f"write a {what} such as {example}") from None
    if isinstance(name.target, Pattern) or name.ports or name.positions:
        raise _other(text, "one component without inputs and positions is meant", example)
    return name.target


def _other(text: str, said: str, example: str) -> Exception:
    return texts.problem("CS168", f"{text.strip()} cannot stand here: {said}", hint=f"write {example}")


def _position(text: str) -> str:
    if not is_position_name(text.strip()):
        raise texts.problem("CS168", f"{text.strip()!r} is not the name of a position", hint="write a name such as END")
    return text.strip()
