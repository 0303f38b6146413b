"""A list of edges or of nodes -> the text of a hypothesis file, with what could not be carried over at its top."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from circuitspec.exchange.edge_lists import EdgeList
from circuitspec.exchange.loss import Loss, loss_rows
from circuitspec.exchange.node_lists import NodeList
from circuitspec.exchange.path_cover import names_of, paths_of
from circuitspec.exchange.placeholders import MODEL, PROMPTS
from circuitspec.hypothesis_file.grammar.ablation_kinds import RESAMPLE, ZERO
from circuitspec.hypothesis_file.grammar.components import Head, Mlp
from circuitspec.hypothesis_file.schema.block import MetricName

WIDTH = 118


@dataclass(frozen=True)
class Surroundings:
    """What a hypothesis holds beside its circuit. None: to be filled in by the user."""

    name: str
    origin: str  # the file and its format
    model: str | None
    prompts: str | None  # a path relative to the hypothesis
    corruption: str | None = "corrupt"  # None: the prompts have none
    metric: MetricName = "logit_diff"
    size: str | None = None  # the model's, where its configuration is not at hand


def hypothesis_text(circuit: EdgeList | NodeList, around: Surroundings, losses: Sequence[Loss]) -> str:
    """The file. The circuit is stated edge by edge or node by node, at every position."""
    lines = [*_head(circuit, around, losses), *_model(circuit, around), *_circuit(circuit), *_claims(circuit, around)]
    return "\n".join([*lines, ""])


def _head(circuit: EdgeList | NodeList, around: Surroundings, losses: Sequence[Loss]) -> Iterator[str]:
    size = circuit.size
    if isinstance(circuit, EdgeList):
        of = f"{int(size.possible.sum()):,} edges"
    else:
        of = f"{len(size.senders) - 1:,} heads and MLPs" if size.has_mlps else f"{len(size.senders) - 1:,} heads"
    yield from head(f"{around.origin}: {len(circuit):,} of the {of} of {size}", "file", losses)
    yield from subject(around.name, around.origin)


def _model(circuit: EdgeList | NodeList, around: Surroundings) -> Iterator[str]:
    yield "model:"
    if around.model is None:
        yield from comment(
            f"PLACEHOLDER: the format does not name the model. This one has {circuit.size}.", indent="  "
        )
    yield f"  id: {quoted(around.model or MODEL)}"
    if around.size is not None:
        yield f"  size: {around.size} # layers, heads, channels: for `export`, while the model is not on this machine"
    yield ""
    yield "task:"
    if around.prompts is None:
        yield "  # PLACEHOLDER: the format carries no prompts. Name a file with one object a line,"
        yield '  # {"clean": "...", "corrupt": "...", "answers": [" right"], "wrong": [" wrong"]}, or write templates.'
    yield f"  file: {quoted(around.prompts or PROMPTS)}"
    yield ""


def _circuit(circuit: EdgeList | NodeList) -> Iterator[str]:
    yield "circuit:"
    yield "  groups: # by kind, for the format knows no roles: divide and rename them after what they do"
    nodes = circuit.nodes
    heads, mlps = [n for n in nodes if isinstance(n, Head)], [n for n in nodes if isinstance(n, Mlp)]
    for name, members in (("heads", heads), ("mlps", mlps)):
        if members:
            listed = ", ".join(_item(text) for text in names_of(members, circuit.size))
            yield from _wrapped(f"{name}: {{nodes: [{listed}]}}", "    ", "      ")
    if not nodes:
        yield "    embeddings: {nodes: [input]}"
    if isinstance(circuit, EdgeList):
        yield "  paths:"
        for path in paths_of(circuit):
            yield from _wrapped(f"- {path}", "    ", "      ")
    yield ""


def _claims(circuit: EdgeList | NodeList, around: Surroundings) -> Iterator[str]:
    others, level = ("edges", "edge") if isinstance(circuit, EdgeList) else ("heads and MLPs", "node")
    if around.corruption is None:
        value = ZERO.name
        yield f"# All other {others} carry nothing."
    else:
        value = f"{RESAMPLE.name}, from: {quoted(around.corruption)}"
        yield f"# All other {others} carry what they carry in the corrupted prompt."
    yield f"ablation: {{value: {value}, level: {level}, positions: all}}"
    yield ""
    yield "claims: # the format claims nothing: write what you expect of the circuit"
    yield f"  - sufficient: {{metric: {around.metric}, at_least: 0.8}}"


def head(origin: str, what: str, losses: Sequence[Loss]) -> Iterator[str]:
    """Where a hypothesis comes from, as comment lines, and what it says otherwise than that file or folder (`what`)."""
    yield from comment(f"Imported from {origin}.")
    yield "#"
    yield f"# What a hypothesis says otherwise than that {what}, or says beyond it:"
    for kind, message in loss_rows(losses):
        yield from comment(message, f"  {kind}", " " * (len(kind) + 2))


def subject(name: str, origin: str) -> Iterator[str]:
    """The lines before the model."""
    yield "circuitspec: 1"
    yield f"name: {quoted(name)}"
    yield f"source: {quoted(origin)}"
    yield ""


def comment(text: str, first: str = "", rest: str = "", indent: str = "") -> Iterator[str]:
    """Text as comment lines; what could end a line or a file is shown as a mark."""
    printable = "".join(c if c.isprintable() else "\ufffd" for c in text)
    yield from _wrapped(printable, f"{indent}# {first}", f"{indent}# {rest}")


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def quoted(text: str) -> str:
    """A YAML scalar: plain where that cannot be taken for anything else."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", text) and text.lower() not in ("true", "false", "null"):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else _escaped(c) for c in quoted)


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xD800 <= number < 0xE000:  # half a character: a byte of a file name that is no text
        return "\ufffd"
    return f"\\U{number:08x}"


def _item(text: str) -> str:
    """An entry of a list in brackets."""
    return f'"{text}"' if set(text) & set("[],{}") else text
