"""Exploring files with dictionaries: the features that a toy was built of, drafted so that `verify` runs the same."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exploration.exploration_findings import ExplorationFindings, ExploreOptions
from circuitspec.exploration.output.exploration_figures import pictures
from circuitspec.exploration.output.exploration_tables import sweeps_frame
from circuitspec.exploration.output.exploration_text import render_exploration
from circuitspec.exploration.preview import check_read_study, plan_study
from circuitspec.hypothesis_file.load_file import load_exploration, parse_exploration, parse_hypothesis
from circuitspec.pipelines.explore import explore
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.runtime.progress import Silent
from tests.dictionaries.test_features_of_a_toy import FLOWS, A, B, D, dictionary, direction
from tests.dictionaries.written_dictionaries import sae_lens

TOYS = Path(__file__).parents[2] / "hypotheses" / "toys"


class Quiet(Silent):
    """Nobody waits."""


@cache
def explored() -> ExplorationFindings:
    """The shipped toy, whose stream is a sum of five features: A and B decide, the others are the same in both runs."""
    study = load_exploration(TOYS / "and-features.circuit.yaml")
    return explore(study, ExploreOptions(sweeps=("features",)), Quiet(), "explore and-features")


def test_the_features_that_decide_come_out() -> None:
    found = explored()
    for circuit in found.circuits:
        assert set(circuit.entries) == {("sae:stream.f0", "END", "positive"), ("sae:stream.f1", "END", "positive")}
        assert circuit.heads == 2
        assert circuit.recovered == pytest.approx(1.0, abs=1e-4)
        assert circuit.knocked_out == pytest.approx(0.0, abs=1e-4)
    outcome = verify(parse_hypothesis(found.circuits[0].draft.text, "d.yaml", TOYS), VerifyOptions("off"), Quiet())
    assert [claim.status for claim in outcome.verification.claims] == ["SUPPORTED", "SUPPORTED"]
    assert outcome.verification.claims[0].value == pytest.approx(1.0, abs=1e-4)
    assert "layers-and-heads" not in pictures(found)


def test_what_is_said_of_features() -> None:
    """relu(A + B - 1) at A = B = 1: each alone takes all away; at A = B = 0 neither alone does anything."""
    found = explored()
    (one,) = found.features
    assert (one.name, one.place, one.n_features, one.moving, one.searched) == ("stream", "r1", 5, 3, 3)
    effects = {(str(e.component.place[1]), e.where.canonical()): e for e in found.sweep.exact if e.size > 0.5}
    assert {number for number, _ in effects} == {"0", "1"}
    for effect in effects.values():
        assert effect.drop == pytest.approx(1.0, abs=1e-4)
        assert effect.rise == pytest.approx(0.0, abs=1e-4)
        assert effect.drop_estimate == pytest.approx(1.0, abs=1e-4)  # the slope is 1 down to the bend
    frame = sweeps_frame(found)
    both = frame[(frame.corruption == "both") & (frame.direction == "noising") & (frame.position == "END")]
    assert dict(zip(both.component, np.round(both.share, 3), strict=True)).get("sae:stream.f0") == 1.0
    text = render_exploration(found)
    assert "2 of 3 features" in text
    assert "heads and MLPs are free" in text


TWO = """
circuitspec: 1
name: two
model: {id: "zoo:and", dtype: float64}
task:
  templates: ["{room} lamp: one switch {A}, one switch {B}, so it is"]
  slots: {room: $rooms, A: $flows, B: $flows}
  lists:
    rooms: [Kitchen, Hall, Cellar, Attic, Garden, Porch, Studio, Office]
    flows: ["on", closed, up]
    stops: ["off", open, down]
  answer: " lit"
  wrong: " dark"
  corruptions: {both: {A: $stops, B: $stops}}
  positions: {END: last}
  prompts: 20
dictionaries:
  stream: {at: r1, from: ./res1}
  8.early: {at: r0, from: ./res0, error: ERROR}
ablation: {value: resample, from: both}
"""


@pytest.mark.parametrize("error", ["keep", pytest.param("ablate", marks=pytest.mark.nightly)])
def test_a_dictionary_of_which_nothing_is_needed_is_ablated_all_the_same(error: str, tmp_path: Path) -> None:
    """Before block 0 the answer's position knows nothing of A and B; the draft frees what names that dictionary."""
    dictionary(tmp_path / "res1", (A, B), (A, B))
    arrays = {"W_enc": np.stack([direction(FLOWS, 0.5), direction(9, 0.5)], 1), "b_enc": np.array([0.0, -100.0])}
    arrays |= {"W_dec": np.stack([direction(FLOWS, 1.0), direction(9, 1.0)]), "b_dec": np.zeros(D)}
    sae_lens(tmp_path / "res0", {"metadata": {"hook_name": "blocks.0.hook_resid_pre"}}, arrays)
    study = parse_exploration(TWO.replace("ERROR", error), "two.yaml", tmp_path)
    options = ExploreOptions(free=("m*",), drawn=0)
    found = explore(study, options, Quiet(), "explore two").circuits[0]
    outcome = verify(parse_hypothesis(found.draft.text, "d.yaml", tmp_path), VerifyOptions("off"), Quiet())
    sites = {str(getattr(one.component, "dictionary", "")) for one in outcome.verification.plan.circuit.sites}
    assert sites == {"stream", "8.early"}
    assert outcome.verification.claims[0].value == pytest.approx(found.recovered, abs=1e-9)


def test_what_is_said_before_anything_is_run(tmp_path: Path) -> None:
    """Neither the dictionaries nor weights are read: which features are active is not known."""
    study = parse_exploration(TWO.replace("ERROR", "keep"), "two.yaml", tmp_path)
    assert "to explore: features of 2 dictionaries, of those that are active the 1,000" in plan_study(study)
    elsewhere = parse_exploration(TWO.replace("ERROR", "keep").replace("at: r1", "at: r7"), "two.yaml", tmp_path)
    assert [finding.code for finding in check_read_study(elsewhere, "two")[0]] == ["CS377"]


def refused(text: str, folder: Path, **options: Any) -> set[str]:
    with pytest.raises(CircuitspecError) as raised:
        explore(parse_exploration(text, "t.yaml", folder), ExploreOptions(**options), Quiet(), "explore t")
    return {finding.code for finding in raised.value.diagnostics}


def test_what_does_not_go_with_features(tmp_path: Path) -> None:
    text = TWO[: TWO.index("  8.early")] + TWO[TWO.index("ablation:") :]
    dictionary(tmp_path / "res1", (FLOWS,), (FLOWS,))  # what END does not have at r1, in any run
    assert refused(text, tmp_path, start="resid") == {"CS544"}
    assert refused(text, tmp_path, recomputing=True) == {"CS544"}
    assert refused(text, tmp_path, sweeps=("heads",)) == {"CS563"}
    only_end = text.replace("slots:", "slots:").replace("{A: $stops, B: $stops}", "{A: $flows}")
    assert refused(only_end, tmp_path) & {"CS541", "CS544"}
    plain = text[: text.index("dictionaries:")] + text[text.index("ablation:") :]
    assert refused(plain, tmp_path, sweeps=("features",)) == {"CS563"}
