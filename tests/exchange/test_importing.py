"""From a circuit file to a hypothesis: what it holds, what is said to be lost, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exchange import importing
from circuitspec.exchange.edge_lists import EdgeList, Size, connected
from circuitspec.exchange.exchange_formats import FormatName
from circuitspec.exchange.imported_text import Surroundings, hypothesis_text
from circuitspec.exchange.importing import ImportOptions
from circuitspec.exchange.placeholders import placeholders
from circuitspec.hypothesis_file.load_file import load_hypothesis, parse_hypothesis
from circuitspec.pipelines.check import check_file
from tests.exchange.support import SMALL, edges, findings, imported, losses_of
from tests.exchange.test_eap import BY_HAND, CFG, raw

PROMPTS = {
    "prompts": [
        {
            "clean": "When Mary and John",
            "corrupt": "When Leo and Paul",
            "answers": [" Mary"],
            "wrong_answers": [" John"],
        },
        {
            "clean": "When Anna and Ruth",
            "corrupt": "When Nora and Zoe",
            "answers": [" Anna"],
            "wrong_answers": [" Ruth"],
        },
    ],
    "word_idxs": {"IO": 1},
}
TINY = {  # zoo:ioi-tiny has 4 layers of 4 heads
    "cfg": {"n_layers": 4, "n_heads": 4, "parallel_attn_mlp": False, "d_model": 64},
    "nodes": {},
    "edges": {
        "input->a1.h3<k>": {"score": 1.0, "in_graph": True},
        "a1.h3->a3.h0<v>": {"score": 1.0, "in_graph": True},
        "a3.h0->logits": {"score": 1.0, "in_graph": True},
    },
}


def with_prompts(folder: Path, name: str = "prompts.json") -> Path:
    path = folder / name
    if name.endswith("json"):
        path.write_text(json.dumps(PROMPTS))
    return path


def test_with_model_and_prompts_the_hypothesis_passes_check(tmp_path: Path) -> None:
    options = ImportOptions(model="zoo:ioi-tiny", prompts=with_prompts(tmp_path))
    found = imported(raw(TINY), "eap", tmp_path, options)
    problems, summary = check_file(tmp_path / "imported.circuit.yaml")
    assert problems == ()
    assert "2 nodes in 1 group, 2 prompts, 1 claim" in summary
    document = load_hypothesis(tmp_path / "imported.circuit.yaml")
    hypothesis = document.hypothesis
    assert (hypothesis.model.id, hypothesis.task.file) == ("zoo:ioi-tiny", "prompts.json")
    assert (hypothesis.ablation.value, hypothesis.ablation.source) == ("resample", "corrupt")
    assert (hypothesis.ablation.level, hypothesis.ablation.positions) == ("edge", "all")
    assert hypothesis.circuit.paths == ("input -> a1.h3<k>", "a1.h3 -> a3.h0<v>", "a3.h0 -> logits")
    assert hypothesis.circuit.free == ()
    assert hypothesis.claims[0].metric == "logit_diff"
    assert placeholders(document) == ()
    assert not losses_of(found, "model")
    assert not losses_of(found, "prompts")


def test_without_them_placeholders_stand_and_are_explained(tmp_path: Path) -> None:
    imported(raw(TINY), "eap", tmp_path)
    document = load_hypothesis(tmp_path / "imported.circuit.yaml")  # valid all the same
    found = placeholders(document)
    assert [(d.code, d.severity, d.data["key"]) for d in found] == [
        ("CS387", "warning", "model.id"),
        ("CS387", "warning", "task.file"),
    ]
    lines = (tmp_path / "imported.circuit.yaml").read_text().splitlines()
    for diagnostic, name in zip(
        found, ("placeholder/name-the-model", "PLACEHOLDER-name-the-prompts.jsonl"), strict=True
    ):
        assert diagnostic.span is not None
        line = lines[diagnostic.span.line - 1]
        assert line[diagnostic.span.column - 1 :] == name
    assert sum("# PLACEHOLDER: " in line for line in lines) == 2


def test_every_loss_stands_at_the_top_of_the_file(tmp_path: Path) -> None:
    found = imported(raw(BY_HAND), "eap", tmp_path)
    comments = " ".join(line.strip("# ") for line in found.text.split("circuitspec:")[0].splitlines())
    for loss in found.losses:
        assert loss.message in " ".join(comments.split())
    assert found.text.startswith(
        "# Imported from circuit.json (EAP-IG graph): 4 of the 46 edges of 2 layers of 2 heads"
    )
    assert max(map(len, found.text.splitlines())) <= 118


@pytest.mark.parametrize(
    ("line", "metric", "ablation"),
    [
        (
            {"clean": "Then, Mary", "corrupt": "Then, John", "answers": [" Paul"], "wrong": [" Anna"]},
            "logit_diff",
            "resample, from: corrupt",
        ),
        (
            {"clean": "Then, Mary", "corrupt": {"abc": "Then, John", "flip": "Then, Anna"}, "answers": [" Paul"]},
            "logprob",
            "resample, from: abc",
        ),
        ({"clean": "Then, Mary"}, "kl", "zero"),
    ],
)
def test_claim_and_ablation_are_such_as_the_prompts_allow(
    line: dict[str, object], metric: str, ablation: str, tmp_path: Path
) -> None:
    prompts = tmp_path / "data" / "p.jsonl"
    prompts.parent.mkdir()
    prompts.write_text(json.dumps(line) + "\n")
    found = imported(raw(TINY), "eap", tmp_path, ImportOptions(model="zoo:ioi-tiny", prompts=prompts))
    assert f"sufficient: {{metric: {metric}, at_least: 0.8}}" in found.text
    assert f"ablation: {{value: {ablation}, level: edge" in found.text
    assert "file: data/p.jsonl" in found.text
    assert check_file(tmp_path / "imported.circuit.yaml")[0] == ()


def test_prompts_that_are_wrong_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError, match="does not exist"):
        imported(raw(TINY), "eap", tmp_path, ImportOptions(prompts=tmp_path / "none.jsonl"))


def test_a_circuit_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError) as error:
        imported(raw(BY_HAND), "eap", tmp_path, ImportOptions(model="zoo:ioi-tiny"))
    assert findings(error)[0].code == "CS386"
    assert "it has 2 layers of 2 heads, 8 channels, and the model named has 4 layers of 4 heads" in str(error.value)
    wider = {**TINY, "cfg": {**CFG, "n_layers": 4, "n_heads": 4, "d_model": 512}}
    with pytest.raises(CircuitspecError, match="512 channels"):
        imported(raw(wider), "eap", tmp_path, ImportOptions(model="zoo:ioi-tiny"))
    with pytest.raises(CircuitspecError) as error:
        imported(raw(BY_HAND), "eap", tmp_path, ImportOptions(model="zoo:nothing"))
    assert findings(error)[0].code == "CS302"


def llama(folder: Path, **changes: int) -> str:
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 16}
    config = {"model_type": "llama", "intermediate_size": 32, "vocab_size": 100, **sizes, **changes}
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps(config))
    return "./model"


def test_keys_and_values_that_heads_share_are_joined(tmp_path: Path) -> None:
    content = {
        "cfg": {"n_layers": 2, "n_heads": 4, "parallel_attn_mlp": False, "d_model": 16},
        "nodes": {},
        "edges": {
            name: {"score": 1.0, "in_graph": True}
            for name in (
                "input->a0.h0<k>",
                "input->a0.h1<k>",
                "input->a0.h2<v>",
                "a0.h0->logits",
                "a0.h2->logits",
                "a0.h1->m0",
            )
        },
    }
    found = imported(raw(content), "eap", tmp_path, ImportOptions(model=llama(tmp_path), keep_dangling=True))
    assert found.edges.size == Size(2, 4, 2, 16)
    assert losses_of(found, "sharing") == [
        "heads share keys and values: 1 edge of heads added that another of the group has"
    ]
    assert "    - input -> a0.kv0<k>, a0.kv1<v>\n" in found.text


def test_a_model_of_too_many_edges_is_told(tmp_path: Path) -> None:
    model = llama(tmp_path, num_hidden_layers=200, num_attention_heads=128, num_key_value_heads=128, hidden_size=1280)
    with pytest.raises(CircuitspecError, match="200 layers of 128 heads, 1280 channels has too many edges") as error:
        imported(raw(BY_HAND), "eap", tmp_path, ImportOptions(model=model))
    assert findings(error)[0].code == "CS386"


def test_nothing_left_and_nothing_to_cut_off_at(tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError, match=r"no edge of .* is left"):
        imported(raw(BY_HAND), "eap", tmp_path, ImportOptions(threshold=100))
    unmarked = {**BY_HAND, "edges": {"input->logits": {"score": 0.3, "in_graph": False}}}
    with pytest.raises(CircuitspecError, match="counts no edge in") as error:
        imported(raw(unmarked), "eap", tmp_path)
    assert "--top" in findings(error)[0].hint
    with pytest.raises(CircuitspecError, match="none of the 1 edge of") as error:
        imported(raw(BY_HAND), "eap", tmp_path, ImportOptions(top=1))
    assert "--keep-dangling" in findings(error)[0].hint
    with pytest.raises(CircuitspecError, match="has no scores to cut off at") as error:
        imported(b'[["tok_embeds", "resid_post"]]', "edge-pruning", tmp_path, ImportOptions(top=1))
    assert findings(error)[0].code == "CS385"


@pytest.mark.parametrize(("name", "content"), [("edge-pruning", b"[]"), ("interpbench", pickle.dumps([]))])
def test_where_there_are_no_scores_no_cut_is_recommended(name: FormatName, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError, match="counts no edge in") as error:
        imported(content, name, tmp_path)
    assert findings(error)[0].code == "CS385"
    assert "--" not in findings(error)[0].hint


@pytest.mark.parametrize("name", ["eap", "mib", "acdc", "interpbench", "edge-pruning"])
def test_an_entry_of_a_file_without_entries_is_refused(name: FormatName, tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError, match=r"holds one circuit, .*: there is no entry 'ioi/eap'") as error:
        imported(raw(TINY), name, tmp_path, ImportOptions(entry="ioi/eap"))
    (found,) = findings(error)
    assert (found.code, found.hint) == ("CS385", "leave out --entry")


def test_what_would_be_too_long_for_a_hypothesis_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "MAX_BYTES", 1_000)
    with pytest.raises(CircuitspecError) as error:
        imported(raw(BY_HAND), "eap", tmp_path)
    assert findings(error)[0].code == "CS388"


def test_a_circuit_of_the_embeddings_alone(tmp_path: Path) -> None:
    content = {"cfg": CFG, "nodes": {}, "edges": {"input->logits": {"score": 1, "in_graph": True}}}
    assert imported(raw(content), "eap", tmp_path).edges.edges == edges("input->logits")
    assert load_hypothesis(tmp_path / "imported.circuit.yaml").hypothesis.circuit.groups["embeddings"].nodes == (
        "input",
    )


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "9.10",
        "true",
        "a: b",
        "# no",
        "quote\"'s",
        "tab\tand\nline",
        "\x85\u2028",
        "emoji \U0001f600",
        "half \udcff",
        "{x}",
        "",
    ],
)
def test_names_of_files_and_models_stay_text(name: str) -> None:
    circuit = connected(EdgeList(SMALL, SMALL.possible))
    text = hypothesis_text(circuit, Surroundings(name or "x", f"{name} (x)", name or None, name or None), ())
    found = parse_hypothesis(text).hypothesis
    clean = name.replace("\udcff", "\ufffd")
    assert found.name == (clean or "x")
    assert found.source == f"{clean} (x)"
    assert found.model.id == (clean or "placeholder/name-the-model")


def test_a_dense_circuit_without_a_pattern_loads_fast_enough(tmp_path: Path) -> None:
    """Half of GPT-2 small's edges at random: no pattern to be found, and still a file of 100 KB."""
    size = Size(12, 12, 12, 768)
    kept = connected(EdgeList(size, size.possible & (np.random.default_rng(0).random(size.possible.shape) < 0.5)))
    text = hypothesis_text(kept, Surroundings("x", "x", None, None), ())
    assert len(text) < 100_000
    assert len(parse_hypothesis(text).hypothesis.circuit.paths) < 445
