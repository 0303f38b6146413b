"""`--methods` of `verify` and `plan`, and what it was once called; `explore --sweep KIND` is another thing."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from circuitspec.cli import main

TOY = str(Path(__file__).parents[2] / "hypotheses" / "toys" / "and.circuit.yaml")


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_old_name_does_the_same() -> None:
    new = printed("plan", TOY, "--methods")
    assert printed("plan", TOY, "--sweep") == new
    assert printed("plan", TOY) != new


@pytest.mark.parametrize("command", ["plan", "verify"])
def test_only_the_new_name_is_shown(command: str) -> None:
    shown = printed(command, "--help")
    assert "--methods" in shown
    assert "--sweep" not in shown


def test_verify_does_it_under_the_old_name_and_says_the_new_one(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    shown = printed("verify", TOY, "--negatives", "off", "--no-store", "--sweep", "--html", str(page))
    assert "the circuit under 52 methods" in shown
    text = page.read_text(encoding="utf-8")
    assert "and.circuit.yaml --negatives off --methods" in text
    assert "--sweep" not in text


def test_explore_keeps_its_own() -> None:
    assert "--sweep [resid|attention|mlps|heads|patterns|experts|neurons|expert_neurons|features]" in " ".join(
        printed("explore", "--help").split()
    )
