"""InterpBench's and Edge Pruning's lists of pairs against examples written by hand."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exchange.edge_lists import Size, edge_list
from circuitspec.exchange.importing import ImportOptions
from circuitspec.exchange.readers import edge_pruning, interpbench
from tests.exchange.support import SMALL, edges, findings, imported, losses_of

HEAD = ["input->a0.h1<q>", "input->a0.h1<k>", "input->a0.h1<v>"]

TRUTH = [  # sender first
    ("blocks.0.hook_resid_pre", "blocks.0.attn.hook_result[1]"),
    ("blocks.0.attn.hook_result[1]", "blocks.1.hook_mlp_out"),
    ("blocks.1.hook_mlp_out", "blocks.1.hook_resid_post"),
]


def test_interpbench_does_not_tell_inputs_apart(tmp_path: Path) -> None:
    found = imported(pickle.dumps(TRUTH), "interpbench", tmp_path)
    assert found.edges.edges == edges(*HEAD, "a0.h1->m1", "m1->logits")
    assert found.edges.size == Size(2, 2, 2, inferred=True)
    assert losses_of(found, "inputs") == [
        "the file does not tell q, k and v apart: an edge to a head is one to all three"
    ]
    assert "    - input -> a0.h1\n" in found.text


def test_interpbench_with_places_of_other_granularity(tmp_path: Path) -> None:
    pairs = [
        ("hook_embed", "blocks.0.hook_q_input[1]"),
        ("hook_pos_embed", "blocks.0.hook_q_input[1]"),
        ("hook_pos_embed", "blocks.0.hook_mlp_in"),
        ("blocks.0.hook_q_input[1]", "blocks.0.attn.hook_q[1]"),
        ("blocks.0.attn.hook_q[1]", "blocks.0.attn.hook_result[1]"),
        ("blocks.0.hook_mlp_in", "blocks.0.hook_mlp_out"),
        ("blocks.0.attn.hook_result[1]", "blocks.0.hook_resid_post"),
        ("blocks.0.hook_mlp_out", "blocks.0.hook_resid_post"),
    ]
    found = imported(pickle.dumps(pairs), "interpbench", tmp_path)
    assert found.edges.edges == edges("input->a0.h1<q>", "input->m0", "a0.h1->logits", "m0->logits")
    assert losses_of(found, "computation") == ["3 edges within heads and MLPs are no edges here"]
    assert losses_of(found, "embeddings") == [
        "token and position embeddings are one sender, `input`; 1 edge of one of them alone now carries both"
    ]
    assert imported(pickle.dumps(set(pairs)), "interpbench", tmp_path).text == found.text


def test_interpbench_without_an_end_is_kept_on_demand(tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError) as error:
        imported(pickle.dumps(TRUTH[:2]), "interpbench", tmp_path)
    assert findings(error)[0].code == "CS385"
    assert "--keep-dangling" in findings(error)[0].hint
    kept = imported(pickle.dumps(TRUTH[:2]), "interpbench", tmp_path, ImportOptions(keep_dangling=True))
    assert kept.edges.edges == edges(*HEAD, "a0.h1->m1")


def test_interpbench_is_written_with_a_loss_where_inputs_differ() -> None:
    content, losses = interpbench.write(edge_list(SMALL, edges(*HEAD, "input->a1.h0<k>", "m1->logits")), Path("x.pkl"))
    assert sorted(pickle.loads(content)) == [  # noqa: S301
        ("blocks.0.hook_resid_pre", "blocks.0.attn.hook_result[1]"),
        ("blocks.0.hook_resid_pre", "blocks.1.attn.hook_result[0]"),
        ("blocks.1.hook_mlp_out", "blocks.1.hook_resid_post"),
    ]
    assert [loss.message for loss in losses] == [
        "q, k and v are not told apart: 1 edge to some inputs of a head now reach all three"
    ]
    assert interpbench.write(edge_list(SMALL, edges(*HEAD)), Path("x.pkl"))[1] == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": "b"}, "no list of edges"),
        (["ab", ("a",), ("a", 1)], "is no pair of names"),
        ([("blocks.0.hook_resid_pre", "blocks.0.attn.hook_result")], "joins no places"),
        ([("blocks.0.hook_resid_pre", "blocks.0.attn.hook_result[x]")], "joins no places"),
        ([("blocks.0.hook_resid_pre[1]", "blocks.0.hook_mlp_out")], "joins no places"),
        ([("blocks.1.hook_mlp_out", "blocks.0.attn.hook_result[0]")], "has no such edge"),
        ([TRUTH[2], ("blocks.0.hook_mlp_out", "blocks.0.hook_resid_post")], "of several layers"),
    ],
)
def test_what_is_no_truth_of_interpbench(content: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError, match=said) as error:
        imported(pickle.dumps(content), "interpbench", tmp_path)
    assert findings(error)[0].code == "CS383"


def raw(content: object) -> bytes:
    return json.dumps(content).encode()


PAIRS = [
    ["tok_embeds", "a0.h1.v"],
    ["pos_embeds", "a0.h1.v"],
    ["a0.h1", "a1.h0.k"],
    ["a1.h0", "m1"],
    ["m1", "resid_post"],
]


def test_edge_pruning_by_hand(tmp_path: Path) -> None:
    found = imported(raw(PAIRS), "edge-pruning", tmp_path)
    assert found.edges.edges == edges("input->a0.h1<v>", "a0.h1->a1.h0<k>", "a1.h0->m1", "m1->logits")
    assert losses_of(found, "embeddings") == ["token and position embeddings are one sender, `input`"]
    alone = imported(raw(PAIRS[1:]), "edge-pruning", tmp_path)
    assert alone.edges.edges == found.edges.edges
    assert "1 edge of one of them alone now carries both" in losses_of(alone, "embeddings")[0]


def test_edge_pruning_without_embeddings_lets_all_of_the_circuit_read_them(tmp_path: Path) -> None:
    found = imported(raw(PAIRS[2:]), "edge-pruning", tmp_path)
    read = [f"input->{c}<{p}>" for c in ("a0.h1", "a1.h0") for p in "qkv"]
    assert found.edges.edges == edges(*read, "input->m1", "input->logits", "a0.h1->a1.h0<k>", "a1.h0->m1", "m1->logits")
    assert "`input` is joined to all of the circuit" in losses_of(found, "embeddings")[0]


def test_edge_pruning_is_written_with_both_embeddings() -> None:
    circuit = edge_list(SMALL, edges("input->a0.h1<v>", "a0.h1->a1.h0<k>", "a1.h0->m1", "m1->logits"))
    content, losses = edge_pruning.write(circuit, Path("edges.json"))
    assert sorted(json.loads(content)) == sorted(PAIRS)
    assert [loss.kind for loss in losses] == ["embeddings"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"edges": []}, "no list of edges"),
        ([["a0.h1"]], "is no pair of a writer and a reader"),
        ([["a0.h1", "a1.h0"]], "is no pair of a writer and a reader"),
        ([["a0.h1.q", "m0"]], "is no pair of a writer and a reader"),
        ([["resid_post", "m0"]], "is no pair of a writer and a reader"),
        ([["tok_embeds", 3]], "is no pair of a writer and a reader"),
        ([["m1", "a1.h0.q"]], "has no such edge"),
        ([["a5000.h0", "resid_post"]], "number of layers is given as 5001"),
        ([["a900.h1000", "resid_post"]], "too many edges"),
    ],
)
def test_what_is_no_edge_of_edge_pruning(content: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError, match=said) as error:
        imported(raw(content), "edge-pruning", tmp_path)
    assert findings(error)[0].code == "CS383"


def test_a_model_that_lacks_what_the_file_names(tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError, match=r"a0\.h1 -> a1\.h0\.k: a model of 1 layer of 2 heads has no such edge"):
        imported(raw(PAIRS), "edge-pruning", tmp_path, ImportOptions(size=Size(1, 2, 2)))
    with pytest.raises(CircuitspecError) as error:
        imported(pickle.dumps(TRUTH), "interpbench", tmp_path, ImportOptions(size=Size(3, 2, 2)))
    assert findings(error)[0].code == "CS386"
