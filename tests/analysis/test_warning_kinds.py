"""The registry of evidence warnings: what each kind must hold, and a kind of one's own through the registry alone."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from circuitspec.analysis.warnings import all_warnings
from circuitspec.analysis.warnings.all_warnings import WARNINGS, find_warnings
from circuitspec.analysis.warnings.evidence import Evidence, EvidenceWarning, WarningKind
from circuitspec.cli import main
from circuitspec.diagnostics.codes import CODES
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.reports.explanations import all_codes
from tests.analysis.support import evidence
from tests.zoo.toy_cases import HYPOTHESES


def test_every_kind_has_a_code_of_its_own_and_a_part_of_the_file_that_there_is() -> None:
    codes = [kind.code for kind in WARNINGS]
    assert len(set(codes)) == len(codes)
    assert not set(codes) & set(CODES)
    for kind in WARNINGS:
        assert kind.place[0] in Hypothesis.model_fields, kind.code
        assert all_codes()[kind.code].title == kind.title


@pytest.mark.parametrize("kind", WARNINGS, ids=lambda kind: kind.code)
def test_nothing_is_found_where_nothing_was_looked_for(kind: WarningKind) -> None:
    assert list(kind.find(evidence())) == []


FILE = HYPOTHESES / "and.circuit.yaml"
TEXT = FILE.read_text(encoding="utf-8")


def few(evidence: Evidence) -> list[EvidenceWarning]:
    n = evidence.records.n_prompts
    data = {"prompts": n, "claims": len(evidence.claims)}
    return [EvidenceWarning("CS499", f"{n} prompts are few", "it says so", "write more", data)] if n < 100 else []


FEW = WarningKind("CS499", ("task", "prompts"), "few prompts", "Fewer than 100 prompts are few.", few)


@pytest.fixture
def _with_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_warnings, "WARNINGS", (*WARNINGS, FEW))


def said(*arguments: str) -> str:
    ran = CliRunner().invoke(main, [*arguments], env={"CIRCUITSPEC_NO_STORE": "1"})
    assert ran.exit_code == 0, ran.output
    return ran.stdout


@pytest.mark.usefixtures("_with_few")
def test_a_kind_that_is_in_the_registry_is_found_reported_and_explained() -> None:
    """Text and JSON of `verify`, its place in the file, and `explain`: nothing else knows of it."""
    claims = TEXT.count("\n  - ")
    text = said("verify", str(FILE))
    assert "warning[CS499]: 24 prompts are few\n   it says so\n   help: write more\n" in text
    (warning,) = json.loads(said("verify", "--format", "json", str(FILE)))["warnings"]
    assert warning == {
        "code": "CS499",
        "message": "24 prompts are few",
        "detail": "it says so",
        "help": "write more",
        "data": {"prompts": 24, "claims": claims},
    }
    line = TEXT[: TEXT.index("  prompts: 24")].count("\n") + 1
    assert f"line={line}," in next(
        x for x in said("verify", "--format", "github", str(FILE)).splitlines() if "CS499" in x
    )
    assert said("explain", "CS499") == "CS499: few prompts\n\nFewer than 100 prompts are few.\n\n"


def test_a_warning_is_about_the_part_of_the_file_that_its_kind_names() -> None:
    (found,) = find_warnings(evidence(), [FEW])
    assert found.place == ("task", "prompts")
