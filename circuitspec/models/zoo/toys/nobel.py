"""`zoo:nobel`: the "Nobel Peace Prize" circuit of Heimersheim and Nanda (2024, section 3.1). Imports no torch.

Prompts end in two words, `Mary won the Nobel Peace`, and the answer is ` Prize` rather than ` Treaty`.

    a0.h0    the previous-token head: copies the embedding of the word before (at ` Peace`, that of ` Nobel`)
    m1.n42   relu(before.nobel + peace - 1), which writes +8 to ` Prize`

Words are embedded in four features: `nobel` and `peace`, which only the two words have, and two more by which other
words differ. Positions lie on a circle; the head's query is its own place turned back by one position. ` Treaty`
has the logit 4 everywhere, so the logit difference is 8 n42 - 4: 4 after `Nobel Peace`, else -4.
"""

from __future__ import annotations

import math

from circuitspec.models.zoo.toys.blueprint import N_POSITIONS, ONE, HardHead, Match, Toy, ToyNeuron

NAMES = ("Mary", "John", "Paul", "Anna", "Peter", "Laura", "David", "Emma")
VERBS = (" won", " wanted", " discussed", " deserved")
OTHERS = (" World", " Winter", " Grand", " Green", " River", " Ocean", " Market", " Science", " Summer", " Silver")

_STEP = 2 * math.pi / N_POSITIONS
_WORD = ("nobel", "peace", "x", "y")


def _around(position: int) -> dict[str, float]:
    return {"cos": math.cos(_STEP * position), "sin": math.sin(_STEP * position)}


def _other(index: int) -> dict[str, float]:
    angle = 2 * math.pi * index / len(OTHERS)
    return {"x": math.cos(angle), "y": math.sin(angle)}


NOBEL = Toy(
    name="nobel",
    description="head a0.h0 copies Nobel to Peace, neuron m1.n42 takes the AND of the two and says Prize",
    features=("cos", "sin", *_WORD, *(f"before.{feature}" for feature in _WORD), "prize"),
    tokens={
        **{word: {} for word in (*NAMES, *VERBS, " the", " Prize", " Treaty")},
        " Nobel": {"nobel": 1},
        " Peace": {"peace": 1},
        **{word: _other(index) for index, word in enumerate(OTHERS)},
    },
    positions={position: _around(position) for position in range(N_POSITIONS)},
    heads=(
        HardHead(
            layer=0,
            head=0,
            # cos(a - step) and sin(a - step), from cos(a) and sin(a)
            matches=(
                Match({"cos": math.cos(_STEP), "sin": math.sin(_STEP)}, {"cos": 1}),
                Match({"sin": math.cos(_STEP), "cos": -math.sin(_STEP)}, {"sin": 1}),
            ),
            copies={feature: {f"before.{feature}": 1} for feature in _WORD},
        ),
    ),
    neurons=(ToyNeuron(1, 42, {"before.nobel": 1, "peace": 1, ONE: -1}, {"prize": 8}),),
    logits={" Prize": {"prize": 1}, " Treaty": {ONE: 4}},
)
