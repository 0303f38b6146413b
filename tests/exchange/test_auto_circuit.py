"""auto-circuit's prune scores against examples written by hand from its format."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exchange.edge_lists import Size, edge_list
from circuitspec.exchange.importing import ImportOptions
from circuitspec.exchange.readers import auto_circuit
from tests.exchange.support import GPT2, SMALL, edges, findings, imported, losses_of


def scores(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """2 layers of 2 heads: senders are Resid Start, A0.0, A0.1, MLP 0, A1.0, A1.1, MLP 1."""
    found = {f"blocks.0.hook_{p}_input": torch.zeros(2, 1) for p in "qkv"}
    found["blocks.0.hook_mlp_in"] = torch.zeros(3)
    found |= {f"blocks.1.hook_{p}_input": torch.zeros(2, 4) for p in "qkv"}
    found["blocks.1.hook_mlp_in"] = torch.zeros(6)
    found["blocks.1.hook_resid_post"] = torch.zeros(7)
    found["blocks.0.hook_v_input"][1, 0] = 0.9  # Resid Start -> A0.1.V
    found["blocks.1.hook_k_input"][0, 2] = -0.4  # A0.1 -> A1.0.K
    found["blocks.1.hook_mlp_in"][4] = 0.3  # A1.0 -> MLP 1
    found["blocks.1.hook_resid_post"][6] = 0.2  # MLP 1 -> Resid End
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in (found | named).items() if value is not None}


WAY = edges("input->a0.h1<v>", "a0.h1->a1.h0<k>", "a1.h0->m1", "m1->logits")


def raw(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_an_example_by_hand(tmp_path: Path) -> None:
    found = imported(raw(scores()), "auto-circuit", tmp_path, ImportOptions(threshold=0.2 - 1e-6))
    assert found.edges.size == Size(2, 2, 2)
    assert found.edges.edges == WAY
    assert losses_of(found, "signs") == ["1 edge with a negative score kept like the others"]
    assert imported(raw(scores()), "auto-circuit", tmp_path, ImportOptions(top=4)).edges.edges == WAY


def test_scores_do_not_say_where_the_circuit_ends(tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError) as error:
        imported(raw(scores()), "auto-circuit", tmp_path)
    assert findings(error)[0].code == "CS385"


@pytest.mark.parametrize("options", [ImportOptions(top=40, keep_dangling=True), ImportOptions(threshold=0.1)])
def test_modules_that_are_missing_and_scores_that_are_no_numbers_are_told(
    options: ImportOptions, tmp_path: Path
) -> None:
    """The MLP of layer 0 reads 3 senders, the queries of two heads of layer 1 read 4 each."""
    values = torch.zeros(6)
    values[0], values[1], values[4] = float("nan"), float("nan"), 0.3
    content = scores(blocks__0__hook_mlp_in=None, blocks__1__hook_q_input=None, blocks__1__hook_mlp_in=values)
    found = imported(raw(content), "auto-circuit", tmp_path, options)
    assert found.edges.edges >= WAY
    assert losses_of(found, "missing") == [
        "11 edges that the file does not name, taken as left out",
        "2 edges without a score left out",
    ]


def test_scores_of_zero_and_one_are_the_circuit(tmp_path: Path) -> None:
    mask = {name: (values != 0).float() for name, values in scores().items()}
    assert imported(raw(mask), "auto-circuit", tmp_path).edges.edges == WAY


def test_token_positions_are_merged_and_told(tmp_path: Path) -> None:
    """[positions, heads, senders]: at one position the score is there, at another it has the other sign and is less."""
    placed = {name: torch.stack([0 * values, values, -values / 2]) for name, values in scores().items()}
    found = imported(raw(placed), "auto-circuit", tmp_path, ImportOptions(threshold=0.15))
    assert found.edges.edges == WAY
    assert losses_of(found, "positions") == [
        "of the scores at 3 token positions the largest counts: edges lie everywhere"
    ]
    assert losses_of(found, "signs") == ["1 edge with a negative score kept like the others"]


def test_inputs_that_are_not_split(tmp_path: Path) -> None:
    content = scores(**{f"blocks__{i}__hook_{p}_input": None for i in range(2) for p in "qkv"})
    content["blocks.0.hook_attn_in"] = torch.tensor([[0.0], [0.9]])
    content["blocks.1.hook_attn_in"] = torch.tensor([[0, 0, 0.4, 0], [0, 0, 0, 0]])
    found = imported(raw(content), "auto-circuit", tmp_path, ImportOptions(threshold=0.2 - 1e-6))
    to_heads = [f"input->a0.h1<{p}>" for p in "qkv"] + [f"a0.h1->a1.h0<{p}>" for p in "qkv"]
    assert found.edges.edges == edges(*to_heads, "a1.h0->m1", "m1->logits")
    assert losses_of(found, "inputs") == [
        "the file does not tell q, k and v apart: an edge to a head is one to all three"
    ]


def test_parallel_and_attention_only_models_are_told_by_their_shapes(tmp_path: Path) -> None:
    parallel = scores(blocks__0__hook_mlp_in=torch.zeros(1), blocks__1__hook_mlp_in=torch.zeros(4))
    found = imported(raw(parallel), "auto-circuit", tmp_path, ImportOptions(threshold=0.2 - 1e-6, keep_dangling=True))
    assert found.edges.size == Size(2, 2, 2, parallel=True)
    assert found.edges.edges == edges("input->a0.h1<v>", "a0.h1->a1.h0<k>", "m1->logits")
    attention = {f"blocks.{i}.hook_{p}_input": torch.zeros(2, 1 + 2 * i) for p in "qkv" for i in range(2)}
    attention["blocks.1.hook_resid_post"] = torch.tensor([1.0, 0, 0, 0, 0])
    found = imported(raw(attention), "auto-circuit", tmp_path)
    assert found.edges.size == Size(2, 2, 2, has_mlps=False)
    assert found.edges.edges == edges("input->logits")


def test_one_of_several_runs_is_named(tmp_path: Path) -> None:
    none = {name: torch.zeros_like(values) for name, values in scores().items()}
    content = raw({"ioi": {"eap": scores(), "random": none}})
    with pytest.raises(CircuitspecError) as error:
        imported(content, "auto-circuit", tmp_path, ImportOptions(top=4))
    assert findings(error)[0].code == "CS385"
    assert "'ioi/eap', 'ioi/random'" in findings(error)[0].hint
    with pytest.raises(CircuitspecError, match="has no run 'ioi'"):
        imported(content, "auto-circuit", tmp_path, ImportOptions(top=4, entry="ioi"))
    assert imported(content, "auto-circuit", tmp_path, ImportOptions(top=4, entry="ioi/eap")).edges.edges == WAY
    with pytest.raises(CircuitspecError, match="holds one run without a name: there is no run 'ioi'") as error:
        imported(raw(scores()), "auto-circuit", tmp_path, ImportOptions(top=4, entry="ioi"))
    assert findings(error)[0].hint == "leave out --entry"
    assert imported(raw({"eap": scores()}), "auto-circuit", tmp_path, ImportOptions(top=4)).edges.edges == WAY


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "no prune scores"),
        ({}, "no prune scores"),
        ({"a": {"b": {"c": {"d": torch.zeros(1)}}}}, "no prune scores"),
        ({"blocks.0.hook_resid_post": "x"}, "no prune scores"),
        (scores(blocks__0__hook_resid_mid=torch.zeros(3)), "is no input of a head or MLP"),
        (scores(blocks__0__hook_resid_post=torch.zeros(4)), "no other layer's"),
        (scores(blocks__1__hook_resid_post=None), "the last layer's hook_resid_post must be there"),
        (scores(blocks__1__hook_resid_post=torch.zeros(6)), "no model has so many senders"),
        (scores(blocks__1__hook_resid_post=torch.tensor(1.0)), "no model has so many senders"),
        (scores(blocks__1__hook_q_input=torch.zeros(3, 4)), r"has the shape \[3, 4\]; \[2, 'senders'\] is expected"),
        (scores(blocks__1__hook_q_input=torch.zeros(2, 3)), "scores 3 senders; 4 write before it"),
    ],
)
def test_what_is_no_prune_scores(content: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError, match=said) as error:
        imported(raw(content), "auto-circuit", tmp_path, ImportOptions(top=1))
    assert findings(error)[0].code == "CS383"


def test_prompts_are_no_prune_scores(tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError) as error:
        imported(b'{"prompts": []}', "auto-circuit", tmp_path, suffix=".json")
    assert "--prompts" in findings(error)[0].hint


def test_what_is_written_has_the_formats_names_and_shapes() -> None:
    content, losses = auto_circuit.write(edge_list(SMALL, WAY), Path("scores.pt"))
    found = torch.load(io.BytesIO(content), weights_only=True)
    wanted = scores()
    assert {name: tuple(values.shape) for name, values in found.items()} == {
        n: tuple(v.shape) for n, v in wanted.items()
    }
    for name, values in wanted.items():
        assert torch.equal(found[name], (values != 0).float()), name
    assert [loss.kind for loss in losses] == ["scores"]


def test_senders_of_gpt2_are_in_the_order_of_the_forward_pass() -> None:
    circuit = edge_list(GPT2, edges("a9.h9->logits", "m3->a5.h2<q>"))
    found = torch.load(io.BytesIO(auto_circuit.write(circuit, Path("x.pt"))[0]), weights_only=True)
    assert found["blocks.11.hook_resid_post"].nonzero().tolist() == [[1 + 9 * 13 + 9]]
    assert found["blocks.5.hook_q_input"].nonzero().tolist() == [[2, 1 + 3 * 13 + 12]]
