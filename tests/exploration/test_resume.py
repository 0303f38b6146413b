"""An exploration that is killed loses the batch in flight, and one that is repeated runs nothing."""

from __future__ import annotations

import os
import random
import signal
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from circuitspec.engine.cache.stored_runner import stored_runner
from circuitspec.exploration.exploration_findings import ExplorationFindings, ExploreOptions
from circuitspec.exploration.output.exploration_tables import tables
from circuitspec.hypothesis_file.load_file import Study, load_exploration
from circuitspec.pipelines import session
from circuitspec.pipelines.explore import explore
from circuitspec.runtime.progress import Silent

FILE = Path(__file__).parents[2] / "hypotheses" / "toys" / "nobel.circuit.yaml"
PROMPTS = 24
SELF_TEST = 5 / PROMPTS  # of the prompts that are explored; others are of random tokens, and count for progress alone
RANDOM_PROMPTS = 2 * 12 / PROMPTS
CHECKS = 2.0  # forwards in which the runner makes sure that its short cuts are exact, once
ROWS = 2 * PROMPTS  # in a forward, so that two are in flight
IN_FLIGHT = 2 + 2  # these, and the passes that a chunk begun again repeats: the unpatched run, and that of the source
ESTIMATE = 4.0  # a pass of one, all prompts in a batch: a forward, a backward worth two, and the source again


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a toy all of a stage would be done within one chunk."""
    monkeypatch.setattr(session, "stored_runner", partial(stored_runner, least=0))


def explored(study: Study, store: Path | None, progress: Silent | None = None) -> ExplorationFindings:
    return explore(study, ExploreOptions(start="resid", store=store, rows=ROWS), progress or Silent(), "explore")


class Stuck(Silent):
    """Once so many prompts were run it says so, and waits for the end."""

    def __init__(self, prompts: int, pipe: int) -> None:
        self.left, self.pipe = prompts, pipe

    def advance(self, prompts: int) -> None:
        self.left -= prompts
        if self.left <= 0:
            os.write(self.pipe, b"!")
            signal.pause()


def kill_after(study: Study, store: Path, prompts: int) -> None:
    """A process that explores, and is killed once it has run so many prompts."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            torch.set_num_threads(1)
            explored(study, store, Stuck(prompts, writing))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read(1) == b"!"
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def assert_same(one: ExplorationFindings, other: ExplorationFindings, tolerance: float = 1e-5) -> None:
    ours, theirs = tables(one), tables(other)
    assert set(ours) == set(theirs)
    for name, table in ours.items():
        pd.testing.assert_frame_equal(table, theirs[name], check_exact=False, rtol=0, atol=tolerance)
    assert [c.entries for c in one.circuits] == [c.entries for c in other.circuits]
    assert [c.draft.text for c in one.circuits] == [c.draft.text for c in other.circuits]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # the child only computes
@pytest.mark.nightly
def test_killed_at_random_moments_resumed_and_repeated(tmp_path: Path) -> None:
    study = load_exploration(FILE)
    whole = explored(study, None)
    uninterrupted = explored(study, tmp_path / "alone")
    chance = random.Random(1)
    spent = 0.0
    for _ in range(3):
        prompts = chance.randrange(60 * PROMPTS, 110 * PROMPTS)
        kill_after(study, tmp_path / "killed", prompts)
        spent += prompts / PROMPTS
    resumed = explored(study, tmp_path / "killed")
    assert_same(resumed, uninterrupted, 0.0)  # to the last digit
    assert_same(uninterrupted, whole)
    # each process may lose a batch or a pass of an estimate, and pays anew for what makes sure that patching is exact
    lost = IN_FLIGHT + ESTIMATE + SELF_TEST + RANDOM_PROMPTS + CHECKS
    assert resumed.forwards < uninterrupted.forwards - spent + 3 * lost
    assert resumed.forwards < uninterrupted.forwards / 2
    repeated = explored(study, tmp_path / "killed")
    assert repeated.forwards == SELF_TEST
    assert_same(repeated, whole)
