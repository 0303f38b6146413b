"""Whether a prompt's run is its own: the same in a batch with others as alone, and whatever ran before it."""

from __future__ import annotations

from functools import partial

import torch

from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.engine.execution.batches import Batch
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.forward import Forward
from circuitspec.engine.validation.two_runs import off
from circuitspec.prompts.prompt_set import CLEAN

# The largest deviation of logits that is let pass, in their standard deviations: batches of other sizes are computed by
# other kernels, which round otherwise.
ROUNDING = {torch.float64: 1e-5, torch.float32: 1e-3, torch.float16: 1e-1, torch.bfloat16: 0.5}
PROMPTS = 5  # that are run in four forwards


@torch.no_grad()
def mixing(runner: Forward) -> tuple[Diagnostic, ...]:
    """CS352 where the shortest and the longest prompt, run together, are not what each of them is alone.

    Nor the first of them after the second what it was before. Two prompts of one length where the runner puts no others
    together; nothing where it never puts two together, or has no memory for it.
    """
    pair = _pair(runner)
    if pair is None:
        return ()
    return tuple(found for _, each in runner.in_parts(pair, partial(_compared, runner)) for found in each)


def _compared(runner: Forward, pair: Batch) -> tuple[Diagnostic, ...]:
    """CS352 for these two prompts; for one alone, which is compared with none, only that it can be run."""
    if len(pair.prompts) == 1:
        runner.expect(1)
        runner.forward(pair, CLEAN, Actions())
        return ()
    first, second = (Batch((p,), (n,), n, pair.side) for p, n in zip(pair.prompts, pair.lengths, strict=True))
    runner.expect(PROMPTS)
    alone, other, again = (runner.forward(one, CLEAN, Actions())[0] for one in (first, second, first))
    both = runner.forward(pair, CLEAN, Actions())[0]
    limit = ROUNDING[both.dtype]
    return tuple(
        Diagnostic(
            "CS352",
            f"the model gives other logits for a prompt where {what}: by {found:.2g} standard deviations, "
            f"where {limit:g} is rounding",
            hint="something in its forward goes over all rows of a batch, or lets tokens see what is right of them, or "
            "remembers earlier forwards: no batch of this model can be believed",
            data={"prompts": list(pair.prompts)},
        )
        for found, what in (
            (off(again, alone), f"{_named(runner, second)} was run before it"),
            (off(both[:1], alone), f"{_named(runner, second)} is in the same batch"),
            (off(both[1:], other), f"{_named(runner, first)} is in the same batch"),
        )
        if not found <= limit
    )


def _pair(runner: Forward) -> Batch | None:
    """Two prompts that may share a batch, as unlike in length as there are."""
    order = max(runner.batches, key=lambda batch: len(batch.cases)).cases
    if len(order) < 2:
        return None
    if not runner.by_length:
        order = tuple(p for batch in runner.batches for p in batch.cases)
    prompts = order[0], order[-1]
    lengths = tuple(runner.task.lengths[p] for p in prompts)
    return Batch(prompts, lengths, max(lengths), runner.batches[0].side)


def _named(runner: Forward, one: Batch) -> str:
    return f"one of {one.width} tokens ({runner.task.prompts.prompts[one.prompts[0]].described()})"
