"""The store on the disk: what was put comes back exactly or not at all, whatever happens to process, disk and files."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.cache import experiment_store as module
from circuitspec.engine.cache.experiment_store import Store

N = 5  # prompts
ROOT = Path(__file__).parents[2]

# A process that stores entry after entry and says so after each, until there are enough or it is killed.
WRITER = """
import sys
from pathlib import Path
from circuitspec.engine.cache.experiment_store import Store
from tests.engine.test_store import entry
first, last, step = map(int, sys.argv[2:])
with Store(Path(sys.argv[1])) as store:
    for number in range(first, last):
        store.put(dict([entry(number)]))
        if number % step == 0:
            print(number, flush=True)
"""


def entry(number: int) -> tuple[bytes, dict[str, np.ndarray]]:
    """A key and its values, among them what no arithmetic keeps."""
    values = np.random.default_rng(number).standard_normal((2, N))
    values[1, :3] = np.nan, -np.inf, -0.0
    return number.to_bytes(32, "little"), {"logit_diff": values[0], "kl": values[1]}


def filled(directory: Path, count: int) -> Store:
    store = Store(directory)
    store.put(dict(entry(i) for i in range(count)))
    return store


def is_entry(number: int, found: Any) -> bool:
    expected = entry(number)[1]
    return list(found) == list(expected) and all(
        found[name].dtype == np.float64 and found[name].tobytes() == values.tobytes()
        for name, values in expected.items()
    )


def held(directory: Path, count: int) -> set[int]:
    """The numbers of the entries that a fresh reader gets; each of them must be right, bit by bit."""
    with Store(directory) as store:
        found = store.get(entry(i)[0] for i in range(count))
    numbers = {int.from_bytes(key, "little") for key in found}
    assert all(is_entry(i, found[entry(i)[0]]) for i in numbers)
    return numbers


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.records"))


def test_what_is_put_comes_back_bit_by_bit(tmp_path: Path) -> None:
    with filled(tmp_path / "new" / "store", 7) as store:
        assert len(store) == 7
        found = store.get([entry(3)[0], entry(6)[0], b"?" * 32])  # by the process that put it
        assert set(found) == {entry(3)[0], entry(6)[0]}
        assert is_entry(3, found[entry(3)[0]])
    assert held(tmp_path / "new" / "store", 9) == set(range(7))  # and by the next


def test_a_process_adds_one_file_and_only_if_it_adds_something(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put({})
        assert segments(tmp_path) == []
        for i in range(50):
            store.put(dict([entry(i)]))
        assert len(segments(tmp_path)) == 1
    with filled(tmp_path, 2):
        assert len(segments(tmp_path)) == 2


def test_what_another_process_adds_is_seen(tmp_path: Path) -> None:
    with Store(tmp_path) as reader, Store(tmp_path) as writer:
        for i in range(3):
            writer.put(dict([entry(i)]))
            assert reader.get([entry(i)[0]]) == {}
            reader.refresh()
            assert is_entry(i, reader.get([entry(i)[0]])[entry(i)[0]])
        assert len(reader) == 3


def test_the_folder_says_what_it_is_about(tmp_path: Path) -> None:
    Store(tmp_path, {"model": "zoo:ioi-tiny"}).close()
    Store(tmp_path, {"model": "another"}).close()  # the first word stays: a folder is about one thing
    assert json.loads((tmp_path / "about.json").read_text(encoding="utf-8")) == {"model": "zoo:ioi-tiny"}
    assert [path.name for path in tmp_path.iterdir()] == ["about.json"]


def test_cut_off_at_any_byte_all_records_before_stay(tmp_path: Path) -> None:
    filled(tmp_path, 2).close()
    (segment,) = segments(tmp_path)
    whole = segment.read_bytes()
    size = len(whole) // 2  # all entries are equally long
    assert len(whole) == 2 * size
    for length in range(len(whole)):
        segment.write_bytes(whole[:length])
        assert held(tmp_path, 2) == set(range(length // size))


def test_after_a_torn_record_the_next_process_goes_on(tmp_path: Path) -> None:
    filled(tmp_path, 3).close()
    (segment,) = segments(tmp_path)
    segment.write_bytes(segment.read_bytes()[:-1])
    with Store(tmp_path) as store:
        store.put(dict([entry(2), entry(3)]))
        assert len(store.get(entry(i)[0] for i in range(4))) == 4
    assert held(tmp_path, 4) == {0, 1, 2, 3}


def test_a_reader_waits_for_the_end_of_a_record(tmp_path: Path) -> None:
    """A file that another process is writing to may end anywhere."""
    filled(tmp_path / "whole", 2).close()
    whole = segments(tmp_path / "whole")[0].read_bytes()
    segment = tmp_path / "growing.records"
    for length in range(0, len(whole), 7):
        segment.write_bytes(whole[:length])
        if length == 0:
            reader = Store(tmp_path)
        reader.refresh()
        assert len(reader) == length // (len(whole) // 2)
    segment.write_bytes(whole)
    reader.refresh()
    assert len(reader.get(entry(i)[0] for i in range(2))) == 2


damages = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "drop", "insert", "repeat", "zero"]),
        st.floats(0, 1, exclude_max=True),  # where, as a share of the file
        st.integers(1, 300),  # bytes
    ),
    min_size=1,
    max_size=6,
)


def damaged(content: bytes, kind: str, where: float, size: int) -> bytes:
    at = int(where * len(content))
    before, piece, after = content[:at], content[at : at + size], content[at + size :]
    match kind:
        case "flip":
            return before + bytes([content[at] ^ (1 << size % 8)]) + content[at + 1 :] if content else content
        case "cut":
            return before
        case "drop":
            return before + after
        case "insert":
            return before + random.Random(size).randbytes(size) + piece + after
        case "repeat":
            return before + piece + piece + after
        case "zero":
            return before + bytes(len(piece)) + after
    raise ValueError(kind)


@given(damages)
def test_damage_never_gives_a_wrong_value_only_none(damage: list[tuple[str, float, int]]) -> None:
    count = 12
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        filled(directory, count).close()
        (segment,) = segments(directory)
        content = segment.read_bytes()
        for kind, where, size in damage:
            content = damaged(content, kind, where, size)
        segment.write_bytes(content)
        left = held(directory, count)  # which asserts that they are right
        with Store(directory) as store:  # what is lost is measured and put again, and wins
            store.put(dict(entry(i) for i in range(count) if i not in left))
        assert held(directory, count) == set(range(count))


@pytest.mark.parametrize("part", ["magic", "key", "length", "checksum", "crc", "names", "values"])
def test_damage_costs_the_entry_that_it_hits_and_no_other(tmp_path: Path, part: str) -> None:
    filled(tmp_path, 5).close()
    (segment,) = segments(tmp_path)
    content = bytearray(segment.read_bytes())
    size = len(content) // 5
    offsets = {"magic": 0, "key": 8, "length": 40, "checksum": 48, "crc": 80, "names": 90, "values": size - 1}
    content[2 * size + offsets[part]] ^= 0x10
    segment.write_bytes(content)
    assert held(tmp_path, 5) == {0, 1, 3, 4}


def test_two_damaged_heads_in_a_row(tmp_path: Path) -> None:
    filled(tmp_path, 5).close()
    (segment,) = segments(tmp_path)
    content = bytearray(segment.read_bytes())
    size = len(content) // 5
    content[size + 40] ^= 1  # both still begin as records do
    content[2 * size + 40] ^= 1
    segment.write_bytes(content)
    assert held(tmp_path, 5) == {0, 3, 4}


def test_the_next_head_is_found_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, 4).close()
    (segment,) = segments(tmp_path)
    content = bytearray(segment.read_bytes())
    content[0] ^= 1
    segment.write_bytes(content)
    for block in range(1, 400, 13):
        monkeypatch.setattr(module, "_BLOCK", block)
        assert held(tmp_path, 4) == {1, 2, 3}


def test_a_record_of_another_version_is_not_read(tmp_path: Path) -> None:
    filled(tmp_path, 1).close()
    (segment,) = segments(tmp_path)
    head = bytearray(segment.read_bytes()[:80])
    head[7:8] = b"2"
    crc = module.zlib.crc32(head).to_bytes(4, "little")
    segment.write_bytes(bytes(head) + crc + segment.read_bytes()[84:])
    assert held(tmp_path, 1) == set()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in (1, 2, 3))])
def test_killed_at_any_moment_all_that_was_put_stays(tmp_path: Path, seed: int) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), "0", "100000", "1"]
    writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = -1
    for _ in range(random.Random(seed).randrange(1, 150)):
        said = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    said = max([said, *map(int, writer.stdout.read().split())])
    writer.wait()
    writer.stdout.close()
    stored = held(tmp_path, said + 5)
    assert stored >= set(range(said + 1))
    assert stored <= set(range(said + 2))  # the one in flight may have made it


def test_processes_write_at_once(tmp_path: Path) -> None:
    spans = [(0, 120), (60, 180), (100, 220)]
    commands = [[sys.executable, "-c", WRITER, str(tmp_path), str(first), str(last), "1000"] for first, last in spans]
    writers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for command in commands]
    with Store(tmp_path) as reader:
        while any(writer.poll() is None for writer in writers):
            reader.refresh()
            assert all(is_entry(i, v) for i, v in numbered(reader, 220))
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert held(tmp_path, 300) == set(range(220))
    assert len(segments(tmp_path)) == 3


def numbered(store: Store, count: int) -> Iterator[tuple[int, Any]]:
    for key, values in store.get(entry(i)[0] for i in range(count)).items():
        yield int.from_bytes(key, "little"), values


def test_a_full_disk_is_an_error_and_loses_nothing_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk(module.FileIO):
        """Takes part of what it is given, then nothing."""

        def write(self, content: Any) -> int:
            if self.tell() > 2000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content[:1000])

    monkeypatch.setattr(module, "FileIO", FullDisk)
    store = filled(tmp_path, 4)
    with pytest.raises(CircuitspecError, match="No space left on device") as raised:
        store.put(dict(entry(i) for i in range(4, 20)))
    assert [d.code for d in raised.value.diagnostics] == ["CS545"]
    assert "--no-store" in raised.value.diagnostics[0].hint
    assert held(tmp_path, 4) == set(range(4))
    monkeypatch.undo()  # someone makes room, and the process goes on
    store.put(dict([entry(30)]))
    assert is_entry(30, store.get([entry(30)[0]])[entry(30)[0]])
    store.close()
    assert held(tmp_path, 31) >= {0, 1, 2, 3, 30}


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with pytest.raises(CircuitspecError) as raised:
        Store(tmp_path / "file" / "store")
    assert [d.code for d in raised.value.diagnostics] == ["CS545"]


def test_a_store_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "odd.records").mkdir()
    with pytest.raises(CircuitspecError, match="cannot be read") as raised:
        Store(tmp_path)
    assert [d.code for d in raised.value.diagnostics] == ["CS546"]


def test_an_entry_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_exactly", failing)
    with filled(tmp_path, 1) as store, pytest.raises(CircuitspecError, match="Input/output error") as raised:
        store.get([entry(0)[0]])
    assert [d.code for d in raised.value.diagnostics] == ["CS546"]


def failing(*arguments: object) -> bytes:
    raise OSError(errno.EIO, "Input/output error")


def test_a_segment_that_is_taken_away_is_as_good_as_absent(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    store.close()
    segments(tmp_path)[0].unlink()
    assert store.get([entry(0)[0]]) == {}


def test_what_nobody_goes_on_with_is_removed(tmp_path: Path) -> None:
    with Store(tmp_path) as old, Store(tmp_path) as new:
        old.put(dict([entry(1)]))
        new.put(dict([entry(2)]))
        (segment,) = {path for path in tmp_path.glob("*.records") if path != Path(str(new._own.name))}  # type: ignore[union-attr]
        day = 24 * 3600.0
        long_ago = time.time() - 3 * day
        os.utime(segment, (long_ago, long_ago))
        with Store(tmp_path) as third:
            third.drop_older(4 * day)
            assert segment.exists()
            third.drop_older(2 * day)
            assert not segment.exists()
            keys = [entry(number)[0] for number in (1, 2)]
            assert list(third.get(keys)) == keys[1:]  # what it knew of the other is as good as absent
