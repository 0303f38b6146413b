"""What a person sees while waiting, and that nobody else sees anything."""

from __future__ import annotations

import io
import re
import sys
import time
from types import SimpleNamespace
from typing import ClassVar

import pytest

from circuitspec.cli.waiting import waiting
from circuitspec.runtime.progress import SILENCED, Bar, Lines, Silent, for_callers, one_line


class Terminal(io.StringIO):
    """Remembers what is written to it."""

    def isatty(self) -> bool:
        return True

    @property
    def line(self) -> str:
        """What stands there now."""
        return self.getvalue().split("\r")[-1].rstrip()


def test_the_line_says_stage_experiments_rate_and_time_left() -> None:
    terminal = Terminal()
    with Bar(terminal) as bar:
        bar.stage("loading zoo:ioi-tiny")
        assert terminal.line == "loading zoo:ioi-tiny"
        bar.stage("running")
        bar.plan(experiments=2000, stored=500, prompts=150_000)
        assert terminal.line.startswith("running: 500/2,000 experiments (500 stored)   0%|")
        bar.expect(60_000)
        bar.advance(60_000)
        bar.measured(600)
        assert re.match(
            r"running: 1,100/2,000 experiments \(500 stored\)  40%\|.*\| \d.* prompts/s, 00:\d\d left$", terminal.line
        )


def test_prompts_that_were_planned_are_not_counted_twice() -> None:
    terminal = Terminal()
    with Bar(terminal) as bar:
        bar.plan(experiments=4, stored=0, prompts=400)
        bar.expect(250)  # of the 400
        bar.advance(250)
        bar.stage("half")
        assert " 62%|" in terminal.line
        bar.expect(250)  # 150 of the 400, and 100 that nobody foresaw
        bar.advance(250)
        bar.stage("all")
        assert "100%|" in terminal.line
        bar.expect(500)
        bar.stage("more")
        assert " 50%|" in terminal.line


def test_the_clock_starts_with_the_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 seconds of loading, then 40 prompts in 2 seconds: 20 a second, and 160 more take 8."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    terminal = Terminal()
    with Bar(terminal) as bar:
        bar.stage("loading")
        now[0] += 100
        bar.plan(experiments=5, stored=0, prompts=200)
        bar.expect(200)
        now[0] += 2
        bar.advance(40)
        bar.stage("running")
        assert re.search(r" 20\.0 ?prompts/s, 00:08 left$", terminal.line), terminal.line


def test_the_line_is_gone_in_the_end() -> None:
    terminal = Terminal()
    with Bar(terminal) as bar:
        bar.stage("running")
        bar.expect(10)
        bar.advance(10)
    assert terminal.line == ""


def test_without_a_terminal_the_bar_is_quiet() -> None:
    log = io.StringIO()
    with Bar(log) as bar:
        bar.stage("running")
        bar.plan(2, 1, 100)
        bar.expect(200)
        bar.advance(200)
        bar.measured(1)
    assert log.getvalue() == ""


def test_silent_takes_all_that_a_bar_does() -> None:
    told = {name for name in vars(Bar) if not name.startswith("_")}
    assert told == {name for name in vars(Silent) if not name.startswith("_")}
    assert told | {"tick"} == {name for name in vars(Lines) if not name.startswith("_")}


class Clock:
    """A time that stands still until it is moved on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_there_is_a_line_for_every_stage_and_every_half_minute() -> None:
    clock, log = Clock(), io.StringIO()
    lines = Lines(log, clock=clock)
    lines.stage("starting torch and pyvene")
    clock.now += 6
    lines.stage("loading zoo:ioi-tiny")
    assert log.getvalue() == ""  # not yet: most runs are over by now
    clock.now += 5
    lines.stage("running")
    assert log.getvalue().splitlines() == [
        "[0:00] starting torch and pyvene",
        "[0:06] loading zoo:ioi-tiny",
        "[0:11] running",
    ]
    lines.plan(experiments=2000, stored=500, prompts=150_000)
    lines.expect(60_000)
    for _ in range(35):  # 20 prompts a second
        clock.now += 1
        lines.advance(20)
        lines.tick()
    lines.measured(600)
    clock.now += 25
    lines.advance(500)
    lines.tick()
    clock.now += 3600
    lines.stage("judging")
    assert log.getvalue().splitlines()[3:] == [
        "[0:41] running: 500/2,000 experiments (500 stored), 0% done, 20.0 prompts/s, 2:04:30 left",  # of 150,000
        "[1:11] running: 1,100/2,000 experiments (500 stored), 1% done, 20.0 prompts/s, 2:04:00 left",
        "[1:01:11] judging",
    ]


def test_a_short_run_writes_no_lines_and_a_long_forward_does() -> None:
    """A thread looks at the time, so that a line comes although nothing is told; here all times are a hundredth."""
    log = io.StringIO()
    with Lines(log) as lines:
        lines.stage("running")
        lines.expect(10)
        lines.advance(10)
    assert log.getvalue() == ""
    with Lines(log, quiet=0.1, every=0.5) as lines:
        lines.stage("one long forward")
        deadline = time.monotonic() + 60
        while log.getvalue().count("\n") < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
    first, *others = log.getvalue().splitlines()
    assert first == "[0:00] one long forward"
    assert len(others) >= 2
    assert all(line.endswith("] one long forward") for line in others)


def test_a_note_is_written_at_once_after_the_stages_before_it() -> None:
    """What a run will cost is for those who wait from its first second on."""
    log = io.StringIO()
    lines = Lines(log, clock=lambda: 3.0)
    lines.stage("loading ./a")
    lines.stage("loading ./a")  # by what loads it
    assert log.getvalue() == ""
    lines.note("about 500 forward passes at most, 2 minutes")
    lines.stage("running")
    assert log.getvalue() == "[0:00] loading ./a\n[0:00] about 500 forward passes at most, 2 minutes\n"


def test_lines_that_nobody_can_read_end_quietly() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    lines = Lines(Full(), quiet=0.0)
    lines.stage("one")
    lines.stage("two")


def test_a_line_is_one_line() -> None:
    assert one_line("loading ./a\nb\x1b[2Jé") == r"loading ./a\nb\x1b[2Jé"
    log = io.StringIO()
    Lines(log, quiet=0.0).stage("loading ./a\n::error::b")
    assert log.getvalue() == "[0:00] loading ./a\\n::error::b\n"


def test_in_a_notebook_there_is_a_bar_without_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jupyter's stderr is no terminal, and shows a line that is written again and again all the same."""

    class Kernel:
        config: ClassVar[dict[str, object]] = {"IPKernelApp": {}}

    shells: list[Kernel | None] = [None]
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shells[0]))
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # importing it fails
    cell = io.StringIO()
    monkeypatch.setattr(sys, "stderr", cell)
    with for_callers() as progress:  # IPython was imported, and this is no notebook
        progress.stage("running")
    assert cell.getvalue() == ""
    shells[0] = Kernel()
    with for_callers() as progress:
        progress.stage("running")
        progress.plan(experiments=4, stored=0, prompts=400)
        progress.expect(400)
        progress.advance(200)
        progress.measured(2)
    assert "running: 2/4 experiments  50%|" in cell.getvalue()
    assert cell.getvalue().split("\r")[-1].strip() == ""  # and it is gone in the end


def test_callers_outside_of_notebooks_get_lines_or_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {}
    for name, setting in (("pytest", dict[str, str]()), ("script", {}), ("off", {SILENCED: "off"})):
        with monkeypatch.context() as here:
            for key, value in setting.items():
                here.setenv(key, value)
            if name != "pytest":
                here.delenv("PYTEST_CURRENT_TEST", raising=False)
            here.setattr(sys, "stderr", io.StringIO())
            with for_callers() as progress:
                kinds[name] = type(progress)
            if name == "off":
                with waiting() as progress:
                    progress.stage("loading")
                assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
    assert kinds == {"pytest": Silent, "script": Lines, "off": Silent}
