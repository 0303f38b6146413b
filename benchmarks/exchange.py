"""What it takes to carry a circuit over and back: EAP-IG's JSON with GPT-2 small's 32,491 edges, twice in and once out.

Three commands, as a user gives them, each in a process of its own; and the same in one that has the modules loaded.
The floor is Python's own `json` reading and writing the same two files as often. The graph must be the same at the end.

    python benchmarks/exchange.py
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from circuitspec.exchange.edge_lists import EdgeList, Size
from circuitspec.exchange.exporting import export_circuit
from circuitspec.exchange.importing import ImportOptions, import_circuit
from circuitspec.exchange.readers import eap
from circuitspec.hypothesis_file.grammar import names
from circuitspec.hypothesis_file.load_file import load_hypothesis

GPT2 = Size.parse("12x12x768")
BOUND = 2.0  # seconds: for the whole graph as three commands, and for any share of it in one process


def by_commands(first: Path, second: Path, folder: Path) -> None:
    there, back = folder / "there.circuit.yaml", folder / "back.circuit.yaml"
    for arguments in (
        ["import", first, "--as", "eap", "-o", there, "--keep-dangling"],
        ["export", there, "--as", "eap", "-o", second],
        ["import", second, "--as", "eap", "-o", back, "--keep-dangling"],
    ):
        subprocess.run(
            [sys.executable, "-m", "circuitspec", *map(str, arguments), "--force"], check=True, capture_output=True
        )


def in_one_process(first: Path, second: Path, folder: Path) -> None:
    for remembered in (names.parse_name, names.parse_path, names.canonical_path):
        remembered.cache_clear()  # as in a process that has read no file yet
    there, options = folder / "there.circuit.yaml", ImportOptions(keep_dangling=True)
    there.write_text(import_circuit(first, "eap", there, options).text, encoding="utf-8")
    second.write_bytes(export_circuit(load_hypothesis(there), "eap", second).content)
    back = import_circuit(second, "eap", folder / "back.circuit.yaml", options)
    (folder / "back.circuit.yaml").write_text(back.text, encoding="utf-8")


def by_json(first: Path, second: Path, folder: Path) -> None:
    content = json.loads(first.read_bytes())
    second.write_text(json.dumps(content), encoding="utf-8")
    json.loads(second.read_bytes())


def timed(work: Callable[[Path, Path, Path], None], first: Path, folder: Path) -> tuple[float, float]:
    """Seconds by the clock and of processor time, of this process and those it started."""
    wall, used = time.perf_counter(), cpu()
    work(first, folder / "second.json", folder)
    return time.perf_counter() - wall, cpu() - used


def cpu() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    missed = False
    print("| edges kept, of 32,491 | work | s | processor s | times json | bound, s |\n|---|---|---|---|---|---|")
    for share in (1.0, 0.5, 0.03):
        kept = GPT2.possible & (np.random.default_rng(0).random(GPT2.possible.shape) < share)
        with tempfile.TemporaryDirectory() as place:
            folder, first = Path(place), Path(place) / "first.json"
            first.write_bytes(eap.write(EdgeList(GPT2, kept), first)[0])
            works = {"three commands": by_commands, "one process": in_one_process, "json alone": by_json}
            spent: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
            for _ in range(rounds):
                for name, work in works.items():
                    spent[name].append(timed(work, first, folder))
                    again = json.loads((folder / "second.json").read_bytes())["edges"]
                    if again != json.loads(first.read_bytes())["edges"]:
                        raise SystemExit(f"{name}: another graph came back")
        floor = statistics.median(used for _, used in spent["json alone"])
        for name, values in spent.items():
            wall, used = (statistics.median(column) for column in zip(*values, strict=True))
            bound = BOUND if name == "one process" or (name == "three commands" and share == 1.0) else None
            missed |= bound is not None and used > bound
            print(f"| {kept.sum():,} | {name} | {wall:.2f} | {used:.2f} | {used / floor:.1f} | {bound or ''} |")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
