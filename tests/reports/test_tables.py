from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment
from circuitspec.reports.machine import table_files as write
from circuitspec.reports.text.data_frames import WHERE_PATCHED, experiments_frame, metric_names, prompts_frame
from tests.analysis.support import CIRCUIT, CLEAN, CORRUPT, make_plan, make_records
from tests.reports.support import example, prompt_set

PLAN = make_plan()
RECORDS = make_records(
    {
        CLEAN: {"logit_diff": [4.0, 6.0], "kl": [0.0, 0.0]},
        CORRUPT: {"logit_diff": [-1.0, 1.0], "kl": [4.0, 6.0]},
        CIRCUIT: {"logit_diff": [3.0, 5.0], "kl": [1.0, 1.0]},
    },
    [0, 1],
)


def test_a_row_is_an_experiment_and_a_column_a_metric() -> None:
    frame = experiments_frame(PLAN, RECORDS)
    assert list(frame.columns) == [
        *("experiment", "digest", "direction", "base", "source", "ablation", "level"),
        *("n_sites", "sites", "n_edges", "n_prompts"),
        *("logit_diff", "kl", "recovered_logit_diff", "recovered_kl", "ratio_logit_diff", "ratio_kl"),
        *WHERE_PATCHED,
    ]
    assert list(frame["experiment"]) == ["clean", "corrupt", "circuit"]  # `circuit ablated` was not run
    assert list(frame["digest"]) == [CLEAN.digest, CORRUPT.digest, CIRCUIT.digest]
    assert list(frame["direction"]) == ["", "", "noising"]
    assert list(frame["base"]) == ["clean", "abc", "clean"]
    assert list(frame["source"]) == ["", "", "abc"]
    assert list(frame["ablation"]) == ["", "", "mean_per_template"]
    assert set(frame["level"]) == {"node"}
    assert list(frame["n_sites"]) == [0, 0, 2]
    assert list(frame["sites"]) == ["", "", "a0.h1* a3.h1@END"]
    assert list(frame["n_edges"]) == [0, 0, 0]
    assert set(frame["n_prompts"]) == {2}
    assert list(frame["logit_diff"]) == [5.0, 0.0, 4.0]
    assert list(frame["recovered_logit_diff"]) == [1.0, 0.0, 0.8]
    assert list(frame["recovered_kl"]) == [1.0, 0.0, 0.8]  # 1 - 1 / 5
    assert list(frame["ratio_logit_diff"]) == [1.0, 0.0, 0.8]
    assert frame["ratio_kl"].isna().all()  # clean is zero


def test_missing_metrics_and_added_experiments() -> None:
    added = Experiment("flip")
    more = RECORDS.merged(make_records({added: {"logit_diff": [1.0, 2.0], "own": [1.0, 3.0]}}, [0, 1]))
    frame = experiments_frame(PLAN, more).set_index("experiment")
    row = frame.loc[added.digest[:12]]
    assert (row["logit_diff"], row["recovered_logit_diff"], row["own"], row["level"]) == (1.5, 0.3, 2.0, "node")
    assert np.isnan(row["kl"])
    assert np.isnan(row["recovered_own"])
    assert np.isnan(frame.loc["clean", "own"])
    assert metric_names(more) == ("logit_diff", "kl", "own")


def test_no_ratio_is_no_number() -> None:
    same = make_records({CLEAN: {"prob": [0.5, 0.5]}, CORRUPT: {"prob": [0.5, 0.5]}})
    frame = experiments_frame(PLAN, same)
    assert frame["recovered_prob"].isna().all()
    assert frame["recovered_prob"].dtype == np.float64


def test_prompts_frame() -> None:
    frame = prompts_frame(PLAN, RECORDS, prompt_set(2))
    assert list(frame.columns) == [
        *("experiment", "digest", "prompt", "template", "template_text", "text", "logit_diff", "kl"),
        *("direction", "ablation", "level", *WHERE_PATCHED),
    ]
    assert list(frame["experiment"]) == ["clean", "clean", "corrupt", "corrupt", "circuit", "circuit"]
    assert list(frame["prompt"]) == [0, 1] * 3
    assert list(frame["template"]) == [0, 1] * 3
    assert list(frame["template_text"]) == ["{A} and {B}", "{B} and {A}"] * 3
    assert list(frame["text"]) == ["clean 0", "clean 1", "corrupt 0", "corrupt 1", "clean 0", "clean 1"]
    assert list(frame["logit_diff"]) == [4.0, 6.0, -1.0, 1.0, 3.0, 5.0]


def test_per_prompt_values_average_to_the_experiments_table() -> None:
    found = example()
    prompts = prompts_frame(found.plan, found.records, prompt_set(100))
    table = experiments_frame(found.plan, found.records).set_index("experiment")
    means = prompts.groupby("experiment", observed=True)[["logit_diff", "kl", "accuracy"]].mean()
    pd.testing.assert_frame_equal(
        means.loc[table.index.to_list()].reset_index(drop=True), table[means.columns].reset_index(drop=True)
    )


def test_prompts_must_be_those_of_the_records() -> None:
    with pytest.raises(ValueError, match="3 prompts, but records over 2"):
        prompts_frame(PLAN, RECORDS, prompt_set(3))


def test_files_hold_what_the_frames_hold(tmp_path: Path) -> None:
    found = example()
    paths = write.write_results(tmp_path / "out" / "deep", found, prompt_set(100))
    assert sorted(p.name for p in paths) == [
        "experiments.csv",
        "experiments.parquet",
        "prompts.csv",
        "prompts.parquet",
    ]
    assert sorted(p.name for p in (tmp_path / "out" / "deep").iterdir()) == sorted(p.name for p in paths)
    by_name = {p.name: p for p in paths}
    experiments, prompts = (
        experiments_frame(found.plan, found.records),
        prompts_frame(found.plan, found.records, prompt_set(100)),
    )
    pd.testing.assert_frame_equal(pd.read_parquet(by_name["experiments.parquet"]), experiments)
    pd.testing.assert_frame_equal(pd.read_parquet(by_name["prompts.parquet"]), prompts)
    from_csv = pd.read_csv(by_name["experiments.csv"], keep_default_na=False, na_values=[])
    assert list(from_csv["experiment"]) == list(experiments["experiment"])
    assert len(pd.read_csv(by_name["prompts.csv"])) == 400


def test_writing_again_replaces(tmp_path: Path) -> None:
    found = example()
    write.write_results(tmp_path, found, prompt_set(100))
    shorter = Records({CLEAN: found.records[CLEAN], CORRUPT: found.records[CORRUPT]}, found.records.templates)
    write.write_results(tmp_path, dataclasses.replace(found, records=shorter), prompt_set(100))
    assert len(pd.read_parquet(tmp_path / "experiments.parquet")) == 2


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = example()
    (path, *_) = write.write_results(tmp_path, found, prompt_set(100))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def half(self: pd.DataFrame, aside: IO[bytes], **_: object) -> None:
        aside.write(b"PAR1 and no more")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", half)
    with pytest.raises(CircuitspecError) as caught:
        write.write_results(tmp_path, found, prompt_set(100))
    assert caught.value.diagnostics[0].code == "CS513"
    assert "No space left on device" in caught.value.diagnostics[0].message
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert path.exists()


def test_what_a_killed_process_wrote_aside_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".writing-old").mkdir()  # of who knows whom: no lock says that it was left
    killed = os.fork()
    if not killed:
        write.write_folder(tmp_path, {"a": lambda path: os.kill(os.getpid(), signal.SIGKILL)})
    os.waitpid(killed, 0)
    (left,) = set(tmp_path.iterdir()) - {tmp_path / ".writing-old"}

    def among(path: Path) -> None:
        """Another process writes its own meanwhile."""
        assert not left.exists()
        (mine,) = tmp_path.glob(".writing-????????")
        other = os.fork()
        if not other:
            write.write_folder(tmp_path, {"b": write.text_file("b")})
            os._exit(0)
        assert os.waitpid(other, 0)[1] == 0
        assert mine == path.parent
        path.write_text("a")

    write.write_folder(tmp_path, {"a": among})
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", ".writing-old"}


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    target = tmp_path / "results"
    target.write_text("")
    with pytest.raises(CircuitspecError, match=r"CS513: the results cannot be written to .*results: File exists"):
        write.write_results(target, example(), prompt_set(100))
