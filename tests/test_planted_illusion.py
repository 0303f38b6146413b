"""A direction that works only through a dormant part: planted by hand, and what is said of it; all by arithmetic.

A switch is on (v = 1) or off (v = -1). The head a0.h0 copies v to END, where the logits read it: that of ` lit` less
that of ` dark` is 2 v. The head a0.h1 attends to the switch too. It copies v to a feature that nothing reads (channel 0
of its value), and would copy a feature that no token has (channel 1) to where the logits read it, twice as strongly.

So a0.h1's value is (v, 0): taken whole from the source, it changes no answer. Along (1, 1) / sqrt 2, from v = -1 to
v = 1, it moves from (-1, 0) by half of (2, 0) . (1, 1) = 1 in both channels, to (0, 1): the difference of the logits
becomes 2 * -1 + 4 * 1 = 2, as if the switch were on. Mean values differ along channel 0 alone. So the part along them
is channel 0 (nothing reads it), the part across is channel 1 (0 in base and source), and both together are the value.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuitspec.analysis.claims.abstraction.pair_claims import PairTrial, PlannedPairs
from circuitspec.analysis.verification_result import Verification
from circuitspec.engine.attribution.subspace_training import TrainingSettings
from circuitspec.experiments.levels.interchange_level import WHOLE
from circuitspec.experiments.subspaces.subspace_files import written
from circuitspec.experiments.subspaces.subspace_parts import ACROSS, ALONG, BOTH, MEANS, PCA
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.models.zoo.toys.blueprint import D_HEAD, ONE, HardHead, Match, Toy
from circuitspec.models.zoo.toys.weights import build
from circuitspec.pipelines.abstraction.alignment_text import render_alignments
from circuitspec.pipelines.abstraction.alignment_warnings import warnings_of
from circuitspec.pipelines.abstraction.subspace_search import AlignOptions, align
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.reports.machine.json_document import render_json
from circuitspec.reports.many_run_tables import claim_tables
from circuitspec.reports.text.data_frames import experiments_frame
from circuitspec.reports.text.text_report import render_text
from circuitspec.runtime.progress import Silent

ON = [f"up{letter}" for letter in "abcdefghijkl"]
OFF = [f"down{letter}" for letter in "abcdefghijkl"]
PLACES = [f"place{letter}" for letter in "abcdefghijklmnop"]  # which are nothing to anybody
READ = (Match({ONE: 1}, {"at switch": 1}),)
ILLUSION = np.sqrt(0.5) * np.eye(D_HEAD)[:, :1] + np.sqrt(0.5) * np.eye(D_HEAD)[:, 1:2]
CARRIED = np.eye(D_HEAD)[:, :1]


def toy() -> Toy:
    words: dict[str, dict[str, float]] = {f" {word}": {"v": 1} for word in ON}
    words |= {f" {word}": {"v": -1} for word in OFF}
    return Toy(
        "dormant",
        "a switch, and a head that would turn on the lamp",
        ("v", "never", "at switch", "lamp", "unread", "other way"),
        {**words, **{f" {word}": {} for word in PLACES}, "The": {}, " near": {}, " is": {}, " lit": {}, " dark": {}},
        {1: {"at switch": 1}},
        (
            HardHead(0, 0, READ, {"v": {"lamp": 1}}),
            HardHead(0, 1, READ, {"v": {"unread": 1}, "never": {"other way": 1}}),
        ),
        (),
        {" lit": {"lamp": 1, "other way": 2}, " dark": {"lamp": -1, "other way": -2}},
    )


FILE = """circuitspec: 1
name: dormant
model: {id: ./model}
task:
  templates: ["The {S.word} near {P} is"]
  slots: {S: $switches, P: $places}
  lists: {switches: WORDS, places: PLACES}
  answer: " {S.lamp}"
  wrong: " {S.other}"
  positions: {END: last}
  prompts: 48
circuit: {groups: {heads: {nodes: [a0.h0, a0.h1], at: END}}}
ablation: {value: zero, level: node, positions: declared}
abstraction:
  variables: {switch: S.lamp}
  output: " {switch}"
  align: {switch: {nodes: [HEAD], at: END, subspace: {rank: 1, file: given.safetensors}}}
  pairs: {redrawn: {redraw: [S]}}
claims:
  - interchange: {variable: switch, at_least: 0.8}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dormant")
    model, tokenizer = build(toy())
    model.float().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


def file_of(folder: Path, head: str) -> Path:
    words = [{"word": word, "lamp": "lit", "other": "dark"} for word in ON]
    words += [{"word": word, "lamp": "dark", "other": "lit"} for word in OFF]
    file = folder / f"{head}.circuit.yaml"
    text = FILE.replace("WORDS", json.dumps(words)).replace("PLACES", json.dumps(PLACES)).replace("HEAD", head)
    file.write_text(text, encoding="utf-8")
    return file


def verified(folder: Path, head: str, basis: np.ndarray) -> Verification:
    content = written({"switch": basis}, {"switch": {"component": head, "where": "END"}})
    (folder / "given.safetensors").write_bytes(content)
    return verify(load_hypothesis(file_of(folder, head)), VerifyOptions(negatives="off"), Silent()).verification


@pytest.fixture(scope="module")
def illusion(folder: Path) -> Verification:
    return verified(folder, "a0.h1", ILLUSION)


def trial_of(found: Verification) -> PairTrial:
    (planned,) = found.plan.claims
    assert isinstance(planned, PlannedPairs)
    (trial,) = planned.trials
    return trial


def test_the_direction_does_it_and_nothing_else_does(illusion: Verification) -> None:
    (claim,) = illusion.claims
    assert claim.status == "SUPPORTED"
    figures = {name: one.value for name, one in claim.parts[0].figures}
    assert figures["IIA, changed"] == 1
    assert [figures[f"IIA, changed, {name}"] for name in (WHOLE, MEANS, PCA, ALONG, ACROSS, BOTH)] == [0] * 6
    trial = trial_of(illusion)
    told = illusion.records
    changed = np.array(trial.changed)
    assert 12 < changed.sum() < 36
    moved = told[trial.patched]["logit"] - told[trial.stayed]["logit"]
    np.testing.assert_allclose(moved[changed], 2, atol=1e-4)
    for name in (ALONG, ACROSS, BOTH):  # what doing nothing gives: -2 for the answer that is asked for
        np.testing.assert_allclose(told[trial.parts[name]]["logit_diff"][changed], -2, atol=1e-4)


def test_patched_states_are_sqrt_2_away(illusion: Verification) -> None:
    """Natural values are (1, 0) and (-1, 0); those patched (0, 1) and (0, -1)."""
    trial = trial_of(illusion)
    assert trial.states is not None
    for one in (trial.states.whole, trial.states.within):
        changed = np.array(trial.changed)
        np.testing.assert_allclose(one.patched[changed], np.sqrt(2), atol=1e-4)
        np.testing.assert_allclose(one.patched[~changed], 0, atol=1e-4)
        np.testing.assert_allclose(one.natural, 0, atol=1e-4)
        assert one.outside.tolist() == changed.tolist()


def test_what_is_said_of_it(illusion: Verification) -> None:
    found = {warning.code: warning for warning in illusion.warnings}
    assert {"CS455", "CS457"} <= set(found)
    parts: Any = found["CS455"].data["parts"]
    assert {name: one["value"] for name, one in parts.items()} == {ALONG: 0, ACROSS: 0, BOTH: 0}
    assert "through a part that is otherwise dormant" in found["CS455"].detail
    assert found["CS457"].data["outside"]["value"] == 1  # type: ignore[index]
    text = " ".join(render_text(illusion).split())
    for name in (WHOLE, "random subspace 1", MEANS, PCA, ALONG, ACROSS, BOTH):
        assert f"{name} 0.00 [" in text, name
    (table,) = claim_tables(illusion)  # of the page
    column = table.columns.index("IIA, changed [95% CI]")
    shown = {row[0].strip(): row[column].partition(" ")[0] for row in table.rows}
    for name in (WHOLE, "random subspace 1", MEANS, PCA, ALONG, ACROSS, BOTH):
        assert (shown["redrawn"], shown[name]) == ("1.00", "0.00")
    assert "outside the natural range" in table.caption
    frame = experiments_frame(illusion.plan, illusion.records).set_index("experiment")["accuracy"]
    of_all = 1 - np.array(trial_of(illusion).changed).mean()  # pairs that need not change
    for name in (WHOLE, ALONG, ACROSS, BOTH):
        assert frame[f"switch from redrawn at a0.h1@END, {name}"] == pytest.approx(of_all)
    told = json.loads(render_json(illusion))["claims"][0]
    assert told["parts"][0]["figures"][f"IIA, changed, {BOTH}"]["value"] == 0
    assert told["parts"][0]["figures"]["outside the natural range, in all directions"]["value"] == 1


def test_where_the_switch_is_carried_nothing_is_said(folder: Path) -> None:
    """Channel 0 of the head that the logits read: its one part is all of it, and patched states are natural."""
    found = verified(folder, "a0.h0", CARRIED)
    (claim,) = found.claims
    assert claim.status == "SUPPORTED"
    figures = {name: one.value for name, one in claim.parts[0].figures}
    assert (figures["IIA, changed"], figures[f"IIA, changed, {WHOLE}"]) == (1, 1)
    assert figures[f"IIA, changed, {MEANS}"] == 1  # channel 0, too
    assert figures["outside the natural range, in all directions"] == 0
    assert not any(ALONG in name for name in figures)
    assert not {warning.code for warning in found.warnings} & {"CS455", "CS457"}


def test_beside_another_variable(folder: Path) -> None:
    """The place, which no answer reads, comes from another source in the same run: the switch's figures stay."""
    content = written({"switch": ILLUSION}, {"switch": {"component": "a0.h1", "where": "END"}})
    (folder / "given.safetensors").write_bytes(content)
    file = file_of(folder, "a0.h1")
    text = file.read_text(encoding="utf-8")
    for old, new in (
        ("{switch: S.lamp}", "{switch: S.lamp, place: P}"),
        ("given.safetensors}}}", "given.safetensors}}, place: {nodes: [r0], at: P}}"),
        ("{redraw: [S]}}", "{redraw: [S]}, elsewhere: {redraw: [P]}}"),
        ("{variable: switch,", "{variables: {switch: redrawn, place: elsewhere},"),
    ):
        assert old in text
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")
    found = verify(load_hypothesis(file), VerifyOptions(negatives="off"), Silent()).verification
    (claim,) = found.claims
    figures = {name: one.value for name, one in claim.parts[0].figures}
    assert figures["IIA, changed"] == 1
    assert [figures[f"IIA, changed, {name}"] for name in (WHOLE, MEANS, PCA, ALONG, ACROSS, BOTH)] == [0] * 6
    assert trial_of(found).states is None  # distances are of one variable's site
    assert "CS455" in {warning.code for warning in found.warnings}


def test_what_is_learned_there_is_warned_of(folder: Path) -> None:
    """`align` finds such a direction in a0.h1 by itself, since it alone can change answers there."""
    file = file_of(folder, "a0.h1")
    text = file.read_text(encoding="utf-8").replace(", file: given.safetensors", "")
    file.write_text(text, encoding="utf-8")
    options = AlignOptions(TrainingSettings(steps=60, lr=0.1), seeds=1, rows=16, controls=False)
    made = align(load_hypothesis(file), options, Silent())
    (found,) = made.variables
    hits = {one.name: one.hits.hit[one.hits.changed].mean() for one in found.controls}
    assert found.test.hit[found.test.changed].all()
    assert [hits[name] for name in (WHOLE, ALONG, ACROSS, BOTH)] == [0, 0, 0, 0]
    said = dict(warnings_of(found))
    assert {"CS454", "CS455", "CS457"} <= set(said)
    assert "through a part that is otherwise dormant" in said["CS455"]
    nothing = replace(found, test=replace(found.test, hit=np.zeros_like(found.test.hit)))
    assert "CS457" not in dict(warnings_of(nothing))  # whose evidence could be doubted
    assert "outside the natural range" in render_alignments(made, "x.safetensors")
