"""Files made to harm: nothing in them runs, nothing makes the reader allocate without end, all end in a diagnostic."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exchange.exchange_formats import FORMATS, FormatName
from circuitspec.exchange.readers import untrusted
from tests.exchange.support import findings
from tests.exchange.test_auto_circuit import scores
from tests.exchange.test_eap import BY_HAND, tensors
from tests.exchange.test_eap import raw as json_bytes
from tests.exchange.test_pairs import TRUTH


class Runs:
    """What a hostile pickle is made of: it would run a command when loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def read(content: bytes, name: FormatName, path: Path) -> None:
    path.write_bytes(content)
    FORMATS[name].read(path, None, None)


@pytest.mark.parametrize(
    ("name", "file", "write"),
    [
        ("acdc", "x.pkl", pickle.dumps),
        ("interpbench", "x.pkl", pickle.dumps),
        ("acdc", "x.pth", saved),
        ("eap", "x.pt", saved),
        ("mib", "x.pt", saved),
        ("auto-circuit", "x.pkl", saved),
    ],
)
def test_a_command_in_a_file_is_refused_and_named(name: FormatName, file: str, write: object, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    assert callable(write)
    with pytest.raises(CircuitspecError) as error:
        read(write([Runs(mark)]), name, tmp_path / file)
    assert findings(error)[0].code == "CS384"
    assert "posix.system" in findings(error)[0].message
    assert "weights_only" not in str(error.value)
    assert not mark.exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ["acdc", "interpbench"])
def test_in_every_protocol(name: FormatName, protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    with pytest.raises(CircuitspecError) as error:
        read(pickle.dumps([Runs(mark)], protocol=protocol), name, tmp_path / "x.pkl")
    assert findings(error)[0].code == "CS384"
    assert not mark.exists()


@pytest.mark.parametrize(
    "wanted",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n(cbuiltins\nslice\nS'__class__'\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x0eslice.__class__\x93.",
        b"\x80\x04\x8c\x10acdc.TLACDCEdge\x8c\x13TorchIndex.__init__\x93.".replace(b"\x10acdc", b"\x0facdc"),
        b"(S'x'\nios\nsystem\n.",
        b"\x80\x02\x82\x01.",
        b"Psome id\n.",
    ],
    ids=["eval", "getattr", "dotted", "method", "inst", "extension", "persistent"],
)
def test_other_ways_to_ask_for_more_than_data(wanted: bytes, tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError) as error:
        read(wanted, "acdc", tmp_path / "x.pkl")
    assert findings(error)[0].code in ("CS382", "CS384")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b".",
        b"]",
        b"N" + b"r" + struct.pack("<I", 2**31) + b".",  # a memo of 2**31 places
        b"Np99999999999999\n.",
        b"\x96" + struct.pack("<Q", 2**62) + b".",  # 2**62 bytes are said to follow
        b"\x8d" + struct.pack("<Q", 2**40) + b"x.",
        b"(" * 100_000 + b".",
        b"]" * 200_000 + b"a" * 199_999 + b".",
        b"I" + b"9" * 6000 + b"\n.",
        b"}]N]s.",
        b"NNb.",
        b"cbuiltins\nslice\n}b.",
        b"cbuiltins\nslice\n)R.",
        b"\x80\xff.",
        b"V\\ud800\n.",
        b"}N" + b"\x85" * 3_000_000 + b"Ns.",  # a key of which the hash overflows the stack
        b"}N" + b"N\x86" * 3_000_000 + b"Ns.",
        b"2.",
        b"0.",
        b"h\x07.",
    ],
)
@pytest.mark.parametrize("name", ["acdc", "interpbench"])
def test_damaged_and_hostile_pickles_end_in_a_diagnostic(content: bytes, name: FormatName, tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError) as error:
        read(content, name, tmp_path / "x.pkl")
    assert findings(error)[0].code in ("CS382", "CS383", "CS384")


def test_state_set_on_a_class_stays_out(tmp_path: Path) -> None:
    """BUILD on the stand-in class itself, not on an instance."""
    content = b"cacdc.TLACDCEdge\nTorchIndex\n(dS'hashable_tuple'\n(NtsS'poison'\nI1\nsb."
    with pytest.raises(CircuitspecError):
        read(content, "acdc", tmp_path / "x.pkl")
    from circuitspec.exchange.readers import acdc

    assert not hasattr(acdc._TorchIndex, "poison")


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"PK\x03\x04" + b"0" * 40, pickle.dumps([1]), b"\x80\x02\x8a\nl\xfc"]
)
@pytest.mark.parametrize(("name", "file"), [("eap", "x.pt"), ("auto-circuit", "x.pkl")])
def test_damaged_tensor_files(content: bytes, name: FormatName, file: str, tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError) as error:
        read(content, name, tmp_path / file)
    assert findings(error)[0].code in ("CS382", "CS383")


def test_an_archive_that_unpacks_to_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "MAX_TORCH_BYTES", 1_000_000)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 2_000_000)
    assert len(buffer.getvalue()) < 10_000
    with pytest.raises(CircuitspecError, match="unpacks to more than 1 MB"):
        read(buffer.getvalue(), "eap", tmp_path / "x.pt")


def test_a_key_nested_deep_in_a_tensor_file_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}N" + b"\x85" * 3_000_000 + b"Ns.")
        archive.writestr("archive/version", b"3\n")
    with pytest.raises(CircuitspecError, match="nested more than 100 deep"):
        read(buffer.getvalue(), "eap", tmp_path / "x.pt")


def test_a_small_tensor_that_claims_to_be_large_is_not_spread_out(tmp_path: Path) -> None:
    wide = torch.zeros(1).expand(200_000, 200_000)
    with pytest.raises(CircuitspecError) as error:
        read(saved(scores(blocks__1__hook_resid_post=wide)), "auto-circuit", tmp_path / "x.pt")
    assert findings(error)[0].code == "CS383"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "this is not JSON"),
        (b"[1,]", "this is not JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands twice"),
        (b"[" + b"9" * 6000 + b"]", "cannot be read"),
    ],
)
def test_json_that_cannot_be_read(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError, match=said) as error:
        read(content, "edge-pruning", tmp_path / "x.json")
    assert findings(error)[0].code == "CS382"


@pytest.mark.parametrize(
    ("limit", "name", "file"),
    [("MAX_JSON_BYTES", "eap", "x.json"), ("MAX_PICKLE_BYTES", "acdc", "x.pkl"), ("MAX_TORCH_BYTES", "eap", "x.pt")],
)
def test_large_files_are_not_read(
    limit: str, name: FormatName, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrusted, limit, 1_000_000)
    with pytest.raises(CircuitspecError, match="larger than 1 MB"):
        read(b" " * 1_000_001, name, tmp_path / file)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for path, said in (
        (tmp_path / "none.json", "no such file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe.json", "a pipe"),
        (Path("a\0b.json"), "cannot be read"),
    ):
        with pytest.raises(CircuitspecError, match=said):
            FORMATS["edge-pruning"].read(path, None, None)


SEEDS: list[tuple[FormatName, str, bytes]] = [
    ("eap", "x.json", json_bytes(BY_HAND)),
    ("eap", "x.pt", tensors()),
    ("auto-circuit", "x.pt", saved(scores())),
    ("interpbench", "x.pkl", pickle.dumps(TRUTH)),
    ("acdc", "x.pkl", pickle.dumps([((c, (None,), p, (None,)), 1.0) for p, c in TRUTH])),
    ("edge-pruning", "x.json", json_bytes([["a0.h1", "m0"], ["m0", "resid_post"]])),
]


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=6),
    st.floats(0, 1),
)
def test_a_file_with_some_bytes_changed_is_read_or_diagnosed(
    seed: tuple[FormatName, str, bytes], changes: list[tuple[float, bytes]], cut: float
) -> None:
    import tempfile

    name, file, content = seed
    changed = bytearray(content)
    for place, new in changes:
        at = int(place * (len(changed) - 1))
        changed[at : at + len(new)] = new
    if cut < 0.2:
        del changed[int(cut * 5 * len(changed)) :]
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(CircuitspecError):
        read(bytes(changed), name, Path(folder) / file)
