"""Small models and circuits, and ways to read and write them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.exchange.edge_lists import EdgeList, Size, connected
from circuitspec.exchange.exchange_formats import FORMATS, FormatName
from circuitspec.exchange.exporting import Exported, export_circuit
from circuitspec.exchange.importing import Imported, ImportOptions, import_circuit
from circuitspec.exchange.loss import Loss
from circuitspec.graph.edges import Receiver, Sender
from circuitspec.hypothesis_file.grammar.components import Head, Input, KvHead, Logits, Mlp
from circuitspec.hypothesis_file.load_file import load_hypothesis

SMALL = Size(2, 2, 2, 8)  # 2 layers of 2 heads
GPT2 = Size(12, 12, 12, 768)


def findings(error: pytest.ExceptionInfo[CircuitspecError]) -> list[Diagnostic]:
    return list(error.value.diagnostics)


def edge(text: str) -> tuple[Sender, Receiver]:
    """`a0.h1->m1`, `input->a1.h0<k>`: read by a grammar of its own."""
    sender, _, reader = text.partition("->")
    match = re.fullmatch(r"a(\d+)\.h(\d+)<([qkv])>|m(\d+)|logits", reader)
    assert match is not None
    receiver: Receiver
    if match[3] == "q":
        receiver = Receiver(Head(int(match[1]), int(match[2])), "q")
    elif match[3] == "k":
        receiver = Receiver(KvHead(int(match[1]), int(match[2])), "k")
    elif match[3] == "v":
        receiver = Receiver(KvHead(int(match[1]), int(match[2])), "v")
    else:
        receiver = Receiver(Mlp(int(match[4])) if match[4] else Logits())
    if sender == "input":
        return Input(), receiver
    found = re.fullmatch(r"a(\d+)\.h(\d+)|m(\d+)", sender)
    assert found is not None
    return Mlp(int(found[3])) if found[3] else Head(int(found[1]), int(found[2])), receiver


def edges(*texts: str) -> frozenset[tuple[Sender, Receiver]]:
    return frozenset(map(edge, texts))


def losses_of(found: Imported | Exported, kind: str) -> list[str]:
    return [loss.message for loss in found.losses if loss.kind == kind]


def kinds(losses: tuple[Loss, ...]) -> set[str]:
    return {loss.kind for loss in losses}


def imported(
    content: bytes, name: FormatName, folder: Path, options: ImportOptions | None = None, suffix: str = ""
) -> Imported:
    """The content of a file of this format, imported; the hypothesis is written to the folder."""
    file = folder / f"circuit{suffix or FORMATS[name].suffixes[0]}"
    file.write_bytes(content)
    out = folder / "imported.circuit.yaml"
    found = import_circuit(file, name, out, options or ImportOptions())
    out.write_text(found.text, encoding="utf-8")
    return found


def exported(name: FormatName, folder: Path, size: Size, suffix: str = "") -> Exported:
    """The hypothesis that `imported` wrote, exported."""
    out = folder / f"circuit{suffix or FORMATS[name].suffixes[0]}"
    return export_circuit(load_hypothesis(folder / "imported.circuit.yaml"), name, out, size)


@st.composite
def sizes(draw: st.DrawFn) -> Size:
    layers, heads = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return Size(layers, heads, heads, 8, parallel=draw(st.booleans()))


@st.composite
def circuits(draw: st.DrawFn, size: Size | None = None) -> EdgeList:
    """Random circuits, sparse to dense, of edges that lie on a way from input to logits (never none)."""
    size = draw(sizes()) if size is None else size
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kept = size.possible & (rng.random(size.possible.shape) < draw(st.sampled_from([0.1, 0.3, 0.6, 0.9, 1.0])))
    kept[0, -1] = True
    return connected(EdgeList(size, kept))
