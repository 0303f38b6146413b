"""`zoo:and` and `zoo:or`: a lamp behind two switches, wired in series or in parallel. Imports no torch.

Prompts read `Hall lamp: one switch on, one switch up, so it is`, and the answer is ` lit` or ` dark`.

    a0.h0   A = 1 where the word at position 5 says that current flows, else 0
    a0.h1   B likewise, from position 9
    a0.h2   reads A's word as well and writes nothing: a bystander
    m1.n0   AND: relu(A + B - 1), which writes +8 to ` lit`
            OR:  relu(1 - A - B), which writes -8 to ` lit` (the lamp is lit unless neither switch is on)

` dark` has the logit 4 everywhere and ` lit` starts from 0 (AND) or 8 (OR). With C = A AND B, or A OR B, the logit
difference between ` lit` and ` dark` is 8 C - 4: 4 when the lamp is lit and -4 when it is dark.
"""

from __future__ import annotations

from circuitspec.models.zoo.toys.blueprint import ONE, Combination, HardHead, Match, Toy, ToyNeuron

ROOMS = ("Kitchen", "Hall", "Cellar", "Attic", "Garden", "Porch", "Studio", "Office")
FLOWS = (" on", " closed", " up")
STOPS = (" off", " open", " down")
FIRST, SECOND = 5, 9  # where the two words about the switches stand


def _looking_at(place: str, layer: int, head: int, writes: Combination) -> HardHead:
    return HardHead(layer, head, (Match({ONE: 1}, {place: 1}),), {"flows": writes})


def _gate(name: str, description: str, neuron: ToyNeuron, lit: Combination) -> Toy:
    silent = (*ROOMS, *STOPS, " lamp", ":", " one", " switch", ",", " so", " it", " is", " lit", " dark")
    return Toy(
        name=name,
        description=description,
        features=("flows", "first", "second", "A", "B", "lit"),
        tokens={**{word: {"flows": 1} for word in FLOWS}, **{word: {} for word in silent}},
        positions={FIRST: {"first": 1}, SECOND: {"second": 1}},
        heads=(
            _looking_at("first", 0, 0, {"A": 1}),
            _looking_at("second", 0, 1, {"B": 1}),
            _looking_at("first", 0, 2, {}),
        ),
        neurons=(neuron,),
        logits={" lit": lit, " dark": {ONE: 4}},
    )


AND = _gate(
    "and",
    "two switches in series: neuron m1.n0 is the AND of heads a0.h0 and a0.h1",
    ToyNeuron(1, 0, {"A": 1, "B": 1, ONE: -1}, {"lit": 8}),
    {"lit": 1},
)

OR = _gate(
    "or",
    "two switches in parallel: neuron m1.n0 is silent when head a0.h0 or a0.h1 is on",
    ToyNeuron(1, 0, {"A": -1, "B": -1, ONE: 1}, {"lit": -8}),
    {"lit": 1, ONE: 8},
)
