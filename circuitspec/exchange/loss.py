"""What gets lost, or has to be made up, when a circuit changes its format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from circuitspec.runtime.visible_text import visible

LossKind = Literal[
    "positions",  # where in the prompt an edge lies
    "roles",  # what the groups are called, and whether they help or hurt
    "scores",  # how strong an edge was found to be
    "signs",  # whether an edge helps or hurts
    "neurons",  # parts of a component
    "edges",  # who reads whom
    "inputs",  # q, k and v apart
    "embeddings",  # token and position embeddings apart
    "computation",  # edges inside a component
    "sharing",  # keys and values that several heads share
    "dangling",  # edges on no way from input to logits
    "missing",  # edges that the file does not name, or does not score
    "ties",  # which of equally strong edges to take
    "size",  # how large the model is
    "free",  # components outside the claim
    "model",
    "prompts",
    "ablation",
    "claims",
    "dictionaries",
    "identifiers",  # what several nodes of a file are called alike
    "submission",  # the other circuits of a benchmark submission
    "units",  # where else a variable is scored
    "subspace",  # the numbers of a basis
    "variables",  # what variables are computed from, and the answer
    "pairs",  # bases and sources
]


@dataclass(frozen=True)
class Loss:
    """One thing that a format cannot say, and what became of it."""

    kind: LossKind
    message: str


def loss_rows(losses: Sequence[Loss]) -> list[tuple[str, str]]:
    """Of each loss its kind and message, the kinds made equally wide."""
    width = max((len(loss.kind) for loss in losses), default=0)
    return [(f"{loss.kind:<{width}}  ", loss.message) for loss in losses]


def loss_text(code: str, heading: str, losses: Sequence[Loss]) -> str:
    """The losses as a note for a person, under the code that explains them."""
    lines = [f"note[{code}]: {heading}", *(f"   {kind}{visible(message)}" for kind, message in loss_rows(losses))]
    return "\n".join([*lines, f"   more: circuitspec explain {code}", ""])


def counted(count: int, noun: str) -> str:
    """`1 edge`, `1,024 edges`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
