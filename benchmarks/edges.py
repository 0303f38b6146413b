"""What an edge-level experiment costs: 30,000 of GPT-2 small's 32,491 edges ablated in one patched forward.

Random weights, float32. Forwards are interleaved round by round, so that the machine's noise falls on all alike, and
medians are compared as ratios. A plain forward computes logits at every position, as Hugging Face does by default; the
second row computes them at the last position alone, as every experiment of circuitspec does.

    python benchmarks/edges.py
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from random_gpt2 import PROMPTS, TOKENS, random_model, random_task

from circuitspec.engine.execution.batches import make_batches, model_inputs, where_mask
from circuitspec.engine.execution.compiler import Actions, borrowed
from circuitspec.engine.levels.edge_program import EdgeProgram
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Source
from circuitspec.experiments.levels.edge_level import patching
from circuitspec.graph.edges import Receiver, Sender, receivers, senders, senders_before
from circuitspec.graph.where import Where
from circuitspec.runtime.progress import Silent

ABLATED = 30_000


def random_edges(shape, count: int, wheres: tuple[Where, ...]) -> dict[Receiver, dict[Sender, Where]]:
    rng = np.random.default_rng(1)
    order = senders(shape)
    every = [(s, r) for r in receivers(shape) for s in order[: senders_before(r, shape)]]
    chosen: dict[Receiver, dict[Sender, Where]] = {}
    for i in rng.choice(len(every), count, replace=False):
        sender, receiver = every[i]
        chosen.setdefault(receiver, {})[sender] = wheres[int(rng.integers(len(wheres)))]
    return chosen


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    rounds, threads = (getattr(parser.parse_args(), name) for name in ("rounds", "threads"))
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    loaded = random_model()
    model, shape = loaded.model, loaded.shape
    task = random_task(PROMPTS, TOKENS, shape.n_vocab)
    (batch,) = make_batches(task.lengths, PROMPTS)
    before = peak_megabytes()
    with borrowed(model), torch.no_grad():
        runner = Runner(loaded, task, rows=PROMPTS, progress=Silent())
        source = Source("resample", "abc")
        inputs = model_inputs(task, batch, "clean", runner.device)
        everything = {name: value for name, value in inputs.items() if name != "logits_to_keep"}

        def compiled(wheres: tuple[Where, ...]) -> Callable[[], object]:
            experiment = patching("clean", source, random_edges(shape, ABLATED, wheres))
            program = EdgeProgram(experiment, runner.stream)
            taps = frozenset(runner.stream.recorded_at(sender) for sender in program.senders)
            _, values = runner.forward(batch, "abc", Actions(record=taps))
            columns = {where: where_mask(task, batch, where, runner.device) for where in program.wheres}
            return lambda: runner.forward(batch, "clean", program.actions(columns, values))

        work: dict[str, Callable[[], object]] = {
            "plain forward, logits everywhere": lambda: model(**everything).logits,
            "plain forward, last logits": lambda: model(**inputs).logits,
            f"{ABLATED:,} edges ablated, everywhere": compiled((Where.everywhere(),)),
            f"{ABLATED:,} edges ablated, at positions of their own": compiled(
                (Where.everywhere(), Where.at("END"), Where.except_at("S2"))
            ),
        }
        times: dict[str, list[float]] = {name: [] for name in work}
        for run in work.values():
            run()
        for _ in range(rounds):
            for name, run in work.items():
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    plain, last = (medians[name] for name in list(work)[:2])
    width = max(map(len, work))
    print(f"| {'GPT-2 small shape, 8 x 16 tokens':{width}} | median s | plain forwards | last-logit forwards |")
    print(f"|{'-' * (width + 2)}|---|---|---|")
    for name, median in medians.items():
        print(f"| {name:{width}} | {median:.3f} | {median / plain:.2f} | {median / last:.2f} |")
    print(f"peak memory {peak_megabytes():,.0f} MiB, of which {before:,.0f} before the first run")


if __name__ == "__main__":
    main()
