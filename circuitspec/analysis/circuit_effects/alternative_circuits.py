"""Other circuits that do as well as the declared one: what was found of them, and what was not looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from circuitspec.analysis.statistics.estimate import Estimate

Found = Literal["found", "undecided", "none found", "not looked for"]

LIMIT = 400.0  # forwards over all prompts, at most, that the search for one takes for each claim


@dataclass(frozen=True)
class AlternativeCircuit:
    """The outcome of a search for a circuit that meets the bound of one claim and shares little with the declared one.

    It was chosen on one half of the prompts and judged on the other (`declared` is the declared circuit there, too);
    the intervals hold means fixed. "found": the interval lies inside the claim's bound; "undecided": it crosses it.
    Of "none found" the figures are those of the closest that was tried. `nodes` are its components at positions,
    `shared` those of the declared circuit among them, of which there may be `allowed`. `rest` is what the model
    recovers without the declared circuit (but for what is shared): an alternative must be made of that. `kl` is how far
    the outputs of the two circuits lie apart, in nats. Of `candidates` (components at positions) `exact` were patched,
    the others estimated; `tried` circuits were measured, in so many `forwards`. `reason` says why nothing was looked
    for, or why the search ended early.
    """

    claim: int  # its place in the file, from 0
    metric: str
    status: Found
    reason: str = ""
    nodes: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    allowed: int = 0
    recovered: Estimate | None = None
    declared: Estimate | None = None
    rest: float | None = None
    kl: float | None = None
    candidates: int = 0
    exact: int = 0
    tried: int = 0
    forwards: float = 0.0
