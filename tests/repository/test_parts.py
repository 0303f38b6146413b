"""Claims that several figures decide are locked and compared figure by figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.pipelines.verify import Outcome, VerifyOptions, verify
from circuitspec.reports.machine.json_document import to_document
from circuitspec.repository.diff import compare, render_diff
from circuitspec.repository.drift import claim_drift, locked_claim
from circuitspec.repository.lock import Lock, checksums
from circuitspec.repository.lock_file import read_lock, write_lock
from circuitspec.repository.recorded import read_recorded
from tests.repository.support import LOCK, ROOT, Quiet


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return verify(load_hypothesis(ROOT / "hypotheses" / "toys" / "backup.circuit.yaml"), VerifyOptions("off"), Quiet())


def locked(outcome: Outcome) -> Lock:
    claims = tuple(map(locked_claim, outcome.verification.claims))
    return LOCK.model_copy(update={"claims": claims})


def test_a_lock_holds_every_figure(outcome: Outcome, tmp_path: Path) -> None:
    lock = locked(outcome)
    gate = lock.claims[-1]
    assert (gate.claim, gate.measure, gate.value, gate.ci) == ("gate", "interaction", None, None)
    assert {part.name: part.value for part in gate.parts} == pytest.approx({"noised": -0.7, "denoised": 0}, abs=1e-5)
    path = tmp_path / "backup.circuit.lock"
    write_lock(path, lock, "backup.circuit.yaml")
    read = read_lock(path)
    assert (read.damage, read.lock) == ((), lock)
    assert claim_drift(read, outcome.verification.claims, lock.environment) == ((),) * 5


def test_a_figure_that_moved_is_drift(outcome: Outcome, tmp_path: Path) -> None:
    lock = locked(outcome)
    gate = lock.claims[-1]
    noised, denoised = gate.parts
    other = gate.model_copy(update={"parts": (noised.model_copy(update={"value": -0.9, "ci": (-0.9, -0.9)}), denoised)})
    path = tmp_path / "backup.circuit.lock"
    write_lock(path, lock.model_copy(update={"claims": (*lock.claims[:-1], other)}), "backup.circuit.yaml")
    *same, (found,) = claim_drift(read_lock(path), outcome.verification.claims, lock.environment)
    assert same == [()] * 4
    assert found.code == "CS556"
    assert "interaction noised" in found.message
    assert "-0.9" in found.message
    assert found.span is not None


def test_a_lock_from_before_there_were_figures_is_read(tmp_path: Path) -> None:
    plain = LOCK.model_dump(mode="json")
    for claim in plain["claims"]:
        del claim["parts"]
    path = tmp_path / "ioi.circuit.lock"
    path.write_text(json.dumps({**plain, "checksums": checksums(plain)}), encoding="utf-8")
    read = read_lock(path)
    assert (read.damage, read.lock) == ((), LOCK)


def test_results_are_compared_figure_by_figure(outcome: Outcome, tmp_path: Path) -> None:
    document: Any = to_document(outcome.verification)
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_text(json.dumps(document), encoding="utf-8")
    document["claims"][-1]["parts"][1] |= {"value": 0.4, "ci": [0.3, 0.5]}
    two.write_text(json.dumps(document), encoding="utf-8")
    assert compare(read_recorded(one), read_recorded(one)).agree
    same = render_diff(compare(read_recorded(one), read_recorded(one)))
    assert "SUPPORTED interaction noised -0.70 [-0.70, -0.70], denoised 0.00 [0.00, 0.00]" in same
    found = compare(read_recorded(one), read_recorded(two))
    assert [line.agrees for line in found.claims] == [True] * 4 + [False]
    assert "interaction denoised" in found.claims[-1].said
    document["claims"][-1]["parts"].pop()
    two.write_text(json.dumps(document), encoding="utf-8")
    assert "figures noised, denoised -> noised" in compare(read_recorded(one), read_recorded(two)).claims[-1].said
