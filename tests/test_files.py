"""Files are read only if they are files, and written whole or not at all; nothing in the package writes otherwise."""

from __future__ import annotations

import ast
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from circuitspec.runtime.files import put_in_place, read_regular, write_text_whole

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "circuitspec"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "x.html"
    write_text_whole(path, "new é")
    assert path.read_bytes() == "new é".encode()
    path.chmod(0o640)
    write_text_whole(path, "newer")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("newer", 0o640)
    assert list(contents(tmp_path)) == ["x.html"]


def test_what_cannot_be_written_is_left_as_it_was_and_named(tmp_path: Path) -> None:
    path = tmp_path / "x.html"
    path.write_text("old")

    def half(aside: Path) -> None:
        aside.write_text("ha")
        raise OSError(28, "No space left on device", "something else")

    with pytest.raises(OSError, match="No space left on device") as raised:
        put_in_place(path, half)
    assert (raised.value.errno, raised.value.filename) == (28, str(path))
    assert contents(tmp_path) == {"x.html": b"old"}
    with pytest.raises(OSError, match="No such file") as raised:
        write_text_whole(tmp_path / "none" / "x", "")
    assert raised.value.filename == str(tmp_path / "none" / "x")


def test_links_are_followed_and_long_names_are_written(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "real", tmp_path / "link"
    real.write_text("old")
    link.symlink_to(real)
    write_text_whole(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    long = tmp_path / ("é" * 127)  # of 254 bytes
    write_text_whole(long, "x")
    assert long.read_text() == "x"


def test_what_is_no_file_is_written_to_as_it_is(tmp_path: Path) -> None:
    """A device that is always full says so, under its name; a pipe gets the text."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_text_whole(Path("/dev/full"), "text")
    assert raised.value.filename == "/dev/full"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text_whole(pipe, "text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to everything")
def test_a_file_that_may_not_be_written_to_stays(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    path.chmod(0o444)
    with pytest.raises(PermissionError):
        write_text_whole(path, "new")
    assert path.read_text() == "old"


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a pipe, not a regular file"):
        read_regular(tmp_path / "pipe", 100)


# ------------------------------------------------------------------------------------------------- the whole package


# function -> why it may write to a file by itself
_WRITERS = {
    "runtime/files.write_whole": "the one that writes aside",
    "reports/machine/table_files.text_file": "what `write_folder` puts in place",
    "reports/machine/table_files._write_parquet": "the same",
    "reports/machine/bundle_files._fill": "into a folder that is put in place whole",
    "models/storage/cache._build": "the same",
    "models/gguf._convert": "the same",
    "reports/text/measured_table.table_text": "into a text",
    "engine/cache/experiment_store.Store._append": "the store's own segments, which are only added to",
    "engine/pyvene_export/bundle/run.main": "aside, by itself: a bundle needs nothing of this package",
}
_METHODS = {"write_text", "write_bytes", "to_csv", "to_parquet", "savefig"}
_MODES = set("wxa")


def writes(tree: ast.AST, name: str) -> Iterator[str]:
    """The functions that open files for writing."""
    for node in ast.iter_child_nodes(tree):
        inner = name
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inner = f"{name}.{node.name}"
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            modes = {a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)}
            opened = called in ("open", "FileIO", "fdopen") and any(
                isinstance(mode, str) and set(mode) <= set("rwxabt+") and set(mode) & _MODES for mode in modes
            )
            if called in _METHODS or opened or called == "save_file":
                yield inner
        yield from writes(node, inner)


def test_nothing_else_in_the_package_writes_files() -> None:
    """A new writer goes through `circuitspec.runtime.files`, or stands above with its reason."""
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix()
        found |= set(writes(ast.parse(path.read_text(encoding="utf-8")), name))
    found = {one for one in found if not one.startswith("reports/figures/")}  # into memory
    assert found - set(_WRITERS) == set()


# ------------------------------------------------------------------------------------------------- a disk that is full


def command(*arguments: object, limit: int | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of its own, whose files may grow to so many bytes: then the system refuses, as a full disk does."""

    def limited() -> None:
        assert limit is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", "circuitspec", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=None if limit is None else limited,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        cwd=ROOT,
    )


HYPOTHESIS = "hypotheses/ioi-tiny.circuit.yaml"


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["export", HYPOTHESIS, "--as", "eap", "--force", "-o"], "x.json"),
        (["export", HYPOTHESIS, "--as", "acdc", "--force", "-o"], "x.pth"),
        (["init", "--force"], "x.circuit.yaml"),
        (["import", "{graph}", "--as", "eap", "--force", "-o"], "y.circuit.yaml"),
    ],
)
@pytest.mark.nightly
def test_where_there_is_no_room_the_old_file_stays(arguments: list[str], output: str, tmp_path: Path) -> None:
    graph = tmp_path / "graph.json"
    assert command("export", HYPOTHESIS, "--as", "eap", "-o", graph).returncode == 0
    out = tmp_path / output
    out.write_text("old")
    before = contents(tmp_path)
    ran = command(*(argument.format(graph=graph) for argument in arguments), out, limit=200)
    assert ran.returncode == 5, ran.stderr
    assert ran.stderr.splitlines()[-1] == f"error: File too large: {out}"
    assert contents(tmp_path) == before
    assert command(*(argument.format(graph=graph) for argument in arguments), out).returncode == 0
    assert out.read_bytes() != b"old"


@pytest.mark.slow
def test_a_result_is_of_one_run_whatever_fails(tmp_path: Path) -> None:
    """A rerun for which there is no room leaves the earlier result whole, and one that succeeds nothing of it."""
    out = tmp_path / "out"
    first = command("verify", HYPOTHESIS, "--negatives", "off", "--methods", "--output-dir", out)
    assert first.returncode == 0, first.stderr
    before = contents(out)
    assert {"sweep.csv", "report.json", "prompts.parquet"} <= set(before)
    failed = command("verify", HYPOTHESIS, "--negatives", "off", "--output-dir", out, limit=12_000)
    assert failed.returncode == 5
    assert "error[CS513]: the results cannot be written to " in failed.stderr
    assert "what an earlier run left in this one is as it was" in failed.stderr
    assert "written:" not in failed.stdout
    assert contents(out) == before
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []
    assert command("report", out).stdout == first.stdout
    again = command("verify", HYPOTHESIS, "--negatives", "off", "--output-dir", out)
    assert again.returncode == 0, again.stderr
    assert set(contents(out)) == {name for name in before if not name.startswith("sweep")}


@pytest.mark.slow
def test_a_lock_and_a_page_for_which_there_is_no_room(tmp_path: Path) -> None:
    file = tmp_path / "ioi.circuit.yaml"
    file.write_bytes((ROOT / HYPOTHESIS).read_bytes())
    lists = ROOT / "hypotheses" / "lists"
    if lists.is_dir():
        (tmp_path / "lists").symlink_to(lists)
    lock, page = tmp_path / "ioi.circuit.lock", tmp_path / "page.html"
    lock.write_text("old")
    page.write_text("old")
    before = contents(tmp_path)
    locking = command("lock", file, limit=2_000)
    assert locking.returncode == 5
    assert f"error[CS557]: the lock cannot be written to {lock}: File too large" in locking.stderr
    paging = command("verify", file, "--negatives", "off", "--html", page, limit=2_000)
    assert paging.returncode == 5
    assert f"error[CS513]: the report cannot be written to {page}: File too large" in paging.stderr
    assert "2 supported" in paging.stdout  # which is worth having all the same
    assert contents(tmp_path) == before
