"""Another circuit that meets the bound: on toys of which it is known on paper whether there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from circuitspec.analysis.circuit_effects.alternative_circuits import AlternativeCircuit
from circuitspec.analysis.verification_result import Verification
from circuitspec.cli import main
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.reports.machine.json_document import to_document
from circuitspec.reports.text.alternatives_table import alternatives_tables, alternatives_text
from circuitspec.runtime.progress import Silent
from tests.comparison.support import lamp, of_toy, read


def searched(text: str, sharing: float = 0.0) -> Verification:
    return verify(read(text), VerifyOptions("off", alternatives=sharing), Silent()).verification


def only(found: Verification) -> AlternativeCircuit:
    assert found.alternatives is not None
    (one,) = found.alternatives
    return one


def test_the_other_of_two_switches_in_parallel_is_found() -> None:
    """CS475. The lamp is free: either switch lights it, and the model without the one still does all of the task."""
    found = searched(lamp({"switch": ["a0.h0@END"]}, free='"m*"'))
    one = only(found)
    assert (one.status, one.nodes, one.shared) == ("found", ("a0.h1@END",), ())
    assert one.recovered is not None
    assert one.recovered.value == pytest.approx(1)
    assert one.recovered.n == 12  # judged on the half of 24 prompts that did not choose it
    assert one.rest == pytest.approx(1)
    assert one.kl == pytest.approx(0, abs=1e-6)
    (warning,) = (warning for warning in found.warnings if warning.code == "CS475")
    assert warning.data["nodes"] == ["a0.h1@END"]
    data: Any = to_document(found)["alternatives"]
    assert data[0]["recovered"]["value"] == pytest.approx(1)
    (text,) = alternatives_text(found.alternatives)
    assert "a0.h1@END" in text
    assert "28 components at positions, 28 of them patched" in text
    (table,) = alternatives_tables(found.alternatives)
    assert ("circuit", "a0.h1@END") in table.rows


def test_of_two_switches_in_series_there_is_no_other() -> None:
    found = searched(lamp({"switches": ["a0.h0@END", "a0.h1@END"]}, model="and", free='"m*"'))
    one = only(found)
    assert (one.status, one.nodes) == ("none found", ())
    assert one.rest == pytest.approx(0, abs=1e-5)
    assert one.recovered is not None
    assert one.recovered.value == pytest.approx(0, abs=1e-5)
    assert not [warning for warning in found.warnings if warning.code == "CS475"]


@pytest.mark.parametrize(
    ("bound", "status"), [(0.6, "found"), pytest.param(0.9, "none found", marks=pytest.mark.nightly)]
)
def test_a_backup_recovers_seven_tenths(bound: float, status: str) -> None:
    """It is silent while the main head speaks, so that only the model without that shows what it does."""
    one = only(searched(of_toy("backup", ["a0.h2"], at_least=bound)))
    assert (one.status, one.nodes) == (status, ("a1.h1@END",))
    assert one.recovered is not None
    assert one.recovered.value == pytest.approx(0.7, abs=1e-4)


@pytest.mark.nightly
def test_what_may_be_shared_is_what_the_rest_cannot_do_without() -> None:
    """Both switches go by one neuron. Nothing disjoint lights the lamp; with half of the circuit shared, the other
    switch does."""
    text = lamp({"switch": ["a0.h0@END"], "lamp": ["m1.n0@END"]})
    assert only(searched(text)).status == "none found"
    one = only(searched(text, 0.5))
    assert (one.status, one.nodes, one.shared) == ("found", ("a0.h1@END", "m1.n0@END"), ("m1.n0@END",))
    assert one.allowed == 1


def test_where_nothing_is_looked_for_it_is_said() -> None:
    """Too few prompts to choose on one half and judge on the other; no supported claim; at edge level."""
    few = lamp({"switch": ["a0.h0@END"]}, free='"m*"').replace("prompts: 24", "prompts: 18")
    one = only(searched(few))
    assert (one.status, "18 prompts are too few" in one.reason) == ("not looked for", True)
    (table,) = alternatives_tables((one,))
    assert table.rows == (("not looked for", one.reason),)
    refuted = searched(lamp({"switch": ["a0.h2@END"]}, free='"m*"'))
    assert refuted.alternatives == ()
    assert alternatives_text(refuted.alternatives) == (
        "no claim of sufficiency is supported, so no other circuit was looked for",
    )
    assert alternatives_text(None) == ()


@pytest.mark.nightly
def test_the_command_says_it_and_the_saved_result_again(tmp_path: Path) -> None:
    file, folder, page = tmp_path / "or.circuit.yaml", tmp_path / "result", tmp_path / "page.html"
    file.write_text(lamp({"switch": ["a0.h0@END"]}, free='"m*"'), encoding="utf-8")
    asked = ["verify", str(file), "--negatives", "off", "--alternatives", "--output-dir", str(folder)]
    said = CliRunner().invoke(main, [*asked, "--html", str(page)])
    assert said.exit_code == 0, said.output
    assert "another circuit that meets the bound of `sufficient`: logit_diff: found" in said.stdout
    assert "a0.h1@END" in page.read_text(encoding="utf-8")
    assert CliRunner().invoke(main, ["report", str(folder)]).stdout == said.stdout
    assert "--alternatives" in page.read_text(encoding="utf-8")  # in the command that makes it again


def test_sharing_goes_with_alternatives(tmp_path: Path) -> None:
    file = tmp_path / "or.circuit.yaml"
    file.write_text(lamp({"switch": ["a0.h0@END"]}), encoding="utf-8")
    said = CliRunner().invoke(main, ["verify", str(file), "--sharing", "0.5"])
    assert said.exit_code == 2
    assert "give --alternatives" in said.stderr


@pytest.mark.nightly
def test_edges_are_not_searched() -> None:
    groups = {"switch": ["a0.h0@END"], "lamp": ["m1@END"]}
    one = only(searched(lamp(groups, paths=["input -> switch -> lamp -> logits"], level="edge")))
    assert one.status == "not looked for"
    assert "at edge level" in one.reason
