"""`zoo:cancel`: two heads that carry something besides, which cancels in their sum. Imports no torch.

Prompts read `Hall lamp: switch on, sky clear, so it is`, and the answer is ` lit` or ` dark`. With f = 1 where current
flows, else 0, and z = 1 under a bright sky, -1 under a dull one:

    a0.h0   reads both words and writes 4 f + 4 z to ` lit`
    a0.h1   reads both words and writes 4 f - 4 z to ` lit`

` dark` has the logit 4 everywhere, so the logit difference between ` lit` and ` dark` is 8 f - 4, whatever the sky: 4
with the switch on and -4 with it off. Take the heads from two prompts that agree on the switch and on nothing else, and
it is 8 f - 4 + 4 (z - z'): right in half of the draws, 8 too high or too low in a quarter each, and right on average.
"""

from __future__ import annotations

from circuitspec.models.zoo.toys.blueprint import ONE, HardHead, Match, Toy
from circuitspec.models.zoo.toys.gates import FLOWS, ROOMS, STOPS

BRIGHT = (" clear", " blue")
DULL = (" grey", " overcast")
_SWITCH, _SKY = 4, 7  # where the two words stand

_BOTH = (Match({ONE: 1}, {"switch": 1, "sky": 1}),)  # half of its attention on each

CANCEL = Toy(
    name="cancel",
    description="heads a0.h0 and a0.h1 each say half of what the switch is, and the sky, which cancels in their sum",
    features=("flows", "stops", "bright", "switch", "sky", "lit"),
    tokens={  # features of one size, so that neither word draws more attention
        **{word: {"flows": 1} for word in FLOWS},
        **{word: {"stops": 1} for word in STOPS},
        **{word: {"bright": 1} for word in BRIGHT},
        **{word: {"bright": -1} for word in DULL},
        **{word: {} for word in (*ROOMS, " lamp", ":", " switch", ",", " sky", " so", " it", " is", " lit", " dark")},
    },
    positions={_SWITCH: {"switch": 1}, _SKY: {"sky": 1}},
    heads=(
        HardHead(0, 0, _BOTH, {"flows": {"lit": 2 * 4}, "bright": {"lit": 2 * 4}}),
        HardHead(0, 1, _BOTH, {"flows": {"lit": 2 * 4}, "bright": {"lit": -2 * 4}}),
    ),
    neurons=(),
    logits={" lit": {"lit": 1}, " dark": {ONE: 4}},
)
