"""The one grammar of component names and paths: `a9.h6<q>@END`, `m*`, `A, B<v> -> logits`.

Every name is parsed and written here; `parse_name(format_name(x)) == x`, and the text that
`format_name` gives is the only spelling kept (`L9H6` becomes `a9.h6`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from circuitspec.hypothesis_file.grammar.component_kinds import (
    KV_HEAD,
    MOST_UNITS,
    PORTS,
    ComponentKind,
    Port,
    parts_of,
    unit_number,
)
from circuitspec.hypothesis_file.grammar.components import (
    IN_LAYERS,
    WHOLE,
    AttentionLayer,
    AttentionPattern,
    Component,
    DictionaryError,
    Feature,
    FeaturePattern,
    Head,
    Indices,
    Input,
    KvHead,
    Logits,
    Mlp,
    Neuron,
    OtherFeatures,
    Pattern,
    Range,
    Resid,
    sort_key,
)

__all__ = [
    "PORTS",
    "AttentionLayer",
    "AttentionPattern",
    "Component",
    "Feature",
    "GroupRef",
    "Head",
    "Input",
    "KvHead",
    "Logits",
    "Mlp",
    "Name",
    "NameSyntaxError",
    "Neuron",
    "PathExpr",
    "PathItem",
    "Pattern",
    "Port",
    "Range",
    "Resid",
    "format_name",
    "format_path",
    "parse_name",
    "parse_path",
    "sort_key",
    "suggest_name",
]

_WRITTEN = [  # rare ones last, and no sides of one
    kind.example
    for kind in sorted(IN_LAYERS, key=lambda kind: kind.at_most is not None)
    if kind.aspect is None and not kind.in_some_models
]
EXAMPLES = f"components are written {', '.join(_WRITTEN[:-1])} or {_WRITTEN[-1]}"

_NUMBER = r"(?:0|[1-9][0-9]{0,8})"
_INDEX = rf"(?:\*|\[{_NUMBER}-{_NUMBER}\]|{_NUMBER})"
IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_GROUP = re.compile(rf"{IDENTIFIER}(?:-[A-Za-z0-9_]+)*")
_POSITION = re.compile(rf"{IDENTIFIER}(?:#[1-9][0-9]{{0,3}})?(?:[+-][0-9]{{1,4}})?")
DICTIONARY = r"[A-Za-z0-9_][A-Za-z0-9_./-]*"
_RANGES = rf"{_NUMBER}(?:-{_NUMBER})?(?:,{_NUMBER}(?:-{_NUMBER})?)*"
_FEATURE = re.compile(rf"sae:({DICTIONARY})\.(?:f(?:({_NUMBER})|(\*)|\[({_RANGES})\]|\[not ({_RANGES})\])|(error))")
_INDEXED = re.compile(  # layer letter, layer, suffix, number, aspect, number
    rf"([a-z]+)({_INDEX})(?:\.([a-z]+)({_INDEX})?(?:\.([a-z]+)({_INDEX})?)?)?"
)
_UP_TO_SUFFIX = re.compile(r"[^<@]*")
_BETWEEN_ITEMS = re.compile(r"[<{\[,]|->|→|=>|>")
_BRACKETS = {"<": ">", "{": "}", "[": "]"}  # what stands in them is one item's own
_SHORT_NAME = re.compile(rf"L({_NUMBER})([HN])({_NUMBER})")

# misspellings seen in other tools and papers -> our spelling
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?ai)[al]?0*([0-9]{1,9})[.,:/](?:h|head)?0*([0-9]{1,9})"), r"a\1.h\2"),
    (re.compile(r"(?ai)(?:a|l|layer)[ _]?0*([0-9]{1,9})[ _.,:-]?(?:h|head)[ _]?0*([0-9]{1,9})"), r"a\1.h\2"),
    (re.compile(r"(?ai)(?:m|mlp)[ _.]?0*([0-9]{1,9})"), r"m\1"),
    (re.compile(r"(?ai)(?:a|attn|attention)[ _.]?0*([0-9]{1,9})"), r"a\1"),
    (re.compile(r"(?ai)[lm]0*([0-9]{1,9})\.?n0*([0-9]{1,9})"), r"m\1.n\2"),
    (re.compile(r"(?ai)a0*([0-9]{1,9})\.?kv0*([0-9]{1,9})"), r"a\1.kv\2"),
    (re.compile(r"(?ai)(?:r|resid|resid_pre)[ _.]?0*([0-9]{1,9})"), r"r\1"),
    (re.compile(r"(?ai)(?:embed|embeddings?|tok_embeds|inputs?)"), "input"),
    (re.compile(r"(?ai)(?:outputs?|unembed|logits?)"), "logits"),
)


class NameSyntaxError(ValueError):
    """A text that is not a name: what is wrong, where in the text it starts, what to write instead."""

    def __init__(self, message: str, offset: int, length: int = 1, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.length = max(1, length)
        self.hint = hint


@dataclass(frozen=True)
class Name:
    """A component (or a pattern of them) with the inputs and positions it is restricted to.

    `ports` are in the order q, k, v; none means the output, or as a receiver every input. No
    `positions` means that the place where the name stands decides.
    """

    target: Component | Pattern
    ports: tuple[Port, ...] = ()
    positions: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupRef:
    """A group of the circuit named in a path, with the inputs that are meant."""

    group: str
    ports: tuple[Port, ...] = ()


PathItem: TypeAlias = Name | GroupRef


@dataclass(frozen=True)
class PathExpr:
    """`A, B -> C<q> -> logits`: at least two hops, each of one or more items."""

    hops: tuple[tuple[PathItem, ...], ...]

    def edges(self) -> Iterator[tuple[PathItem, PathItem]]:
        """Every (sender item, receiver item) of neighbouring hops."""
        for senders, receivers in zip(self.hops, self.hops[1:], strict=False):
            for sender in senders:
                for receiver in receivers:
                    yield sender, receiver


@lru_cache(maxsize=8_192)  # a file repeats its names, and is read in several stages
def parse_name(text: str) -> Name:
    """The name that `text` spells.

    Raises NameSyntaxError where it spells none; its offset counts from the start of `text`.
    """
    start = len(text) - len(text.lstrip())
    body = text.strip()
    if not body:
        raise NameSyntaxError("a name is missing here", 0, len(text), EXAMPLES)
    match = _UP_TO_SUFFIX.match(body)
    end = match.end() if match else 0
    target = _parse_target(body[:end].rstrip(), start)
    rest = body[end:]
    ports: tuple[Port, ...] = ()
    if rest.startswith("<"):
        close = _closing(body, end, ">", start)
        ports = _parse_ports(body[end + 1 : close], start + end + 1)
        _check_ports(target, ports, start + end, close + 1 - end)
        end, rest = close + 1, body[close + 1 :]
    positions: tuple[str, ...] = ()
    if rest.startswith("@") and "<" in rest:
        raise _late_ports(target, ports, body, end, start)
    if rest.startswith("@"):
        positions = _parse_positions(rest[1:], start + end + 1)
    elif rest:
        raise NameSyntaxError(f"{rest!r} does not belong here", start + end, len(rest), "write a9.h6<q>@END")
    return Name(target, ports, positions)


def parse_component(text: str) -> Component:
    """The one component that a name stands for. Raises ValueError for a pattern, and as `parse_name` does."""
    target = parse_name(text).target
    if isinstance(target, Pattern):
        raise ValueError(f"{text} stands for several components")
    return target


def format_name(name: Name | Component | Pattern) -> str:
    """The canonical spelling."""
    if isinstance(name, Name):
        return f"{_format_target(name.target)}{_format_ports(name.ports)}{_format_positions(name.positions)}"
    return _format_target(name)


@lru_cache(maxsize=4_096)
def parse_path(text: str) -> PathExpr:
    """The path that `text` spells: hops joined by `->`, items of a hop by commas.

    An item is a component name if it can be read as one, otherwise a group's name.
    Raises NameSyntaxError with an offset from the start of `text`.
    """
    hops: list[tuple[PathItem, ...]] = []
    items: list[PathItem] = []
    for separator, item, offset in _split_path(text):
        items.append(_parse_item(item, offset, first_hop=not hops))
        if separator != ",":
            hops.append(tuple(items))
            items = []
    if len(hops) < 2:
        raise NameSyntaxError(
            "a path needs at least one arrow", 0, len(text), "write sender -> receiver, as in a5.h5 -> a7.h3<q>"
        )
    return PathExpr(tuple(hops))


def format_path(path: PathExpr) -> str:
    """The canonical spelling of a path."""

    def item(one: PathItem) -> str:
        return f"{one.group}{_format_ports(one.ports)}" if isinstance(one, GroupRef) else format_name(one)

    return " -> ".join(", ".join(item(one) for one in hop) for hop in path.hops)


@lru_cache(maxsize=4_096)
def canonical_path(text: str) -> str:
    """The canonical spelling of the path that `text` spells; NameSyntaxError as `parse_path` raises it."""
    return format_path(parse_path(text))


def suggest_name(text: str) -> str | None:
    """The component that was probably meant by `text`, a spelling known from papers and other tools."""
    body = text.strip()
    for pattern, replacement in _REWRITES:
        if pattern.fullmatch(body):
            target = _read_target(pattern.sub(replacement, body), 0)
            return None if target is None else _format_target(target)
    return None


def has_inputs(target: Component | Pattern) -> bool:
    """Whether it reads through q, k and v: heads do, alone and together."""
    return bool(target.kind.ports)


def is_group_name(text: str) -> bool:
    """Whether a group may be called so: letters, digits, `_` and inner `-`, and not a component's name."""
    if _GROUP.fullmatch(text) is None:
        return False
    try:
        parse_name(text)
    except NameSyntaxError:
        return True
    return False


def is_position_name(text: str) -> bool:
    """Whether a position may be called so: `END`, `S1+1`, `S#2`."""
    return _POSITION.fullmatch(text) is not None


def _parse_target(text: str, start: int) -> Component | Pattern:
    target = _read_target(text, start)
    if target is not None:
        return target
    suggestion = suggest_name(text)
    offset = 0 if suggestion else _first_wrong(text)
    raise NameSyntaxError(
        f"{text!r} is not a component",
        start + offset,
        len(text) - offset,
        f"did you mean {suggestion}?" if suggestion else EXAMPLES,
    )


def _read_target(text: str, start: int) -> Component | Pattern | None:
    if (whole := next((one for kind, one in WHOLE.items() if kind.name == text), None)) is not None:
        return whole
    if match := _FEATURE.fullmatch(text):
        return _of_dictionary(match, start)
    if match := _SHORT_NAME.fullmatch(text):
        layer, member = int(match[1]), int(match[3])
        return Head(layer, member) if match[2] == "H" else Neuron(layer, member)
    if match := _INDEXED.fullmatch(text):
        numbered = match[4] is not None, match[6] is not None
        kind = _kind_of(match[1], match[3], match[5], numbered)
        if kind is not None:
            layers = _parse_index(match[2], start + match.start(2))
            members, units = (
                None if match[i] is None else _parse_index(match[i], start + match.start(i)) for i in (4, 6)
            )
            if kind.per_member is not None and isinstance(units, int) and units >= MOST_UNITS:
                raise NameSyntaxError(f"no expert has a neuron {units}", start + match.start(6), len(match[6]))
            return _component(
                kind, layers, units if kind.counts_aspects else members, units if kind.per_member else None
            )
    return None


MOST_FEATURES = 20_000  # that a range may stand for


def _of_dictionary(match: re.Match[str], start: int) -> Component | Pattern:
    name, number, every, some, but, _ = match.groups()
    if number is not None:
        return Feature(name, int(number))
    if every is not None:
        return OtherFeatures(name)
    if some is not None:
        return FeaturePattern.of(name, _parse_numbers(some, start + match.start(4)))
    if but is not None:
        left_out = _parse_numbers(but, start + match.start(5))
        return OtherFeatures(name, frozenset(left_out))
    return DictionaryError(name)


def _parse_numbers(text: str, offset: int) -> frozenset[int]:
    """`3,10-20`."""
    found: list[range] = []
    for part, place in _comma_parts(text, offset):
        first, last = (int(number) for number in (part.split("-") if "-" in part else (part, part)))
        if first > last:
            raise NameSyntaxError(f"the range {part} is empty", place, len(part), f"write {last}-{first}")
        found.append(range(first, last + 1))
    if (count := sum(map(len, found))) > MOST_FEATURES:
        hint = "write sae:NAME.f* for all features of a dictionary"
        raise NameSyntaxError(f"{count:,} features are named at once", offset, len(text), hint)
    return frozenset(number for numbers in found for number in numbers)


def _kind_of(letter: str, suffix: str | None, aspect: str | None, numbered: tuple[bool, bool]) -> ComponentKind | None:
    """The kind that is spelled so; `numbered`: whether a number follows the suffix, and the aspect."""
    spelled = (letter, suffix, aspect, numbered)
    return next((k for k in IN_LAYERS if (k.letter, k.suffix, k.aspect, _numbered(k)) == spelled), None)


def _numbered(kind: ComponentKind) -> tuple[bool, bool]:
    return kind.has_members and not kind.counts_aspects, kind.counts_aspects or kind.per_member is not None


def _first_wrong(text: str) -> int:
    """Where the first part that cannot be read starts: 0, or after `a9.`."""
    letters = "|".join(dict.fromkeys(kind.letter for kind in IN_LAYERS))
    head = re.match(rf"(?:(?:{letters}){_INDEX}|sae:{DICTIONARY})\.", text)
    return head.end() if head is not None and head.end() < len(text) else 0


def _parse_index(text: str, offset: int) -> Indices:
    if text == "*":
        return Range()
    if not text.startswith("["):
        return int(text)
    first, last = (int(number) for number in text[1:-1].split("-"))
    if first > last:
        raise NameSyntaxError(f"the range {text} is empty", offset, len(text), f"write [{last}-{first}]")
    return Range(first, last)


def _component(
    kind: ComponentKind, layers: Indices, members: Indices | None, units: Indices | None
) -> Component | Pattern:
    if isinstance(layers, int) and not isinstance(members, Range) and not isinstance(units, Range):
        return IN_LAYERS[kind](layers, (members or 0) if units is None else unit_number(members or 0, units))
    return Pattern(kind, layers, members, units)


def _closing(text: str, start: int, bracket: str, offset: int) -> int:
    close = text.find(bracket, start)
    if close < 0:
        raise NameSyntaxError(f"{text[start]!r} is not closed", offset + start, len(text) - start, f"add {bracket!r}")
    return close


def _parse_ports(text: str, offset: int) -> tuple[Port, ...]:
    found: set[Port] = set()
    for part, place in _comma_parts(text, offset):
        port = next((port for port in PORTS if port == part), None)
        if port is None:
            said = f"{part!r} is not an input of a head" if part else "an input is missing here"
            raise NameSyntaxError(said, place, len(part), "the inputs are q, k and v, as in a9.h6<q> or a9.h6<k,v>")
        if port in found:
            raise NameSyntaxError(f"{part} is named twice", place, len(part), "name each input once")
        found.add(port)
    return tuple(port for port in PORTS if port in found)


def _check_ports(target: Component | Pattern, ports: tuple[Port, ...], offset: int, length: int) -> None:
    if target.kind is KV_HEAD and "q" in ports:
        raise NameSyntaxError("a kv head has no query input", offset, length, "queries belong to heads, as in a9.h6<q>")
    if not has_inputs(target):
        raise NameSyntaxError(
            f"{_format_target(target)} has no q, k and v inputs",
            offset,
            length,
            f"write {_format_target(target)}: only attention heads have several inputs",
        )


def _late_ports(
    target: Component | Pattern, ports: tuple[Port, ...], body: str, end: int, start: int
) -> NameSyntaxError:
    """What is wrong with `a9.h6@END<q>`: the order, unless something else is. The positions begin at `end`."""
    opened = body.index("<", end)
    close = _closing(body, opened, ">", start)
    late = _parse_ports(body[opened + 1 : close], start + opened + 1)
    length = close + 1 - opened
    _check_ports(target, late, start + opened, length)
    positions = _parse_positions(body[end + 1 : opened], start + end + 1)
    every = tuple(port for port in PORTS if port in (*ports, *late))
    meant = format_name(Name(target, every, positions))
    return NameSyntaxError("inputs come before positions", start + opened, length, f"write {meant}")


def _parse_positions(text: str, offset: int) -> tuple[str, ...]:
    hint = "write @END, or @{S1,S2} for several positions"
    braced = text.startswith("{")
    if braced:
        close = _closing(text, 0, "}", offset)
        if text[close + 1 :].strip():
            raise NameSyntaxError(f"{text[close + 1 :]!r} does not belong here", offset + close + 1, 1, hint)
        parts = _comma_parts(text[1:close], offset + 1)
    else:
        parts = [(text.strip(), offset)]
    names: list[str] = []
    for part, place in parts:
        if not is_position_name(part):
            said = f"{part!r} is not the name of a position" if part else "a position is missing here"
            raise NameSyntaxError(said, place, len(part), hint)
        if part in names:
            raise NameSyntaxError(f"{part} is named twice", place, len(part), "name each position once")
        names.append(part)
    return tuple(names)


def _comma_parts(text: str, offset: int) -> list[tuple[str, int]]:
    parts = []
    for part in text.split(","):
        parts.append((part.strip(), offset + len(part) - len(part.lstrip())))
        offset += len(part) + 1
    return parts


def _split_path(text: str) -> Iterator[tuple[str, str, int]]:
    """(what follows the item: a comma, an arrow or nothing; the item; its offset)."""
    start = position = 0
    while found := _BETWEEN_ITEMS.search(text, position):
        here, position = found[0], found.end()
        if here in _BRACKETS:
            close = text.find(_BRACKETS[here], position)
            if close < 0:
                break
            position = close + 1
        elif here in (",", "->"):
            yield here, text[start : found.start()], start
            start = position
        else:
            raise NameSyntaxError(f"{here!r} is not the arrow of a path", found.start(), len(here), "write ->")
    yield "", text[start:], start


def _parse_item(text: str, offset: int, *, first_hop: bool) -> PathItem:
    body = text.strip()
    place = offset + len(text) - len(text.lstrip())
    if not body:
        raise NameSyntaxError(
            "a group or component is missing here", offset, len(text), "write sender -> receiver, as in A, B -> C<q>"
        )
    item: PathItem
    group = _GROUP.match(body)
    if group is not None and is_group_name(group[0]) and not body[group.end() :].startswith((".", ":", "*", "[")):
        item = _parse_group_item(body, group.end(), place)
    else:
        try:
            item = parse_name(body)
        except NameSyntaxError as error:
            raise NameSyntaxError(error.message, place + error.offset, error.length, error.hint) from None
    if first_hop and item.ports:
        raise NameSyntaxError(
            "a path starts at an output, so its first hop names no inputs", place, len(body), "drop the <...>"
        )
    return item


def _parse_group_item(body: str, end: int, place: int) -> GroupRef:
    name, rest = body[:end], body[end:]
    if not rest:
        return GroupRef(name)
    if not rest.startswith("<"):
        raise NameSyntaxError(
            f"{rest!r} does not belong after the group {name}",
            place + end,
            len(rest),
            "write the group's name, with the inputs meant: name_mover<q>; its positions are those of the group",
        )
    close = _closing(body, end, ">", place)
    if body[close + 1 :].strip():
        raise NameSyntaxError(f"{body[close + 1 :]!r} does not belong here", place + close + 1, 1, "separate by commas")
    return GroupRef(name, _parse_ports(body[end + 1 : close], place + end + 1))


def _format_index(index: Indices) -> str:
    if isinstance(index, int):
        return str(index)
    return "*" if index.first is None else f"[{index.first}-{index.last}]"


@lru_cache(maxsize=8_192)
def _format_target(target: Component | Pattern) -> str:
    match target:
        case Feature(dictionary, index):
            return f"sae:{dictionary}.f{index}"
        case OtherFeatures(dictionary, named):
            return f"sae:{dictionary}.f[not {_format_ranges(named)}]" if named else f"sae:{dictionary}.f*"
        case DictionaryError(dictionary):
            return f"sae:{dictionary}.error"
        case FeaturePattern():
            return f"sae:{target.dictionary}.f[{_format_ranges(target.numbers)}]"
    kind = target.kind
    if not kind.in_layers:
        return kind.name
    layers, members = (target.layers, target.members) if isinstance(target, Pattern) else target.place
    dotted = "" if kind.suffix is None else f".{kind.suffix}"
    aspect = "" if kind.aspect is None else f".{kind.aspect}"
    units: Indices | None = target.units if isinstance(target, Pattern) else None
    if kind.per_member is not None and not isinstance(target, Pattern):
        members, units = parts_of(target.place[1])
    if kind.counts_aspects:
        members, units = None, members
    numbered = _format_index(members) if kind.has_members and members is not None else ""
    aspect += _format_index(units) if units is not None else ""
    return f"{kind.letter}{_format_index(layers)}{dotted}{numbered}{aspect}"


def _format_ranges(numbers: Iterable[int]) -> str:
    """`3,10-20`: neighbours together."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _format_ports(ports: tuple[Port, ...]) -> str:
    return f"<{','.join(ports)}>" if ports else ""


def _format_positions(positions: tuple[str, ...]) -> str:
    if not positions:
        return ""
    return f"@{positions[0]}" if len(positions) == 1 else f"@{{{','.join(positions)}}}"
