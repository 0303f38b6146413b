"""ACDC's edges against examples written by hand: pickles of a class that is not installed, dictionaries of keys."""

from __future__ import annotations

import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exchange.edge_lists import EdgeList, Size, edge_list
from circuitspec.exchange.importing import ImportOptions
from circuitspec.exchange.readers import acdc
from tests.exchange.support import GPT2, SMALL, edges, exported, findings, imported, losses_of

ALL, END = [None], "blocks.1.hook_resid_post"
START = "blocks.0.hook_resid_pre"
WAY = edges("input->a0.h1<v>", "a0.h1->a1.h0<k>", "a1.h0->m1", "m1->logits")


def head(number: int) -> list[int | None]:
    return [None, None, number]


# receiver first
KEYS: list[tuple[str, list[Any], str, list[Any]]] = [
    ("blocks.0.hook_v_input", head(1), START, ALL),
    ("blocks.1.hook_k_input", head(0), "blocks.0.attn.hook_result", head(1)),
    ("blocks.1.hook_mlp_in", ALL, "blocks.1.attn.hook_result", head(0)),
    (END, ALL, "blocks.1.hook_mlp_out", ALL),
]
DIRECT: list[tuple[str, list[Any], str, list[Any]]] = [
    ("blocks.0.attn.hook_v", head(1), "blocks.0.hook_v_input", head(1)),
    ("blocks.1.attn.hook_k", head(0), "blocks.1.hook_k_input", head(0)),
]


@pytest.fixture
def torch_index() -> Iterator[type]:
    """A class like ACDC's, under its name, for as long as a file is written."""

    class TorchIndex:
        def __init__(self, things: list[Any]) -> None:
            self.as_index = tuple(slice(None) if thing is None else thing for thing in things)
            self.hashable_tuple = tuple(things)

    TorchIndex.__module__, TorchIndex.__qualname__ = "acdc.TLACDCEdge", "TorchIndex"
    package, module = ModuleType("acdc"), ModuleType("acdc.TLACDCEdge")
    module.TorchIndex = TorchIndex  # type: ignore[attr-defined]
    sys.modules |= {"acdc": package, "acdc.TLACDCEdge": module}
    yield TorchIndex
    sys.modules.pop("acdc", None)
    sys.modules.pop("acdc.TLACDCEdge", None)


def pickled(keys: list[Any], index: type, effect: object = 0.25) -> bytes:
    """What `save_edges` writes; the class is gone afterwards."""
    content = [((child, index(where), parent, index(whence)), effect) for child, where, parent, whence in keys]
    written = pickle.dumps(content)
    del sys.modules["acdc"], sys.modules["acdc.TLACDCEdge"]
    return written


def saved(keys: dict[Any, bool]) -> bytes:
    buffer = io.BytesIO()
    torch.save(OrderedDict(keys), buffer)
    return buffer.getvalue()


def flat(keys: list[Any], present: bool = True) -> dict[Any, bool]:
    return {(child, tuple(where), parent, tuple(whence)): present for child, where, parent, whence in keys}


def test_a_pickled_list_of_edges(torch_index: type, tmp_path: Path) -> None:
    content = pickled(KEYS + DIRECT, torch_index)
    found = imported(content, "acdc", tmp_path, suffix=".pkl")
    assert "acdc" not in sys.modules
    assert found.edges.edges == WAY
    assert found.edges.size == Size(2, 2, 2, inferred=True)
    assert losses_of(found, "size")
    assert losses_of(found, "computation") == [
        "2 edges within heads and MLPs (hook_q_input -> hook_q and others) left out"
    ]
    assert losses_of(found, "scores")
    assert imported(content, "acdc", tmp_path, ImportOptions(threshold=0.2), ".pkl").edges.edges == WAY
    known = imported(content, "acdc", tmp_path, ImportOptions(size=Size(2, 3, 3)), ".pkl")
    assert known.edges.size == Size(2, 3, 3)
    assert known.edges.edges == WAY
    assert not losses_of(known, "size")


def test_edges_without_an_effect_are_left_out_of_a_cut_and_told(tmp_path: Path) -> None:
    extra = [("blocks.1.hook_q_input", head(1), START, ALL), ("blocks.1.hook_q_input", head(0), START, ALL)]
    effects = [0.25] * len(KEYS) + [None, float("nan")]
    content = [(key, effect) for key, effect in zip(flat(KEYS + extra), effects, strict=True)]
    for options in (ImportOptions(threshold=0.2), ImportOptions(top=4)):
        found = imported(pickle.dumps(content), "acdc", tmp_path, options, ".pkl")
        assert found.edges.edges == WAY
        assert losses_of(found, "missing") == ["2 edges without a score left out"]


def test_an_older_module_and_edges_without_effects(torch_index: type, tmp_path: Path) -> None:
    content = pickled(KEYS, torch_index, None).replace(b"acdc.TLACDCEdge", b"acdc.acdc_utils")
    found = imported(content, "acdc", tmp_path, suffix=".pkl")
    assert found.edges.edges == WAY
    assert found.edges.scores is None


def test_a_head_whose_own_computation_is_cut_is_cut(tmp_path: Path) -> None:
    content = saved(flat(KEYS) | flat(DIRECT[:1]) | flat(DIRECT[1:], present=False))
    found = imported(content, "acdc", tmp_path, ImportOptions(keep_dangling=True))
    assert found.edges.edges == WAY - edges("a0.h1->a1.h0<k>")
    assert "1 edge to inputs that are cut there" in losses_of(found, "computation")[0]
    with pytest.raises(CircuitspecError, match="on a way from the input to the logits"):
        imported(content, "acdc", tmp_path)


def test_edges_that_are_absent_are_no_edges(tmp_path: Path) -> None:
    absent = flat([(END, ALL, START, ALL), ("blocks.1.hook_q_input", head(1), START, ALL)], present=False)
    found = imported(saved(flat(KEYS) | absent), "acdc", tmp_path)
    assert found.edges.edges == WAY


def test_embeddings_apart_and_the_older_name_of_an_mlps_input(tmp_path: Path) -> None:
    keys = [(c.replace("hook_mlp_in", "hook_resid_mid"), i, p.replace(START, "hook_embed"), j) for c, i, p, j in KEYS]
    keys += [(END, ALL, "hook_embed", ALL), (END, ALL, "hook_pos_embed", ALL)]
    found = imported(saved(flat(keys)), "acdc", tmp_path)
    assert found.edges.edges == WAY | edges("input->logits")
    assert losses_of(found, "embeddings") == [
        "token and position embeddings are one sender, `input`; 1 edge of one of them alone now carries both"
    ]


def test_the_dictionary_of_gpt2_has_the_keys_that_acdc_counts() -> None:
    """32,491 edges, and 432 into the computation of queries, keys and values, are the 32,923 that ACDC counts."""
    content, _ = acdc.write(EdgeList(GPT2, GPT2.possible), Path("x.pth"))
    keys = list(torch.load(io.BytesIO(content), weights_only=True))
    outer = ("hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in", "hook_resid_post")
    direct = ("attn.hook_q", "attn.hook_k", "attn.hook_v")
    assert sum(key[0].endswith(outer) for key in keys) == 32_491
    assert sum(key[0].endswith((*outer, *direct)) for key in keys) == 32_923
    assert len(keys) == 32_923 + 432 + 12
    assert ("blocks.0.hook_q_input", (None, None, 3), START, (None,)) in keys
    assert ("blocks.9.attn.hook_q", (None, None, 6), "blocks.9.hook_q_input", (None, None, 6)) in keys
    assert ("blocks.9.attn.hook_result", (None, None, 6), "blocks.9.attn.hook_q", (None, None, 6)) in keys
    assert ("blocks.2.hook_mlp_out", (None,), "blocks.2.hook_mlp_in", (None,)) in keys


def test_a_whole_dictionary_tells_the_models_size(tmp_path: Path) -> None:
    circuit = edge_list(SMALL, edges("input->logits"))
    found = imported(acdc.write(circuit, Path("x.pth"))[0], "acdc", tmp_path)
    assert found.edges.size == Size(2, 2, 2)
    assert not losses_of(found, "size")


def test_parallel_blocks_are_written_as_acdc_takes_them(tmp_path: Path) -> None:
    size = Size(1, 1, 1, parallel=True)
    content, losses = acdc.write(edge_list(size, edges("input->a0.h0<q>", "a0.h0->logits")), Path("x.pth"))
    found = torch.load(io.BytesIO(content), weights_only=True)
    assert found["blocks.0.hook_mlp_in", (None,), "blocks.0.attn.hook_result", (None, None, 0)] is False
    assert sum("MLP of their block" in loss.message for loss in losses) == 1
    back = imported(content, "acdc", tmp_path, ImportOptions(size=size))
    assert back.edges.edges == edges("input->a0.h0<q>", "a0.h0->logits")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text", "no list or dictionary"),
        ([1], "1: None is no edge"),
        ([((END, (None,), START, (None,)), "much")], "is no edge"),
        ([((END, (None,), START), 1.0)], "is no edge"),
        ([((END, 3, START, (None,)), 1.0)], "is no edge"),
        ([((END, (None,), "blocks.0.hook_mlp_out", (None, None, 1)), 1.0)], "joins no places that are known"),
        ([((END, (None,), "blocks.0.attn.hook_result", (None,)), 1.0)], "joins no places that are known"),
        ([((END, (None,), "blocks.0.attn.hook_result", (None, 1, None)), 1.0)], "joins no places that are known"),
        ([((END, (None,), "blocks.0.attn.hook_result", (None, None, -1)), 1.0)], "joins no places that are known"),
        ([((END, (None,), "ln_final", (None,)), 1.0)], "joins no places that are known"),
        ([((END, (None,), START, (None,)), 1), (("blocks.0.hook_resid_post", (None,), START, (None,)), 1)], "several"),
        ([(("blocks.0.hook_mlp_in", (None,), "blocks.1.hook_mlp_out", (None,)), 1)], "has no such edge"),
        ([((END, (None,), "blocks.0.attn.hook_result", (None, None, 10**5000)), 1.0)], "too long to print"),
        ([((END, (None,), "blocks.0.attn.hook_result", (None, None, 4000)), 1.0)], "number of heads is given as 4001"),
    ],
)
def test_what_is_no_edge_of_acdc(content: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError, match=said) as error:
        imported(pickle.dumps(content), "acdc", tmp_path, suffix=".pkl")
    assert findings(error)[0].code == "CS383"


def test_a_round_trip_keeps_what_was_imported(torch_index: type, tmp_path: Path) -> None:
    found = imported(pickled(KEYS, torch_index), "acdc", tmp_path, suffix=".pkl")
    again = exported("acdc", tmp_path, SMALL)
    assert imported(again.content, "acdc", tmp_path).edges.edges == found.edges.edges == again.edges.edges
