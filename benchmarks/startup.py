"""What starting costs: `verify` of a toy from a cold process, of two checkouts in turn.

    python benchmarks/startup.py --against PATH_OF_ANOTHER_CHECKOUT [--times 5]

Both run in this environment, one after the other, so that a busy machine slows both. Nothing is looked up in a store.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parents[1]
TOY = "hypotheses/toys/negative.circuit.yaml"


def timed(checkout: Path, options: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    command = [sys.executable, "-m", "circuitspec", "verify", str(HERE / TOY), *options]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    env = {**os.environ, "PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1", "CIRCUITSPEC_PROGRESS": "off"}
    subprocess.run(command, cwd=checkout, env=env, check=True, capture_output=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True)
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    found: dict[Path, list[tuple[float, float]]] = {HERE: [], asked.against.resolve(): []}
    for checkout in found:
        timed(checkout, ["--no-store"])  # the bytecode is written, and files are in memory
    for _ in range(asked.times):
        for checkout, times in found.items():
            times.append(timed(checkout, ["--no-store"]))
    (wall, cpu), (other_wall, other_cpu) = (
        [statistics.median(column) for column in zip(*times, strict=True)] for times in found.values()
    )
    print(f"load average {os.getloadavg()[0]:.1f}, medians of {asked.times}")
    print(f"this checkout   {wall:5.2f} s wall, {cpu:5.2f} s of processors")
    print(f"the other one   {other_wall:5.2f} s wall, {other_cpu:5.2f} s of processors")
    print(f"ratio           {wall / other_wall:5.2f} wall, {cpu / other_cpu:5.2f} of processors")


if __name__ == "__main__":
    main()
