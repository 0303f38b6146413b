"""A saved result gives the reports that the run gave, and no file of a stranger's gives more than text and drawings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError, exit_code
from circuitspec.reports.figures import Picture, heatmap
from circuitspec.reports.figures.spread import Row, spread
from circuitspec.reports.figures.svg_safety import unsafe_part
from circuitspec.reports.live_views import LiveViews
from circuitspec.reports.report_formats import FORMATS
from circuitspec.reports.reported import Reported
from circuitspec.reports.saved_result import FORMAT_VERSION, REPORT, SavedViews, read_saved, save
from circuitspec.reports.views import Style
from tests.reports import test_html
from tests.reports.support import shown


@pytest.fixture(scope="module")
def good() -> str:
    return save(LiveViews(test_html.reported(test_html.DRIFT)))


def put(folder: Path, text: str) -> Path:
    (folder / REPORT).write_text(text, encoding="utf-8")
    return folder


def changed(good: str, change: Callable[[dict[str, Any]], object]) -> str:
    content = json.loads(good)
    change(content)
    return json.dumps(content)


def refusal(path: Path) -> str:
    """The code and the message with which a file is refused, as an invalid file."""
    with pytest.raises(CircuitspecError) as caught:
        read_saved(path)
    (finding,) = caught.value.diagnostics
    assert exit_code((finding,)) == 3
    assert finding.span is not None
    return f"{finding.code}: {finding.message}"


@pytest.mark.parametrize("told", [test_html.reported(test_html.DRIFT), test_html.hostile()], ids=["plain", "hostile"])
def test_every_format_is_the_same_from_a_saved_result(told: Reported, tmp_path: Path) -> None:
    saved = read_saved(put(tmp_path, save(LiveViews(told))))
    for name, render in FORMATS.items():
        for style in (Style(), Style(color=True), Style(list_prompts=True)) if name == "text" else (Style(),):
            live = shown(name, told, color=style.color, list_prompts=style.list_prompts)
            assert render(saved, style) == live
    assert "prompts behind" in FORMATS["text"](saved, Style(list_prompts=True))
    assert "prompts behind" not in FORMATS["text"](saved, Style())


def test_text_that_utf8_cannot_write_is_kept(tmp_path: Path) -> None:
    """A prompts file can have half of a surrogate pair in it."""
    told = test_html.reported()
    told = dataclasses.replace(told, verification=dataclasses.replace(told.verification, name="a\ud83d b"))
    saved = read_saved(put(tmp_path, save(LiveViews(told))))
    assert saved.page.name == "a\ud83d b"
    assert "<title>a&lt;U+D83D&gt; b: REFUTED</title>" in FORMATS["html"](saved, Style())


def test_a_change_of_the_views_needs_a_new_version() -> None:
    """These are the parts of version 3. If this fails, count FORMAT_VERSION up and write the new parts here."""
    assert FORMAT_VERSION == 3
    found = {
        f"{kind.__name__}: {' '.join(field.name for field in dataclasses.fields(kind))}" for kind in _kinds(SavedViews)
    }
    assert found == {
        "SavedViews: document summary text page",
        "Summary: name verdict model method prompts seconds claims warnings findings tests",
        "ClaimSummary: kind metric status result value bound reason experiment means span figures finding",
        "Diagnostic: code message span label hint severity data",
        "Span: file line column end_column",
        "TextView: head prompts tail",
        "Piece: text colour",
        "Page: name description origin verdict counts subject claims remarks search circuit effects "
        "effect_tables charts tables paths experiments prompts file lines provenance headline examples attention "
        "attention_note",
        "PromptExample: title template answers wrong sides",
        "SideView: name tokens top",
        "TokenView: text positions changed",
        "ClaimView: number kind status value bound reason experiment means line",
        "Remark: code severity message detail help line",
        "CircuitView: picture note groups",
        "Chart: picture note",
        "Table: caption columns rows groups prose numeric",
        "Picture: title alt drawn tooltips",
    }


def _kinds(kind: Any) -> set[type]:
    """The dataclasses of which a value of this kind is made."""
    from typing import get_args, get_type_hints

    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        hints = get_type_hints(kind)
        return {kind}.union(*(_kinds(hints[field.name]) for field in dataclasses.fields(kind)))
    return set().union(*(_kinds(argument) for argument in get_args(kind)))


def test_a_file_that_is_no_saved_result(good: str, tmp_path: Path) -> None:
    assert "CS548: report.json cannot be read: No such file" in refusal(tmp_path)
    assert "CS548: other.json cannot be read" in refusal(tmp_path / "other.json")
    for text in ("{", "[" * 100_000, "\x00", '{"circuitspec_report": NaN}'):
        assert "CS548: report.json is not JSON" in refusal(put(tmp_path, text))
    (tmp_path / REPORT).write_bytes(b"\xff\xfe{}")
    assert "CS548: report.json is not JSON" in refusal(tmp_path)
    for text in ("[]", "{}", '{"circuitspec_report": "1"}', '{"circuitspec_report": true}'):
        assert "CS548: report.json is no saved result" in refusal(put(tmp_path, text))
    assert "CS548" in refusal(put(tmp_path, good[: len(good) // 2]))


def test_the_numbers_alone_are_no_saved_result(tmp_path: Path) -> None:
    printed = tmp_path / "result.json"
    printed.write_text(shown("json", test_html.reported()), encoding="utf-8")
    assert "CS548: result.json holds a result's numbers, but not all that its reports show" in refusal(printed)


def test_another_version_is_refused_by_name(good: str, tmp_path: Path) -> None:
    def later(content: dict[str, Any]) -> None:
        content.update(circuitspec_report=FORMAT_VERSION + 1, circuitspec="9.1", page={"of": "another shape"})

    assert refusal(put(tmp_path, changed(good, later))) == (
        f"CS549: report.json was saved by circuitspec 9.1 in version {FORMAT_VERSION + 1} of the format; "
        f"this one reads {FORMAT_VERSION}"
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.pop("page"), "page"),
        (lambda c: c["page"].pop("lines"), "page.lines"),
        (lambda c: c["page"]["claims"][0].update(status="PROVEN"), "page.claims[0].status"),
        (lambda c: c["summary"]["claims"][0].update(value=None), "summary.claims[0].value"),
        (lambda c: c["text"].update(head="x"), "text.head"),
        (lambda c: c["page"]["charts"][0].update(picture="<svg/>"), "page.charts[0].picture"),
    ],
)
def test_what_is_wrong_is_named(
    change: Callable[[dict[str, Any]], object], named: str, good: str, tmp_path: Path
) -> None:
    said = refusal(put(tmp_path, changed(good, change)))
    assert said.startswith(f"CS548: report.json is no saved result: `{named}`: ")


EVIL = {
    "a script": '<script>alert(1)</script>',
    "a handler": '<g onload="alert(1)"/>',
    "HTML": '<foreignObject><p>x</p></foreignObject>',
    "a link": '<a href="javascript:alert(1)"><path d=""/></a>',
    "a picture from elsewhere": '<image href="https://example.org/x.png"/>',
    "a picture with a script": '<image href="data:image/svg+xml;base64,AAAA"/>',
    "a style that fetches": '<path style="fill: url(https://example.org/x)"/>',
    "a style that is escaped": '<path style="fill: u\\72l(https://example.org/x)"/>',
    "a sheet": '<style>@import "https://example.org/x.css"</style>',
    "an animation": '<set attributeName="href" to="javascript:alert(1)"/>',
    "a reference": '<use href="https://example.org/x.svg#a"/>',
}  # fmt: skip


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL.keys())
def test_a_picture_holds_nothing_but_drawing(evil: str, good: str, tmp_path: Path) -> None:
    def slip(content: dict[str, Any]) -> None:
        picture = content["page"]["circuit"]["picture"]
        picture["drawn"] = picture["drawn"].replace("</svg>", f"{evil}</svg>")

    assert "in report.json is no drawing of ours: " in refusal(put(tmp_path, changed(good, slip)))


def test_a_picture_that_is_none() -> None:
    bomb = '<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><svg viewBox="0 0 1 1"><text>&b;</text></svg>'
    assert unsafe_part(bomb) == "it declares entities"
    assert unsafe_part("<svg").startswith("it is not XML")
    assert unsafe_part("<svg/>") == "it has no size"
    assert unsafe_part('<svg viewBox="0 0 a 1"/>') == "it has no size"


def test_our_own_pictures_are_drawings() -> None:
    said = {"title": "t", "row_axis": "r", "column_axis": "c", "quantity": "q"}
    kinds: list[Picture] = [
        spread([Row("a", ((0.1, 5.0), ()))], series=["x", "y"], own=[0.5, None], title="t", quantity="q"),
        heatmap([[0.1, float("nan")]], rows=["a"], columns=["b", "c"], **said),
    ]
    page = LiveViews(test_html.hostile()).page
    assert page.circuit is not None
    assert page.circuit.picture is not None
    for picture in (*kinds, page.circuit.picture, *(chart.picture for chart in page.charts)):
        assert unsafe_part(picture.drawn) == ""
