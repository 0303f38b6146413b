"""A summary for the page of a CI job: verdict, claims, warnings, and how it was measured."""

from __future__ import annotations

import re

from circuitspec.reports.views import NOT_AS_LOCKED, Summary, Verdict
from circuitspec.runtime.visible_text import visible

_MARKS: dict[Verdict, str] = {"SUPPORTED": "✅", "REFUTED": "❌", "INCONCLUSIVE": "❔"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~<>&@:$-])")


def render_markdown(told: Summary) -> str:
    """GitHub-flavoured Markdown, ending in a newline. Nothing of the file's text is taken for markup."""
    parts = [
        f"### {_heading(told)}",
        f"{_plain(told.model)}, {_plain(told.prompts)}; {_plain(told.method)}",
        "\n".join(
            [
                "| | claim | value [CI] | bound | experiment |",
                "|---|---|---|---|---|",
                *(
                    f"| {_MARKS[claim.status]} {claim.status} | {claim.kind} | {_plain(claim.value)} "
                    f"| {_plain(claim.bound)} "
                    f"| {_plain(claim.experiment)}{_because(claim.reason)} |"
                    for claim in told.claims
                ),
            ]
        ),
    ]
    if told.tests:
        parts.append(_plain(told.tests))
    for warning in told.warnings:
        lines = [f"> ⚠️ **{warning.code}** {_plain(warning.message)}"]
        lines += [f"> {_plain(warning.label)}"] if warning.label else []
        lines += [f"> *help:* {_plain(warning.hint)}"] if warning.hint else []
        parts.append("  \n".join(lines))
    if told.findings:
        parts.append("\n".join(f"- {d.severity} **{d.code}** {_plain(d.message)}" for d in told.findings))
    return "\n\n".join(parts) + "\n"


def _heading(told: Summary) -> str:
    said = f"{_plain(told.name)}: {told.verdict}"
    return f"❌ {said}, {NOT_AS_LOCKED}" if told.drifted else f"{_MARKS[told.verdict]} {said}"


def _because(reason: str) -> str:
    return f" ({_plain(reason)})" if reason else ""


def _plain(text: str) -> str:
    """Text as itself in one line: no markup, link or HTML, and nothing that cannot be seen."""
    return _SPECIAL.sub(r"\\\1", " ".join(visible(text).split()))
