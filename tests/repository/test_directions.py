"""The file of numbers that a metric projects along is part of what a result depends on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import exit_code
from circuitspec.hypothesis_file.load_file import digest, load_hypothesis
from circuitspec.pipelines.check import check_file
from circuitspec.pipelines.plan import plan_file
from circuitspec.repository.drift import examine
from circuitspec.repository.lock import Lock, as_json
from circuitspec.repository.lock_file import read_lock, write_lock
from tests.repository.support import Run, edited, errors_of

PROJECTION = "projection(r3@END, probe.txt)"
CLAIM = "  - sufficient: {metric: {projection: r3, at: END, along: probe.txt}, at_least: -9}\n"
FIRST = "  - sufficient: {metric: logit_diff, at_least: 0.8, at_most: 1.2}\n"
WIDTH = 64


@pytest.fixture
def probed(copy: Path) -> Path:
    (copy.parent / "probe.txt").write_text("1 " * WIDTH, encoding="utf-8")
    edited(copy, (FIRST, CLAIM + FIRST))
    return copy


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def lock_of(run: Run, file: Path, directions: dict[str, str] | None) -> Lock:
    """The lock of another run, as if it were of this file."""
    document = load_hypothesis(file)
    hypothesis = run.lock.hypothesis.model_copy(
        update={"digest": digest(document.hypothesis), "content": as_json(document.source.data)}
    )
    return run.lock.model_copy(update={"hypothesis": hypothesis, "directions": directions})


def test_a_direction_that_changed_is_named(probed: Path) -> None:
    """And with everything in place nothing is; a projection along ones says nothing about the claim."""
    assert call("lock", probed).exit_code == 0
    lock = read_lock(probed.with_suffix(".lock"))
    was = hashlib.sha256(b"1 " * WIDTH).hexdigest()
    assert (lock.lock.directions, lock.damage) == ({"probe.txt": was}, ())
    assert call("verify", "--locked", "--negatives", "off", probed).exit_code == 4
    (probed.parent / "probe.txt").write_text("2 " * WIDTH, encoding="utf-8")
    now = hashlib.sha256(b"2 " * WIDTH).hexdigest()
    found = call("verify", "--locked", "--negatives", "off", probed)
    assert found.exit_code == 6
    assert f"probe.txt (direction) changed since it was locked: sha256 {was[:12]}... -> sha256 {now[:12]}..." in (
        " ".join(found.output.split())
    )


def test_a_direction_that_is_gone(run: Run, probed: Path) -> None:
    write_lock(probed.with_suffix(".lock"), lock_of(run, probed, {"probe.txt": "ab" * 32}), probed.name)
    (probed.parent / "probe.txt").unlink()
    document = load_hypothesis(probed)
    (finding,) = examine(document, read_lock(probed.with_suffix(".lock")), "cpu").drift
    assert (finding.code, exit_code([finding])) == ("CS552", 6)
    assert finding.message.endswith("sha256 abababababab... -> none")
    assert finding.span == document.source.span(("claims", 0, "sufficient", "metric", "along"))


def test_a_lock_from_before_has_no_digest_and_is_read(run: Run, probed: Path) -> None:
    file = probed.with_suffix(".lock")
    write_lock(file, lock_of(run, probed, None), probed.name)
    assert "directions" not in file.read_text(encoding="utf-8")
    read = read_lock(file)
    assert read.damage == ()
    (finding,) = examine(load_hypothesis(probed), read, "cpu").drift
    assert (finding.code, finding.severity) == ("CS552", "note")
    assert finding.message == "the lock has no digest of probe.txt (direction), so whether it changed is not known"


def test_a_digest_that_was_edited_in_the_lock(run: Run, probed: Path) -> None:
    file = probed.with_suffix(".lock")
    write_lock(file, lock_of(run, probed, {"probe.txt": "ab" * 32}), probed.name)
    file.write_text(file.read_text(encoding="utf-8").replace("abab", "cdcd", 1), encoding="utf-8")
    (damage,) = read_lock(file).damage
    assert damage.message == "`directions` was changed after the lock was written"


@pytest.mark.parametrize("spelled", ["{projection: r3, at: END, along: probe.txt}", f"'{PROJECTION}'"])
@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        (None, "probe.txt does not exist"),
        ("1 2 3", "probe.txt holds 3 numbers; the model's vectors have 64"),
        ("1 2 x", "probe.txt does not hold numbers alone"),
    ],
)
def test_a_direction_is_checked_where_it_is_named(probed: Path, spelled: str, numbers: str | None, said: str) -> None:
    file = probed.parent / "probe.txt"
    file.unlink()
    if numbers is not None:
        file.write_text(numbers, encoding="utf-8")
    edited(probed, ("{projection: r3, at: END, along: probe.txt}", spelled))
    line = probed.read_text(encoding="utf-8").splitlines().index(f"  - sufficient: {{metric: {spelled}, at_least: -9}}")
    for findings in (check_file(probed)[0], errors_of(lambda: plan_file(probed))):
        (finding,) = findings
        assert (finding.code, finding.message.startswith(said)) == ("CS432", True), finding.message
        assert finding.span is not None
        column = len("  - sufficient: {metric: ") + 1
        at_file = spelled.find("probe.txt") if spelled.startswith("{") else 0
        assert (finding.span.line, finding.span.column) == (line + 1, column + at_file)
