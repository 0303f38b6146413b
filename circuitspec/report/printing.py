"""Views as the text of the terminal and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping

import click

from circuitspec.report.views import PLAIN, Block, Style, TextView


def print_text(view: TextView, style: Style = PLAIN) -> str:
    """The report that a person reads, ending in a newline. Plain text; ANSI colours only where `style` has them."""
    parts = [_block(block, style.color) for block in view.head]
    if style.list_prompts and view.prompts:
        parts.append("\n".join(view.prompts))
    parts += [_block(block, style.color) for block in view.tail]
    return "\n\n".join(parts) + "\n"


def print_document(document: Mapping[str, object]) -> str:
    """The object that a program reads, as JSON, ending in a newline."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _block(block: Block, color: bool) -> str:
    return "".join(click.style(p.text, fg=p.colour) if color and p.colour else p.text for p in block)
