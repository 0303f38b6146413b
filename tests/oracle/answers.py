"""Answers of several tokens, and sources of other lengths, by whole runs one answer at a time.

An answer t1 ... tk after a prompt is scored by teacher forcing: log p = log p(t1 | prompt) + log p(t2 | prompt, t1) +
..., read off the run on prompt + t1 ... t(k-1). What follows the prompt there is its *continuation*; the base prompt,
the source prompt and every other prompt of a mean are run with the same one. A component that is patched at the
prompt's last token is patched at the continuation as well.

A source prompt may have another length than the base prompt. A *token map* says for each token of the base prompt which
token of the source prompt it corresponds to; the k-th token after the one prompt corresponds to the k-th after the
other. Values are taken as they are: nothing is rotated anew.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from torch import Tensor

from .families import Net
from .metrics import Array, log_softmax
from .node import Component, Site, Values, forward

Ids: TypeAlias = Sequence[int]
RunOf: TypeAlias = Callable[[Ids], Array]
"""Continuation -> logits ``[positions, vocab]`` of the run on the prompt with it."""

NAMES = ("logprob", "logprob_diff", "prob", "prob_diff", "accuracy", "kl")


@dataclass(frozen=True)
class Case:
    """A clean and a corrupt prompt, of any lengths; answers and wrong answers as lists of token lists; and positions.

    ``roles`` are those of the clean prompt, ``corrupt_roles`` of the corrupt one; ``tokens`` maps tokens of the clean
    prompt to those of the corrupt one.
    """

    clean: list[int]
    corrupt: list[int]
    answers: list[list[int]]
    wrong: list[list[int]]
    roles: dict[str, int] = field(default_factory=dict)
    corrupt_roles: dict[str, int] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)
    template: int = 0


def log_probability(run: RunOf, length: int, answer: Ids) -> float:
    """The sum over the answer's tokens, after a prompt of so many tokens."""
    logits = run(tuple(answer[:-1]))
    return sum(float(log_softmax(logits[length - 1 + k])[token]) for k, token in enumerate(answer))


def metrics(run: RunOf, length: int, case: Case, clean: RunOf) -> dict[str, float]:
    """All metrics of one prompt. ``length`` is that of the prompt that is run, ``clean`` the clean run.

    ``logprob``: log of the summed probability of the answers; ``logprob_diff``: mean over the answers less mean over
    the wrong ones; ``accuracy``: the best answer against every wrong one; ``kl``: at the prompt's last token.
    """
    run, clean = functools.cache(run), functools.cache(clean)
    right = np.array([log_probability(run, length, one) for one in case.answers])
    wrong = np.array([log_probability(run, length, one) for one in case.wrong])
    logp = log_softmax(np.asarray(run(())[length - 1]))
    clean_logp = log_softmax(np.asarray(clean(())[len(case.clean) - 1]))
    return {
        "logprob": float(np.log(np.exp(right).sum())),
        "logprob_diff": float(right.mean() - wrong.mean()),
        "prob": float(np.exp(right).sum()),
        "prob_diff": float(np.exp(right).sum() - np.exp(wrong).sum()),
        "accuracy": float(right.max() > wrong.max()),
        "kl": float((np.exp(clean_logp) * (clean_logp - logp)).sum()),
    }


def plain(net: Net, prompt: Ids) -> RunOf:
    """The unpatched run."""
    return lambda after: forward(net, [*prompt, *after]).logits.numpy()


def tokens_at(prompt: Ids, after: Ids, named: Collection[int], inverted: bool) -> list[int]:
    """The tokens of prompt and continuation that are named (or not); what names the last one names all that follow."""
    end = len(prompt) - 1
    whole = set(named) | (set(range(end, end + 1 + len(after))) if end in named else set())
    return [p for p in range(len(prompt) + len(after)) if (p in whole) != inverted]


def source_token(token: int, base: Ids, source: Ids, tokens: Mapping[int, int]) -> int:
    """Where in the source run the value for a token of the base run is; ``tokens`` maps the prompt's own."""
    return token - len(base) + len(source) if token >= len(base) else tokens[token]


def mean_values(
    net: Net, prompts: Iterable[tuple[Ids, Iterable[Ids]]], components: Iterable[Component], after: Ids
) -> dict[Component, list[Tensor]]:
    """Means of prompts of one length with their continuations, for a row with the continuation ``after``.

    Each prompt counts once at its own tokens; at the k-th token after it, each different continuation that has one.
    """
    prompts = [(list(prompt), sorted({tuple(one) for one in own})) for prompt, own in prompts]
    length = len(prompts[0][0])
    found: dict[Component, list[Tensor]] = {}
    for component in components:
        rows = []
        for p in range(length + len(after)):
            over = [
                forward(net, [*prompt, *one], record=True).values[component][p]
                for prompt, own in prompts
                for one in (own[:1] if p < length else own)
                if p < length + len(one)
            ]
            rows.append(sum(over[1:], over[0]) / len(over))
        found[component] = rows
    return found


def patched(
    net: Net,
    base: Ids,
    sites: Callable[[Ids], Iterable[Site]],
    values: Callable[[Ids], Mapping[Component, Sequence[Tensor] | Tensor]],
    tokens: Callable[[int], int] = lambda token: token,
) -> RunOf:
    """The base run with sites at values of another run: ``sites`` and ``values`` for each continuation."""

    def run(after: Ids) -> Array:
        given = values(after)
        patches = {(component, at): given[component][tokens(at)] for component, at in sites(after)}
        return np.asarray(forward(net, [*base, *after], patches).logits.numpy())

    return run


def values_of(net: Net, prompt: Ids) -> Callable[[Ids], Values]:
    """Every component's values in the run on this prompt with a continuation."""
    return lambda after: forward(net, [*prompt, *after], record=True).values
