"""What `coverage.py --means` runs: recovered performance of a real circuit, with means estimated anew each time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from circuitspec.analysis.claims.means_error import MeansError, larger_size, means_error, recovered, share_of
from circuitspec.analysis.claims.registry import make_plan
from circuitspec.engine.execution.batches import Batch
from circuitspec.engine.execution.compiler import Actions, borrowed
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Variant
from circuitspec.experiments.planner import Plan
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from circuitspec.models.load import LoadedModel, load_model
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.prompts.reference_prompts import chosen, first_size
from circuitspec.prompts.tokens.tokenize import tokenize
from circuitspec.runtime.progress import Silent

FILE = Path(__file__).parents[1] / "hypotheses" / "ioi-tiny.circuit.yaml"
POOL = 8000
METRIC = "logit_diff"
Kind = Literal["mean", "mean_per_template"]


@dataclass
class Pool:
    """Prompts to draw from, and what the unpatched model computes for each of them: known once, it costs nothing."""

    task: TokenizedTask
    plan: Plan
    recorded: Mapping[Tap, Tensor]  # in the run on the corrupt prompts, [prompt, pos, channel]
    logits: Tensor  # of the clean run, [prompt, vocabulary]

    def draw(self, dice: np.random.Generator, n: int) -> list[int]:
        """Prompts of every template in turn, as where they are drawn from templates."""
        templates = np.array([prompt.template for prompt in self.task.prompts.prompts])
        count = int(templates.max()) + 1
        found: list[int] = []
        for template in range(count):
            share = len(range(template, n, count))
            found += map(int, dice.choice(np.flatnonzero(templates == template), share, replace=False))
        return found


class Remembering(Runner):
    """A runner on some prompts of a pool, which knows their unpatched runs."""

    def __init__(self, pool: Pool, scored: list[int], others: list[int], loaded: LoadedModel) -> None:
        task = chosen(pool.task, scored)
        if others:
            task = replace(task, reference=chosen(pool.task, others))
        super().__init__(loaded, task, rows=600, progress=Silent(), parted=True)
        self._pool, self._scored, self._others = pool, scored, others

    def forward(
        self,
        batch: Batch,
        variant: Variant,
        actions: Actions,
        *args: Any,
        task: TokenizedTask | None = None,
        **how: Any,
    ) -> tuple[Tensor, dict[Tap, Tensor]]:
        if actions.swaps:
            return super().forward(batch, variant, actions, *args, task=task, **how)
        numbers = self._others if task is not None and task is self.task.reference else self._scored
        rows = [numbers[prompt] for prompt in batch.prompts]
        return self._pool.logits[rows], {tap: self._pool.recorded[tap][rows, : batch.width] for tap in actions.record}


def make_pool(kind: Kind, loaded: LoadedModel) -> Pool:
    document = load_hypothesis(FILE)
    hypothesis = document.hypothesis
    spec = hypothesis.task.model_copy(
        update={"templates": hypothesis.task.templates[:2], "prompts": POOL, "seed": 1_000_003}
    )
    claims = tuple(claim for claim in hypothesis.claims if isinstance(claim, Sufficient))
    ablation = hypothesis.ablation.model_copy(update={"value": kind})
    changed = hypothesis.model_copy(update={"ablation": ablation, "claims": claims})
    graph = lay_out(hypothesis.circuit, loaded.shape, document.source)
    task = tokenize(build_prompts(spec, document.base_dir), spec.positions, loaded.tokenizer)
    plan = make_plan(changed, graph, document.source, task.prompts.corruptions)
    runner = Runner(loaded, task, rows=600, progress=Silent())
    taps = runner.taps_of(plan.experiments)
    recorded: dict[Tap, Tensor] = {}
    logits = torch.zeros(task.n, loaded.shape.n_vocab)
    with torch.no_grad():
        for batch in runner.batches:
            rows = list(batch.prompts)
            logits[rows] = runner.forward(batch, "clean", Actions())[0]
            for tap, values in runner.forward(batch, "abc", Actions(record=taps))[1].items():
                recorded.setdefault(tap, torch.zeros(task.n, max(task.lengths), values.shape[-1]))[rows] = values
    return Pool(task, plan, recorded, logits)


def truth(pool: Pool, loaded: LoadedModel) -> float:
    runner = Remembering(pool, list(range(POOL)), list(range(POOL)), loaded)
    records = runner.run(pool.plan.experiments)
    claim = pool.plan.claims[0]
    patched, corrupt, clean = (records[run][METRIC].mean() for run in (claim.patched, claim.corrupt, claim.clean))
    return float((patched - corrupt) / (clean - corrupt))


def interval(
    pool: Pool, n: int, drawn: bool, dice: np.random.Generator, loaded: LoadedModel, resamples: int
) -> tuple[float, tuple[float, float] | None, int]:
    """The value, its interval and over how many prompts the means went, as `verify` would have them."""
    every = pool.draw(dice, 6 * n + 4000 if drawn else n)
    scored = pool.draw(dice, n) if not drawn else every[:0]
    if drawn:
        scored = pool.draw(dice, n)
        every = [prompt for prompt in dice.permutation(every) if prompt not in set(scored)]
    size = first_size(n) if drawn else 0
    claim = pool.plan.claims[0]
    while True:
        runner = Remembering(pool, scored, list(map(int, every[:size])), loaded)
        records = runner.run(pool.plan.experiments)
        error = means_error(pool.plan, runner.task, runner)
        found = recovered(records, (claim.patched, claim.corrupt, claim.clean), METRIC, error, resamples=resamples)
        larger = larger_size(n, size, share_of(found)) if drawn else None
        if larger is None:
            if isinstance(error, MeansError) and error.too_few(claim.patched):
                return found.value, None, size
            return found.value, found.interval, size
        size = larger


def table(prompts: Iterable[int], repetitions: int, first: int, only: str, resamples: int) -> None:
    """Prints coverage for every kind of mean, source of prompts and number of prompts."""
    document = load_hypothesis(FILE)
    loaded = load_model(document.hypothesis.model, document.base_dir, progress=lambda said: None)
    print("| means | truly recovered | n | 95 % interval holds it | lies below | lies above | mean value | averaged |")
    print("|---|---|---|---|---|---|---|---|")
    kinds: tuple[Kind, ...] = ("mean", "mean_per_template")
    with borrowed(loaded.model):
        for kind in kinds:
            names = {drawn: f"{kind}, {'drawn' if drawn else 'file'}" for drawn in (True, False)}
            if not any(only in name for name in names.values()):
                continue
            pool = make_pool(kind, loaded)
            true = truth(pool, loaded)
            for drawn, name in names.items():
                for n in prompts if only in name else ():
                    rows = [
                        interval(pool, n, drawn, np.random.default_rng([n, first + i]), loaded, resamples)
                        for i in range(repetitions)
                    ]
                    known = [found for _, found, _ in rows if found is not None]
                    below = sum(high < true for _, high in known) / max(len(known), 1)
                    above = sum(low > true for low, _ in known) / max(len(known), 1)
                    shares = " | ".join(f"{share:.1%}" for share in (1 - below - above, below, above))
                    values = f"{np.mean([value for value, _, _ in rows]):.3f}"
                    sizes = f"{np.median([size for *_, size in rows]):.0f}" if drawn else "themselves"
                    none = "" if len(known) == len(rows) else f" ({len(rows) - len(known)} without interval)"
                    print(f"| {name} | {true:.3f} | {n} | {shares} | {values}{none} | {sizes} |", flush=True)
