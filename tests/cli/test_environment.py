"""Users without a home, and caches that cannot be written: what was not asked for stops nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from circuitspec.cli.options import store_place
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.cache.experiment_store import Store
from circuitspec.models.storage.cache import cache_root

ROOT = Path(__file__).parents[2]
HYPOTHESIS = ROOT / "hypotheses" / "ioi-tiny.circuit.yaml"
HOMES = ("HOME", "XDG_CACHE_HOME", "HF_HOME", "CIRCUITSPEC_CACHE", "CIRCUITSPEC_NO_STORE", "CIRCUITSPEC_STORE")

_NOBODY = """
import pwd, sys
def unknown(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = unknown
from circuitspec.cli import main
main(sys.argv[1:], prog_name="circuitspec")
"""


def by_nobody(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command of a user whom the system does not know, as in `docker run --user 12345`, and who has no HOME."""
    environment = {name: value for name, value in os.environ.items() if name not in HOMES}
    return subprocess.run(
        [sys.executable, "-c", _NOBODY, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**environment, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.nightly
def test_a_user_without_a_home(tmp_path: Path) -> None:
    for command in ("check", "plan"):
        ran = by_nobody(command, HYPOTHESIS, folder=tmp_path)
        assert ran.returncode == 0, ran.stderr
    ran = by_nobody("verify", HYPOTHESIS, "--negatives", "off", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("warning[CS565]") == 1
    assert "this user has no home folder" in ran.stderr
    assert "--store DIR" in ran.stderr
    hub = by_nobody("doctor", "owner/model", folder=tmp_path)
    assert hub.returncode == 5
    assert "set HF_HOME" in hub.stderr
    asked = by_nobody("verify", HYPOTHESIS, "--negatives", "off", "--store", tmp_path / "s", folder=tmp_path)
    assert (asked.returncode, "CS565" in asked.stderr) == (0, False)
    assert {path.name for path in tmp_path.iterdir()} == {"s"}  # nothing was put into a folder called ~
    nowhere = by_nobody("verify", HYPOTHESIS, "--no-store", "--negatives", "off", folder=tmp_path)
    assert (nowhere.returncode, nowhere.stderr.count("CS565")) == (0, 0)


@pytest.mark.nightly
def test_such_a_user_in_a_namespace_of_the_system(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    inside = ["unshare", "-U", "--map-user=12345", "--map-group=12345"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces of users are not allowed here")
    environment = {name: value for name, value in os.environ.items() if name not in HOMES}
    ran = subprocess.run(
        [*inside, sys.executable, "-m", "circuitspec", "verify", str(HYPOTHESIS), "--negatives", "off"],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("warning[CS565]") == 1


def test_no_home_is_told_by_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in HOMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(CircuitspecError, match="CS319: this user has no home folder"):
        cache_root()


def verify(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("CIRCUITSPEC_")}
    return subprocess.run(
        [sys.executable, "-m", "circuitspec", "verify", str(HYPOTHESIS), "--negatives", "off", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**known, **environment, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.nightly
def test_a_cache_that_cannot_be_written_is_done_without_unless_it_was_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    plain = verify("--no-store")
    ran = verify(CIRCUITSPEC_CACHE=str(file / "cache"))
    assert ran.returncode == plain.returncode == 0, ran.stderr
    assert ran.stderr.count("warning[CS565]") == 1
    assert "Not a directory" in ran.stderr
    assert ran.stdout.split("forwards,")[0] == plain.stdout.split("forwards,")[0]
    asked = verify("--store", file / "store")
    assert asked.returncode == 5
    assert "error[CS545]" in asked.stderr
    by_variable = verify(CIRCUITSPEC_STORE=str(file / "store"))
    assert (by_variable.returncode, "error[CS545]" in by_variable.stderr) == (5, True)


def test_a_store_that_fails_on_the_way_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full after the first entry: what was measured until then is asked for no more."""
    import numpy as np

    told: list[str] = []
    with Store(tmp_path / "s", spare=lambda problem: told.append(problem.diagnostics[0].code)) as store:
        store.put({b"a" * 32: {"x": np.ones(3)}})
        assert set(store.get([b"a" * 32])) == {b"a" * 32}

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        store.put({b"b" * 32: {"x": np.ones(3)}})
        store.put({b"c" * 32: {"x": np.ones(3)}})
        store.refresh()
        store.drop_own()
        store.drop_older(0.0)
        assert store.get([b"a" * 32, b"b" * 32]) == {}
        assert told == ["CS545"]
    monkeypatch.undo()
    with Store(tmp_path / "s") as again:  # what was kept before is whole
        assert set(again.get([b"a" * 32, b"c" * 32])) == {b"a" * 32}


def test_where_a_store_is(tmp_path: Path) -> None:
    assert store_place(tmp_path, no_store=False) == tmp_path
    assert store_place(tmp_path, no_store=True) is None
    assert store_place(None, no_store=True) is None
