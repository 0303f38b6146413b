"""What causal scrubbing costs: one draw of a tree of values on GPT-2 small's shape, against bare forwards.

Random weights, float32. The tree is a path with groups of heads: from some heads to some of a later layer, from these
to some of a yet later one, and to the logits; every value has prompts of its own. A bare forward is a plain Hugging
Face forward over the same prompts with logits at the answer alone. Rounds are interleaved, so that the machine's noise
falls on all alike, and medians are compared as ratios.

    python benchmarks/scrubbing.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from random_gpt2 import PROMPTS, TOKENS, random_model, random_task

from circuitspec.engine.execution.batches import make_batches, model_inputs
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import passes
from circuitspec.experiments.levels.scrub_level import scrub_draw
from circuitspec.experiments.levels.scrub_tree import ScrubTree, scrub_tree
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.schema.blocks import CircuitSpec
from circuitspec.hypothesis_file.yaml.source import parse_source
from circuitspec.prompts.prompt_set import TokenizedVariant
from circuitspec.runtime.progress import Silent

HEADS = {"narrow": (1, 1, 1), "wide": (3, 2, 2), "many leaves": (6, 1, 2)}
"""By name how many heads the three groups of the tree have, the first one its leaves."""


def tree_of(shape: ModelShape, sizes: tuple[int, ...]) -> ScrubTree:
    first, second, third = ([f"a{layer}.h{i}" for i in range(n)] for layer, n in zip((1, 5, 9), sizes, strict=True))
    groups = {
        "first": {"nodes": first},
        "second": {"nodes": second, "at": "END"},
        "third": {"nodes": third, "at": "END"},
    }
    paths = ["first -> second<v> -> third<q> -> logits"]
    circuit = CircuitSpec.model_validate({"groups": groups, "paths": paths, "unnamed": "nothing"})
    text = parse_source("circuitspec: 1\n", "scrubbing.circuit.yaml")
    graph = lay_out(circuit, shape, text)
    return scrub_tree(circuit, graph, text, all_positions=False, variables={}, roots={})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    rounds, threads = (getattr(parser.parse_args(), name) for name in ("rounds", "threads"))
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    loaded = random_model()
    model, shape = loaded.model, loaded.shape
    task = random_task(PROMPTS, TOKENS, shape.n_vocab)
    rng = np.random.default_rng(1)
    print("| tree | values | forwards | in bare forwards | without the clean run, a node |")
    print("|---|---|---|---|---|")
    for through in ((), ("mlp",)):
        for name, sizes in HEADS.items():
            tree = tree_of(shape, sizes)
            draw = scrub_draw(tree, 0, by=("clean",), seed=0, through=through)
            given = task
            for one in draw.prompts:
                ids = tuple(map(tuple, rng.integers(0, shape.n_vocab, (PROMPTS, TOKENS)).tolist()))
                given = given.with_variant(one.variant, TokenizedVariant(ids, task.answers, task.wrong, task.roles))
            (batch,) = make_batches(task.lengths, PROMPTS)
            with borrowed(model), torch.no_grad():
                runner = Runner(loaded, given, rows=PROMPTS, progress=Silent())
                inputs = model_inputs(given, batch, "clean", runner.device)
                work: dict[str, Callable[[], object]] = {
                    "bare": lambda inputs=inputs: model(**inputs).logits,  # type: ignore[misc]
                    "draw": lambda runner=runner, draw=draw: runner.run([draw.scrubbed, draw.nothing_kept]),  # type: ignore[misc]
                }
                times: dict[str, list[float]] = {one: [] for one in work}
                for _ in range(rounds):
                    for one, run in work.items():
                        started = time.perf_counter()
                        run()
                        times[one].append(time.perf_counter() - started)
            ratio = statistics.median(a / b for a, b in zip(times["draw"], times["bare"], strict=True))
            forwards = passes((draw.scrubbed, draw.nothing_kept))
            said = f"{name}, through {'MLPs' if through else 'nothing'}"
            a_node = (ratio - 1) / (len(tree.nodes) + 1)  # the logits have prompts of their own too
            print(f"| {said} | {len(tree.nodes)} | {forwards:g} | {ratio:.1f} | {a_node:.2f} |")


if __name__ == "__main__":
    main()
