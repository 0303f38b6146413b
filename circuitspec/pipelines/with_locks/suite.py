"""Hypothesis files that are verified together: each file once, each model loaded once. Imports torch for a run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.hypothesis_file.load_file import Document, parse_hypothesis
from circuitspec.hypothesis_file.yaml.source import read_text
from circuitspec.models.model_reference import resolve_reference
from circuitspec.repository.drift import Examined, examine
from circuitspec.repository.lock import lock_path
from circuitspec.repository.lock_file import LockFile, read_lock
from circuitspec.runtime.progress import Silent

if TYPE_CHECKING:
    from circuitspec.models.load import LoadedModel, Ready
    from circuitspec.pipelines.session import Loading
    from circuitspec.pipelines.verify import Outcome
    from circuitspec.reports.reported import Reported

_ModelKey: TypeAlias = tuple[str, str | None, str, bool]

DEVICE = "cpu"


class Suite:
    """Verifies files when they are asked for. With `locked`, each is compared with the lock beside it."""

    def __init__(self, *, locked: bool) -> None:
        self._locked = locked
        self._documents: dict[Path, Document] = {}
        self._examined: dict[Path, tuple[LockFile, Examined]] = {}
        self._outcomes: dict[Path, tuple[Outcome, tuple[Diagnostic, ...]] | CircuitspecError] = {}
        self._models: dict[_ModelKey, LoadedModel] = {}
        self._expected: Counter[_ModelKey] = Counter()

    def document(self, path: Path) -> Document:
        """The file, read once. Raises CircuitspecError with every mistake in it."""
        if path not in self._documents:
            self._documents[path] = parse_hypothesis(read_text(path), os.path.relpath(path), path.parent)
        return self._documents[path]

    def examined(self, path: Path) -> tuple[LockFile, Examined]:
        """The lock beside the file, and what is not as in it, as far as that can be known without running the model.

        Raises CircuitspecError (CS550, CS551) for a lock that cannot be read, and as `examine` does.
        """
        if path not in self._examined:
            document = self.document(path)
            lock_file = read_lock(Path(os.path.relpath(lock_path(path))))
            self._examined[path] = lock_file, examine(document, lock_file, DEVICE)
        return self._examined[path]

    def expect(self, paths: Iterable[Path]) -> None:
        """Say which files will be asked for: a model is kept until the last of them that uses it was verified."""
        for path in paths:
            self._expected[_key(self.document(path))] += 1

    def outcome(self, path: Path) -> Outcome:
        """The verification of the file, run now unless it was before.

        Raises CircuitspecError where it cannot be run or, before the run, is not as locked; the same each time.
        """
        return self._run(path)[0]

    def reported(self, path: Path) -> Reported:
        """The verification with the places of its file, and with how it differs from the lock. Raises as `outcome`."""
        from circuitspec.reports.reported import Reported

        outcome, findings = self._run(path)
        return Reported(outcome.verification, self.document(path).source, findings)

    def _run(self, path: Path) -> tuple[Outcome, tuple[Diagnostic, ...]]:
        if path not in self._outcomes:
            try:
                self._outcomes[path] = self._verify(path)
            except CircuitspecError as error:
                self._outcomes[path] = error
        found = self._outcomes[path]
        if isinstance(found, CircuitspecError):
            raise found
        return found

    def _verify(self, path: Path) -> tuple[Outcome, tuple[Diagnostic, ...]]:
        if self._locked:
            self.examined(path)[1].refuse()  # before torch is imported
        from circuitspec.pipelines.verify import VerifyOptions, verify
        from circuitspec.pipelines.with_locks.locked import run_as_locked

        document, options, progress = self.document(path), VerifyOptions(device=DEVICE), Silent()
        key = _key(document)
        try:
            if not self._locked:
                return verify(document, options, progress, loading=self._model(document)), ()
            lock_file, examined = self.examined(path)
            compared = run_as_locked(document, options, progress, lock_file, examined, self._model)
            return compared.outcome, compared.findings
        finally:
            self._expected[key] -= 1
            if self._expected[key] <= 0:
                self._models.pop(key, None)

    def _model(self, document: Document) -> Loading:
        """Gives the document's model: the one that another file left in memory, or from its files."""
        from circuitspec.pipelines.session import from_file, from_memory

        key = _key(document)
        if key in self._models:
            return from_memory(self._models[key])

        def loading(ready: Ready) -> LoadedModel:
            self._models[key] = from_file(document, document.hypothesis, DEVICE, Silent())(ready)
            return self._models[key]

        return loading


def _key(document: Document) -> _ModelKey:
    """What makes two files use one model in memory."""
    model = document.hypothesis.model
    with document.blamed_on("model", "id"):
        reference = resolve_reference(model, document.base_dir)
    return str(reference.path or reference.id), model.revision, model.dtype, model.allow_pickle
