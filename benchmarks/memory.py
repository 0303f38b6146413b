"""Whether the memory that `plan --model-shape` states is what runs of models of that size hold, at their peak.

Random models laid out like Llama, at five sizes: tensors' bytes in a run, counted one by one, against what is stated.

    python benchmarks/memory.py            # two minutes
    python benchmarks/memory.py --edges    # the edges of Llama-8B's shape, 1.6 million, in narrower channels: 3 GiB
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from circuitspec.engine.attribution.node_attribution import attribute
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.execution.memory import PeakMemory
from circuitspec.engine.runner import Runner
from circuitspec.engine.scheduling.memory_parts import Work, memory_parts
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.experiments.levels.edge_level import patching
from circuitspec.graph.edges import count_edges, receivers, senders, senders_before
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp
from circuitspec.models.families.family_table import architecture_of
from circuitspec.models.load import LoadedModel, Provenance
from circuitspec.models.model_config import shape_of
from circuitspec.prompts.prompt_set import Prompt, PromptSet, TokenizedTask

ALL, OTHER = Where.everywhere(), Source("resample", "corrupt")
WORKS: tuple[Work, ...] = ("patched", "estimated", "edges")
BOUND = 0.15
SIZES = (  # layers, heads, key-value heads, channels, MLP, vocabulary, tokens, prompts, dtype
    (4, 4, 4, 64, 176, 5_000, 12, 8, "float32"),
    (8, 8, 2, 128, 352, 20_000, 16, 8, "float32"),
    (12, 12, 12, 384, 1024, 50_257, 16, 4, "float32"),
    (16, 16, 4, 512, 1408, 128_256, 24, 4, "bfloat16"),
    (6, 8, 8, 256, 1024, 131_072, 16, 24, "float32"),
)
LLAMA_8B = (  # narrower: it has 4,096 channels; and with keys and values for each head, as other tools count edges
    (32, 32, 8, 512, 1792, 32_000, 16, 2, "bfloat16"),
    (32, 32, 32, 512, 1792, 32_000, 16, 2, "bfloat16"),
)


class Silent:
    def expect(self, prompts: int) -> None: ...
    def advance(self, prompts: int) -> None: ...


def made(numbers: tuple[int, ...], dtype: str) -> LoadedModel:
    layers, heads, kv, width, mlp, vocabulary = numbers
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        max_position_embeddings=64,
    )
    model = LlamaForCausalLM(config).eval().to(getattr(torch, dtype))
    told = model.config.to_dict()
    provenance = Provenance("random", None, dtype, "llama", "random", 0, Path())
    return LoadedModel(model, None, architecture_of(told), shape_of(told), provenance)  # type: ignore[arg-type]


def task_of(n_vocab: int, tokens: int, prompts: int) -> TokenizedTask:
    """Random tokens, with an answer and a wrong one each."""
    rng = np.random.default_rng(0)
    texts = tuple(Prompt(i, 0, {"clean": f"{i}", "corrupt": f"other {i}"}, (), ()) for i in range(prompts))
    drawn = {name: rng.integers(0, n_vocab, (prompts, tokens)).tolist() for name in ("clean", "corrupt")}
    ids = {name: tuple(tuple(row) for row in rows) for name, rows in drawn.items()}
    half = n_vocab // 2
    sides = [tuple((one,) for one in rng.integers(first, first + half, prompts).tolist()) for first in (0, half)]
    return TokenizedTask(PromptSet(texts, ("corrupt",), ("all",)), ids, {"END": (tokens - 1,) * prompts}, *sides)


def work_on(run: Runner, work: Work) -> object:
    shape = run.loaded.shape
    heads = [Head(layer, head) for layer in range(shape.n_layers) for head in range(shape.n_heads)]
    nodes = [*heads, *(Mlp(layer) for layer in range(shape.n_layers))]
    if work == "patched":
        return run.run([Experiment("clean"), Experiment("clean", OTHER, frozenset(Site(one, ALL) for one in nodes))])
    if work == "estimated":
        return attribute(run, "clean", OTHER, "logit_diff", nodes, [])
    order = senders(shape)
    cut = {one: dict.fromkeys(order[: senders_before(one, shape)], ALL) for one in receivers(shape)}
    return run.run([patching("clean", OTHER, cut)])


def measured(loaded: LoadedModel, task: TokenizedTask, work: Work) -> tuple[int, float]:
    """Bytes at the peak, and seconds."""
    with borrowed(loaded.model):
        run = Runner(loaded, task, rows=task.n, progress=Silent())
        begun = time.perf_counter()
        with PeakMemory() as meter:
            work_on(run, work)
        return meter.peak, time.perf_counter() - begun


def table(sizes: tuple[tuple[int | str, ...], ...], works: tuple[Work, ...], say: Callable[[str], None]) -> bool:
    missed = False
    for size in sizes:
        *numbers, tokens, prompts, dtype = size
        loaded = made(tuple(map(int, numbers)), str(dtype))
        task = task_of(loaded.shape.n_vocab, int(tokens), int(prompts))
        for work in works:
            said = memory_parts(loaded.shape, str(dtype), int(prompts), int(tokens), work)
            peak, seconds = measured(loaded, task, work)
            ratio = said.activations / peak
            missed |= abs(ratio - 1) > BOUND
            layers, heads, kv, width, mlp, vocabulary = numbers
            model = f"{layers}x{heads}x{width}, kv {kv}, MLP {mlp}, {int(vocabulary):,} tokens, {dtype}"
            say(
                f"| {model}, {prompts} x {tokens} | {work} | {said.activations / 2**20:.1f} "
                f"| {peak / 2**20:.1f} | {ratio:.2f} | {seconds:.1f} |"
            )
        if len(works) == 1:
            held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
            say(f"\n{count_edges(loaded.shape):,} edges; the process held {held:,.0f} MiB at most")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", action="store_true")
    given = parser.parse_args()
    print("| model and prompts | work | stated, MiB | measured, MiB | ratio | s |\n|---|---|---|---|---|---|")
    return int(table(LLAMA_8B if given.edges else SIZES, ("edges",) if given.edges else WORKS, print))


if __name__ == "__main__":
    sys.exit(main())
