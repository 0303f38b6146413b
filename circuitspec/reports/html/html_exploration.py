"""An exploration as one HTML file that needs nothing else, like the page of a verification."""

from __future__ import annotations

from dataclasses import dataclass

from circuitspec.reports.figures.picture import Picture
from circuitspec.reports.html.html_report import environment
from circuitspec.reports.views import Remark, Table


@dataclass(frozen=True)
class Gallery:
    """Everything that the page shows, in its order: warnings, pictures, the findings as text, drafted files."""

    name: str
    subject: str
    method: str
    remarks: tuple[Remark, ...]
    pictures: tuple[Picture, ...]
    lines: tuple[str, ...]
    drafts: tuple[tuple[str, tuple[str, ...]], ...]  # what is drafted, and the lines of the file
    provenance: tuple[tuple[str, str], ...]
    what: str = "exploration"  # or a comparison, which has the same parts
    headline: str = ""
    tables: tuple[Table, ...] = ()


def render_gallery(gallery: Gallery) -> str:
    """The page, ending in a newline. Whatever files or prompts say is text on it, never markup."""
    return environment().get_template("exploration.html.j2").render(page=gallery)
