"""Whether SVG from a file holds nothing but drawing: no script, no handler, nothing fetched."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

_NAMESPACE = re.compile(r"\{[^}]*\}")
_DRAWING = frozenset(
    {"svg", "g", "defs", "use", "clipPath", "path", "rect", "line", "circle", "polygon", "polyline", "image", "text"}
    | {"tspan", "style", "pattern"}
)
_IN_METADATA = frozenset({"metadata", "RDF", "Work", "type", "format", "creator", "Agent", "title", "date"})
_ATTRIBUTES = frozenset(
    {"id", "version", "viewBox", "width", "height", "x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "d", "points"}
    | {"transform", "style", "clip-path", "href", "about", "resource", "type", "preserveAspectRatio", "patternUnits"}
    | {"fill", "stroke", "stroke-width", "opacity"}
)
_OWN_REFERENCE = re.compile(r"url\(#[\w-]+\)")
_LOADS = re.compile(r"url\s*\(|@import|expression|javascript|\\", re.IGNORECASE)
_HREF = re.compile(r"#[\w-]+|data:image/png;base64,[A-Za-z0-9+/=\s]*")


def unsafe_part(drawn: str) -> str:
    """What in the text is no part of a drawing, as pictures here are written; empty if nothing is."""
    if "<!ENTITY" in drawn:
        return "it declares entities"
    try:
        root = ET.fromstring(drawn.encode("utf-8", "surrogatepass"))
    except ET.ParseError as error:
        return f"it is not XML: {error}"
    if "viewBox" not in root.attrib or not _numbers(root.attrib["viewBox"]):
        return "it has no size"
    return next((problem for element in root.iter() if (problem := _problem(element))), "")


def _numbers(box: str) -> bool:
    return re.fullmatch(r"(-?\d+(\.\d+)? ){3}-?\d+(\.\d+)?", box) is not None


def _problem(element: ET.Element) -> str:
    tag = _NAMESPACE.sub("", element.tag)
    if tag not in _DRAWING | _IN_METADATA:
        return f"it has an element {tag}"
    if tag == "style" and _LOADS.search(element.text or ""):
        return "it has a style sheet that loads something"
    for key, value in element.attrib.items():
        name = _NAMESPACE.sub("", key)
        if name not in _ATTRIBUTES:
            return f"{tag} has an attribute {name}"
        if name == "href" and not _HREF.fullmatch(value):
            return f"{tag} refers to {value[:40]}"
        if _LOADS.search(_OWN_REFERENCE.sub("", value)):
            return f"{tag} has {name}={value[:40]!r}"
    return ""
