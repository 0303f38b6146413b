"""Ctrl-C, sent for real at many moments of a run: never lost, and what it says to have kept is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from circuitspec.cli.waiting import interruptible, waiting

HYPOTHESES = Path(__file__).parents[2] / "hypotheses"


@pytest.fixture(autouse=True)
def _interruptions_are_not_ignored() -> Iterator[None]:
    """As they are where the tests run in the background of a shell that ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# one process, so that torch is imported once: the command is run undisturbed, then again and again with SIGINT after
# ever longer, each time with a store of its own and followed by the same command undisturbed
MANY = """
import json, os, re, signal, sys, threading, time
from pathlib import Path
from click.testing import CliRunner
from circuitspec.cli import main
from circuitspec.engine.cache.experiment_store import Store
import circuitspec.engine.cache.stored_runner as stored

signal.signal(signal.SIGINT, signal.default_int_handler)
stored.SECONDS = 0.05
stored.stored_runner.__wrapped__.__kwdefaults__["least"] = 4  # several chunks in so short a run
folder, times, command = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]

def call(store):
    ran = CliRunner().invoke(main, [*command, "--store", str(store)])
    return ran.exit_code, ran.stdout, ran.stderr

call(folder / "warm")
began = time.monotonic()
code, out, _ = call(folder / "whole")
took = time.monotonic() - began
found = {"whole": [code, out], "runs": []}
for number in range(times):
    store, sent = folder / str(number), []
    def send():
        sent.append(True)
        os.kill(os.getpid(), signal.SIGINT)
    timer = threading.Timer(took * (number + 0.5) / times, send)
    timer.start()
    try:
        ran = call(store)
    except KeyboardInterrupt:  # it came after the command
        ran = None
    timer.cancel()
    timer.join()
    restored = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    kept = 0
    for place in store.glob("*/about.json") if store.exists() else ():
        if not place.parent.name.startswith("estimates"):
            kept += len(Store(place.parent))
    found["runs"].append([bool(sent), ran, kept, restored, call(store)])
Path(folder / "found.json").write_text(json.dumps(found))
"""


def many(folder: Path, times: int, *command: object) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(folder), str(times), *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "CIRCUITSPEC_NO_STORE"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text("utf-8"))


def without_costs(report: str) -> str:
    return report.rstrip().rpartition("\n")[0]  # the last line says forwards and seconds


@pytest.mark.parametrize(
    "command",
    [
        ("verify", HYPOTHESES / "toys" / "nobel.circuit.yaml"),
        ("explore", HYPOTHESES / "toys" / "and.circuit.yaml"),
    ],
    ids=["verify", "explore"],
)
@pytest.mark.nightly
def test_no_interruption_is_lost_and_what_is_said_to_be_kept_is(command: tuple[object, ...], tmp_path: Path) -> None:
    found = many(tmp_path, 16, *command)
    code, whole = found["whole"]
    assert code == 0
    interrupted = said = 0
    for sent, ran, kept, restored, again in found["runs"]:
        assert restored
        if ran is not None and (sent or ran[0] != 0):
            exit_code, out, err = ran
            if exit_code == 0:  # the signal came when all was said
                assert without_costs(out) == without_costs(whole)
            else:
                interrupted += 1
                assert (exit_code, out) == (130, "")
                last = err.splitlines()[-1]
                assert last.startswith("interrupted"), err
                if ";" in last:
                    said += 1
                    assert last.startswith(f"interrupted; {kept} experiment"), (last, kept)
                    assert last.endswith(" kept: run the same command again") or " of others: run" in last
        assert again[0] == 0
        assert without_costs(again[1]) == without_costs(whole)
    assert interrupted >= 8
    assert said >= 4


def test_without_a_store_nothing_is_said_to_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from circuitspec.cli import main
    from circuitspec.engine.runner import Runner

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Runner, "run", stop)
    ran = CliRunner().invoke(main, ["verify", str(HYPOTHESES / "toys" / "and.circuit.yaml"), "--no-store"])
    assert (ran.exit_code, ran.stdout) == (130, "")
    assert ran.stderr.endswith("interrupted; nothing was kept: there is no store\n")


def test_an_interruption_that_a_finaliser_swallows_is_raised_at_the_next_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is only noted; the second is raised, and where it is lost the check still raises."""

    class Finalised:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)  # raised here, where Python drops it

    steps = []

    def run() -> None:
        with interruptible() as check:
            one = Finalised()
            del one
            steps.append("swallowed")
            check()
            steps.append("never")

    dropped: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: dropped.append(found.exc_type))
    interrupted(run)
    assert dropped == [KeyboardInterrupt]
    assert steps == ["swallowed"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def interrupted(run: Callable[[], None]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run()


def test_the_first_is_raised_in_the_end_and_the_second_at_once() -> None:
    steps = []

    def once() -> None:
        with waiting() as progress:
            progress.stage("one")
            signal.raise_signal(signal.SIGINT)
            steps.append("after the first")

    def twice() -> None:
        with waiting():
            signal.raise_signal(signal.SIGINT)
            steps.append("after the first of two")
            signal.raise_signal(signal.SIGINT)
            steps.append("never")

    interrupted(once)
    interrupted(twice)
    assert steps == ["after the first", "after the first of two"]


def test_what_an_interruption_breaks_is_an_interruption() -> None:
    def run(signals: int) -> None:
        with interruptible():
            for _ in range(signals):
                signal.raise_signal(signal.SIGINT)
            raise ImportError("initialization failed")

    interrupted(lambda: run(1))
    with pytest.raises(ImportError):
        run(0)


def test_a_handler_that_is_not_pythons_stays() -> None:
    """A job in the background ignores interruptions; a notebook and others have handlers of their own."""
    for handler in (signal.SIG_IGN, lambda number, frame: None):
        before = signal.signal(signal.SIGINT, handler)
        try:
            with interruptible() as check:
                assert signal.getsignal(signal.SIGINT) == handler
                signal.raise_signal(signal.SIGINT)
                check()
        finally:
            signal.signal(signal.SIGINT, before)


def test_a_thread_looks_after_no_signals() -> None:
    steps = []

    def work() -> None:
        with waiting() as progress:
            progress.stage("one")
        steps.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert steps == ["done"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
