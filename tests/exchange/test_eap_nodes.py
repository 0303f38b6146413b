"""EAP-IG's and MIB's files of nodes and of channels, by hand; and such a circuit against its edges, one by one."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import circuitspec
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exchange.importing import Imported, ImportOptions
from circuitspec.hypothesis_file.grammar.components import Head, Mlp
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.load import load_model
from circuitspec.pipelines.check import check_file
from tests.exchange.support import findings, imported, losses_of
from tests.exchange.test_commands import run
from tests.exchange.test_eap import CFG, raw, tensors
from tests.oracle import edge, families, node

NAMES = ["input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1"]
NAN = float("nan")


def scored(*scores: float, **changes: object) -> bytes:
    """A .pt file as `run_attribution --level node` writes it: no edge scored or marked, no node marked."""
    return tensors(
        edges_scores=torch.zeros(7, 15),
        edges_in_graph=torch.zeros(7, 15, dtype=torch.bool),
        nodes_in_graph=torch.zeros(7, dtype=torch.bool),
        nodes_scores=torch.tensor(scores) if scores else None,
        **changes,
    )


def by_json(nodes: dict[str, object], edges: dict[str, object] | None = None) -> bytes:
    return raw({"cfg": CFG, "nodes": nodes, "edges": edges or {}})


def nodes_of(found: Imported) -> frozenset[Head | Mlp]:
    return found.circuit.nodes


def test_the_strongest_nodes_of_a_file_that_scores_nodes(tmp_path: Path) -> None:
    content = scored(0.9, 0.0, -0.5, 0.3, 0.0, 0.2, 0.1)
    found = imported(content, "mib", tmp_path, ImportOptions(top=4), ".pt")
    assert nodes_of(found) == {Head(0, 1), Mlp(0), Head(1, 1)}  # and the input
    assert losses_of(found, "signs") == ["1 node with a negative score kept like the others"]
    assert losses_of(found, "edges") == []
    hypothesis = load_hypothesis(tmp_path / "imported.circuit.yaml").hypothesis
    assert (hypothesis.ablation.level, hypothesis.ablation.positions) == ("node", "all")
    assert {name: group.nodes for name, group in hypothesis.circuit.groups.items()} == {
        "heads": ("a*.h1",),
        "mlps": ("m0",),
    }
    assert hypothesis.circuit.paths == ()
    assert "# Imported from circuit.pt (MIB circuit): 3 of the 6 heads and MLPs of 2 layers of 2 heads" in found.text
    by_threshold = imported(content, "mib", tmp_path, ImportOptions(threshold=0.25), ".pt")
    assert nodes_of(by_threshold) == {Head(0, 1), Mlp(0)}
    with_sign = imported(content, "mib", tmp_path, ImportOptions(top=4, signed=True), ".pt")
    assert nodes_of(with_sign) == {Mlp(0), Head(1, 1), Mlp(1)}
    with pytest.raises(CircuitspecError, match="scores nodes, and does not say which") as error:
        imported(content, "mib", tmp_path, suffix=".pt")
    assert findings(error)[0].code == "CS385"


def test_of_nodes_too_none_of_score_zero_is_taken(tmp_path: Path) -> None:
    found = imported(scored(0.9, 0.0, -0.5, 0.3, 0.0, 0.0, 0.0), "eap", tmp_path, ImportOptions(top=6), ".pt")
    assert nodes_of(found) == {Head(0, 1), Mlp(0)}
    assert "3 of 7 nodes have a score other than zero: taken are these, not 6" in losses_of(found, "scores")


def test_what_is_not_scored_is_kept_as_eap_ig_keeps_it(tmp_path: Path) -> None:
    found = imported(scored(NAN, 0.1, 0.5, NAN, 0.2, 0.0, 0.0), "eap", tmp_path, ImportOptions(top=1), ".pt")
    assert nodes_of(found) == {Head(0, 1), Mlp(0)}
    assert losses_of(found, "missing") == ["2 nodes without a score kept, as EAP-IG keeps what it did not score"]


def test_nodes_that_are_counted_in(tmp_path: Path) -> None:
    kept = ("input", "a0.h1", "m1", "logits")
    marked: dict[str, object] = {name: {"in_graph": name in kept} for name in (*NAMES, "logits")}
    found = imported(by_json(marked), "mib", tmp_path)
    assert nodes_of(found) == {Head(0, 1), Mlp(1)}
    # all edges between them, as EAP-IG marks them when it takes nodes: nothing is said beyond the nodes
    closed = ["input->a0.h1<q>", "input->a0.h1<k>", "input->a0.h1<v>", "input->m1", "a0.h1->m1"]
    closed += ["input->logits", "a0.h1->logits", "m1->logits"]
    edges: dict[str, object] = {name: {"score": 0.0, "in_graph": True} for name in closed}
    scored_too: dict[str, object] = {
        name: {"in_graph": name in kept, **({} if name == "logits" else {"score": 0.5})} for name in (*NAMES, "logits")
    }
    again = imported(by_json(scored_too, edges), "mib", tmp_path)
    assert nodes_of(again) == {Head(0, 1), Mlp(1)}
    assert not losses_of(again, "edges")
    del edges["a0.h1->m1"]  # now the edges say more
    assert len(imported(by_json(scored_too, edges), "mib", tmp_path).edges) == 7
    asked = imported(by_json(scored_too, edges), "mib", tmp_path, ImportOptions(level="node"))
    assert losses_of(asked, "edges") == [
        "which of the nodes are joined is not kept: each reads all that come before it"
    ]


def test_a_circuit_without_the_input_is_the_corrupted_run(tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError, match="leaves out the input") as error:
        imported(scored(0.15, 0.1, -0.5, 0.3, 0.0, 0.2, 0.1), "eap", tmp_path, ImportOptions(top=3), ".pt")
    (found,) = findings(error)
    assert (found.code, found.hint) == ("CS391", "raise --top: by its score the input is number 4")
    with pytest.raises(CircuitspecError, match="leaves out the input"):
        imported(by_json({"input": False, "m0": True}), "eap", tmp_path)


def test_nodes_that_do_not_leave_a_circuit(tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError, match=r"no head or MLP of .* is left"):
        imported(scored(1.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1), "eap", tmp_path, ImportOptions(top=1), ".pt")
    with pytest.raises(CircuitspecError, match="counts no node in"):
        imported(by_json({}), "eap", tmp_path, ImportOptions(level="node"))
    with pytest.raises(CircuitspecError, match="no scores of nodes"):
        imported(by_json({"input": True, "m0": True}), "eap", tmp_path, ImportOptions(top=1))
    some: dict[str, object] = {name: {"in_graph": False, "score": 1.0} for name in ("input", "m0")}
    with pytest.raises(CircuitspecError, match="does not name 5 nodes of the model") as error:
        imported(by_json(some), "eap", tmp_path, ImportOptions(top=2))
    assert findings(error)[0].code == "CS385"
    with pytest.raises(CircuitspecError, match="holds edges alone"):
        imported(b'[["tok_embeds", "resid_post"]]', "edge-pruning", tmp_path, ImportOptions(level="node"))
    with pytest.raises(CircuitspecError, match=r"every edge of .* has the score 0") as error:
        imported(scored(1.0, *[0.5] * 6), "eap", tmp_path, ImportOptions(top=3, level="edge"), ".pt")
    assert "--level node" in findings(error)[0].hint


# ------------------------------------------------------------------------------------------------------- channels


def channel_scores(**rows: list[float]) -> torch.Tensor:
    """[7 nodes, 8 channels]: zero where nothing is said."""
    scores = torch.zeros(7, 8)
    for name, row in rows.items():
        scores[NAMES.index(name.replace("_", "."))] = torch.tensor(row)
    return scores


def test_single_channels_are_refused_for_the_right_reason(tmp_path: Path) -> None:
    """EAP-IG's neurons are entries of what a node writes to the residual stream, not hidden units of an MLP."""
    content = scored(neurons_scores=channel_scores(input=[1.0] * 8, m0=[0.9] * 3 + [0.0] * 5, a1_h1=[0.8] + [0.0] * 7))
    with pytest.raises(CircuitspecError) as error:
        imported(content, "mib", tmp_path, ImportOptions(top=12, keep_dangling=True), ".pt")
    (found,) = findings(error)
    assert found.code == "CS390"
    assert "keeps 3 of the 8 channels of what m0 writes to the residual stream, and of 1 further node" in found.message
    assert "--whole-nodes" in found.hint
    whole = imported(content, "mib", tmp_path, ImportOptions(top=12, whole_nodes=True), ".pt")
    assert nodes_of(whole) == {Mlp(0), Head(1, 1)}
    assert losses_of(whole, "neurons") == ["2 nodes kept whole, of which the file keeps 4 of 16 channels"]


def test_channels_that_are_all_of_their_nodes_are_those_nodes(tmp_path: Path) -> None:
    kept = torch.zeros(7, 8, dtype=torch.bool)
    kept[[0, 2, 6]] = True
    found = imported(scored(neurons_in_graph=kept, neurons_scores=kept.float()), "mib", tmp_path, suffix=".pt")
    assert nodes_of(found) == {Head(0, 1), Mlp(1)}
    assert not losses_of(found, "neurons")
    with pytest.raises(CircuitspecError, match="scores channels, and does not say which"):
        imported(scored(neurons_scores=channel_scores(input=[1.0] * 8)), "mib", tmp_path, suffix=".pt")


def test_channels_in_json_as_eap_ig_writes_them_and_as_its_docstring_says(tmp_path: Path) -> None:
    """For a head EAP-IG writes the lists of all heads of its layer."""
    every, none = [True] * 8, [False] * 8
    flags = {"input": every, "a0.h0": none, "a0.h1": every, "m0": none, "a1.h0": none, "a1.h1": none, "m1": every}
    layers = {"a0": [none, every], "a1": [none, none]}
    for neurons in (flags, {name: layers.get(name[:2], flag) for name, flag in flags.items()}):
        content: dict[str, object] = {n: {"in_graph": True, "neurons": neurons[n]} for n in NAMES}
        assert nodes_of(imported(by_json(content), "eap", tmp_path)) == {Head(0, 1), Mlp(1)}


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ({"m0": {"in_graph": True, "neurons": [True] * 8}}, "nodes without `neurons`, beside others that have them: 6"),
        ({n: {"in_graph": True, "neurons": [True] * 3} for n in NAMES}, "`neurons` is no list of 8 values"),
        ({"m0": {"in_graph": True, "neurons_scores": ["x"] * 8}}, "`neurons_scores` is no list of 8 values"),
        ({"m0": {"in_graph": True, "score": "x"}}, "no object of a number `score`"),
        ({"m0": {"in_graph": 1}}, "no object of a number `score`"),
        ({"m7": True}, "node 'm7': a model of 2 layers of 2 heads, 8 channels has no such node"),
    ],
)
def test_nodes_that_are_not_as_the_format_says(nodes: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError, match=said) as error:
        imported(by_json(nodes), "eap", tmp_path)
    assert findings(error)[0].code == "CS383"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nodes_in_graph", torch.zeros(3)),
        ("nodes_scores", torch.zeros(7, 2)),
        ("neurons_in_graph", torch.zeros(7, 3)),
        ("neurons_scores", torch.zeros(7)),
        ("neurons_scores", "yes"),
    ],
)
def test_tensors_of_nodes_of_another_size_are_refused(name: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError, match=f"`{name}` is no tensor of 7 nodes") as error:
        imported(tensors(**{name: value}), "eap", tmp_path, suffix=".pt")
    assert findings(error)[0].code == "CS383"


def test_edges_of_nodes_with_some_channels_are_refused_too(tmp_path: Path) -> None:
    some = torch.ones(7, 8, dtype=torch.bool)
    some[6, 2] = False  # m1, which writes to the logits
    some[2] = False  # a0.h1 keeps none: EAP-IG ablates all that it writes
    content = tensors(neurons_in_graph=some)
    with pytest.raises(CircuitspecError) as error:
        imported(content, "eap", tmp_path, ImportOptions(keep_dangling=True), ".pt")
    assert findings(error)[0].code == "CS390"
    whole = imported(content, "eap", tmp_path, ImportOptions(whole_nodes=True, keep_dangling=True), ".pt")
    assert losses_of(whole, "neurons") == [
        "1 edge of nodes that keep no channel left out",
        "1 node kept whole, of which the file keeps 7 of 8 channels",
    ]
    assert len(whole.edges) == 3
    cut = imported(content, "eap", tmp_path, ImportOptions(top=4), ".pt")
    assert losses_of(cut, "neurons") == ["which channels the file keeps of a node does not hold for this cut"]


# ------------------------------------------------------------------------------------------------------- what it means


ROWS = [
    ("Then, {} and {} went to the store. {} gave a ring to", "Mary", "John", "Paul"),
    ("Then, {} and {} went to the park. {} gave a ball to", "Anna", "Peter", "Laura"),
    ("Then, {} and {} went to the school. {} gave a book to", "David", "Emma", "Mary"),
]


def test_such_a_circuit_recovers_what_its_edges_do(tmp_path: Path) -> None:
    """EAP-IG evaluates nodes by their edges: every receiver reads the other senders as in the corrupted run."""
    lines: list[dict[str, Any]] = [
        {
            "clean": text.format(a, b, b),
            "corrupt": text.format(a, b, c),
            "answers": [f" {a}"],
            "wrong": [f" {b}"],
        }
        for text, a, b, c in ROWS
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    kept = ["input", "a0.h1", "a1.h3", "a2.h0", "a2.h2", "m1", "a3.h0", "a3.h2", "m3", "logits"]
    every = ["input", *(n for i in range(4) for n in (*(f"a{i}.h{h}" for h in range(4)), f"m{i}")), "logits"]
    content = {
        "cfg": {"n_layers": 4, "n_heads": 4, "parallel_attn_mlp": False, "d_model": 64},
        "nodes": {name: {"in_graph": name in kept} for name in every},
        "edges": {},
    }
    options = ImportOptions(model="zoo:ioi-tiny", prompts=tmp_path / "p.jsonl")
    found = imported(raw(content), "mib", tmp_path, options)
    assert len(found.circuit) == 8
    file = tmp_path / "imported.circuit.yaml"
    assert check_file(file)[0] == ()
    result = circuitspec.verify(file, negatives="off")

    loaded = load_model(ModelSpec(id="zoo:ioi-tiny"), tmp_path)
    net = families.read(loaded.model)

    def ids(text: str) -> list[int]:
        found: list[int] = loaded.tokenizer(text)["input_ids"]
        return found

    def sender(name: str) -> node.Component:
        if name == "input":
            return ("input",)
        return ("mlp", int(name[1:])) if name[0] == "m" else ("head", int(name[1]), int(name[4]))

    prompts = [
        node.Prompt(ids(o["clean"]), ids(o["corrupt"]), 0, ids(o["answers"][0]), ids(o["wrong"][0]), {}) for o in lines
    ]
    assert all(len(p.answers) == 1 for p in prompts)
    senders = {sender(name) for name in kept if name != "logits"}
    owners = {("q", "k", "v"): "head", ("mlp_in",): "mlp"}

    def is_kept(receiver: node.Receiver) -> bool:
        if receiver == ("final",):
            return True
        kind = next(kind for ports, kind in owners.items() if receiver[0] in ports)
        return (kind, *receiver[1:]) in senders

    circuit = {e: None for e in edge.edges(net) if e[0] in senders and is_kept(e[1])}
    by_edges = edge.edge_experiment(net, prompts, circuit)
    (claim,) = result.claims
    assert claim.estimate is not None
    assert not np.isclose(claim.estimate.value, [0, 1], atol=0.02).any()  # neither nothing nor everything
    np.testing.assert_allclose(claim.estimate.value, by_edges.recovered["logit_diff"], rtol=2e-4)


def test_the_commands_options(tmp_path: Path) -> None:
    file, out = tmp_path / "importances.pt", tmp_path / "x.circuit.yaml"
    file.write_bytes(scored(0.9, 0.1, -0.5, 0.3, 0.0, 0.2, 0.1))
    ran = run("import", file, "--as", "mib", "--top", 3, "-o", out)
    assert (ran.exit_code, ran.stdout) == (0, f"wrote {out} (2 nodes); next: circuitspec check {out}\n")
    assert run("check", out).exit_code == 0
    assert run("import", file, "--as", "mib", "--signed", "-o", out, "--force").exit_code == 2
    file.write_bytes(scored(neurons_scores=channel_scores(input=[1.0] * 8, m0=[0.9] * 3 + [0.0] * 5)))
    assert run("import", file, "--as", "mib", "--top", 11, "-o", out, "--force").exit_code == 5
    assert run("import", file, "--as", "mib", "--top", 11, "--whole-nodes", "-o", out, "--force").exit_code == 0


def test_a_file_without_scores_of_edges_is_read(tmp_path: Path) -> None:
    """MIB's loader takes a .pt file without `edges_scores`, too."""
    whole = torch.load(io.BytesIO(tensors()), weights_only=True)
    del whole["edges_scores"]
    buffer = io.BytesIO()
    torch.save(whole, buffer)
    assert len(imported(buffer.getvalue(), "mib", tmp_path, suffix=".pt").edges) == 4
