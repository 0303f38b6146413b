"""The logit lens: what the model would say if the residual stream after a layer were its last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.batches import Batch
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.interventions import Edit
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.forward import Forward
from circuitspec.prompts.output_metrics import upcast
from circuitspec.prompts.prompt_set import CLEAN


@torch.no_grad()
def metrics_by_layer(forward: Forward, variant: str = CLEAN) -> Sequence[Mapping[str, NDArray[np.float64]]]:
    """Every metric of the output, `[prompt]`, of the stream before the first block and after each block, in order.

    Read at the last token, where the answer is. The model's own last norm, unembedding and whatever comes after it
    (scales, caps) compute the logits: the run is made once more with its blocks left out and the stream given to the
    last norm. So the last entry is the model's output itself. `kl` is from the clean run's distribution. Raises CS326
    where the last stream is not what layers have added to the first.
    """
    shape = forward.loaded.shape
    if shape.why_no_edges:
        raise CircuitspecError(
            Diagnostic(
                "CS326",
                f"the logit lens says nothing of a {shape.family}: {shape.why_no_edges}",
                hint="patch heads and MLPs instead, and read the answer's metrics of the model's own output",
            )
        )
    layers = shape.n_layers
    found: list[dict[str, NDArray[np.float64]]] = [{} for _ in range(layers + 1)]
    forward.expect((layers + 2) * forward.task.n)
    for batch, measured in forward.in_batches(lambda batch: _measured(forward, batch, variant)):
        for entry, metrics in zip(found, measured, strict=True):
            for name, values in metrics.items():
                entry.setdefault(name, np.zeros(forward.task.n))[list(batch.prompts)] = values.cpu().double().numpy()
    return found


def _measured(forward: Forward, batch: Batch, variant: str) -> list[dict[str, Tensor]]:
    layers = forward.loaded.shape.n_layers
    streams = [*(Tap(layer, "resid") for layer in range(layers)), Tap(layers, "final")]
    logits, recorded = forward.forward(batch, variant, Actions(record=frozenset(streams)))
    clean = upcast(logits).log_softmax(-1) if variant == CLEAN else forward.clean_logprobs(batch)
    measured = []
    for tap in streams:
        seen = Actions(edits={streams[-1]: _given(recorded[tap])}, first_block=layers)
        through, _ = forward.forward(batch, variant, seen)
        measured.append(forward.metrics(batch, through, clean, variant))
    return measured


def _given(stream: Tensor) -> Edit:
    """This stream in place of the run's own."""
    return lambda own: stream
