"""First-order effects of restoring every patched component at once: one backward pass through a patched run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from circuitspec.engine.compile import Actions
from circuitspec.engine.runner import Runner, taps_of
from circuitspec.engine.taps import Tap, slot_of
from circuitspec.graph.circuit import NodeComponent
from circuitspec.plan.experiment import Experiment


@dataclass(frozen=True)
class Screen:
    """Estimated change of a metric when one component alone is restored, by component.

    `effects[component]` is `[prompt]`, in the metric's unit; `by_role[component][role]` is the part of
    the mean effect that falls on the tokens of that role.
    """

    metric: str
    effects: Mapping[NodeComponent, NDArray[np.float64]]
    by_role: Mapping[NodeComponent, Mapping[str, float]]


def screen_restorations(runner: Runner, experiment: Experiment, metric: str) -> Screen:
    """Attribution of every patched component of `experiment` (Nanda 2023, at the patched run).

    With patched value = own + gate * (source - own) and every gate at 1, restoring a component moves its
    gate to 0, so to first order the metric changes by minus the derivative with respect to that gate.
    """
    if experiment.source is None:
        raise ValueError("only a patched experiment can be screened")
    taps = taps_of([experiment])
    n = runner.task.n
    effects: dict[NodeComponent, NDArray[np.float64]] = {site.component: np.zeros(n) for site in experiment.sites}
    by_role: dict[NodeComponent, dict[str, float]] = {c: {} for c in effects}
    for batch in runner.batches:
        with torch.no_grad():
            values = runner.source_values(batch, experiment.source, taps)
            swaps = runner.swaps(batch, experiment, values)
        gates: dict[Tap, Tensor] = {}
        for tap, swap in swaps.items():
            gates[tap] = swap.mask.to(swap.source.dtype).requires_grad_()
            swaps[tap] = replace(swap, gate=gates[tap])
        # pyvene writes patched values into the module's own tensor; the fused attention kernels keep that
        # tensor for their backward pass, the plain one does not
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            logits, _ = runner.forward(batch, experiment.base, Actions(swaps))
            total = runner.metrics(batch, logits, None)[metric].sum()
            slopes = torch.autograd.grad(total, list(gates.values()))
        runner.count_backward(batch)
        rows = list(batch.prompts)
        offsets = torch.tensor(batch.offsets)
        gradients = {tap: (slope * swaps[tap].mask).double().cpu() for tap, slope in zip(gates, slopes, strict=True)}
        for component in effects:
            slot = slot_of(component)
            effect = -gradients[slot.tap][:, :, slot.unit]  # [row, pos]
            effects[component][rows] = effect.sum(1).numpy()
            for role, columns in runner.task.roles.items():
                where = offsets + torch.tensor([columns[p] for p in rows])
                at = effect[torch.arange(len(rows)), where].sum()
                by_role[component][role] = by_role[component].get(role, 0.0) + float(at) / n
    return Screen(metric, effects, by_role)
