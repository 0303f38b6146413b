"""Results and hypotheses as a notebook shows them: a fragment of HTML that brings its own style, and no script.

Colours follow the notebook's theme by its own CSS variables (JupyterLab's, VS Code's), and the browser's where it has
none. Whatever the file or the prompts say is text in it, never markup.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.hypothesis_file.grammar.fields import template_fields
from circuitspec.hypothesis_file.load_file import Document
from circuitspec.reports.html.html_circuit import circuit_view, graph_view
from circuitspec.reports.html.html_report import environment
from circuitspec.reports.html.html_view import claim_views, counts, order_of, remarks, subject
from circuitspec.reports.reported import Reported, search_of
from circuitspec.reports.views import CircuitView, ClaimView, Remark, Verdict


@dataclass(frozen=True)
class Card:
    """What is shown: of a result its verdict, claims and warnings; of a hypothesis what it says (`settings`)."""

    name: str
    subject: str
    description: str
    verdict: Verdict | None
    counts: str
    claims: tuple[ClaimView, ...]
    settings: tuple[tuple[str, str], ...]
    remarks: tuple[Remark, ...]
    search: str
    circuit: CircuitView | None


def result_html(reported: Reported) -> str:
    """A result: verdict, claims, warnings, and its circuit drawn."""
    found = reported.verification
    return _set(
        Card(
            found.name,
            subject(found),
            "",
            found.verdict,
            counts(reported),
            tuple(claim_views(reported)),
            (),
            tuple(remarks(reported)),
            search_of(found),
            circuit_view(found, reported.source, order_of(reported.task), reported.task),
        )
    )


def hypothesis_html(document: Document, graph: CircuitGraph | None) -> str:
    """A hypothesis: its circuit drawn, and what it claims. Without a `graph` its groups are listed instead."""
    said, data = document.hypothesis, document.source.data
    assert isinstance(data, dict)
    settings = [("ablation", _settings(data["ablation"]))]
    for place, claim in enumerate(data["claims"], start=1):
        settings += [(f"claim {place}", f"{kind}: {_settings(body)}") for kind, body in claim.items()]
    if graph is None:
        settings += [(name, _settings(group)) for name, group in data["circuit"]["groups"].items()]
    return _set(
        Card(
            said.name,
            said.model.id + ("" if graph else " (its configuration is not on this machine: the circuit is not drawn)"),
            said.description or "",
            None,
            "",
            (),
            tuple(settings),
            (),
            "",
            None if graph is None else graph_view(graph, _order(said.task.templates)),
        )
    )


def _settings(block: Mapping[str, object]) -> str:
    """`metric: logit_diff, at_least: 0.8`, as the file has it."""
    return ", ".join(f"{key}: {_value(value)}" for key, value in block.items())


def _value(value: object) -> str:
    match value:
        case list():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            return f"{{{_settings(value)}}}"
        case _:
            return str(value)


def _order(templates: Iterable[str]) -> dict[str, float]:
    """Slots by where they first stand in the first template; other positions come after."""
    first = next(iter(templates), "")
    places: dict[str, float] = {}
    for field in template_fields(first):
        places.setdefault(field.slot, field.offset)
    return places


def _set(card: Card) -> str:
    env = environment()
    key = hashlib.sha256(repr(card).encode("utf-8", "surrogatepass")).hexdigest()[:8]  # ids that no other output has
    return env.get_template("notebook.html.j2").render(card=card, key=f"cs{key}")
