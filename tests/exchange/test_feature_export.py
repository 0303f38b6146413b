"""Features of a circuit in the formats of other tools: as graphs that viewers show, and where they have no word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exchange.exporting import export_circuit
from circuitspec.exchange.features.exporting_features import export_graph
from circuitspec.exchange.features.importing_features import FeatureOptions, import_graph, prompts_beside
from circuitspec.hypothesis_file.load_file import load_hypothesis
from tests.exchange.graph_json import cantor
from tests.exchange.test_attribution_graphs import EVERYTHING, GRAPH, saved_model, what

TEXT = """
circuitspec: 1
name: lamp
model: {id: "zoo:and"}
task:
  templates: ["{room} lamp: one switch on, one switch {B}, so it is"]
  slots: {room: $rooms, B: $flows}
  lists: {rooms: [Kitchen, Hall], flows: ["on", up]}
  answer: " lit"
  wrong: " dark"
  positions: {END: last}
  prompts: 2
dictionaries:
  t0: {at: m0, from: ./t, skip_first: true}
  t1: {at: m1, from: ./t, skip_first: true}
  stream: {at: r1, from: ./s}
circuit:
  groups:
    early: {nodes: ["sae:t0.f[2-3]"], at: B}
    late: {nodes: [sae:t1.f5, %NODE%], at: END, effect: negative}
  free: [a*]
  %PATHS%
ablation: {value: zero}
claims: [{sufficient: {metric: logit_diff, at_least: 0.8}}]
"""
N_TOKENS = 14  # of "Kitchen lamp: one switch on, one switch on, so it is"


def file_with(tmp_path: Path, node: str = "sae:t1.error", paths: str = "") -> Path:
    file = tmp_path / "lamp.circuit.yaml"
    file.write_text(TEXT.replace("%NODE%", node).replace("%PATHS%", paths), encoding="utf-8")
    return file


def test_what_a_viewer_reads(tmp_path: Path) -> None:
    """Positions become tokens, declared paths links, groups supernodes; numbers are paired as circuit-tracer does."""
    file = file_with(tmp_path, paths='paths: ["early -> sae:t1.f5 -> logits"]')
    found = export_graph(load_hypothesis(file))
    content = json.loads(found.content)
    nodes = {node["node_id"]: node for node in content["nodes"]}
    at_b, at_end = 9, N_TOKENS - 1
    features = {name: node for name, node in nodes.items() if node["feature_type"] == "cross layer transcoder"}
    assert {name: (one["feature"], one["layer"], one["ctx_idx"]) for name, one in features.items()} == {
        f"0_2_{at_b}": (cantor(0, 2), "0", at_b),
        f"0_3_{at_b}": (cantor(0, 3), "0", at_b),
        f"1_5_{at_end}": (cantor(1, 5), "1", at_end),
    }
    assert nodes[f"1_-1_{at_end}"]["feature_type"] == "mlp reconstruction error"
    assert [name for name in nodes if name.startswith("E_")] == [
        f"E_{number}_{token}" for token, number in enumerate(_ids(content))
    ]
    logits = {name: node["is_target_logit"] for name, node in nodes.items() if node["feature_type"] == "logit"}
    assert logits == {f"3_24_{at_end}": True, f"3_25_{at_end}": False}  # ` lit` and ` dark`, after 2 layers
    assert {(one["source"], one["target"]) for one in content["links"]} == {
        (f"0_2_{at_b}", f"1_5_{at_end}"),
        (f"0_3_{at_b}", f"1_5_{at_end}"),
        (f"1_5_{at_end}", f"3_24_{at_end}"),
        (f"1_5_{at_end}", f"3_25_{at_end}"),
    }
    assert content["qParams"]["supernodes"] == [
        ["early", f"0_2_{at_b}", f"0_3_{at_b}"],
        ["late", f"1_5_{at_end}", f"1_-1_{at_end}"],
    ]
    assert content["metadata"]["prompt_tokens"][-3:] == [" so", " it", " is"]
    assert {"prompts", "signs", "scores", "edges", "free", "dictionaries", "claims"} == {
        one.kind for one in found.losses
    }


def _ids(content: dict[str, Any]) -> list[int]:
    embeddings = [node for node in content["nodes"] if node["feature_type"] == "embedding"]
    return [int(node["node_id"].split("_")[1]) for node in embeddings]


def test_there_and_back(tmp_path: Path) -> None:
    """The same nodes in the same groups, and the same prompt and answers."""
    saved_model(tmp_path / "model", "gpt2")
    options = FeatureOptions(model=str(tmp_path / "model"))
    first, out = import_graph(GRAPH.write(tmp_path / "graph.json"), tmp_path / "a.circuit.yaml", options), tmp_path
    (out / "a.circuit.yaml").write_text(first.text, encoding="utf-8")
    prompts_beside(out / "a.circuit.yaml").write_text(first.prompts or "", encoding="utf-8")
    exported = export_graph(load_hypothesis(out / "a.circuit.yaml"))
    assert what(exported.circuit.nodes) == EVERYTHING
    (out / "back.json").write_bytes(exported.content)
    second = import_graph(out / "back.json", out / "b.circuit.yaml", options)
    assert what(second.circuit.nodes) == EVERYTHING
    groups = [{group: what(nodes) for group, nodes in one.circuit.by_group.items()} for one in (first, second)]
    assert groups[0] == groups[1]
    assert second.prompts == first.prompts


def test_a_node_at_every_token(tmp_path: Path) -> None:
    """At all but the first, of which the dictionary says nothing."""
    file = file_with(tmp_path)
    file.write_text(file.read_text().replace(", at: B}", "}"), encoding="utf-8")
    found = export_graph(load_hypothesis(file))
    tokens = sorted(node.position for node in found.circuit.nodes if node.index == 2)  # type: ignore[type-var]
    assert tokens == [*range(1, N_TOKENS)]


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ("a0.h1", "a0.h1 is neither a feature of a dictionary nor an error"),
        ("m1", "m1 is neither"),
        ("sae:stream.f1", "sae:stream.f1 is of r1, and graphs are of MLPs"),
        ("'sae:stream.f*'", "sae:stream.f* is neither"),
    ],
)
def test_nodes_without_a_word(node: str, said: str, tmp_path: Path) -> None:
    document = load_hypothesis(file_with(tmp_path, node))
    with pytest.raises(CircuitspecError) as error:
        export_graph(document)
    (found,) = error.value.diagnostics
    assert found.code == "CS575"
    assert said in found.message
    assert found.span is not None


def test_features_in_formats_of_heads(tmp_path: Path) -> None:
    document = load_hypothesis(file_with(tmp_path))
    with pytest.raises(CircuitspecError) as error:
        export_circuit(document, "eap", tmp_path / "out.json")
    said = [(one.code, one.message.split()[0]) for one in error.value.diagnostics]
    assert said == [("CS575", "sae:t0.f[2-3]"), ("CS575", "sae:t1.f5"), ("CS575", "sae:t1.error")]


def test_features_as_plain_pyvene(tmp_path: Path) -> None:
    """Refused before a model is loaded."""
    found = CliRunner().invoke(main, ["compile", str(file_with(tmp_path)), "--emit", str(tmp_path / "bundle")])
    assert found.exit_code == 5, found.output
    assert "error[CS576]: sae:t0.f[2-3] cannot be written to a bundle" in found.stderr


@pytest.mark.nightly
def test_by_the_commands(tmp_path: Path) -> None:
    file, out = file_with(tmp_path), tmp_path / "out.json"
    for name in ("attribution-graph", "feature-list"):
        found = CliRunner().invoke(main, ["export", str(file), "--as", name, "-o", str(out), "--force"])
        assert found.exit_code == 0, found.output
        assert found.stdout == f"wrote {out} (3 features and 1 error)\n"
        back = tmp_path / "back.circuit.yaml"
        found = CliRunner().invoke(main, ["import", str(out), "--as", name, "-o", str(back), "--force"])
        assert found.exit_code == 0, found.output
        found = CliRunner().invoke(main, ["check", str(back)])
        assert found.exit_code == 0, found.output
