"""What is said of a file to explore without running it, and of what a run takes before it starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exploration.exploration_findings import ExplorationFindings
from circuitspec.exploration.foreseen_cost import spoken
from circuitspec.exploration.request import ExploreOptions
from circuitspec.hypothesis_file.load_file import load_exploration
from circuitspec.pipelines.explore import explore
from circuitspec.runtime.progress import Silent

HYPOTHESES = Path(__file__).parents[2] / "hypotheses"
TASK = HYPOTHESES / "explored" / "ioi-tiny.task.yaml"


class Noted(Silent):
    """Keeps what is said once."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def said_and_taken(file: Path, options: ExploreOptions) -> tuple[int, ExplorationFindings]:
    progress = Noted()
    found = explore(load_exploration(file), options, progress, "explore")
    (note,) = progress.notes
    said = re.match(r"about ([\d,]+) forward passes at most, (less than a minute|\d+ minutes?); ", note)
    assert said is not None, note
    return int(said[1].replace(",", "")), found


@pytest.mark.parametrize(
    "toy",
    [
        "and",
        pytest.param("negative", marks=pytest.mark.nightly),
        pytest.param("backup", marks=pytest.mark.nightly),
        pytest.param("nobel", marks=pytest.mark.nightly),
    ],
)
@pytest.mark.parametrize(
    "options",
    [
        ExploreOptions(),
        ExploreOptions(start="resid"),
        pytest.param(ExploreOptions(sweeps=("heads", "resid")), marks=pytest.mark.nightly),
    ],
)
def test_no_more_is_taken_than_was_said(toy: str, options: ExploreOptions) -> None:
    said, found = said_and_taken(HYPOTHESES / "toys" / f"{toy}.circuit.yaml", options)
    assert found.forwards <= said


@pytest.mark.nightly
def test_of_a_circuit_of_many_components_the_number_is_near() -> None:
    said, found = said_and_taken(TASK, ExploreOptions(free=("m*",)))
    assert found.forwards <= said <= 4 * found.forwards


def test_the_allowance_bounds_what_is_said() -> None:
    said, found = said_and_taken(TASK, ExploreOptions(free=("m*",), max_forwards=100))
    assert said == 100
    assert found.forwards <= 100
    assert spoken({"a": 600, "b": 1200}, None, 2.0) == (
        "about 1,800 forward passes at most, 60 minutes; --max-forwards bounds it, "
        "and what is in the store costs nothing"
    )
    assert spoken({"a": 600}, 300, None).startswith("about 300 forward passes at most; that is --max-forwards")


def call(*arguments: object) -> tuple[int, str, str]:
    ran = CliRunner().invoke(main, [*map(str, arguments)])
    return ran.exit_code, ran.stdout, ran.stderr


def test_check_takes_what_explore_takes() -> None:
    code, out, err = call("check", TASK, HYPOTHESES / "ioi-tiny.circuit.yaml")
    assert (code, err) == (0, "")
    assert f"{TASK}: ok to explore   100 prompts, 6 positions\n" in out
    needed = out.split("note: ")[1]
    assert needed.startswith("`verify` needs besides: circuit")
    assert "ioi-tiny.circuit.yaml: ok   " in out


def test_plan_says_what_explore_takes() -> None:
    code, out, err = call("plan", TASK)
    assert (code, err) == (0, "")
    assert "to explore: 20 heads and MLPs, 6 positions\n" in out
    stages = [int(text.replace(",", "")) for text in re.findall(r"^   \S.*   ([\d,]+)$", out, re.MULTILINE)]
    total = re.search(r"^about ([\d,]+) forward passes at most; --max-forwards bounds it", out, re.MULTILINE)
    assert total is not None
    assert sum(stages) == int(total[1].replace(",", "")) > 100
    code, out, err = call("plan", TASK, "--tests")
    assert (code, out) == (2, "")
    assert "--methods, --tests and --alternatives are about `verify`" in err


@pytest.mark.parametrize("command", ["check", "plan"])
def test_mistakes_of_a_file_to_explore_are_told_as_explore_tells_them(command: str, tmp_path: Path) -> None:
    file = tmp_path / "bare.yaml"
    file.write_text("circuitspec: 1\nname: bare\nmodel: {id: zoo:ioi-tiny}\ntask: {file: p.jsonl}\n", "utf-8")
    (tmp_path / "p.jsonl").write_text('{"clean": "Mary went", "answers": [" to"], "wrong": [" at"]}\n', "utf-8")
    code, out, err = call(command, file)
    assert (code, out) == (5, "")
    assert "error[CS541]: the prompts have no corruption" in err
    file.write_text("circuitspec: 1\nname: bare\nmodel: {id: zoo:ioi-tiny}\ntask: {file: p.jsonl}\nablatoin: {}\n")
    code, out, err = call(command, file)
    assert (code, "error[CS110]" in err) == (3, True)


def test_a_hypothesis_without_claims_is_still_a_mistake(tmp_path: Path) -> None:
    text = (HYPOTHESES / "ioi-tiny.circuit.yaml").read_text("utf-8")
    file = tmp_path / "x.circuit.yaml"
    file.write_text(text[: text.index("claims:")], "utf-8")
    code, _, err = call("check", file)
    assert code == 3
    assert "the file needs the key claims" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (ExploreOptions(free=("m*",), sweeps=("mlps", "heads", "neurons"), neurons=True), "MLP"),
        (ExploreOptions(free=("a*",), sweeps=("attention", "mlps", "heads")), "head"),
    ],
)
def test_a_sweep_of_nothing_is_refused(options: ExploreOptions, said: str) -> None:
    """It would look like a sweep that found nothing."""
    with pytest.raises(CircuitspecError) as error:
        explore(load_exploration(HYPOTHESES / "toys" / "and.circuit.yaml"), options, Silent(), "explore")
    bare = {"MLP": ["--sweep mlps", "--sweep neurons", "--neurons"], "head": ["--sweep attention", "--sweep heads"]}
    assert [(one.code, one.message) for one in error.value.diagnostics] == [
        ("CS563", f"{option}: there is nothing to look at: no {said} is searched") for option in bare[said]
    ]
