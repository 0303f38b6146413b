"""Edge attribution patching: first-order effects of patching every edge, from two forwards and one backward pass.

A receiver reads a sum of what senders add to the residual stream, so patching the edge s -> r changes what r reads by
D(s), what s adds in the source run less what it adds in this one. The effect is estimated by D(s) times the derivative
of the metric with respect to what r reads (Syed et al. 2023); with `steps` the derivative is averaged over inputs
between the two runs' (EAP-IG, Hanna et al. 2024). The derivatives by what queries, keys, values and MLPs read are
those by what they compute, taken back through projection and norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitspec.engine.attribution.node_attribution import (
    BatchMetric,
    attribution_passes,
    compares,
    draws_of,
    interpolates,
    slopes_at,
)
from circuitspec.engine.attribution.partial_estimates import EACH_ANEW, Pieces
from circuitspec.engine.execution.batches import Batch, laid_out, real_columns, where_mask
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.interventions import Swap
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.forward import EMBEDDINGS
from circuitspec.engine.levels.receiver_reads import Reads, edits_of, single
from circuitspec.engine.levels.residual_stream import Stream
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import EVERYWHERE, Source, Variant
from circuitspec.experiments.levels.patched_tokens import check_defined_at
from circuitspec.graph.edges import Edge, Receiver, Sender, precedes, sender_index
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, KvHead, Logits, Mixer, Mlp

Values = Mapping[Tap, Tensor]


@dataclass(frozen=True)
class EdgeAttribution:
    """Estimated change of a metric's mean when one edge is patched at its positions, in the metric's unit.

    `linear` are the estimates to first order throughout; `effects` are these, or those with attention recomputed.
    """

    metric: str
    effects: Mapping[Edge, float]
    linear: Mapping[Edge, float]


def edge_passes(
    edges: Iterable[Edge],
    source: Source,
    steps: int = 1,
    *,
    draws: int = 1,
    recomputing: bool = False,
    one_by_one: bool = False,
    compared: bool = False,
) -> int:
    """Passes over all prompts that it takes; `one_by_one` where the heads of a layer share a norm.

    `compared` where the metric compares with the clean run.
    """
    more = len(_recomputed(edges, one_by_one)) if recomputing else 0
    return attribution_passes(source, steps, draws=draws, compared=compared) + draws * (
        more + (more > 0)
    )  # and the base run


def attribute_edges(
    runner: Runner,
    base: Variant,
    source: Source,
    metric: str,
    edges: Iterable[Edge],
    *,
    steps: int = 1,
    recomputing: bool = False,
    pieces: Pieces = EACH_ANEW,
) -> EdgeAttribution:
    """Estimate the effect of patching each edge, alone.

    With `recomputing`, attention is computed anew for each sender that queries or keys read, and only what comes after
    the head is taken to first order: where attention is saturated, its derivative is zero although another query
    would look elsewhere (the QK fix of Kramár et al. 2024). That takes a forward for each sender and kind of input.

    Where noise is drawn, the mean over the draws. What a pass gave is asked of `pieces` first. Raises CS371 where the
    model's heads cannot be told apart, ValueError for what is no edge, for a metric without a gradient, and for several
    steps with a base or a source that is no run of other prompts.
    """
    wanted = tuple(dict.fromkeys(edges))
    shape = runner.loaded.shape
    wrong = [edge for edge in wanted if not precedes(edge.sender, edge.receiver, shape)]
    if wrong:
        raise ValueError(f"no edge: {wrong[0]}")
    if steps > 1 and not interpolates(base, source):
        raise ValueError("embeddings can be interpolated between two runs only")
    between = {EVERYWHERE} if steps > 1 else set()  # embeddings are interpolated at every token
    check_defined_at(runner.task, base, source.prompts, tuple({edge.where for edge in wanted} | between))
    linear = dict.fromkeys(wanted, 0.0)
    recomputed: dict[Edge, float] = {}
    draws = draws_of(base, source)
    alone = recomputing and runner.stream.heads_share_a_norm
    clean = compares(metric)
    taken = edge_passes(wanted, source, steps, draws=draws, recomputing=recomputing, one_by_one=alone, compared=clean)
    runner.expect(taken * runner.task.n)

    def work(part: Batch) -> list[tuple[dict[Edge, float], dict[Edge, float]]]:
        runs = (_Run(runner, part, base, source, metric, wanted, draw, steps, pieces) for draw in range(draws))
        return [(run.linear(), run.recomputed() if recomputing else {}) for run in runs]

    for _, found in runner.in_batches(work, runner.rows_that_fit(edges=True)):
        for first, again in found:
            for edge, effect in first.items():
                linear[edge] += effect / (runner.task.n * draws)
            for edge, effect in again.items():
                recomputed[edge] = recomputed.get(edge, 0.0) + effect / (runner.task.n * draws)
    return EdgeAttribution(metric, linear | recomputed, linear)


def _recomputed(edges: Iterable[Edge], one_by_one: bool) -> tuple[tuple[Edge, ...], ...]:
    """The edges into queries and keys, those together that take one forward: of one sender into one kind of input."""
    found: dict[tuple[Sender, Where, str, Receiver | None], list[Edge]] = {}
    for edge in edges:
        if edge.receiver.port in ("q", "k"):
            key = (edge.sender, edge.where, str(edge.receiver.port), edge.receiver if one_by_one else None)
            found.setdefault(key, []).append(edge)
    return tuple(tuple(own) for own in found.values())


class _Run:
    """One batch: the base run, the source's values, and the derivatives."""

    def __init__(
        self,
        runner: Runner,
        batch: Batch,
        base: Variant,
        source: Source,
        metric: str,
        edges: Sequence[Edge],
        draw: int,
        steps: int,
        pieces: Pieces,
    ) -> None:
        batch = laid_out(runner.task, batch, base)
        self._runner, self._batch, self._base, self._source = runner, batch, base, source
        self._edges, self._draw, self._steps, self._pieces = edges, draw, steps, pieces
        self._score = BatchMetric(runner, batch, metric)
        self._stream: Stream = runner.stream
        self._shape = runner.loaded.shape
        self._senders = tuple(
            sorted({edge.sender for edge in edges}, key=lambda sender: sender_index(sender, self._shape))
        )
        self._receivers = tuple(dict.fromkeys(edge.receiver for edge in edges))
        self._streams = frozenset(self._stream.read_tap(r) for r in self._receivers)
        at = partial(where_mask, runner.task, batch, device=runner.device, variant=base)
        self._columns = {where: at(where) for where in self._wheres()}
        self._sent = frozenset(self._stream.recorded_at(sender) for sender in self._senders)
        self._other: Values = {}
        self._own: Values = {}
        self._stepped: list[int] = []  # the steps whose derivatives are in `_slopes`
        self._slopes: dict[Tap, Tensor] = {}
        self._differences: dict[Sender, Tensor] = {}

    def linear(self) -> dict[Edge, float]:
        """The estimates, summed over the batch's prompts."""
        steps = (self._piece(["step", s, self._steps], partial(self._step, s)) for s in range(self._steps))
        return dict(zip(self._edges, np.asarray(sum(steps)).tolist(), strict=True))

    def recomputed(self) -> dict[Edge, float]:
        """The estimates of edges into queries and keys, with attention computed anew."""
        effects: dict[Edge, float] = {}
        together = self._stream.heads_share_a_norm
        base: Values = {}

        def anew(edges: Sequence[Edge]) -> NDArray[np.float64]:
            nonlocal base
            self._take_all_steps()
            base = base or self._plain()
            return self._attended_anew(edges, base)

        for number, edges in enumerate(_recomputed(self._edges, together)):
            found = self._piece(["recomputed", number], partial(anew, edges))
            effects |= zip(edges, found.tolist(), strict=True)
        return effects

    def _piece(self, piece: Sequence[object], compute: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        return self._pieces.get([*piece, self._draw, list(self._batch.cases)], compute)

    def _take_all_steps(self) -> None:
        """The derivatives of all steps, in their order, whichever were found among the pieces."""
        if self._stepped != list(range(self._steps)):
            self._stepped, self._slopes = [], {}
            for step in range(self._steps):
                self._step(step)

    def _step(self, step: int) -> NDArray[np.float64]:
        """One step's share of the estimates, `[edge]`."""
        runner, batch, steps = self._runner, self._batch, self._steps
        taps = frozenset(tap for receiver in self._receivers for tap in self._sloped(receiver)) | self._heads()
        extra = frozenset({EMBEDDINGS}) if steps > 1 else frozenset()
        shifts = {}
        with torch.no_grad():
            if not self._other:
                self._other = runner.source_values(
                    batch, self._source, self._sent | extra, self._draw, base=self._base, scaled=True
                )
            if steps > 1 and not self._own:
                self._own = runner.readout(batch, self._base, Actions(record=self._sent | extra), self._draw)[1]
            if steps > 1:
                shifts = {EMBEDDINGS: (self._other[EMBEDDINGS] - self._own[EMBEDDINGS]) * (step + 0.5) / steps}
        slopes, values = slopes_at(
            runner,
            batch,
            self._base,
            self._score,
            taps,
            shifts,
            record=self._sent | self._streams,
            draw=self._draw,
        )
        self._own = self._own or values
        self._stepped.append(step)
        for tap, slope in slopes.items():
            self._slopes[tap] = self._slopes.get(tap, 0.0) + slope / steps
        gradients = self._read_gradients(slopes, values)
        with torch.no_grad():
            self._differences = self._differences or {s: self._difference(s, self._other) for s in self._senders}
            products = self._products(gradients)
        return np.array([products[edge] for edge in self._edges]) / steps

    def _attended_anew(self, edges: Sequence[Edge], base: Values) -> NDArray[np.float64]:
        """The estimates of edges of one sender into one kind of input, `[edge]`, from a forward with attention anew."""
        together = self._stream.heads_share_a_norm
        sender, where = edges[0].sender, edges[0].where
        receivers = [edge.receiver for edge in edges]
        reads: dict[Tap, list[Reads]] = {}
        for tap in dict.fromkeys(self._stream.read_tap(receiver) for receiver in receivers):
            here = tuple(r for r in receivers if self._stream.read_tap(r) == tap)
            reads[tap] = [single(self._stream, here, base[tap] + self._differences[sender], self._columns[where])]
        attended = {Tap(_layer(receiver), "z") for receiver in receivers}
        held = {tap: self._held(tap, base[tap]) for tap in attended}  # so that nothing after the head moves
        with torch.no_grad():
            z = self._forward(Actions(held, frozenset(attended), edits=edits_of(self._stream, reads)))
        effects = []
        for edge in edges:
            tap = Tap(_layer(edge.receiver), "z")
            change = (z[tap] - base[tap]) * self._slopes[tap]
            by_head = change.view(*change.shape[:2], self._shape.n_heads, -1).sum(-1).double().cpu()
            heads = range(self._shape.n_heads) if together else self._queries(edge.receiver)
            effects.append(float(by_head[..., list(heads)][real_columns(self._batch)].sum()))
        return np.array(effects)

    def _plain(self) -> Values:
        """The base run's streams and z; with steps, what was recorded before is another run's."""
        with torch.no_grad():
            return self._forward(Actions(record=self._streams | self._heads()))

    def _forward(self, actions: Actions) -> dict[Tap, Tensor]:
        return self._runner.readout(self._batch, self._base, actions, self._draw)[1]

    def _held(self, tap: Tap, value: Tensor) -> Swap:
        mask = torch.ones(*value.shape[:2], tap.units(self._shape), dtype=torch.bool, device=value.device)
        return Swap(mask, value)

    def _wheres(self) -> frozenset[Where]:
        return frozenset(edge.where for edge in self._edges)

    def _queries(self, receiver: Receiver) -> range:
        """The heads whose attention depends on this query or key."""
        component, group = receiver.component, self._shape.n_heads // self._shape.n_kv_heads
        if isinstance(component, KvHead):
            return range(component.head * group, (component.head + 1) * group)
        assert isinstance(component, Head)
        return range(component.head, component.head + 1)

    def _heads(self) -> frozenset[Tap]:
        """The outputs of the heads whose queries or keys are read."""
        return frozenset(Tap(_layer(r), "z") for r in self._receivers if r.port in ("q", "k"))

    def _sloped(self, receiver: Receiver) -> tuple[Tap, ...]:
        """Where the derivative by what a receiver computes is taken; by what it reads, for the logits."""
        match receiver.component:
            case Logits():
                return (Tap(self._shape.n_layers, "final"),)
            case Mlp(layer):
                return (Tap(layer, "mlp"),)
            case Mixer(layer):
                return (Tap(layer, "attn_in"),)
            case _:
                return tuple(dict.fromkeys(slot.tap for slot in self._stream.ports(receiver)))

    def _read_gradients(self, slopes: Values, values: Values) -> dict[Receiver, Tensor]:
        """The metric's derivative by what each receiver reads, `[token, d_model]`."""
        found: dict[Receiver, Tensor] = {}
        ports: dict[Tap, list[tuple[Receiver, int]]] = {}
        for receiver in self._receivers:
            read, slope = values[self._stream.read_tap(receiver)].flatten(0, 1), slopes[self._sloped(receiver)[0]]
            match receiver.component:
                case Logits():
                    found[receiver] = slope.flatten(0, 1)
                case Mlp(layer):
                    found[receiver] = _taken_back(self._mlp(layer, slope.shape), read, slope.flatten(0, 1))
                case Mixer(layer):
                    found[receiver] = _taken_back(
                        partial(self._stream.entering_attention, layer), read, slope.flatten(0, 1)
                    )
                case _:
                    for slot in self._stream.ports(receiver):
                        ports.setdefault(slot.tap, []).append((receiver, slot.unit))
        for tap, slices in ports.items():
            units = [unit for _, unit in slices]
            read = values[Tap(tap.layer, "resid")].flatten(0, 1)
            slope = slopes[tap].reshape(len(read), tap.units(self._shape), -1)[:, units]
            each = read.unsqueeze(1).expand(-1, len(units), -1)
            gradients = _taken_back(self._projection(tap, units), each, slope)
            for number, (receiver, _) in enumerate(slices):
                one = gradients[:, number]
                found[receiver] = found[receiver] + one if receiver in found else one
        return found

    def _projection(self, tap: Tap, units: Sequence[int]) -> Callable[[Tensor], Tensor]:
        stream = self._stream
        projection = stream.projection(tap, units)
        return lambda read: projection.of_each(stream.entering(tap, read))

    def _mlp(self, layer: int, shape: torch.Size) -> Callable[[Tensor], Tensor]:
        stream = self._stream

        def compute(read: Tensor) -> Tensor:
            entering = stream.entering_mlp(layer, read).view(*shape[:2], -1)
            return stream.mlp_output(layer, entering).flatten(0, 1)

        return compute

    def _difference(self, sender: Sender, other: Values) -> Tensor:
        """What the sender adds in the source run less what it adds in this one, `[row, pos, d_model]`."""
        kept, own = other[self._stream.kept_as(sender)], self._own[self._stream.recorded_at(sender)]
        if not isinstance(sender, Head):
            return self._stream.sent(sender, kept - own)
        difference = kept - self._stream.scaled(sender.layer, own)
        return self._stream.heads(sender.layer, difference, [sender.head]).view(*difference.shape[:2], -1)

    def _products(self, gradients: Mapping[Receiver, Tensor]) -> dict[Edge, float]:
        asked: dict[tuple[Receiver, Where], list[Sender]] = {}
        for edge in self._edges:
            asked.setdefault((edge.receiver, edge.where), []).append(edge.sender)
        flat = {sender: difference.flatten() for sender, difference in self._differences.items()}
        found = {}
        for (receiver, where), senders in asked.items():
            masked = (gradients[receiver] * self._columns[where].reshape(-1, 1)).flatten()
            for sender in senders:
                found[Edge(sender, receiver, where)] = float(flat[sender] @ masked)
        return found


def _taken_back(compute: Callable[[Tensor], Tensor], read: Tensor, slope: Tensor) -> Tensor:
    """The derivative by `read`, from that by what is computed of it."""
    with torch.enable_grad():
        leaf = read.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(compute(leaf), leaf, slope)
    return gradient


def _layer(receiver: Receiver) -> int:
    assert isinstance(receiver.component, Head | KvHead | Mixer | Mlp)
    return receiver.component.layer
