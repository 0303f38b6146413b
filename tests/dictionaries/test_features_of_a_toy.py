"""Features of zoo:and, whose stream is known number by number: what is sufficient, necessary, idle, and what is locked.

Block 1 is entered by A and B, which is all that its neuron reads: relu(A + B - 1) writes +8 to ` lit`, and the logit
difference is 8 relu(A + B - 1) - 4. The dictionary has a feature for A, one for B, and a third that is active whenever
A is and whose direction nothing reads.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import circuitspec
from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.models.zoo.toys import TOYS, build
from tests.dictionaries.written_dictionaries import sae_lens

D, FLOWS, A, B = 32, 0, 3, 4  # channels, and where features stand among the blueprint's
TEXT = """
circuitspec: 1
name: features-of-and
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
  corruptions: {both: {A: $stops, B: $stops}, first: {A: $stops}, second: {B: $stops}}
  positions: {END: last}
  prompts: 20
dictionaries: {res1: {at: r1, from: ./res1%OPTIONS%}}
circuit:
  groups: %GROUPS%
  free: %FREE%
ablation: {value: resample, from: both}
claims: %CLAIMS%
"""


def direction(feature: int, scale: float) -> np.ndarray:
    """A blueprint's feature is a pair of channels, +f and -f, after the pair of the constant."""
    found = np.zeros(D)
    found[2 + 2 * feature], found[3 + 2 * feature] = scale, -scale
    return found


def dictionary(folder: Path, seen: Sequence[int] = (A, B, A), written: Sequence[int] = (A, B, FLOWS)) -> Path:
    encoder = np.stack([direction(one, 0.5) for one in seen], axis=1)
    decoder = np.stack([direction(one, 1.0) for one in written])
    arrays = {"W_enc": encoder, "W_dec": decoder, "b_enc": np.zeros(len(seen)), "b_dec": np.zeros(D)}
    return sae_lens(folder, {"architecture": "standard"}, arrays)


SUFFICIENT = "[{sufficient: {metric: logit_diff, at_least: 0.99, at_most: 1.01}}]"


def hypothesis(
    tmp_path: Path, groups: str, claims: str = SUFFICIENT, free: str = "['a*', 'm*']", options: str = ""
) -> Path:
    if not (tmp_path / "res1").exists():
        dictionary(tmp_path / "res1")
    text = TEXT
    for key, value in (("GROUPS", groups), ("CLAIMS", claims), ("FREE", free), ("OPTIONS", options)):
        text = text.replace(f"%{key}%", value)
    file = tmp_path / "features.circuit.yaml"
    file.write_text(text)
    return file


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def verified(file: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Claims and warnings."""
    result = run("verify", file, "--format", "json", "--no-store")
    assert result.exit_code in (0, 1, 4), result.output
    found = json.loads(result.stdout)
    return found["claims"], found["warnings"]


def values(file: Path) -> list[float]:
    return [claim["value"] for claim in verified(file)[0]]


LAST_CLAIMS = """
  - sufficient: {metric: logit_diff, at_least: 0.99}
  - necessary: {metric: logit_diff, at_most: 0.01}
"""
BOTH = "{both: {nodes: ['sae:res1.f[0-1]'], at: END}}"


@pytest.mark.parametrize(
    ("groups", "free", "recovered"),
    [
        (BOTH, "['a*', 'm*']", 1.0),
        ("{distractor: {nodes: [sae:res1.f2], at: END}}", "['a*', 'm*']", 0.0),
        pytest.param(  # A alone: relu(1 + 0 - 1)
            "{one: {nodes: [sae:res1.f0], at: END}}", "['a*', 'm*']", 0.0, marks=pytest.mark.nightly
        ),
        ("{one: {nodes: [sae:res1.f0], at: END}}", "['a*', 'm*', 'sae:res1.f*']", 1.0),  # all others are free
        pytest.param("{all: {nodes: ['sae:res1.f*']}}", "['a*', 'm*']", 1.0, marks=pytest.mark.nightly),
    ],
)
def test_what_is_sufficient(groups: str, free: str, recovered: float, tmp_path: Path) -> None:
    (found,) = values(hypothesis(tmp_path, groups, free=free))
    assert found == pytest.approx(recovered, abs=1e-4)


def test_what_features_leave_over(tmp_path: Path) -> None:
    """With no feature of B, B is in the error: kept it is enough beside A's feature, ablated it is not."""
    dictionary(tmp_path / "res1", (A, A), (A, FLOWS))
    groups = "{one: {nodes: [sae:res1.f0], at: END}}"
    assert values(hypothesis(tmp_path, groups)) == pytest.approx([1.0], abs=1e-4)
    ablated = hypothesis(tmp_path, groups, options=", error: ablate")
    assert values(ablated) == pytest.approx([0.0], abs=1e-4)
    named = hypothesis(tmp_path, "{one: {nodes: [sae:res1.f0, sae:res1.error], at: END}}", options=", error: ablate")
    assert values(named) == pytest.approx([1.0], abs=1e-4)


CLAIMS = """
  - necessary: {metric: logit_diff, at_most: 0.01}
  - cross_section: {nodes: [first, second], metric: logit_diff, at_least: 0.99}
  - cross_section: {nodes: [sae:res1.f0@END], metric: logit_diff, at_most: 0.01}
  - gate: {nodes: [first, second], is: and, metric: logit_diff}
  - traces: {nodes: [first], to: [both, first], metric: logit_diff}
  - complete: {metric: logit_diff, at_most: 0.01}
  - minimal: {metric: logit_diff, at_least: 0.5}
"""


def test_other_claims(tmp_path: Path) -> None:
    """The distractor makes `minimal` false, and a warning says that it is idle."""
    groups = "{third: {nodes: [sae:res1.f2], at: END}, first: {nodes: [sae:res1.f0], at: END}, "
    groups += "second: {nodes: [sae:res1.f1], at: END}}"
    found, warnings = verified(hypothesis(tmp_path, groups, CLAIMS))
    assert [claim["status"] for claim in found] == ["SUPPORTED"] * 6 + ["REFUTED"]
    (idle,) = (warning for warning in warnings if warning["code"] == "CS415")
    assert "sae:res1.f2" in idle["message"]
    (little,) = (warning for warning in warnings if warning["code"] == "CS467")  # it knows nothing of the constant
    assert little["data"]["unexplained"] > 1


@pytest.mark.parametrize("search", ["screen", "exact"])
def test_a_negative_feature_that_another_one_hides(search: str, tmp_path: Path) -> None:
    """A of the stream is 1.1 of f0's direction less 0.1 of f2's, B is 0.9 of f1's and 0.1 of f3's.

    Without f2 and f3 the neuron has 1.1 + 0.9 - 1, as in the clean run: recovered is 1. With f2 back alone it has
    1 + 0.9 - 1 = 0.9, and the logit difference is 8 * 0.9 - 4 instead of 4; with f3 back alone, 1.1 + 1 - 1.
    """
    encoder = np.stack([direction(one, 0.5) for one in (A, B, A, B, 9)], axis=1)
    decoder = np.stack([direction(A, 1.1), direction(B, 0.9), direction(A, -0.1), direction(B, 0.1), direction(9, 1.0)])
    arrays = {"W_enc": encoder, "W_dec": decoder, "b_enc": np.array([0.0] * 4 + [-100.0]), "b_dec": np.zeros(D)}
    sae_lens(tmp_path / "res1", {"architecture": "standard"}, arrays)
    groups = "{one: {nodes: [sae:res1.f0], at: END}, two: {nodes: [sae:res1.f1], at: END}}"
    file = hypothesis(tmp_path, groups)
    found = json.loads(run("verify", file, "--format", "json", "--no-store", "--negatives", search).stdout)
    assert [claim["value"] for claim in found["claims"]] == pytest.approx([1.0], abs=1e-4)
    assert found["negatives"]["screened"] == 4  # f0 and f1 but at END, f2, f3; the fifth is moved nowhere
    (warning,) = (one for one in found["warnings"] if one["code"] == "CS401")
    (negative,) = warning["data"]["components"]
    assert negative["component"] == "sae:res1.f2"
    assert negative["effect"] == pytest.approx(-0.8, abs=1e-4)


def test_a_dictionary_that_explains_all(tmp_path: Path) -> None:
    """Each channel's positive and negative part: nothing is left, with or without its error."""
    eye = np.eye(D)
    both = np.concatenate([eye, -eye])
    arrays = {"W_enc": both.T, "W_dec": both, "b_enc": np.zeros(2 * D), "b_dec": np.zeros(D)}
    sae_lens(tmp_path / "res1", {"architecture": "standard"}, arrays)
    result = run("verify", hypothesis(tmp_path, "{all: {nodes: ['sae:res1.f*']}}"), "--format", "json", "--no-store")
    found = json.loads(result.stdout)
    assert "CS467" not in {warning["code"] for warning in found["warnings"]}
    (figures,) = found["dictionaries"]["each"]
    assert figures["fit"]["unexplained"] < 1e-12
    assert figures["reconstructed"] == pytest.approx(figures["clean"]) == pytest.approx(4.0, abs=1e-4)
    assert found["dictionaries"]["kept"] is None  # nothing but the error is outside


def test_what_features_alone_say(tmp_path: Path) -> None:
    """Each channel's parts but those of B, which the error has: left out with it, relu(1 + 0 - 1) is 0.

    Kept, the error is what the circuit rests on, of which CS468 warns; ablated, B is that of the other prompts, 0 too.
    """
    eye = np.eye(D)[[channel for channel in range(D) if channel not in (2 + 2 * B, 3 + 2 * B)]]
    both = np.concatenate([eye, -eye])
    arrays = {"W_enc": both.T, "W_dec": both, "b_enc": np.zeros(len(both)), "b_dec": np.zeros(D)}
    sae_lens(tmp_path / "res1", {"architecture": "standard"}, arrays)
    some = "{some: {nodes: ['sae:res1.f[0-20,30-50]']}}"
    for error, recovered, ablated in (("keep", 1, 0), ("ablate", 0, 0), ("remove", 0, None)):
        file = hypothesis(tmp_path, some, options=f", error: {error}")
        found = json.loads(run("verify", file, "--format", "json", "--no-store").stdout)
        assert found["claims"][0]["value"] == pytest.approx(recovered, abs=1e-4)
        used = found["dictionaries"]
        assert used["kept"] == pytest.approx(1, abs=1e-4)
        assert used["left_out"] == pytest.approx(0, abs=1e-4)
        assert used["ablated"] == (None if ablated is None else pytest.approx(ablated, abs=1e-4))
        warned = [warning for warning in found["warnings"] if warning["code"] == "CS468"]
        assert [one["data"]["kept"] for one in warned] == ([pytest.approx(1, abs=1e-4)] if error == "keep" else [])
        said = "error of res1 left out" in found["methodology"]["description"]
        assert said == (error == "remove")
        assert found["methodology"].get("errors_left_out") == (["res1"] if error == "remove" else None)
    planned = run("plan", file)
    assert "sae:res1.error (left out)" in planned.output
    assert "with all of them left out" in run("verify", file, "--no-store").output


def test_a_dictionary_of_what_leaves_the_last_block(tmp_path: Path) -> None:
    """All of it is sufficient and necessary, whatever else is ablated; files may name the place as others do."""
    file = hypothesis(tmp_path, "{all: {nodes: ['sae:res1.f*']}}", LAST_CLAIMS, options=", error: ablate")
    eye = np.eye(D)
    arrays = {"W_enc": np.concatenate([eye, -eye]).T, "W_dec": np.concatenate([eye, -eye])}
    arrays |= {"b_enc": np.zeros(2 * D), "b_dec": np.zeros(D)}
    settings = {"architecture": "standard", "metadata": {"hook_name": "blocks.1.hook_resid_post"}}
    sae_lens(tmp_path / "res1", settings, arrays)
    file.write_text(file.read_text().replace("at: r1", "at: r2"))
    found = json.loads(run("verify", file, "--format", "json", "--no-store").stdout)
    assert [claim["value"] for claim in found["claims"]] == pytest.approx([1.0, 0.0], abs=1e-4)
    assert "layer 2: sae:res1.error" in run("plan", file).output
    file.write_text(file.read_text().replace("at: r2", "at: r3"))
    assert "the stream after the last block is r2" in code_of(file, "check")


def test_the_shipped_example() -> None:
    """All that it claims follows from relu(A + B - 1), and five features say all that there is."""
    file = Path(__file__).parents[2] / "hypotheses" / "toys" / "and-features.circuit.yaml"
    result = run("verify", file, "--format", "json", "--no-store")
    found = json.loads(result.stdout)
    assert {claim["status"] for claim in found["claims"]} == {"SUPPORTED"}
    assert found["warnings"] == []
    (figures,) = found["dictionaries"]["each"]
    assert figures["fit"]["unexplained"] < 1e-6
    assert found["dictionaries"]["kept"] == pytest.approx(1.0, abs=1e-4)
    assert found["dictionaries"]["ablated"] == pytest.approx(1.0, abs=1e-4)
    assert found["dictionaries"]["left_out"] == pytest.approx(1.0, abs=1e-4)


def test_check_and_plan_read_no_weights(tmp_path: Path) -> None:
    file = hypothesis(tmp_path, BOTH)
    for path in (tmp_path / "res1").iterdir():
        path.unlink()
    checked = run("check", file)
    assert checked.exit_code == 0, checked.output
    planned = run("plan", file)
    assert planned.exit_code == 0, planned.output
    assert "sae:res1.f[not 0-1]" in planned.output


def test_a_lock_holds_the_dictionary(tmp_path: Path) -> None:
    file = hypothesis(tmp_path, BOTH)
    locked = run("lock", file)
    assert locked.exit_code == 0, locked.output
    assert run("verify", file, "--locked", "--no-store").exit_code == 0
    dictionary(tmp_path / "res1", (A, B, B))
    changed = run("verify", file, "--locked", "--no-store")
    assert "CS552" in changed.output
    assert "res1 (dictionary) changed" in changed.output


def code_of(file: Path, command: str = "verify") -> str:
    result = run(command, file)
    assert result.exit_code not in (0, 1, 4), result.output
    return result.output


def test_what_does_not_fit(tmp_path: Path) -> None:
    assert "CS246" in code_of(hypothesis(tmp_path, "{both: {nodes: ['sae:res1.f[0,3]'], at: END}}"))
    assert "CS223" in code_of(hypothesis(tmp_path, "{both: {nodes: [sae:res1.f0, 'sae:res1.f*'], at: END}}"))
    assert "CS223" in code_of(hypothesis(tmp_path, "{both: {nodes: [sae:res1.f0, r1], at: END}}"))


def test_a_place_that_the_model_does_not_have(tmp_path: Path) -> None:
    file = hypothesis(tmp_path, BOTH)
    file.write_text(file.read_text().replace("at: r1", "at: r7"))
    assert "CS377" in code_of(file)
    assert "CS377" in code_of(file, "check")


@pytest.mark.parametrize(
    ("hook", "code", "said"),
    [
        ("blocks.1.hook_resid_post", "CS377", "which is r2"),
        ("blocks.1.hook_mlp_out", "CS377", "write at: m1"),
        ("blocks.1.ln2.hook_normalized", "CS375", "before the norm's weight"),
    ],
)
def test_files_that_name_another_place(hook: str, code: str, said: str, tmp_path: Path) -> None:
    path = dictionary(tmp_path / "res1") / "cfg.json"
    path.write_text(path.read_text().replace("blocks.1.hook_resid_pre", hook))
    output = code_of(hypothesis(tmp_path, BOTH))
    assert code in output
    assert said in output


def test_vectors_of_another_width(tmp_path: Path) -> None:
    arrays = {"W_enc": np.zeros((8, 3)), "W_dec": np.ones((3, 8)), "b_enc": np.zeros(3), "b_dec": np.zeros(8)}
    sae_lens(tmp_path / "res1", {}, arrays)
    assert "CS377" in code_of(hypothesis(tmp_path, BOTH))


def test_a_reconstruction_beyond_the_models_dtype(tmp_path: Path) -> None:
    """The dictionary knows nothing of the constant, without which float16 overflows: that one figure is none."""
    file = hypothesis(tmp_path, BOTH)
    file.write_text(file.read_text().replace("dtype: float64", "dtype: float16"))
    result = run("verify", file, "--format", "json", "--no-store")
    found = json.loads(result.stdout)
    assert [claim["status"] for claim in found["claims"]] == ["SUPPORTED"]
    assert found["dictionaries"]["each"][0]["reconstructed"] is None


RIVALS = "[{beats_random: {metric: logit_diff, circuits: 40}}]"


def test_random_circuits_are_of_features_as_active(tmp_path: Path) -> None:
    """The other pairs of three active features have A or B alone, and relu(1 - 1) is nothing; f3 is never active."""
    dictionary(tmp_path / "res1", (A, B, A, FLOWS), (A, B, FLOWS, A))
    (claim,), _ = verified(hypothesis(tmp_path, BOTH, RIVALS))
    assert (claim["status"], claim["parts"][0]["value"]) == ("SUPPORTED", 1.0)
    (said,) = (note for note in claim["notes"] if "exchanged" in note)
    assert "the circuit's at 50 % of the tokens at their positions, the others at 50 %" in said  # clean, and no corrupt
    assert "2 of them different" in said
    planned = run("plan", hypothesis(tmp_path, BOTH, RIVALS))
    assert "and 42 for claim 1: to see how active features are" in planned.output


def test_random_circuits_of_features_that_are_not_as_active(tmp_path: Path) -> None:
    """A is known from its switch on, at 9 of 14 tokens of the clean prompts; the other feature is active at all."""
    arrays = {"W_enc": np.stack([direction(A, 0.5)] * 2, 1), "W_dec": np.stack([direction(A, 1.0)] * 2)}
    arrays |= {"b_enc": np.array([0.0, 0.1]), "b_dec": np.zeros(D)}
    sae_lens(tmp_path / "res1", {"architecture": "standard"}, arrays)
    _, warnings = verified(hypothesis(tmp_path, "{one: {nodes: [sae:res1.f0]}}", RIVALS))
    (unlike,) = (warning for warning in warnings if warning["code"] == "CS469")
    assert unlike["data"]["random"] == 1.0
    assert unlike["data"]["circuit"] == pytest.approx(9 / 28)  # the corrupt prompts have as many tokens


def test_no_other_features_are_active(tmp_path: Path) -> None:
    dictionary(tmp_path / "res1", (A, B, FLOWS), (A, B, FLOWS))
    result = run("verify", hypothesis(tmp_path, BOTH, RIVALS), "--no-store")
    assert "CS430" in result.output
    assert "too few other features of its dictionaries are active" in result.output


def test_sweeps_from_python(tmp_path: Path) -> None:
    """Noised from `both`, A or B alone takes all away; the dictionaries are the file's, or those that are given."""
    model, tokenizer = build(next(toy for toy in TOYS if toy.name == "and"))
    file = hypothesis(tmp_path, BOTH)
    frame = circuitspec.sweep(model, tokenizer, file, "features", corruption="both", at=["END", "all"])
    assert set(frame["kind"]) == {"feature"}
    assert set(zip(frame["layer"], frame["position"], strict=True)) == {(1, "END"), (1, "all")}
    found = frame[frame["position"] == "END"].set_index("index")["recovered_logit_diff"]
    assert [found[n] for n in range(3)] == pytest.approx([0.0, 0.0, 1.0], abs=1e-4)
    dictionary(tmp_path / "other", (A, FLOWS), (A, B))  # at END nothing has FLOWS, so that f1 never moves there
    given = {"mine": {"at": "r1", "from": tmp_path / "other"}}
    again = circuitspec.sweep(
        model, tokenizer, file, ["mlps", "features"], corruption="both", at="END", dictionaries=given
    )
    features = again[again["kind"] == "feature"]
    assert [*zip(features["dictionary"], features["index"], strict=True)] == [("mine", 0)]
    one = circuitspec.patch(model, tokenizer, file, "sae:mine.f0@END", corruption="both", dictionaries=given)
    assert one["recovered_logit_diff"].tolist() == pytest.approx(features["recovered_logit_diff"].tolist())
    with pytest.raises(ValueError, match="needs dictionaries"):
        circuitspec.sweep(model, tokenizer, file, "features", dictionaries={})
    with pytest.raises(CircuitspecError) as error:
        circuitspec.patch(model, tokenizer, file, "sae:mine.f0@END", dictionaries={"mine": {"at": "q7", "from": "x"}})
    assert error.value.diagnostics
