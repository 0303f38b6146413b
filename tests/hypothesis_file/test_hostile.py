"""Whatever the bytes of a file: it is read, or refused with diagnostics. Never a traceback, never for long."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitspec.diagnostics.diagnostic import CircuitspecError, exit_code, render
from circuitspec.hypothesis_file.load_file import load_hypothesis, parse_hypothesis
from circuitspec.hypothesis_file.yaml.source import parse_source
from circuitspec.reports.explanations import all_codes
from tests.hypothesis_file.support import GOOD, WRONG_FILES
from tests.hypothesis_file.test_lists import WRONG as WRONG_LISTS


def refused(text: str) -> list[str]:
    """The codes of a text that is refused (rendered too, which must not fail either); none if it is accepted."""
    try:
        parse_hypothesis(text, "hostile.circuit.yaml")
    except CircuitspecError as error:
        findings = error.diagnostics
    else:
        return []
    assert render(findings, {"hostile.circuit.yaml": text})
    assert exit_code(findings) == 3
    assert {finding.code for finding in findings} <= set(all_codes())
    return [finding.code for finding in findings]


LINES = GOOD.splitlines(keepends=True)


@pytest.mark.parametrize("count", range(len(LINES)))
def test_cut_after_every_line(count: int) -> None:
    assert refused("".join(LINES[:count]))


def test_cut_at_every_byte() -> None:
    accepted = [cut for cut in range(len(GOOD)) if not refused(GOOD[:cut])]
    assert accepted == [len(GOOD) - 1]  # without the last line end


def test_every_line_left_out() -> None:
    for left_out in range(len(LINES)):
        refused("".join(LINES[:left_out] + LINES[left_out + 1 :]))


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 12), st.text(max_size=6))
def test_a_piece_replaced_by_anything(start: int, length: int, text: str) -> None:
    refused(GOOD[:start] + text + GOOD[start + length :])


@given(st.integers(0, len(GOOD) - 1), st.text(alphabet="{}[]:,-'\"&*!|>%@`#?<~\\\n\t 0.", min_size=1, max_size=4))
def test_signs_of_yaml_put_in_anywhere(start: int, text: str) -> None:
    refused(GOOD[:start] + text + GOOD[start:])


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
PATHS = [
    ("name",), ("model",), ("model", "id"), ("task",), ("task", "templates"), ("task", "slots"), ("task", "lists"),
    ("task", "answer"), ("task", "wrong"), ("task", "corruptions"), ("task", "positions"), ("task", "prompts"),
    ("task", "generate"), ("circuit",), ("circuit", "groups"), ("circuit", "free"), ("circuit", "paths"),
    ("ablation",), ("ablation", "from"), ("claims",),
]  # fmt: skip


@given(
    st.sampled_from(PATHS),
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
        max_leaves=8,
    ),
)
def test_any_data_anywhere(path: tuple[str, ...], value: object) -> None:
    """Well-formed YAML (written as JSON, which is YAML) with an arbitrary value put in one place."""
    data = json.loads(json.dumps(parse_source(GOOD, "good").data))
    block = data
    for step in path[:-1]:
        block = block[step]
    block[path[-1]] = value
    refused(json.dumps(data, ensure_ascii=True).replace("NaN", ".nan").replace("Infinity", ".inf"))


def _bomb() -> str:
    lines = ["a0: &a0 [" + "lol, " * 9 + "]"]
    lines += [f"a{i}: &a{i} [" + f"*a{i - 1}, " * 9 + "]" for i in range(1, 60)]
    return "\n".join(lines)


HOSTILE: dict[str, tuple[Callable[[], str], str]] = {
    "anchor bomb": (_bomb, "CS107"),
    "10,000 open brackets": (lambda: "a: " + "[" * 10_000, "CS108"),
    "10,000 pairs of brackets": (lambda: "a: " + "[" * 10_000 + "]" * 10_000, "CS108"),
    "10,000 open braces": (lambda: "{a: " * 10_000, "CS108"),
    "10,000 dashes": (lambda: "- " * 10_000, "CS108"),
    "10,000 question marks": (lambda: "? " * 10_000, "CS108"),
    "1,000 indents": (lambda: "\n".join(" " * depth + "a:" for depth in range(1_000)), "CS108"),
    "100,000 quotes": (lambda: "'" * 100_001, "CS104"),
    "10,000 anchors": (lambda: "&a " * 10_000, "CS104"),
    "anchor that is replaced": (lambda: GOOD.replace("name: small", "name: &a small\nx: &a y\nz: *a"), "CS110"),
    "NUL": (lambda: GOOD.replace("small", "sm\0all"), "CS118"),
    "only NUL": (lambda: "\0" * 1000, "CS118"),
    "escape character": (lambda: GOOD.replace("small", "\x1b[31msmall"), "CS118"),
    "lone surrogate escape": (lambda: GOOD.replace("small", '"\\ud800"'), "CS118"),
    "escape beyond Unicode": (lambda: GOOD.replace("small", '"\\UFFFFFFFF"'), "CS104"),
    "python tag": (lambda: GOOD.replace("small", "!!python/object/apply:os.system [ls]"), "CS106"),
    "tag with a handle": (lambda: "%TAG ! tag:x.org,2000:\n---\n" + GOOD.replace("small", "!foo small"), "CS106"),
    "nan bound": (lambda: GOOD.replace("0.8", ".nan"), "CS123"),
    "infinite bound": (lambda: GOOD.replace("0.8", "-.inf"), "CS123"),
    "overflowing bound": (lambda: GOOD.replace("0.8", "1e999"), "CS123"),
    "huge integer": (lambda: GOOD.replace("{END: last}", "{END: last}\n  seed: " + "9" * 5000), "CS115"),
    "huge negative integer": (lambda: GOOD.replace("0.8", "-" + "9" * 30), "CS115"),
    "huge hexadecimal": (lambda: GOOD.replace("0.8", "0x" + "f" * 30), "CS115"),
    "huge layer": (lambda: GOOD.replace("a3.h0", "a" + "9" * 5000 + ".h0"), "CS117"),
    "huge head as number": (lambda: GOOD.replace("[a3.h0]", "[3." + "9" * 500 + "]"), "CS112"),
    "long name": (lambda: GOOD.replace("a3.h0", "a" * 100_000), "CS117"),
    "long path": (lambda: GOOD.replace("mover -> logits", "a, " * 50_000 + "a -> b"), "CS204"),
    "many fields": (lambda: GOOD.replace("{IO} and", "{x} " * 20_000), "CS131"),
    "many keys": (lambda: "".join(f"k{i}: {i}\n" for i in range(5_000)), "CS110"),
    "too many keys": (lambda: GOOD + "x: {" + ", ".join(f"k{i}: {i}" for i in range(10_001)) + "}", "CS171"),
    "many nodes": (lambda: GOOD.replace("[a3.h0]", "[" + ", ".join(["a3.h0"] * 5_000) + "]"), "CS200"),
    "long comment": (lambda: "#" * 900_000, "CS103"),
    "one long line": (lambda: '"' + "x" * 900_000 + '"', "CS113"),
    "a number": (lambda: "3", "CS113"),
    "a text": (lambda: "hello", "CS113"),
    "only a document start": (lambda: "---\n", "CS103"),
    "only an end": (lambda: "...\n", "CS104"),
    "a byte order mark inside": (lambda: GOOD.replace("small", "sm\ufeffall"), "CS118"),
    "windows line ends": (lambda: GOOD.replace("\n", "\r\n"), ""),
    "old mac line ends": (lambda: GOOD.replace("\n", "\r"), ""),
    "unicode": (lambda: GOOD.replace("Mary", "Zoë").replace("home", "家🎉"), ""),
}


LONGEST = ("long path", "too many keys")  # they take a second each


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.nightly] * (kind in LONGEST)) for kind in HOSTILE]
)
def test_hostile_text(kind: str) -> None:
    make, code = HOSTILE[kind]
    text = make()
    started = time.process_time()
    found = refused(text)
    assert time.process_time() - started < 20  # far above what it takes; a blow-up would take hours
    if code:
        assert code in found
    else:
        assert found == []


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (GOOD.encode("utf-16"), "CS101"),
        (GOOD.encode("utf-32"), "CS101"),
        (GOOD.replace("small", "é").encode("latin-1"), "CS101"),
        (b"\xff\xfe", "CS101"),
        (bytes(range(256)), "CS101"),
        (b"x" * 10_000_000, "CS102"),
        (b"a: [" + b"x," * 5_000_000, "CS102"),
        (b"", "CS103"),
        (b"\xef\xbb\xbf", "CS103"),
    ],
)
def test_hostile_bytes(tmp_path: Path, content: bytes, code: str) -> None:
    file = tmp_path / "hostile.circuit.yaml"
    file.write_bytes(content)
    with pytest.raises(CircuitspecError) as caught:
        load_hypothesis(file)
    assert [finding.code for finding in caught.value.diagnostics] == [code]
    assert render(caught.value.diagnostics)


@pytest.mark.parametrize("name", ["missing.circuit.yaml", "folder.circuit.yaml", "nul\0.circuit.yaml", "x" * 5000])
def test_no_such_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.circuit.yaml").mkdir()
    with pytest.raises(CircuitspecError) as caught:
        load_hypothesis(tmp_path / name)
    assert [finding.code for finding in caught.value.diagnostics] == ["CS100"]
    assert render(caught.value.diagnostics).startswith("error[CS100]: ")


def test_every_code_of_files_is_provoked() -> None:
    """The wrong files, the hostile bytes and the lists' tests together provoke every code that `spec` gives out."""
    provoked = {code for _, code in WRONG_LISTS} | {code for _, code in HOSTILE.values() if code}
    provoked |= {"CS100", "CS101", "CS102"}  # in this module
    provoked |= {"CS173"}  # takes a model's size: in tests/experiments/test_random_circuits.py
    provoked |= {"CS185"}  # takes a model's components: in tests/test_align.py
    for file in WRONG_FILES.glob("*.expected"):
        text = file.read_text(encoding="utf-8")
        provoked |= {code for code in all_codes() if f"error[{code}]" in text}
    owned = {code for code in all_codes() if code < "CS220"}
    assert provoked == owned
