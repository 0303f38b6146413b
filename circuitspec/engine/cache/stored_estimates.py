"""Estimates that outlive their run: kept beside the experiments, so that a repeated exploration computes none anew.

An estimate takes many passes; until it is done, what each of them found is kept as a piece of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitspec.engine.attribution.partial_estimates import EACH_ANEW, Pieces
from circuitspec.engine.cache.experiment_store import Store
from circuitspec.engine.cache.store_keys import all_of_task, setting_of
from circuitspec.engine.cache.stored_runner import ABANDONED, StorePlace, opened_at, opened_within

PIECES = "pieces"  # the folder of what was computed of estimates that are not done
VALUES = "values"

if TYPE_CHECKING:
    from circuitspec.engine.runner import Runner

Numbers = Mapping[str, NDArray[np.float64]]  # lists of one length, by name


@dataclass(frozen=True)
class StoredPieces:
    """Pieces of one estimate, in a store that holds them for as long as the others are on the way."""

    store: Store
    question: bytes

    def get(self, piece: Sequence[object], compute: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        key = hashlib.sha256(self.question + repr(list(piece)).encode()).digest()
        known = self.store.get([key])
        if key in known:
            return known[key][VALUES]
        found = compute()
        self.store.put({key: {VALUES: found}}, lasting=False)
        return found


class Recalled:
    """Lists of numbers, by what they were computed from; without a store nothing is kept."""

    def __init__(self, store: Store | None, pieces: Store | None = None, context: str = "") -> None:
        self._store, self._pieces, self._context = store, pieces, context

    def get(self, question: Sequence[object], compute: Callable[[Pieces], Mapping[str, Sequence[float]]]) -> Numbers:
        """What is stored for this question, or what is computed now.

        The question says all that the answer depends on besides model, code and prompts, as values of which each has
        one `repr`. What was stored of the answer's pieces by a process that was killed is not computed again.
        Raises CS545 or CS546 where the store cannot be used.
        """
        if self._store is None or self._pieces is None:
            return _arrays(compute(EACH_ANEW))
        key = _digest([self._context, [repr(part) for part in question]])
        known = self._store.get([key])
        if key in known:
            return known[key]
        found = _arrays(compute(StoredPieces(self._pieces, key)))
        self._store.put({key: found})
        self._pieces.drop_own()
        return found


@contextmanager
def recalled_estimates(runner: Runner, place: StorePlace) -> Iterator[Recalled]:
    """Estimates of a model on a task, kept at `place`; None for nowhere."""
    if place is None:
        yield Recalled(None)
        return
    setting = setting_of(runner.loaded, runner.batches[0].side)
    context = _digest([asdict(setting), *all_of_task(runner.task)]).hex()
    about = {"model": runner.loaded.provenance.id}
    with opened_at(place, f"estimates-{context[:32]}", about) as store, opened_within(store, PIECES) as pieces:
        pieces.drop_older(ABANDONED)
        yield Recalled(store, pieces, context)


def _arrays(lists: Mapping[str, Sequence[float]]) -> Numbers:
    return {name: np.asarray(values, dtype=np.float64) for name, values in lists.items()}


def _digest(content: object) -> bytes:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).digest()
