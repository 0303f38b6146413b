"""A circuit of features -> the text of a hypothesis file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from circuitspec.exchange.features.feature_circuit import (
    DeclaredDictionary,
    FeatureCircuit,
    FeatureNode,
    position_name,
)
from circuitspec.exchange.imported_text import comment, head, quoted, subject
from circuitspec.exchange.loss import Loss
from circuitspec.exchange.placeholders import DICTIONARIES, MODEL, PROMPTS
from circuitspec.hypothesis_file.schema.block import MetricName

_LINE = 76  # characters of a node's line, before its label


@dataclass(frozen=True)
class FeatureSurroundings:
    """What such a hypothesis holds beside its circuit. None: to be filled in by the user.

    heading: what was imported, in a sentence.
    prompt: what the prompts are, for a comment.
    positions: what each token index is called, and what stands there, if that is known.
    offset: how many tokens of the file's count stand in front of those that `task.positions` counts.
    """

    name: str
    heading: str
    origin: str
    model: str | None
    prompts: str | None
    ablation: str
    outside: str
    metric: MetricName
    prompt: str = ""
    tokens: Mapping[int, str] = field(default_factory=dict)
    offset: int = 0
    special_tokens: str | None = None


def features_text(circuit: FeatureCircuit, around: FeatureSurroundings, losses: Sequence[Loss]) -> str:
    """The file, one line a node."""
    lines = [
        *_head(around, losses),
        *_task(circuit, around),
        *_dictionaries(circuit.dictionaries),
        *_circuit(circuit),
        *_claims(around),
    ]
    return "\n".join([*lines, ""])


def _head(around: FeatureSurroundings, losses: Sequence[Loss]) -> Iterator[str]:
    yield from head(f"{around.origin}: {around.heading}", "file", losses)
    yield from subject(around.name, around.origin)
    yield "model:"
    if around.model is None:
        yield "  # PLACEHOLDER: the file does not name the model as a hypothesis does."
    yield f"  id: {quoted(around.model or MODEL)}"
    yield ""


def _task(circuit: FeatureCircuit, around: FeatureSurroundings) -> Iterator[str]:
    yield "task:"
    if around.prompt:
        yield from comment(around.prompt, indent="  ")
    if around.prompts is None:
        yield "  # PLACEHOLDER: the file carries no prompts. Name a file with one object a line,"
        yield '  # {"clean": "...", "corrupt": "...", "answers": [" right"], "wrong": [" wrong"]}, or write templates.'
    yield f"  file: {quoted(around.prompts or PROMPTS)}"
    if around.special_tokens is not None:
        yield f"  special_tokens: {around.special_tokens}"
    if circuit.positions:
        yield "  positions:"
        for index in circuit.positions:
            said = f"    {position_name(index)}: {index - around.offset}"
            yield _with_note(said, f'"{around.tokens[index]}"' if index in around.tokens else "")
    yield ""


def _dictionaries(dictionaries: Sequence[DeclaredDictionary]) -> Iterator[str]:
    yield "dictionaries:"
    if any(one.source is None for one in dictionaries):
        yield "  # PLACEHOLDER: name the folders of these dictionaries (import --dictionaries writes them)."
    for one in dictionaries:
        settings = [f"at: {one.at}", f"from: {quoted(one.source or DICTIONARIES)}"]
        settings += [f"format: {one.format}"] if one.format else []
        settings += ["error: ablate"] if one.ablates_error else []
        settings += ["skip_first: true"] if one.skip_first else []
        yield _with_note(f"  {one.name}: {{{', '.join(settings)}}}", one.known_as)
    yield ""


def _circuit(circuit: FeatureCircuit) -> Iterator[str]:
    yield "circuit:"
    yield "  groups:"
    for group, nodes in circuit.by_group.items():
        yield f"    {group}:"
        yield "      nodes:"
        for (component, _), placed in _by_component(nodes).items():
            named = [position_name(node.position) for node in placed if node.position is not None]
            at = "" if not named else f"@{named[0]}" if len(named) == 1 else f"@{{{','.join(named)}}}"
            label = next((node.label for node in placed if node.label), "")
            yield _with_note(f'        - "{component}{at}"', label)
    yield "  free: [a*, m*] # heads, and MLPs that no dictionary takes apart: recomputed, and outside the claim"
    yield ""


def _by_component(nodes: Sequence[FeatureNode]) -> dict[tuple[str, bool], list[FeatureNode]]:
    """By component those at single tokens, and apart from them one that is at every token."""
    found: dict[tuple[str, bool], list[FeatureNode]] = {}
    for node in nodes:
        found.setdefault((node.component, node.position is None), []).append(node)
    return found


def _claims(around: FeatureSurroundings) -> Iterator[str]:
    yield f"# {around.outside}"
    yield f"ablation: {around.ablation}"
    yield ""
    yield "claims: # the file claims nothing: write what you expect of the circuit"
    yield f"  - sufficient: {{metric: {around.metric}, at_least: 0.8}}"
    yield f"  - necessary: {{metric: {around.metric}, at_most: 0.3}}"


def _with_note(text: str, note: str) -> str:
    """A line, and what people call it in a comment behind."""
    if not note:
        return text
    printable = "".join(c if c.isprintable() else "\ufffd" for c in note)
    return f"{text:<{min(_LINE, len(text) + 1)}} # {printable[:200]}".replace("  #", " #")
