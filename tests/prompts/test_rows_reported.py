"""What became of a file's rows stands in every report and in the lock, and so does the breakdown by a column."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from circuitspec.api import Result
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.load_file import Document, load_hypothesis
from circuitspec.pipelines.verify import VerifyOptions
from circuitspec.pipelines.with_locks.locked import run_and_lock, run_as_locked
from circuitspec.repository.drift import examine
from circuitspec.repository.lock import Lock
from circuitspec.repository.lock_file import read_lock, write_lock
from tests.prompts.test_layouts_run import EXAMPLES, ROWS, hypothesis, prompts_of, task_of
from tests.repository.support import Quiet

COLUMNS = next(written for what, written, *_ in ROWS if what == "columns by name")
COUNTS = "10 prompts from 13 rows, left out: 1 misaligned, 1 repeats, 1 split_answers"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Document, Result, Lock]:
    folder = tmp_path_factory.mktemp("rows")
    shutil.copy(EXAMPLES / "columns.csv", folder)
    task = task_of(COLUMNS)
    file = folder / "rows.circuit.yaml"
    file.write_text(hypothesis(task, prompts_of(task)), encoding="utf-8")
    document = load_hypothesis(file)
    outcome, lock = run_and_lock(document, VerifyOptions(negatives="off"), Quiet())
    write_lock(folder / "rows.circuit.lock", lock, file.name)
    return folder, document, Result(outcome.verification, outcome.task, document), lock


def test_every_report_counts_them(locked: tuple[Path, Document, Result, Lock]) -> None:
    _, _, result, lock = locked
    assert COUNTS in str(result)
    assert COUNTS in result.to_html()
    rows = json.loads(result.to_json())["rows"]
    assert rows == {
        "file": "columns.csv",
        "layout": "columns named in the task",
        "holds": 13,
        "looked_at": 13,
        "left_out": {"misaligned": 1, "repeats": 1, "split_answers": 1},
    }
    assert lock.prompts.left_out == rows["left_out"]
    assert lock.content()["prompts"]["count"] == 10


def test_the_breakdown_is_arithmetic(locked: tuple[Path, Document, Result, Lock]) -> None:
    """Of each value the means, and their ratio, over its own prompts; the same in text, HTML and JSON."""
    _, _, result, _ = locked
    found = result.verification
    (breakdown,) = json.loads(result.to_json())["breakdowns"]
    assert (breakdown["by"], breakdown["metric"]) == ("order", "logit_diff")
    assert [group["value"] for group in breakdown["groups"]] == ["ABBA", "BABA"]
    (planned,) = found.plan.claims
    runs = [found.records[run]["logit_diff"] for run in (planned.patched, planned.clean, planned.corrupt)]
    for group in breakdown["groups"]:
        own = np.array([prompt.metadata["order"] == group["value"] for prompt in result.prompts.prompts])
        patched, clean, corrupt = (run[own].mean() for run in runs)
        assert group["n"] == own.sum()
        assert group["clean"] == pytest.approx(clean)
        assert group["patched"] == pytest.approx(patched)
        assert group["recovered"]["value"] == pytest.approx((patched - corrupt) / (clean - corrupt))
        shown = f"{group['recovered']['value']:.2f}"
        text = next(line for line in str(result).splitlines() if line.strip().startswith(group["value"]))
        assert shown in text
        assert f"{clean:.2f}" in text
        assert shown in result.to_html()


def test_a_lock_knows_the_rows_that_were_left_out(locked: tuple[Path, Document, Result, Lock]) -> None:
    """As it was there is no drift; with one more row that does not fit the prompts are the same, and the counts not."""
    folder, document, _, _ = locked
    lock_file = read_lock(folder / "rows.circuit.lock")
    options = VerifyOptions(negatives="off")
    examined = examine(document, lock_file, "cpu")
    assert [finding for finding in examined.drift if finding.severity == "error"] == []
    assert run_as_locked(document, options, Quiet(), lock_file, examined).findings == ()
    table = folder / "columns.csv"
    before = table.read_text(encoding="utf-8")
    try:
        table.write_text(before + before.splitlines()[1] + "\n", encoding="utf-8")
        examined = examine(document, lock_file, "cpu")
        with pytest.raises(CircuitspecError) as caught:
            run_as_locked(document, options, Quiet(), lock_file, examined)
    finally:
        table.write_text(before, encoding="utf-8")
    (found,) = caught.value.diagnostics
    assert found.code == "CS553"
    assert found.message.endswith(
        "1 misaligned, 1 repeats, 1 split_answers -> 1 misaligned, 2 repeats, 1 split_answers"
    )
