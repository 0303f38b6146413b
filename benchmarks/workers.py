"""What workers cost after they have started, and how shards fill them.

    python benchmarks/workers.py [FILE] [--workers 2]

One worker with N threads against N workers with one thread each, on all experiments that FILE's verification plans, one
after the other on the same machine. Then the times of the shards, as they were measured one at a time, dealt out to
more workers than there are: each takes the next shard when it is done.
"""

from __future__ import annotations

import argparse
import heapq
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from circuitspec.engine.scheduling.shards import MeasuredShard, RunnerSettings, Shard
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.runtime.progress import Silent
from circuitspec.workers.processes import Processes

TINY = Path(__file__).parents[1] / "hypotheses" / "ioi-tiny.circuit.yaml"


class Timed(Processes):
    """Times runs, but for the first, in which workers load the model; and each shard, where there is one worker."""

    seconds = 0.0
    shards: list[float]
    warm = False

    def run(
        self, settings: RunnerSettings, shards: Sequence[Shard], advance: Callable[[int], None]
    ) -> Iterator[tuple[int, MeasuredShard]]:
        if not self.warm and shards:  # every worker learns means and tests short cuts in its first
            self.warm, self.shards = True, []
            for _ in super().run(settings, [shards[0]] * (2 * self._number), advance):
                pass
        before = time.perf_counter()
        for found in super().run(settings, shards, advance):
            now = time.perf_counter()
            self.shards.append(now - before)
            self.seconds += now - before
            yield found
            before = time.perf_counter()


def timed(file: Path, workers: int, threads: int) -> Timed:
    with Timed(workers, threads) as pool, tempfile.TemporaryDirectory() as store:
        verify(load_hypothesis(file), VerifyOptions("exact", workers=pool, store=Path(store), sweep=True), Silent())
        return pool


def dealt_out(seconds: Sequence[float], workers: int) -> float:
    """When the last worker is done."""
    free = [0.0] * workers
    for one in seconds:
        heapq.heappush(free, heapq.heappop(free) + one)
    return max(free)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=TINY)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    several, one = timed(asked.file, asked.workers, 1), timed(asked.file, 1, asked.workers)
    print(f"load average {os.getloadavg()[0]:.1f}, {len(one.shards)} shards")
    print(f"one worker, {asked.workers} threads   {one.seconds:6.2f} s")
    print(f"{asked.workers} workers, 1 thread    {several.seconds:6.2f} s   ratio {several.seconds / one.seconds:.2f}")
    trace = timed(asked.file, 1, 1).shards
    repeated = trace * 32  # as a hypothesis of so many times as many experiments
    for workers in (1, 2, 4, 8, 16, 32, 64):
        speed = sum(repeated) / dealt_out(repeated, workers)
        print(f"simulated: {workers:3} workers, {len(repeated)} shards, {speed:5.1f} times as fast as one")


if __name__ == "__main__":
    main()
