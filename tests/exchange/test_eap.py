"""EAP-IG graphs against examples written by hand from the format: names, indices, what is refused, what is lost."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exchange.edge_lists import EdgeList, Size, edge_list
from circuitspec.exchange.importing import ImportOptions
from circuitspec.exchange.readers import eap
from tests.exchange.support import GPT2, SMALL, edges, exported, findings, imported, kinds, losses_of

CFG: dict[str, Any] = {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8}


def example(**scores: float | None) -> dict[str, Any]:
    """A file of some edges; those with a score of None are out, the others in."""
    named = {key.replace("__", "->"): value for key, value in scores.items()}
    return {
        "cfg": CFG,
        "nodes": {"input": {"in_graph": True}, "a0.h1": {"in_graph": True}, "logits": {"in_graph": True}},
        "edges": {n: {"score": 0.5 if v is None else v, "in_graph": v is not None} for n, v in named.items()},
    }


BY_HAND = {
    "cfg": CFG,
    "nodes": {
        "input": {"in_graph": True},
        "a0.h0": {"in_graph": False},
        "a0.h1": {"in_graph": True},
        "m0": {"in_graph": False},
        "a1.h0": {"in_graph": True, "score": 0.3},
        "a1.h1": {"in_graph": False},
        "m1": {"in_graph": True},
        "logits": {"in_graph": True},
    },
    "edges": {
        "input->a0.h1<v>": {"score": 0.9, "in_graph": True},
        "input->a0.h0<q>": {"score": -0.000296, "in_graph": False},
        "a0.h1->a1.h0<k>": {"score": -0.4, "in_graph": True},
        "a0.h1->m0": {"score": 0.0, "in_graph": False},
        "a1.h0->m1": {"score": 0.3, "in_graph": True},
        "m1->logits": {"score": 0.2, "in_graph": True},
    },
}


def raw(content: object) -> bytes:
    return json.dumps(content).encode()


def test_an_example_by_hand(tmp_path: Path) -> None:
    found = imported(raw(BY_HAND), "eap", tmp_path)
    assert found.edges.size == Size(2, 2, 2, 8)
    assert found.edges.edges == edges("input->a0.h1<v>", "a0.h1->a1.h0<k>", "a1.h0->m1", "m1->logits")
    for line in ("- input -> a0.h1<v>", "- a0.h1 -> a1.h0<k>", "- a1.h0 -> m1", "- m1 -> logits"):
        assert f"    {line}\n" in found.text
    assert "heads: {nodes: [a0.h1, a1.h0]}" in found.text
    assert "mlps: {nodes: [m1]}" in found.text
    assert losses_of(found, "signs") == ["1 edge with a negative score kept like the others"]
    made_up = {"model", "prompts", "ablation", "claims"}
    assert kinds(found.losses) == {"positions", "scores", "signs", "roles", "missing", *made_up}
    # layer 0: 6 inputs of heads read 1 sender, its MLP 3; layer 1: 6 read 4, its MLP 6; the logits 7: 46, less 6 named
    assert losses_of(found, "missing") == ["40 edges that the file does not name, taken as left out"]


def test_names_stand_in_the_order_of_the_formats_indices() -> None:
    """Forward and backward index as the format computes them, for GPT-2 small."""
    layers, heads = 12, 12
    senders, receivers = eap.sender_names(GPT2), eap.receiver_names(GPT2)
    assert len(senders) == 157
    assert len(receivers) == 445
    assert senders[0] == "input"
    assert receivers[-1] == "logits"
    for layer in range(layers):
        for head in range(heads):
            assert senders[1 + layer * (heads + 1) + head] == f"a{layer}.h{head}"
            for number, port in enumerate("qkv"):
                assert receivers[layer * (3 * heads + 1) + number * heads + head] == f"a{layer}.h{head}<{port}>"
        assert senders[1 + layer * (heads + 1) + heads] == f"m{layer}"
        assert receivers[layer * (3 * heads + 1) + 3 * heads] == f"m{layer}"


def test_what_is_written_has_all_nodes_and_edges_of_the_format() -> None:
    circuit = edge_list(SMALL, edges("input->a0.h1<v>", "a0.h1->logits"))
    content, losses = eap.write(circuit, Path("graph.json"))
    found = json.loads(content)
    assert found["cfg"] == CFG
    assert found["nodes"] == {
        name: {"in_graph": name in ("input", "a0.h1", "logits")}
        for name in ("input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1", "logits")
    }
    # 2 layers of 2 heads: senders before a0, m0, a1, m1, logits are 1, 3, 4, 6, 7
    assert len(found["edges"]) == 1 * 6 + 3 + 4 * 6 + 6 + 7
    assert found["edges"]["a0.h1->logits"] == {"score": 1.0, "in_graph": True}
    assert found["edges"]["a0.h1->m0"] == {"score": 0.0, "in_graph": False}
    assert {name for name, info in found["edges"].items() if info["in_graph"]} == {"input->a0.h1<v>", "a0.h1->logits"}
    assert kinds(losses) == {"scores"}


def test_scores_can_be_cut_instead(tmp_path: Path) -> None:
    content = raw(example(input__logits=0.1, input__m0=-0.8, m0__logits=0.7, input__m1=0.05, m1__logits=None))
    assert imported(content, "eap", tmp_path).edges.edges == edges("input->logits", "input->m0", "m0->logits")
    cut = imported(content, "eap", tmp_path, ImportOptions(threshold=0.5))
    # m1->logits has 0.5, and nothing leads to m1
    assert cut.edges.edges == edges("input->m0", "m0->logits")
    assert losses_of(cut, "dangling") == [
        "1 edge on no way from the input to the logits left out, and so 1 component (--keep-dangling keeps them)"
    ]
    kept = imported(content, "eap", tmp_path, ImportOptions(threshold=0.5, keep_dangling=True))
    assert kept.edges.edges == edges("input->m0", "m0->logits", "m1->logits")
    assert imported(content, "eap", tmp_path, ImportOptions(top=2)).edges.edges == edges("input->m0", "m0->logits")


@pytest.mark.parametrize("options", [ImportOptions(threshold=0.5), ImportOptions(top=3)])
def test_edges_without_a_score_are_left_out_of_a_cut_and_counted(options: ImportOptions, tmp_path: Path) -> None:
    content = example(input__logits=0.5, input__m0=0.9, m0__logits=0.8, input__m1=float("nan"), m1__logits=0.1)
    content["edges"]["m0->m1"] = {"in_graph": True}
    found = imported(raw(content), "eap", tmp_path, options)
    assert found.edges.edges == edges("input->logits", "input->m0", "m0->logits")
    assert losses_of(found, "missing") == [
        "40 edges that the file does not name, taken as left out",
        "2 edges without a score left out",
    ]


def test_tensors_without_some_scores(tmp_path: Path) -> None:
    scores = torch.full((7, 15), float("nan"))  # 46 of these are edges of the model
    scores[0, 14], scores[0, 6], scores[3, 14] = 0.5, 0.9, 0.8
    cut = imported(tensors(edges_scores=scores), "eap", tmp_path, ImportOptions(threshold=0.5), ".pt")
    assert cut.edges.edges == edges("input->logits", "input->m0", "m0->logits")
    assert losses_of(cut, "missing") == ["43 edges without a score left out"]
    assert not losses_of(imported(tensors(edges_scores=scores), "eap", tmp_path, suffix=".pt"), "missing")


def test_of_equally_strong_edges_the_first_are_taken_and_the_rest_told(tmp_path: Path) -> None:
    content = raw(example(input__logits=0.5, input__m0=0.5, m0__logits=0.5))
    found = imported(content, "eap", tmp_path, ImportOptions(top=2, keep_dangling=True))
    assert len(found.edges) == 2
    assert losses_of(found, "ties") == [
        "1 edge left out that the file scores as high as the last one kept: the first in the model's order are taken"
    ]


def test_no_edge_of_score_zero_is_taken(tmp_path: Path) -> None:
    """EAP-IG scores every edge, and most of them with exactly zero where a file was made from a sparse method."""
    content = raw(example(input__logits=0.5, input__m0=-0.5, m0__logits=0.1, input__m1=0.0, m1__logits=-0.0))
    found = imported(content, "mib", tmp_path, ImportOptions(top=5, keep_dangling=True))
    assert found.edges.edges == edges("input->logits", "input->m0", "m0->logits")
    assert "3 of 5 edges have a score other than zero: taken are these, not 5" in losses_of(found, "scores")
    whole = imported(content, "mib", tmp_path, ImportOptions(threshold=0, keep_dangling=True))
    assert whole.edges.edges == found.edges.edges
    exact = imported(content, "mib", tmp_path, ImportOptions(top=3))
    assert losses_of(exact, "scores") == ["how strong each edge was found to be is not kept"]
    nothing = raw(example(input__logits=0.0, input__m0=0.0))
    with pytest.raises(CircuitspecError, match=r"every edge of .* has the score 0") as error:
        imported(nothing, "mib", tmp_path, ImportOptions(top=5))
    assert findings(error)[0].code == "CS385"


def test_by_sign_the_most_positive_are_taken_and_none_below_zero(tmp_path: Path) -> None:
    content = raw(example(input__logits=0.2, input__m0=-0.9, m0__logits=-0.8, input__m1=0.1, m1__logits=0.3))
    by_size = imported(content, "mib", tmp_path, ImportOptions(top=3))
    assert by_size.edges.edges == edges("input->m0", "m0->logits")  # m1->logits dangles
    by_sign = imported(content, "mib", tmp_path, ImportOptions(top=3, signed=True))
    assert by_sign.edges.edges == edges("input->logits", "input->m1", "m1->logits")
    assert not losses_of(by_sign, "signs")
    more = imported(content, "mib", tmp_path, ImportOptions(top=4, signed=True))
    assert more.edges.edges == by_sign.edges.edges
    assert "3 of 5 edges have a score above zero: taken are these, not 4" in losses_of(more, "scores")
    assert imported(content, "mib", tmp_path, ImportOptions(threshold=0.15, signed=True)).edges.edges == edges(
        "input->logits"
    )
    with pytest.raises(CircuitspecError, match="nothing to rank by sign"):
        imported(content, "mib", tmp_path, ImportOptions(signed=True))


def test_a_file_of_importances_alone_must_be_cut(tmp_path: Path) -> None:
    content = example(input__logits=0.5, input__m0=0.1)
    for info in content["edges"].values():
        del info["in_graph"]
    with pytest.raises(CircuitspecError) as error:
        imported(raw(content), "mib", tmp_path)
    assert findings(error)[0].code == "CS385"
    assert "--top" in findings(error)[0].hint
    assert imported(raw(content), "mib", tmp_path, ImportOptions(top=1)).edges.edges == edges("input->logits")


def test_nodes_as_truth_values_and_infinite_scores_are_read(tmp_path: Path) -> None:
    content = example(input__logits=float("inf"), input__m0=float("nan"), m0__logits=10**400)
    content["nodes"] = {"input": True, "m0": True, "m1": True}
    found = imported(raw(content), "eap", tmp_path, ImportOptions(threshold=5, keep_dangling=True))
    assert found.edges.edges == edges("input->logits", "m0->logits")
    whole = imported(raw(content), "eap", tmp_path)
    assert "1 node that the file counts in without an edge left out" in losses_of(whole, "dangling")


def test_parallel_blocks(tmp_path: Path) -> None:
    content = example(input__logits=1.0, a0__m0=1.0)
    content["edges"] = {"input->a0.h0<q>": {"score": 1, "in_graph": True}, "a0.h0->m0": {"score": 1, "in_graph": True}}
    content["cfg"] = {**CFG, "parallel_attn_mlp": True}
    with pytest.raises(CircuitspecError) as error:
        imported(raw(content), "eap", tmp_path)
    assert findings(error)[0].code == "CS383"
    assert "'a0.h0->m0': a model of 2 layers of 2 heads, 8 channels, parallel blocks has no such edge" in str(
        error.value
    )


def tensors(**changes: object) -> bytes:
    """By the backward index a(L)(h)<p> = L(3H+1) + pH + h, m(L) = L(3H+1) + 3H, logits last; H = 2."""
    senders = ["input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1"]
    receivers = [f"a0.h{h}<{p}>" for p in "qkv" for h in range(2)] + ["m0"]
    receivers += [f"a1.h{h}<{p}>" for p in "qkv" for h in range(2)] + ["m1", "logits"]
    scores, in_graph = torch.zeros(7, 15), torch.zeros(7, 15, dtype=torch.bool)
    for row, column, score in ((0, 0 + 2 * 2 + 1, 0.9), (2, 7 + 1 * 2 + 0, -0.4), (4, 7 + 6, 0.3), (6, 14, 0.2)):
        scores[row, column], in_graph[row, column] = score, True
    content = {
        "cfg": CFG,
        "src_nodes": senders,
        "dst_nodes": receivers,
        "edges_scores": scores,
        "edges_in_graph": in_graph,
        "nodes_in_graph": torch.tensor([True, False, True, False, True, False, True]),
        **changes,
    }
    buffer = io.BytesIO()
    torch.save({key: value for key, value in content.items() if value is not None}, buffer)
    return buffer.getvalue()


def test_tensors_say_the_same_as_json(tmp_path: Path) -> None:
    found = imported(tensors(), "eap", tmp_path, suffix=".pt")
    assert found.edges.edges == edges("input->a0.h1<v>", "a0.h1->a1.h0<k>", "a1.h0->m1", "m1->logits")
    assert losses_of(found, "signs") == ["1 edge with a negative score kept like the others"]
    assert not losses_of(found, "dangling")
    cut = imported(tensors(), "eap", tmp_path, ImportOptions(threshold=0.35, keep_dangling=True), suffix=".pt")
    assert cut.edges.edges == edges("input->a0.h1<v>", "a0.h1->a1.h0<k>")


def test_tensors_in_another_order_of_nodes(tmp_path: Path) -> None:
    order = [6, 5, 4, 3, 2, 1, 0]
    whole = torch.load(io.BytesIO(tensors()), weights_only=True)
    turned = {key: whole[key][order] for key in ("edges_scores", "edges_in_graph", "nodes_in_graph")}
    content = tensors(src_nodes=[whole["src_nodes"][place] for place in order], **turned)
    assert (
        imported(content, "eap", tmp_path, suffix=".pt").edges.edges
        == imported(raw(BY_HAND), "eap", tmp_path).edges.edges
    )


def test_marks_where_the_model_has_no_edge_are_told(tmp_path: Path) -> None:
    everything = torch.ones(7, 15, dtype=torch.bool)
    found = imported(tensors(edges_in_graph=everything), "eap", tmp_path, suffix=".pt")
    assert len(found.edges) == 46
    assert f"{7 * 15 - 46} marked pairs between which the model has no edge" in losses_of(found, "dangling")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"edges_in_graph": None}, "there are no cfg, src_nodes"),
        ({"edges_scores": torch.zeros(3, 3)}, "no tensors of 7 senders and 15 receivers"),
        ({"edges_in_graph": "yes"}, "no tensors of 7 senders and 15 receivers"),
        ({"edges_scores": torch.zeros(7, 15).to_sparse()}, "no tensors of 7 senders and 15 receivers"),
        ({"src_nodes": ["input"]}, "`src_nodes` does not name the nodes"),
        ({"dst_nodes": [[1]] * 15}, "`dst_nodes` does not name the nodes"),
        ({"cfg": {**CFG, "n_heads": 3}}, "`src_nodes` does not name the nodes"),
        ({"cfg": 3}, "the number of layers is given as None"),
    ],
)
def test_tensors_that_are_no_graph(change: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError, match=said) as error:
        imported(tensors(**change), "eap", tmp_path, suffix=".pt")
    assert findings(error)[0].code == "CS383"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "no objects `cfg`, `nodes` and `edges`"),
        ({"cfg": CFG, "nodes": {}}, "no objects"),
        ({"cfg": {}, "nodes": {}, "edges": {}}, "the number of layers is given as None"),
        ({"cfg": {**CFG, "n_layers": True}, "nodes": {}, "edges": {}}, "layers is given as True"),
        ({"cfg": {**CFG, "n_heads": 5000}, "nodes": {}, "edges": {}}, "heads is given as 5000"),
        ({"cfg": {**CFG, "n_layers": 1000, "n_heads": 1000}, "nodes": {}, "edges": {}}, "too many edges"),
        ({"cfg": {**CFG, "parallel_attn_mlp": "no"}, "nodes": {}, "edges": {}}, "parallel_attn_mlp is given as 'no'"),
        ({"cfg": {**CFG, "d_model": -1}, "nodes": {}, "edges": {}}, "channels is given as -1"),
        ({"cfg": CFG, "nodes": {}, "edges": {"a1.h0->m0": {"score": 1, "in_graph": True}}}, "has no such edge"),
        ({"cfg": CFG, "nodes": {}, "edges": {"a0.h0->a1.h0": {"score": 1, "in_graph": True}}}, "has no such edge"),
        ({"cfg": CFG, "nodes": {}, "edges": {"input->a7.h0<q>": {"score": 1, "in_graph": True}}}, "has no such edge"),
        ({"cfg": CFG, "nodes": {}, "edges": {"input": {"score": 1, "in_graph": True}}}, "has no such edge"),
        ({"cfg": CFG, "nodes": {}, "edges": {"input->m0": {"score": "1", "in_graph": True}}}, "no object of a number"),
        ({"cfg": CFG, "nodes": {}, "edges": {"input->m0": {"score": 1, "in_graph": 1}}}, "no object of a number"),
        ({"cfg": CFG, "nodes": {}, "edges": {"input->m0": True}}, "no object of a number"),
        (
            {"cfg": CFG, "nodes": {}, "edges": {"input->m0": {"in_graph": True}, "input->m1": {"score": 1}}},
            "1 edge without `in_graph`",
        ),
    ],
)
def test_json_that_is_no_graph(content: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError, match=said) as error:
        imported(raw(content), "eap", tmp_path)
    assert findings(error)[0].code == "CS383"


def test_of_many_faults_the_first_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    content = {"cfg": CFG, "nodes": {}, "edges": {f"x{i}->m0": {"score": 1, "in_graph": True} for i in range(25)}}
    with pytest.raises(CircuitspecError) as error:
        imported(raw(content), "eap", tmp_path)
    assert len(findings(error)) == 11
    assert "not shown: 15" in findings(error)[-1].message


def test_a_submission_is_told_which_of_its_circuits_this_can_be(tmp_path: Path) -> None:
    imported(raw(BY_HAND), "mib", tmp_path)
    found = exported("mib", tmp_path, SMALL)
    assert losses_of(found, "submission") == [
        "a submission holds nine circuits of growing size; with 8.70% of all edges this can be the one of at most 10.0%"
    ]
    whole = EdgeList(SMALL, SMALL.possible)
    assert "none" in next(
        loss.message for loss in eap.write_submission(whole, Path("x.json"))[1] if loss.kind == "submission"
    )


def test_the_width_of_the_model_must_be_known(tmp_path: Path) -> None:
    imported(raw(BY_HAND), "eap", tmp_path)
    assert exported("eap", tmp_path, Size(2, 2, 2)).edges.size.d_model == 8  # which the hypothesis states
    file = tmp_path / "imported.circuit.yaml"
    file.write_text(re.sub(r"  size: .*\n", "", file.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(CircuitspecError) as error:
        exported("eap", tmp_path, Size(2, 2, 2))
    assert findings(error)[0].code == "CS386"
    assert "--size 2x2xCHANNELS" in findings(error)[0].hint
