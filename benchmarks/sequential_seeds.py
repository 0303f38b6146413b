"""What `verify --sequential` spares on a shipped hypothesis, and whether its verdicts are those of a fixed number.

    python benchmarks/sequential_seeds.py [FILE] [SEEDS]

For each seed FILE is verified with `task.seed` at that value, with all the prompts that it asks for and sequentially,
without what `verify` does beside its claims. Prompts run are counted in forwards of one prompt, those that means go
over, and those that tell their error, included.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import circuitspec
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.models.load import load_model
from circuitspec.pipelines.sequential import Sequential
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.runtime.progress import Silent

FILE = Path(__file__).parents[1] / "hypotheses" / "ioi-tiny.circuit.yaml"


def main() -> None:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    first = circuitspec.load(file)
    loaded = load_model(first.hypothesis.model, first.base_dir)
    text, seed = first.source.text, first.hypothesis.task.seed
    used, shares, same = [], [], 0
    for number in range(seeds):
        own = text.replace(f"\n  seed: {seed}\n", f"\n  seed: {number}\n")
        document = parse_hypothesis(own, str(file), file.parent)
        assert document.hypothesis.task.seed == number
        fixed = verify(document, VerifyOptions("off"), Silent(), loaded=loaded).verification
        options = VerifyOptions("off", sequential=Sequential())
        sequence = verify(document, options, Silent(), loaded=loaded).verification
        statuses = [[claim.status for claim in one.claims] for one in (fixed, sequence)]
        same += statuses[0] == statuses[1]
        if statuses[0] != statuses[1]:
            print(number, statuses, flush=True)
        used.append(sequence.n_prompts)
        run = [one.cost.n_forwards * one.n_prompts for one in (fixed, sequence)]
        shares.append(run[1] / run[0])
        if number % 10 == 9:
            print(f"{number + 1} seeds: {same} agree, {np.mean(used):.1f} prompts, {np.mean(shares):.2f}", flush=True)
    asked = first.hypothesis.task.prompts
    print(f"{file.name}: the same verdicts in {same} of {seeds} seeds")
    print(f"prompts used: {np.mean(used):.1f} of {asked} on the mean, {min(used)} to {max(used)}")
    print(f"forwards of one prompt: {np.mean(shares):.2f} of a fixed number's, {min(shares):.2f} to {max(shares):.2f}")


if __name__ == "__main__":
    main()
