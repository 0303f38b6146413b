"""The prompts in a lock: kept whole where there is room, so that an edited one can be shown as it was. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping

import rfc8785
from pydantic import BaseModel, ConfigDict, ValidationError

from circuitspec.analysis.verification_result import ReferenceFacts
from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.prompts.prompt_set import (
    AroundPrompts,
    GivenAnswer,
    PlainPlace,
    Prompt,
    PromptSet,
    plain_positions,
    prompts_digest,
)
from circuitspec.repository.lock import LockedPrompts, LockedReference, as_json
from circuitspec.repository.lock_file import LockFile

ROOM = 1_000_000  # bytes of prompts that are kept; of more there are digests alone
_SHOWN = 3
_LONGEST = 200  # characters of a value in a message
_DIGITS = 16
NOTHING_AROUND = AroundPrompts()
_ELSE_CHANGED = (
    "it changed what is put around the prompts (special_tokens, chat), or from where their positions are counted"
)


class _Content(BaseModel):
    """All that `prompts_digest` covers of one prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    texts: dict[str, str | list[int]]
    answers: tuple[GivenAnswer, ...]
    wrong: tuple[GivenAnswer, ...]
    positions: dict[str, PlainPlace]
    template: int


def lock_prompts(prompt_set: PromptSet, around: AroundPrompts = NOTHING_AROUND) -> LockedPrompts:
    """Every prompt as a line: JSON while all of them fit into ROOM, otherwise the prompt's digest."""
    contents = [_content(prompt) for prompt in prompt_set.prompts]
    lines = [as_json(content.model_dump(mode="json")) for content in contents]
    if sum(map(len, lines)) > ROOM:
        lines = [_digest(content) for content in contents]
    text = "\n".join(lines) + "\n"
    left_out = None if prompt_set.choice is None else prompt_set.choice.counts
    return LockedPrompts(
        digest=prompts_digest(prompt_set),
        count=len(prompt_set.prompts),
        lines=text,
        left_out=left_out,
        chat=None if around.chat is None else (around.chat.before, around.chat.behind),
    )


def chat_drift(locked: LockedPrompts, around: AroundPrompts) -> tuple[Diagnostic, ...]:
    """CS553 where the tokenizer's chat template puts other texts around the prompts than when it was locked.

    Some templates write the day's date into every conversation.
    """
    now = None if around.chat is None else (around.chat.before, around.chat.behind)
    if locked.chat is None or now is None or locked.chat == now:
        return ()
    changes = [
        f"{where} it: {_shown(old)} -> {_shown(new)}"
        for where, old, new in zip(("before", "behind"), locked.chat, now, strict=True)
        if old != new
    ]
    hint = "some templates write the date: give `chat: {system: ...}` if the template then leaves it out, or lock anew"
    return (
        Diagnostic(
            "CS553", f"what the chat template puts around every prompt changed, {'; '.join(changes)}", hint=hint
        ),
    )


def prompt_drift(locked: LockedPrompts, prompt_set: PromptSet) -> tuple[Diagnostic, ...]:
    """CS553 for the first prompts that are not as they were, with what was there and what is; empty for none.

    Nothing is said where rows are yet to be left out that do not fit a tokenizer: ask again of what that leaves.
    """
    choice = prompt_set.choice
    if choice is not None and not choice.settled:
        return ()
    lines = locked.lines.splitlines()
    found = [_changed(line, prompt) for line, prompt in zip(lines, prompt_set.prompts, strict=False)]
    changed = [finding for finding in found if finding is not None]
    drift = changed[:_SHOWN]
    if len(changed) > _SHOWN:
        drift.append(Diagnostic("CS553", f"{len(changed)} of {len(found)} prompts changed in all", severity="note"))
    now = len(prompt_set.prompts)
    if locked.count != now:
        drift.append(Diagnostic("CS553", f"the number of prompts changed: {locked.count} -> {now}"))
    left_out = None if choice is None else choice.counts
    if locked.left_out != left_out:
        drift.append(Diagnostic("CS553", f"rows left out changed: {_counted(locked.left_out)} -> {_counted(left_out)}"))
    if not drift and locked.digest != prompts_digest(prompt_set):  # the digest covers nothing else
        drift.append(Diagnostic("CS553", _ELSE_CHANGED))
    return tuple(drift)


def _counted(left_out: Mapping[str, int] | None) -> str:
    return ", ".join(f"{count} {why}" for why, count in sorted((left_out or {}).items())) or "none"


def locked_reference(found: ReferenceFacts | None) -> LockedReference | None:
    """The prompts that means went over, as a lock keeps them."""
    return None if found is None else LockedReference(count=found.count, digest=found.digest)


def reference_drift(lock_file: LockFile, found: ReferenceFacts | None) -> Iterator[Diagnostic]:
    """CS553, a note, where means went over other prompts than when it was locked: claims say whether that matters."""
    old, new = lock_file.lock.reference, locked_reference(found)
    if old is None or old == new:
        return
    now = "the scored prompts" if new is None else f"{new.count} (sha256 {new.digest[:_DIGITS]}...)"
    yield Diagnostic(
        "CS553",
        f"means are over other reference prompts than when it was locked: {old.count} (sha256 {old.digest[:_DIGITS]}"
        f"...) -> {now}",
        lock_file.span("reference", "digest"),
        hint=f"write `reference: {old.count}` under ablation to have as many again",
        severity="note",
    )


def _changed(line: str, prompt: Prompt) -> Diagnostic | None:
    now = _content(prompt)
    try:
        old = _Content.model_validate_json(line)
    except ValidationError:  # a digest
        return None if line == _digest(now) else _finding(prompt, f"it is now {_shown(now.texts)}")
    changes = [f"{name}: {_shown(before)} -> {_shown(after)}" for name, before, after in _differences(old, now)]
    return _finding(prompt, "; ".join(changes)) if changes else None


def _finding(prompt: Prompt, changes: str) -> Diagnostic:
    return Diagnostic(
        "CS553",
        f"{prompt.described()} changed since it was locked: {changes}",
        prompt.span,
        hint="restore it, or lock the new prompts: circuitspec lock FILE",
        data={"prompt": prompt.index},
    )


def _differences(old: _Content, new: _Content) -> Iterator[tuple[str, object, object]]:
    for name in dict.fromkeys((*old.texts, *new.texts)):
        if old.texts.get(name) != new.texts.get(name):
            yield name, old.texts.get(name), new.texts.get(name)
    for name in ("answers", "wrong", "positions", "template"):
        if getattr(old, name) != getattr(new, name):
            yield name, getattr(old, name), getattr(new, name)


def _content(prompt: Prompt) -> _Content:
    return _Content(
        texts=prompt.content,
        answers=prompt.answers,
        wrong=prompt.wrong,
        positions=plain_positions(prompt),
        template=prompt.template,
    )


def _digest(content: _Content) -> str:
    return hashlib.sha256(rfc8785.dumps(content.model_dump(mode="json"))).hexdigest()[:_DIGITS]


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
