"""`zoo:negative`: one head names the thing in the box, another works against it. Imports no torch.

    a0.h1   looks at the thing and adds +6 to its logit
    a1.h2   looks at the thing and adds -2 to its logit

Between the thing in the prompt and another one, the logit difference is 6 - 2 = 4. With the negative head's output
taken from a prompt about that other thing, it is 6 + 2 = 8.
"""

from __future__ import annotations

from circuitspec.models.zoo.toys.blueprint import ONE, HardHead, Toy
from circuitspec.models.zoo.toys.boxes import IS, LOGITS, SAY, TOKENS, a_thing, saying

NEGATIVE = Toy(
    name="negative",
    description="head a0.h1 names the thing in the box (+6), head a1.h2 writes against it (-2)",
    features=(*IS, *SAY),
    tokens=TOKENS,
    positions={},
    heads=(
        HardHead(0, 1, (a_thing({ONE: 1}),), saying(6)),
        HardHead(1, 2, (a_thing({ONE: 1}),), saying(-2)),
    ),
    neurons=(),
    logits=LOGITS,
)
