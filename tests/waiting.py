"""What commands write on stderr, without how far they are: that depends on how fast the machine is."""

from __future__ import annotations

import re


def without_progress(text: str) -> str:
    """The text without lines of progress, which runs of more than ten seconds write where there is no terminal."""
    return re.sub(r"^\[(\d+:)?\d+:\d\d\] .*\n", "", text, flags=re.MULTILINE)
