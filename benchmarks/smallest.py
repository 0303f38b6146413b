"""How few heads of the shipped model can do its task: every set of one to four heads, kept at all positions.

All other heads are ablated (mean_per_template), MLPs are free, on the prompts that drafts are verified on. A head
that is kept at some positions alone may recover more: elsewhere it may be negative. That is not tried here.

    python benchmarks/smallest.py
"""

from __future__ import annotations

import itertools
from pathlib import Path

from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Source
from circuitspec.experiments.levels.node_level import ablating
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.load_file import load_exploration
from circuitspec.models.load import load_model
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.tokens.tokenize import tokenize
from circuitspec.runtime.progress import Silent

TASK = Path(__file__).parents[1] / "hypotheses" / "explored" / "ioi-tiny-fresh.task.yaml"
SOURCE = Source("mean_per_template", "abc")
CLEAN = Experiment("clean")
LARGEST = 4


def main() -> None:
    study = load_exploration(TASK)
    subject = study.exploration
    prompts = build_prompts(subject.task, study.base_dir, study.source)
    loaded = load_model(subject.model, study.base_dir)
    task = tokenize(prompts, subject.task.positions, loaded.tokenizer, study.source)
    shape = loaded.shape
    heads = [Head(layer, head) for layer in range(shape.n_layers) for head in range(shape.n_heads)]
    sets = {size: [frozenset(kept) for kept in itertools.combinations(heads, size)] for size in range(1, LARGEST + 1)}

    def alone(kept: frozenset[Head]) -> Experiment:
        return ablating(SOURCE, {head: Where.everywhere() for head in heads if head not in kept})

    with borrowed(loaded.model):
        runner = Runner(loaded, task, rows=task.n, progress=Silent())
        records = runner.run([CLEAN, alone(frozenset()), *(alone(kept) for group in sets.values() for kept in group)])
    clean, nothing = (float(records[run]["logit_diff"].mean()) for run in (CLEAN, alone(frozenset())))
    print("| heads | of the model's | sets | best recovers | which |")
    print("|---|---|---|---|---|")
    for size, group in sets.items():
        shares = {
            kept: (float(records[alone(kept)]["logit_diff"].mean()) - nothing) / (clean - nothing) for kept in group
        }
        best = max(shares, key=lambda kept: shares[kept])
        names = ", ".join(sorted(format_name(head) for head in best))
        print(f"| {size} | {size / len(heads):.1%} | {len(group):,} | {shares[best]:.3f} | {names} |")


if __name__ == "__main__":
    main()
