"""From declared paths between groups to the edges of a run: what ``edge.edge_run`` is to keep, prompt by prompt.

A *path* is a list of hops, a *hop* a list of parts, a *part* a component with the ports by which the path enters it and
the roles written with it: ``[[(("input",), None, ["S1"])], [(("head", 0, 1), "v", None)], [(("final",), None, None)]]``
is ``input@S1 -> a0.h1<v> -> logits``. ``None`` for the ports means all of them, ``None`` for the roles that none are
written. ``members`` are the components of the groups, each with its group's roles, ``None`` for a group without.

A path stands for the edges from every part of a hop to every part of the next one, where the order of the layers
allows. An edge is kept at the positions of its sender (written with it, else its group's, else everywhere); for a query
or MLP input only where the receiver has positions as well, while keys, values and the logits read anywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from . import families
from .edge import Edge, _positions, ablated_contributions, contributions, edge_run, edges, precedes
from .families import Net
from .metrics import columns, metrics, recovered
from .node import Component, Prompt, Receiver, Result, _last, forward

Part: TypeAlias = tuple[Component, "Collection[str] | None", "Collection[str] | None"]
Hop: TypeAlias = Sequence[Part]
Path: TypeAlias = Sequence[Hop]
Members: TypeAlias = Mapping[Component, "Collection[str] | None"]
Where: TypeAlias = dict[Edge, set[int]]

INPUT: Component = ("input",)
FINAL: Component = ("final",)


def inputs(net: Net, component: Component) -> dict[str, Receiver]:
    """The receivers of a component by port: q, k, v of a head (k and v are its key-value head's), ``in`` of the others.

    ``("kv", layer, g)`` is a key-value head named as such: a receiver only.
    """
    kind = component[0]
    if kind == "head":
        att = net.layers[component[1]].attention
        group = component[2] // (att.heads // att.kv_heads)
        return {"q": ("q", *component[1:]), "k": ("k", component[1], group), "v": ("v", component[1], group)}
    if kind == "kv":
        return {"k": ("k", *component[1:]), "v": ("v", *component[1:])}
    if kind == "mixer":
        return {"in": ("mixer_in", component[1])}
    if kind == "mlp":
        return {"in": ("mlp_in", component[1])}
    if kind == "final":
        return {"in": ("final",)}
    raise ValueError(f"{component} reads nothing")


def chosen_inputs(net: Net, component: Component, ports: Collection[str] | None) -> dict[str, Receiver]:
    """``inputs``, only at the given ports."""
    every = inputs(net, component)
    if ports is None:
        return every
    if not ports or not set(ports) <= set(every):
        raise ValueError(f"{component} has the ports {sorted(every)}, not {sorted(ports)}")
    return {port: every[port] for port in ports}


def owners(net: Net, receiver: Receiver) -> list[Component]:
    """The components that compute their value from a receiver: for a key or value input every head that shares it."""
    kind = receiver[0]
    if kind == "q":
        return [("head", receiver[1], receiver[2])]
    if kind == "mixer_in":
        return [("mixer", receiver[1])]
    if kind == "mlp_in":
        return [("mlp", receiver[1])]
    if kind in ("k", "v"):
        att = net.layers[receiver[1]].attention
        group = att.heads // att.kv_heads
        return [("head", receiver[1], h) for h in range(att.heads) if h // group == receiver[2]]
    raise ValueError(f"{receiver} computes nothing")


def pairs(net: Net, paths: Iterable[Path]) -> Iterator[tuple[Part, Part, Receiver]]:
    """Every (sender, reader, receiver) of neighbouring hops, possible or not."""
    for path in paths:
        if len(path) < 2:
            raise ValueError("a path has two hops at least")
        for hop, following in itertools.pairwise(path):
            for sender in hop:
                if sender[0][0] not in ("input", "head", "mixer", "mlp"):
                    raise ValueError(f"{sender[0]} sends nothing")
                for reader in following:
                    for receiver in chosen_inputs(net, reader[0], reader[1]).values():
                        yield sender, reader, receiver


def out_of_order(model: Any, paths: Iterable[Path]) -> set[Edge]:
    """Declared edges that no model of this shape has: the sender writes after the receiver has read."""
    net = families.read(model)
    return {(s[0], receiver) for s, _, receiver in pairs(net, paths) if not precedes(net, s[0], receiver)}


# ---------------------------------------------------------------------------------------------------- which edges


def part_roles(part: Part, members: Members, positions: str = "declared") -> Collection[str] | None:
    """The roles written with a part, else its group's unless ``positions`` = ``all``; ``None``: everywhere."""
    component, _, written = part
    if positions not in ("declared", "all"):
        raise ValueError(f"positions are declared or all, not {positions!r}")
    if written is not None:
        return written
    return None if positions == "all" else members.get(component)


def declared_edges(
    model: Any, prompt: Prompt, paths: Sequence[Path], members: Members, positions: str = "declared"
) -> Where:
    """The edges along the paths, each with its positions in this prompt: an empty set where sender and reader do not
    meet. An edge of several paths has the positions of all. With ``positions`` = ``all`` groups are everywhere, and
    what is written with a part holds."""
    net = families.read(model)
    out: Where = {}
    for sender, reader, receiver in pairs(net, paths):
        if not precedes(net, sender[0], receiver):
            continue
        where = _positions(prompt, part_roles(sender, members, positions))
        if receiver[0] in ("q", "mlp_in"):
            where &= _positions(prompt, part_roles(reader, members, positions))
        out[sender[0], receiver] = out.get((sender[0], receiver), set()) | where
    return out


def free_edges(
    model: Any,
    prompt: Prompt,
    paths: Sequence[Path],
    members: Members,
    free: Collection[Component],
    positions: str = "declared",
) -> Where:
    """The edges between a free component and a free one, a member, the input or the logits.

    A member is a component of a group or named in a path; free components and the input are none, wherever they stand.
    An edge is kept at its sender's positions when the sender is a member and has some (its group's, unless
    ``positions`` = ``all``, or for a component of no group those written in the paths), else everywhere.
    """
    net = families.read(model)
    if set(members) & set(free):
        raise ValueError(f"both in a group and free: {sorted(set(members) & set(free), key=repr)}")
    written: dict[Component, list[Collection[str] | None]] = {}
    for path in paths:
        for hop in path:
            for part in hop:
                written.setdefault(part[0], []).append(part[2])
    partners = {INPUT, FINAL, *free, *members, *written}
    out: Where = {}
    for sender, receiver in edges(net):
        readers = {FINAL} if receiver == FINAL else set(owners(net, receiver))
        if receiver[0] in ("k", "v"):
            readers.add(("kv", *receiver[1:]))
        if not (sender in free and readers & partners) and not (readers & set(free) and sender in partners):
            continue
        roles: Collection[str] | None = None
        if sender != INPUT and sender not in free:
            if sender in members:
                roles = part_roles((sender, None, None), members, positions)
            elif None not in written.get(sender, [None]):
                roles = {role for some in written[sender] for role in some or ()}
        out[sender, receiver] = _positions(prompt, roles)
    return out


def kept_edges(
    model: Any,
    prompt: Prompt,
    paths: Sequence[Path],
    members: Members,
    free: Collection[Component] = (),
    positions: str = "declared",
) -> Where:
    """What ``sufficient`` keeps: the declared edges and those of the free components."""
    net = families.read(model)
    out = declared_edges(net, prompt, paths, members, positions)
    for edge, where in free_edges(net, prompt, paths, members, free, positions).items():
        out[edge] = out.get(edge, set()) | where
    return out


def kept_without(
    model: Any, prompt: Prompt, paths: Sequence[Path], members: Members, positions: str = "declared"
) -> Where:
    """Every edge but the declared ones: what ``necessary`` keeps, and what restoring the paths leaves alone."""
    net = families.read(model)
    declared = declared_edges(net, prompt, paths, members, positions)
    return {e: set(range(len(prompt.clean))) - declared.get(e, set()) for e in edges(net)}


# ---------------------------------------------------------------------------------------------------- experiments


def circuit_experiment(
    model: Any,
    prompts: Sequence[Prompt],
    paths: Sequence[Path],
    members: Members,
    free: Collection[Component] = (),
    ablation: str = "resample",
    keep: bool = True,
    positions: str = "declared",
) -> Result:
    """Noising at edge level. ``keep``: only the circuit is kept: sufficient; else it alone is ablated: necessary.

    The corrupt anchor is the corrupt prompt's run for ``resample``, and otherwise what sufficient makes of the clean
    prompt with an empty circuit: only the free components' edges among themselves, from the input and to the logits
    are kept.
    """
    net = families.read(model)
    patched, anchors = [], []
    for prompt, ablated in zip(prompts, ablated_contributions(net, prompts, ablation), strict=True):
        if keep:
            kept = kept_edges(net, prompt, paths, members, free, positions)
        else:
            kept = kept_without(net, prompt, paths, members, positions)
        patched.append(_last(edge_run(net, prompt.clean, ablated, kept).logits))
        if ablation == "resample":
            anchors.append(_last(forward(net, prompt.corrupt).logits))
        else:
            nothing = kept_edges(net, prompt, [], {}, free, positions)
            anchors.append(_last(edge_run(net, prompt.clean, ablated, nothing).logits))
    return scored(net, prompts, patched, anchors)


def cross_section(
    model: Any, prompts: Sequence[Prompt], paths: Sequence[Path], members: Members, positions: str = "declared"
) -> Result:
    """Restoring at edge level: on the corrupt prompt the declared edges carry the clean run's contributions."""
    net = families.read(model)
    patched = [
        _last(
            edge_run(
                net,
                prompt.corrupt,
                contributions(net, prompt.clean),
                kept_without(net, prompt, paths, members, positions),
            ).logits
        )
        for prompt in prompts
    ]
    return scored(net, prompts, patched, [_last(forward(net, prompt.corrupt).logits) for prompt in prompts])


def scored(net: Net, prompts: Sequence[Prompt], patched: Sequence[Any], corrupt: Sequence[Any]) -> Result:
    """The metrics of patched last-position logits, beside the plain clean run and the given corrupt anchors."""
    rows: list[list[dict[str, float]]] = [[], [], []]
    for prompt, logits, anchor in zip(prompts, patched, corrupt, strict=True):
        clean = _last(forward(net, prompt.clean).logits)
        for column, each in zip(rows, (logits, clean, anchor), strict=True):
            column.append(metrics(each, prompt.answers, prompt.wrong, clean))
    a, b, c = (columns(column) for column in rows)
    return Result(a, b, c, {name: recovered(a[name], c[name], b[name]) for name in a}, np.stack(patched))
