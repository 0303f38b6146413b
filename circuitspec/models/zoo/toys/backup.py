"""`zoo:backup`: a head that jumps in when the main head is silent. Imports no torch.

    a0.h2   the main head: looks at the thing in the box and adds X = 10 to its logit
    a1.h1   the backup: looks at the first word, which is none, while the main head has spoken; otherwise it looks
            at the thing and adds 0.7 X = 7 to its logit

` nothing` has the logit 5 everywhere, so the logit difference between the thing and ` nothing` is 10 - 5 = 5, and -5
after a prompt about a secret. Knocking out the main head costs its direct effect, 10, less the 7 of the backup.
"""

from __future__ import annotations

from circuitspec.models.zoo.toys.blueprint import ONE, HardHead, Match, Toy
from circuitspec.models.zoo.toys.boxes import IS, LOGITS, SAY, TOKENS, a_thing, saying

_MAIN = 10.0
_HAS_SPOKEN = dict.fromkeys(SAY, 1 / _MAIN)  # 1 after the main head, 0 without it
_IS_SILENT = {ONE: 1.0, **dict.fromkeys(SAY, -1 / _MAIN)}

BACKUP = Toy(
    name="backup",
    description="head a0.h2 names the thing in the box (+10); head a1.h1 does (+7) when a0.h2 has not",
    features=("start", *IS, *SAY),
    tokens=TOKENS,
    positions={0: {"start": 1}},
    heads=(
        HardHead(0, 2, (a_thing({ONE: 1}),), saying(_MAIN)),
        HardHead(1, 1, (Match(_HAS_SPOKEN, {"start": 1}), a_thing(_IS_SILENT)), saying(0.7 * _MAIN)),
    ),
    neurons=(),
    logits={**LOGITS, " nothing": {ONE: 5}},
)
