"""A chosen circuit as a hypothesis file that `verify` accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circuitspec.exploring.links import Link
from circuitspec.exploring.select import Choice, Entry
from circuitspec.exploring.sweep import MATERIAL
from circuitspec.graph.shape import ModelShape
from circuitspec.spec.components import Head, sort_key
from circuitspec.spec.names import PORTS, format_name
from circuitspec.spec.source import Source as SourceText

BLOCKS = ("circuit", "ablation", "claims")  # those of the file that a draft writes anew


@dataclass(frozen=True)
class Draft:
    """What a drafted file says, and how it was made."""

    text: str
    entries: int
    heads: int


def write_draft(
    subject: SourceText,
    choice: Choice,
    links: Sequence[Link],
    shape: ModelShape,
    *,
    ablation: str,
    free: Sequence[str],
    metric: str,
    head_share: float,
    sizes: Mapping[Entry, tuple[float | None, float | None]],
    command: str,
) -> Draft:
    """The draft's text: model and task as in `subject`, then groups by layer and position, effects as comments.

    sizes: for each entry its drop and rise by itself, None where they were not patched exactly.
    """
    estimate = choice.estimate()
    interval = estimate.interval or (estimate.value, estimate.value)
    groups = _groups(choice)
    lines = [
        *_kept_blocks(subject),
        "",
        f"# Drafted by `{command}`.",
        f"# On the prompts it was drafted on: recovered {metric} {estimate.value:.2f} "
        f"[{interval[0]:.2f}, {interval[1]:.2f}],",
        f"# {choice.heads} heads of {shape.n_layers * shape.n_heads} ({head_share:.0%}); with the circuit noised,"
        f" {choice.knocked_out():.2f} is left.",
        "# Beside each component, what it does by itself as a share of clean less corrupt: (drop when noised in the",
        "# clean run, rise when restored in the corrupt run), - where it was not patched alone.",
        "circuit:",
        "  groups:",
    ]
    for name, (role, kind, members) in groups.items():
        effect = "" if kind == "positive" else f", effect: {kind}"
        lines.append(f"    {name}:")
        lines.append("      nodes:")
        for entry in members:
            drop, rise = sizes.get(entry, (None, None))
            lines.append(f"        - {format_name(entry[0])} # ({_number(drop)}, {_number(rise)})")
        lines.append(f"      at: {role}" + (f"\n      effect: {kind}" if effect else ""))
    if free:
        lines.append(f"  free: [{', '.join(_quoted(name) for name in free)}]")
    paths = _paths(links, shape)
    if paths:
        lines.append("  paths: # direct paths with an effect by themselves, (drop, rise)")
        lines += [f"    - {text} # {comment}" for text, comment in paths]
    low, high = _bounds(estimate.value)
    lines += [
        "",
        f"ablation: {ablation}",
        "",
        "claims:",
        f"  - sufficient: {{metric: {metric}, at_least: {low:g}, at_most: {high:g}}}",
        f"  - necessary: {{metric: {metric}, at_most: 0.3}}",
        "",
    ]
    return Draft("\n".join(lines), len(choice.entries), choice.heads)


def _bounds(recovered: float) -> tuple[float, float]:
    """0.8 to 1.2, or wider by steps of 0.1 where the circuit itself lies outside."""
    low, high = 0.8, 1.2
    while recovered - 0.1 < low:
        low = round(low - 0.1, 1)
    while recovered + 0.1 > high:
        high = round(high + 0.1, 1)
    return low, high


def _groups(choice: Choice) -> dict[str, tuple[str, str, list[Entry]]]:
    """Members by layer, position and effect, under names that say no more than that."""
    found: dict[str, tuple[str, str, list[Entry]]] = {}
    entries = sorted(choice.entries.items(), key=lambda pair: (sort_key(pair[0][0]), pair[0][1]))
    for (component, role), kind in entries:
        position = "".join(c if c.isalnum() else "_" for c in role)
        what = "heads" if isinstance(component, Head) else "mlp"
        layer = sort_key(component)[0]
        name = f"layer{layer}_{what}_{position}" + ("" if kind == "positive" else f"_{kind}")
        while name in found and found[name][0] != role:  # S1+1 and S1_1 are spelled alike
            name += "x"
        found.setdefault(name, (role, kind, []))[2].append((component, role))
    return found


def _paths(links: Sequence[Link], shape: ModelShape) -> list[tuple[str, str]]:
    """Links with a material effect, the inputs of one receiver together."""
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
        found.append((order, f"{sender} -> {named}", f"({_number(largest.drop)}, {_number(largest.rise)})"))
    return [(text, comment) for _, text, comment in sorted(found)]


def _kept_blocks(subject: SourceText) -> list[str]:
    """The file's own lines for everything but circuit, ablation and claims."""
    data = subject.data
    assert isinstance(data, dict)
    starts = sorted((subject.span((key,), key=True).line or 0, key) for key in data)
    lines: list[str] = list(subject.lines[: starts[0][0] - 1])
    ends = [line for line, _ in starts[1:]] + [len(subject.lines) + 1]
    for (start, key), end in zip(starts, ends, strict=True):
        if key not in BLOCKS:
            block = list(subject.lines[start - 1 : end - 1])
            while block and (not block[-1].strip() or block[-1].startswith("#")):
                block.pop()  # comments above the next block belong to that
            lines += block
    return lines


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    text = f"{value:.2f}"
    return "0.00" if float(text) == 0 else text


def _quoted(name: str) -> str:
    return f'"{name}"' if name.startswith("*") or "[" in name else name
