"""Attribution graphs become hypotheses: what of a node is believed, what is refused, and what is then run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exchange.features.feature_circuit import FeatureNode
from circuitspec.exchange.features.importing_features import FeatureOptions, ImportedFeatures, import_graph
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.models.zoo import built_model
from tests.exchange.graph_json import WrittenGraph, transcoder, write_transcoders
from tests.models.conftest import save_tokenizer, tiny_gpt2, tiny_llama

TOKENS, IDS = ("[UNK]", "Mary", "gave", "John"), (0, 2, 10, 4)
GRAPH = WrittenGraph(
    TOKENS,
    IDS,
    features=[(0, 1, 2), (1, 3, 2), (1, 3, 3), (1, 12, 3)],
    errors=[(1, 2), (0, 3)],
    logits=[(5, 0.6), (3, 0.2)],
    influence={(0, 1, 2): 0.7, (1, 3, 2): 0.5, (1, 3, 3): 0.2, (1, 12, 3): 0.6, (1, 2): 0.3, (0, 3): 0.8},
    links=[("0_1_2", "1_3_3", 0.5), ("1_3_3", "3_5_3", -1.0)],
)


def imported(graph: WrittenGraph, tmp_path: Path, **options: Any) -> ImportedFeatures:
    return import_graph(graph.write(tmp_path / "graph.json"), tmp_path / "out.circuit.yaml", FeatureOptions(**options))


def refused(graph: WrittenGraph | dict[str, Any], tmp_path: Path, **options: Any) -> tuple[str, str]:
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(graph if isinstance(graph, dict) else graph.content()), encoding="utf-8")
    with pytest.raises(CircuitspecError) as error:
        import_graph(file, tmp_path / "out.circuit.yaml", FeatureOptions(**options))
    found = error.value.diagnostics[0]
    return found.code, found.message


def what(nodes: tuple[FeatureNode, ...]) -> set[tuple[str, int | None, int | str | None]]:
    return {(node.dictionary, node.index, node.position) for node in nodes}


EVERYTHING = {
    ("mlp0", 1, 2),
    ("mlp1", 3, 2),
    ("mlp1", 3, 3),
    ("mlp1", 12, 3),
    ("mlp1", None, 2),
    ("mlp0", None, 3),
}


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("by_cantor", [True, False])
def test_what_a_node_is(old: bool, by_cantor: bool, tmp_path: Path) -> None:
    """The error of layer 1 and feature 1 of layer 0 at token 2 are both called 0_1_2 in older files."""
    found = imported(replace(GRAPH, old=old, by_cantor=by_cantor), tmp_path)
    assert what(found.circuit.nodes) == EVERYTHING
    assert found.size == "4 features and 2 errors"
    said = [loss.message for loss in found.losses if loss.kind == "identifiers"]
    assert bool(said) is old
    if old:
        assert "(0_1_2), told apart by their type; of 1 link it is not told which node is meant" in said[0]


def test_the_file_that_is_written(tmp_path: Path) -> None:
    """The prompt by its token ids, the target logit as the answer, and a transcoder for every layer, named or not."""
    graph = replace(GRAPH, n_layers=3, supernodes=[["say: store!", "1_3_3", "0_1_2"], ["a9.h1", "1_12_3"]])
    found = imported(graph, tmp_path)
    hypothesis = parse_hypothesis(found.text, "out.circuit.yaml", tmp_path).hypothesis
    groups = {name: group.nodes for name, group in hypothesis.circuit.groups.items()}
    assert groups == {
        "say_store": ("sae:mlp0.f1@p2", "sae:mlp1.f3@p3"),
        "a9_h1": ("sae:mlp1.f12@p3",),
        "layer_1": ("sae:mlp1.f3@p2",),
        "errors": ("sae:mlp0.error@p3", "sae:mlp1.error@p2"),
    }
    assert hypothesis.task.positions == {"p2": 2, "p3": 3}
    assert {name: (spec.at, spec.error, spec.skip_first) for name, spec in hypothesis.dictionaries.items()} == {
        f"mlp{layer}": (f"m{layer}", "ablate", True) for layer in range(3)
    }
    assert found.prompts is not None
    assert json.loads(found.prompts) == {"clean": [*IDS], "answers": [5], "wrong": [3]}
    assert (hypothesis.ablation.value, [claim.kind for claim in hypothesis.claims]) == (
        "zero",
        ["sufficient", "necessary"],
    )


def test_a_prompt_whose_tokens_are_not_all_told(tmp_path: Path) -> None:
    content = GRAPH.content()
    content["nodes"] = [one for one in content["nodes"] if one["node_id"] != "E_10_2"]
    (tmp_path / "graph.json").write_text(json.dumps(content))
    found = import_graph(tmp_path / "graph.json", tmp_path / "out.circuit.yaml", FeatureOptions())
    assert found.prompts is not None
    assert json.loads(found.prompts)["clean"] == "".join(TOKENS)
    assert "\n  special_tokens: none\n" in found.text


def test_how_much_of_a_graph_is_taken(tmp_path: Path) -> None:
    """Influence is cumulative: the node of the most influence has the smallest number."""
    top = imported(GRAPH, tmp_path, top=3)
    assert what(top.circuit.nodes) == {("mlp1", 3, 3), ("mlp1", None, 2), ("mlp1", 3, 2)}
    share = imported(GRAPH, tmp_path, influence=0.6)
    assert what(share.circuit.nodes) == what(top.circuit.nodes) | {("mlp1", 12, 3)}
    pinned = imported(replace(GRAPH, pinned=["1_3_3", "0_1_2", "E_2_1"]), tmp_path, pinned=True)
    assert what(pinned.circuit.nodes) == {("mlp1", 3, 3), ("mlp0", 1, 2), ("mlp1", None, 2)}
    assert any("2 nodes taken that share a pinned identifier" in loss.message for loss in pinned.losses)
    assert refused(GRAPH, tmp_path, pinned=True)[0] == "CS572"
    assert refused(GRAPH, tmp_path, influence=0.1)[0] == "CS572"
    assert "does not say of every node" in refused(replace(GRAPH, influence={}), tmp_path, top=2)[1]


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"feature_type": "lorsa"}, "its feature_type is 'lorsa', which is not known"),
        ({"node_id": "2_1_2"}, "its node_id says layer 2, and its `layer` '0'"),
        ({"ctx_idx": 3}, "its node_id says token 2, and its ctx_idx 3"),
        ({"ctx_idx": 4}, "its ctx_idx is 4, and the prompt has tokens 0 to 3"),
        ({"node_id": "f1"}, "its node_id is not LAYER_NUMBER_POSITION"),
    ],
)
def test_nodes_that_contradict_themselves(node: dict[str, Any], said: str, tmp_path: Path) -> None:
    content = GRAPH.content()
    content["nodes"][0] |= node
    code, message = refused(content, tmp_path)
    assert code == "CS383"
    assert said in message


def test_files_that_are_no_graph(tmp_path: Path) -> None:
    assert refused({"nodes": {}, "edges": {}}, tmp_path)[0] == "CS383"
    torch.save({"adjacency_matrix": torch.zeros(1)}, tmp_path / "graph.pt")
    with pytest.raises(CircuitspecError) as error:
        import_graph(tmp_path / "graph.pt", tmp_path / "out.circuit.yaml", FeatureOptions())
    (found,) = error.value.diagnostics
    assert found.code == "CS384"
    assert "create_graph_files" in found.hint


def test_features_of_several_layers(tmp_path: Path) -> None:
    """The type of a node says "cross layer" of all; names, or the folder of the transcoders, tell."""
    graph = replace(GRAPH, metadata={"scan": "mntss/clt-gemma-2-2b-426k"})
    assert refused(graph, tmp_path)[0] == "CS571"
    layers = [transcoder(8, 16, seed) for seed in range(2)]
    own = write_transcoders(tmp_path / "own", layers)
    assert what(imported(graph, tmp_path, dictionaries=own).circuit.nodes) == EVERYTHING
    across = write_transcoders(tmp_path / "across", layers, "cross_layer_transcoder")
    assert refused(GRAPH, tmp_path, dictionaries=across)[0] == "CS571"
    assert refused(replace(GRAPH, n_layers=3), tmp_path, dictionaries=own)[0] == "CS373"


def saved_model(folder: Path, family: str) -> nn.Module:
    model: nn.Module = tiny_gpt2(n_layer=2) if family == "gpt2" else tiny_llama()
    model.save_pretrained(folder)  # type: ignore[operator]
    save_tokenizer(folder)
    double: nn.Module = model.double()
    return double


def test_a_graph_of_another_model(tmp_path: Path) -> None:
    saved_model(tmp_path / "model", "gpt2")
    at = {"model": str(tmp_path / "model")}
    assert "has layer 2" in refused(replace(GRAPH, features=[(2, 1, 1)], n_layers=3), tmp_path, **at)[1]
    assert "has logits in layer 6" in refused(replace(GRAPH, n_layers=5), tmp_path, **at)[1]
    code, message = refused(replace(GRAPH, ids=(0, 2, 11, 4)), tmp_path, **at)
    assert (code, "its token 2, 11, is 'gave' there, and 'a' in" in message) == ("CS573", True)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def logits_of(model: nn.Module, layers: list[dict[str, Tensor]], kept: Any) -> Tensor:
    """[vocab] at the last token, with every MLP's output put together anew but for the first token.

    `kept(layer, features)` -> which of `[token, feature]` stay, and at which tokens the error does. All else is 0.
    """

    def hook(layer: int) -> Any:
        own = layers[layer]

        def replaced(_module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            before = inputs[0][0] @ own["W_enc"].T + own["b_enc"]
            features = torch.relu(before) * (before > own["activation_function.threshold"])
            error = output[0] - features @ own["W_dec"] - own["b_dec"]
            stays, error_stays = kept(layer, features)
            found: Tensor = (features * stays) @ own["W_dec"] + own["b_dec"] + error * error_stays[:, None]
            found[0] = output[0, 0]
            return found[None]

        return replaced

    mlps = [module for name, module in model.named_modules() if name.endswith(".mlp")]
    handles = [mlp.register_forward_hook(hook(layer)) for layer, mlp in enumerate(mlps)]
    with torch.no_grad():
        found: Tensor = model(torch.tensor([IDS])).logits[0, -1]
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("family", ["gpt2", pytest.param("llama", marks=pytest.mark.nightly)])
def test_what_is_imported_is_what_is_run(family: str, tmp_path: Path) -> None:
    """The logit differences of the circuit and of the model without it are those of plain hooks, in float64."""
    model = saved_model(tmp_path / "model", family)
    d_model, n = (8 if family == "gpt2" else 12), 16
    layers = [transcoder(d_model, n, seed) for seed in range(2)]
    file, out = GRAPH.write(tmp_path / "graph.json"), tmp_path / "out.circuit.yaml"
    folder = write_transcoders(tmp_path / "transcoders", layers)
    done = run(
        "import", file, "--as", "attribution-graph", "--model", tmp_path / "model", "--dictionaries", folder, "-o", out
    )
    assert done.exit_code == 0, done.output
    text = out.read_text(encoding="utf-8")
    out.write_text(text.replace("\ntask:", "  dtype: float64\ntask:", 1), encoding="utf-8")
    result = run("verify", out, "--format", "json", "--no-store")
    assert result.exit_code == 4, result.output

    def inside(layer: int, features: Tensor) -> tuple[Tensor, Tensor]:
        stays, error = torch.zeros_like(features), torch.zeros(len(features), dtype=torch.float64)
        for of, number, token in GRAPH.features:
            if of == layer:
                stays[token, number] = 1.0
        for of, token in GRAPH.errors:
            if of == layer:
                error[token] = 1.0
        return stays, error

    def outside(layer: int, features: Tensor) -> tuple[Tensor, Tensor]:
        stays, error = inside(layer, features)
        return 1 - stays, 1 - error

    def nothing(layer: int, features: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(features), torch.zeros(len(features), dtype=torch.float64)

    def difference(kept: Any) -> float:
        found = logits_of(model, layers, kept)
        return float(found[5] - found[3])

    with torch.no_grad():
        plain = model(torch.tensor([IDS])).logits[0, -1]
    clean, empty = float(plain[5] - plain[3]), difference(nothing)
    sufficient, necessary = json.loads(result.stdout)["claims"]
    for claim, kept in ((sufficient, inside), (necessary, outside)):
        own = difference(kept)
        assert claim["means"]["clean"] == pytest.approx(clean, abs=1e-9)
        assert claim["means"]["corrupt"] == pytest.approx(empty, abs=1e-9)
        assert claim["means"]["patched"] == pytest.approx(own, abs=1e-9)
        assert abs(own - clean) > 1e-3
        assert abs(own - empty) > 1e-3
        assert claim["value"] is None or claim["value"] == pytest.approx((own - empty) / (clean - empty), abs=1e-9)
        assert (claim["ci"], claim["n"], claim["status"]) == (None, 1, "INCONCLUSIVE")


LAMP = (5, 16, 17, 18, 19, 2, 20, 18, 19, 2, 20, 21, 22, 23)  # "Kitchen lamp: one switch on, one switch on, so it is"


def neurons_as_features() -> list[dict[str, Tensor]]:
    """A transcoder of each layer of zoo:and that is its MLP: its hidden units are relu, and so are features."""
    model, _ = built_model("and").build()
    mlps = [block.mlp for block in model.transformer.h]
    return [
        {
            "W_enc": mlp.c_fc.weight.detach().T.contiguous(),
            "b_enc": mlp.c_fc.bias.detach(),
            "W_dec": mlp.c_proj.weight.detach().contiguous(),
            "b_dec": mlp.c_proj.bias.detach(),
        }
        for mlp in mlps
    ]


def test_a_verdict_on_further_prompts(tmp_path: Path) -> None:
    """Neuron 0 of layer 1 is relu(A + B - 1) and writes 8 to ` lit`; ` dark` has 4: so 4 with it, and -4 without.

    At the last token it is the whole circuit: recovered is 1 with it, and 0 without it, on every prompt.
    """
    tokens = ("Kitchen", " lamp", ":", *(" one", " switch", " on", ",") * 2, " so", " it", " is")
    graph = WrittenGraph(tokens, LAMP, features=[(1, 0, 13)], logits=[(24, 0.9), (25, 0.1)])
    rooms = ("Kitchen", "Hall", "Cellar", "Attic", "Garden", "Porch")
    with (tmp_path / "prompts.jsonl").open("w") as file:
        for room in rooms:
            for first in ("on", "up"):
                text = f"{room} lamp: one switch {first}, one switch on, so it is"
                file.write(json.dumps({"clean": text, "answers": [" lit"], "wrong": [" dark"]}) + "\n")
    write_transcoders(tmp_path / "transcoders", neurons_as_features())
    options = FeatureOptions("zoo:and", tmp_path / "prompts.jsonl", tmp_path / "transcoders")
    found = import_graph(graph.write(tmp_path / "graph.json"), tmp_path / "lamp.yaml", options)
    assert found.prompts is None
    (tmp_path / "lamp.yaml").write_text(found.text, encoding="utf-8")
    result = run("verify", tmp_path / "lamp.yaml", "--format", "json", "--no-store")
    assert result.exit_code == 0, result.output
    claims = json.loads(result.stdout)["claims"]
    assert [(claim["claim"], claim["status"], claim["n"]) for claim in claims] == [
        ("sufficient", "SUPPORTED", 12),
        ("necessary", "SUPPORTED", 12),
    ]
    assert [claim["value"] for claim in claims] == pytest.approx([1.0, 0.0], abs=1e-5)
    assert [claim["means"]["patched"] for claim in claims] == pytest.approx([4.0, -4.0], abs=1e-4)


def test_positions_of_prompts_do_not_count_a_special_token(tmp_path: Path) -> None:
    graph = replace(GRAPH, tokens=("<bos>", *TOKENS[1:]))
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"clean": "a b c", "answers": ["b"]}\n')
    hypothesis = parse_hypothesis(imported(graph, tmp_path, prompts=prompts).text, "out.yaml", tmp_path).hypothesis
    assert hypothesis.task.positions == {"p2": 1, "p3": 2}
    assert hypothesis.task.special_tokens == "bos"


def test_tokens_that_circuit_tracer_leaves_out_of_a_conversation(tmp_path: Path) -> None:
    graph = replace(GRAPH, tokens=("<bos>", "<start_of_turn>", "user", "⏎"))
    said = [loss.message for loss in imported(graph, tmp_path).losses if loss.kind == "positions"]
    assert any("first four tokens" in message for message in said)
