"""Prompts of a file are scrubbed by its rows: those that agree on the columns that are carried stand for each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from circuitspec.analysis.claims.abstraction.scrubbed import PlannedScrub
from circuitspec.analysis.verification_result import Verification
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.pipelines.verify import VerifyOptions, verify
from tests.zoo.test_toys_hypotheses import Quiet

FLOWS = {"on": 1, "closed": 1, "up": 1, "off": 0, "open": 0, "down": 0}
ROOMS = ("Kitchen", "Hall", "Cellar", "Attic")
HYPOTHESIS = """circuitspec: 1
name: relay
model: {{id: zoo:mediation}}
task: {{file: lamps.jsonl, checks: {{accuracy: 1.0}}}}
circuit:
  groups:
    relay: {{nodes: [a1.h0], at: last}}
    lamp: {{nodes: [m1], at: last}}
  paths: [relay -> lamp -> logits]
  carries: {carries}
ablation: {{value: resample, from: other, level: path}}
claims:
  - scrubbed: {{metric: logit_diff, at_least: 0.99, draws: 3}}
"""


def row(room: str, word: str) -> dict[str, object]:
    lit, dark = (" lit", " dark") if FLOWS[word] else (" dark", " lit")
    other = "off" if FLOWS[word] else "on"
    return {
        "clean": f"{room} lamp: its switch is {word}, so it is",
        "corrupt": {"other": f"{room} lamp: its switch is {other}, so it is"},
        "answers": [lit],
        "wrong": [dark],
        "positions": {"last": -1},
        "flows": str(FLOWS[word]),
        "word": word,
        "room": room,
    }


def scrubbed(folder: Path, carries: str) -> Verification:
    rows = [row(room, word) for room in ROOMS for word in FLOWS]
    (folder / "lamps.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    document = parse_hypothesis(HYPOTHESIS.format(carries=carries), str(folder / "lamps.circuit.yaml"))
    return verify(document, VerifyOptions(negatives="off"), Quiet()).verification


def test_rows_that_agree_stand_for_each_other(tmp_path: Path) -> None:
    """The lamp follows the relay: whole where rows agree on whether current flows, half of the outputs else."""
    kept = scrubbed(tmp_path, "{relay: [flows], lamp: [flows]}")
    assert kept.claims[0].value == pytest.approx(1.0, abs=1e-4)
    assert not {one.code for one in kept.warnings} & {"CS460", "CS461"}
    lost = scrubbed(tmp_path, "{relay: nothing, lamp: everything}")
    (claim,) = lost.plan.claims
    assert isinstance(claim, PlannedScrub)
    run = lost.records[claim.draws[0].scrubbed]["logit_diff"]  # 4 where the drawn row has the same flow, else -4
    np.testing.assert_allclose(np.abs(run), 4, atol=1e-3)
    assert 0 < (run > 0).sum() < len(run)


def test_a_class_of_one_is_told_of(tmp_path: Path) -> None:
    found = scrubbed(tmp_path, "{relay: [flows, word, room], lamp: [flows]}")
    (warning,) = (one for one in found.warnings if one.code == "CS461")
    assert warning.data["untested"] == {"m1@last -> logits": 0.0, "a1.h0@last -> m1@last -> logits": 1.0}


def test_columns_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError) as error:
        scrubbed(tmp_path, "{relay: [current]}")
    (found,) = error.value.diagnostics
    assert found.code == "CS243"
    assert found.hint == "their columns are flows, room, word"
