"""Causal scrubbing (Chan et al. 2022): a tree of components, each with a prompt of its own, one prompt at a time.

A *tree* says where every value comes from. Its root is the final residual, ``("final",)``; a node is one use of a
component, so that a component which two readers use stands in the tree twice and has two values (the treeified model).

- A *leaf* has the component's value in the plain run on the leaf's prompt.
- An *inner node* is computed on its own prompt: what reaches it along an input of the tree is the sender's value, and
  all else that it reads is that of the plain run on its prompt.

What a receiver reads along its inputs is, at each position (``through = ()``),

    (its residual stream in the plain run on the node's prompt) + sum over senders s of (value of s - s in that run),

each value at the sender's positions alone, and then the receiver's own norm. An input enters by some of the ports of
its reader (q, k, v of a head, ``in`` of an MLP and of the root); each port has a stream of its own, and a port without
inputs reads the plain run. A head is computed by itself: the other heads of its layer have the queries, keys and values
of the node's plain run, which matters where one norm runs over all heads (OLMo 2).

With ``through = ("mlp",)`` the stream is not a sum but a run: that of the node's prompt in which the input and all
heads are held at their plain values, the senders have theirs, and the MLPs that the tree does not name, between senders
and reader, are recomputed.

Under post-norms (Gemma 2 and 3, OLMo 2) a value is what the component adds to the residual stream, after the norm; a
leaf's with the norm of its own run. Heads that were computed are normed in the stream of their reader, with the z of
all senders of this port and of the layer's other heads in the run of the reader's prompt.

``treeified`` makes a tree of paths, ``with_prompts`` gives its nodes their prompts and ``agreeing`` draws these so that
they agree on what each node carries; ``experiment`` scores trees against references. Paths that end before the logits
are for ``ended``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from . import families
from .edge import contributions, precedes
from .edge_circuit import FINAL, INPUT, chosen_inputs, inputs
from .families import Net
from .metrics import Array, metrics
from .node import Component, Prompt, Receiver, Run, Site, _last, forward, head_shares, nodes, shares_a_norm
from .path import End, after
from .tree import Hop, _checked

Ids: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """One use of a component: a leaf's run, or an inner node's own run, is that on ``prompt`` (token ids)."""

    component: Component
    prompt: Ids
    inputs: tuple[Input, ...] = ()


@dataclass(frozen=True)
class Input:
    """A sender, the ports of the reader through which it is read, and where it sends; ``None``: all of them."""

    sender: Node
    ports: frozenset[str] | None = None
    positions: frozenset[int] | None = None


@dataclass(frozen=True)
class _Value:
    """What a node sends, ``[positions, d_model]``, and for a head the z behind it, ``[positions, d_head]``.

    ``open`` says that the norm behind the z is the reader's to take.
    """

    added: Tensor
    z: Tensor | None = None
    open: bool = False


@torch.no_grad()
def scrub(model: Any, tree: Node, through: Collection[str] = (), named: Collection[Component] = ()) -> Tensor:
    """The logits ``[positions, vocab]`` of a tree. MLPs in ``named`` are treated like those that the tree names.

    Raises ValueError for a tree that no model of this shape has: a sender that writes after its reader has read, a port
    or a position that does not exist, prompts of different lengths, two values for one place.
    """
    if not set(through) <= {"mlp"}:
        raise ValueError(f"only MLPs can be let through: {through}")
    net = families.read(model)
    if tree.component != FINAL:
        raise ValueError(f"the root of a tree is {FINAL}, not {tree.component}")
    _check(net, tree)
    fixed = {node.component for node in walk(tree)} | set(named)
    passed = {c for c in nodes(net) if c[0] == "mlp" and c not in fixed} if "mlp" in through else set()
    return net.finish(_reads(net, tree, FINAL, passed))


def walk(node: Node) -> Iterator[Node]:
    """A node and all below it."""
    yield node
    for one in node.inputs:
        yield from walk(one.sender)


def _check(net: Net, tree: Node) -> None:
    length = len(tree.prompt)
    for node in walk(tree):
        if len(node.prompt) != length:
            raise ValueError(f"the prompts of a tree are equally long: {node.component} has {len(node.prompt)} tokens")
        taken: set[tuple[Component, str, int]] = set()
        for one in node.inputs:
            sender = one.sender.component
            if sender not in [INPUT, *nodes(net)]:
                raise ValueError(f"{sender} sends nothing")
            where = range(length) if one.positions is None else one.positions
            if not set(where) <= set(range(length)):
                raise ValueError(f"no such positions: {sorted(where)}")
            for port, receiver in chosen_inputs(net, node.component, one.ports).items():
                if not precedes(net, sender, receiver):
                    raise ValueError(f"{sender} does not send to {node.component}")
                places = {(sender, port, p) for p in where}
                if taken & places:
                    raise ValueError(f"{node.component} reads two values of {sender} at one place")
                taken |= places


def _value(net: Net, node: Node, passed: set[Component]) -> _Value:
    """What a node sends."""
    component, ids = node.component, node.prompt
    plain = forward(net, ids, record=True)
    if not node.inputs:
        z = plain.values[component] if component[0] == "head" else None
        return _Value(contributions(net, ids)[component], z)
    changed: dict[tuple[Receiver, int], Tensor] = {}
    for port, receiver in inputs(net, component).items():
        if any(one.ports is None or port in one.ports for one in node.inputs):
            stream = _reads(net, node, receiver, passed, port)
            changed.update({(receiver, p): stream[p] for p in range(len(ids))})
    run = forward(net, ids, reads=changed, record=True)
    if component[0] == "mlp":
        return _Value(run.values["mlp_added", component[1]])
    if component[0] == "mixer":
        return _Value(run.values["mixer_added", component[1]])
    layer, z = net.layers[component[1]], run.values[component]
    if not shares_a_norm(layer):
        return _Value(z @ layer.attention.wo[component[2]] * layer.scale, z)
    return _Value(torch.full((len(ids), net.d_model), torch.nan, dtype=torch.float64), z, open=True)


def _reads(net: Net, node: Node, receiver: Receiver, passed: set[Component], port: str = "in") -> Tensor:
    """The stream that a receiver of a node reads, before its norm, ``[positions, d_model]``."""
    ids = node.prompt
    plain, own = forward(net, ids, record=True), contributions(net, ids)
    new: dict[Site, Tensor] = {}
    z: dict[Site, Tensor] = {}  # of the heads that send
    unnormed: set[Site] = set()
    for one in node.inputs:
        if one.ports is not None and port not in one.ports:
            continue
        sent = _value(net, one.sender, passed)
        for p in range(len(ids)) if one.positions is None else sorted(one.positions):
            site = (one.sender.component, p)
            new[site] = sent.added[p]
            if sent.z is not None:
                z[site] = sent.z[p]
            if sent.open:
                unnormed.add(site)
    for (_, index, h), p in unnormed:
        layer = net.layers[index]
        heads = [("head", index, i) for i in range(layer.attention.heads)]
        row = [z.get((c, p), plain.values[c][p])[None] for c in heads]
        new[("head", index, h), p] = head_shares(layer, row)[h][0]
    if not passed:
        stream = plain.reads[receiver].clone()
        for (component, p), value in new.items():
            stream[p] = stream[p] + value - own[component][p]
        return stream
    held: dict[Site, Tensor] = {}
    for c in [INPUT, *nodes(net)]:
        if c not in passed:
            held.update({(_added(c), p): own[c][p] for p in range(len(ids))})
    held.update({(_added(c), p): value for (c, p), value in new.items()})
    return forward(net, ids, held, record=True).reads[receiver]


def _added(sender: Component) -> Component:
    """What a sender adds to the residual stream, as ``node.forward`` patches it."""
    return sender if sender == INPUT else (f"{sender[0]}_added", *sender[1:])


@torch.no_grad()
def ended(
    model: Any, base: Ids, ends: Sequence[tuple[Node, frozenset[int] | None]], through: Collection[str] = ()
) -> Tensor:
    """The logits where trees end before the logits: at heads or MLPs, each of which changes by itself at its positions.

    Each end is a node on the base prompt; all that follows it is recomputed (``path.after``). Raises ValueError for an
    end on another prompt, and for two that share a key or value input and read different things by it.
    """
    net = families.read(model)
    fixed = {node.component for end, _ in ends for node in walk(end) if node is not end}
    passed = {c for c in nodes(net) if c[0] == "mlp" and c not in fixed} if "mlp" in through else set()
    reads: dict[Receiver, Tensor] = {}
    changed: list[End] = []
    for end, positions in ends:
        if end.prompt != base:
            raise ValueError(f"{end.component} is on another prompt than the run in which it ends a path")
        _check(net, end)
        entered = {port for one in end.inputs for port in chosen_inputs(net, end.component, one.ports)}
        for port, receiver in chosen_inputs(net, end.component, entered).items():
            stream = _reads(net, end, receiver, passed, port)
            if receiver in reads and not torch.equal(reads[receiver], stream):
                raise ValueError(f"two ends read different things by {receiver}")
            reads[receiver] = stream
        changed.append((end.component, entered, positions))
    return after(net, base, Run(torch.empty(0), reads=reads), changed)


# ----------------------------------------------------------------------------------------------- trees without prompts


@dataclass(frozen=True)
class Use:
    """One use of a component: a node without its prompt.

    ``rest`` are the hops that follow it on its path, from its reader on to the one before the root: of each the
    component, the ports by which this path enters it, and the positions at which it sends.
    """

    component: Component
    rest: tuple[tuple[Component, frozenset[str], frozenset[int]], ...] = ()
    inputs: tuple[UseInput, ...] = ()

    @property
    def way(self) -> tuple[Component, ...]:
        """The components of its path from here on, without the root."""
        return (self.component, *(hop[0] for hop in self.rest))


@dataclass(frozen=True)
class UseInput:
    """Like ``Input``."""

    sender: Use
    ports: frozenset[str] | None = None
    positions: frozenset[int] | None = None


def treeified(model: Any, paths: Iterable[Sequence[Hop]], length: int) -> Use:
    """The tree of paths, each as ``tree.tree`` takes it, for prompts of so many tokens.

    A component stands in it once for every rest of path before which it sends, ports and positions included. Where one
    path starts and others pass, it is a leaf.
    """
    net = families.read(model)
    ways = dict.fromkeys(_checked(net, path, length) for path in paths)
    return _grown(FINAL, [(way, frozenset({"in"}), None) for way in ways], ())


def _grown(
    component: Component, leading: Sequence[tuple[Any, frozenset[str], frozenset[int] | None]], rest: tuple[Any, ...]
) -> Use:
    """``leading``: the hops before this component, the ports by which they enter it, and where it sends."""
    if any(not before for before, _, _ in leading):
        return Use(component, rest)
    below: dict[Any, list[Any]] = {}
    for before, ports, own in leading:
        *earlier, hop = before
        below.setdefault((hop.component, hop.positions, ports, own), []).append(
            (tuple(earlier), hop.ports, hop.positions)
        )
    inputs = []
    for (sender, positions, ports, own), some in below.items():
        following = rest if component == FINAL else ((component, ports, own), *rest)
        inputs.append(UseInput(_grown(sender, some, following), ports, positions))
    return Use(component, rest, tuple(inputs))


def with_prompts(use: Use, prompt: Callable[[Use], Sequence[int]]) -> Node:
    """The tree in which every use has its prompt."""
    below = tuple(Input(with_prompts(x.sender, prompt), x.ports, x.positions) for x in use.inputs)
    return Node(use.component, tuple(prompt(use)), below)


Slots: TypeAlias = Mapping[str, str]


def agreeing(
    use: Use,
    carries: Callable[[Use], frozenset[str]],
    reference: Slots,
    redraw: Callable[[Slots, frozenset[str]], Slots],
    ids: Callable[[Slots], Sequence[int]],
) -> Node:
    """The tree of one draw. ``redraw(prompt, carried)`` draws a prompt that agrees with another on what is carried.

    The root's reference is the given prompt. A sender's reference agrees with its reader's reference on what the sender
    ``carries``: all that its value may depend on. A leaf runs on its reference; an inner node's own prompt, where all
    comes from that is no input of the tree, is drawn without any condition, once for the node.
    """
    prompt = redraw(reference, frozenset()) if use.inputs else reference
    below = []
    for one in use.inputs:
        drawn = redraw(reference, carries(one.sender))
        below.append(Input(agreeing(one.sender, carries, drawn, redraw, ids), one.ports, one.positions))
    return Node(use.component, tuple(ids(prompt)), tuple(below))


def random_carries(use: Use, slots: Collection[str], seed: int) -> dict[Use, frozenset[str]]:
    """For every use below a root what it carries: of its reader's slots each is carried by one sender or more.

    An inner node carries nothing that none of its senders does, as a hypothesis must.
    """
    rng = random.Random(seed)
    out: dict[Use, frozenset[str]] = {}

    def assign(reader: Use, needed: frozenset[str]) -> None:
        shares: list[set[str]] = [set(rng.sample(sorted(slots), rng.randint(0, len(slots)))) for _ in reader.inputs]
        for slot in sorted(needed):
            if shares and not any(slot in share for share in shares):
                rng.choice(shares).add(slot)
        for one, share in zip(reader.inputs, shares, strict=True):
            out[one.sender] = frozenset(share)
            assign(one.sender, frozenset(share))

    assign(use, frozenset(rng.sample(sorted(slots), rng.randint(1, len(slots)))))
    return out


# ----------------------------------------------------------------------------------------------------------- scored


@dataclass(frozen=True)
class Scores:
    """Of references and draws: each array but ``clean`` is ``[references, draws]``, ``clean`` is ``[references]``.

    ``random`` is the metric of the whole model on random prompts, ``kl`` that from the clean to the scrubbed output at
    the last position in nats, ``flips`` 1 where another of the answers and wrong answers is the largest than in the
    clean run. ``recovered`` is a ratio of means; ``by_draw`` has one for each draw.
    """

    scrubbed: Array
    random: Array
    clean: Array
    kl: Array
    flips: Array

    @property
    def recovered(self) -> float:
        anchor = self.random.mean()
        return float((self.scrubbed.mean() - anchor) / (self.clean.mean() - anchor))

    @property
    def by_draw(self) -> Array:
        anchor = self.random.mean()
        return np.asarray((self.scrubbed.mean(0) - anchor) / (self.clean.mean() - anchor))


def experiment(
    model: Any,
    prompts: Sequence[Prompt],
    trees: Sequence[Sequence[Node]],
    randoms: Sequence[Sequence[Ids]],
    metric: str = "logit_diff",
    through: Collection[str] = (),
) -> Scores:
    """For each reference its trees, one a draw, and random prompts; all are scored against the reference's answers."""
    net = families.read(model)
    scrubbed, anchors, clean, kl, flips = [], [], [], [], []
    for prompt, draws, others in zip(prompts, trees, randoms, strict=True):
        plain = _last(forward(net, prompt.clean).logits)
        candidates = [*prompt.answers, *prompt.wrong]

        def scored(logits: Array, prompt: Prompt = prompt, plain: Array = plain) -> dict[str, float]:
            return metrics(logits, prompt.answers, prompt.wrong, plain)

        outputs = [_last(scrub(net, tree, through)) for tree in draws]
        clean.append(scored(plain)[metric])
        scrubbed.append([scored(logits)[metric] for logits in outputs])
        kl.append([scored(logits)["kl"] for logits in outputs])
        flips.append([float(logits[candidates].argmax() != plain[candidates].argmax()) for logits in outputs])
        anchors.append([scored(_last(forward(net, ids).logits))[metric] for ids in others])
    return Scores(*(np.array(x, dtype=np.float64) for x in (scrubbed, anchors, clean, kl, flips)))


# ------------------------------------------------------------------------------------------------------ random trees


def random_tree(model: Any, seed: int, length: int, depth: int = 4, width: int = 3, prompts: int = 6) -> Node:
    """A tree of at most so many hops below the root, of random components, ports and positions.

    A reader has up to ``width`` senders; one in two times one of them stands twice, at different ports or positions and
    with values of its own. Each node draws one of ``prompts`` random prompts, another than its reader's.
    """
    net = families.read(model)
    rng = random.Random(seed)
    texts = [tuple(rng.randrange(net.embed.shape[0]) for _ in range(length)) for _ in range(prompts)]

    def grown(component: Component, hops: int, reader: Ids | None = None) -> Node:
        own = rng.choice([text for text in texts if text != reader])
        if hops == 0 or component == INPUT:
            return Node(component, own)
        ports = inputs(net, component)
        first = next(iter(ports.values()))
        possible = [c for c in [INPUT, *nodes(net)] if precedes(net, c, first)]
        chosen = rng.sample(possible, min(len(possible), rng.randint(1, width)))
        below = []
        for sender in chosen:
            where = frozenset(rng.sample(range(length), rng.randint(1, length)))
            through = frozenset(rng.sample(sorted(ports), rng.randint(1, len(ports))))
            below.append(Input(grown(sender, rng.randrange(hops), own), through, where))
            rest = frozenset(range(length)) - where
            if rest and rng.random() < 0.5:
                below.append(Input(grown(sender, rng.randrange(hops), own), through, rest))
            elif len(through) < len(ports) and rng.random() < 0.5:
                below.append(Input(grown(sender, rng.randrange(hops), own), frozenset(ports) - through, where))
        return Node(component, own, tuple(below))

    return grown(FINAL, depth)
