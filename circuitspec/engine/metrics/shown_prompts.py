"""The first prompts as the model sees them, for reports: tokens, positions, what is likeliest next, attention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.forward import Forward
from circuitspec.engine.metrics.internal_metrics import Internals
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.grammar.internal_metric_names import Attention
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.prompts.output_metrics import upcast
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask
from circuitspec.prompts.reference_prompts import chosen

PROMPTS, TOP = 3, 5  # prompts that are shown, and of each the likeliest tokens after it
LAST = "last token"  # where heads that act at every position are looked at
_HEADS, _TOKENS = 24, 48  # more heads, or longer prompts, have no map of attention that can be read


@dataclass(frozen=True)
class LikelyToken:
    """A token that may come next, as text, and the probability that the unpatched model gives it."""

    text: str
    probability: float


@dataclass(frozen=True)
class ShownVariant:
    """A prompt in one variant: its tokens as text, the positions that are at them, and the likeliest next tokens."""

    variant: str
    tokens: tuple[str, ...]
    positions: tuple[tuple[str, tuple[int, ...]], ...]  # name -> numbers of tokens, counted from 0
    top: tuple[LikelyToken, ...]


@dataclass(frozen=True)
class ShownPrompt:
    """One prompt, clean and (where there is a corruption) corrupt; `answers` and `wrong` are those of the clean one."""

    number: int
    template: str
    answers: tuple[str, ...]
    wrong: tuple[str, ...]
    variants: tuple[ShownVariant, ...]


@dataclass(frozen=True)
class HeadAttention:
    """What a head attends to from the token at a position, on the first prompt: a weight a token, summing to 1."""

    head: str
    position: str
    weights: tuple[float, ...]


@dataclass(frozen=True)
class ShownPrompts:
    """The first prompts; `attention` is that on the first of them, in the clean run; `note` says why there is none."""

    prompts: tuple[ShownPrompt, ...]
    attention: tuple[HeadAttention, ...] = ()
    note: str = ""


@torch.no_grad()
def shown_prompts(
    runner: Forward, variants: Sequence[str], positions: Sequence[str], heads: Iterable[tuple[Head, str]]
) -> ShownPrompts:
    """The first prompts in these variants, each run by itself; attention of `heads` from a position on the first.

    `positions` are marked; a head without one attends from the last token. These runs are of single prompts, and not
    counted among the forwards over all prompts.
    """
    task = runner.task
    count = min(PROMPTS, task.n)
    runner.expect(count * len(variants))
    shown = tuple(_shown(runner, number, variants, positions) for number in range(count))
    attention, note = _attention(runner, tuple(dict.fromkeys(heads)))
    return ShownPrompts(shown, attention, note)


def _shown(runner: Forward, number: int, variants: Sequence[str], positions: Sequence[str]) -> ShownPrompt:
    alone = chosen(runner.task, [number])
    forward, prompt = runner.on(alone), runner.task.prompts.prompts[number]
    found = tuple(_variant(forward, name, positions) for name in variants)
    answers, wrong = (
        tuple(one if isinstance(one, str) else _text(forward, one) for one in side)
        for side in (prompt.answers, prompt.wrong)
    )
    return ShownPrompt(prompt.index, runner.task.prompts.templates[prompt.template], answers, wrong, found)


def _variant(forward: Forward, name: str, positions: Sequence[str]) -> ShownVariant:
    """One prompt in a variant; of answers of several tokens it is the first that is likely next."""
    (batch,) = forward.batches
    probabilities = upcast(forward.forward(batch, name, Actions())[0])[0].double().softmax(-1)
    top = probabilities.topk(min(TOP, len(probabilities)))
    own = forward.task.of(name)
    at = tuple((role, own.tokens_at(role, 0)) for role in positions if role in own.roles)
    likely = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return ShownVariant(
        name,
        tuple(_text(forward, token) for token in own.ids[0]),
        at,
        tuple(LikelyToken(_text(forward, token), share) for token, share in likely),
    )


def _text(forward: Forward, token: int) -> str:
    return str(forward.loaded.tokenizer.decode([token], clean_up_tokenization_spaces=False))


def _attention(runner: Forward, heads: Sequence[tuple[Head, str]]) -> tuple[tuple[HeadAttention, ...], str]:
    """The attention of heads over the tokens of the first prompt, and why there is none."""
    if not heads:
        return (), ""
    alone = chosen(runner.task, [0])
    length = len(alone.ids[CLEAN][0])
    if length > _TOKENS:
        return (), f"Attention is shown of prompts of up to {_TOKENS} tokens; the first has {length}."
    asked = [(head, at or LAST) for head, at in heads[:_HEADS]]
    alone = _with_every_token(alone, length)
    forward = runner.on(alone)
    metrics = {
        (head, at, token): Attention(head, at, _role(token))
        for head, at in asked
        for token in range((alone.roles[at][0] if at in alone.roles else length - 1) + 1)
    }
    (batch,) = forward.batches
    try:
        found = Internals(forward, tuple(metrics.values()), {}).measure(batch, CLEAN, Actions, {}, 0)
    except CircuitspecError as error:
        return (), f"Attention is not shown: {error.diagnostics[0].message}."
    weights = {key: float(found[str(metric)][0]) for key, metric in metrics.items()}
    more = f" The first {_HEADS} of {len(heads)} heads at positions." if len(heads) > _HEADS else ""
    shown = tuple(
        HeadAttention(format_name(head), at, tuple(weights.get((head, at, token), 0.0) for token in range(length)))
        for head, at in asked
    )
    return shown, more.strip()


def _with_every_token(task: TokenizedTask, length: int) -> TokenizedTask:
    """The task with a position for each token of its only clean prompt."""
    return replace(
        task, roles={**task.roles, LAST: (length - 1,), **{_role(token): (token,) for token in range(length)}}
    )


def _role(token: int) -> str:
    return f"token {token}"  # no name in a file has a space
