"""GitHub's workflow commands: findings as annotations at lines of the file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from circuitspec.diagnostics.diagnostic import Diagnostic, Severity
from circuitspec.reports.views import Summary
from circuitspec.runtime.visible_text import visible

_COMMANDS: dict[Severity, str] = {"error": "error", "warning": "warning", "note": "notice"}


def render_github(told: Summary) -> str:
    """A command a line: claims that are not supported as errors, supported ones as notices, warnings, findings."""
    claims = [
        claim.finding or Diagnostic("", f"{claim.kind}: {claim.result}", claim.span, severity="note")
        for claim in told.claims
    ]
    return workflow_commands((*claims, *told.warnings, *told.findings))


def workflow_commands(findings: Iterable[Diagnostic], root: Path | None = None) -> str:
    """Findings as workflow commands, each a line of its own.

    Files are named relative to `root` where they lie below it: by default GITHUB_WORKSPACE, or the current directory.
    """
    top = root or Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd())
    return "".join(_command(finding, top) for finding in findings)


def _command(finding: Diagnostic, root: Path) -> str:
    span = finding.span
    properties: dict[str, object] = {}
    if span is not None:
        properties = {"file": _relative(span.file, root), "line": span.line, "col": span.column}
        if span.end_column is not None:
            properties["endColumn"] = span.end_column
    properties["title"] = f"circuitspec {finding.code}" if finding.code else "circuitspec: supported"
    said = ",".join(f"{name}={_escaped(str(value), in_property=True)}" for name, value in properties.items())
    message = "\n".join(map(visible, filter(None, (finding.message, finding.label, finding.hint))))
    return f"::{_COMMANDS[finding.severity]} {said}::{_escaped(message)}\n"


def _relative(file: str, root: Path) -> str:
    path = Path(file).absolute()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _escaped(text: str, *, in_property: bool = False) -> str:
    """So that no text can end its command, or begin another."""
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    text = visible(text)
    return text.replace(":", "%3A").replace(",", "%2C") if in_property else text
