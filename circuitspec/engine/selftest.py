"""Two checks of patching itself, on the model at hand, before any result is believed (design section 5)."""

from __future__ import annotations

import torch

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.engine.batches import Batch
from circuitspec.engine.compile import Actions
from circuitspec.engine.interventions import Swap
from circuitspec.engine.records import SelfTest
from circuitspec.engine.runner import Runner
from circuitspec.engine.taps import Tap, TapKind, all_taps
from circuitspec.plan.experiment import Variant
from circuitspec.tasks.prompts import CLEAN

# Largest deviation let pass, as a fraction of the logits' standard deviation. Both checks replay the same
# arithmetic on the same shapes, so what remains is rounding in kernels that are not deterministic.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@torch.no_grad()
def self_test(runner: Runner, source: Variant, prompts: int = 2) -> SelfTest:
    """Patch a few prompts with their own values, and all of the model with another run's values.

    `source` is the other run: a corruption, or "clean" where there is none. With own values every tap is
    patched; with the other run's once the input, all heads and MLPs, and once all neurons instead of the
    MLPs. Raises CS503 where a check deviates by more than rounding.
    """
    first = runner.batches[0]
    batch = Batch(first.prompts[:prompts], first.lengths[:prompts], max(first.lengths[:prompts]), first.side)
    runner.expect(5 * len(batch.prompts))  # two plain runs, three patched ones
    taps = all_taps(runner.loaded.architecture, runner.loaded.shape)
    clean, own = runner.forward(batch, CLEAN, Actions(record=taps))
    other, values = runner.forward(batch, source, Actions(record=taps))

    def patched(replacements: dict[Tap, torch.Tensor]) -> torch.Tensor:
        swaps = {}
        for tap, value in replacements.items():
            shape = (*value.shape[:2], tap.units(runner.loaded.shape))
            swaps[tap] = Swap(torch.ones(shape, dtype=torch.bool, device=value.device), value)
        return runner.forward(batch, CLEAN, Actions(swaps))[0]

    def deviation(actual: torch.Tensor, expected: torch.Tensor) -> float:
        difference, scale = (actual - expected).abs().max(), expected.cpu().double().std()
        return float(difference) / float(scale)

    def whole(last: TapKind) -> dict[Tap, torch.Tensor]:
        """The input, all heads, and of the MLPs what `last` says: their outputs or their neurons."""
        return {t: v for t, v in values.items() if t.kind in ("z", last) or t == Tap(0, "resid")}

    result = SelfTest(
        deviation(patched(own), clean), max(deviation(patched(whole(last)), other) for last in ("mlp", "neurons"))
    )
    limit = _TOLERANCE[clean.dtype]
    for found, what in (
        (result.own_values, "patching every component with its own value changed the logits"),
        (result.all_patched, f"patching everything with the {source} run's values did not give the {source} run"),
    ):
        if not found <= limit:
            raise CircuitspecError(
                Diagnostic(
                    "CS503",
                    f"{what}: by {found:.2g} standard deviations, where {limit:g} is rounding",
                    hint="this model's family is not patched rightly; no result of it can be trusted",
                )
            )
    return result
