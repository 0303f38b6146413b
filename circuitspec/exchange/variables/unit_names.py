"""The names that MIB's causal-variable track has for sites, such as `ResidualStream(Layer-5,Token-last_token)`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from circuitspec.hypothesis_file.grammar.components import Head, Resid

_LAYER = re.compile(r"Layer[-:_](-?\d+)")
_HEAD = re.compile(r"Head[-:_](\d+)")
_TOKEN = re.compile(r"Token[-:_](.*)$")
_NAME = re.compile(r"(ResidualStream|AttentionHead)\((.*)\)", re.DOTALL)
LAST = "last_token"  # the only position whose meaning its name tells


class NoSuchUnit(Exception):
    """A name that is no unit of a model, or one that hypothesis files have no name for; the text says which."""


@dataclass(frozen=True)
class Unit:
    """A component at a position. `token` is the position as the submission calls it."""

    name: str
    component: Head | Resid
    token: str


def parse_unit(name: str) -> Unit:
    """The unit of a name. MIB's residual stream of layer L is what block L puts out, which enters block L + 1.

    Names of later versions say which end of the block is meant: `ResidualStream(Layer-5,block_input,Token-last)`.
    Raises NoSuchUnit.
    """
    match = _NAME.fullmatch(name)
    inner = "" if match is None else match[2]
    layer, token = _LAYER.search(inner), _TOKEN.search(inner)
    if match is None or layer is None or token is None:
        raise NoSuchUnit("it is neither ResidualStream(Layer-L,Token-T) nor AttentionHead(Layer-L,Head-H,Token-T)")
    number = int(layer[1])
    if match[1] == "AttentionHead":
        head = _HEAD.search(inner)
        if head is None or number < 0:
            raise NoSuchUnit("it does not say which head of which layer it is")
        return Unit(name, Head(number, int(head[1])), token[1])
    stream = number if "block_input" in inner else number + 1
    if stream < 0:
        raise NoSuchUnit(f"there is no layer {number}")
    return Unit(name, Resid(stream), token[1])


def unit_name(component: object, token: str) -> str:
    """The name of a unit. Raises NoSuchUnit for what MIB has none for."""
    if isinstance(component, Head):
        return f"AttentionHead(Layer-{component.layer},Head-{component.head},Token-{token})"
    if isinstance(component, Resid) and not component.mid and component.layer > 0:
        return f"ResidualStream(Layer-{component.layer - 1},Token-{token})"
    if isinstance(component, Resid) and not component.mid:
        raise NoSuchUnit("r0 is what the first block reads, and MIB's units are what blocks put out")
    raise NoSuchUnit("MIB's units are residual streams between blocks, and heads")


def position_name(token: str) -> str:
    """A token position of a submission as the name of a position here."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", token).strip("_")
    return name if re.match(r"[A-Za-z_]", name) else f"token_{name}".rstrip("_")
