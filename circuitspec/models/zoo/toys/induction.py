"""`zoo:induction`: what followed this word before follows it again. Two layers of attention, no MLP. Imports no torch.

Prompts read `Again: map coin ring pearl map`: four words of eight and one of the first three once more. The answer is
what followed it, ` coin`. Words are the directions u(i) = (cos, sin) of eight angles.

    a0.h0   the previous-token head: copies the word before
    a0.h1   the same-token head: copies the word that stands here
    a1.h0   the induction head: its query is the word, its key a0.h0's copy; so it looks behind the earlier occurrence.
            There it reads the word, 3 u from the embedding and 5 u from a0.h1's copy, and says it
    a1.h1   no word twice: says -3 u of the word that stands here

A word's logit is the product of its direction with what is said. With answer a, repeated word r, and a mean over the
three other words w of the prompt, the logit difference is

    8 (1 - mean cos(a, w)) - 3 (cos(r, a) - mean cos(r, w)),    on average 64/7 + 8/7,

since the cosines between a word and the seven others sum to -1. Said of another prompt, each of its parts is 0 on
average. So where the induction head's value comes from the embedding alone, 24/7 remains, which is a third; and all but
what a1.h1 says is 64/7, eight ninths.
"""

from __future__ import annotations

import math

from circuitspec.models.zoo.toys.blueprint import N_POSITIONS, Combination, HardHead, Match, Toy

WORDS = (" ring", " coin", " key", " map", " pearl", " letter", " book", " lamp")

_AROUND = ("x", "y")  # of a word
_SAY = ("say.x", "say.y")


def _angle(i: int, n: int, x: str, y: str) -> dict[str, float]:
    """The i-th of n directions."""
    return {x: math.cos(2 * math.pi * i / n), y: math.sin(2 * math.pi * i / n)}


def _place(back: int) -> tuple[Match, ...]:
    """Looks so many positions back: cos(a - step) and sin(a - step), from cos(a) and sin(a)."""
    step = 2 * math.pi * back / N_POSITIONS
    return (
        Match({"cos": math.cos(step), "sin": math.sin(step)}, {"cos": 1}),
        Match({"sin": math.cos(step), "cos": -math.sin(step)}, {"sin": 1}),
    )


def _copying(prefix: str) -> dict[str, Combination]:
    return {feature: {f"{prefix}.{feature}": 1} for feature in _AROUND}


def _saying(amount: float, prefix: str = "") -> dict[str, Combination]:
    return {prefix + feature: {say: amount} for feature, say in zip(_AROUND, _SAY, strict=True)}


INDUCTION = Toy(
    name="induction",
    description="head a1.h0 says what followed this word before: by a0.h0 (the word before) and a0.h1 (the word here)",
    features=("cos", "sin", *_AROUND, "before.x", "before.y", "here.x", "here.y", *_SAY),
    tokens={
        **{word: _angle(i, len(WORDS), *_AROUND) for i, word in enumerate(WORDS)},
        **{word: {} for word in ("Again", ":")},
    },
    positions={position: _angle(position, N_POSITIONS, "cos", "sin") for position in range(N_POSITIONS)},
    heads=(
        HardHead(0, 0, _place(1), _copying("before")),
        HardHead(0, 1, _place(0), _copying("here")),
        HardHead(
            1,
            0,
            (Match({"x": 1}, {"before.x": 1}), Match({"y": 1}, {"before.y": 1})),
            {**_saying(3), **_saying(5, "here.")},
        ),
        HardHead(1, 1, _place(0), _saying(-3)),
    ),
    neurons=(),
    logits={word: _angle(i, len(WORDS), *_SAY) for i, word in enumerate(WORDS)},
)
