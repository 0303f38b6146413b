"""Experiments that were measured before are looked up; the others are run, and kept as they get done."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from circuitspec.engine.keys import Keys, setting_of
from circuitspec.engine.records import PromptValues, Records
from circuitspec.engine.store import Store
from circuitspec.models.cache import cache_root
from circuitspec.plan.experiment import Experiment, Source, Variant, passes, runs_of
from circuitspec.progress import Progress
from circuitspec.tasks.prompts import CLEAN, TokenizedTask

if TYPE_CHECKING:
    from circuitspec.engine.runner import Parts, Runner

SECONDS = 10.0  # of work after which what is measured is on the disk, and whole
REPEATED = 0.1  # at most this share of the work may be repeated for it
PARTS = "parts"  # the folder of what was measured on some of the prompts
ABANDONED = 30 * 24 * 3600.0  # seconds after which nobody goes on with what a killed process began


class RunsExperiments(Protocol):
    """What `engine.runner.Runner` offers here."""

    @property
    def task(self) -> TokenizedTask: ...
    @property
    def forwards(self) -> float: ...
    @property
    def forwards_saved(self) -> float: ...
    def run(self, experiments: Iterable[Experiment], parts: Parts | None = None) -> Records: ...


@dataclass(frozen=True)
class ExperimentStore:
    """A store, addressed by experiments on one task in one setting."""

    store: Store
    keys: Keys

    def get(self, experiments: Iterable[Experiment]) -> dict[Experiment, PromptValues]:
        """What is stored, by this process or another, of these experiments."""
        self.store.refresh()
        keys = {experiment: self.keys.of(experiment) for experiment in experiments}
        found = self.store.get(keys.values())
        return {experiment: found[key] for experiment, key in keys.items() if key in found}

    def put(self, measured: Mapping[Experiment, PromptValues]) -> None:
        self.store.put({self.keys.of(experiment): values for experiment, values in measured.items()})


@dataclass(frozen=True)
class StoredParts:
    """Experiments measured on some of the prompts alone, in one draw: a store for as long as the rest is on the way."""

    store: Store
    keys: Keys

    def known(
        self, experiments: Sequence[Experiment], prompts: Sequence[int], draw: int
    ) -> dict[Experiment, PromptValues]:
        """What is stored of these experiments on exactly these prompts, in this draw of noise (0 if there is none)."""
        if not len(self.store):
            return {}
        keys = {experiment: self._key(experiment, prompts, draw) for experiment in experiments}
        found = self.store.get(keys.values())
        return {experiment: found[key] for experiment, key in keys.items() if key in found}

    def keep(self, experiment: Experiment, prompts: Sequence[int], draw: int, values: PromptValues) -> None:
        self.store.put({self._key(experiment, prompts, draw): values}, lasting=False)

    def _key(self, experiment: Experiment, prompts: Sequence[int], draw: int) -> bytes:
        return hashlib.sha256(self.keys.of(experiment) + repr([list(prompts), draw]).encode()).digest()


class StoredRunner:
    """Runs experiments like the runner it is given, but only those that are not in the store.

    These are run in chunks, each of which is stored as soon as it is done. Within a chunk, what a forward measured is
    kept as one of the `parts` until then; so what a killed process loses is the forward in flight. A chunk takes about
    `seconds`, longer where the model is slow: each repeats some passes (the clean run, the runs that patched values
    come from), which may be no more than the share `REPEATED` of its work. Without a store all are run at once.
    """

    def __init__(
        self,
        runner: RunsExperiments,
        store: ExperimentStore | None,
        progress: Progress,
        *,
        parts: StoredParts | None = None,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner, self._store, self._progress = runner, store, progress
        self._parts = parts
        self._seconds, self._clock = seconds, clock
        self._pace = _Pace()
        self.recalled = 0  # experiments that were not run

    def run(self, experiments: Iterable[Experiment]) -> Records:
        """Every metric of every experiment for every prompt.

        Raises CS545 or CS546 where the store cannot be used, and as the runner does; what was stored by then stays.
        """
        wanted = tuple(dict.fromkeys(experiments))
        values = {} if self._store is None else self._store.get(wanted)
        missing = tuple(experiment for experiment in wanted if experiment not in values)
        self.recalled += len(values)
        task = self._runner.task
        self._progress.plan(len(wanted), len(values), round(self._passes(missing) * task.n) if missing else 0)
        for chunk in self._chunks(missing):
            measured = self._measure(chunk)
            if self._store is not None:
                self._store.put(measured)
            if self._parts is not None:
                self._parts.store.drop_own()
            values |= measured
            self._progress.measured(len(chunk))
        templates = np.array([prompt.template for prompt in task.prompts.prompts], dtype=np.int64)
        return Records({experiment: values[experiment] for experiment in wanted}, templates)

    def most_passes(self, experiments: Sequence[Experiment]) -> float:
        """Passes over all prompts that running these takes at most, if none of them is in the store.

        Chunks but the last repeat no more than the share `REPEATED` of their passes; the last all that these need.
        """
        whole = self._passes(tuple(experiments))
        if self._store is None:
            return whole
        return whole + sum(map(_own_passes, experiments)) * REPEATED / (1 - REPEATED)

    def _passes(self, experiments: tuple[Experiment, ...]) -> float:
        return passes(experiments, averaged=self._averaged)

    @property
    def _averaged(self) -> float:
        """Over how many prompts means go, as a multiple of those that are run."""
        return self._runner.task.averaged.n / self._runner.task.n

    def _measure(self, chunk: Sequence[Experiment]) -> dict[Experiment, PromptValues]:
        started, worked = self._clock(), self._work()
        records = self._runner.run(chunk) if self._parts is None else self._runner.run(chunk, self._parts)
        self._pace = _Pace.of(chunk, self._work() - worked, self._clock() - started, self._averaged)
        return {experiment: records[experiment] for experiment in chunk}

    def _work(self) -> float:
        """What was computed so far, in whole forwards over all prompts."""
        return self._runner.forwards - self._runner.forwards_saved

    def _chunks(self, experiments: Sequence[Experiment]) -> Iterator[list[Experiment]]:
        """The experiments, those that repeat the same passes together; sizes follow the pace of the chunk before."""
        if self._store is None:
            yield from [list(experiments)] if experiments else []
            return
        groups: dict[_Kind, int] = {}
        for experiment in experiments:
            groups.setdefault(_kind(experiment), len(groups))
        left = sum(map(_own_passes, experiments))
        chunk: list[Experiment] = []
        kinds: dict[_Kind, Experiment] = {}
        own = 0
        repeated = 0.0
        for experiment in sorted(experiments, key=lambda e: groups[_kind(e)]):
            chunk.append(experiment)
            own += _own_passes(experiment)
            left -= _own_passes(experiment)
            if kinds.setdefault(_kind(experiment), experiment) is experiment:
                repeated = _repeated_passes(tuple(kinds.values()), self._averaged)
            enough = max(repeated * (1 / REPEATED - 1), self._pace.work_in(self._seconds) - repeated)
            # a rest that would make no chunk of its own rides along
            if min(own, left) * self._pace.share >= enough:
                yield chunk
                chunk, kinds, own = [], {}, 0
        if chunk:
            yield chunk


@dataclass(frozen=True)
class _Pace:
    """How fast a chunk was."""

    seconds: float = 0.0  # a whole forward over all prompts takes; 0 where nothing was measured
    share: float = 1.0  # of a whole forward that an experiment's own pass computes: it may begin in the middle

    @classmethod
    def of(cls, chunk: Sequence[Experiment], work: float, seconds: float, averaged: float = 1) -> _Pace:
        own = sum(map(_own_passes, chunk))
        share = (work - _repeated_passes(chunk, averaged)) / own if own else 1.0
        return cls(seconds / work if work else 0.0, min(max(share, 0.05), 1.0))

    def work_in(self, seconds: float) -> float:
        """Whole forwards that take so long."""
        return seconds / self.seconds if self.seconds else 0.0


_Kind: TypeAlias = tuple[Variant, Source | None, str]


def _kind(experiment: Experiment) -> _Kind:
    """What decides which passes an experiment needs beside its own."""
    return experiment.base, experiment.source, experiment.level


def _own_passes(experiment: Experiment) -> int:
    return 0 if experiment.source is None else experiment.draws * runs_of(experiment)


def _repeated_passes(experiments: Sequence[Experiment], averaged: float = 1) -> float:
    """Those that another chunk with such experiments takes again."""
    return passes(tuple(experiments), averaged=averaged) - sum(map(_own_passes, experiments))


def default_root() -> Path:
    """Where results are stored unless something else is asked for."""
    return cache_root() / "records"


@contextmanager
def stored_runner(
    runner: Runner, root: Path | None, progress: Progress, *, seconds: float = SECONDS
) -> Iterator[StoredRunner]:
    """The runner with the store below `root`, where each model and set of prompts has a folder; None for no store."""
    if root is None:
        yield StoredRunner(runner, None, progress)
        return
    setting = setting_of(runner.loaded, runner.batches[0].side)
    keys = Keys(setting, runner.task, runner.measured_beside)
    about = {
        "model": runner.loaded.provenance.id,
        "prompts": runner.task.n,
        "first prompt": runner.task.prompts.prompts[0].texts[CLEAN],
        "setting": asdict(setting),
    }
    folder = root / keys.context[:32]
    with Store(folder, about) as store, Store(folder / PARTS) as parts:
        parts.drop_older(ABANDONED)
        kept = StoredParts(parts, keys)
        yield StoredRunner(runner, ExperimentStore(store, keys), progress, parts=kept, seconds=seconds)
