"""Internal metrics of a run: attention weights, neurons and projections, as they are with everything patched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.batches import Batch, laid_out
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.interventions import Swap
from circuitspec.engine.execution.taps import Slot, Tap, slots_of, value_channels
from circuitspec.engine.forward import Forward
from circuitspec.experiments.experiment import Level, Variant, texts_of
from circuitspec.experiments.internal_metric_plans import positions_of
from circuitspec.hypothesis_file.grammar.components import Mlp, Neuron, Resid
from circuitspec.hypothesis_file.grammar.internal_metric_names import (
    Activation,
    Attention,
    Internal,
    Projection,
    RoutingWeight,
)
from circuitspec.hypothesis_file.grammar.names import format_name

OFF = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""How far attention weights may be from adding up to 1: several families take their softmax in float32 always."""


@dataclass(frozen=True)
class _Values:
    """Where the value is that a head reads: units of a tap, there channels `first` to `last` (not included)."""

    tap: Tap
    units: tuple[int, ...]
    first: int
    last: int


class Internals:
    """Reads internal metrics off runs.

    Neurons, projections and what routers choose are recorded in the run itself. Attention is linear in what is attended
    to: in a run more a layer (several, for more tokens than a head has channels), the values of the head are 1 at the
    token attended to and 0 elsewhere, so that what the head gives is the attention weight. All else in that run is as
    patched, up to that layer. So no family's attention is computed anew here, and none needs to hand its weights out.
    """

    def __init__(self, forward: Forward, metrics: Sequence[Internal], directions: Mapping[str, Tensor]) -> None:
        self._forward, self._metrics = forward, tuple(metrics)
        self._directions = {name: one.double().to(forward.device) for name, one in directions.items()}

    def taps(self, level: Level) -> frozenset[Tap]:
        """What is recorded in the run itself, at this level."""
        return frozenset(self._slot(m).tap for m in self._read_at(level))

    def _read_at(self, level: Level) -> tuple[Activation | Projection | RoutingWeight, ...]:
        """What is read off the run itself: at edge level, where each component reads a stream of its own, no streams.

        Nor what MLPs add to one: claims at edge level project neither. Nor neurons of MLPs that compute twice there.
        """
        recorded = (m for m in self._metrics if not isinstance(m, Attention))
        if level == "node":
            return tuple(recorded)
        twice = self._forward.loaded.architecture.mlp_norm is None
        return tuple(m for m in recorded if not isinstance(m, Projection) and not twice)

    @property
    def described(self) -> tuple[str, ...]:
        """The metrics' names, the tokens of the positions in them prompt by prompt, and directions number by number."""
        roles = sorted({role for metric in self._metrics for role in positions_of(metric)})
        at = (f"{role}: {self._forward.task.roles[role]}" for role in roles)
        along = (f"{name}: {one.tolist()}" for name, one in self._directions.items())
        return (*map(str, self._metrics), *at, *along)

    def measure(
        self,
        batch: Batch,
        variant: Variant,
        actions: Callable[[], Actions],
        recorded: Mapping[Tap, Tensor],
        draw: int,
        level: Level = "node",
    ) -> dict[str, Tensor]:
        """Every metric that there is at this level, one value a prompt. `actions` makes the run's actions anew,
        `recorded` is what it recorded. Of a prompt with several rows the first is read: its own tokens are alike in
        all.

        Raises CS431 where a head's attention does not add up to 1 over all tokens.
        """
        batch = laid_out(self._forward.task, batch, variant)
        found: dict[str, Tensor] = {}
        read = self._read_at(level)
        swaps = actions().swaps if read else {}
        for metric in read:
            found[str(metric)] = self._read(batch, variant, metric, recorded, swaps)
        for heads in self._together():
            found |= self._attention(batch, variant, actions(), heads, draw)
        starts = list(batch.starts)
        return found if batch.continuations is None else {name: values[starts] for name, values in found.items()}

    def _together(self) -> list[list[Attention]]:
        """The attention metrics that a run can measure at once: of one layer, a channel for every token and one more.

        Raises CS431 where heads have a single channel.
        """
        shape = self._forward.loaded.shape
        runs: list[tuple[list[Attention], dict[_Values, set[str]]]] = []
        for metric in self._metrics:
            if not isinstance(metric, Attention):
                continue
            if shape.d_head < 2:
                raise CircuitspecError(
                    Diagnostic(
                        "CS431",
                        "the attention of heads with a single channel cannot be measured",
                        hint="use another metric",
                    )
                )
            own = self._values(metric)
            for members, targets in runs:
                same_layer = members[0].head.layer == metric.head.layer
                if same_layer and len(targets.get(own, set()) | {metric.target}) < shape.d_head:
                    break
            else:
                members, targets = [], {}
                runs.append((members, targets))
            members.append(metric)
            targets.setdefault(own, set()).add(metric.target)
        return [members for members, _ in runs]

    def _read(
        self,
        batch: Batch,
        variant: Variant,
        metric: Activation | Projection | RoutingWeight,
        recorded: Mapping[Tap, Tensor],
        swaps: Mapping[Tap, Swap],
    ) -> Tensor:
        """A recorded value with what is patched there put in: what is recorded is from before the patch."""
        slot = self._slot(metric)
        rows = torch.arange(len(batch.prompts), device=self._forward.device)
        columns = self._columns(batch, variant, metric.at)
        own, swap = recorded[slot.tap], swaps.get(slot.tap)
        width = own.shape[-1] // slot.tap.units(self._forward.loaded.shape)
        channels = slice(slot.unit * width, (slot.unit + 1) * width)
        value = own[rows, columns, channels]
        if swap is not None:
            put_in = swap.source.expand_as(own)[rows, columns, channels]
            value = torch.where(swap.mask[rows, columns, slot.unit].unsqueeze(-1), put_in, value)
        if isinstance(metric, Activation):
            return value[:, 0].double()
        if isinstance(metric, RoutingWeight):
            return value[:, metric.expert.index].double()
        return value.double() @ self._directions[metric.along]

    def _attention(
        self, batch: Batch, variant: Variant, actions: Actions, metrics: Sequence[Attention], draw: int
    ) -> dict[str, Tensor]:
        """The attention weights of heads of one layer.

        A key-value head has a channel for each token attended to, and its last one is 1 at every token: what comes
        out there is the sum of all weights.
        """
        forward, shape = self._forward, self._forward.loaded.shape
        rows = torch.arange(len(batch.prompts), device=forward.device)
        layer = metrics[0].head.layer
        channels: dict[tuple[_Values, str], int] = {}
        for metric in metrics:
            own = self._values(metric)
            channels.setdefault((own, metric.target), sum(1 for known, _ in channels if known == own))
        swaps = dict(actions.swaps)
        for (own, target), channel in channels.items():
            columns = self._columns(batch, variant, target)
            swaps[own.tap] = self._marked(batch, swaps.get(own.tap), own, channel, columns)
        z = Tap(layer, "z")
        forward.expect(len(batch.cases))
        watched = replace(actions, swaps=swaps, record=actions.record | {z})
        _, recorded = forward.readout(batch, variant, watched, draw)
        given = recorded[z].reshape(*recorded[z].shape[:2], shape.n_heads, -1)  # [row, pos, head, channel]
        given = given / forward.loaded.architecture.mark
        found = {}
        for metric in metrics:
            here = given[rows, self._columns(batch, variant, metric.source), metric.head.head]
            self._check(metric, here[:, -1])
            found[str(metric)] = here[:, channels[self._values(metric), metric.target]].double()
        return found

    def _marked(self, batch: Batch, swap: Swap | None, own: _Values, channel: int, columns: Tensor) -> Swap:
        """The swap, and one head's values replaced: 1 in a channel at one token of each row, and in the last at all."""
        forward, shape, mark = self._forward, self._forward.loaded.shape, self._forward.loaded.architecture.mark
        rows, units = len(batch.prompts), own.tap.units(shape)
        size = (rows, batch.width, own.tap.width(shape))
        if swap is None:
            source = torch.zeros(size, dtype=forward.dtype, device=forward.device)
            mask = torch.zeros(*size[:2], units, dtype=torch.bool, device=forward.device)
        else:
            source, mask = swap.source.expand(size).clone(), swap.mask.clone()
        values = source[:, :, own.first : own.last]
        if channel == 0:
            values.zero_()
            values[:, :, -1] = mark
            mask[:, :, list(own.units)] = True
        values[torch.arange(rows, device=forward.device), columns, channel] = mark
        return Swap(mask, source)

    def _check(self, metric: Attention, total: Tensor) -> None:
        beyond = total.double() - 1
        if self._forward.loaded.architecture.has_sinks:  # a head may attend to nothing
            beyond = beyond.clamp_min(0)
        off = float(beyond.abs().max())
        if not off <= OFF[self._forward.dtype]:
            raise CircuitspecError(
                Diagnostic(
                    "CS431",
                    f"the attention of {format_name(metric.head)} over all tokens is off 1 by {off:.2g}",
                    hint="this model scales values or what heads give: use another metric",
                )
            )

    def _values(self, metric: Attention) -> _Values:
        loaded, head = self._forward.loaded, metric.head
        tap, units, channels = value_channels(head.layer, head.head, loaded.architecture, loaded.shape)
        return _Values(tap, units, channels.start, channels.stop)

    def _slot(self, metric: Activation | Projection | RoutingWeight) -> Slot:
        loaded = self._forward.loaded
        match metric:
            case RoutingWeight(expert):
                return Slot(Tap(expert.layer, "routing"), 0)
            case Activation(neuron):
                component: Neuron | Resid | Mlp = neuron
            case Projection(of):
                component = of
        return slots_of(component, loaded.architecture, loaded.shape)[0]

    def _columns(self, batch: Batch, variant: Variant, role: str) -> Tensor:
        places = self._forward.task.of(texts_of(variant)).roles[role]
        columns = [offset + places[p] for offset, p in zip(batch.offsets, batch.prompts, strict=True)]
        return torch.tensor(columns, device=self._forward.device)
