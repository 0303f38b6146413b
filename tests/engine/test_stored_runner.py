"""Runs that are interrupted, resumed and repeated, on a random GPT-2: same numbers, and no forward too many."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import random
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.cache import experiment_store as store_module
from circuitspec.engine.cache.experiment_store import Store
from circuitspec.engine.cache.store_keys import Keys, RunSetting
from circuitspec.engine.cache.stored_runner import (
    LEAST,
    PARTS,
    REPEATED,
    ExperimentStore,
    StoredParts,
    StoredRunner,
    default_root,
    stored_runner,
)
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.records import Records
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import EVERYWHERE, Experiment, Noised, Site, Source, passes
from circuitspec.experiments.levels.edge_level import patching
from circuitspec.graph.edges import Receiver
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Logits
from circuitspec.prompts.prompt_set import TokenizedTask
from tests.engine.support import TOLERANCE, loaded, random_prompts, task_of
from tests.oracle import builders

TASK = task_of(random_prompts(0, [6, 5, 6, 7], templates=1))
ABC = Source("resample", "abc")
SETTING = RunSetting("m", "float64", "sdpa", "cpu", "x", "highest", "right", (), "c")


@functools.cache
def tiny() -> Any:
    return builders.random_gpt2(attn="sdpa", exactly=False, layers=2, n_head=8)


class Told:
    """Progress that adds up what it is told."""

    def __init__(self) -> None:
        self.planned = self.expected = self.advanced = self.experiments = self.stored = self.done = 0

    def stage(self, text: str) -> None: ...

    def plan(self, experiments: int, stored: int, prompts: int) -> None:
        self.experiments += experiments
        self.stored += stored
        self.planned += prompts

    def measured(self, experiments: int) -> None:
        self.done += experiments

    def expect(self, prompts: int) -> None:
        self.expected += prompts

    def advance(self, prompts: int) -> None:
        self.advanced += prompts


def sweep() -> list[Experiment]:
    """Every head of the model at every position, with the two plain runs."""
    components = [Head(layer, head) for layer in range(2) for head in range(8)]
    places = [Where.at("A"), Where.at("B"), Where.everywhere()]
    patched = [Experiment("clean", ABC, frozenset({Site(c, w)})) for c in components for w in places]
    return [Experiment("clean"), Experiment("abc"), *patched]


SWEEP = sweep()


def runner(rows: int = 4, task: TokenizedTask = TASK, progress: Told | None = None) -> Runner:
    return Runner(loaded(tiny()), task, rows=rows, progress=progress or Told())


@pytest.fixture(autouse=True)
def borrowing() -> Iterator[None]:
    with borrowed(tiny()):
        yield


def assert_equal(actual: Records, expected: Records, tolerance: float = 0.0) -> None:
    assert list(actual.values) == list(expected.values)
    np.testing.assert_array_equal(actual.templates, expected.templates)
    for experiment, metrics in expected.values.items():
        assert list(actual[experiment]) == list(metrics)
        for name, values in metrics.items():
            np.testing.assert_allclose(actual[experiment][name], values, rtol=0, atol=tolerance, err_msg=name)


def run_plainly(experiments: Iterable[Experiment]) -> tuple[Records, float]:
    """Without a store, and how many forwards it took."""
    plain = runner()
    return plain.run(experiments), plain.forwards


@pytest.fixture(scope="module")
def uninterrupted() -> Records:
    with borrowed(tiny()):
        return run_plainly(SWEEP)[0]


def test_without_a_store_it_is_the_runner() -> None:
    expected, forwards = run_plainly(SWEEP)
    told, inner = Told(), runner()
    with stored_runner(inner, None, told) as stored:
        assert_equal(stored.run([*SWEEP, *SWEEP]), expected)
        assert stored.recalled == 0
    assert inner.forwards == forwards
    assert (told.experiments, told.stored, told.done) == (len(SWEEP), 0, len(SWEEP))


def test_a_repeated_run_does_no_forward(tmp_path: Path, uninterrupted: Records) -> None:
    with stored_runner(runner(), tmp_path, Told()) as stored:
        first = stored.run(SWEEP)
        assert stored.recalled == 0
    assert_equal(first, uninterrupted, TOLERANCE)
    told, inner = Told(), runner(rows=3)  # whatever the size of batches and the order
    with stored_runner(inner, tmp_path, told) as stored:
        again = stored.run([*reversed(SWEEP), *SWEEP])
        assert stored.recalled == len(SWEEP)
    assert_equal(Records(dict(reversed(again.values.items())), again.templates), first)
    assert inner.forwards == 0
    assert (told.experiments, told.stored, told.done, told.planned, told.expected) == (len(SWEEP), len(SWEEP), 0, 0, 0)


def test_only_what_is_missing_is_run(tmp_path: Path, uninterrupted: Records) -> None:
    _, forwards = run_plainly(SWEEP[-9:])
    with stored_runner(runner(), tmp_path, Told()) as stored:
        stored.run(SWEEP[:-9])
    told, inner = Told(), runner()
    with stored_runner(inner, tmp_path, told) as stored:
        assert_equal(stored.run(SWEEP), uninterrupted, TOLERANCE)
        assert stored.recalled == len(SWEEP) - 9
        assert inner.forwards == forwards
        assert (told.experiments, told.stored, told.done) == (len(SWEEP), len(SWEEP) - 9, 9)
        assert told.planned == passes(tuple(SWEEP[-9:])) * TASK.n
        stored.run([])  # of nothing, nothing
        assert stored.run(SWEEP[:3]).values.keys() == set(SWEEP[:3])
    assert inner.forwards == forwards


def test_prompts_and_models_have_folders_of_their_own(tmp_path: Path) -> None:
    few = SWEEP[:4]
    other = task_of(random_prompts(1, [6, 5], templates=1))
    for task in (TASK, other, TASK):
        with stored_runner(runner(task=task), tmp_path, Told()) as stored:
            assert stored.run(few)[few[0]]["kl"].shape == (task.n,)
    assert len(list(tmp_path.iterdir())) == 2
    assert {path.name for folder in tmp_path.iterdir() for path in folder.glob("*.json")} == {"about.json"}


def test_the_default_is_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUITSPEC_CACHE", "/somewhere")
    assert default_root() == Path("/somewhere/records")


def test_other_corruptions_and_positions_in_the_file_are_run_alone(tmp_path: Path) -> None:
    """What was measured before a position was added is not measured again."""
    with stored_runner(runner(), tmp_path, Told()) as stored:
        stored.run(SWEEP)
    more = replace(TASK, roles={**TASK.roles, "C": (0, 1, 0, 1)}, ids={**TASK.ids, "flip": TASK.ids["abc"]})
    new = Experiment("clean", Source("resample", "flip"), frozenset({Site(Head(0, 0), Where.at("C"))}))
    with stored_runner(runner(task=more), tmp_path, Told()) as stored:
        stored.run([*SWEEP, new])
        assert stored.recalled == len(SWEEP)


def test_some_prompts_alone_are_run_as_among_all_and_kept_apart(tmp_path: Path, uninterrupted: Records) -> None:
    """Their values are those of a run of all, in the order asked for; a forward of half of them is half a one."""
    some = [3, 0]
    inner = runner()
    found = inner.run(SWEEP, among=some)
    np.testing.assert_array_equal(found.templates, uninterrupted.templates[some])
    for experiment, columns in found.values.items():
        for name, values in columns.items():
            np.testing.assert_allclose(values, uninterrupted[experiment][name][some], rtol=0, atol=TOLERANCE)
    checks = 2.0  # forwards in which the runner makes sure that its short cuts are exact
    assert inner.forwards == pytest.approx(passes(tuple(SWEEP)) * len(some) / TASK.n, abs=checks)
    with stored_runner(runner(), tmp_path, Told()) as stored:
        assert_equal(stored.run(SWEEP, some), found)
    again = runner()
    with stored_runner(again, tmp_path, Told()) as stored:
        assert_equal(stored.run(SWEEP, some), found)
        assert again.forwards == 0
        assert stored.run(SWEEP, [0, 3]).n_prompts == 2
        assert again.forwards > 0  # another batch, which rounds in its own way
        before = again.forwards
        whole = stored.run(SWEEP)
        assert again.forwards - before == pytest.approx(passes(tuple(SWEEP)), abs=checks)  # no part stands for all ..
        before = again.forwards
        assert_equal(
            stored.run(SWEEP, [1]),
            Records({e: {n: v[[1]] for n, v in c.items()} for e, c in whole.values.items()}, whole.templates[[1]]),
        )
        assert again.forwards == before  # .. and all for any part


def test_the_clean_run_is_kept_between_calls_where_that_is_asked_for() -> None:
    """One head more costs its own forward alone; the divergence from the clean run is the same."""
    plain, keeping = runner(), runner()
    keeping.keep_clean()
    one, other = SWEEP[2], SWEEP[9]
    for inner in (plain, keeping):
        inner.run([one])
    before = plain.forwards, keeping.forwards
    found = [inner.run([Experiment("clean", Source("zero", None), other.sites)]) for inner in (plain, keeping)]
    assert (plain.forwards - before[0], keeping.forwards - before[1]) == (2, 1)
    assert_equal(found[1], found[0])


class Rehearsed:
    """A runner that computes nothing, counts its passes, and can be told to fail."""

    def __init__(self, task: TokenizedTask = TASK) -> None:
        self.task, self.forwards = task, 0.0
        self.chunks: list[tuple[Experiment, ...]] = []
        self.fail_in: int | None = None

    def run(
        self, experiments: Iterable[Experiment], parts: object = None, among: Sequence[int] | None = None
    ) -> Records:
        chunk = tuple(experiments)
        if len(self.chunks) == self.fail_in:
            raise KeyboardInterrupt
        self.chunks.append(chunk)
        self.forwards += passes(chunk)
        values = {e: {"kl": np.full(self.task.n, float(int(e.digest[:8], 16)))} for e in chunk}
        return Records(values, np.zeros(self.task.n, dtype=np.int64))


def rehearse(directory: Path, inner: Rehearsed, experiments: Iterable[Experiment], least: int = LEAST) -> Records:
    with Store(directory) as store:
        held = ExperimentStore(store, Keys(SETTING, inner.task))
        return StoredRunner(inner, held, Told(), least=least).run(experiments)


def test_chunks_are_cut_by_what_is_in_them(tmp_path: Path) -> None:
    inner = Rehearsed()
    many = heads(5000)
    records = rehearse(tmp_path, inner, many)
    assert list(records.values) == many
    *others, last = map(len, inner.chunks)
    assert others == [LEAST] * (5000 // LEAST - 1)
    assert last == LEAST + 5000 % LEAST  # a rest rides along
    assert sorted(e.digest for chunk in inner.chunks for e in chunk) == sorted(e.digest for e in many)


def test_no_more_than_a_tenth_is_repeated(tmp_path: Path) -> None:
    inner = Rehearsed()
    many = heads(600)
    rehearse(tmp_path, inner, many, least=0)
    assert len(inner.chunks) == 600 // 18  # nine times the two passes that each repeats
    assert inner.forwards - len(many) <= REPEATED * inner.forwards


def test_chunks_at_edge_level_are_as_small_as_they_may_be(tmp_path: Path) -> None:
    """Their edges are laid out in memory, all of a chunk's at once."""
    inner = Rehearsed()
    edges = [patching("clean", ABC, {Receiver(Logits()): {Head(i // 32, i % 32): EVERYWHERE}}) for i in range(100)]
    rehearse(tmp_path, inner, edges)
    assert len(inner.chunks) == 100 // 18


def test_what_repeats_the_same_passes_is_run_together(tmp_path: Path) -> None:
    """Three corruptions, given in turn: a chunk of one of them repeats two passes, of all of them four."""
    sources = [Source("resample", name) for name in ("abc", "flip", "third")]
    task = replace(TASK, ids={**TASK.ids, "flip": TASK.ids["abc"], "third": TASK.ids["abc"]})
    inner = Rehearsed(task)
    mixed = [e for group in zip(*(heads(40, source) for source in sources), strict=True) for e in group]
    rehearse(tmp_path, inner, mixed, least=0)
    assert [len({e.source for e in chunk}) for chunk in inner.chunks].count(1) >= 3
    assert inner.forwards <= len(mixed) / (1 - REPEATED) + 2


@pytest.mark.parametrize("seed", range(12))
def test_chunks_take_no_more_passes_than_was_said(tmp_path: Path, seed: int) -> None:
    """Random mixtures of bases and sources."""
    rng = random.Random(seed)
    task = replace(TASK, ids={**TASK.ids, **dict.fromkeys(("flip", "third", "fourth"), TASK.ids["abc"])})
    sources = [Source("resample", name) for name in ("abc", "flip", "third", "fourth")] + [Source("mean", "abc")]
    kinds = [(base, source) for base in ("clean", "flip") for source in sources]
    counts = [rng.choice([0, 1, 5, 20, 80]) for _ in kinds]
    mixed = [
        replace(one, base=base) for (base, source), n in zip(kinds, counts, strict=True) for one in heads(n, source)
    ]
    rng.shuffle(mixed)
    inner = Rehearsed(task)
    with Store(tmp_path) as store:
        held = ExperimentStore(store, Keys(SETTING, inner.task))
        run = StoredRunner(inner, held, Told(), least=rng.choice([0, 20, LEAST]))
        most = run.most_passes(mixed)
        run.run(mixed)
    assert passes(tuple(mixed)) <= inner.forwards <= most
    assert StoredRunner(inner, None, Told()).most_passes(mixed) == passes(tuple(mixed))


def test_an_interruption_loses_one_chunk(tmp_path: Path) -> None:
    inner = Rehearsed()
    inner.fail_in = 3
    many = heads(5000)
    with pytest.raises(KeyboardInterrupt):
        rehearse(tmp_path, inner, many)
    done = sum(map(len, inner.chunks))
    resumed = Rehearsed()
    records = rehearse(tmp_path, resumed, many)
    assert sum(map(len, resumed.chunks)) == len(many) - done
    assert list(records.values) == many
    assert all(v["kl"][0] == float(int(e.digest[:8], 16)) for e, v in records.values.items())


def heads(count: int, source: Source = ABC) -> list[Experiment]:
    """Different experiments that take one pass each."""
    return [Experiment("clean", source, frozenset({Site(Head(i // 32, i % 32), EVERYWHERE)})) for i in range(count)]


def test_a_full_disk_stops_the_run_and_keeps_what_was_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk(store_module.FileIO):
        def write(self, content: Any) -> int:
            if self.tell():
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content)

    monkeypatch.setattr(store_module, "FileIO", FullDisk)
    inner = Rehearsed()
    with pytest.raises(CircuitspecError) as raised:
        rehearse(tmp_path, inner, heads(5000))
    assert [d.code for d in raised.value.diagnostics] == ["CS545"]
    monkeypatch.undo()
    resumed = Rehearsed()
    rehearse(tmp_path, resumed, heads(5000))
    assert sum(map(len, resumed.chunks)) == 5000 - len(inner.chunks[0])


def test_a_damaged_store_is_measured_again(tmp_path: Path, uninterrupted: Records) -> None:
    with stored_runner(runner(), tmp_path, Told()) as stored:
        stored.run(SWEEP)
    (segment,) = tmp_path.glob("*/*.records")
    content = bytearray(segment.read_bytes())
    for at in range(0, len(content), len(content) // 5):
        content[at] ^= 0xFF
    segment.write_bytes(content[:-7])
    with stored_runner(runner(), tmp_path, Told()) as stored:
        assert_equal(stored.run(SWEEP), uninterrupted, TOLERANCE)
        assert len(SWEEP) - 8 <= stored.recalled < len(SWEEP)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # the child only computes
def test_killed_at_random_moments_and_resumed(tmp_path: Path) -> None:
    """Each process starts from what those before it left and is killed somewhere in its run; then one finishes."""
    with stored_runner(runner(), tmp_path / "whole", Told(), least=0) as stored:
        undisturbed = stored.run(SWEEP)
    tmp_path = tmp_path / "killed"
    chance = random.Random(0)
    lost = 1 + 2 + CHECKS  # the forward in flight, the two passes that are repeated, and what makes sure
    done = 0.0
    for _ in range(4):
        prompts = chance.randrange(9 * TASK.n, 14 * TASK.n)
        kill_after(prompts, tmp_path)
        done += prompts / TASK.n - lost
        assert count_stored(tmp_path) + count_parts(tmp_path) >= done
    assert done > len(SWEEP) / 4
    inner = runner()
    with stored_runner(inner, tmp_path, Told(), least=0) as resumed:
        assert_equal(resumed.run(SWEEP), undisturbed)
    assert inner.forwards <= len(SWEEP) - done + 2 * 5 + CHECKS  # each of up to five chunks repeats two passes
    assert count_stored(tmp_path) == len(SWEEP)


def test_what_one_batch_of_prompts_gave_is_not_run_again(tmp_path: Path) -> None:
    """Two batches of two prompts: stopped in the second, the first is as it was left, and both together are whole."""

    whole = runner(rows=2)
    with stored_runner(whole, tmp_path / "whole", Told()) as stored:
        expected = stored.run(SWEEP)
    limit = 64  # prompts: all of the first batch of the first chunk, and some of the second
    killed = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt), stored_runner(runner(2, progress=Stopping(limit)), killed, Told()) as stored:
        stored.run(SWEEP)
    assert count_stored(killed) == 0
    assert count_parts(killed) > 18
    inner = runner(rows=2)
    with stored_runner(inner, killed, Told()) as stored:
        assert_equal(stored.run(SWEEP), expected)
    # of these prompts two were in flight, 2 x 4 in unpatched runs, and as many in those that make sure
    assert inner.forwards <= whole.forwards - (limit - 2 - 8 - 2 * CHECKS * 2) / TASK.n
    assert count_stored(killed) == len(SWEEP)


def test_draws_of_noise_are_kept_one_by_one(tmp_path: Path) -> None:
    """Stopped at any moment, no draw is made again that was measured, and the mean is that of all five."""
    noised = Noised(1.0, EVERYWHERE, draws=5, seed=3)
    places = [Where.at("A"), EVERYWHERE]
    patched = [
        Experiment(noised, Source("resample", "clean"), frozenset({Site(Head(layer, 1), where)}))
        for layer in range(2)
        for where in places
    ]
    experiments = [Experiment("clean"), Experiment(noised), *patched]
    expected, whole = run_plainly(experiments)
    kept = []
    for limit in range(int(CHECKS) + 2, int(whole), 3):
        stopping = Stopping(limit * TASK.n)
        folder = tmp_path / str(limit)
        with pytest.raises(KeyboardInterrupt), stored_runner(runner(progress=stopping), folder, Told()) as stored:
            stored.run(experiments)
        kept.append(count_parts(folder))
        inner = runner()
        with stored_runner(inner, folder, Told()) as stored:
            assert_equal(stored.run(experiments), expected, TOLERANCE)
        # again: the forwards in flight, the unpatched runs of this draw, and what makes sure
        assert inner.forwards <= whole - limit + 2 + 2 + CHECKS
        assert count_parts(folder) >= kept[-1]  # of the process that was stopped
        assert count_stored(folder) == len(experiments)
    assert sorted(kept) == kept
    assert len(set(kept)) > 3


@functools.cache
def single() -> Any:
    """A model in single precision, in which every forward of other rows rounds otherwise."""
    return builders.random_gpt2(attn="sdpa", exactly=False, layers=2, n_head=8).float()


MIXED = [
    *SWEEP,
    *(
        Experiment("clean", Source("mean_per_template", "abc"), frozenset({Site(Head(1, h), EVERYWHERE)}))
        for h in (2, 5)
    ),
    *(
        Experiment(
            Noised(1.0, EVERYWHERE, draws=3, seed=1), Source("resample", "clean"), frozenset({Site(Head(0, h), w)})
        )
        for h in range(4)
        for w in (Where.at("A"), EVERYWHERE)
    ),
]


@pytest.mark.parametrize("filled", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_a_resumed_run_is_the_undisturbed_one_to_the_last_digit(tmp_path: Path, filled: bool) -> None:
    """Stopped after any number of forwards, twice; where forwards are filled by what they were seen to take, too."""
    task = task_of(random_prompts(0, [6, 7, 6, 7, 6, 7], templates=1))
    task = replace(task, roles={**task.roles, "A": (1,) * 6, "B": (2,) * 6})
    groups = replace(task.prompts, prompts=tuple(replace(p, template=0) for p in task.prompts.prompts))
    task = replace(task, prompts=groups)

    def run(folder: Path, progress: Told) -> Records:
        with borrowed(single()):
            inner = Runner(loaded(single()), task, rows=3, progress=progress)
            if filled:
                inner.fill_memory(8 * 2**20)
            with stored_runner(inner, folder, Told(), least=0) as stored:
                return stored.run(MIXED)

    told = Told()
    undisturbed = run(tmp_path / "whole", told)
    for limit in range(told.advanced // 9, told.advanced, told.advanced // 3):
        folder = tmp_path / str(limit)
        for stop in (limit, told.advanced // 5):
            with contextlib.suppress(KeyboardInterrupt):
                run(folder, Stopping(stop))
        assert_equal(run(folder, Told()), undisturbed)


def test_what_was_missing_at_first_decides_the_chunks(tmp_path: Path) -> None:
    """Some were stored before; of the others, a run that is gone on with has the chunks of the one that was stopped."""
    many = heads(200)
    chunks = []
    for stops in ([], [2], [1, 3]):
        folder = tmp_path / str(stops)
        with Store(folder) as store, Store(folder / PARTS) as kept:
            keys = Keys(SETTING, TASK)
            ExperimentStore(store, keys).put({e: {"kl": np.zeros(TASK.n)} for e in many[::3]})
            ran: list[tuple[Experiment, ...]] = []
            for stop in (*stops, None):
                inner = Rehearsed()
                inner.fail_in = stop
                held, parts = ExperimentStore(store, keys), StoredParts(kept, keys)
                with contextlib.suppress(KeyboardInterrupt):
                    StoredRunner(inner, held, Told(), parts=parts, least=0).run(many)
                ran += inner.chunks
            chunks.append(ran)
            assert len(kept) == 0 or stops
    assert chunks[0] == chunks[1] == chunks[2]
    assert len(chunks[0]) == 133 // 18
    assert not {e for chunk in chunks[0] for e in chunk} & set(many[::3])


class Stopping(Told):
    """Ends the run once more than so many prompts were run."""

    def __init__(self, prompts: int) -> None:
        super().__init__()
        self.prompts = prompts

    def advance(self, prompts: int) -> None:
        super().advance(prompts)
        if self.advanced > self.prompts:
            raise KeyboardInterrupt


CHECKS = 2.0  # forwards in which the runner makes sure that its short cuts are exact, once


class Stuck(Told):
    """Once so many prompts were run it says so, and waits for the end."""

    def __init__(self, prompts: int, pipe: int) -> None:
        super().__init__()
        self.prompts, self.pipe = prompts, pipe

    def advance(self, prompts: int) -> None:
        super().advance(prompts)
        if self.advanced >= self.prompts:
            os.write(self.pipe, b"!")
            signal.pause()


def kill_after(prompts: int, directory: Path) -> None:
    """A process that runs the sweep and is killed once it has run so many prompts."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            torch.set_num_threads(1)
            stuck = runner(progress=Stuck(prompts, writing))
            with stored_runner(stuck, directory, Told(), least=0) as stored:
                stored.run(SWEEP)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read(1) == b"!"
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def count_parts(directory: Path) -> int:
    (folder,) = directory.iterdir()
    with Store(folder / PARTS) as store:
        return len(store)


def count_stored(directory: Path) -> int:
    (folder,) = directory.iterdir()
    with Store(folder) as store:
        return len(store)
