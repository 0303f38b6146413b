"""Two recorded results, claim by claim, with the tolerances of `tolerance`. Imports no torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

from circuitspec.repository.drift import claim_differences, environment_changes, measured
from circuitspec.repository.lock import LockedClaim, digest_change
from circuitspec.repository.model_files import kind_of
from circuitspec.repository.recorded import Recorded
from circuitspec.repository.tolerance import rounding_of
from circuitspec.runtime.visible_text import visible

_HEX = 12


@dataclass(frozen=True)
class Line:
    """One thing that is compared: `said` is the value they share, or how it differs."""

    what: str
    agrees: bool
    said: str


@dataclass(frozen=True)
class Diff:
    """How two results compare, line by line.

    `notes` are about versions and devices: they decide how closely numbers must agree, and make no difference alone.
    """

    old: Recorded
    new: Recorded
    facts: tuple[Line, ...]
    notes: tuple[Line, ...]
    claims: tuple[Line, ...]

    @property
    def agree(self) -> bool:
        return all(line.agrees for line in (*self.facts, *self.claims))


def compare(old: Recorded, new: Recorded) -> Diff:
    """Compare what was run and every claim.

    Claims of one hypothesis are paired in their order; those of two by kind, metric and what was run.
    """
    alike = old.environment is not None and old.environment == new.environment and old.dtype == new.dtype
    coarser = max(old.dtype, new.dtype, key=rounding_of)
    keyed = _in_order if old.hypothesis_digest == new.hypothesis_digest else _by_experiment
    before, after = keyed(old.claims), keyed(new.claims)
    claims = []
    for key in (*before, *(key for key in after if key not in before)):
        claims.append(_claim(before.get(key), after.get(key), coarser, alike=alike))
    return Diff(old, new, tuple(_facts(old, new)), tuple(_notes(old, new)), tuple(claims))


def render_diff(diff: Diff) -> str:
    """A line a comparison, ending in a newline."""
    lines = [visible(f"old: {diff.old.file}"), visible(f"new: {diff.new.file}"), ""]
    shown = [(line, "DIFFERENT") for line in diff.facts]
    shown += [(line, "note") for line in diff.notes]
    shown += [(line, "DIFFERENT") for line in diff.claims]
    width = max(len(visible(line.what)) for line, _ in shown)
    for line, otherwise in shown:
        word = "same" if line.agrees else otherwise
        lines.append(f"{word:<9}   {visible(line.what):<{width}}   {visible(line.said)}")
    differing = sum(not line.agrees for line in diff.claims)
    facts = [line.what for line in diff.facts if not line.agrees]
    said = f"{differing} of {len(diff.claims)} claims differ" if differing else f"{len(diff.claims)} claims agree"
    return "\n".join([*lines, "", visible(said + (f"; other {', '.join(facts)}" if facts else "")), ""])


def _facts(old: Recorded, new: Recorded) -> Iterator[Line]:
    yield _fact("hypothesis", old.hypothesis_digest[:_HEX], new.hypothesis_digest[:_HEX], old.name)
    if old.prompts_digest and new.prompts_digest:
        yield _fact("prompts", old.prompts_digest[:_HEX], new.prompts_digest[:_HEX])
    yield _fact("model", old.model, new.model)
    if old.revision and new.revision:
        yield _fact("model's commit", old.revision, new.revision)
    yield _fact("dtype", old.dtype, new.dtype)
    if old.files is not None and new.files is not None:
        yield from _files("the model's files", old.files, new.files)
    if old.directions is not None and new.directions is not None:
        yield from _files("directions", old.directions, new.directions, "direction")
    if old.seeds is not None and new.seeds is not None:
        yield _fact("seeds", _listed(old.seeds), _listed(new.seeds))


def _files(what: str, old: Mapping[str, str], new: Mapping[str, str], kind: str = "") -> Iterator[Line]:
    """A line for each file that differs; one for all of them if none does."""
    changed = [name for name in sorted({**old, **new}) if old.get(name) != new.get(name)]
    for name in changed:
        yield Line(f"{name} ({kind or kind_of(name)})", False, digest_change(old.get(name), new.get(name)))
    if new and not changed:
        yield Line(what, True, ", ".join(sorted(new)))


def _notes(old: Recorded, new: Recorded) -> Iterator[Line]:
    if old.environment is None or new.environment is None:
        return
    changed = environment_changes(old.environment, new.environment)
    for name, change in changed.items():
        yield Line(name, False, change)
    if not changed:
        yield Line("versions and device", True, f"{new.environment.device}, {new.environment.processor}")


def _listed(seeds: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {seed}" for name, seed in sorted(seeds.items()))


def _fact(what: str, old: str, new: str, name: str = "") -> Line:
    return Line(what, old == new, (name or new) if old == new else f"{old} -> {new}")


def _in_order(claims: tuple[LockedClaim, ...]) -> dict[Hashable, LockedClaim]:
    return dict(enumerate(claims))


def _by_experiment(claims: tuple[LockedClaim, ...]) -> dict[Hashable, LockedClaim]:
    seen: Counter[Hashable] = Counter()
    keyed: dict[Hashable, LockedClaim] = {}
    for claim in claims:
        key = (claim.claim, claim.metric, _as_said_now(claim.experiment))
        keyed[key, seen[key]] = claim
        seen[key] += 1
    return keyed


def _as_said_now(experiment: str) -> str:
    """What was run, in today's words: versions before 0.5 called ablating the whole circuit noising."""
    return re.sub(r"^noising (?=everything outside|the circuit$)", "ablating ", experiment)


def _claim(old: LockedClaim | None, new: LockedClaim | None, dtype: str, *, alike: bool) -> Line:
    either = new or old
    assert either is not None
    what = f"{either.claim} {either.metric}, {either.experiment}"
    if old is None or new is None:
        return Line(what, False, f"only in the {'new' if old is None else 'old'} one: {_said(either)}")
    found = [said for _, said in claim_differences(old, new, dtype, alike=alike)]
    return Line(what, not found, "; ".join(found) if found else _said(new))


def _said(claim: LockedClaim) -> str:
    figures = [(f"{part.name} ", measured(part)) for part in claim.parts] or [("", measured(claim))]
    said = ", ".join(f"{name}{'undefined' if value is None else value.shown(2)}" for name, value in figures)
    return f"{claim.status} {claim.measure} {said}"
