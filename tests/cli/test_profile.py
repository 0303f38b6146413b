"""`verify --profile`: where the time went, by a clock of the test's and on a real run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from circuitspec.cli import main
from circuitspec.runtime.progress import Silent
from circuitspec.runtime.stage_times import TimedProgress

AND = Path(__file__).parents[2] / "hypotheses" / "toys" / "and.circuit.yaml"


class Told(Silent):
    """What another progress hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def stage(self, text: str) -> None:
        self.heard.append(text)

    def advance(self, prompts: int) -> None:
        self.heard.append(prompts)


def test_seconds_and_prompts_of_each_stage() -> None:
    """A stage that comes again is the same one; what is told goes on to the other progress."""
    told, times = Told(), iter([10.0, 11.0, 13.5, 20.0, 20.25])
    progress = TimedProgress(told, "starting", lambda: next(times))
    progress.stage("running")
    progress.advance(8)
    progress.stage("searching")
    progress.advance(3)
    progress.stage("running")
    progress.advance(2)
    found = progress.ended()
    assert [(one.stage, one.seconds, one.prompts) for one in found] == [
        ("starting", 1.0, 0),
        ("running", 2.75, 10),
        ("searching", 6.5, 3),
    ]
    assert told.heard == ["running", 8, "searching", 3, "running", 2]


def test_a_run_says_where_its_time_went(tmp_path: Path) -> None:
    """Together the stages ran what the whole did; asked for it, nothing is shown again."""
    words = ["verify", str(AND), "--profile", "--store", str(tmp_path), "--negatives", "off", "--format", "json"]
    for _ in range(2):
        ran = CliRunner().invoke(main, words, catch_exceptions=False)
        assert ran.exit_code == 0, ran.stderr
        found = json.loads(ran.stdout)
        stages = {one["stage"]: one for one in found["profile"]}
        assert [*stages][:2] == ["starting torch and pyvene", "loading zoo:and"]
        assert all(one["seconds"] >= 0 and one["peak_bytes"] > 1e7 for one in found["profile"])
        assert "nothing has changed" not in ran.stderr
    assert stages["running"]["forwards"] == pytest.approx(0)  # all was stored
    text = CliRunner().invoke(main, ["verify", str(AND), "--profile", "--no-store"], catch_exceptions=False).stdout
    assert "where the time went" in text
    assert "where the time went" not in CliRunner().invoke(main, ["verify", str(AND), "--no-store"]).stdout
