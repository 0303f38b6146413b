"""How time and memory grow with prompts: from 100 to 20,000, for a confirmation and for a sweep of all heads.

A small random model (4 layers of 4 heads), so that what grows with prompts is seen and not the forwards.

    python benchmarks/growth.py            # five minutes on a busy machine
"""

from __future__ import annotations

import argparse
import sys
import time

from memory import ALL, OTHER, made, task_of

from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.execution.memory import PeakMemory
from circuitspec.engine.records import Records
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.hypothesis_file.grammar.components import Head, Mlp


class Silent:
    def expect(self, prompts: int) -> None: ...
    def advance(self, prompts: int) -> None: ...


def work_on(run: Runner, work: str) -> Records:
    heads = [Head(layer, head) for layer in range(4) for head in range(4)]
    if work == "sweep":
        return run.run([Experiment("clean", OTHER, frozenset({Site(one, ALL)})) for one in heads])
    means, nodes = Source("mean", "corrupt"), [*heads, *(Mlp(layer) for layer in range(4))]
    sets = (nodes, nodes[::2], nodes[1::2])
    patched = [Experiment("clean", means, frozenset(Site(one, ALL) for one in part)) for part in sets]
    return run.run([Experiment("clean"), *patched])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=20_000)
    most = parser.parse_args().most
    loaded = made((4, 4, 4, 64, 176, 1000), "float32")
    print("| work | prompts | processor s | ms a prompt | tensors, MiB | results, MiB |\n|---|---|---|---|---|---|")
    missed = False
    for work in ("confirm", "sweep"):
        each: list[float] = []
        for prompts in (100, 1000, 5000, 20_000):
            if prompts > most:
                continue
            task = task_of(1000, 12, prompts)
            with borrowed(loaded.model):
                run = Runner(loaded, task, rows=64, progress=Silent())
                used = time.process_time()
                records = work_on(run, work)
                used = time.process_time() - used
                with PeakMemory() as meter:  # which takes time of its own
                    work_on(run, work)
            held = sum(values.nbytes for found in records.values.values() for values in found.values())
            each.append(1000 * used / prompts)
            sizes = f"{meter.peak / 2**20:.1f} | {held / 2**20:.1f}"
            print(f"| {work} | {prompts:,} | {used:.1f} | {each[-1]:.2f} | {sizes} |", flush=True)
        missed |= each[-1] > 1.3 * min(each)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
