"""NaN and infinity: whether a run has them, and where they appear first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from circuitspec.engine.execution.batches import Batch, real_columns
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.executor import Executor
from circuitspec.engine.execution.taps import Tap, all_taps
from circuitspec.graph.shape import ModelShape
from circuitspec.models.families.architecture import Architecture


@dataclass(frozen=True)
class Origin:
    """The first place, in the order in which the model computes, that is not finite."""

    site: str  # "a3.h1", "the token embeddings"
    position: int | None  # token of the prompt; None for the logits


def broken_row(logits: Tensor, recorded: Mapping[Tap, Tensor], batch: Batch) -> int | None:
    """The first row with NaN or infinity in its logits or, padding aside, in a recorded tap; None if there is none."""
    bad = torch.zeros(len(batch.prompts), dtype=torch.bool, device=logits.device)
    rows = torch.tensor([row for row, _ in batch.readings], device=logits.device)
    bad[rows[~torch.isfinite(logits).all(-1)]] = True
    if recorded:
        real = real_columns(batch).to(logits.device)
        for tensor in recorded.values():
            bad |= (_not_finite(tensor) & real).any(-1)
    return int(bad.nonzero()[0]) if bool(bad.any()) else None


def find_origin(
    executor: Executor,
    inputs: Mapping[str, Any],
    actions: Actions,
    batch: Batch,
    row: int,
    architecture: Architecture,
    shape: ModelShape,
) -> Origin | None:
    """Run one row of a forward again with every tap recorded; None where nothing is broken this time."""
    every = all_taps(architecture, shape) | {Tap(-1, "embed"), Tap(shape.n_layers, "final")}
    with torch.no_grad():
        logits, recorded = executor.forward(
            {name: _row(value, row, len(batch.prompts)) for name, value in inputs.items()},
            Actions(
                {
                    tap: replace(
                        swap,
                        mask=swap.mask[row : row + 1],
                        source=swap.source if swap.source.shape[0] == 1 else swap.source[row : row + 1],
                        gate=None if swap.gate is None else swap.gate[row : row + 1].detach(),
                    )
                    for tap, swap in actions.swaps.items()
                },
                every,
                {tap: shift[row : row + 1] for tap, shift in actions.shifts.items()},
            ),
        )
    real = real_columns(batch)[row].to(logits.device)
    for tap in sorted(recorded):
        bad = ~torch.isfinite(recorded[tap][0]) & real[:, None]  # [pos, channel]
        if bool(bad.any()):
            column, channel = (int(i) for i in bad.nonzero()[0])
            return Origin(_name(tap, channel, shape), column - batch.offsets[row])
    return None if bool(torch.isfinite(logits).all()) else Origin("the logits", None)


def _not_finite(tensor: Tensor) -> Tensor:
    """bool `[row, pos]`. Sums are finite only if all terms are, and need no copy of the tensor."""
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    return ~torch.isfinite(tensor.sum(-1, dtype=wide))


def _row(value: Any, row: int, rows: int) -> Any:
    """One row of a model input; what has none (flags, the columns of which logits are kept) stays as it is."""
    return value[row : row + 1] if isinstance(value, Tensor) and value.ndim == 2 and len(value) == rows else value


def _name(tap: Tap, channel: int, shape: ModelShape) -> str:
    unit = channel // (tap.width(shape) // tap.units(shape))
    layer = tap.layer
    match tap.kind:
        case "embed":
            return "the token embeddings"
        case "resid":
            return f"r{layer}"
        case "resid_mid":
            return f"r{layer}.mid"
        case "qkv":
            return f"the q, k and v of a{layer}"
        case "k" | "v":
            return f"the {'key' if tap.kind == 'k' else 'value'} of a{layer}.kv{unit}"
        case "latent":
            return f"a{layer}.kv0"
        case "kv_up":
            return f"the k and v of a{layer}"
        case "z":
            return f"a{layer}.h{unit}"
        case "neurons":
            return f"m{layer}.n{unit}"
        case "shared_neurons":
            return f"m{layer}.shared.n{unit}"
        case "mlp":
            return f"m{layer}"
        case _:
            return "the residual stream after the last block"


def spoken(origin: Origin, roles: Iterable[str]) -> str:
    """`a3.h1 at token 5 (S2)`."""
    if origin.position is None:
        return origin.site
    named = ", ".join(sorted(roles))
    return f"{origin.site} at token {origin.position}" + (f" ({named})" if named else "")
