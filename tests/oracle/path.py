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

With post-norms (Gemma 2 and 3, OLMo 2) what is frozen and replaced is what a component adds to the residual stream,
after the norm (``node.written``): a head's new value then changes no other head's. The norm of heads that compute their
values in the middle of a path is set by these and by the z of the layer's other heads at base.

A sender is a head, an MLP, a neuron or the input; receivers are as in ``node.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from . import families
from .edge import precedes
from .families import Net
from .node import Component, Receiver, Run, Values, forward, nodes, written


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
    acting: Mapping[Receiver, Collection[int]] | None = None,
) -> Tensor:
    """The logits of pass D. ``source`` is pass A's values (``resample_values``) or any other ablated values.

    ``acting`` says at which positions queries use the key or value that a receiver reads in pass D, all if it is not
    there; at others they use what it is without. ``receiver_positions`` are of queries, MLPs and the final residual.
    """
    net = families.read(model)
    _check(net, sender, receivers)
    n = len(base_ids)
    sent = written(net, sender)
    new = {(sent, p): source[sent][p] for p in _positions(sender_positions, n)}
    seen = direct(net, base_ids, new, through)
    at = {r: range(n) if r[0] in ("k", "v") else _positions(receiver_positions, n) for r in receivers}
    reads = {(r, p): seen.reads[r][p] for r in receivers for p in at[r]}
    if acting is None:
        return forward(net, base_ids, reads=reads).logits
    z: dict[tuple[Component, int], Tensor] = {}  # layer by layer, a run for every position of its queries
    for layer in sorted({r[1] for r in acting}):
        own: dict[tuple[Component, int], Tensor] = {}
        for q in range(n):
            used = {(r, p): x for (r, p), x in reads.items() if r not in acting or r[1] != layer or q in acting[r]}
            run = forward(net, base_ids, z, record=True, reads=used)
            for c in nodes(net):
                if c[:2] == ("head", layer):
                    own[c, q] = run.values[c][q]
        z.update(own)
    return forward(net, base_ids, z, reads=reads).logits


def owners(net: Net, receiver: Receiver) -> list[Component]:
    """The components that compute their value from a receiver: for a key or value input every head that shares it."""
    kind = receiver[0]
    if kind == "q":
        return [("head", receiver[1], receiver[2])]
    if kind == "mlp_in":
        return [("mlp", receiver[1])]
    if kind in ("k", "v"):
        att = net.layers[receiver[1]].attention
        group = att.heads // att.kv_heads
        return [("head", receiver[1], h) for h in range(att.heads) if h // group == receiver[2]]
    raise ValueError(f"{receiver} computes nothing")


def chain(
    model: Any,
    base_ids: Sequence[int],
    source: Values,
    sender: Component,
    receivers: Sequence[Receiver],
    through: Collection[str] = ("mlp",),
    sender_positions: Iterable[int] | None = None,
) -> Tensor:
    """A path of several hops: sender -> receivers[0] -> receivers[1] -> ... ; the logits after the last one.

    On each hop the receiver alone reads what the previous sender's new value makes of its input (pass C); its owner is
    recomputed with its other inputs at base, and that value is the new value of the next hop. At the last receiver
    everything later is recomputed (pass D); end the path with ``("final",)`` to measure this path alone.
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
    seen = direct(net, base_ids, new, through).reads[last]
    return forward(net, base_ids, reads={(last, p): seen[p] for p in range(n)}).logits
