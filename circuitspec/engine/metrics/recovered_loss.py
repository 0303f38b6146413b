"""The loss on the prompts' own tokens with a value whole, replaced by its reconstruction, and replaced by zeros."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from circuitspec.engine.execution.batches import Batch, later_columns, model_inputs
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.interventions import Swap
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.forward import Forward
from circuitspec.graph.shape import DictionarySite
from circuitspec.prompts.output_metrics import upcast
from circuitspec.prompts.prompt_set import CLEAN

LOGITS_BYTES = 2**28  # of one forward, since logits are wanted at every token


@dataclass(frozen=True)
class RecoveredLoss:
    """Cross entropy of the clean prompts' next tokens, in nats a token: of each token after a prompt's first.

    clean: of the model as it is; reconstructed, ablated: with the value replaced at every token but a prompt's first,
    by what the dictionary says of it and by zeros. nan where a run is not finite, or no prompt has a second token.
    """

    name: str
    clean: float
    reconstructed: float
    ablated: float
    tokens: int

    @property
    def recovered(self) -> float | None:
        """(ablated - reconstructed) / (ablated - clean); None where zeros leave the loss no larger, or not a number."""
        lost = self.ablated - self.clean
        if not lost > 0 or not math.isfinite(lost):
            return None
        share = (self.ablated - self.reconstructed) / lost
        return share if math.isfinite(share) else None


@torch.no_grad()
def recovered_losses(forward: Forward) -> tuple[RecoveredLoss, ...]:
    """Of every dictionary that the model has beside it: a pass over the prompts, and two for each.

    Raises ValueError where answers follow the prompts, whose tokens are no text.
    """
    if forward.task.sequences is not None:
        raise ValueError("the loss is of prompts alone")
    shape = forward.loaded.shape
    runs: dict[tuple[str, str], Callable[[Batch], Actions]] = {("", "clean"): lambda batch: Actions()}
    for site in shape.dictionaries:
        runs[site.name, "reconstructed"] = _reconstructed(forward, site)
        runs[site.name, "ablated"] = _ablated(forward, site)
    forward.expect(forward.task.n * len(runs))
    most = max(1, LOGITS_BYTES // (4 * forward.task.longest * shape.n_vocab))

    def losses(batch: Batch) -> dict[tuple[str, str], tuple[float, int]]:
        return {run: _loss(forward, batch, actions(batch)) for run, actions in runs.items()}

    sums = dict.fromkeys(runs, 0.0)
    tokens = 0
    for _, found in forward.in_batches(losses, most):
        tokens += found["", "clean"][1]
        sums = {run: total + found[run][0] for run, total in sums.items()}
    mean = {run: total / tokens if tokens else math.nan for run, total in sums.items()}
    return tuple(
        RecoveredLoss(one.name, mean["", "clean"], mean[one.name, "reconstructed"], mean[one.name, "ablated"], tokens)
        for one in shape.dictionaries
    )


def _loss(forward: Forward, batch: Batch, actions: Actions) -> tuple[float, int]:
    """The sum over the batch's tokens that follow another, and how many these are."""
    inputs = model_inputs(forward.task, batch, CLEAN, forward.device)
    every = torch.arange(batch.width, device=forward.device)
    logits, _ = forward.executor.forward({**inputs, "logits_to_keep": every}, actions)
    forward.count(len(batch.cases))
    follows = later_columns(batch)[:, 1:].to(forward.device)
    told = upcast(logits)[:, :-1][follows]
    each = torch.nn.functional.cross_entropy(told, inputs["input_ids"][:, 1:][follows], reduction="none")
    return float(each.double().sum()), len(each)


def _reconstructed(forward: Forward, site: DictionarySite) -> Callable[[Batch], Actions]:
    """The error replaced by zeros."""

    def actions(batch: Batch) -> Actions:
        nothing = torch.zeros(1, 1, 1, dtype=forward.dtype, device=forward.device)
        return Actions(swaps={Tap(site.place.layer, "error", site.name): Swap(_replaced(forward, batch), nothing)})

    return actions


def _ablated(forward: Forward, site: DictionarySite) -> Callable[[Batch], Actions]:
    """The whole value replaced by zeros."""
    written = Tap(site.place.layer, "error", site.name).explained(forward.loaded.shape)[1]

    def actions(batch: Batch) -> Actions:
        replaced = _replaced(forward, batch)
        return Actions(edits={written: lambda value: value.masked_fill(replaced, 0.0)})

    return actions


def _replaced(forward: Forward, batch: Batch) -> Tensor:
    """bool `[row, pos, 1]`: all tokens but each prompt's first."""
    return later_columns(batch).unsqueeze(-1).to(forward.device)
