"""A picture as SVG text: for a file of its own, and for a place within a page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from xml.etree import ElementTree as ET

from circuitspec.reports.figures.palette import PAPER, THEMED

SCALE = 1.4  # pixels a point on a page: the smallest writing, 8 points, has 11 pixels

_NAMESPACE = re.compile(r"\{[^}]*\}")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_NO_ROTATION = re.compile(r"rotate\(-?0(?: [^)]*)?\)")
_COLOUR = re.compile("|".join(map(re.escape, THEMED)))
_COORDINATES = frozenset({"d", "x", "y", "width", "height", "transform", "style"})


@dataclass(frozen=True)
class Picture:
    """A drawing with its title and `alt`, a sentence or two that say what is to be seen, with the main numbers.

    `drawn` is SVG as matplotlib writes it; `tooltips` say more about single parts of it, by their id.
    Equal contents give equal text.
    """

    title: str
    alt: str
    drawn: str
    tooltips: Mapping[str, str]

    @property
    def width(self) -> float:
        """In points, which are the picture's own units."""
        return float(self._tree.attrib["viewBox"].split()[2])

    def standalone(self) -> str:
        """A file of its own: fixed colours on white, `width` points wide."""
        root = self._dressed("picture")
        width, height = root.attrib["viewBox"].split()[2:]
        root.set("width", f"{width}pt")
        root.set("height", f"{height}pt")
        root.insert(2, ET.Element("rect", {"width": "100%", "height": "100%", "fill": PAPER}))
        return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'

    def inline(self, name: str) -> str:
        """For an HTML page: no background, colours that the page may set, ids that begin with `name`.

        It is as wide as its place, and at most `SCALE` pixels a point, a width that its style names `--full`.
        """
        root = self._dressed(name)
        for element in root.iter():
            if "style" in element.attrib:
                element.set("style", _COLOUR.sub(_variable, element.attrib["style"]))
        full = f"{self.width * SCALE:.0f}px"
        root.set("style", f"--full:{full};max-width:{full}")
        return ET.tostring(root, encoding="unicode")

    @cached_property
    def _tree(self) -> ET.Element:
        return ET.fromstring(self.drawn.encode())

    def _dressed(self, name: str) -> ET.Element:
        """A cleaned copy: without namespaces, metadata and ids that nothing refers to, described for all readers."""
        root = _cleaned(self._tree, frozenset(_referred(self._tree)) | self.tooltips.keys(), f"{name}-")
        for element in root.iter():
            tip = self.tooltips.get(element.get("id", "").removeprefix(f"{name}-"))
            if tip is not None:
                described = ET.Element("title")
                described.text = tip
                element.insert(0, described)
        said = {"title": self.title, "desc": self.alt}
        for place, (tag, text) in enumerate(said.items()):
            element = ET.Element(tag, {"id": f"{name}-{tag}"})
            element.text = text
            root.insert(place, element)
        root.attrib = {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": root.attrib["viewBox"],
            "role": "img",
            "aria-labelledby": " ".join(f"{name}-{tag}" for tag in said),
            "stroke-linejoin": "round",
        }
        return root


def _referred(root: ET.Element) -> Iterator[str]:
    for element in root.iter():
        for key, value in element.attrib.items():
            if _local(key) == "href" and value.startswith("#"):
                yield value[1:]
            yield from _REFERENCE.findall(value)


def _cleaned(element: ET.Element, kept: frozenset[str], prefix: str) -> ET.Element:
    attributes = {}
    for key, value in element.attrib.items():
        name = _local(key)
        if name == "id" and value not in kept:
            continue
        text = prefix + value if name == "id" else _REFERENCE.sub(rf"url(#{prefix}\1)", value)
        if name == "href" and text.startswith("#"):
            text = f"#{prefix}{text[1:]}"
        elif name in _COORDINATES:
            text = " ".join(_LONG_NUMBER.sub(_short, _NO_ROTATION.sub("", text)).split())
        if text:
            attributes[name] = text
    found = ET.Element(_local(element.tag), attributes)
    found.text = element.text if (element.text or "").strip() else None
    for child in element:
        if _local(child.tag) in ("metadata", "style"):
            continue
        copy = _cleaned(child, kept, prefix)
        if copy.tag == "g" and not copy.attrib:
            found.extend(copy)  # a group that says nothing
        elif copy.tag != "defs" or len(copy):
            found.append(copy)
    return found


def _local(name: str) -> str:
    return _NAMESPACE.sub("", name)


def _short(match: re.Match[str]) -> str:
    text = f"{float(match[0]):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _variable(match: re.Match[str]) -> str:
    return f"var(--{THEMED[match[0]]}, {match[0]})"
