"""Shards in other processes: what comes of them is what one process gives, whoever dies; nothing is tried for ever."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.cache.stored_runner import stored_runner
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.engine.scheduling.shards import MeasuredShard, RunnerSettings, Shard
from circuitspec.experiments.experiment import Experiment, Noised, Site, Source
from circuitspec.experiments.levels.edge_level import patching
from circuitspec.graph.edges import Receiver
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Logits, Mlp
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.workers.dispatch import Advanced, Died, Dispatcher, Failed, News
from tests.engine.support import Silent, loaded, model, random_prompts, task_of

ALL = Where.everywhere()
OTHER, MEAN = Source("resample", "abc"), Source("mean", "abc")
PLACES = list(product(range(3), range(4), (ALL, Where.at("A"), Where.at("B"))))
NOISE = Noised(1.0, Where.at("A"), 3, 0)
EXPERIMENTS = [
    Experiment("clean"),
    *(Experiment("clean", OTHER, frozenset({Site(Head(layer, head), where)})) for layer, head, where in PLACES),
    *(Experiment("clean", MEAN, frozenset({Site(Head(layer, 1), ALL)})) for layer in range(3)),
    Experiment("abc", Source("resample", "clean"), frozenset({Site(Mlp(1), Where.at("A"))})),
    patching("clean", OTHER, {Receiver(Logits()): {Head(1, 0): ALL}}),
]
SOME = EXPERIMENTS[:5]  # one chunk, of a shard for each of three batches


def _task() -> TokenizedTask:
    prompts = random_prompts(seed=11, lengths=[6, 6, 6, 6, 6, 6, 6])
    for prompt in prompts:  # a mean's positions must mean the same in its group
        prompt.roles.update(A=2, B=3)
    return task_of(prompts)


def _runner(task: TokenizedTask) -> Runner:
    return Runner(loaded(model("gpt2")), task, rows=3, progress=Silent())


class Elsewhere:
    """Runners that know only what can be sent, one for each of some workers; the last shard first."""

    threads = 1

    def __init__(self, number: int) -> None:
        self._number = number
        self.ran: list[Shard] = []
        self.stop_after: int | None = None

    def run(
        self, settings: RunnerSettings, shards: Sequence[Shard], advance: Callable[[int], None]
    ) -> Iterator[tuple[int, MeasuredShard]]:
        sent: RunnerSettings = pickle.loads(pickle.dumps(settings))  # noqa: S301  its own
        runners = [
            Runner(
                loaded(model("gpt2")),
                sent.task,
                progress=Silent(),
                rows=sent.rows,
                side=sent.side,
                sweeps=sent.sweeps,
                parted=sent.parted,
            )
            for _ in range(self._number)
        ]
        for number in reversed(range(len(shards))):
            if self.stop_after == len(self.ran):
                raise KeyboardInterrupt
            shard: Shard = pickle.loads(pickle.dumps(shards[number]))  # noqa: S301  its own
            self.ran.append(shard)
            runner = runners[number % self._number]
            yield number, runner.measured_shard(shard, runner.prepared_for(shard))


def _values(
    found: Mapping[Experiment, Mapping[str, np.ndarray]], of: Sequence[Experiment] = EXPERIMENTS
) -> dict[Experiment, dict[str, list[float]]]:
    return {one: {name: column.tolist() for name, column in found[one].items()} for one in of}


def test_shards_give_what_one_process_gives(tmp_path: Path) -> None:
    """At node and edge level, swept and alone, with means; in any order, to the last digit."""
    task, counts = _task(), list[tuple[float, float]]()
    with borrowed(model("gpt2")):
        here = _runner(task)
        with stored_runner(here, tmp_path, Silent(), least=4) as stored:  # type: ignore[arg-type]
            expected = _values(stored.run(EXPERIMENTS).values)
        for workers in (1, 3):
            runner, elsewhere = _runner(task), Elsewhere(workers)
            with stored_runner(runner, None, Silent(), least=4, workers=elsewhere) as stored:  # type: ignore[arg-type]
                found = stored.run(EXPERIMENTS)
            assert _values(found.values) == expected
            assert len(elsewhere.ran) == 3 * len({shard.experiments for shard in elsewhere.ran}) > 3
            counts.append((runner.forwards, runner.forwards_saved))
    assert counts[0] == counts[1]
    assert round((here.forwards - counts[0][0]) * task.n) == 8  # that two short cuts are exact: two prompts, both ways


def test_draws_of_noise_are_added_up_in_their_order() -> None:
    task = _task()
    restored = [Experiment(NOISE, Source("resample", "clean"), frozenset({Site(Mlp(n), ALL)})) for n in range(3)]
    with borrowed(model("gpt2")):
        expected = _runner(task).run([Experiment(NOISE), *restored])
        with stored_runner(_runner(task), None, Silent(), workers=Elsewhere(2)) as stored:  # type: ignore[arg-type]
            found = stored.run([Experiment(NOISE), *restored])
    assert any(experiment.draws > 1 for experiment in restored)
    for experiment in (Experiment(NOISE), *restored):
        assert found[experiment]["logit_diff"].tolist() == expected[experiment]["logit_diff"].tolist()


def test_a_run_that_is_stopped_goes_on_behind_the_last_shard(tmp_path: Path) -> None:
    """What other runs had stored is not run again, and what comes out is what an undisturbed run gives."""
    task = _task()
    with borrowed(model("gpt2")):
        whole, stopped, rest = Elsewhere(2), Elsewhere(2), Elsewhere(1)
        with stored_runner(_runner(task), None, Silent(), least=4, workers=whole) as stored:  # type: ignore[arg-type]
            expected = _values(stored.run(EXPERIMENTS).values)
        stopped.stop_after = 2
        with (
            pytest.raises(KeyboardInterrupt),
            stored_runner(_runner(task), tmp_path, Silent(), least=4, workers=stopped) as stored,  # type: ignore[arg-type]
        ):
            stored.run(EXPERIMENTS)
        with stored_runner(_runner(task), tmp_path, Silent(), least=4, workers=rest) as stored:  # type: ignore[arg-type]
            assert _values(stored.run(EXPERIMENTS).values) == expected
    assert len(rest.ran) == len(whole.ran) - 2


def test_a_full_disk_keeps_what_was_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CS545, and the same command goes on behind it: not more than one shard is lost."""
    from circuitspec.engine.cache.stored_runner import StoredParts

    task, kept = _task(), [0]
    keep = StoredParts.keep
    full = CircuitspecError(Diagnostic("CS545", "no space left on device"))

    def until_full(self: StoredParts, *given: object) -> None:
        if kept[0] == 2 * len(shards[0].experiments):
            raise full
        kept[0] += 1
        keep(self, *given)  # type: ignore[arg-type]

    with borrowed(model("gpt2")):
        first, again = Elsewhere(1), Elsewhere(1)
        shards = first.ran
        with (
            monkeypatch.context() as patch,
            stored_runner(_runner(task), tmp_path, Silent(), workers=first) as stored,  # type: ignore[arg-type]
        ):
            patch.setattr(StoredParts, "keep", until_full)
            with pytest.raises(CircuitspecError, match="CS545"):
                stored.run(SOME)
        with stored_runner(_runner(task), tmp_path, Silent(), workers=again) as stored:  # type: ignore[arg-type]
            found = stored.run(SOME)
        expected = _runner(task).run(SOME)
    assert (len(first.ran), len(again.ran)) == (3, 1)
    assert _values(found.values, SOME) == _values(expected.values, SOME)


class Mortal:
    """Workers that answer shards by their number, but for those that `die` or `fail`; the numbers say how often."""

    def __init__(self, die: Mapping[int, int], fail: Mapping[int, Exception] | None = None) -> None:
        self.die, self.fail = dict(die), fail or {}
        self.begun: list[int] = []
        self.ended: list[int] = []
        self._at: dict[int, int] = {}

    def begin(self) -> int:
        self.begun.append(len(self.begun))
        return self.begun[-1]

    def give(self, worker: int, settings: RunnerSettings, shard: Shard) -> None:
        self._at[worker] = shard.batch  # type: ignore[assignment]  # here its number

    def news(self, busy: Mapping[int, int]) -> Sequence[tuple[int, News]]:
        worker = max(busy)
        number = self._at[worker]
        if self.die.get(number, 0):
            self.die[number] -= 1
            return [(worker, Died("by SIGKILL"))]
        if number in self.fail:
            return [(worker, Failed(self.fail[number]))]
        return [(worker, Advanced(5)), (worker, MeasuredShard((), number, 0.0))]

    def end(self, worker: int) -> None:
        self.ended.append(worker)


def _dispatched(workers: Mortal, number: int, advance: Callable[[int], None] = lambda prompts: None) -> list[int]:
    shards = [Shard((), n) for n in range(6)]  # type: ignore[arg-type]
    dispatcher = Dispatcher(workers, number)
    try:
        found = [*dispatcher.run(None, shards, advance)]  # type: ignore[arg-type]
        assert all(measured.prompts_run == which for which, measured in found)
        return sorted(which for which, _ in found)
    finally:
        dispatcher.end()
        assert sorted(workers.ended) == [one for one in workers.begun if one not in _dead(workers)]


def _dead(workers: Mortal) -> list[int]:
    return [one for one in workers.begun if one not in workers.ended]


def test_what_a_worker_died_on_is_run_again_by_another() -> None:
    workers, ran = Mortal(die={1: 1, 4: 1}), [0]
    assert _dispatched(workers, 2, lambda prompts: ran.__setitem__(0, ran[0] + prompts)) == [*range(6)]
    assert (len(workers.begun), len(_dead(workers)), ran[0]) == (4, 2, 30)


def test_a_shard_that_kills_its_workers_is_given_up() -> None:
    workers = Mortal(die={3: 10})
    with pytest.raises(CircuitspecError, match="CS590: 2 workers died on the same shard, the last one by SIGKILL"):
        _dispatched(workers, 2)
    assert len(_dead(workers)) == 2


def test_what_a_shard_raises_is_raised_and_not_tried_again() -> None:
    with pytest.raises(CircuitspecError, match="CS547"):
        _dispatched(Mortal({}, {2: CircuitspecError(Diagnostic("CS547", "out of memory with a single prompt"))}), 3)


def test_what_is_raised_in_another_process_can_be_raised_here() -> None:
    error = CircuitspecError(Diagnostic("CS547", "out of memory", hint="use less", data={"prompt": 3}))
    found = pickle.loads(pickle.dumps(error))  # noqa: S301  its own
    assert (found.diagnostics, str(found), found.__notes__) == (error.diagnostics, str(error), error.__notes__)


def test_an_interruption_ends_the_workers() -> None:
    def interrupted(prompts: int) -> None:
        if prompts:
            raise KeyboardInterrupt

    workers = Mortal({})
    with pytest.raises(KeyboardInterrupt):
        _dispatched(workers, 3, interrupted)
    assert _dead(workers) == []
