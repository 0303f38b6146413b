"""Activations and attention patterns of a run, plain or patched, as arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.batches import Batch, laid_out
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.interventions import Swap
from circuitspec.engine.execution.taps import Slot, Tap, value_channels
from circuitspec.engine.forward import Forward
from circuitspec.engine.metrics.internal_metrics import OFF
from circuitspec.experiments.experiment import Experiment, Source, texts_of
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.grammar.names import format_name

ValuesOf: TypeAlias = Callable[[Batch, Source, frozenset[Tap]], Mapping[Tap, Tensor]]
"""What a source gives at taps for a batch's rows."""

Array: TypeAlias = NDArray[np.float64] | NDArray[np.float32]


@dataclass(frozen=True)
class Wanted:
    """One thing to record: slices of taps side by side, a head's attention pattern, or (neither) the logits.

    `roles` are the positions of it, in this order, all tokens of each; None: every token.
    """

    name: str
    slots: tuple[Slot, ...] = ()
    pattern: Head | None = None
    roles: tuple[str, ...] | None = None


@torch.no_grad()
def record_values(
    forward: Forward, values_of: ValuesOf, experiment: Experiment, wanted: Sequence[Wanted]
) -> dict[str, Array]:
    """Each by its name, as the experiment's run has it, with everything patched that it patches (node level).

    `values_of` gives what is patched in (`source_values` of the runner).

    Activations are `[prompt, token, channel]`, with the tokens of roles alone where there are some; patterns are
    `[prompt, query token, key token]` (queries likewise), weights of each query that add up to 1; logits
    `[prompt, vocabulary]`, of the last token. Tokens count from a prompt's first; what is behind the end of a shorter
    prompt or position is NaN. float64 for models in float64, otherwise float32.

    Raises CS502 for values that are not finite, CS431 where attention weights do not add up to 1.
    """
    task = forward.task
    longest = max(map(len, task.of(texts_of(experiment.base)).ids))
    found: dict[str, list[Array]] = {one.name: [] for one in wanted}
    order: list[int] = []
    for batch, recorded in forward.in_batches(lambda part: _of_batch(forward, values_of, experiment, wanted, part)):
        order += batch.prompts
        for name, rows in recorded.items():
            found[name] += rows
    arrays = {}
    for one in wanted:
        first = found[one.name][0]
        most = longest if one.roles is None else max(map(len, found[one.name]))
        tokens = (most,) if one.slots or one.pattern else ()
        width = longest if one.pattern is not None else first.shape[-1]
        whole = np.full((task.n, *tokens, width), np.nan, dtype=first.dtype)
        for prompt, row in zip(order, found[one.name], strict=True):
            whole[prompt][tuple(slice(size) for size in row.shape)] = row
        arrays[one.name] = whole
    return arrays


def _of_batch(
    forward: Forward, values_of: ValuesOf, experiment: Experiment, wanted: Sequence[Wanted], batch: Batch
) -> Mapping[str, list[Array]]:
    """For each name an array a row of the batch, without padding."""
    batch = laid_out(forward.task, batch, experiment.base)
    swaps: Mapping[Tap, Swap] = {}
    if experiment.source is not None:
        values = values_of(batch, experiment.source, forward.taps_of([experiment]))
        swaps = forward.swaps(batch, experiment, values)
    taps = frozenset(slot.tap for one in wanted for slot in one.slots)
    forward.expect(len(batch.prompts))
    logits, recorded = forward.forward(batch, experiment.base, Actions(swaps, record=taps))
    as_run = {tap: _put_in(own, swaps.get(tap), tap.units(forward.loaded.shape)) for tap, own in recorded.items()}
    layers = dict.fromkeys(one.pattern.layer for one in wanted if one.pattern is not None)
    patterns: dict[Head, Tensor] = {}
    for layer in layers:
        heads = dict.fromkeys(
            one.pattern for one in wanted if one.pattern is not None and one.pattern.layer == layer
        )  # each once, under however many names
        patterns |= _patterns(forward, batch, experiment, swaps, tuple(heads))
    own = forward.task.of(texts_of(experiment.base))
    found: dict[str, list[Array]] = {one.name: [] for one in wanted}
    for row, (prompt, offset, length) in enumerate(zip(batch.prompts, batch.offsets, batch.lengths, strict=True)):
        inner = slice(offset, offset + length)
        for one in wanted:
            if one.pattern is not None:
                value = patterns[one.pattern][row, inner, inner]
            elif one.slots:
                value = torch.cat([_slice(as_run[slot.tap][row, inner], slot, forward) for slot in one.slots], dim=-1)
            else:
                found[one.name].append(_array(logits[row]))
                continue
            if one.roles is not None:
                value = value[[token for role in one.roles for token in own.tokens_at(role, prompt)]]
            found[one.name].append(_array(value))
    return found


def _put_in(own: Tensor, swap: Swap | None, units: int) -> Tensor:
    """What a tap gives on, `[row, pos, channel]`: what was recorded there is from before the patch."""
    if swap is None:
        return own
    mask = swap.mask.repeat_interleave(own.shape[-1] // units, dim=-1)
    return torch.where(mask, swap.source.expand_as(own), own)


def _slice(values: Tensor, slot: Slot, forward: Forward) -> Tensor:
    width = values.shape[-1] // slot.tap.units(forward.loaded.shape)
    return values[..., slot.unit * width : (slot.unit + 1) * width]


def _array(value: Tensor) -> Array:
    found = value.detach().cpu()
    return (found if found.dtype == torch.float64 else found.float()).numpy()


def _patterns(
    forward: Forward, batch: Batch, experiment: Experiment, swaps: Mapping[Tap, Swap], heads: Sequence[Head]
) -> dict[Head, Tensor]:
    """The attention weights of heads of one layer, `[row, query, key]`.

    Attention is linear in the values: where the values of a head are 1 in a channel of their own for each of some
    tokens, what the head gives is the weights of these tokens. As many runs as it takes for all tokens, by the number
    of a head's channels; all that comes before is as in the run itself.
    """
    loaded, shape = forward.loaded, forward.loaded.shape
    z = Tap(heads[0].layer, "z")
    values = [value_channels(head.layer, head.head, loaded.architecture, shape) for head in heads]
    tap = values[0][0]
    units, rows = tap.units(shape), len(batch.prompts)
    parts: dict[Head, list[Tensor]] = {head: [] for head in heads}
    for start in range(0, batch.width, shape.d_head):
        columns = torch.arange(start, min(start + shape.d_head, batch.width), device=forward.device)
        size = (rows, batch.width, tap.width(shape))
        known = swaps.get(tap)
        if known is None:
            source = torch.zeros(size, dtype=forward.dtype, device=forward.device)
            mask = torch.zeros(rows, batch.width, units, dtype=torch.bool, device=forward.device)
        else:
            source = known.source.expand(size).clone()
            mask = known.mask.expand(rows, batch.width, units).clone()
        for _, own, channels in values:
            mask[:, :, list(own)] = True
            source[:, :, channels] = 0
            source[:, columns, channels.start + columns - start] = loaded.architecture.mark
        marked = Actions({**swaps, tap: Swap(mask, source)}, record=frozenset({z}))
        forward.expect(rows)
        _, recorded = forward.readout(batch, experiment.base, marked)
        given = recorded[z].reshape(rows, batch.width, shape.n_heads, -1)
        for head in heads:
            parts[head].append(given[:, :, head.head, : len(columns)] / loaded.architecture.mark)
    found = {head: torch.cat(pieces, dim=-1) for head, pieces in parts.items()}
    for head, weights in found.items():
        _check(head, weights, batch, forward)
    return found


def _check(head: Head, weights: Tensor, batch: Batch, forward: Forward) -> None:
    """CS431 unless the weights of every query that is a prompt's add up to 1."""
    totals = weights.double().sum(-1)
    for row, (offset, length) in enumerate(zip(batch.offsets, batch.lengths, strict=True)):
        off = float((totals[row, offset : offset + length] - 1).abs().max())
        if not off <= OFF[forward.dtype]:
            raise CircuitspecError(
                Diagnostic(
                    "CS431",
                    f"the attention of {format_name(head)} over all tokens is off 1 by {off:.2g}",
                    hint="this model scales values or what heads give, or attends to a sink: its pattern is not shown",
                )
            )


def positions_wanted(wanted: Sequence[Wanted]) -> set[str]:
    """Every position that is named."""
    return {role for one in wanted for role in one.roles or ()}
