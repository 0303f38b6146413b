"""`--workers`: the same bytes whatever their number, and little is lost whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.records import Records
from circuitspec.engine.scheduling.shards import MeasuredShard, RunnerSettings, Shard
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.runtime.progress import Silent
from circuitspec.workers.processes import Processes

HYPOTHESES = Path(__file__).parents[1] / "hypotheses"
TOY = HYPOTHESES / "toys" / "negative.circuit.yaml"
TINY = HYPOTHESES / "ioi-tiny.circuit.yaml"

pytestmark = pytest.mark.nightly  # each worker takes seconds to import torch; tests/engine/test_shards.py needs none


class Killing(Processes):
    """Ends one worker with SIGKILL while it has a shard, as a system does that runs out of memory; `times` over."""

    times = 1

    def run(
        self, settings: RunnerSettings, shards: Sequence[Shard], advance: Callable[[int], None]
    ) -> Iterator[tuple[int, MeasuredShard]]:
        workers = self._dispatcher._workers
        give = workers.give

        def then_kill(worker, settings, shard):  # type: ignore[no-untyped-def]
            give(worker, settings, shard)
            if self.times:
                self.times -= 1
                os.kill(worker.process.pid, signal.SIGKILL)

        workers.give = then_kill
        yield from super().run(settings, shards, advance)


def equal(one: Records, other: Records) -> None:
    assert one.values.keys() == other.values.keys()
    for experiment, metrics in one.values.items():
        assert metrics.keys() == other[experiment].keys()
        for metric, values in metrics.items():
            np.testing.assert_array_equal(values, other[experiment][metric])


@pytest.mark.parametrize("file", [TOY, TINY], ids=["toy", "ioi-tiny"])
def test_results_are_equal_to_the_last_bit(file: Path, tmp_path: Path) -> None:
    """Of one worker, of two, and of none with as many threads; what is stored too."""
    document, found, stored = load_hypothesis(file), [], []
    for number in (1, 2):
        store = tmp_path / str(number)
        with Processes(number) as workers:
            options = VerifyOptions(workers=workers, store=store)
            found.append(verify(document, options, Silent()).verification)
        again = verify(document, VerifyOptions(workers=Never(), store=store), Silent()).verification
        assert again.cost.n_stored == again.cost.n_experiments
        stored.append(again.records)
    here = verify(document, VerifyOptions(), Silent()).verification
    equal(found[0].records, found[1].records)
    equal(found[0].records, here.records)
    equal(stored[0], found[0].records)
    equal(stored[0], stored[1])
    assert found[0].claims == found[1].claims == here.claims
    assert found[0].cost.n_forwards == found[1].cost.n_forwards


class Never:
    """Workers that have nothing to do, since all is stored."""

    threads = 1

    def load(self, recipe: object) -> None: ...

    def run(self, settings: object, shards: Sequence[Shard], advance: object) -> Iterator[tuple[int, MeasuredShard]]:
        assert not shards
        yield from ()


def test_a_killed_worker_loses_its_shard_which_is_run_again() -> None:
    document = load_hypothesis(TOY)
    with Killing(2) as workers:
        found = verify(document, VerifyOptions(workers=workers), Silent()).verification
        assert workers.times == 0
    equal(found.records, verify(document, VerifyOptions(), Silent()).verification.records)


def test_workers_that_die_are_not_replaced_for_ever() -> None:
    with Killing(1) as workers:
        workers.times = 10
        with pytest.raises(CircuitspecError, match="CS590"):
            verify(load_hypothesis(TOY), VerifyOptions(workers=workers), Silent())
        assert workers.times == 8


def test_a_worker_with_another_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitspec.workers.shard_worker.fingerprint", lambda loaded: "another")
    with Processes(1) as workers, pytest.raises(CircuitspecError, match="CS591"):
        verify(load_hypothesis(TOY), VerifyOptions(workers=workers), Silent())


def _command(store: Path, number: int, output: Path) -> list[str]:
    workers = ("--workers", str(number), "--store", str(store), "--output-dir", str(output))
    return [sys.executable, "-m", "circuitspec", "verify", str(TINY), *workers]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_is_ended_goes_on_behind_what_was_measured(end: signal.Signals, tmp_path: Path) -> None:
    """Its workers end by themselves, and the tables of the run that goes on are those of an undisturbed one."""
    store = tmp_path / "store"
    run = subprocess.Popen(_command(store, 2, tmp_path / "out"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 300
        while not any(path.stat().st_size for path in store.rglob("*.records")):  # a shard was kept
            assert run.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        children = _children(run.pid)
        assert children
        run.send_signal(end)
        assert run.wait(60) == (-9 if end == signal.SIGKILL else 130)
    finally:
        run.kill()
        run.wait()
    until = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < until
        time.sleep(0.1)
    subprocess.run(_command(store, 1, tmp_path / "out"), check=False, capture_output=True)
    subprocess.run(_command(tmp_path / "anew", 2, tmp_path / "expected"), check=False, capture_output=True)
    for table in ("experiments.csv", "prompts.csv"):
        assert (tmp_path / "out" / table).read_bytes() == (tmp_path / "expected" / table).read_bytes()


def _children(of: int) -> list[int]:
    """Process ids (Linux)."""
    path = Path(f"/proc/{of}/task/{of}/children")
    if not path.exists():
        pytest.skip("the system does not list child processes")
    return [int(one) for one in path.read_text().split()]
