"""A verification that writes down what it depends on, or that holds it against what was written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from circuitspec.analysis.statistics.stats import SEED
from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS
from circuitspec.hypothesis_file.load_file import Document
from circuitspec.models.load import LoadedModel, Ready
from circuitspec.pipelines.session import Loading, from_file
from circuitspec.pipelines.verify import Outcome, VerifyOptions, verify
from circuitspec.repository.drift import Examined, claim_drift, files_drift, locked_claim, refuse
from circuitspec.repository.environment import environment
from circuitspec.repository.lock import Lock, LockedHypothesis, LockedModel, as_json
from circuitspec.repository.lock_file import LockFile
from circuitspec.repository.locked_directions import lock_directions
from circuitspec.repository.locked_prompts import (
    chat_drift,
    lock_prompts,
    locked_reference,
    prompt_drift,
    reference_drift,
)
from circuitspec.repository.model_files import model_files
from circuitspec.runtime.progress import Progress


@dataclass(frozen=True)
class Compared:
    """A verification, how each of its claims differs from the lock, and notes on what else is another."""

    outcome: Outcome
    drift: tuple[tuple[Diagnostic, ...], ...]  # a tuple for each claim
    notes: tuple[Diagnostic, ...]

    @property
    def findings(self) -> tuple[Diagnostic, ...]:
        return (*self.notes, *(finding for claim in self.drift for finding in claim))


def run_and_lock(document: Document, options: VerifyOptions, progress: Progress) -> tuple[Outcome, Lock]:
    """Verify, and write down all that the result depends on, and the result."""
    found: list[LoadedModel] = []

    def loading(ready: Ready) -> LoadedModel:
        found.append(from_file(document, document.hypothesis, options.device, progress)(ready))
        return found[0]

    outcome = verify(document, options, progress, loading=loading)
    return outcome, make_lock(document, options.device, outcome, found[0])


def make_lock(document: Document, device: str, outcome: Outcome, loaded: LoadedModel) -> Lock:
    """The lock of a verification that was run on `loaded`."""
    hypothesis, found = document.hypothesis, outcome.verification
    chat = hypothesis.task.chat is not None
    files = model_files(hypothesis.model, document.base_dir, loaded.provenance.path, chat=chat)
    seeds = {"prompts": hypothesis.task.seed, "bootstrap": SEED}
    if ABLATIONS[hypothesis.ablation.value].noise:
        seeds["noise"] = hypothesis.ablation.seed or 0
    return Lock(
        lock_version=1,
        hypothesis=LockedHypothesis(name=found.name, digest=found.digest, content=as_json(document.source.data)),
        prompts=lock_prompts(outcome.task.prompts, outcome.task.around),
        model=LockedModel(
            id=found.model.id,
            revision=None if files is None else files.revision,
            dtype=found.model.dtype,
            files={} if files is None else files.digests(),
        ),
        environment=environment(device),
        seeds=seeds,
        claims=tuple(locked_claim(claim) for claim in found.claims),
        directions=lock_directions(document) or None,
        reference=locked_reference(found.reference),
    )


def run_as_locked(
    document: Document,
    options: VerifyOptions,
    progress: Progress,
    lock_file: LockFile,
    examined: Examined,
    model_of: Callable[[Document], Loading] | None = None,
) -> Compared:
    """Verify, and compare with the lock; `model_of` says how the model is got, where it may be in memory already.

    Raises CircuitspecError (CS551 to CS554) before the model is run where the file, the prompts or the model are not
    as locked, as `examined` says; then the numbers would say nothing.
    """
    examined.refuse()
    if model_of is None:
        given = from_file(document, document.hypothesis, options.device, progress)
    else:
        given = model_of(document)

    def loading(ready: Ready) -> LoadedModel:
        loaded = given(ready)
        known, files = loaded.provenance, examined.files
        if known.path is not None and (files is None or files.revision not in (None, known.revision)):  # now downloaded
            chat = document.hypothesis.task.chat is not None
            fetched = model_files(document.hypothesis.model, document.base_dir, known.path, chat=chat)
            refuse(() if fetched is None else files_drift(document, lock_file, fetched))
        return loaded

    outcome = verify(document, options, progress, loading=loading)
    if outcome.task.prompts.choice is not None:  # which rows fit is known by the tokenizer alone
        refuse(prompt_drift(lock_file.lock.prompts, outcome.task.prompts))
    refuse(chat_drift(lock_file.lock.prompts, outcome.task.around))  # as the tokenizer writes it today
    claims = claim_drift(lock_file, outcome.verification.claims, examined.now)
    others = reference_drift(lock_file, outcome.verification.reference)
    return Compared(outcome, claims, (*examined.drift, *others))
