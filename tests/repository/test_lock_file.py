"""Locks on disk: what is written is read back, and nothing can be changed in it unnoticed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError, exit_code
from circuitspec.repository.lock import Lock, lock_path
from circuitspec.repository.lock_file import read_lock, render_lock, write_lock
from tests.repository.support import LOCK, Run, errors_of

TEXT = render_lock(LOCK, "x.circuit.yaml")


def read(folder: Path, text: str) -> tuple[Lock, tuple[str, ...]]:
    path = folder / "x.circuit.lock"
    path.write_text(text, encoding="utf-8")
    found = read_lock(path)
    return found.lock, tuple(d.message for d in found.damage)


def refused(folder: Path, text: str) -> tuple[str, ...]:
    return tuple(d.code for d in errors_of(lambda: read(folder, text)))


def test_what_is_written_is_read_back(tmp_path: Path, run: Run) -> None:
    for lock in (LOCK, run.lock):
        path = tmp_path / "x.circuit.lock"
        write_lock(path, lock, "x.circuit.yaml")
        found = read_lock(path)
        assert found.lock == lock
        assert found.damage == ()
    assert [path.name for path in tmp_path.iterdir()] == ["x.circuit.lock"]  # nothing is left beside it
    assert path.read_text(encoding="utf-8").startswith("# Written by `circuitspec lock x.circuit.yaml`")


def test_the_name_of_a_lock() -> None:
    assert lock_path(Path("a/ioi.circuit.yaml")) == Path("a/ioi.circuit.lock")
    assert lock_path(Path("ioi.yml")) == Path("ioi.lock")


def test_no_digit_can_be_changed_unnoticed(tmp_path: Path) -> None:
    """Every digit of a lock, but for those of its comment, by the one after it."""
    start = TEXT.index("lock_version")
    places = [match.start() for match in re.finditer("[0-9]", TEXT) if match.start() > start]
    assert len(places) > 100
    for place in places:
        text = f"{TEXT[:place]}{(int(TEXT[place]) + 1) % 10}{TEXT[place + 1 :]}"
        try:
            _, damage = read(tmp_path, text)
        except CircuitspecError as error:  # it is no longer a lock: a checksum that reads as a number, another version
            damage = tuple(d.message for d in error.diagnostics)
        assert damage, TEXT[max(0, place - 40) : place + 10]


def test_the_part_that_was_changed_is_named_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.circuit.lock"
    path.write_text(TEXT.replace("value: 0.88", "value: 0.89"), encoding="utf-8")
    (found,) = read_lock(path).damage
    assert found.code == "CS551"
    assert exit_code([found]) == 6  # not as locked
    assert "claim 1 (sufficient, logit_diff)" in found.message
    assert found.span is not None
    lines = TEXT.splitlines()
    assert lines[found.span.line - 1].startswith("- claim:")
    assert found.span.line < next(i for i, line in enumerate(lines, 1) if "value: 0.88" in line)


def test_claims_that_change_places_or_are_taken_out_are_noticed(tmp_path: Path) -> None:
    first, second = TEXT.index("- claim:"), TEXT.rindex("- claim:")
    end = TEXT.index("checksums:")
    swapped = TEXT[:first] + TEXT[second:end] + TEXT[first:second] + TEXT[end:]
    assert len(read(tmp_path, swapped)[1]) == 2
    without = TEXT[:second] + TEXT[end:]
    assert read(tmp_path, without)[1] == ("the checksum of `claims[1]` was changed after the lock was written",)


def test_what_is_no_lock(tmp_path: Path) -> None:
    assert refused(tmp_path, "- a\n") == ("CS551",)
    assert refused(tmp_path, "name: x\n") == ("CS551",)
    assert refused(tmp_path, "") == ("CS103",)
    assert refused(tmp_path, "lock_version: 2\n") == ("CS551",)
    assert "CS551" in refused(tmp_path, "lock_version: 1\n")
    assert refused(tmp_path, TEXT.replace("dtype:", "type:")) == ("CS551", "CS551")  # one missing, one unknown
    assert refused(tmp_path, TEXT.replace("value: 0.88", "value: .nan"))[0].startswith("CS")
    assert refused(tmp_path, "lock_version: [1\n") == ("CS104",)
    assert read(tmp_path, TEXT[: TEXT.index("checksums:")])[1] == ("the lock has no checksums",)


def test_a_lock_that_is_not_there(tmp_path: Path) -> None:
    (found,) = errors_of(lambda: read_lock(tmp_path / "none.lock"))
    assert found.code == "CS550"
    assert "circuitspec lock" in found.hint
    assert exit_code([found]) == 3


def test_a_lock_that_cannot_be_written(tmp_path: Path) -> None:
    taken = tmp_path / "x.circuit.lock"
    taken.mkdir()
    assert [d.code for d in errors_of(lambda: write_lock(taken, LOCK, "x"))] == ["CS557"]
    assert [d.code for d in errors_of(lambda: write_lock(tmp_path / "none" / "x.lock", LOCK, "x"))] == ["CS557"]
    assert [path.name for path in tmp_path.iterdir()] == ["x.circuit.lock"]


@pytest.mark.parametrize("name", ['"', "{", "12e3", "\N{LINE SEPARATOR}", "é\t", "#", "- x", "\u0085"])
def test_any_name_survives(tmp_path: Path, name: str) -> None:
    lock = LOCK.model_copy(update={"hypothesis": LOCK.hypothesis.model_copy(update={"name": name})})
    assert read(tmp_path, render_lock(lock, "x")) == (lock, ())
