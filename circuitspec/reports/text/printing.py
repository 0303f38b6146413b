"""Views as the text of the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Mapping

import click

from circuitspec.reports.views import PLAIN, Block, Style, TextView
from circuitspec.runtime.visible_text import as_json, no_command, visible


def print_text(view: TextView, style: Style = PLAIN) -> str:
    """The report that a person reads, ending in a newline. Plain text; ANSI colours only where `style` has them.

    No text of a file moves the terminal's cursor or turns its writing around: what cannot be seen is written out. Nor
    does a line of it give a command to the workflow in whose log it stands.
    """
    parts = [_block(block, style.color) for block in view.head]
    if style.list_prompts and view.prompts:
        parts.append(no_command(visible("\n".join(view.prompts), lines=True)))
    parts += [_block(block, style.color) for block in view.tail]
    return "\n\n".join(parts) + "\n"


def print_document(document: Mapping[str, object]) -> str:
    """The object that a program reads, as JSON, ending in a newline."""
    return as_json(document, indent=2) + "\n"


def _block(block: Block, color: bool) -> str:
    texts = [(no_command(visible(piece.text, lines=True)), piece.colour) for piece in block]
    return "".join(click.style(text, fg=colour) if color and colour else text for text, colour in texts)
