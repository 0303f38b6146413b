"""Lists of features become hypotheses, rows that do not say enough are refused, and what is written can be read."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exchange.features.exporting_features import export_list
from circuitspec.exchange.features.feature_circuit import FeatureNode
from circuitspec.exchange.features.feature_lists import import_list, place_of
from circuitspec.exchange.features.importing_features import FeatureOptions, ImportedFeatures
from circuitspec.hypothesis_file.load_file import load_hypothesis, parse_hypothesis

OBJECTS = [
    {"dictionary": "resid_3", "index": 12, "position": 5, "group": "verb"},
    {"dictionary": "resid_3", "index": 12, "position": 2, "group": "verb"},
    {"dictionary": "mlp_2", "index": "error", "position": "END"},
    {"dictionary": "embed", "index": 7},
]
ROWS: list[Any] = [["resid_3", 12, 5, "verb"], ["resid_3", 12, 2, "verb"], ["mlp_2", "error", "END"], ["embed", 7]]
TABLE = "dictionary,index,position,group\nresid_3,12,5,verb\nresid_3,12,2,verb\nmlp_2,error,END,\nembed,7,,\n"
NODES = {("resid_3", 12, 5), ("resid_3", 12, 2), ("mlp_2", None, "END"), ("embed", 7, None)}


def what(nodes: tuple[FeatureNode, ...]) -> set[tuple[str, int | None, int | str | None]]:
    return {(node.dictionary, node.index, node.position) for node in nodes}


def imported(text: str, name: str, tmp_path: Path, **options: Any) -> ImportedFeatures:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return import_list(tmp_path / name, tmp_path / "out.circuit.yaml", FeatureOptions(**options))


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", json.dumps(OBJECTS)), ("b.json", json.dumps({"features": ROWS})), ("c.csv", TABLE)],
)
def test_the_three_forms(name: str, text: str, tmp_path: Path) -> None:
    """What block 3 puts out enters block 4; embeddings enter block 0; an error that is named ablates the others."""
    found = imported(text, name, tmp_path)
    assert what(found.circuit.nodes) == NODES
    hypothesis = parse_hypothesis(found.text, "out.circuit.yaml", tmp_path).hypothesis
    assert {name: (spec.at, spec.error) for name, spec in hypothesis.dictionaries.items()} == {
        "embed": ("r0", "ablate"),
        "mlp_2": ("m2", "ablate"),
        "resid_3": ("r4", "ablate"),
    }
    nodes = {name: group.nodes for name, group in hypothesis.circuit.groups.items()}
    assert nodes["verb"] == ("sae:resid_3.f12@{p5,p2}",)
    assert hypothesis.task.positions == {"p2": 2, "p5": 5}
    out = tmp_path / "out.circuit.yaml"
    out.write_text(found.text, encoding="utf-8")
    written = export_list(load_hypothesis(out))
    assert what(imported(written.content.decode(), "back.json", tmp_path).circuit.nodes) == NODES


@pytest.mark.parametrize(
    ("name", "place"), [("attn_0", "a0"), ("resid_0", "r1"), ("r8.mid", "r8.mid"), ("z3", "z3"), ("layer_3", None)]
)
def test_where_a_dictionary_lies(name: str, place: str | None) -> None:
    assert place_of(name) == place


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["mine", 3]], "row 1: where mine lies is not told"),
        ([["m1", -1]], "row 1: its index is -1"),
        ([["m1", True]], "row 1: its index is True"),
        ([["m1", 3, "the last"]], "row 1: its position is 'the last'"),
        ([{"dictionary": "m1", "feature": 3}], "row 1: there is no column 'feature'"),
        (
            [{"dictionary": "x", "index": 1, "at": "m1"}, {"dictionary": "x", "index": 2, "at": "m2"}],
            "row 2: x lies at",
        ),
        ([], "holds no rows"),
        ({"nodes": {}}, "is no JSON list of rows"),
    ],
)
def test_rows_that_do_not_say_enough(rows: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError) as error:
        imported(json.dumps(rows), "rows.json", tmp_path)
    found = error.value.diagnostics[0]
    assert found.code == "CS574"
    assert said in found.message


def test_prompts_decide_the_ablation(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"clean": "a", "answers": ["b"]}\n')
    found = imported('[["m1", 3]]', "rows.json", tmp_path, prompts=prompts)
    assert "\nablation: {value: zero}\n" in found.text
    assert "metric: logprob" in found.text
    assert "  m1: {at: m1, from: PLACEHOLDER-name-the-dictionary}\n" in found.text  # no error is named: they stay
    prompts.write_text('{"clean": "a", "corrupt": {"flip": "c"}, "answers": ["b"], "wrong": ["d"]}\n')
    found = imported('[["m1", 3]]', "rows.json", tmp_path, prompts=prompts)
    assert "\nablation: {value: resample, from: flip}\n" in found.text
    with pytest.raises(CircuitspecError) as error:
        imported('[["m1", 3]]', "rows.json", tmp_path, dictionaries=tmp_path)
    assert error.value.diagnostics[0].code == "CS373"


def saved_circuit(path: Path, wicked: bool = False) -> Path:
    """As feature-circuits saves one: objects of its own class, here of a class of that name."""
    module = types.ModuleType("activation_utils")
    exec("class SparseAct:\n    pass", module.__dict__)
    made: Any = module.SparseAct  # type: ignore[attr-defined]
    sys.modules["activation_utils"] = module
    try:

        def node(act: torch.Tensor, resc: torch.Tensor) -> Any:
            found = made()
            found.act, found.res, found.resc = act, None, resc
            return found

        act = torch.zeros(4, 8)
        act[2, 3], act[1, 5], act[3, 3] = 0.5, -0.2, 0.05
        nodes = {
            "resid_1": node(act, torch.tensor([[0.0], [0.3], [0.0], [0.0]])),
            "mlp_out_layer0": node(torch.zeros(4, 8), torch.zeros(4, 1)),
            "embed": node(torch.tensor([0.0, 0.4]), torch.zeros(1)),
            "y": torch.tensor(1.0),
        }
        edges = {"resid_1": {"y": torch.eye(3).to_sparse()}}
        torch.save({"examples": [print] if wicked else [{"clean": "a"}], "nodes": nodes, "edges": edges}, path)
    finally:
        del sys.modules["activation_utils"]
    return path


def test_circuits_of_feature_circuits(tmp_path: Path) -> None:
    """The tool's class is read as its tensors, and nothing else of it; effects are cut off by their size."""
    file, out = saved_circuit(tmp_path / "circuit.pt"), tmp_path / "out.circuit.yaml"
    cut = import_list(file, out, FeatureOptions(threshold=0.1))
    assert what(cut.circuit.nodes) == {("resid_1", 3, 2), ("resid_1", 5, 1), ("resid_1", None, 1), ("embed", 1, None)}
    assert {one.name: one.at for one in cut.circuit.dictionaries} == {"embed": "r0", "resid_1": "r2"}
    assert any(loss.message == "1 node with a negative effect kept like the others" for loss in cut.losses)
    top = import_list(file, out, FeatureOptions(top=2))
    assert what(top.circuit.nodes) == {("resid_1", 3, 2), ("embed", 1, None)}
    for options, code in ((FeatureOptions(), "CS572"), (FeatureOptions(threshold=2.0), "CS572")):
        with pytest.raises(CircuitspecError) as error:
            import_list(file, out, options)
        assert error.value.diagnostics[0].code == code
    with pytest.raises(CircuitspecError) as error:
        import_list(saved_circuit(tmp_path / "wicked.pt", wicked=True), out, FeatureOptions(top=2))
    assert error.value.diagnostics[0].code == "CS384"
