"""Estimates that outlive their run: kept beside the experiments, so that a repeated exploration computes none anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitspec.engine.keys import setting_of
from circuitspec.engine.store import Store

if TYPE_CHECKING:
    from circuitspec.engine.runner import Runner

Numbers = Mapping[str, NDArray[np.float64]]  # lists of one length, by name


class Recalled:
    """Lists of numbers, by what they were computed from; without a store nothing is kept."""

    def __init__(self, store: Store | None, context: str = "") -> None:
        self._store, self._context = store, context

    def get(self, question: Sequence[object], compute: Callable[[], Mapping[str, Sequence[float]]]) -> Numbers:
        """What is stored for this question, or what is computed now.

        The question says all that the answer depends on besides model, code and prompts, as values of which each has
        one `repr`. Raises CS545 or CS546 where the store cannot be used.
        """
        if self._store is None:
            return _arrays(compute())
        key = _digest([self._context, [repr(part) for part in question]])
        known = self._store.get([key])
        if key in known:
            return known[key]
        found = _arrays(compute())
        self._store.put({key: found})
        return found


@contextmanager
def recalled_estimates(runner: Runner, root: Path | None) -> Iterator[Recalled]:
    """Estimates of a model on a task, kept below `root`; None for nowhere."""
    if root is None:
        yield Recalled(None)
        return
    setting, task = setting_of(runner.loaded, runner.batches[0].side), runner.task
    prompts = [[prompt.index, prompt.template] for prompt in task.prompts.prompts]
    answers = [task.answers, task.wrong]
    places = [sorted(task.roles.items()), sorted(task.first_tokens.items())]
    context = _digest([asdict(setting), prompts, sorted(task.ids.items()), answers, places]).hex()
    with Store(root / f"estimates-{context[:32]}", {"model": runner.loaded.provenance.id}) as store:
        yield Recalled(store, context)


def _arrays(lists: Mapping[str, Sequence[float]]) -> Numbers:
    return {name: np.asarray(values, dtype=np.float64) for name, values in lists.items()}


def _digest(content: object) -> bytes:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).digest()
