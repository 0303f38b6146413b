"""Whether attention patterns are read and patched rightly on the model at hand, before any result is believed."""

from __future__ import annotations

import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.batches import Batch
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.interventions import Swap
from circuitspec.engine.execution.rounding import TOLERANCE
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.forward import Forward
from circuitspec.engine.metrics.internal_metrics import OFF
from circuitspec.engine.validation.two_runs import OTHER, lengths_for, off, random_prompts
from circuitspec.prompts.prompt_set import CLEAN


@torch.no_grad()
def pattern_test(forward: Forward) -> None:
    """Read the patterns of two prompts of random tokens, and patch them all with their own, and with another run's.

    Weights must add up to one (at most, where heads may attend to nothing), own patterns change nothing, and another
    run's patterns beside that run's values and all else that is added to the stream must give that run. Raises CS520
    where they do not: where a head's output is not the weighted sum of what its value projection gives.
    """
    loaded = forward.loaded
    known = sorted({token for ids in forward.task.ids.values() for prompt in ids for token in prompt})
    task = random_prompts(known, loaded.shape.max_positions, lengths_for(loaded.model))
    run = forward.on(task)
    batch = Batch((0, 1), task.lengths, max(task.lengths), "right")
    shape, layers = loaded.shape, loaded.shape.layers_with_heads
    patterns = frozenset(Tap(layer, "pattern") for layer in layers)
    values = frozenset(Tap(layer, "pattern").acts_at(loaded.architecture)[0] for layer in layers)
    others = {Tap(0, "resid"), *(Tap(layer, "mixer") for layer in shape.mixers)}
    others |= {Tap(layer, "mlp") for layer in range(shape.n_layers) if shape.has_mlps}
    run.expect(6 * len(batch.prompts))
    logits, own = run.forward(batch, CLEAN, Actions(record=patterns))
    other_logits, other = run.forward(batch, OTHER, Actions(record=patterns | values | others))
    sinks = loaded.architecture.has_sinks
    total = max(float(_off_one(own[tap], batch, shape.n_heads, at_most=sinks)) for tap in patterns)
    if not total <= OFF[run.dtype]:
        raise _unfit(f"the weights of a head over all tokens are off 1 by {total:.2g}")

    def patched(given: dict[Tap, torch.Tensor]) -> torch.Tensor:
        swaps = {}
        for tap, value in given.items():
            mask = torch.ones(*value.shape[:2], tap.units(shape), dtype=torch.bool, device=value.device)
            swaps[tap] = Swap(mask, value)
        return run.forward(batch, CLEAN, Actions(swaps))[0]

    limit = TOLERANCE[run.dtype]
    found = off(patched({tap: own[tap] for tap in patterns}), logits)
    if not found <= limit:
        raise _unfit(f"patching every pattern with its own weights changes the logits by {found:.2g} deviations")
    found = off(patched(other), other_logits)
    if not found <= limit:
        raise _unfit(f"the patterns and values of another run do not give that run: off by {found:.2g} deviations")


def _off_one(pattern: torch.Tensor, batch: Batch, heads: int, *, at_most: bool) -> torch.Tensor:
    """How far weights are from adding up to one, or to `at_most` that, at tokens of the prompts."""
    total = pattern.view(*pattern.shape[:2], heads, -1).double().sum(-1)
    rows = [total[row, o : o + n] for row, (o, n) in enumerate(zip(batch.offsets, batch.lengths, strict=True))]
    off = torch.cat(rows) - 1
    return off.clamp_min(0).max() if at_most else off.abs().max()


def _unfit(what: str) -> CircuitspecError:
    return CircuitspecError(
        Diagnostic(
            "CS520",
            f"this model's attention patterns cannot be patched: {what}",
            hint="what its heads give is not the weighted sum of what the value projection gives: patch heads or "
            "key-value heads instead",
        )
    )
