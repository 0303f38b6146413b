"""Circuits drawn at random, as a file says them and as the oracle takes them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuitspec.graph.circuit_graph import CircuitGraph, lay_out
from circuitspec.graph.edges import Receiver, Sender
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Input, KvHead, Logits, Mixer, Mlp
from circuitspec.hypothesis_file.schema.blocks import CircuitSpec
from circuitspec.hypothesis_file.yaml.source import SourceText, parse_source
from tests.oracle import edge_circuit, node

ROLES = ("A", "B", "END")
PORTS = (None, None, "q", "k", "v", "qk", "kv")
INPUT, FINAL = ("input",), ("final",)


@dataclass(frozen=True)
class Drawn:
    """A circuit block, and the same for the oracle."""

    spec: CircuitSpec
    paths: list[edge_circuit.Path]
    members: dict[node.Component, list[str] | None]
    free: list[node.Component]

    def graph(self, shape: ModelShape) -> CircuitGraph:
        return lay_out(self.spec, shape, FILE)


FILE: SourceText = parse_source("circuitspec: 1\n", "drawn.circuit.yaml")


def draw(shape: ModelShape, seed: int, *, ends: bool = False, start: bool = False) -> Drawn:
    """A few groups, free MLPs, and paths over them; with `ends`, every path ends at the logits or where another starts.

    A component acts at the same positions wherever it is named, a free one everywhere. With `start`, `input` is in a
    group, and some MLPs are free.
    """
    rng = np.random.default_rng(seed)

    def one_of(options: Any) -> Any:
        return options[int(rng.integers(len(options)))]

    def some(options: Any, most: int) -> list[Any]:
        count = min(len(options), int(rng.integers(1, most + 1)))
        return [options[i] for i in sorted(rng.choice(len(options), count, replace=False))]

    components: list[node.Component] = []
    for layer in range(shape.n_layers):
        mixes = layer in shape.mixers
        components += [("mixer", layer)] if mixes else [("head", layer, h) for h in range(shape.n_heads)]
        components += [("mlp", layer)] if shape.has_mlps else []
    free = [c for c in components if c[0] == "mlp" and rng.random() < 0.4] if start or rng.random() < 0.6 else []
    claimed = [c for c in components if c not in free]
    roles: dict[node.Component, list[str] | None] = {c: one_of([None, some(ROLES, 2)]) for c in [INPUT, *components]}
    groups: dict[str, list[node.Component]] = {}
    at: dict[str, list[str] | None] = {}
    for name in ("one", "two", "three")[: int(rng.integers(1, 4))]:
        left = [c for c in claimed if not any(c in group for group in groups.values())]
        groups[name], at[name] = some(left, 3), one_of([None, some(ROLES, 2)])
        roles |= dict.fromkeys(groups[name], at[name])
    roles |= dict.fromkeys(free, None)
    readers = [("kv", layer, g) for layer in shape.layers_with_heads[1:] for g in range(shape.n_kv_heads)]
    shared = shape.n_heads // shape.n_kv_heads
    held = {("kv", c[1], c[2] // shared) for group in groups.values() for c in group if c[0] == "head"}
    if rng.random() < 0.3 and set(readers) > held:
        groups["keys"], at["keys"] = some([r for r in readers if r not in held], 2), None
    if start:
        groups["start"], at["start"] = [INPUT], one_of([None, some(ROLES, 2)])
    members = {c: at[name] for name, group in groups.items() for c in group}

    def item(component: node.Component, ports: str | None, first: bool) -> tuple[str, list[edge_circuit.Part]]:
        """A component by its own name, or by its group's."""
        ports = None if first or component[0] != "head" else ports
        suffix = "" if ports is None else f"<{','.join(ports)}>"
        holding = [name for name, group in groups.items() if component in group]
        if holding and rng.random() < 0.5 and (ports is None or all(c[0] == "head" for c in groups[holding[0]])):
            return holding[0] + suffix, [(c, ports, None) for c in groups[holding[0]]]
        written = None if component in members or roles[component] is None else roles[component]
        where = "" if written is None else "@{" + ",".join(written) + "}"
        return named(component) + suffix + where, [(component, ports, written)]

    def hop(options: list[node.Component], first: bool) -> tuple[str, list[edge_circuit.Part]]:
        items = [item(c, one_of(PORTS), first) for c in some(options, 2)]
        return ", ".join(text for text, _ in items), [part for _, parts in items for part in parts]

    texts, paths = [], []
    for _ in range(int(rng.integers(1, 4))):
        length = int(rng.integers(1, 4))
        starts = sorted(rng.choice(len(components), length, replace=False)) if length > 1 else [0]
        hops = []
        for number, start in enumerate(starts):
            options = components[start : start + 5]
            hops.append(hop([INPUT, *options] if number == 0 else options, number == 0))
        if ends or rng.random() < 0.6 or len(hops) < 2:
            hops.append(("logits", [(FINAL, None, None)]))
        elif rng.random() < 0.5:
            reader = one_of(readers)
            ports = one_of([None, "k", "v"])
            hops.append((named(reader) + ("" if ports is None else f"<{ports}>"), [(reader, ports, None)]))
        texts.append(" -> ".join(text for text, _ in hops))
        paths.append([parts for _, parts in hops])
    if ends and rng.random() < 0.5:  # pieces: what one path ends at, another starts at
        line = sorted(some(components, 4), key=components.index)
        entered = [item(c, one_of(PORTS), False) for c in line]
        left = [item(c, None, True) for c in line]
        texts += [f"{', '.join(text for text, _ in left)} -> {', '.join(text for text, _ in entered)}"]
        paths += [[[p for _, parts in left for p in parts], [p for _, parts in entered for p in parts]]]
        texts += [f"{', '.join(text for text, _ in left)} -> logits"]
        paths += [[[p for _, parts in left for p in parts], [(FINAL, None, None)]]]
    spec = {
        "groups": {
            name: {"nodes": [named(c) for c in group]} | ({} if at[name] is None else {"at": at[name]})
            for name, group in groups.items()
        },
        "free": [named(c) for c in free],
        "paths": texts,
    }
    return Drawn(CircuitSpec.model_validate(spec), paths, members, free)


def named(component: node.Component) -> str:
    match component:
        case ("head", layer, head):
            return f"a{layer}.h{head}"
        case ("kv", layer, head):
            return f"a{layer}.kv{head}"
        case ("mixer", layer):
            return f"a{layer}"
        case ("mlp", layer):
            return f"m{layer}"
    return "logits" if component == FINAL else component[0]


def tokens(where: Where, prompt: node.Prompt) -> set[int]:
    """The positions of one prompt that are meant."""
    named_at = {prompt.roles[role] for role in where.roles}
    return {p for p in range(len(prompt.clean)) if (p in named_at) != where.inverted}


def as_oracle(sender: Sender, receiver: Receiver) -> tuple[node.Component, node.Receiver]:
    """An edge by the oracle's names."""
    match sender:
        case Input():
            component: node.Component = INPUT
        case Head(layer, head):
            component = ("head", layer, head)
        case Mixer(layer):
            component = ("mixer", layer)
        case Mlp(layer):
            component = ("mlp", layer)
    match receiver.component:
        case Logits():
            return component, FINAL
        case Mixer(layer):
            return component, ("mixer_in", layer)
        case Mlp(layer):
            return component, ("mlp_in", layer)
        case Head(layer, head) | KvHead(layer, head):
            return component, (receiver.port, layer, head)


def distinct(lengths: Collection[int] = (6, 7), seed: int = 0, vocab: int = 60) -> list[node.Prompt]:
    """Random prompts whose named positions are all different tokens."""
    rng = np.random.default_rng(seed)
    prompts = []
    for length in lengths:
        a, b = (int(p) for p in rng.choice(length - 1, 2, replace=False))
        clean, corrupt = (rng.integers(0, vocab, length).tolist() for _ in range(2))
        answers = rng.choice(vocab, 4, replace=False).tolist()
        roles = {"A": a, "B": b, "END": length - 1}
        prompts.append(node.Prompt(clean, corrupt, 0, answers[:2], answers[2:], roles))
    return prompts
