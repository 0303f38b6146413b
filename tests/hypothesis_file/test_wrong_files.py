"""Each wrong file in tests/wrong_files is answered by exactly the text beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError, exit_code, render
from circuitspec.hypothesis_file.load_file import load_hypothesis
from tests.hypothesis_file.support import WRONG_FILES

FILES = sorted(WRONG_FILES.glob("*.circuit.yaml"))


def test_there_are_many() -> None:
    assert len(FILES) >= 45
    assert {file.name.removesuffix(".circuit.yaml") for file in FILES} == {
        file.stem for file in WRONG_FILES.glob("*.expected")
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.removesuffix(".circuit.yaml"))
def test_wrong_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(WRONG_FILES)
    with pytest.raises(CircuitspecError) as caught:
        load_hypothesis(file.name)
    expected = Path(file.name.replace(".circuit.yaml", ".expected")).read_text(encoding="utf-8")
    assert render(caught.value.diagnostics) == expected
    assert exit_code(caught.value.diagnostics) == 3
