"""Which files are read as text: regular ones alone, none for ever, with or without a byte order mark."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span, render
from circuitspec.hypothesis_file.checks.word_lists import load_lists
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.hypothesis_file.yaml.textfile import TextFile, read_text_file
from circuitspec.runtime.files import TooLarge, read_regular
from tests.hypothesis_file.support import GOOD, good_but

KIND = TextFile("the file of X", 2_000_000, "CS150", "CS157", "CS151", if_missing="look again", if_too_large="cut it")
WHERE = Span("h.circuit.yaml", 3, 5)
BOM = b"\xef\xbb\xbf"


def refused(path: Path, where: Span | None) -> Diagnostic:
    with pytest.raises(CircuitspecError) as caught:
        read_text_file(path, KIND, where)
    (finding,) = caught.value.diagnostics
    return finding


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", ""), ("é\r\n".encode(), "é\r\n"), (BOM + b"a", "a"), (BOM, ""), (BOM + BOM + b"a", "\ufeffa")],
)
def test_text(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "f").write_bytes(content)
    assert read_text_file(tmp_path / "f", KIND) == text


@pytest.mark.parametrize("mark", [b"", BOM])
def test_the_place_of_a_bad_byte(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(mark + "é\rb\r\nüx".encode() + b"\xff")
    finding = refused(path, WHERE)
    assert (finding.code, finding.span) == ("CS151", Span(str(path), 3, 3))
    assert finding.message == "the file of X is not UTF-8 text"
    assert finding.label == f"byte 0xff at offset {len(mark) + 9}"


def test_size(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 2_000_000)
    assert len(read_text_file(path, KIND)) == 2_000_000
    path.write_bytes(b"x" * 2_000_001)
    finding = refused(path, WHERE)
    assert (finding.code, finding.span, finding.hint) == ("CS157", WHERE, "cut it")
    assert finding.message == "the file of X is larger than 2 MB"
    assert refused(path, None).span == Span(str(path), 1, 1)
    with pytest.raises(TooLarge):
        read_regular(path, 2_000_000)


def test_missing(tmp_path: Path) -> None:
    path = tmp_path / "f"
    assert refused(path, WHERE) == Diagnostic(
        "CS150", "the file of X does not exist", WHERE, f"looked for {path}", "look again"
    )
    assert refused(path, None) == Diagnostic("CS150", f"{path} does not exist", None, "", "look again")


def make_pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def make_link(path: Path) -> Path:
    path.symlink_to(make_pipe(path.with_suffix(".pipe")))
    return path


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.skipif(os.name != "posix", reason="makes pipes")
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (make_pipe, "a pipe"),
        (make_link, "a pipe"),
        (make_folder, "a folder"),
        (lambda _: Path("/dev/zero"), "a device"),
    ],
    ids=["pipe", "link to a pipe", "folder", "device"],
)
def test_what_is_no_regular_file_is_never_opened(tmp_path: Path, make: object, what: str) -> None:
    assert callable(make)
    path = make(tmp_path / "f")
    finding = refused(path, WHERE)
    assert (finding.code, finding.label) == ("CS150", str(path))
    assert finding.message == f"the file of X cannot be read: it is {what}, not a regular file"


def test_a_name_that_is_none(tmp_path: Path) -> None:
    assert refused(tmp_path / "a\0b", WHERE).message.startswith("the file of X cannot be read: ")
    assert refused(tmp_path / ("x" * 5000), None).code == "CS150"


@pytest.mark.skipif(os.name != "posix", reason="makes pipes")
def test_a_hypothesis_or_list_that_is_a_pipe(tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError) as caught:
        load_hypothesis(make_pipe(tmp_path / "pipe.circuit.yaml"))
    (finding,) = caught.value.diagnostics
    assert finding.code == "CS100"
    assert render([finding])
    make_pipe(tmp_path / "names.txt")
    with pytest.raises(CircuitspecError, match="CS150"):
        load_lists({"names": "names.txt"}, tmp_path)
    path = tmp_path / "h.circuit.yaml"
    path.write_text(good_but(("[Mary, John, Tom, James, Anna, Paul]", "names.txt")), encoding="utf-8")
    with pytest.raises(CircuitspecError) as caught:
        load_hypothesis(path)
    (finding,) = caught.value.diagnostics
    assert (finding.code, finding.span) == ("CS150", Span(str(path), 7, 18, 27))


def test_a_hypothesis_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "h.circuit.yaml"
    path.write_bytes(BOM + GOOD.encode())
    assert load_hypothesis(path).hypothesis.name == "small"
