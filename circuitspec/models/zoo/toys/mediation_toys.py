"""`zoo:mediation` and `zoo:amplification`: the same three components, wired differently. Imports no torch.

Prompts read `Hall lamp: its switch is on, so it is`, and the answer is ` lit` or ` dark`.

    a0.h0   A = 1 where the word at position 6 says that current flows, else 0
    a1.h0   B = A, read at its own position, 10, the end of the prompt
    a0.h2   reads A's word as well and writes nothing: a bystander
    m1.n0   C, which writes +8 to ` lit`
            mediation:     C = relu(B): A reaches C through B alone
            amplification: C = relu(A + B - 1): A reaches C directly, and B adds to it

` dark` has the logit 4 everywhere, so the logit difference between ` lit` and ` dark` is 8 C - 4: 4 when the switch is
on and -4 when it is off. What C is, with its inputs from the one run or the other:

                                     mediation       amplification
    on                               relu(1)    1    relu(1 + 1 - 1)   1
    off                              relu(0)    0    relu(0 + 0 - 1)   0
    on,  A noised (B follows)        relu(0)    0    relu(0 + 0 - 1)   0
    on,  B noised                    relu(0)    0    relu(1 + 0 - 1)   0
    on,  path A -> C noised          relu(1)    1    relu(0 + 1 - 1)   0
    on,  path A -> B -> C noised     relu(0)    0    relu(1 + 0 - 1)   0
    off, A denoised (B follows)      relu(1)    1    relu(1 + 1 - 1)   1
    off, B denoised                  relu(1)    1    relu(0 + 1 - 1)   0
    off, path A -> C denoised        relu(0)    0    relu(1 + 0 - 1)   0

Noising A, B or C, alone or together, gives the same numbers in both: no such experiment tells them apart, and noising
the path A -> C does. Denoising B does as well, which is no accident. With three components, to restore B in the run
that is off is to take A -> C from the other run in the one that is on: either way B is on and C sees A off.
"""

from __future__ import annotations

from circuitspec.models.zoo.toys.blueprint import ONE, HardHead, Match, Toy, ToyNeuron
from circuitspec.models.zoo.toys.gates import FLOWS, ROOMS, STOPS

SWITCH, END = 6, 10  # where the word about the switch stands, and where the prompt ends


def _lamp(name: str, description: str, neuron: ToyNeuron) -> Toy:
    at_switch = (Match({ONE: 1}, {"switch": 1}),)
    silent = (*ROOMS, *STOPS, " lamp", ":", " its", " switch", " is", ",", " so", " it", " lit", " dark")
    return Toy(
        name=name,
        description=description,
        features=("flows", "switch", "end", "A", "B", "lit"),
        tokens={**{word: {"flows": 1} for word in FLOWS}, **{word: {} for word in silent}},
        positions={SWITCH: {"switch": 1}, END: {"end": 1}},
        heads=(
            HardHead(0, 0, at_switch, {"flows": {"A": 1}}),
            HardHead(0, 2, at_switch, {"flows": {}}),
            HardHead(1, 0, (Match({ONE: 1}, {"end": 1}),), {"A": {"B": 1}}),
        ),
        neurons=(neuron,),
        logits={" lit": {"lit": 1}, " dark": {ONE: 4}},
    )


MEDIATION = _lamp(
    "mediation",
    "through a relay: neuron m1.n0 reads head a1.h0 alone, which copies head a0.h0",
    ToyNeuron(1, 0, {"B": 1}, {"lit": 8}),
)

AMPLIFICATION = _lamp(
    "amplification",
    "with a booster: neuron m1.n0 is the AND of head a0.h0 and head a1.h0, which copies it",
    ToyNeuron(1, 0, {"A": 1, "B": 1, ONE: -1}, {"lit": 8}),
)
