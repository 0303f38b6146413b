"""Learned subspaces that outlive their run: a search that is stopped goes on behind the last one that it learned."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from circuitspec.engine.attribution.subspace_training import LearnedBasis, PairHits
from circuitspec.engine.cache.experiment_store import Store
from circuitspec.engine.cache.store_keys import all_of_task, setting_of
from circuitspec.engine.cache.stored_runner import StorePlace, opened_at
from circuitspec.runtime.progress import Interrupted

if TYPE_CHECKING:
    from circuitspec.engine.records import PromptValues
    from circuitspec.engine.runner import Runner

_FLAGS = ("hit", "top", "nothing", "kept", "changed")


class StoredSubspaces:
    """Learned bases, by what they were learned from; without a store nothing is kept.

    `recalled` of those that were asked for were known before, `learned` were not.
    """

    def __init__(self, store: Store | None = None, context: str = "") -> None:
        self._store, self._context = store, context
        self.recalled = self.learned = 0

    @property
    def kept(self) -> int | None:
        """How many of those that were asked for are in the store; None where there is none."""
        return None if self._store is None else self.recalled + self.learned

    def get(self, question: Sequence[object], learn: Callable[[], LearnedBasis | None]) -> LearnedBasis | None:
        """What is stored for this question, or what is learned now; None, which is not stored, where that is.

        The question says all that the answer depends on besides the model, the code, and the prompts of training and
        validation, as values of which each has one `repr`. Raises CS545 and CS546 where the store cannot be used.
        """
        keys = [_digest([self._context, [repr(part) for part in question], part]) for part in ("basis", "hits", "step")]
        if self._store is not None:
            known = self._store.get(keys)
            if all(key in known for key in keys):
                self.recalled += 1
                return _read(*(known[key] for key in keys))
        found = learn()
        if found is None:
            return None
        self.learned += 1
        written = _written(found)
        if self._store is not None:
            self._store.put(dict(zip(keys, written, strict=True)))
        return _read(*written)  # as if it had been stored, to the layout of its numbers


@contextmanager
def stored_subspaces(runners: Sequence[Runner], place: StorePlace) -> Iterator[StoredSubspaces]:
    """Subspaces learned and chosen on the prompts of these runners, kept at `place`; None for nowhere.

    Where a person interrupts what is done with them, `Interrupted` says how many are kept.
    """
    if place is None:
        with _telling_what_is_kept(StoredSubspaces()) as bare:
            yield bare
        return
    setting = setting_of(runners[0].loaded, runners[0].batches[0].side)
    context = _digest([asdict(setting), *(all_of_task(runner.task) for runner in runners)]).hex()
    about = {"model": runners[0].loaded.provenance.id}
    with (
        opened_at(place, f"subspaces-{context[:32]}", about) as store,
        _telling_what_is_kept(StoredSubspaces(store, context)) as found,
    ):
        yield found


@contextmanager
def _telling_what_is_kept(found: StoredSubspaces) -> Iterator[StoredSubspaces]:
    try:
        yield found
    except KeyboardInterrupt as stop:
        raise Interrupted(found.kept, of="subspace") from stop


def _written(found: LearnedBasis) -> tuple[PromptValues, PromptValues, PromptValues]:
    hits = found.validation
    return (
        {str(number): column for number, column in enumerate(found.basis.T)},
        {name: getattr(hits, name).astype(np.float64) for name in _FLAGS},
        {"step": np.array([float(found.step)]), "loss": np.array([hits.loss])},
    )


def _read(basis: PromptValues, hits: PromptValues, step: Mapping[str, np.ndarray]) -> LearnedBasis:
    columns = np.stack([basis[str(number)] for number in range(len(basis))], axis=1)
    found = PairHits(**{name: hits[name] == 1 for name in _FLAGS}, loss=float(step["loss"][0]))
    return LearnedBasis(np.ascontiguousarray(columns), found, int(step["step"][0]))


def _digest(content: object) -> bytes:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).digest()
