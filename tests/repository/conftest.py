"""One verification of zoo:ioi-tiny for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.pipelines.verify import VerifyOptions
from circuitspec.pipelines.with_locks.locked import run_and_lock
from tests.repository.support import Quiet, Run, write_tiny


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    file = write_tiny(tmp_path_factory.mktemp("locked"))
    document = load_hypothesis(file)
    outcome, lock = run_and_lock(document, VerifyOptions("off"), Quiet())
    return Run(file, document, outcome, lock)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The same hypothesis in a folder where it may be edited."""
    return write_tiny(tmp_path)
