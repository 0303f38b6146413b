"""What arithmetic says about the claims of the toys' edge-level files."""

from __future__ import annotations

from circuitspec.hypothesis_file.schema.blocks import Block
from circuitspec.hypothesis_file.schema.claims.mediation_block import Mediation
from circuitspec.hypothesis_file.schema.claims.path_block import PathClaim
from tests.zoo.toy_cases import relu

CLEAN, CORRUPT = 4.0, -4.0  # the logit differences of all three files


def mediation(a: float, b: float) -> float:
    """The logit difference by what m1 reads of switch (a) and relay (b)."""
    return 8 * relu(b) - 4


def amplification(a: float, b: float) -> float:
    return 8 * relu(a + b - 1) - 4


def nobel(before: float, here: float) -> float:
    """By what m1 reads of the head (the word before is Nobel) and of the input (this word is Peace)."""
    return 8 * relu(before + here - 1) - 4


# For every claim of the file, in order, the logit difference in its run; for a claim of mediation those with the direct
# path patched, and with both paths.
EXPECTED: dict[str, list[float | tuple[float, float]]] = {
    "mediation": [
        mediation(0, 1),  # sufficient: switch -> lamp is no part of the circuit
        mediation(0, 0),  # necessary
        (mediation(0, 1), mediation(0, 0)),
        mediation(0, 1),  # switch -> lamp noised, and denoised
        mediation(1, 0),
        mediation(1, 0),  # switch -> relay -> lamp noised, and denoised
        mediation(0, 1),
        mediation(0, 1),  # switch -> relay restored
    ],
    "amplification": [
        amplification(1, 1),
        amplification(0, 0),
        (amplification(0, 1), amplification(0, 0)),
        amplification(0, 1),
        amplification(1, 0),
        amplification(1, 0),
        amplification(0, 1),
        amplification(0, 1),  # switch -> booster restored
        amplification(1, 1),  # and switch -> lamp too
    ],
    "nobel-edges": [
        nobel(1, 1),
        nobel(0, 0),
        nobel(1, 1),  # both paths from the input restored, then each of them
        nobel(1, 0),
        nobel(0, 1),
        nobel(1, 1),  # both paths to the neuron
        nobel(1, 1),  # Peace to the head noised, Peace to the neuron, Nobel to the head
        nobel(1, 0),
        nobel(0, 1),
    ],
}


def score(claim: Block, measured: float | tuple[float, float]) -> float:
    """What a claim's bounds are about: recovered, the drop or rise, or the direct share, from its logit differences."""
    if isinstance(claim, Mediation):
        assert isinstance(measured, tuple)
        base = CLEAN if claim.direction == "noising" else CORRUPT
        return (base - measured[0]) / (base - measured[1])
    assert not isinstance(measured, tuple)
    if isinstance(claim, PathClaim) and claim.direction == "noising":
        return (CLEAN - measured) / (CLEAN - CORRUPT)
    return (measured - CORRUPT) / (CLEAN - CORRUPT)
