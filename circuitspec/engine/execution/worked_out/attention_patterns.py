"""What heads attend to, read and patched without computing any attention anew.

What a head gives at a query position is the sum of the values before it, each times the weight with which it is
attended to. So the weights are what comes out where the values are 1 in one channel at one token and 0 elsewhere,
whatever the family's attention does to scores (caps, windows, scales); and a patched pattern is put in by giving, in
place of what the model computed, the source's weights times the values of the very same forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from circuitspec.engine.execution.interventions import Edit, Swap
from circuitspec.engine.execution.taps import Tap, value_channels
from circuitspec.graph.shape import ModelShape
from circuitspec.models.families.architecture import Architecture


@dataclass(frozen=True)
class Mixing:
    """What patched patterns ask of one forward: `before` and `after` of the interventions at these taps."""

    before: Mapping[Tap, Edit] = field(default_factory=dict)
    after: Mapping[Tap, Callable[[Tensor], None]] = field(default_factory=dict)

    @property
    def taps(self) -> frozenset[Tap]:
        return frozenset(self.before) | frozenset(self.after)


def mixing(patterns: Mapping[Tap, Swap], architecture: Architecture, shape: ModelShape) -> Mixing:
    """How the heads of some layers give what these patterns make of the values of their own forward.

    Each swap is of a layer's patterns: its mask `[row, query pos, head]`, its source `[row, query pos, head * key
    pos]`. Raises ValueError for a swap that is scaled.
    """
    before: dict[Tap, Edit] = {}
    after: dict[Tap, Callable[[Tensor], None]] = {}
    for tap, swap in patterns.items():
        if swap.gate is not None:
            raise ValueError("a pattern is replaced, or it is not")
        values, channels = _values_of(tap.layer, architecture, shape)
        layer = _Layer(swap, channels, architecture, shape)
        after[values] = layer.keep
        before[Tap(tap.layer, "z")] = layer.mix
    return Mixing(before, after)


@dataclass
class _Layer:
    """One layer's patterns in one forward: values come by, then what the heads give."""

    swap: Swap
    channels: Tensor  # of the values that heads read, `[n_heads, d_head]`
    architecture: Architecture
    shape: ModelShape
    values: Tensor | None = None

    def keep(self, projected: Tensor) -> None:
        self.values = self.architecture.clipped(projected)[..., self.channels]

    def mix(self, z: Tensor) -> Tensor:
        """z `[row, pos, n_heads * d_head]` with the masked heads giving what their patterns make of the values."""
        values = self.values
        if values is None:
            raise ValueError("the values of a layer come before what its heads give")
        self.values = None  # of this forward alone
        rows, width = z.shape[:2]
        weights = self.swap.source.expand(rows, width, self.shape.n_heads * width)
        weights = weights.view(rows, width, self.shape.n_heads, width)
        given = torch.einsum("bqhk,bkhd->bqhd", weights, values)
        own = z.view(rows, width, self.shape.n_heads, -1)
        return torch.where(self.swap.mask.unsqueeze(-1), given, own).flatten(2)


def _values_of(layer: int, architecture: Architecture, shape: ModelShape) -> tuple[Tap, Tensor]:
    """The tap of a layer's values, and the channels of the one that each query head reads, `[n_heads, d_head]`."""
    found = [value_channels(layer, head, architecture, shape) for head in range(shape.n_heads)]
    return found[0][0], torch.tensor([list(range(own.start, own.stop)) for _, _, own in found])


# -- reading -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PatternReading:
    """A forward that shows the patterns of some layers: every row once as it is, and in copies with marked values.

    Copies of a row compute the same queries and keys as the row itself, and so attend to the same; what heads give in
    them is read, and then replaced by what they give in the row itself, so that the next layer sees the same again.
    """

    layers: tuple[int, ...]
    rows: int
    width: int
    architecture: Architecture
    shape: ModelShape

    @property
    def copies(self) -> int:
        """Marked copies: as many as it takes for every token to have a channel of its own."""
        return -(-self.width // self.shape.d_head)

    def inputs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The model's inputs for all copies; nothing is kept of keys and values."""
        return {
            name: value.repeat(1 + self.copies, 1) if isinstance(value, Tensor) and value.ndim == 2 else value
            for name, value in given.items()
            if name != "past_key_values"
        } | {"use_cache": False}

    def shifts(self, given: Mapping[Tap, Tensor]) -> dict[Tap, Tensor]:
        return {tap: shift.repeat(1 + self.copies, 1, 1) for tap, shift in given.items()}

    def edits(self, found: dict[Tap, Tensor]) -> dict[Tap, Edit]:
        """What is done at each layer's values and heads; patterns are put into `found`, by `Tap(layer, "pattern")`."""
        edits: dict[Tap, Edit] = {}
        for layer in self.layers:
            tap, channels = _values_of(layer, self.architecture, self.shape)
            edits[tap] = lambda own, channels=channels: self._marked(own, channels)  # type: ignore[misc]
            edits[Tap(layer, "z")] = lambda own, layer=layer: self._read(own, layer, found)  # type: ignore[misc]
        return edits

    def _marked(self, projected: Tensor, channels: Tensor) -> Tensor:
        d_head = self.shape.d_head
        marked = projected.clone()
        marks = (
            torch.eye(self.copies * d_head, dtype=marked.dtype, device=marked.device)[: self.width]
            * self.architecture.mark
        )
        for copy in range(self.copies):
            rows = slice((1 + copy) * self.rows, (2 + copy) * self.rows)
            here = marks[:, copy * d_head : (copy + 1) * d_head]  # [pos, channel]
            marked[rows, :, channels] = here.unsqueeze(1)
        return marked

    def _read(self, z: Tensor, layer: int, found: dict[Tap, Tensor]) -> Tensor:
        split = z.view(1 + self.copies, self.rows, self.width, self.shape.n_heads, self.shape.d_head)
        weights = (
            torch.cat(list(split[1:]), dim=-1)[..., : self.width] / self.architecture.mark
        )  # [row, query, head, key]
        found[Tap(layer, "pattern")] = weights.flatten(2).clone()
        return split[:1].expand_as(split).reshape(z.shape)


def reading_of(
    taps: frozenset[Tap], inputs: Mapping[str, Any], architecture: Architecture, shape: ModelShape
) -> PatternReading:
    """The forward that shows these patterns for these inputs."""
    rows, width = inputs["input_ids"].shape
    return PatternReading(tuple(sorted(tap.layer for tap in taps)), rows, width, architecture, shape)


def head_values(projected: Tensor, layer: int, architecture: Architecture, shape: ModelShape) -> Tensor:
    """The value that each query head of a layer reads, `[row, pos, n_heads, d_head]`, from what the projection gave."""
    return architecture.clipped(projected)[..., _values_of(layer, architecture, shape)[1]]


def patterns_in(taps: Iterable[Tap]) -> frozenset[Tap]:
    """Those that are patterns, and so no tensors of a module."""
    return frozenset(tap for tap in taps if tap.kind == "pattern")
