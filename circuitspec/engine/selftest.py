"""Two checks of patching itself, on the model at hand, before any result is believed (design section 5)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.engine.batches import Batch, where_mask
from circuitspec.engine.compile import Actions
from circuitspec.engine.edges import EdgeProgram
from circuitspec.engine.interventions import Swap
from circuitspec.engine.records import SelfTest
from circuitspec.engine.runner import Runner
from circuitspec.engine.taps import Tap, TapKind, all_taps
from circuitspec.graph.edges import Sender, receivers, senders, senders_before
from circuitspec.graph.where import Where
from circuitspec.plan.edge_level import patching
from circuitspec.plan.experiment import ZEROS, Variant
from circuitspec.spec.components import Input
from circuitspec.tasks.prompts import CLEAN

# Largest deviation let pass, as a fraction of the logits' standard deviation. The checks replay the same arithmetic on
# the same shapes, so what remains is rounding: in kernels that are not deterministic, and where edges are summed up in
# another order (RMS norms of transformers compute in float32 whatever the model's dtype).
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@torch.no_grad()
def self_test(runner: Runner, source: Variant, prompts: int = 2, *, edges: bool = False) -> SelfTest:
    """Patch a few prompts with their own values, and all of the model with another run's values.

    With `edges` also every edge of the model, by its own and by the other run's values of its sender.

    `source` is the other run: a corruption, or "clean" where there is none. With own values every tap but the
    later residual streams is patched; with the other run's once the input, all heads and MLPs, once all neurons
    instead of the MLPs, and once all heads and MLPs without the input. Raises CS503 where a check deviates by
    more than rounding.
    """
    first = runner.batches[0]
    batch = Batch(first.prompts[:prompts], first.lengths[:prompts], max(first.lengths[:prompts]), first.side)
    # two plain runs, four patched ones; two of all edges, one of all but those from the input, and one to compare with
    runner.expect((10 if edges else 6) * len(batch.prompts))
    taps = all_taps(runner.loaded.architecture, runner.loaded.shape) | {Tap(runner.loaded.shape.n_layers, "final")}
    if edges:
        taps |= frozenset(runner.stream.recorded_at(sender) for sender in senders(runner.loaded.shape))
    clean, own = runner.forward(batch, CLEAN, Actions(record=taps))
    other, values = runner.forward(batch, source, Actions(record=taps))

    def patched(replacements: dict[Tap, torch.Tensor]) -> torch.Tensor:
        swaps = {tap: _all_of(runner, tap, value) for tap, value in replacements.items()}
        return runner.forward(batch, CLEAN, Actions(swaps))[0]

    def deviation(actual: torch.Tensor, expected: torch.Tensor) -> float:
        difference, scale = (actual - expected).abs().max(), expected.cpu().double().std()
        return float(difference) / float(scale)

    def parts(run: Mapping[Tap, torch.Tensor]) -> dict[Tap, torch.Tensor]:
        """All but the later residual streams, which would cover up what went wrong before them."""
        return {t: v for t, v in run.items() if t.kind not in ("resid", "resid_mid", "final") or t == Tap(0, "resid")}

    def whole(last: TapKind) -> dict[Tap, torch.Tensor]:
        """The input, all heads, and of the MLPs what `last` says: their outputs or their neurons."""
        return {t: v for t, v in values.items() if t.kind in ("z", last) or t == Tap(0, "resid")}

    result = SelfTest(
        deviation(patched(parts(own)), clean),
        max(
            *(deviation(patched(whole(last)), other) for last in ("mlp", "neurons")),
            _lost_patches(runner, batch, own, values),
        ),
    )
    if edges:
        result = SelfTest(
            max(result.own_values, deviation(_all_edges(runner, batch, own), clean)),
            max(
                result.all_patched,
                deviation(_all_edges(runner, batch, values), other),
                deviation(*_lost_edges(runner, batch, own, values)),
            ),
        )
    limit = TOLERANCE[clean.dtype]
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


def _all_of(runner: Runner, tap: Tap, value: torch.Tensor) -> Swap:
    """The whole tap, at every position, replaced by `value`."""
    shape = (*value.shape[:2], tap.units(runner.loaded.shape))
    return Swap(torch.ones(shape, dtype=torch.bool, device=value.device), value)


def _lost_edges(
    runner: Runner, batch: Batch, own: Mapping[Tap, torch.Tensor], other: Mapping[Tap, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits with the edges from all heads and MLPs carrying the other run's values, and what they must be.

    With those from the input too, every component computes the other run's value by itself, so that it would not be
    seen if a contribution were taken for another; so the logits must read the own input and what the other run adds.
    """
    first, final = Tap(0, "resid"), Tap(runner.loaded.shape.n_layers, "final")
    read = own[first] + other[final] - other[first]
    expected = runner.forward(batch, CLEAN, Actions({final: _all_of(runner, final, read)}))[0]
    return _all_edges(runner, batch, other, but=(Input(),)), expected


def _all_edges(
    runner: Runner, batch: Batch, values: Mapping[Tap, torch.Tensor], but: tuple[Sender, ...] = ()
) -> torch.Tensor:
    """The logits of the clean prompts with every edge (but those from some) carrying these values of its sender."""
    shape, everywhere = runner.loaded.shape, Where.everywhere()
    order = senders(shape)
    cut = {r: {s: everywhere for s in order[: senders_before(r, shape)] if s not in but} for r in receivers(shape)}
    program = EdgeProgram(patching("clean", ZEROS, cut), runner.stream)  # which source is said does not matter here
    columns = {everywhere: where_mask(runner.task, batch, everywhere, runner.device)}
    edits = program.edits(columns, runner.stream.with_scaled(values))
    return runner.forward(batch, CLEAN, Actions(edits=edits))[0]


def _lost_patches(
    runner: Runner, batch: Batch, own: Mapping[Tap, torch.Tensor], other: Mapping[Tap, torch.Tensor]
) -> float:
    """How far the final stream is off when every head and MLP is given the other run's values, but not the input.

    What blocks add to the stream is then the other run's, so that the final stream must be its own input plus that;
    with the input patched too, all of the model would be the other run even if another patch were lost. In units of
    the terms' size, element by element.
    """
    first, final = Tap(0, "resid"), Tap(runner.loaded.shape.n_layers, "final")
    swaps = {tap: _all_of(runner, tap, value) for tap, value in other.items() if tap.kind in ("z", "mlp")}
    _, recorded = runner.forward(batch, CLEAN, Actions(swaps, frozenset({final})))
    terms = [own[first].cpu().double(), other[final].cpu().double(), -other[first].cpu().double()]
    size = torch.stack([term.abs() for term in terms]).sum(0)
    off = (recorded[final].cpu().double() - torch.stack(terms).sum(0)).abs() / (size + size.mean())
    real = torch.zeros(off.shape[:2], dtype=torch.bool)  # padding is not compared
    for row, (offset, length) in enumerate(zip(batch.offsets, batch.lengths, strict=True)):
        real[row, offset : offset + length] = True
    return float(off[real].max())
