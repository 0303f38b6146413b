"""Paths between features of zoo:and, whose every number is known: what travels along them, and what is no path.

Block 1 is entered by A and B, for which the dictionary `res1` has a feature each, and a third that is active whenever A
is and whose direction nothing reads. The one neuron of m1 is relu(A + B - 1) and writes +8 to ` lit`; the transcoder
`m1` has a feature for just that. The logit difference is 8 relu(A + B - 1) - 4, and all clean prompts have A = B = 1.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import circuitspec
from circuitspec.cli import main
from circuitspec.models.zoo.toys.gates import AND
from circuitspec.models.zoo.toys.weights import build
from tests.dictionaries.test_features_of_a_toy import TEXT, A, B, D, dictionary, direction, run
from tests.dictionaries.written_dictionaries import sae_lens

LIT = 5
TWO = "{res1: {at: r1, from: ./res1}, gate: {at: m1, from: ./gate}, heads: {at: a0, from: ./heads}}"


def hypothesis(tmp_path: Path, claims: str, paths: str = "[]", ablation: str = "{value: resample, from: both}") -> Path:
    dictionary(tmp_path / "res1")
    told = {"d_out": D, "metadata": {"hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out"}}
    gate = {
        "W_enc": (direction(A, 0.5) + direction(B, 0.5))[:, None],
        "W_dec": direction(LIT, 8.0)[None],
        "b_enc": np.array([-1.0]),
        "b_dec": np.zeros(D),
    }
    sae_lens(tmp_path / "gate", {"architecture": "transcoder", **told}, gate)
    dictionary(tmp_path / "heads")
    config = tmp_path / "heads" / "cfg.json"
    config.write_text(config.read_text().replace("blocks.1.hook_resid_pre", "blocks.0.hook_attn_out"))
    groups = "{switches: {nodes: ['sae:res1.f[0-1]'], at: END}, idle: {nodes: [sae:res1.f2], at: END}}"
    text = TEXT.replace("{res1: {at: r1, from: ./res1%OPTIONS%}}", TWO).replace("%GROUPS%", groups)
    text = text.replace("%FREE%", f"['a*', 'm*']\n  paths: {paths}").replace("%CLAIMS%", claims)
    file = tmp_path / "paths.circuit.yaml"
    file.write_text(text.replace("{value: resample, from: both}", ablation))
    return file


def verified(file: Path) -> dict[str, Any]:
    result = run("verify", file, "--format", "json", "--no-store")
    assert result.exit_code in (0, 1, 4), result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def claim(of: str, direction: str = "noising", more: str = "") -> str:
    bound = "drop_at_least" if direction == "noising" else "rise_at_least"
    return f'  - path: {{of: "{of}", direction: {direction}, metric: logit_diff, {bound}: 0.5{more}}}\n'


DONE = [
    # what of the logit difference goes, of 4 - (-4): with A or B off the gate is shut
    (claim("switches -> sae:gate.f0"), 1.0),
    (claim("sae:res1.f0@END -> sae:gate.f0@END -> logits"), 1.0),
    (claim("idle -> sae:gate.f0"), 0.0),
    (claim("sae:res1.f0@A -> sae:gate.f0"), 0.0),  # it is at the last token that A is read
    (claim("a0.h0 -> sae:res1.f0 -> sae:gate.f0"), 1.0),
    (claim("a0.h2 -> sae:res1.f0 -> sae:gate.f0"), 0.0),
    (claim("sae:res1.f0 -> m1"), 1.0),
    (claim("sae:res1.f0 -> logits"), 1.0),  # through m1, which is recomputed
    (claim("sae:res1.f0 -> logits", more=", through: []"), 0.0),
    (claim("sae:heads.f0 -> sae:gate.f0"), 1.0),  # what the heads add for A, by a dictionary of what they add
    # with the second switch off alone, A's feature is as it was and B's is not
    (claim("sae:res1.f0 -> sae:gate.f0", more=", sources: {sae:res1.f0: second}"), 0.0),
    (claim("switches -> sae:gate.f0", more=", sources: {switches: second}"), 1.0),
    # in the corrupt run both are off: one alone opens nothing, both do
    (claim("sae:res1.f0 -> sae:gate.f0", "denoising"), 0.0),
    (claim("switches -> sae:gate.f0", "denoising"), 1.0),
]


def test_what_travels_between_features(tmp_path: Path) -> None:
    claims = "\n" + "".join(text for text, _ in DONE)
    claims += '  - mediation: {of: "sae:res1.f0 -> sae:gate.f0 -> logits", metric: logit_diff, direct_at_most: 0.1}\n'
    claims += "  - cross_section: {paths: [switches -> sae:gate.f0], metric: logit_diff, at_most: 0.1"
    claims += ", sources: {switches: first}}\n"  # of which B's feature is on, and A's is off
    found = verified(hypothesis(tmp_path, claims))["claims"]
    assert [one["value"] for one in found] == pytest.approx([value for _, value in DONE] + [0.0, 0.0], abs=1e-4)
    assert {one["status"] for one in found} == {"SUPPORTED", "REFUTED"}


@pytest.mark.nightly
def test_declared_paths_are_patched_one_by_one(tmp_path: Path) -> None:
    """CS406 names the pair that does nothing; drawn, features stand where their dictionaries do."""
    paths = "[a0.h0 -> sae:res1.f0, switches -> sae:gate.f0, idle -> sae:gate.f0, sae:gate.f0 -> logits]"
    file = hypothesis(tmp_path, "[{necessary: {metric: logit_diff, at_most: 0.01}}]", paths)
    result = run("verify", file, "--format", "json", "--no-store", "--html", tmp_path / "page.html")
    found = json.loads(result.stdout)
    idle = [one["message"] for one in found["warnings"] if one["code"] == "CS406"]
    assert len(idle) == 1
    assert "idle -> sae:gate.f0" in idle[0]
    page = (tmp_path / "page.html").read_text()
    assert all(f"features of {place}</text>" in page for place in ("r1", "m1"))


def refused(file: Path, command: str = "verify") -> str:
    result = CliRunner().invoke(main, [command, str(file)])
    assert result.exit_code == 3, result.output
    return result.output


@pytest.mark.parametrize(
    ("claims", "code", "said"),
    [
        (claim("a0.h0 -> sae:heads.f0"), "CS248", "sae:heads.f0 cannot stand on this path"),
        (claim("a0.h0 -> sae:res1.f0 -> m1, sae:gate.f0 -> logits"), "CS249", "a part of what m1 adds"),
        (claim("sae:gate.f0 -> sae:res1.f0"), "CS205", "sae:gate.f0 does not come before sae:res1.f0"),
        (claim("sae:res1.f* -> logits"), "CS226", "name its features by number"),
        (claim("sae:res1.error -> logits"), "CS226", "name features of the dictionary"),
        (claim("sae:res1.f3 -> logits"), "CS246", "no feature 3"),
        (
            '  - cross_section: {paths: ["sae:res1.f0 -> logits"], metric: logit_diff, at_least: 0.5}\n',
            "CS248",
            "edges",
        ),
    ],
)
def test_what_is_no_path(claims: str, code: str, said: str, tmp_path: Path) -> None:
    output = refused(hypothesis(tmp_path, "\n" + claims))
    assert code in output
    assert said in output


def test_from_python(tmp_path: Path) -> None:
    """The same of a model in memory: a path, and a feature by itself."""
    hypothesis(tmp_path, "[]")
    model, tokenizer = build(AND)
    rows = [
        {"clean": f"{room} lamp: one switch on, one switch up, so it is", "answers": [" lit"], "wrong": [" dark"]}
        | {"corrupt": f"{room} lamp: one switch off, one switch open, so it is"}
        for room in ("Hall", "Attic")
    ]
    given = {"res1": {"at": "r1", "from": tmp_path / "res1"}, "gate": {"at": "m1", "from": tmp_path / "gate"}}
    paths = ["sae:res1.f0@END -> sae:gate.f0@END", "sae:res1.f2@END -> sae:gate.f0", "sae:gate.f0 -> logits"]
    frame = circuitspec.path_patch(model, tokenizer, rows, paths, dictionaries=given)
    assert frame["logit_diff"].tolist() == pytest.approx([-4.0, 4.0, -4.0], abs=1e-4)
    assert frame["layer"].tolist() == [1, 1, 1]
    frame = circuitspec.patch(model, tokenizer, rows, ["sae:res1.f0@END", "sae:res1.f2"], dictionaries=given)
    assert frame["recovered_logit_diff"].tolist() == pytest.approx([0.0, 1.0], abs=1e-4)
    with pytest.raises(circuitspec.CircuitspecError, match="CS247"):
        circuitspec.path_patch(model, tokenizer, rows, paths[0])
    twice = {**given, "again": {"at": "r1", "from": tmp_path / "res1"}}
    with pytest.raises(circuitspec.CircuitspecError, match="CS182"):
        circuitspec.path_patch(model, tokenizer, rows, paths[0], dictionaries=twice)
