"""A badge: the JSON that shields.io's endpoint reads."""

from __future__ import annotations

from circuitspec.reports.views import NOT_AS_LOCKED, Summary, Verdict
from circuitspec.runtime.visible_text import as_json, visible

_COLOURS: dict[Verdict, str] = {"SUPPORTED": "brightgreen", "REFUTED": "red", "INCONCLUSIVE": "yellow"}


def render_badge(told: Summary) -> str:
    """`ioi-tiny | 2 of 2 claims supported`, or that the result is not as locked."""
    supported = sum(claim.status == "SUPPORTED" for claim in told.claims)
    message, colour = f"{supported} of {len(told.claims)} claims supported", _COLOURS[told.verdict]
    if told.drifted:
        message, colour = NOT_AS_LOCKED, "red"
    content = {"schemaVersion": 1, "label": visible(told.name), "message": message, "color": colour}
    return as_json(content) + "\n"
