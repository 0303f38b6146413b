"""What is no longer as a lock says, each finding with the old and the new. Imports no torch.

Findings are errors but for those about versions and devices, which are notes: they fail nothing by themselves, and
decide how closely the numbers must agree (see `tolerance`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.hypothesis_file.load_file import Document, digest
from circuitspec.hypothesis_file.problems import dotted
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.hypothesis_file.yaml.source import Path_
from circuitspec.prompts.build import build_prompts
from circuitspec.repository.changes import changes
from circuitspec.repository.environment import environment
from circuitspec.repository.lock import Environment, LockedClaim, LockedPart, digest_change
from circuitspec.repository.lock_file import LockFile
from circuitspec.repository.locked_directions import direction_drift
from circuitspec.repository.locked_prompts import prompt_drift
from circuitspec.repository.model_files import ModelFiles, kind_of, model_files
from circuitspec.repository.tolerance import Measured, disagreement

if TYPE_CHECKING:
    from circuitspec.analysis.claims.verdict import ClaimResult

_SHOWN = 8  # changes of the hypothesis
_RELOCK = "undo it, or lock the new state: circuitspec lock FILE"


@dataclass(frozen=True)
class Examined:
    """What is known without running the model. `files` is None for a hub model that is not in the local cache."""

    drift: tuple[Diagnostic, ...]
    files: ModelFiles | None
    now: Environment

    def refuse(self) -> None:
        """Raises CircuitspecError with all of the drift, if an error is among it."""
        refuse(self.drift)


def examine(document: Document, lock_file: LockFile, device: str) -> Examined:
    """Compare what needs no run: damage to the lock, the hypothesis, its directions, the prompts, the model's
    files, the versions.

    Raises CircuitspecError for a model's reference that leads nowhere, and where the prompts cannot be made.
    """
    prompts = build_prompts(document.hypothesis.task, document.base_dir, document.source)
    with document.blamed_on("model", "id"):
        files = model_files(
            document.hypothesis.model, document.base_dir, chat=document.hypothesis.task.chat is not None
        )
    now = environment(device)
    drift = (
        *lock_file.damage,
        *_hypothesis_drift(document, lock_file),
        *direction_drift(document, lock_file.lock.directions),
        *prompt_drift(lock_file.lock.prompts, prompts),
        *(() if files is None else files_drift(document, lock_file, files)),
        *_environment_drift(lock_file.lock.environment, now),
    )
    return Examined(drift, files, now)


def refuse(drift: Iterable[Diagnostic]) -> None:
    """Raises CircuitspecError with all of `drift`, if an error is among it."""
    found = tuple(drift)
    if any(finding.severity == "error" for finding in found):
        raise CircuitspecError(*found)


def _environment_drift(old: Environment, new: Environment) -> tuple[Diagnostic, ...]:
    """CS555, a note, for every version and device that is another."""
    return tuple(
        Diagnostic("CS555", f"{name} changed since it was locked: {change}", severity="note")
        for name, change in environment_changes(old, new).items()
    )


def environment_changes(old: Environment, new: Environment) -> dict[str, str]:
    """`old -> new` by what is another."""
    pairs = {
        "the device": (old.device, new.device),
        "the processor": (old.processor, new.processor),
        **{name: (old.packages.get(name), new.packages.get(name)) for name in {**old.packages, **new.packages}},
    }
    return {name: f"{a or 'none'} -> {b or 'none'}" for name, (a, b) in pairs.items() if a != b}


def claim_drift(
    lock_file: LockFile, claims: Sequence[ClaimResult], now: Environment
) -> tuple[tuple[Diagnostic, ...], ...]:
    """For each claim, CS556 for every way in which it is not as locked; none in most cases."""
    lock = lock_file.lock
    alike = lock.environment == now
    moved = ", ".join(f"{name} {change}" for name, change in environment_changes(lock.environment, now).items())
    label = f"other versions or another device ({moved}): values must lie in each other's interval"
    found: list[tuple[Diagnostic, ...]] = []
    for index, claim in enumerate(claims):
        new = locked_claim(claim)
        if index >= len(lock.claims):
            message = f"claim {index + 1} ({new.called}) is not in the lock"
            found.append((Diagnostic("CS556", message, hint=_RELOCK, data={"claim": index}),))
            continue
        found.append(
            tuple(
                Diagnostic(
                    "CS556",
                    f"claim {index + 1} ({new.called}) is not as it was locked: {said}",
                    lock_file.span("claims", index, part),
                    "same versions, same kind of device: values must agree but for rounding" if alike else label,
                    "find out what moved it, or lock the new result: circuitspec lock FILE",
                    data={"claim": index},
                )
                for part, said in claim_differences(lock.claims[index], new, lock.model.dtype, alike=alike)
            )
        )
    return tuple(found)


def claim_differences(old: LockedClaim, new: LockedClaim, dtype: str, *, alike: bool) -> Iterator[tuple[str, str]]:
    """How two results of a claim differ: the part that does, and `old -> new` in words."""
    for name in ("claim", "metric", "measure", "status", "n"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield name, f"{'prompts' if name == 'n' else name} {before} -> {after}"
    if (old.metric, old.measure) == (new.metric, new.measure):
        said = disagreement(measured(old), measured(new), metric=new.metric, dtype=dtype, alike=alike)
        if said:
            yield "value", f"{new.measure} {said}"
        yield from _part_differences(old, new, dtype, alike=alike)


def _part_differences(old: LockedClaim, new: LockedClaim, dtype: str, *, alike: bool) -> Iterator[tuple[str, str]]:
    before, after = ({part.name: part for part in claim.parts} for claim in (old, new))
    if before.keys() != after.keys():
        yield "parts", f"figures {', '.join(before) or 'none'} -> {', '.join(after) or 'none'}"
        return
    for name, part in before.items():
        said = disagreement(measured(part), measured(after[name]), metric=new.metric, dtype=dtype, alike=alike)
        if said:
            yield "parts", f"{new.measure} {name} {said}"


def measured(claim: LockedClaim | LockedPart) -> Measured | None:
    return None if claim.value is None else Measured(claim.value, claim.ci)


def locked_claim(claim: ClaimResult) -> LockedClaim:
    """A claim's result as a lock keeps it."""
    estimate = claim.estimate
    return LockedClaim(
        claim=claim.kind,
        metric=claim.metric,
        experiment=claim.experiment,
        measure=claim.measure,
        status=claim.status,
        value=None if estimate is None else estimate.value,
        ci=None if estimate is None else estimate.interval,
        n=claim.n,
        parts=tuple(
            LockedPart(
                name=part.name,
                value=None if part.estimate is None else part.estimate.value,
                ci=None if part.estimate is None else part.estimate.interval,
            )
            for part in claim.parts
        ),
    )


def _hypothesis_drift(document: Document, lock_file: LockFile) -> Iterator[Diagnostic]:
    """CS552 for each part that changed. What was locked is read by this version, so that new optional keys are none."""
    locked = lock_file.lock.hypothesis
    span = lock_file.span("hypothesis", "content")
    try:
        old = Hypothesis.model_validate(json.loads(locked.content), by_alias=True, by_name=False)
    except (ValidationError, ValueError):
        message = "the hypothesis in the lock is none that this version can read"
        yield Diagnostic("CS552", message, span, hint="lock it anew: circuitspec lock FILE")
        return
    if digest(old) == digest(document.hypothesis):
        return
    found = list(changes(_plain(old), _plain(document.hypothesis)))
    for change in found[:_SHOWN]:
        yield Diagnostic(
            "CS552",
            f"`{dotted(change.path)}` changed since it was locked: {change}",
            document.source.span(_written(change.path, document.hypothesis)),
            hint=_RELOCK,
        )
    if len(found) > _SHOWN:
        yield Diagnostic("CS552", f"{len(found)} parts of the hypothesis changed in all", severity="note")


def _plain(hypothesis: Hypothesis) -> object:
    return hypothesis.model_dump(mode="json", by_alias=True)


def _written(path: Path_, hypothesis: Hypothesis) -> Path_:
    """The place in the file: there, a claim's settings stand below its kind."""
    match path:
        case ("claims", int(index), *rest) if index < len(hypothesis.claims):
            return ("claims", index, hypothesis.claims[index].kind, *rest)
    return path


def files_drift(document: Document, lock_file: LockFile, found: ModelFiles) -> Iterator[Diagnostic]:
    """CS554 for a commit or a file of the model that is not as locked."""
    locked = lock_file.lock.model
    span = document.source.span(("model", "id"))
    if locked.revision != found.revision:
        message = f"the model's commit changed since it was locked: {locked.revision} -> {found.revision}"
        hint = f"pin it: model: {{id: {document.hypothesis.model.id}, revision: {locked.revision}}}"
        yield Diagnostic("CS554", message, span, hint=hint)
    digests = found.digests()
    for name in {**locked.files, **digests}:
        old, new = locked.files.get(name), digests.get(name)
        if old != new:
            path = found.files.get(name)
            yield Diagnostic(
                "CS554",
                f"{name} ({kind_of(name)}) changed since it was locked: {digest_change(old, new)}",
                span,
                "" if path is None else f"read from {path}",
                "put the file back that was locked, or lock the new one: circuitspec lock FILE",
                data={"file": name},
            )
