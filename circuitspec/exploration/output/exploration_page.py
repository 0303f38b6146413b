"""An exploration as a page for a browser: its warnings, pictures, findings and drafts."""

from __future__ import annotations

from importlib import metadata

from circuitspec.analysis.statistics.wording import plural
from circuitspec.exploration.exploration_findings import ExplorationFindings
from circuitspec.exploration.output.exploration_figures import pictures
from circuitspec.exploration.output.exploration_text import render_exploration
from circuitspec.exploration.output.exploration_warnings import exploration_warnings
from circuitspec.exploration.output.findings_tables import findings_tables, headline
from circuitspec.reports.html.html_exploration import Gallery, render_gallery
from circuitspec.reports.views import Remark

_PACKAGES = ("circuitspec", "torch", "transformers", "pyvene")


def exploration_html(found: ExplorationFindings, command: str) -> str:
    """The page, ending in a newline; `command` is what was typed."""
    warnings = exploration_warnings(found)
    drafts = ((f"{one.kind}, {plural(one.heads, found.unit)}", one) for one in found.circuits)
    gallery = Gallery(
        found.name,
        f"{found.model}, {plural(found.n_prompts, 'prompt')}",
        f"{found.metric}, {found.ablation}",
        tuple(Remark(one.code, "warning", one.message, one.detail, one.help) for one in warnings),
        tuple(pictures(found).values()),
        tuple(render_exploration(found).splitlines()),
        tuple((title, tuple(one.draft.text.splitlines())) for title, one in drafts if not one.is_empty),
        (
            ("command", command),
            ("cost", f"{found.forwards:.0f} forwards over all prompts, {found.seconds:.1f} s"),
            ("versions", ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)),
        ),
        headline=headline(found),
        tables=findings_tables(found),
    )
    return render_gallery(gallery)
