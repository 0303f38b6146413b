"""Kinds of claims: each is registered twice, and a new one takes nothing but its two classes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from circuitspec.analysis.claims.claim_kind import ClaimKind
from circuitspec.analysis.claims.registry import KINDS
from circuitspec.hypothesis_file.schema.abstraction.interchange_block import AboutVariables
from circuitspec.hypothesis_file.schema.abstraction.scrubbed_block import Scrubbed
from circuitspec.hypothesis_file.schema.claims.all_blocks import CLAIMS

ROOT = Path(__file__).parents[2]
TOY = ROOT / "hypotheses" / "toys" / "or.circuit.yaml"


def test_what_may_be_written_can_be_run_and_the_other_way_round() -> None:
    assert list(KINDS) == list(CLAIMS)


@pytest.mark.parametrize("name", CLAIMS)
def test_a_kind_stands_in_two_modules_of_its_name(name: str) -> None:
    about_variables = issubclass(CLAIMS[name], AboutVariables | Scrubbed)
    folder, beside = ("abstraction", "abstraction") if about_variables else ("claims", "kinds")
    assert CLAIMS[name].__module__ == f"circuitspec.hypothesis_file.schema.{folder}.{name}_block"
    assert CLAIMS[name].model_fields["kind"].default == name
    assert type(KINDS[name]).__module__ == f"circuitspec.analysis.claims.{beside}.{name}"


@pytest.mark.parametrize("name", CLAIMS)
def test_every_kind_says_what_it_runs(name: str) -> None:
    kind = type(KINDS[name])
    assert (kind.describe, kind.patched_set) != (ClaimKind.describe, ClaimKind.patched_set)


def added(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of a program that knows one more kind of claim."""
    call = [sys.executable, "-m", "tests.analysis.added_claim", command, *arguments]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A lamp with two switches in parallel, and a neuron behind both: either head can go, and the neuron cannot."""
    text = TOY.read_text("utf-8")
    claim = "  - dispensable: {nodes: [first_switch, second_switch, lamp], metric: logit_diff, at_least: 0.9}\n"
    path = tmp_path_factory.mktemp("added") / "or.circuit.yaml"
    path.write_text(text[: text.index("claims:")] + "claims:\n" + claim, "utf-8")
    return str(path)


def test_a_kind_that_two_classes_add_is_checked_and_planned(file: str) -> None:
    checked = added("check", file)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "1 claim" in checked.stdout
    planned = added("plan", file).stdout
    assert [line.split("  ")[0] for line in planned.splitlines() if line.startswith("without")] == [
        "without first_switch",
        "without second_switch",
        "without lamp",
    ]


def test_its_mistakes_are_told_at_their_places(file: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.circuit.yaml"
    wrong.write_text(Path(file).read_text("utf-8").replace("second_switch, lamp]", "second_swich, a9.h9]"), "utf-8")
    told = added("check", str(wrong))
    assert told.returncode == 3
    assert "CS204" in told.stderr + told.stdout
    assert "second_swich is neither a group nor a component" in told.stderr + told.stdout
    wrong.write_text(Path(file).read_text("utf-8").replace("- dispensable", "- dispensible"), "utf-8")
    told = added("check", str(wrong))
    assert "did you mean dispensable?" in told.stderr + told.stdout


def test_it_is_verified_and_told_in_text_and_json(file: str, tmp_path: Path) -> None:
    """The logit difference is 4 clean and -4 corrupt; 4 without either head, -4 without the neuron behind both."""
    saved = tmp_path / "report.json"
    text = added("verify", file, "--negatives", "off", "--report", f"json={saved}")
    assert text.returncode == 1, text.stderr
    assert "the model without first_switch, second_switch, lamp, one at a time: node level, resample" in text.stdout
    (line,) = (line for line in text.stdout.splitlines() if line.startswith("REFUTED"))
    assert line.startswith("REFUTED  dispensable   recovered logit_diff first_switch 1.00, second_switch 1.00, lamp ")
    assert "(lost: lamp), bound first_switch at least 0.9, " in line
    document = json.loads(saved.read_text("utf-8"))
    (claim,) = document["claims"]
    assert (claim["claim"], claim["status"], claim["found"]) == ("dispensable", "REFUTED", "lost: lamp")
    values = {part["name"]: part["value"] for part in claim["parts"]}
    assert values == pytest.approx({"first_switch": 1.0, "second_switch": 1.0, "lamp": 0.0}, abs=1e-4)
    runs = {name: claim["runs"][f"without {name}"] for name in values}
    assert runs == pytest.approx({"first_switch": 4.0, "second_switch": 4.0, "lamp": -4.0}, abs=1e-3)
