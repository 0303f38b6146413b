"""The formats of a result's report, in one table. Each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from circuitspec.reports.views import Style, Views

Renderer: TypeAlias = "Callable[[Views, Style], str]"


def _text(views: Views, style: Style) -> str:
    from circuitspec.reports.text.printing import print_text

    return print_text(views.text, style)


def _json(views: Views, style: Style) -> str:
    from circuitspec.reports.text.printing import print_document

    return print_document(views.document)


def _github(views: Views, style: Style) -> str:
    from circuitspec.reports.machine.github_annotations import render_github

    return render_github(views.summary)


def _junit(views: Views, style: Style) -> str:
    from circuitspec.reports.machine.junit import render_junit

    return render_junit(views.summary)


def _markdown(views: Views, style: Style) -> str:
    from circuitspec.reports.machine.markdown_summary import render_markdown

    return render_markdown(views.summary)


def _badge(views: Views, style: Style) -> str:
    from circuitspec.reports.machine.badge import render_badge

    return render_badge(views.summary)


def _html(views: Views, style: Style) -> str:
    from circuitspec.reports.html.html_report import render_html

    return render_html(views.page)


FORMATS: Mapping[str, Renderer] = MappingProxyType(
    {
        "text": _text,
        "json": _json,
        "html": _html,
        "github": _github,
        "junit": _junit,
        "markdown": _markdown,
        "badge": _badge,
    }
)
