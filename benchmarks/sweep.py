"""What a sweep costs: every head of a model of GPT-2 small's shape patched alone, at all positions and at each.

Random weights, float32, 8 prompts of 16 tokens. The comparison is what one would write by hand on plain Hugging Face:
for each experiment a forward with a hook that swaps the head's slice of the attention output projection's input, from
activations that were recorded once; with logits at every position, as Hugging Face gives by default, and with logits
at the last position alone. Both loops compute one metric, the sweep all of circuitspec's.

In every round half of each loop runs before the sweep and half of it after, so that the machine's noise falls on all
alike; ratios are taken within a round, and medians over rounds are printed. By position, the loops run a fixed random
sample of the 144 x 16 experiments (`--sample`), since one hooked forward takes as long as another; the sweep runs all.

Then cost and memory of 100 to 10,000 experiments on a small model.

    python benchmarks/sweep.py
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from random_gpt2 import ANSWER, PROMPTS, TOKENS, WRONG, random_model, random_task
from transformers import GPT2LMHeadModel

from circuitspec.engine.execution.batch_size import rows_per_batch
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.execution.memory import budget_of
from circuitspec.engine.records import Records
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Neuron
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.runtime.progress import Silent

SOURCE = Source("resample", "abc")
COUNTS = (100, 300, 1_000, 3_000, 10_000)


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock and of processor time."""

    wall: float
    cpu: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.cpu + other.cpu)

    def per(self, count: int) -> Cost:
        return Cost(self.wall / count, self.cpu / count)


def timed(work: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def reset_peak() -> None:
    """Memory that is not in use goes back to the system, and the peak is what is left (Linux with glibc)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def resident(which: str) -> float:
    """MiB of this process: `VmRSS` now, `VmHWM` at the peak since it was reset."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which)]
    return int(line.split()[1]) / 1024


Unit = tuple[int, int, int | None]  # layer, head, position (None: all of them)


def experiment_of(unit: Unit) -> Experiment:
    layer, head, position = unit
    where = Where.everywhere() if position is None else Where.at(f"P{position}")
    return Experiment("clean", SOURCE, frozenset({Site(Head(layer, head), where)}))


class ByHand:
    """One hooked forward for each experiment, on plain Hugging Face."""

    def __init__(self, model: GPT2LMHeadModel, task: TokenizedTask, *, last: bool) -> None:
        self.model, self.width = model, model.config.n_embd // model.config.n_head
        self.clean = torch.tensor(task.ids["clean"])
        self.options = {"use_cache": False, **({"logits_to_keep": 1} if last else {})}
        self.recorded: dict[int, torch.Tensor] = {}
        self.found: dict[Unit, np.ndarray] = {}
        projections = [block.attn.c_proj for block in model.transformer.h]
        handles = [
            module.register_forward_pre_hook(lambda _, args, layer=layer: self.recorded.update({layer: args[0]}))
            for layer, module in enumerate(projections)
        ]
        model(input_ids=torch.tensor(task.ids["abc"]), use_cache=False)
        for handle in handles:
            handle.remove()

    def run(self, units: Sequence[Unit]) -> None:
        for unit in units:
            layer, head, position = unit
            channels = slice(head * self.width, (head + 1) * self.width)
            positions = slice(None) if position is None else position

            def swap(_: object, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
                z = args[0].clone()
                z[:, positions, channels] = self.recorded[layer][:, positions, channels]  # noqa: B023
                return (z,)

            handle = self.model.transformer.h[layer].attn.c_proj.register_forward_pre_hook(swap)
            logits = self.model(input_ids=self.clean, **self.options).logits[:, -1]
            handle.remove()
            self.found[unit] = (logits[:, ANSWER] - logits[:, WRONG]).numpy()


@dataclass
class Way:
    """One way of running the experiments: what each of them cost in each round, and the memory it took on top."""

    costs: list[Cost]
    peak: float = 0.0

    def measure(self, work: Callable[[], object]) -> Cost:
        reset_peak()
        before = resident("VmRSS")
        cost = timed(work)
        self.peak = max(self.peak, resident("VmHWM") - before)
        return cost


def compare(name: str, units: Sequence[Unit], sample: Sequence[Unit], rounds: int, rows: int | None) -> None:
    """Print a row for each way of running these experiments."""
    loaded = random_model()
    task = random_task(PROMPTS, TOKENS, loaded.shape.n_vocab)
    budget = budget_of(torch.device("cpu"))
    first_rows = rows or rows_per_batch(loaded.shape, TOKENS, "float32", budget)
    experiments = [experiment_of(unit) for unit in units]
    by_hand = {
        "hooked forwards, logits everywhere": ByHand(loaded.model, task, last=False),
        "hooked forwards, last logits": ByHand(loaded.model, task, last=True),
    }
    ways = {way: Way([]) for way in (*by_hand, "sweep")}
    half = len(sample) // 2
    off = 0.0

    def by_hands(part: Sequence[Unit]) -> dict[str, Cost]:
        return {way: ways[way].measure(lambda loop=loop: loop.run(part)) for way, loop in by_hand.items()}

    by_hands(sample[:3])
    for _ in range(rounds):
        before = by_hands(sample[:half])
        with borrowed(loaded.model):
            runner = Runner(loaded, task, rows=first_rows, progress=Silent())
            if rows is None:  # as `explore` does it
                runner.fill_memory(budget)
            found: list[Records] = []
            cost = ways["sweep"].measure(lambda: found.append(runner.run(experiments)))  # noqa: B023
        ways["sweep"].costs.append(cost.per(len(units)))
        for way, cost in by_hands(sample[half:]).items():
            ways[way].costs.append((before[way] + cost).per(len(sample)))
        for loop in by_hand.values():
            for unit, expected in loop.found.items():
                off = max(off, float(np.abs(found[0][experiment_of(unit)]["logit_diff"] - expected).max()))
    part = "all of them" if len(sample) == len(units) else f"a random {len(sample)} of them"
    taken = f"batch size {rows}" if rows else f"rows by memory, {budget / 2**20:.0f} MiB"
    print(f"\n{name}: {len(units):,} experiments; the loops by hand ran {part}; {taken}\n")
    print("| way | s an experiment | the sweep is faster by | rounds | by processor time | memory on top, MiB |")
    print("|---|---|---|---|---|---|")
    own = ways["sweep"].costs
    for label, way in ways.items():
        ratios = [cost.wall / ours.wall for cost, ours in zip(way.costs, own, strict=True)]
        by_cpu = statistics.median(cost.cpu / ours.cpu for cost, ours in zip(way.costs, own, strict=True))
        seconds, ratio = statistics.median(cost.wall for cost in way.costs), statistics.median(ratios)
        spread = f"{min(ratios):.2f} .. {max(ratios):.2f}"
        print(f"| {label} | {seconds:.4f} | {ratio:.2f} | {spread} | {by_cpu:.2f} | {way.peak:.0f} |")
    scale = float(np.std([expected for loop in by_hand.values() for expected in loop.found.values()]))
    print(f"\nlargest difference of a logit difference: {off:.1e} (their standard deviation is {scale:.2f})")
    left = runner.forwards - runner.forwards_saved
    print(f"forwards: {runner.forwards:.1f}, of which {runner.forwards_saved:.1f} not computed: {left:.1f} left")


def growth(rows: int | None) -> None:
    """Print cost and memory of more and more experiments: single neurons of a small model at single positions."""
    loaded = random_model(
        n_layer=4, n_head=4, n_embd=64, vocab_size=500, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    task = random_task(PROMPTS, TOKENS, loaded.shape.n_vocab)
    rows = rows or rows_per_batch(loaded.shape, TOKENS, "float32")
    shape = loaded.shape
    sites = [
        Site(Neuron(layer, neuron), Where.at(f"P{position}"))
        for layer in range(shape.n_layers)
        for neuron in range(shape.d_mlp)
        for position in range(TOKENS)
    ]
    order = np.random.default_rng(0).permutation(len(sites))
    print(f"\na small model (4 layers, 64 channels), single neurons at single positions; batch size {rows}\n")
    print("| experiments | s | ms an experiment | memory on top, MiB | of which results, MiB |")
    print("|---|---|---|---|---|")
    with borrowed(loaded.model):
        runner = Runner(loaded, task, rows=rows, progress=Silent())
        runner.run([Experiment("clean", SOURCE, frozenset({sites[i]})) for i in order[:50]])
        for count in COUNTS:
            experiments = [Experiment("clean", SOURCE, frozenset({sites[i]})) for i in order[:count]]
            reset_peak()
            before = resident("VmRSS")
            kept: list[Records] = []
            cost = timed(lambda: kept.append(runner.run(experiments)))  # noqa: B023
            peak, after = resident("VmHWM") - before, resident("VmRSS") - before
            seconds = cost.wall
            print(f"| {count:,} | {seconds:.2f} | {1000 * seconds / count:.2f} | {peak:.1f} | {after:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--sample", type=int, default=96, help="experiments of the by-position sweep that the loops run"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, help="batch size (default: by memory)")
    parser.add_argument("--only", choices=("heads", "positions", "growth"))
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    heads = [(layer, head) for layer in range(12) for head in range(12)]
    everywhere: list[Unit] = [(*unit, None) for unit in heads]
    positions: list[Unit] = [(*unit, position) for unit in heads for position in range(TOKENS)]
    chosen = np.random.default_rng(0).choice(len(positions), min(options.sample, len(positions)), replace=False)
    with torch.no_grad():
        if options.only in (None, "heads"):
            compare("every head at all positions", everywhere, everywhere, options.rounds, options.rows)
        if options.only in (None, "positions"):
            sample = [positions[i] for i in chosen]
            compare("every head at every position", positions, sample, options.rounds, options.rows)
        if options.only in (None, "growth"):
            growth(options.rows)


if __name__ == "__main__":
    main()
