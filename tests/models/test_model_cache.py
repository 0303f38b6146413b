"""Cached directories: built once, whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from circuitspec.models.storage.cache import cache_root, cached_directory

CodeOf = Callable[[Callable[[], object]], str]


def writer(built: list[str], text: str = "text") -> Callable[[Path], None]:
    def build(directory: Path) -> None:
        built.append(text)
        (directory / "a.txt").write_text(text)
        (directory / "b.bin").write_bytes(bytes(range(256)))

    return build


def test_built_once() -> None:
    built: list[str] = []
    first = cached_directory("kind", "key", writer(built))
    assert cached_directory("kind", "key", writer(built)) == first == cache_root() / "kind" / "key"
    assert built == ["text"]
    assert (first / "a.txt").read_text() == "text"
    cached_directory("kind", "other", writer(built, "other"))
    assert built == ["text", "other"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: (d / "b.bin").write_bytes(bytes(range(255)) + b"\x00"),
        lambda d: (d / "b.bin").write_bytes(b""),
        lambda d: (d / "a.txt").unlink(),
        lambda d: (d / "manifest.json").unlink(),
        lambda d: (d / "manifest.json").write_text("{"),
        lambda d: (d / "manifest.json").write_text("{}"),
        lambda d: (d / "manifest.json").write_text("[1]"),
        lambda d: (d / "manifest.json").write_bytes(b"\xff"),
    ],
)
def test_a_broken_one_is_rebuilt(damage: Callable[[Path], object]) -> None:
    built: list[str] = []
    directory = cached_directory("kind", "key", writer(built))
    damage(directory)
    cached_directory("kind", "key", writer(built, "again"))
    assert built == ["text", "again"]
    assert (directory / "a.txt").read_text() == "again"
    assert (directory / "b.bin").read_bytes() == bytes(range(256))


def test_an_interrupted_build_leaves_nothing() -> None:
    def interrupted(directory: Path) -> None:
        (directory / "a.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_directory("kind", "key", interrupted)
    assert [path.name for path in (cache_root() / "kind").iterdir() if path.suffix != ".lock"] == []
    built: list[str] = []
    assert (cached_directory("kind", "key", writer(built)) / "a.txt").read_text() == "text"


_KILLED = """
import os, signal, sys
from pathlib import Path
from circuitspec.models.storage.cache import cached_directory
def build(directory):
    (directory / "model.safetensors").write_bytes(bytes(1000))
    if sys.argv[2] == "wait":
        print("building", flush=True)
        sys.stdin.read()
    else:
        os.kill(os.getpid(), signal.SIGKILL)
cached_directory("kind", sys.argv[1], build)
"""


def _left() -> list[str]:
    return sorted(path.name.rpartition("-")[0] for path in (cache_root() / "kind").iterdir() if path.suffix != ".lock")


def test_what_a_killed_process_left_is_removed_and_what_is_being_built_is_not() -> None:
    for key in ("key", "other"):
        killed = subprocess.run([sys.executable, "-c", _KILLED, key, "die"], check=False)
        assert killed.returncode == -signal.SIGKILL
    assert _left() == [".key", ".other"]
    builder = subprocess.Popen(
        [sys.executable, "-c", _KILLED, "alive-1", "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert builder.stdin is not None
    assert builder.stdout is not None
    assert builder.stdout.readline() == b"building\n"
    assert _left() == [".alive-1", ".key", ".other"]
    built: list[str] = []
    cached_directory("kind", "third", writer(built))
    assert _left() == ["", ".alive-1"]  # the third, which is whole
    cached_directory("kind", "third", writer(built))
    assert built == ["text"]
    builder.communicate()
    assert builder.returncode == 0
    assert {path.name for path in (cache_root() / "kind").iterdir() if path.is_dir()} == {"alive-1", "third"}
    assert cached_directory("kind", "key", writer(built)).is_dir()  # whose lock is free again


def _append_to_log(log: str) -> None:
    def build(directory: Path) -> None:
        with open(log, "a") as stream:
            stream.write("built\n")
        (directory / "a.txt").write_text("text")

    cached_directory("kind", "key", build)


def test_processes_wait_for_each_other(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append_to_log, args=(str(log),)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert log.read_text() == "built\n"


def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code_of: CodeOf) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CIRCUITSPEC_CACHE", str(tmp_path / "file" / "cache"))
    assert code_of(lambda: cached_directory("kind", "key", writer([]))) == "CS319"


def test_full_disk(code_of: CodeOf) -> None:
    def full(directory: Path) -> None:
        raise OSError(28, "No space left on device")

    assert code_of(lambda: cached_directory("kind", "key", full)) == "CS319"


def test_lock_that_is_never_released(monkeypatch: pytest.MonkeyPatch, code_of: CodeOf) -> None:
    from filelock import FileLock

    monkeypatch.setattr("circuitspec.models.storage.cache._LOCK_SECONDS", 0.1)
    directory = cache_root() / "kind"
    directory.mkdir(parents=True)
    with FileLock(directory / "key.lock"):
        assert code_of(lambda: cached_directory("kind", "key", writer([]))) == "CS319"


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CIRCUITSPEC_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    monkeypatch.delenv("CIRCUITSPEC_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "circuitspec"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path(os.environ["HOME"]) / ".cache" / "circuitspec"
