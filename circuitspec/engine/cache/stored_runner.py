"""Experiments that were measured before are looked up; the others are run, and kept as they get done."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.cache.experiment_store import Store
from circuitspec.engine.cache.sharded_chunks import ShardedChunks
from circuitspec.engine.cache.store_keys import Keys, setting_of
from circuitspec.engine.records import PromptValues, Records, single_runs, with_means
from circuitspec.experiments.experiment import Experiment, Source, Variant, passes, runs_of
from circuitspec.models.storage.cache import cache_root
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask
from circuitspec.runtime.progress import Interrupted, Progress

if TYPE_CHECKING:
    from circuitspec.engine.runner import Runner
    from circuitspec.engine.scheduling.parts import KeepsParts
    from circuitspec.engine.scheduling.shards import RunsShards

SECONDS = 10.0  # after which what is measured is on the disk, and outlives the machine
REPEATED = 0.1  # at most this share of the passes may be repeated for what is measured to be stored whole
LEAST_ELSEWHERE = 32  # passes of a chunk that other processes run: there is to be some for each of them
LEAST = 256  # passes of a chunk at node level, where forwards take many experiments; at other levels laid-out edges
# take memory, and chunks are as small as `REPEATED` allows
BATCHES = "batches"  # the folder of what was measured in batches of prompts that are drawn until claims are decided
PARTS = "parts"  # the folder of what was measured on some of the prompts
ABANDONED = 30 * 24 * 3600.0  # seconds after which nobody goes on with what a killed process began


class MeasuresExperiments(Protocol):
    """What `engine.runner.Runner` offers here."""

    @property
    def task(self) -> TokenizedTask: ...
    @property
    def forwards(self) -> float: ...
    def run(
        self, experiments: Iterable[Experiment], parts: KeepsParts | None = None, among: Sequence[int] | None = None
    ) -> Records: ...


@dataclass(frozen=True)
class ExperimentStore:
    """A store, addressed by experiments on one task in one setting; of the prompts `among` all, where these are named.

    What is known of all prompts is known of some, and what is measured on some is kept apart.
    """

    store: Store
    keys: Keys
    among: tuple[int, ...] | None = None

    def get(self, experiments: Iterable[Experiment]) -> dict[Experiment, PromptValues]:
        """What is stored, by this process or another, of these experiments."""
        self.store.refresh()
        wanted = tuple(experiments)
        keys = {experiment: self._key(experiment) for experiment in wanted}
        found = self.store.get(keys.values())
        known = {experiment: found[key] for experiment, key in keys.items() if key in found}
        if self.among is None:
            return known
        rows = list(self.among)
        whole = replace(self, among=None).get(experiment for experiment in wanted if experiment not in known)
        return known | {one: {name: of[rows] for name, of in values.items()} for one, values in whole.items()}

    def count(self, experiments: Iterable[Experiment]) -> int:
        """How many of these experiments are stored, without reading them."""
        self.store.refresh()
        return sum(self._key(experiment) in self.store for experiment in experiments)

    def put(self, measured: Mapping[Experiment, PromptValues]) -> None:
        self.store.put({self._key(experiment): values for experiment, values in measured.items()})

    def _key(self, experiment: Experiment) -> bytes:
        key = self.keys.of(experiment)
        return key if self.among is None else hashlib.sha256(key + repr(list(self.among)).encode()).digest()


@dataclass
class StoredParts:
    """Experiments measured on some of the prompts alone, in one draw: a store for as long as the rest is on the way.

    With them, what else the run that is gone on with did by itself, so that it is done in the same way: how much memory
    its forwards took, and what was missing when it began.
    """

    store: Store
    keys: Keys
    _written: float = field(default_factory=time.monotonic)

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
        self._put(self._key(experiment, prompts, draw), values)

    def bytes_taken(self, forward: Sequence[Experiment], prompts: Sequence[int], draw: int) -> int | None:
        """What a forward with these experiments took, as it was measured; None if it was not."""
        found = self.store.get([key := self._forward(forward, prompts, draw)])
        return int(found[key]["bytes"][0]) if key in found else None

    def keep_bytes(self, forward: Sequence[Experiment], prompts: Sequence[int], draw: int, taken: int) -> None:
        self._put(self._forward(forward, prompts, draw), {"bytes": np.array([float(taken)])})

    def missing_at_first(
        self, wanted: Sequence[Experiment], missing: Sequence[Experiment], among: Sequence[int] | None = None
    ) -> list[Experiment]:
        """Those of `wanted` that were missing when the run began that is gone on with; `missing` are, if there is none.

        What is missing now and was not then comes last. The run is of the prompts `among` all, where any are named.
        """
        found = self.store.get([key := self._run(wanted, among)])
        if key not in found:
            return list(missing)
        then = [one for one, was in zip(wanted, found[key]["missing"], strict=True) if was]
        return [*then, *(one for one in missing if one not in set(then))]

    def keep_missing(
        self, wanted: Sequence[Experiment], missing: Collection[Experiment], among: Sequence[int] | None = None
    ) -> None:
        self._put(self._run(wanted, among), {"missing": np.array([float(one in missing) for one in wanted])})

    def _put(self, key: bytes, values: PromptValues) -> None:
        lasting = time.monotonic() - self._written >= SECONDS
        self.store.put({key: values}, lasting=lasting)
        if lasting:
            self._written = time.monotonic()

    def _key(self, experiment: Experiment, prompts: Sequence[int], draw: int) -> bytes:
        return hashlib.sha256(self.keys.of(experiment) + repr([list(prompts), draw]).encode()).digest()

    def _forward(self, forward: Sequence[Experiment], prompts: Sequence[int], draw: int) -> bytes:
        parts = b"".join(self._key(experiment, prompts, draw) for experiment in forward)
        return hashlib.sha256(b"bytes" + parts).digest()

    def _run(self, wanted: Sequence[Experiment], among: Sequence[int] | None) -> bytes:
        of = b"" if among is None else repr(list(among)).encode()
        return hashlib.sha256(b"missing" + b"".join(map(self.keys.of, wanted)) + of).digest()


class StoredRunner:
    """Runs experiments like the runner it is given, but only those that are not in the store.

    These are run in chunks, each of which is stored as soon as it is done. Within a chunk, what a forward measured is
    kept as one of the `parts` until then; so what a killed process loses is the forward in flight. Which experiments
    make a chunk depends on them alone, never on the clock, and a run that is gone on with has the chunks, and in them
    the forwards, of the run that was stopped: its values are those of an undisturbed run to the last digit. A chunk
    repeats some passes (the clean run, the runs that patched values come from), which may be no more than the share
    `REPEATED` of its own; at node level it has at least `least` of these. Without a store all are run at once.
    Chunks that are run `elsewhere`, batch by batch and several at a time, are the same with a store and without.
    """

    def __init__(
        self,
        runner: MeasuresExperiments,
        store: ExperimentStore | None,
        progress: Progress,
        *,
        parts: StoredParts | None = None,
        least: int = LEAST,
        known: Mapping[Experiment, PromptValues] | None = None,
        elsewhere: ShardedChunks | None = None,
    ) -> None:
        self._known = known or {}
        self._runner, self._store, self._progress = runner, store, progress
        self._elsewhere = elsewhere
        self._parts = parts
        self._least = least
        self._asked: set[Experiment] = set()
        self.looked_up: set[Experiment] = set()  # what was asked for and not run
        self.measured: set[Experiment] = set()  # .. and run

    @property
    def recalled(self) -> int:
        """How many experiments were not run, as they had been before."""
        return len(self.looked_up)

    @property
    def kept(self) -> int | None:
        """How many of the experiments that were asked for are in the store now; None where there is no store."""
        return None if self._store is None else self._store.count(self._asked)

    @property
    def begun(self) -> bool:
        """Whether some experiments were measured on some prompts alone, which is kept for a run that goes on."""
        return self._parts is not None and len(self._parts.store) > 0

    def run(self, experiments: Iterable[Experiment], among: Sequence[int] | None = None) -> Records:
        """Every metric of every experiment for every prompt, or for those `among` all, by their numbers, in this order.

        Raises CS545 or CS546 where the store cannot be used, and as the runner does; what was stored by then stays.
        """
        asked = tuple(dict.fromkeys(experiments))
        wanted = single_runs(asked)
        if among is None:
            self._asked.update(wanted)
        some = None if among is None else tuple(among)
        store = self._store if self._store is None else replace(self._store, among=some)
        values = {one: self._known[one] for one in wanted if one in self._known} if among is None else {}
        if store is not None:
            values |= store.get(one for one in wanted if one not in values)
        missing = tuple(experiment for experiment in wanted if experiment not in values)
        self.looked_up.update(set(values) - self.measured)
        task = self._runner.task
        prompts = list(range(task.n) if among is None else among)
        taken = round(passes(missing, averaged=task.averaged.n / len(prompts)) * len(prompts)) if missing else 0
        self._progress.plan(len(wanted), len(values), taken)
        first = missing if self._parts is None or not missing else self._parts.missing_at_first(wanted, missing, some)
        chunks = [*self._chunks(first)]
        to_run = [chunk for chunk in chunks if not values.keys() >= {*chunk}]
        if to_run and self._parts is not None and len(chunks) > 1:
            self._parts.keep_missing(wanted, frozenset(first), some)
        for chunk, measured in zip(to_run, self._measured(to_run, some), strict=True):
            left = [experiment for experiment in chunk if experiment not in values]
            new = {experiment: measured[experiment] for experiment in left}
            if store is not None:
                store.put(new)
            if self._parts is not None and (self._elsewhere is None or chunk is to_run[-1]):
                self._parts.store.drop_own()
                if chunk is not to_run[-1]:
                    self._parts.keep_missing(wanted, frozenset(first), some)
            values |= new
            self.measured.update(new)
            self._progress.measured(len(left))
        templates = np.array([prompt.template for prompt in task.prompts.prompts], dtype=np.int64)[prompts]
        return with_means(Records({experiment: values[experiment] for experiment in wanted}, templates), asked)

    def _measured(self, chunks: Sequence[Sequence[Experiment]], among: tuple[int, ...] | None) -> Iterator[Records]:
        """The records of these chunks, one after the other."""
        if self._elsewhere is not None:
            yield from self._elsewhere.run(chunks, among)
            return
        for chunk in chunks:
            yield self._runner.run(chunk, self._parts, among)

    def most_passes(self, experiments: Sequence[Experiment], share: float = 1.0) -> float:
        """Passes over all prompts that running these on a `share` of them takes at most, if none is in the store.

        Chunks but the last repeat no more than the share `REPEATED` of their passes; the last all that these need.
        """
        whole = share * passes(tuple(experiments), averaged=self._averaged / share)
        if self._store is None:
            return whole
        return whole + share * sum(map(_own_passes, experiments)) * REPEATED / (1 - REPEATED)

    def _passes(self, experiments: tuple[Experiment, ...]) -> float:
        return passes(experiments, averaged=self._averaged)

    @property
    def _averaged(self) -> float:
        """Over how many prompts means go, as a multiple of those that are run."""
        return self._runner.task.averaged.n / self._runner.task.n

    def _chunks(self, experiments: Sequence[Experiment]) -> Iterator[list[Experiment]]:
        """The experiments, those that repeat the same passes together."""
        if self._store is None and self._elsewhere is None:
            yield from [list(experiments)] if experiments else []
            return
        groups: dict[_Kind, int] = {}
        for experiment in experiments:
            groups.setdefault(_kind(experiment), len(groups))
        left = sum(map(_own_passes, experiments))
        chunk: list[Experiment] = []
        kinds: dict[_Kind, Experiment] = {}
        own = least = 0
        repeated = 0.0
        for experiment in sorted(experiments, key=lambda e: groups[_kind(e)]):
            chunk.append(experiment)
            own += _own_passes(experiment)
            left -= _own_passes(experiment)
            if kinds.setdefault(_kind(experiment), experiment) is experiment:
                repeated = _repeated_passes(tuple(kinds.values()), self._averaged)
                least = self._least if all(one.level == "node" for one in kinds.values()) else 0
            # a rest that would make no chunk of its own rides along
            if min(own, left) >= max(repeated * (1 / REPEATED - 1), least):
                yield chunk
                chunk, kinds, own = [], {}, 0
        if chunk:
            yield chunk


_Kind: TypeAlias = tuple[Variant, Source | None, str]


def _kind(experiment: Experiment) -> _Kind:
    """What decides which passes an experiment needs beside its own."""
    return experiment.base, experiment.source, experiment.level


def _own_passes(experiment: Experiment) -> int:
    return 0 if experiment.source is None else experiment.draws * runs_of(experiment)


def _repeated_passes(experiments: Sequence[Experiment], averaged: float = 1) -> float:
    """Those that another chunk with such experiments takes again."""
    return passes(tuple(experiments), averaged=averaged) - sum(map(_own_passes, experiments))


@dataclass(frozen=True)
class SpareStore:
    """A store that nobody asked for: where it cannot be used, `tell` hears why, and the run goes on without it."""

    root: Path
    tell: Callable[[CircuitspecError], None]


StorePlace: TypeAlias = Path | SpareStore | None
"""Below which folder results are kept; None: nowhere."""


def default_root() -> Path:
    """Where results are stored unless something else is asked for. Raises CS319 where there is no such place."""
    return cache_root() / "records"


def opened_at(place: Path | SpareStore, folder: str, about: Mapping[str, object]) -> Store:
    """The store in a folder of that place."""
    if isinstance(place, Path):
        return Store(place / folder, about)
    return Store(place.root / folder, about, place.tell)


def opened_within(store: Store, folder: str) -> Store:
    """A store in a folder of another, which fails as that does."""
    return Store(store.directory / folder, spare=store.spare)


@contextmanager
def stored_runner(
    runner: Runner,
    place: StorePlace,
    progress: Progress,
    *,
    least: int | None = None,
    known: Mapping[Experiment, PromptValues] | None = None,
    workers: RunsShards | None = None,
) -> Iterator[StoredRunner]:
    """The runner with the store at `place`, where each model and set of prompts has a folder; None for no store.

    What is `known` was measured already, and is neither run nor stored. With `workers`, experiments are run by these;
    values are then stored by the number of their threads too.

    Where a person interrupts what is done with it, `Interrupted` says how much is kept.
    """
    least = least or (LEAST if workers is None else LEAST_ELSEWHERE)
    if place is None:
        sharded = None if workers is None else ShardedChunks(runner, workers, None)
        unstored = StoredRunner(runner, None, progress, least=least, known=known, elsewhere=sharded)
        with _telling_what_is_kept(unstored) as bare:
            yield bare
        return
    keys, about = _keys_of(runner, workers)
    with opened_at(place, keys.context[:32], about) as store, opened_within(store, PARTS) as parts:
        parts.drop_older(ABANDONED)
        kept = StoredParts(parts, keys)
        sharded = None if workers is None else ShardedChunks(runner, workers, kept)
        own = ExperimentStore(store, keys)
        runs = StoredRunner(runner, own, progress, parts=kept, least=least, known=known, elsewhere=sharded)
        with _telling_what_is_kept(runs):
            yield runs


def _keys_of(runner: Runner, workers: RunsShards | None = None) -> tuple[Keys, Mapping[str, object]]:
    """The keys of what a runner measures, and what its folder in the store is about."""
    setting = setting_of(runner.loaded, runner.batches[0].side, None if workers is None else workers.threads)
    about = {
        "model": runner.loaded.provenance.id,
        "prompts": runner.task.n,
        "first prompt": runner.task.prompts.prompts[0].texts[CLEAN],
        "setting": asdict(setting),
    }
    return Keys(setting, runner.task, runner.measured_beside), about


@contextmanager
def stored_batches(
    runner: Runner, place: StorePlace
) -> Iterator[Callable[[Sequence[Experiment], Sequence[int]], Records]]:
    """What runs experiments on some of the runner's prompts, and keeps what each forward measured in the store.

    Where a person interrupts what is done with it, `Interrupted` says that it can be gone on with.
    """
    if place is None:
        with _telling_batches(None):
            yield lambda experiments, among: runner.run(experiments, among=among)
        return
    keys, about = _keys_of(runner)
    with opened_at(place, keys.context[:32], about) as store, opened_within(store, BATCHES) as batches:
        batches.drop_older(ABANDONED)
        kept = StoredParts(batches, keys)
        with _telling_batches(kept):
            yield lambda experiments, among: runner.run(experiments, kept, among=among)


@contextmanager
def _telling_batches(kept: StoredParts | None) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Interrupted(None if kept is None else len(kept.store), of="batch of values") from stop


@contextmanager
def _telling_what_is_kept(runs: StoredRunner) -> Iterator[StoredRunner]:
    try:
        yield runs
    except KeyboardInterrupt as stop:
        raise Interrupted(runs.kept, begun=runs.begun) from stop
