"""What an exploration is asked for, and what it found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from circuitspec.engine.stored import StorePlace
from circuitspec.exploring.allowance import Unseen
from circuitspec.exploring.draft import Draft
from circuitspec.exploring.gates import Pair
from circuitspec.exploring.grid import Grid, Kind
from circuitspec.exploring.links import Links
from circuitspec.exploring.sections import Sections
from circuitspec.exploring.select import Point
from circuitspec.exploring.sweep import Effect, Sweep
from circuitspec.exploring.traces import Traces

Start = Literal["estimates", "resid"]


@dataclass(frozen=True)
class Options:
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


@dataclass(frozen=True)
class Circuit:
    """A circuit that was arrived at, every circuit tried on the way, and its draft."""

    kind: str  # "with negatives" or "helpful only"
    recovered: float
    interval: tuple[float, float] | None
    knocked_out: float
    entries: tuple[tuple[str, str, str], ...]  # component, role, effect
    heads: int
    frontier: tuple[Point, ...]
    spared: tuple[tuple[str, str], ...]  # component, role: helpful, but fewer heads reach the target without
    unproven: tuple[tuple[str, str], ...]  # likewise, but not seen to help by themselves
    draft: Draft

    @property
    def is_empty(self) -> bool:
        """Whether nothing was taken in, so that there is nothing to claim: its draft is no hypothesis."""
        return not self.entries


@dataclass(frozen=True)
class Findings:
    """Everything that an exploration found. Where its allowance ended too early, there are no circuits."""

    name: str
    model: str
    metric: str
    ablation: str
    n_prompts: int
    n_layers: int
    n_heads: int  # in the model
    roles: tuple[str, ...]
    target: float
    corruptions: Mapping[str, tuple[float, float]]  # -> the metric's mean on the clean and on the corrupt prompts
    grids: tuple[Grid, ...]
    sweep: Sweep
    traces: Traces | None
    circuits: tuple[Circuit, ...]
    gates: tuple[Pair, ...]
    sections: tuple[Sections, ...]  # of the drafted circuit, and of the one that the file declares
    links: Links
    unseen: tuple[Unseen, ...]
    forwards: float
    seconds: float

    def largest(self, count: int) -> tuple[Effect, ...]:
        """The largest exact effects."""
        return tuple(sorted(self.sweep.exact, key=lambda e: -e.size)[:count])
