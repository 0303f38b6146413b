"""A result as one file, from which every report of it can be written again without the model. Imports no torch.

The file is JSON: its format's version first, then the four views of the result. It is read as a stranger's: what is
not as a run writes it is refused, and pictures may hold nothing but drawing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span
from circuitspec.reports.figures.svg_safety import unsafe_part
from circuitspec.reports.views import Page, Summary, TextView, Views
from circuitspec.runtime.files import read_regular

REPORT = "report.json"  # its name in the folder of --output-dir
_TABLES = ("experiments", "prompts", "sweep")  # all that a verification may leave beside it

FORMAT_VERSION = 3
MAX_BYTES = 200_000_000

VERSION_KEY, _WRITER = "circuitspec_report", "circuitspec"
_PARTS = ("document", "summary", "text", "page")
_HINT = "give a folder of `circuitspec verify FILE --output-dir DIR`, or the report.json in it"


@dataclass(frozen=True)
class SavedViews:
    """The views of a result that was saved."""

    document: dict[str, Any]
    summary: Summary
    text: TextView
    page: Page


def save(views: Views) -> str:
    """The views as JSON text, ending in a newline. The prompts behind each claim are kept, listed or not."""
    text = replace(views.text, prompts=views.page.prompts)
    content = {
        VERSION_KEY: FORMAT_VERSION,
        _WRITER: metadata.version(_WRITER),
        "document": views.document,
        "summary": asdict(views.summary),
        "text": asdict(text),
        "page": asdict(views.page),
    }
    return json.dumps(content, allow_nan=False) + "\n"


def earlier_files() -> tuple[str, ...]:
    """The names of what an earlier verification may have left in its folder, and this one does not write."""
    return tuple(f"{name}.{suffix}" for name in _TABLES for suffix in ("parquet", "csv"))


def read_saved(path: Path) -> SavedViews:
    """Read a result from `report.json`, or from the folder in which it is.

    Raises CircuitspecError: CS548 for what is no saved result, CS549 for one of another version of the format.
    """
    file = path / REPORT if path.is_dir() else path
    content = _content(file)
    version = content.get(VERSION_KEY)
    if version is None and "format_version" in content:
        raise _refused(file, f"{file.name} holds a result's numbers, but not all that its reports show")
    if isinstance(version, bool) or not isinstance(version, int):
        raise _refused(file, f"{file.name} is no saved result")
    if version != FORMAT_VERSION:
        writer = content.get(_WRITER)
        by = f" by circuitspec {writer}" if isinstance(writer, str) else ""
        message = f"{file.name} was saved{by} in version {version} of the format; this one reads {FORMAT_VERSION}"
        hint = f"circuitspec {metadata.version(_WRITER)} writes it anew: circuitspec verify FILE --output-dir DIR"
        raise CircuitspecError(Diagnostic("CS549", message, Span(str(file), 1, 1), hint=hint))
    return _checked(file, {name: content.get(name) for name in _PARTS})


def _content(file: Path) -> dict[str, Any]:
    try:
        raw = read_regular(file, MAX_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _refused(file, f"{file.name} cannot be read: {reason}") from error
    try:
        content = json.loads(raw.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _refused(file, f"{file.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise _refused(file, f"{file.name} is no saved result")
    return content


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _checked(file: Path, parts: dict[str, object]) -> SavedViews:
    from pydantic import TypeAdapter, ValidationError

    try:
        saved = TypeAdapter(SavedViews).validate_python(parts)
    except ValidationError as error:
        from circuitspec.hypothesis_file.problems import dotted

        first = error.errors()[0]
        raise _refused(file, f"{file.name} is no saved result: `{dotted(first['loc'])}`: {first['msg']}") from error
    page = saved.page
    pictures = [chart.picture for chart in (*page.effects, *page.charts)]
    pictures += [page.circuit.picture] if page.circuit is not None and page.circuit.picture is not None else []
    for picture in pictures:
        if problem := unsafe_part(picture.drawn):
            raise _refused(file, f"the picture {picture.title!r} in {file.name} is no drawing of ours: {problem}")
    return saved


def _refused(file: Path, message: str) -> CircuitspecError:
    return CircuitspecError(Diagnostic("CS548", message, Span(str(file), 1, 1), hint=_HINT))
