"""What an exploration found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from circuitspec.analysis.prompt_rows import RowFacts
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.warnings.evidence import EvidenceWarning
from circuitspec.exploration.draft import Draft
from circuitspec.exploration.forward_budget import Unseen
from circuitspec.exploration.request import ExploreOptions as ExploreOptions
from circuitspec.exploration.search.circuit_selection import FrontierPoint
from circuitspec.exploration.search.component_sweep import ComponentSweep, Effect
from circuitspec.exploration.search.cross_sections import Sections
from circuitspec.exploration.search.exact_sweeps import Grid
from circuitspec.exploration.search.feature_search import SearchedDictionary
from circuitspec.exploration.search.path_search import Links
from circuitspec.exploration.search.reactions.corruption_traces import CorruptionTraces
from circuitspec.exploration.search.reactions.gate_search import Pair
from circuitspec.exploration.stability.circuit_stability import Stability


@dataclass(frozen=True)
class Circuit:
    """A circuit that was arrived at, every circuit tried on the way, and its draft."""

    kind: str  # "with negatives" or "helpful only"
    recovered: float  # on the prompts that it was chosen on
    interval: tuple[float, float] | None
    knocked_out: float
    entries: tuple[tuple[str, str, str], ...]  # component, role, effect
    heads: int  # or features, where these are searched
    frontier: tuple[FrontierPoint, ...]
    spared: tuple[tuple[str, str], ...]  # component, role: helpful, but fewer heads reach the target without
    unproven: tuple[tuple[str, str], ...]  # likewise, but not seen to help by themselves
    draft: Draft
    held_out: tuple[Estimate, Estimate] | None = None  # recovered, and left without it, on prompts held out

    @property
    def is_empty(self) -> bool:
        """Whether nothing was taken in, so that there is nothing to claim: its draft is no hypothesis."""
        return not self.entries


@dataclass(frozen=True)
class ExplorationFindings:
    """Everything that an exploration found. Where its allowance ended too early, there are no circuits."""

    name: str
    model: str
    metric: str
    ablation: str
    n_prompts: int
    n_layers: int
    n_heads: int  # in the model
    roles: tuple[str, ...]  # and where the prompts name none, all tokens
    target: float
    corruptions: Mapping[str, tuple[float, float]]  # -> the metric's mean on the clean and on the corrupt prompts
    grids: tuple[Grid, ...]
    sweep: ComponentSweep
    traces: CorruptionTraces | None
    circuits: tuple[Circuit, ...]
    gates: tuple[Pair, ...]
    sections: tuple[Sections, ...]  # of the drafted circuit, and of the one that the file declares
    links: Links
    unseen: tuple[Unseen, ...]
    forwards: float
    seconds: float
    not_done: tuple[EvidenceWarning, ...] = ()  # where the model does not do the task
    unnamed: bool = False  # whether the prompts name no position: looked at were the last token and all of them
    rows: RowFacts | None = None  # of the prompts file; None where there is nothing to say of them
    features: tuple[SearchedDictionary, ...] = ()  # where features are searched, of each dictionary
    judged_on: str = ""  # the prompts that drafts' own figures are of, in words; empty where they are those searched on
    not_judged: str = ""  # why there are no such other prompts; empty where nothing is drafted
    stability: Stability | None = None  # of the search repeated on halves of the prompts, where that was asked for

    @property
    def unit(self) -> str:
        """What the size of a circuit is counted in: heads, or features."""
        return "feature" if self.features else "head"

    @property
    def units(self) -> int:
        """How many there are: heads of the model, features that move at a searched position."""
        return sum(one.moving for one in self.features) if self.features else self.n_heads

    def largest(self, count: int) -> tuple[Effect, ...]:
        """The largest exact effects."""
        return tuple(sorted(self.sweep.exact, key=lambda e: -e.size)[:count])
