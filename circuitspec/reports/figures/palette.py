"""The colours of pictures and pages: told apart by colour-blind readers, dark enough on their background for text.

Blue and vermilion are Okabe and Ito's, darkened until they can be read as text on white.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

INK = "#1b1f24"
MUTED = "#57606a"
FAINT = "#d0d7de"
PAPER = "#ffffff"
ON_DARK, ON_LIGHT = "#fefefe", "#000000"  # written on coloured cells, whatever the page is like
BLUE = "#005f9e"  # for, supported, positive
VERMILION = "#b23c00"  # against, refuted, negative
BAND = "#8fb8d9"  # what a claim allows

SERIES = (BLUE, VERMILION, "#00694a", "#7a3e87")
"""Colours of series, which differ in their markers and dashes as well."""

TINTS = ("#cfe5f5", "#fbe3c0", "#cdebdf", "#f3d7e8", "#f6f0b3", "#ddd9f3", "#f8d5c5", "#dfe7d2")
"""Light fills for groups of components, to be written on in `ON_TINT`."""
PLAIN_TINT = "#e9ecef"
ON_TINT = "#16191d"
OUTLINE, OUTLINE_AGAINST = "#5b6168", "#ad3a00"  # of what is filled with a tint, whatever the page is like

THEMED: Mapping[str, str] = MappingProxyType(
    {
        INK: "ink",
        MUTED: "muted",
        FAINT: "faint",
        PAPER: "paper",
        BLUE: "blue",
        VERMILION: "vermilion",
        BAND: "band",
        SERIES[2]: "green",
        SERIES[3]: "purple",
    }
)
"""Colours that a page may set otherwise (on a dark background), by the CSS variable that it does it with."""


def shaded(tint: str, share: float) -> str:
    """A tint between nearly white (`share` 0) and its deeper self (1), to be written on in `ON_TINT` throughout."""
    channels = [int(tint[place : place + 2], 16) for place in (1, 3, 5)]
    found = [round(252 + (channel * channel / 255 - 252) * share) for channel in channels]
    return "#" + "".join(f"{min(255, channel):02x}" for channel in found)
