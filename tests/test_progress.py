"""What a person sees while waiting, and that nobody else sees anything."""

from __future__ import annotations

import io
import re

import pytest

from circuitspec.progress import Bar, Silent


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


def test_without_a_terminal_it_is_quiet() -> None:
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
