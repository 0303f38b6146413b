"""What compared circuits do, against arithmetic on toys and logits from plain hooks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import circuitspec
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.cli import main
from circuitspec.comparison.compared_circuits import laid_out, read_circuit
from circuitspec.comparison.comparison_document import comparison_document
from circuitspec.comparison.comparison_result import CircuitComparison, compared
from circuitspec.comparison.measured_circuits import CircuitFigure, OnPrompts, OutputsApart, unlike_circuits
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.load_file import Document, parse_hypothesis
from circuitspec.models.load import load_model
from circuitspec.pipelines.compare import CompareOptions, compare
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.tokens.tokenize import tokenize
from circuitspec.runtime.progress import Silent
from tests.comparison.support import HYPOTHESES, lamp, of_toy, read


def ran(*texts: str, store: Path | None = None) -> CircuitComparison:
    return ran_documents(*(read(text) for text in texts), store=store)


def ran_documents(*documents: Document, store: Path | None = None) -> CircuitComparison:
    circuits = laid_out(documents)
    measured = compare(circuits, CompareOptions(store=store), Silent())
    return compared(circuits, one_model=True, measured=measured)


def only(found: CircuitComparison) -> OnPrompts:
    """What was measured, where all files have the same prompts and methods."""
    assert found.measured is not None
    (on,) = found.measured.prompts
    return on


def recovered(on: OnPrompts) -> dict[str, float]:
    return {one.what: one.recovered.value for one in on.circuits if one.recovered is not None}


def sets(on: OnPrompts, *, taken_out: bool) -> dict[str, float]:
    return {
        one.figure.what: one.figure.recovered.value
        for one in on.sets
        if one.taken_out is taken_out and one.figure.recovered is not None
    }


def test_two_switches_in_parallel() -> None:
    """Either switch with the lamp lights it. What they share is the lamp, which is dark without any; and one switch
    alone is not heard by a lamp that is ablated. In the whole model either switch does for the other."""
    found = ran(
        lamp({"all": ["a0.h0@END", "m1.n0@END"]}, model="or"), lamp({"all": ["a0.h1@END", "m1.n0@END"]}, model="or")
    )
    on = only(found)
    assert on.owners == ("A", "B")
    assert (on.n, on.clean, on.anchor) == (24, pytest.approx(4), pytest.approx(-4, abs=1e-5))
    assert recovered(on) == {"A": pytest.approx(1), "B": pytest.approx(1)}
    kept = sets(on, taken_out=False)
    assert kept == {
        "both": pytest.approx(0, abs=1e-5),
        "only A": pytest.approx(0, abs=1e-5),
        "only B": pytest.approx(0, abs=1e-5),
        "either": pytest.approx(1),
    }
    assert sets(on, taken_out=True) == {
        "both": pytest.approx(0, abs=1e-5),
        "only A": pytest.approx(1),
        "only B": pytest.approx(1),
    }
    (apart,) = on.apart
    assert (apart.forth.value, apart.same_top.value) == (pytest.approx(0, abs=1e-6), 1)


@pytest.mark.nightly
def test_two_switches_in_series() -> None:
    """Neither switch lights the lamp by itself, and without either it is dark."""
    on = only(
        ran(
            lamp({"all": ["a0.h0@END", "m1.n0@END"]}, model="and"),
            lamp({"all": ["a0.h1@END", "m1.n0@END"]}, model="and"),
        )
    )
    assert recovered(on) == {"A": pytest.approx(0, abs=1e-5), "B": pytest.approx(0, abs=1e-5)}
    assert sets(on, taken_out=False)["either"] == pytest.approx(1)
    assert sets(on, taken_out=True) == dict.fromkeys(("both", "only A", "only B"), pytest.approx(0, abs=1e-5))


def test_a_negative_head_left_out() -> None:
    """A names the thing (+6), B has the head that works against it (-2) too: 4 in the clean run, -4 in the corrupt.

    A alone: 6 + 2 = 8, so 12 of 8. The negative head alone: -6 - 2 = -8, so -4 of 8; and without it 8 again.
    """
    on = only(ran(of_toy("negative", ["a0.h1"]), of_toy("negative", ["a0.h1", "a1.h2"])))
    assert recovered(on) == {"A": pytest.approx(1.5, abs=1e-5), "B": pytest.approx(1, abs=1e-5)}
    assert sets(on, taken_out=False) == {"only B": pytest.approx(-0.5, abs=1e-5)}
    assert sets(on, taken_out=True) == {"both": pytest.approx(-0.5, abs=1e-5), "only B": pytest.approx(1.5, abs=1e-5)}


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> tuple[CircuitComparison, CircuitComparison]:
    """The main head against its backup, twice with one store."""
    store = tmp_path_factory.mktemp("store")
    texts = of_toy("backup", ["a0.h2"]), of_toy("backup", ["a1.h1"])
    return ran(*texts, store=store), ran(*texts, store=store)


def test_outputs_are_held_against_each_other_as_plain_hooks_give_them(
    stand_in: tuple[CircuitComparison, CircuitComparison],
) -> None:
    """KL by prompt, from logits of the model with other heads and MLPs replaced by their values in the corrupt run."""
    on = only(stand_in[0])
    assert recovered(on) == {"A": pytest.approx(1, abs=1e-5), "B": pytest.approx(0.7, abs=1e-5)}
    document = read(of_toy("backup", ["a0.h2"]))
    loaded = load_model(document.hypothesis.model, document.base_dir)
    task = tokenize(
        build_prompts(document.hypothesis.task, Path()), document.hypothesis.task.positions, loaded.tokenizer
    )
    expected = []
    for clean, corrupt in zip(task.ids["clean"], task.ids["secret"], strict=True):
        main_head, backup = (_kept_alone(loaded.model, clean, corrupt, kept) for kept in ((0, 2), (1, 1)))
        expected.append(float((main_head.exp() * (main_head - backup)).sum()))
    (apart,) = on.apart
    np.testing.assert_allclose(apart.by_prompt, expected, rtol=1e-4)
    assert apart.forth.value == pytest.approx(np.mean(expected), rel=1e-4)
    assert apart.farthest[0][0] == max(apart.by_prompt)


def test_what_was_measured_before_is_looked_up(stand_in: tuple[CircuitComparison, CircuitComparison]) -> None:
    first, second = (one.measured for one in stand_in)
    assert first is not None
    assert second is not None
    assert second.prompts == first.prompts
    assert (first.stored, second.stored) == (0, second.experiments)
    assert second.forwards < first.forwards


def _kept_alone(model: Any, clean: tuple[int, ...], corrupt: tuple[int, ...], kept: tuple[int, int]) -> Tensor:
    """Log probabilities after the clean prompt with one head (layer, number) kept, at the last token, and every other
    head and MLP as in the corrupt run."""
    blocks, width = model.transformer.h, model.config.n_embd // model.config.n_head
    seen: dict[Any, Tensor] = {}
    handles = [block.attn.c_proj.register_forward_pre_hook(_noting(seen, ("z", i))) for i, block in enumerate(blocks)]
    handles += [
        block.mlp.register_forward_hook(lambda _m, _a, out, i=i: seen.update({("mlp", i): out.detach()}))
        for i, block in enumerate(blocks)
    ]
    with torch.no_grad():
        model(torch.tensor([corrupt]))
    for handle in handles:
        handle.remove()

    def heads(layer: int) -> Any:
        def swap(_module: Any, args: Any) -> Any:
            z, own = seen["z", layer].clone(), slice(kept[1] * width, (kept[1] + 1) * width)
            if layer == kept[0]:
                z[0, -1, own] = args[0][0, -1, own]
            return (z,)

        return swap

    handles = [block.attn.c_proj.register_forward_pre_hook(heads(i)) for i, block in enumerate(blocks)]
    handles += [
        block.mlp.register_forward_hook(lambda _m, _a, _o, i=i: seen["mlp", i]) for i, block in enumerate(blocks)
    ]
    with torch.no_grad():
        logits = model(torch.tensor([clean])).logits[0, -1]
    for handle in handles:
        handle.remove()
    return logits.double().log_softmax(-1)


def _noting(seen: dict[Any, Tensor], key: Any) -> Any:
    return lambda _module, args: seen.update({key: args[0].detach()})


def _measured(kl: tuple[float, float], apart: float, shares: tuple[float, float] = (0.9, 0.95)) -> OnPrompts:
    def estimate(value: float) -> Estimate:
        return Estimate(value, value, value, 0.95, 10, "constant")

    circuits = tuple(
        CircuitFigure(name, estimate(share), "", 1.0, own) for name, share, own in zip("AB", shares, kl, strict=True)
    )
    outputs = OutputsApart("A", "B", estimate(apart), estimate(apart), estimate(1.0), (), ())
    return OnPrompts(("A",), 10, "logit_diff", "", 1.0, 0.0, circuits, (), (outputs,), ())


def test_circuits_that_do_as_well_and_differ_are_told() -> None:
    """CS474: figures within 0.1, and outputs farther from each other than either lies from the model's."""
    (found,) = unlike_circuits(_measured((0.5, 0.4), 0.8))
    assert "KL 0.80 nats from each other, 0.50 and 0.40 from the model" in found.detail
    assert unlike_circuits(_measured((0.5, 0.4), 0.45)) == []
    assert unlike_circuits(_measured((0.5, 0.4), 0.8, (0.9, 0.7))) == []
    assert unlike_circuits(_measured((0.0, 0.0), 1e-9)) == []  # rounding


def test_what_does_not_fit_the_prompts_is_left_out_and_said() -> None:
    """The second file's circuit is at a position that the first file's prompts do not have; A runs on both."""
    first = lamp({"all": ["a0.h0@END", "m1.n0@END"]})
    second = lamp({"all": ["a0.h0@THERE", "m1.n0@THERE"]}).replace("{END: last}", "{END: last, THERE: last}")
    found = ran(first, second).measured
    assert found is not None
    on_first, on_second = found.prompts
    assert recovered(on_first) == {"A": pytest.approx(1)}
    assert [(one.what, "no position THERE" in one.reason) for one in on_first.left_out if one.what == "B"] == [
        ("B", True)
    ]
    assert recovered(on_second) == {"A": pytest.approx(1), "B": pytest.approx(1)}


def test_edges_are_kept_and_taken_out() -> None:
    """Two paths through one neuron: at edge level A has the one switch's edge, B the other's; both have the lamp's."""
    groups = {"one": ["a0.h0@END"], "two": ["a0.h1@END"], "lamp": ["m1@END"]}
    files = [lamp(groups, paths=[f"input -> {one} -> lamp -> logits"], level="edge") for one in ("one", "two")]
    on = only(ran(*files))
    assert recovered(on) == {"A": pytest.approx(1), "B": pytest.approx(1)}
    assert sets(on, taken_out=False)["either"] == pytest.approx(1)
    assert sets(on, taken_out=False)["both"] == pytest.approx(0, abs=1e-5)
    taken = sets(on, taken_out=True)
    assert taken == {"both": pytest.approx(0, abs=1e-5), "only A": pytest.approx(1), "only B": pytest.approx(1)}


@pytest.mark.nightly
def test_a_call_from_python_runs_in_the_model_that_is_passed() -> None:
    """A model in memory, for files of two models of one shape."""
    document = read(lamp({"all": ["a0.h0@END", "m1.n0@END"]}))
    loaded = load_model(document.hypothesis.model, document.base_dir)
    other = read(lamp({"all": ["a0.h1@END", "m1.n0@END"]}, model="and"))
    found = circuitspec.compare(document, other, model=loaded.model, tokenizer=loaded.tokenizer, run=True)
    assert recovered(only(found.comparison)) == {"A": pytest.approx(1), "B": pytest.approx(1)}
    assert "Recovered on the prompts of A and B" in found.to_html()
    with pytest.raises(TypeError):
        circuitspec.compare(document, other, model=loaded.model, tokenizer=loaded.tokenizer)


def test_models_that_differ_are_not_run_together() -> None:
    """CS582, at the second file's model."""
    circuits = laid_out([read(lamp({"all": ["a0.h0@END"]}, model=model)) for model in ("or", "and")])
    with pytest.raises(CircuitspecError) as raised:
        compare(circuits, CompareOptions(), Silent())
    assert [one.code for one in raised.value.diagnostics] == ["CS582"]


def test_dictionaries_that_differ_are_not_run_together() -> None:
    """CS583: what the same features leave over is ablated by the one file, and kept by the other."""
    file = HYPOTHESES / "toys" / "and-features.circuit.yaml"
    text = file.read_text(encoding="utf-8")
    assert "error: ablate" in text
    circuits = laid_out(
        [parse_hypothesis(one, str(file)) for one in (text, text.replace("error: ablate", "error: keep"))]
    )
    with pytest.raises(CircuitspecError) as raised:
        compare(circuits, CompareOptions(), Silent())
    assert [one.code for one in raised.value.diagnostics] == ["CS583"]


@pytest.mark.nightly
def test_a_circuit_of_features_is_run_beside_one_of_heads() -> None:
    """Each does all of the task; of what they share nothing can be taken, since one takes apart what the other has."""
    file = HYPOTHESES / "toys" / "and-features.circuit.yaml"
    found = ran_documents(parse_hypothesis(file.read_text(encoding="utf-8"), str(file)), read(_AND))
    assert found.measured is not None
    for on in found.measured.prompts:
        assert recovered(on) == {"A": pytest.approx(1, abs=1e-4), "B": pytest.approx(1, abs=1e-4)}


_AND = lamp({"switches": ["a0.h0@END", "a0.h1@END"], "lamp": ["m1.n0@END"]}, model="and")


def test_the_command_runs_and_saved_results_compare(tmp_path: Path) -> None:
    """A folder of `verify --output-dir` has the circuit that its file has."""
    file, folder = tmp_path / "one.circuit.yaml", tmp_path / "result"
    file.write_text(lamp({"all": ["a0.h0@END", "m1.n0@END"]}), encoding="utf-8")
    done = CliRunner().invoke(main, ["verify", str(file), "--negatives", "off", "--output-dir", str(folder)])
    assert done.exit_code == 0, done.output
    file.rename(tmp_path / "gone.circuit.yaml")
    said = CliRunner().invoke(main, ["compare", str(folder), str(tmp_path / "gone.circuit.yaml"), "--run"])
    assert said.exit_code == 0, said.output
    assert "on the 24 prompts of A and B" in said.stdout
    again = ["compare", str(folder), str(tmp_path / "gone.circuit.yaml"), "--format", "json"]
    found = json.loads(CliRunner().invoke(main, again).stdout)
    assert {one["jaccard"] for one in found["pairs"][0]["overlaps"]} == {1.0}
    edited = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    edited["page"]["lines"] = [line.replace("a0.h0", "a0.h1") for line in edited["page"]["lines"]]
    (folder / "report.json").write_text(json.dumps(edited), encoding="utf-8")
    with pytest.raises(CircuitspecError) as raised:
        read_circuit(folder)
    assert [one.code for one in raised.value.diagnostics] == ["CS580"]


def test_json_has_all_that_was_measured(stand_in: tuple[CircuitComparison, CircuitComparison]) -> None:
    document: Any = json.loads(json.dumps(comparison_document(stand_in[0])))
    (on,) = document["measured"]["prompts"]
    assert on["of"] == ["A", "B"]
    assert [one["recovered"]["value"] for one in on["circuits"]] == [pytest.approx(1), pytest.approx(0.7)]
    assert len(on["outputs"][0]["by_prompt"]) == on["n"] == 24
