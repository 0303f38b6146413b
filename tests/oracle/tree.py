"""Path sets: paths from components to the logits, evaluated on the treeified model (Goldowsky-Dill et al. 2023).

In the treeified model a component has a copy for every rest of path by which it reaches the logits, and each copy has a
value of its own. On a declared rest of path a component's value is

- its *kept* value, where a declared path starts with it;
- else what it computes when each of its input ports reads what a *hop pass* brings there: the frozen run in which the
  declared senders of this port, on this rest of path, have their values (by the same rule), while every other head and
  MLP and the input are frozen. A port without declared senders reads the frozen run.

The logits are those of the hop pass into the final residual. A value holds at the declared positions of the component;
elsewhere it is frozen. Norms are recomputed in a hop pass, so are
MLPs with ``through = {"mlp"}``, in the frozen run as well, except those that a path names: they are frozen, unless they
send. A component is computed by itself: the other heads of its layer have the queries, keys and values of the frozen
run, which matters where one norm runs over the queries of all heads (OLMo 2). With post-norms a value is what the
component adds to the residual stream, after the norm (``node.written``). A head's that was computed has the norm that
the z of all senders of the hop pass and the frozen z of the layer's other heads give: all paths are the kept run, but
where queries and keys are normed together.

The frozen values may come from one run (``node.resample_values``) or not (means, zeros); the frozen run is the model
with all of them in place. *Sufficient*: frozen are the source's values, kept the clean run's. *Necessary*: frozen is
the clean run, kept are the source's values.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from . import families
from .edge import _positions, precedes
from .edge_circuit import FINAL, INPUT, Members, Path, chosen_inputs, inputs, part_roles, scored
from .families import Net
from .node import (
    Component,
    Prompt,
    Receiver,
    Result,
    Run,
    Site,
    Values,
    _last,
    _sources,
    forward,
    head_shares,
    nodes,
    resample_values,
    shares_a_norm,
    written,
)

Hop: TypeAlias = tuple[Component, "Collection[str] | None", "Collection[int] | None"]
"""A component, the ports by which the path enters it, the positions at which its value is sent; ``None``: all."""


class _Hop(NamedTuple):
    component: Component
    ports: frozenset[str]
    positions: frozenset[int]


_Way: TypeAlias = tuple[_Hop, ...]
"""A declared path up to a certain component: a way on which one comes to it, its own hop the last."""


@torch.no_grad()
def tree(
    model: Any,
    ids: Sequence[int],
    paths: Iterable[Sequence[Hop]],
    kept: Values,
    frozen: Values,
    through: Collection[str] = ("mlp",),
    named: Collection[Component] = (),
) -> Tensor:
    """The logits ``[positions, vocab]`` of a set of paths, each a sequence of hops that ends with ``("final",)``.

    ``ids`` are the clean prompt's; they count only by their number, since the input is frozen or kept like any other
    component. MLPs in ``named`` are treated like those that the paths name.
    """
    if not set(through) <= {"mlp"}:
        raise ValueError(f"only MLPs can be let through: {through}")
    net = families.read(model)
    declared = frozenset(_checked(net, path, len(ids)) for path in paths)
    fixed = {hop.component for way in declared for hop in way} | set(named)
    passed = {c for c in nodes(net) if c[0] == "mlp" and c not in fixed} if "mlp" in through else set()
    everywhere = range(len(ids))
    held: dict[Site, Tensor] = {
        (written(net, c), p): frozen[written(net, c)][p]
        for c in [INPUT, *nodes(net)]
        if c not in passed
        for p in everywhere
    }

    @functools.cache
    def hop_pass(ways: frozenset[_Way]) -> Run:
        """The frozen run in which the last components of the ways have their values at their positions."""
        new: dict[Site, Tensor] = {}
        z: dict[Site, Tensor] = {}  # under a post-norm: of all heads that send
        computed: set[Site] = set()
        for component in {way[-1].component for way in ways}:
            for p in everywhere:
                here = frozenset(w for w in ways if w[-1].component == component and p in w[-1].positions)
                if not here:
                    continue
                start = any(len(way) == 1 for way in here)
                if component[0] != "head" or written(net, component) == component or start:
                    new[written(net, component), p] = (
                        kept[written(net, component)][p] if start else value(component, here)[p]
                    )
                if component[0] == "head":
                    z[component, p] = kept[component][p] if start else value(component, here)[p]
                    computed |= set() if start else {(component, p)}
        for index, layer in enumerate(net.layers):
            heads = [("head", index, h) for h in range(layer.attention.heads)]
            if shares_a_norm(layer) and any(c in heads for c, _ in computed):
                rows = [torch.stack([z.get((c, p), frozen[c][p]) for p in everywhere]) for c in heads]
                for c, share in zip(heads, head_shares(layer, rows), strict=True):
                    new.update({(written(net, c), p): share[p] for p in everywhere if (c, p) in computed})
        return forward(net, ids, {**held, **new}, record=True)

    @functools.cache
    def value(component: Component, ways: frozenset[_Way]) -> Tensor:
        """The value ``[positions, width]`` that a component computes before a rest of path; heads: z.

        The ways are all that lead to that rest. Nothing else of it matters, so two rests to which the same ways lead
        share a value.
        """
        reads: dict[tuple[Receiver, int], Tensor] = {}
        for port, receiver in inputs(net, component).items():
            senders = frozenset(way[:-1] for way in ways if port in way[-1].ports)
            if senders:  # else it reads the frozen run, as it does below
                seen = hop_pass(senders).reads[receiver]
                reads.update({(receiver, p): seen[p] for p in everywhere})
        others = {site: x for site, x in held.items() if site[0] != written(net, component)}
        own = component if component[0] == "head" else written(net, component)
        return forward(net, ids, others, record=True, reads=reads).values[own]

    return hop_pass(declared).logits


def _checked(net: Net, path: Sequence[Hop], length: int) -> _Way:
    """A path without its end, with ports and positions written out."""
    if len(path) < 2 or path[-1][0] != FINAL or path[-1][2] is not None:
        raise ValueError(f"a path leads from a component to the final residual, at all positions: {path}")
    for (sender, _, _), (reader, _, _) in itertools.pairwise(path):
        if sender not in [INPUT, *nodes(net)] or not precedes(net, sender, next(iter(inputs(net, reader).values()))):
            raise ValueError(f"{sender} does not send to {reader}")
    if path[0][1] is not None:
        raise ValueError(f"a path starts at {path[0][0]} and does not enter it at {path[0][1]}")
    way = []
    for index, (component, ports, positions) in enumerate(path[:-1]):
        where = frozenset(range(length) if positions is None else positions)
        if not where <= set(range(length)):
            raise ValueError(f"no such positions: {sorted(where)}")
        way.append(_Hop(component, frozenset(chosen_inputs(net, component, ports) if index else ()), where))
    return tuple(way)


# ------------------------------------------------------------------------------------------------ declared paths


def complete(model: Any, pieces: Iterable[Sequence[Sequence[Hop]]]) -> list[list[Hop]]:
    """The set of paths that pieces with several components a hop declare.

    A piece stands for every choice of one component a hop that the order of the layers allows. Pieces that start at a
    component where others end continue those: the joint component is entered as the one that ends says, and its
    positions are those of both. A piece that neither ends at the logits nor is continued is a ``ValueError``.
    """
    net = families.read(model)
    single = [list(choice) for piece in pieces for choice in itertools.product(*piece)]
    single = [path for path in single if _in_order(net, path)]
    ends = {path[-1][0] for path in single} - {FINAL}
    out = []

    def follow(path: list[Hop]) -> None:
        component, ports, positions = path[-1]
        if component == FINAL:
            out.append(path)
            return
        following = [piece for piece in single if piece[0][0] == component]
        if not following:
            raise ValueError(f"no path leads on from {component}")
        for piece in following:
            if positions is None or piece[0][2] is None:
                both = positions if piece[0][2] is None else piece[0][2]
            else:
                both = frozenset(positions) & frozenset(piece[0][2])
            follow([*path[:-1], (component, ports, both), *piece[1:]])

    for path in single:
        if path[0][0] not in ends:
            follow(path)
    return out


def _in_order(net: Net, path: Sequence[Hop]) -> bool:
    readers = [next(iter(inputs(net, hop[0]).values())) for hop in path[1:]]
    return all(precedes(net, hop[0], receiver) for hop, receiver in zip(path, readers, strict=False))


def placed(pieces: Iterable[Path], members: Members, prompt: Prompt) -> list[list[list[Hop]]]:
    """Pieces with the token positions of one prompt in place of roles: those written, else the group's.

    Members without roles are what `positions: all` makes of them.
    """
    out = []
    for piece in pieces:
        hops: list[list[Hop]] = []
        for hop in piece:
            roles = [(part[0], part[1], part_roles(part, members)) for part in hop]
            hops.append([(c, ports, None if at is None else _positions(prompt, at)) for c, ports, at in roles])
        out.append(hops)
    return out


def tree_experiment(
    model: Any,
    prompts: Sequence[Prompt],
    pieces: Sequence[Path],
    members: Mapping[Component, Collection[str] | None],
    ablation: str = "resample",
    keep: bool = True,
    through: Collection[str] = ("mlp",),
) -> Result:
    """Noising at path level. ``keep``: only the paths are kept, ``sufficient``; else they alone are: ``necessary``.

    The corrupt anchor is the corrupt prompt's run for ``resample``, and otherwise the frozen run of ``sufficient``: no
    path kept, and the MLPs that the paths name still not passed through.
    """
    net = families.read(model)
    named = {part[0] for piece in pieces for hop in piece for part in hop}
    patched, anchors = [], []
    for prompt, source in zip(prompts, _sources(net, prompts, ablation), strict=True):
        clean = resample_values(net, prompt.clean)
        paths = complete(net, placed(pieces, members, prompt))
        kept, frozen = (clean, source) if keep else (source, clean)
        patched.append(_last(tree(net, prompt.clean, paths, kept, frozen, through, named)))
        if ablation == "resample":
            anchors.append(_last(forward(net, prompt.corrupt).logits))
        else:
            anchors.append(_last(tree(net, prompt.clean, [], clean, source, through, named)))
    return scored(net, prompts, patched, anchors)
