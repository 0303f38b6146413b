"""What an exploration is asked for. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from circuitspec.hypothesis_file.grammar.component_kinds import (
    ATTENTION,
    ATTENTION_PATTERN,
    HEAD,
    MLP,
    NEURON,
    RESID,
    ComponentKind,
)

if TYPE_CHECKING:
    from circuitspec.engine.cache.stored_runner import StorePlace

Start = Literal["estimates", "resid"]
Kind = Literal["resid", "attention", "mlps", "heads", "patterns", "neurons"]

SWEPT: Mapping[Kind, ComponentKind] = {
    "resid": RESID,
    "attention": ATTENTION,
    "mlps": MLP,
    "heads": HEAD,
    "patterns": ATTENTION_PATTERN,
    "neurons": NEURON,
}
"""What a sweep can be of, from coarse to fine."""


@dataclass(frozen=True)
class ExploreOptions:
    """What is searched and how far.

    free: names of components that are never patched, such as `m*`. exact: how many of the largest estimated
    effects are patched exactly. steps: of integrated gradients. start: with estimates for everything, or with exact
    sweeps from the residual stream on. neurons: those of MLPs in circuits and in such sweeps are looked into.
    sweeps: kinds of components that are swept one and all; values: what sweeps patch in (that of the file, where none
    is named). max_forwards: passes over all prompts.
    """

    metric: str = "logit_diff"
    free: tuple[str, ...] = ()
    target: float = 0.9
    knee: bool = False  # of the circuits on the way to the target, take the one at the knee of the frontier
    exact: int = 60
    linked: int = 12  # members between which direct paths are patched
    steps: int = 1
    rows: int | None = None
    device: str = "cpu"
    store: StorePlace = None  # where experiments are looked up and kept; None: nowhere
    start: Start = "estimates"
    neurons: bool = False
    sweeps: tuple[Kind, ...] = ()
    values: tuple[str, ...] = ()
    max_forwards: float | None = None
    drawn: int = 20  # of what has small estimates, patched exactly to see what estimates miss
    dropping: bool = False  # estimates that see effects which cancel
    recomputing: bool = False  # estimates that see effects through saturated attention
    paths: int = 300  # direct paths that are patched exactly
    noise_at: tuple[str, ...] = ()  # where sweeps of `gaussian` add noise, if not where the file says
    sections: int = 50  # cross-sections that are restored, of each circuit
    sections_only: bool = False  # of the circuit that the file declares, and nothing else is looked at
