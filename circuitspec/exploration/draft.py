"""A chosen circuit as a hypothesis file that `verify` accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.exploration.search.circuit_selection import Choice, Entry
from circuitspec.exploration.search.component_sweep import MATERIAL
from circuitspec.exploration.search.path_search import Link
from circuitspec.exploration.setting import EVERYWHERE
from circuitspec.exploration.stability.draft_remarks import Remarks
from circuitspec.exploration.stability.held_out_figures import HeldOutFigures
from circuitspec.graph.dictionary_nodes import is_of_dictionary
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.components import Mlp, Neuron, sort_key
from circuitspec.hypothesis_file.grammar.names import PORTS, format_name
from circuitspec.hypothesis_file.yaml.source import SourceText

BLOCKS = ("circuit", "ablation", "claims")  # those of the file that a draft writes anew
LOW, HIGH = 0.8, 1.2  # what every draft claims to recover, whatever its circuit does
LEFT = 0.3  # what every draft claims to leave at most where its circuit is ablated
SPARED = 8  # members that were left out, named in a draft's header

Sizes = Mapping[Entry, tuple[float, float, bool]]
"""What entries do by themselves: drop, rise, and whether they were patched or are estimates to first order."""


@dataclass(frozen=True)
class Draft:
    """What a drafted file says; `misses` is where its circuit fell short of the target, or of its own claims.

    File names in it are relative to the folder of the file that its model and task are from.
    """

    text: str
    entries: int
    heads: int
    misses: tuple[str, ...] = ()


def write_draft(
    subject: SourceText,
    choice: Choice,
    links: Sequence[Link],
    shape: ModelShape,
    *,
    ablation: str,
    free: Sequence[str],
    metric: str,
    counted: str,
    sizes: Sizes,
    command: str,
    target: float | None,
    suffix: str = "",
    neurons: Mapping[Mlp, Sequence[Neuron]] | None = None,
    held_out: HeldOutFigures | None = None,
    remarks: Remarks | None = None,
) -> Draft:
    """The draft's text: model and task as in `subject`, then groups by layer and position, effects as comments.

    Its claims are the same whatever the circuit does (recovered 0.8 to 1.2; at most 0.3 left without it), so that
    `verify` refutes a circuit that falls short; where it does, or misses the target (None: there was none), the file
    says so. `counted` says how many of what it has. `suffix` is added to the file's name. `neurons` stand for their
    MLP, also in the links. Where there are figures of prompts `held_out` of the search, they are those that are
    compared with the claims, and that stand beside members and paths. `remarks` are more comments.
    """
    remarks = remarks or Remarks()
    searched = choice.estimate()
    estimate, left = (searched, choice.left()) if held_out is None else (held_out.recovered, held_out.left)
    misses = missed_by(estimate, left, metric, target, searched.value)
    groups = _groups(choice)
    if held_out is not None:
        exact = {entry: (*pair, True) for entry, pair in held_out.sizes.items()}
        sizes = {entry: exact.get(entry, (nan, nan, True)) for entry in choice.entries}
    left_out = _left_out(subject)
    aligned = "# `abstraction` is left out: in that file it aligns variables with components of another circuit."
    lines = [
        *_kept_blocks(subject, suffix, left_out),
        "",
        f"# Drafted by `{command}`.",
        *([aligned] if "abstraction" in left_out else []),
        *_figures(searched, choice.knocked_out(), held_out, metric, counted),
        *(f"# FALLS SHORT: {miss}." for miss in misses),
        *(f"# {line}" for line in remarks.header),
        *_spared(choice),
        "# Beside each component, what it does by itself as a share of clean - corrupt: (drop when ablated in the",
        "# clean run, rise when restored in the corrupt run)" + _measured_on(held_out),
        "circuit:",
        "  groups:",
    ]
    for name, (role, kind, members) in groups.items():
        lines.append(f"    {name}:")
        lines.append("      nodes:")
        for entry in members:
            beside = ", ".join(
                filter(None, (_own_size(sizes, entry), remarks.beside.get((format_name(entry[0]), entry[1]), "")))
            )
            lines.append(f"        - {format_name(entry[0])} # {beside}")
        if role != EVERYWHERE:  # a group without positions is at all of them
            lines.append(f"      at: {plain(role)}")
        if kind != "positive":
            lines.append(f"      effect: {kind}")
    if free:
        lines.append(f"  free: [{', '.join(_quoted(name) for name in free)}]")
    paths = _paths(links, shape, neurons or {}, None if held_out is None else held_out.links)
    if paths:
        lines.append("  paths: # direct paths with an effect by themselves, (drop, rise)")
        lines += [f"    - {text} # {comment}" for text, comment in paths]
    lines += [
        "",
        f"ablation: {ablation}",
        "",
        "claims:",
        f"  - sufficient: {{metric: {metric}, at_least: {LOW:g}, at_most: {HIGH:g}}}",
        f"  - necessary: {{metric: {metric}, at_most: {LEFT:g}}}",
        "",
    ]
    return Draft("\n".join(lines), len(choice.entries), choice.heads, misses)


def _measured_on(held_out: HeldOutFigures | None) -> str:
    """How figures beside components came about: the end of what a draft says of them."""
    if held_out is None:
        return "; ~ marks estimates of what was not patched alone."
    return ", on these other prompts." if held_out.parts_by is None else f", on {held_out.parts_by} of these prompts."


def _figures(searched: Estimate, left: float, held_out: HeldOutFigures | None, metric: str, counted: str) -> list[str]:
    """What the circuit recovers on the prompts held out, and on those it was chosen on."""

    def recovered(estimate: Estimate) -> str:
        low, high = estimate.interval or (estimate.value, estimate.value)
        return f"recovered {metric} {estimate.value:.2f} [{low:.2f}, {high:.2f}]"

    if held_out is None:
        return [
            f"# On the prompts it was drafted on: {recovered(searched)},",
            f"# {counted}; with the circuit ablated, {_number(left)} is left.",
        ]
    return [
        f"# On {held_out.described}: {recovered(held_out.recovered)},",
        f"# {counted}; with the circuit ablated, {_number(held_out.left.value)} is left.",
        f"# (On the prompts it was drafted on: {recovered(searched)}; {_number(left)} is left.)",
    ]


def missed_by(
    estimate: Estimate, left: Estimate, metric: str, target: float | None, searched: float | None = None
) -> tuple[str, ...]:
    """Where a circuit that recovers so much, and leaves so much when ablated, misses a draft's claims or the target.

    A claim holds where the whole interval lies within its bound. The target is that of the prompts that were
    `searched`, if what it recovers there is another figure.
    """
    reached = estimate.value if searched is None else searched
    low, high = estimate.interval or (estimate.value, estimate.value)
    said = f"recovered {metric} {_number(estimate.value)} [{_number(low)}, {_number(high)}]"
    found = []
    if high < LOW or low > HIGH:
        found.append(f"{said} is outside {LOW:g} .. {HIGH:g}, which the draft claims")
    elif low < LOW or high > HIGH:
        found.append(f"{said} is not all within {LOW:g} .. {HIGH:g}, which the draft claims")
    if target is not None and reached < target:
        found.append(f"recovered {metric} {_number(reached)} misses the target {target:g}")
    low, high = left.interval or (left.value, left.value)
    if left.value > LEFT:
        found.append(f"with the circuit ablated {_number(left.value)} is left, where the draft claims at most {LEFT:g}")
    elif high > LEFT:
        said = f"with the circuit ablated {_number(left.value)} [{_number(low)}, {_number(high)}] is left"
        found.append(f"{said}, not all of it at most {LEFT:g}, as the draft claims")
    return tuple(found)


def _spared(choice: Choice) -> list[str]:
    """What a circuit of the fewest heads left out, as comments."""
    helpful, others = (
        [f"{format_name(component)}@{role}" for component, role in own] for own in (choice.spared, choice.unproven)
    )
    said = fewest(helpful, others, SPARED, "helpful components", "feature" if choice.setting.sites else "head")
    return [f"# T{said[1:]}."] if said else []


def fewest(helpful: Sequence[str], others: Sequence[str], most: int, what: str, unit: str = "head") -> str:
    """What a circuit of the fewest heads or features left out, `most` names of each kind; empty where that is nothing.

    Only what was seen to help is called helpful; the others were taken in by estimates and taken out again.
    """
    kinds = [(f"{what} left out", helpful), ("also left out" if helpful else "left out", others)]
    parts = [
        f"{said}: {', '.join(names[:most])}" + (f" and {len(names) - most} more" if len(names) > most else "")
        for said, names in kinds
        if names
    ]
    return "; ".join([f"the fewest {unit}s found that reach the target", *parts]) if parts else ""


def _own_size(sizes: Sizes, entry: Entry) -> str:
    """`(0.21, 0.02)`, or `(~0.01, ~0.00)` of estimates; - of an entry of which neither is known."""
    if entry not in sizes or isnan(sizes[entry][0]):
        return "(-, -)"
    drop, rise, exact = sizes[entry]
    about = "" if exact else "~"
    return f"({about}{_number(drop)}, {about}{_number(rise)})"


def _groups(choice: Choice) -> dict[str, tuple[str, str, list[Entry]]]:
    """Members by layer, position and effect, under names that say no more than that."""
    found: dict[str, tuple[str, str, list[Entry]]] = {}
    entries = sorted(choice.entries.items(), key=lambda pair: (sort_key(pair[0][0]), pair[0][1]))
    for (component, role), kind in entries:
        position = "".join(c if c.isalnum() else "_" for c in role)
        if is_of_dictionary(component):
            whose = "".join(c if c.isalnum() else "_" for c in component.dictionary)
            whose = whose if whose[0].isalpha() else f"features_{whose}"
        else:
            what = component.kind.plural if component.kind.has_members else component.kind.singular.lower()
            whose = f"layer{sort_key(component)[0]}_{what}"
        name = f"{whose}_{position}" + ("" if kind == "positive" else f"_{kind}")
        while name in found and found[name][0] != role:  # S1+1 and S1_1 are spelled alike
            name += "x"
        found.setdefault(name, (role, kind, []))[2].append((component, role))
    return found


def _paths(
    links: Sequence[Link],
    shape: ModelShape,
    neurons: Mapping[Mlp, Sequence[Neuron]],
    held_out: Mapping[Link, tuple[float, float]] | None,
) -> list[tuple[str, str]]:
    """Links with a material effect, the inputs of one receiver together; with what they do on prompts held out."""
    members = {format_name(mlp): ", ".join(map(format_name, own)) for mlp, own in neurons.items()}
    strong = [link for link in links if link.size >= MATERIAL]
    joined: dict[tuple[str, str], list[Link]] = {}
    for link in strong:
        receiver = link.named(shape).partition("<")[0]
        joined.setdefault((format_name(link.sender), receiver), []).append(link)
    found = []
    for (sender, receiver), own in joined.items():
        ports = [port for port in PORTS if any(link.receiver.port == port for link in own)]
        named = own[0].named(shape) if len(ports) == 1 else receiver + (f"<{','.join(ports)}>" if ports else "")
        largest = max(own, key=lambda link: link.size)
        order = (sort_key(own[0].sender), sort_key(own[0].receiver.component))
        text = f"{members.get(sender, sender)} -> {members.get(named, named)}"
        pair = (largest.drop, largest.rise) if held_out is None else held_out.get(largest)
        found.append((order, text, "(-, -)" if pair is None else f"({_number(pair[0])}, {_number(pair[1])})"))
    return [(text, comment) for _, text, comment in sorted(found)]


def _left_out(subject: SourceText) -> frozenset[str]:
    """The blocks that are written anew, and an abstraction that may name groups of the circuit that is replaced."""
    data = subject.data
    assert isinstance(data, dict)
    return frozenset((*BLOCKS, *(["abstraction"] if data.get("abstraction", {}).get("align") else [])))


def _kept_blocks(subject: SourceText, suffix: str, left_out: Container[str]) -> list[str]:
    """The file's own lines for everything but what is left out; the suffix behind its name."""
    data = subject.data
    assert isinstance(data, dict)
    starts = sorted((subject.span((key,), key=True).line or 0, key) for key in data)
    lines: list[str] = list(subject.lines[: starts[0][0] - 1])
    ends = [line for line, _ in starts[1:]] + [len(subject.lines) + 1]
    for (start, key), end in zip(starts, ends, strict=True):
        if key not in left_out:
            block = list(subject.lines[start - 1 : end - 1])
            while block and (not block[-1].strip() or block[-1].startswith("#")):
                block.pop()  # comments above the next block belong to that
            if key == "name" and suffix:
                block = [f"name: {plain(str(data['name']) + suffix)}"]
            lines += block
    return lines


def plain(name: str) -> str:
    """As YAML, in quotes where it needs them: also where it would be read as a number, a truth value or nothing."""
    is_text = re.fullmatch(r"[A-Za-z][\w.+#-]*", name) and name.lower() not in ("null", "true", "false")
    return name if is_text else json.dumps(name, ensure_ascii=False)


def _number(value: float) -> str:
    text = f"{value:.2f}"
    return "0.00" if float(text) == 0 else text


def _quoted(name: str) -> str:
    return f'"{name}"' if name.startswith("*") or "[" in name else name
