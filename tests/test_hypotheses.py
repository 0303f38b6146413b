"""The hypothesis files: valid, and with as many edges as were published.

The published lists of connections are written down here once more and expanded by plain loops; the files' own text is
expanded by `declared_edges`. Both must give the same edges, not only the same number of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest

from circuitspec.graph.circuit_graph import lay_out
from circuitspec.graph.edge_circuit import Kept, edge_circuit
from circuitspec.hypothesis_file.grammar.components import Head, KvHead, Mlp
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.hypothesis_file.schema.blocks import CircuitSpec
from circuitspec.models.model_config import shape_of
from circuitspec.pipelines.check import check_file
from tests.declared_edges import FINAL, INPUT, Edge, Roles, Size, Writer, declared_edges, free_edges

ROOT = Path(__file__).parents[1] / "hypotheses"
FILES = sorted(ROOT.rglob("*.circuit.yaml"))

GPT2_SMALL = Size(layers=12, heads=12)
FOUR_LAYERS = Size(layers=4, heads=8, mlps=False)
TWO_LAYERS = Size(layers=2, heads=8, mlps=False)
SIZES = {
    "ioi-gpt2-small-edges": GPT2_SMALL,
    "ioi-gpt2-small-residual-edges": GPT2_SMALL,
    "greater-than-acdc": GPT2_SMALL,
    "greater-than-authors": GPT2_SMALL,
    "docstring": FOUR_LAYERS,
    "induction": TWO_LAYERS,
}


def circuit_of(name: str) -> CircuitSpec:
    return load_hypothesis(ROOT / f"{name}.circuit.yaml").hypothesis.circuit


@cache
def declared(name: str) -> Mapping[Edge, Roles]:
    return declared_edges(circuit_of(name), SIZES[name])


def edges_in(name: str) -> set[Edge]:
    """The edges that a file declares, wherever they lie."""
    return set(declared(name))


def config(size: Size) -> dict[str, object]:
    """The config.json of a GPT-2 of this size."""
    return {
        "model_type": "gpt2",
        "n_layer": size.layers,
        "n_head": size.heads,
        "n_embd": 64 * size.heads,
        "n_inner": None if size.mlps else 0,
        "n_positions": 1024,
        "vocab_size": 50257,
    }


def plainly(kept: Kept) -> dict[Edge, Roles]:
    """Edges as `declared_edges` gives them."""
    found: dict[Edge, Roles] = {}
    for receiver, by_sender in kept.items():
        match receiver.component:
            case Head(layer, head) | KvHead(layer, head):
                assert receiver.port is not None
                reader: Writer = (receiver.port, layer, head)
            case Mlp(layer):
                reader = ("mlp_in", layer)
            case _:
                reader = FINAL
        for sender, where in by_sender.items():
            match sender:
                case Head(layer, head):
                    writer: Writer = ("head", layer, head)
                case Mlp(layer):
                    writer = ("mlp", layer)
                case _:
                    writer = INPUT
            found[writer, reader] = None if where.is_everywhere else where.roles
    return found


# ------------------------------------------------------------------------------------------------------------- valid


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files_are_valid(file: Path) -> None:
    """Also where the model is not at hand, which is no mistake of the file."""
    problems, summary = check_file(file)
    assert [problem.message for problem in problems] == []
    assert ": ok " in summary


@pytest.mark.parametrize("name", SIZES)
def test_published_circuits_fit_their_models(name: str, tmp_path: Path) -> None:
    """With the model's configuration at hand, so that layers and heads are looked up too."""
    shutil.copytree(ROOT / "lists", tmp_path / "lists")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config(SIZES[name])), "utf-8")
    lines = (ROOT / f"{name}.circuit.yaml").read_text("utf-8").splitlines()
    lines = ["  id: ./model" if line.startswith("  id: ") else line for line in lines if "  revision: " not in line]
    file = tmp_path / f"{name}.circuit.yaml"
    file.write_text("\n".join(lines), "utf-8")
    problems, summary = check_file(file)
    assert [problem.message for problem in problems] == []
    assert "note: the model's configuration" not in summary


@pytest.mark.parametrize("name", SIZES)
def test_the_edges_that_are_kept(name: str) -> None:
    """Those of the text, with their positions, and of the model all others are ablated."""
    document = load_hypothesis(ROOT / f"{name}.circuit.yaml")
    graph = lay_out(document.hypothesis.circuit, shape_of(config(SIZES[name])), document.source)
    kept = edge_circuit(graph, document.source)
    assert plainly(kept.declared) == declared(name)
    assert plainly(kept.free) == free_edges(document.hypothesis.circuit, SIZES[name])
    assert kept.n_edges == len(SIZES[name].edges)


# --------------------------------------------------------------------------------------------------- published edges


def heads(text: str) -> list[Writer]:
    """`9.6 10.0` as heads."""
    return [("head", *map(int, one.split("."))) for one in text.split()]


def mlps(first: int, last: int) -> list[Writer]:
    return [("mlp", layer) for layer in range(first, last + 1)]


def between(senders: Iterable[Writer], receivers: Iterable[Writer], ports: str = "") -> set[Edge]:
    """From each of the senders to each of the receivers behind it, by these inputs of a head."""
    found: set[Edge] = set()
    for sender in senders:
        for receiver in receivers:
            kind, *where = receiver
            if not is_behind(receiver, sender):
                continue
            if kind == "head":
                found |= {(sender, (port, *where)) for port in ports or "qkv"}
            else:
                found.add((sender, FINAL if kind == "final" else ("mlp_in", *where)))
    return found


def is_behind(receiver: Writer, sender: Writer) -> bool:
    """Input, then of each layer its heads, which are side by side, and its MLP, then the logits."""

    def when(component: Writer) -> float:
        if component in (INPUT, FINAL):
            return -1.0 if component == INPUT else 1e9
        layer = component[1]
        assert isinstance(layer, int)
        return layer + (0.5 if component[0] == "mlp" else 0.0)

    return when(sender) < when(receiver)


IOI = {
    "NM": heads("9.9 10.0 9.6"),
    "backup": heads("10.10 10.6 10.2 10.1 11.2 9.7 9.0 11.9"),
    "neg": heads("10.7 11.10"),
    "SI": heads("7.3 7.9 8.6 8.10"),
    "ind": heads("5.5 6.9 5.8 5.9"),
    "dup": heads("0.1 3.0 0.10"),
    "prev": heads("2.2 4.11"),
    "INPUT": [INPUT],
    "OUT": [FINAL],
}
IOI_CONNECTIONS = """
    INPUT prev qkv, INPUT dup qkv, INPUT SI q, INPUT neg kv, INPUT NM kv, INPUT backup kv,
    prev ind kv, ind SI kv, dup SI kv, SI neg q, SI NM q, SI backup q, neg OUT, NM OUT, backup OUT
"""


def ioi() -> set[Edge]:
    """ACDC's 15 connections between classes."""
    found: set[Edge] = set()
    connections = IOI_CONNECTIONS.split(",")
    assert len(connections) == 15
    for connection in connections:
        sender, receiver, *ports = connection.split()
        found |= between(IOI[sender], IOI[receiver], *ports)
    return found


def ioi_with_mlps() -> set[Edge]:
    """And every edge into and out of an MLP whose other end is one of the 26 heads, another MLP, input or logits."""
    members = [head for name, group in IOI.items() if name not in ("INPUT", "OUT") for head in group]
    assert len(members) == 26
    found = between([INPUT, *members, *mlps(0, 11)], mlps(0, 11))
    return found | between(mlps(0, 11), [*members, FINAL])


def test_ioi_has_182_edges_between_heads() -> None:
    assert edges_in("ioi-gpt2-small-edges") == ioi()
    assert len(ioi()) == 182


def test_ioi_has_963_residual_edges() -> None:
    expected = ioi() | ioi_with_mlps() | {(INPUT, FINAL)}
    assert edges_in("ioi-gpt2-small-residual-edges") == expected
    assert (len(expected), len(GPT2_SMALL.edges)) == (963, 32_491)


def test_free_mlps_bring_the_same_edges_but_for_the_direct_one() -> None:
    """Of the first file 182 edges are the claim's and 780 are free; the second declares them, and input -> logits."""
    free = set(free_edges(circuit_of("ioi-gpt2-small-edges"), GPT2_SMALL))
    assert free == ioi_with_mlps()
    assert len(free) == 963 - 182 - 1


def test_greater_than_has_235_residual_edges() -> None:
    mid = heads("5.5 6.1 6.9 7.10 8.11 9.1")
    early, late, first, year = mlps(0, 3), mlps(8, 11), heads("0.1"), heads("0.3 0.5")
    expected = between([INPUT], [*year, *first, *early]) | between([*mid, *late], [FINAL])
    expected |= between(early, early) | between(late, late)
    expected |= between(first, early) | between([*first, *year, *early], mid) | between(mid, late)
    expected |= between(mlps(0, 8), mlps(0, 8)) | between(mlps(0, 8), mid, "q")
    assert edges_in("greater-than-acdc") == expected
    assert len(expected) == 235


def test_greater_than_of_the_authors() -> None:
    """No list of edges was published; these are what their components, positions and figure amount to."""
    mid, last = heads("5.1 5.5 6.9 7.10 8.8 8.11"), heads("9.1")
    early, late, year = mlps(0, 3), mlps(8, 11), heads("0.1 0.3 0.5")
    expected = between([INPUT], [*year, *early]) | between(year, early) | between(early, early)
    expected |= between([*year, *early], [*mid, *last], "kv")
    expected |= between([*mid, *last], late) | between(late, late) | between([*last, *late], [FINAL])
    expected |= between([INPUT, *mlps(0, 8)], mlps(0, 8)) | between([INPUT, *mlps(0, 8)], [*mid, *last], "q")
    assert edges_in("greater-than-authors") == expected
    to_heads = 3 * 3 + 7 * 7 * 2 + (7 + 5 + 5 + 6 + 7 + 8 + 8 + 9)  # year heads, keys and values, queries
    to_mlps = 9 + 3 * 4 + 36 + (6 * 4 + 3) + 6  # from the input, year heads, m0 to m8, the other heads, m8 to m11
    assert len(expected) == to_heads + to_mlps + 5  # a9.h1 and four MLPs reach the logits


def listed(text: str) -> set[Edge]:
    """`in->0.5v` and so on: from the input to the value of head 5 in layer 0."""
    found: set[Edge] = set()
    for one in text.split():
        sender, receiver = one.split("->")
        source = INPUT if sender == "in" else heads(sender)[0]
        if receiver == "out":
            found.add((source, FINAL))
        else:
            found |= between([source], heads(receiver.rstrip("qkv")), receiver.lstrip("0123456789."))
    return found


def test_docstring_has_24_edges() -> None:
    expected = listed("in->0.5v 0.5->1.4v in->1.4v in->1.2qk 0.5->1.2qk in->2.0qk 0.5->2.0qk 1.4->2.0v")
    for mover in ("3.0", "3.6"):
        expected |= listed(f"{mover}->out 1.4->{mover}q in->{mover}v 0.5->{mover}v 2.0->{mover}k 1.2->{mover}k")
    assert edges_in("docstring") == expected
    assert len(expected) == 24


def test_induction_has_6_edges() -> None:
    expected = listed("in->0.0v in->1.6q 0.0->1.6k in->1.6v in->out 1.6->out")
    assert edges_in("induction") == expected
    assert len(expected) == 6


# --------------------------------------------------------------------------------------------------------- positions


def at(name: str, sender: Writer, receiver: Writer) -> list[str] | None:
    roles = declared(name)[sender, receiver]
    return None if roles is None else sorted(roles)


def test_ioi_positions_are_those_published() -> None:
    """For all 182 edges, where the residual stream is read: queries at each head's own place, keys and values at S1 for
    the heads that look back for the subject, at IO for those that name it, and else where their sender acts."""
    own = {"prev": "S1+1", "dup": "S2", "ind": "S2", "SI": "END", "neg": "END", "NM": "END", "backup": "END"}
    looked_at = {"prev": "S1", "dup": "S1", "ind": "S1+1", "SI": "S2", "neg": "IO", "NM": "IO", "backup": "IO"}
    group_of = {member: name for name, members in IOI.items() for member in members}
    for name in ("ioi-gpt2-small-edges", "ioi-gpt2-small-residual-edges"):
        for sender, receiver in ioi():
            group = group_of.get(("head", *receiver[1:]), "OUT")
            expected = "END" if group == "OUT" else own[group] if receiver[0] == "q" else looked_at[group]
            assert at(name, sender, receiver) == [expected], (name, sender, receiver)


def test_an_mlp_can_be_read_at_two_positions_in_one_file() -> None:
    """The authors' lower MLPs act at YY, and at the end for what the comparing heads ask."""
    name = "greater-than-authors"
    assert at(name, ("mlp", 2), ("k", 7, 10)) == ["YY"]
    assert at(name, ("mlp", 2), ("q", 7, 10)) == ["END"]
    assert at(name, ("mlp", 2), ("mlp_in", 3)) == ["END", "YY"]
    assert at(name, ("mlp", 4), ("mlp_in", 5)) == ["END"]


def test_an_edge_along_several_paths_is_one_edge() -> None:
    """`declared_edges` itself against arithmetic: every edge of three layers with two heads and an MLP each."""
    size = Size(layers=3, heads=2)
    whole = CircuitSpec.model_validate(
        {"groups": {"all": {"nodes": ["a*.h*", "m*"]}}, "paths": ["input -> all -> all -> logits", "input -> logits"]}
    )
    heads_and_mlps = sum(2 * 3 * (1 + 3 * layer) + (1 + 3 * layer + 2) for layer in range(3))
    assert set(declared_edges(whole, size)) == set(size.edges)
    assert len(size.edges) == heads_and_mlps + 1 + 3 * 3
