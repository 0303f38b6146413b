"""Path patching: the effect of a sender on receivers along direct paths (Wang et al. 2022, appendix B).

Four passes, each an explicit forward pass of one prompt:

- A: the source prompt, for the sender's new value; B: the base prompt, for everybody's base value.
- C: the base prompt with *every* attention head frozen at its base value, except that the sender has its new value;
  norms are recomputed and so are MLPs with ``through = {"mlp"}``, while with ``through = set()`` MLPs are frozen as
  well. What each receiver reads in this pass is recorded.
- D: the base prompt with the receivers reading what they read in C; everything later is recomputed.

The effect therefore goes from the sender to the receivers through residual connections (and MLPs), never through
another head, and from the receivers on through everything. With the final residual as receiver, D's logits are C's.
Several receivers are set together: a later one reads what it read in C and not what earlier receivers make of it in D.

A path that ends at a head changes that head alone (``open_ends``). Its z is what the head computes when it reads what
arrived and every other head of its layer has the query, key and value that it has without: so neither the heads that
share its key-value head change, nor those whose queries are normed together with its own (OLMo 2). With this z in
place, everything later is recomputed. ``path_patch`` changes a receiver for whoever reads it, as an edge does.

With post-norms (Gemma 2 and 3, OLMo 2) what is frozen and replaced is what a component adds to the residual stream,
after the norm (``node.written``): a head's new value then changes no other head's. The norm of heads that compute their
values in the middle of a path is set by these and by the z of the layer's other heads at base.

A sender is a head, an MLP, a neuron or the input; receivers are as in ``node.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from . import families
from .edge import precedes
from .edge_circuit import chosen_inputs, owners
from .families import Net
from .node import Component, Receiver, Run, Values, forward, nodes, written

End: TypeAlias = tuple[Component, "Collection[str] | None", "Collection[int] | None"]
"""A head, a key-value head (which stands for all heads that read it), an MLP or the final residual at which a path
ends; the ports by which it is entered, and the positions at which it changes. ``None``: all."""


def direct(
    model: Any,
    base_ids: Sequence[int],
    new: Mapping[tuple[Component, int], Tensor],
    through: Collection[str] = ("mlp",),
) -> Run:
    """Pass C, recorded: the new values in, all other heads (and MLPs, unless let through) at their base values.

    Under post-norms the new values are of ``node.written``.
    """
    if not set(through) <= {"mlp"}:
        raise ValueError(f"only MLPs can be let through: {through}")
    net = families.read(model)
    base = forward(net, base_ids, record=True)
    own = {("mlp", c[1]) for c, _ in new if c[0] == "neuron"}  # a neuron acts by its MLP's output
    patches: dict[tuple[Component, int], Tensor] = {}
    for component in nodes(net):
        if component[0] == "mlp" and ("mlp" in through or component in own):
            continue
        for position in range(len(base_ids)):
            patches[written(net, component), position] = base.values[written(net, component)][position]
    return forward(net, base_ids, {**patches, **new}, record=True)


def _positions(given: Iterable[int] | None, length: int) -> list[int]:
    return list(range(length)) if given is None else list(given)


def _check(net: Net, sender: Component, receivers: Iterable[Receiver]) -> None:
    """A receiver must read after the sender has written."""
    writer = ("mlp", sender[1]) if sender[0] == "neuron" else sender
    for receiver in receivers:
        if not precedes(net, writer, receiver):
            raise ValueError(f"{sender} does not come before {receiver}")


def path_patch(
    model: Any,
    base_ids: Sequence[int],
    source: Values,
    sender: Component,
    receivers: Collection[Receiver],
    through: Collection[str] = ("mlp",),
    sender_positions: Iterable[int] | None = None,
    receiver_positions: Iterable[int] | None = None,
) -> Tensor:
    """The logits of pass D. ``source`` is pass A's values (``resample_values``) or any other ablated values.

    ``receiver_positions`` are of queries, MLPs and the final residual; keys and values are read everywhere.
    """
    net = families.read(model)
    _check(net, sender, receivers)
    n = len(base_ids)
    seen = _arriving(net, base_ids, source, sender, through, sender_positions)
    at = {r: range(n) if r[0] in ("k", "v") else _positions(receiver_positions, n) for r in receivers}
    return forward(net, base_ids, reads={(r, p): seen.reads[r][p] for r in receivers for p in at[r]}).logits


def _arriving(
    net: Net,
    base_ids: Sequence[int],
    source: Values,
    sender: Component,
    through: Collection[str],
    sender_positions: Iterable[int] | None,
) -> Run:
    sent = written(net, sender)
    new = {(sent, p): source[sent][p] for p in _positions(sender_positions, len(base_ids))}
    return direct(net, base_ids, new, through)


def open_ends(
    model: Any,
    base_ids: Sequence[int],
    source: Values,
    sender: Component,
    ends: Sequence[End],
    through: Collection[str] = ("mlp",),
    sender_positions: Iterable[int] | None = None,
) -> Tensor:
    """The logits where paths from the sender end at these components, each of which changes by itself."""
    net = families.read(model)
    seen = _arriving(net, base_ids, source, sender, through, sender_positions)
    return after(net, base_ids, seen, ends)


def after(net: Net, base_ids: Sequence[int], seen: Run, ends: Sequence[End]) -> Tensor:
    """The logits when these ends read what they read in ``seen``, and all that follows is recomputed.

    Layer by layer, head by head and position by position: a head's z there is its z in a run of which nothing is
    changed but what ended in earlier layers and what this head is to read.
    """
    every = range(len(base_ids))
    others: dict[tuple[Receiver, int], Tensor] = {}
    by_head: dict[Component, list[tuple[Receiver, Collection[int]]]] = {}
    for component, ports, positions in ends:
        at = every if positions is None else positions
        for receiver in chosen_inputs(net, component, ports).values():
            if component[0] in ("head", "kv"):
                for head in [component] if component[0] == "head" else owners(net, receiver):
                    by_head.setdefault(head, []).append((receiver, at))
            else:
                others.update({(receiver, p): seen.reads[receiver][p] for p in at})
    z: dict[tuple[Component, int], Tensor] = {}
    for layer in range(len(net.layers)):
        here: dict[tuple[Component, int], Tensor] = {}
        for head in (h for h in by_head if h[1] == layer):
            for query in every:
                own: dict[tuple[Receiver, int], Tensor] = {}
                for receiver, at in by_head[head]:
                    read = [] if query not in at else [query] if receiver[0] == "q" else every
                    own.update({(receiver, p): seen.reads[receiver][p] for p in read})
                if own:
                    run = forward(net, base_ids, z, record=True, reads={**others, **own})
                    here[head, query] = run.values[head][query]
        z.update(here)
    return forward(net, base_ids, z, reads=others).logits


def chain(
    model: Any,
    base_ids: Sequence[int],
    source: Values,
    sender: Component,
    receivers: Sequence[Receiver],
    through: Collection[str] = ("mlp",),
    sender_positions: Iterable[int] | None = None,
) -> Tensor:
    """A path of several hops: sender -> receivers[0] -> receivers[1] -> ... ; the logits ``after`` the last one.

    On each hop the receiver alone reads what the previous sender's new value makes of its input (pass C); its owner is
    recomputed with its other inputs at base, and that value is the new value of the next hop. After the last receiver,
    an end of each of its owners, everything is recomputed; end with ``("final",)`` to measure this path alone.
    """
    net = families.read(model)
    n = len(base_ids)
    sent = written(net, sender)
    new = {(sent, p): source[sent][p] for p in _positions(sender_positions, n)}
    for writer, receiver in zip([sender, *(owners(net, r)[0] for r in receivers[:-1])], receivers, strict=True):
        _check(net, writer, [receiver])
    base = forward(net, base_ids, record=True).values
    for receiver in receivers[:-1]:
        seen = direct(net, base_ids, new, through).reads[receiver]
        own = owners(net, receiver)
        others = [o for o in nodes(net) if o not in own and o[:2] == ("head", own[0][1])]
        held = {(o, p): base[o][p] for o in others for p in range(n)}
        run = forward(net, base_ids, held, reads={(receiver, p): seen[p] for p in range(n)}, record=True)
        new = {(written(net, c), p): run.values[written(net, c)][p] for c in own for p in range(n)}
    last = receivers[-1]
    seen = direct(net, base_ids, new, through)
    port = "in" if last[0] in ("mlp_in", "final") else last[0]
    ends = [("final",)] if last[0] == "final" else owners(net, last)
    return after(net, base_ids, seen, [(component, [port], None) for component in ends])
