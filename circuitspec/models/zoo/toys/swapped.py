"""`zoo:swapped`: two heads that are easily taken for each other. Imports no torch.

Prompts read `Hall lamp: switch on, bulb dim, fog thick, so it is`, and the answer is ` lit` or ` dark`. With f = 1
where current flows, else 0, b = -3, -1, 1, 3 for a bulb that is weak, dim, bright, strong, and g = 1 in thin fog, -1 in
thick, there are written to ` lit`

    a0.h0   1.5 (b + g)
    a0.h1   1.5 (g - b)
    a0.h2   8 f

` dark` has the logit 4 everywhere, so the logit difference between ` lit` and ` dark` is 8 f - 4 + 3 g: 7 or 1 with the
switch on, -1 or -7 with it off. Who says that a0.h0 carries b - g and a0.h1 b + g has the two swapped. Then a0.h0 is
taken from a prompt with the reference's b - g, (b, g) itself or (b - 2 g, -g), and a0.h1 from one with its b + g,
(b, g) or (b + 2 g, -g), where there is such a bulb. In place of 3 g stands 3 g, -3 g (one head is of another prompt) or
-9 g (both are), which turns 7 into -5 and -7 into 5. Over all prompts the average stays.
"""

from __future__ import annotations

import math

from circuitspec.models.zoo.toys.blueprint import ONE, Combination, HardHead, Match, Toy
from circuitspec.models.zoo.toys.gates import FLOWS, ROOMS, STOPS

BULBS = {" weak": -3, " dim": -1, " bright": 1, " strong": 3}
FOGS = {" thin": 1, " thick": -1}
_SWITCH, _BULB, _FOG = 4, 7, 10  # where the three words stand
_MOST = 3

_BOTH = (Match({ONE: 1}, {"bulb": 1, "fog": 1}),)  # half of its attention on each


def _level(b: int) -> Combination:
    """Of one size for all bulbs, so that neither word draws more attention."""
    return {"b": b / _MOST, "b.rest": math.sqrt(1 - (b / _MOST) ** 2)}


def _of_both(head: int, b: float, g: float) -> HardHead:
    """Writes so much to ` lit` for every unit of b and of g."""
    return HardHead(0, head, _BOTH, {"b": {"lit": 2 * _MOST * b}, "g": {"lit": 2 * g}})


SWAPPED = Toy(
    name="swapped",
    description="head a0.h0 adds what bulb and fog are together, head a0.h1 takes their difference, a0.h2 switches",
    features=("flows", "b", "b.rest", "g", "switch", "bulb", "fog", "lit"),
    tokens={
        **{word: {"flows": 1} for word in FLOWS},
        **{word: _level(b) for word, b in BULBS.items()},
        **{word: {"g": g} for word, g in FOGS.items()},
        **{word: {} for word in (*ROOMS, *STOPS, " lamp", ":", " switch", ",", " so", " it", " is", " lit", " dark")},
        **{word: {} for word in (" bulb", " fog")},
    },
    positions={_SWITCH: {"switch": 1}, _BULB: {"bulb": 1}, _FOG: {"fog": 1}},
    heads=(
        _of_both(0, 1.5, 1.5),
        _of_both(1, -1.5, 1.5),
        HardHead(0, 2, (Match({ONE: 1}, {"switch": 1}),), {"flows": {"lit": 8}}),
    ),
    neurons=(),
    logits={" lit": {"lit": 1}, " dark": {ONE: 4}},
)
