"""Everything that a verification found, as one value; reports are functions of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from circuitspec.analysis.circuit_effects.alternative_circuits import AlternativeCircuit
from circuitspec.analysis.circuit_effects.component_effects import CircuitEffects
from circuitspec.analysis.circuit_effects.negative_components import NegativeSearch
from circuitspec.analysis.circuit_effects.path_effects import PathEffect
from circuitspec.analysis.claims.abstraction.scrub_costs import ScrubCosts
from circuitspec.analysis.claims.claim_result import EXIT_CODES
from circuitspec.analysis.claims.method_sweep import MethodSweep
from circuitspec.analysis.claims.random_circuit_tests import CircuitTests
from circuitspec.analysis.claims.sequences.sequence_facts import SequenceFacts
from circuitspec.analysis.claims.verdict import ClaimResult, Status, overall
from circuitspec.analysis.dictionary_figures import DictionariesUsed
from circuitspec.analysis.prompt_rows import Breakdown, RowFacts
from circuitspec.analysis.statistics.scores import Anchors, Gap, denominators
from circuitspec.analysis.warnings.evidence import EvidenceWarning
from circuitspec.engine.records import Records, SelfTest
from circuitspec.experiments.experiment import Direction, Experiment
from circuitspec.experiments.planner import Plan
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.prompts.prompt_set import AroundPrompts
from circuitspec.runtime.stage_times import StageTime

if TYPE_CHECKING:
    from circuitspec.engine.metrics.shown_prompts import ShownPrompts


@dataclass(frozen=True)
class ModelFacts:
    """The model as it was run. `description` is for people: `GPT-2, 4 layers x 4 heads`."""

    id: str
    revision: str | None
    dtype: str
    family: str
    n_layers: int
    n_heads: int
    description: str = ""

    def __post_init__(self) -> None:
        if not self.description:
            text = f"{self.family}, {self.n_layers} layers x {self.n_heads} heads"
            object.__setattr__(self, "description", text)


@dataclass(frozen=True)
class ReferenceFacts:
    """The prompts that means were over, where those are others than the scored ones: how many, and their SHA-256."""

    count: int
    digest: str


@dataclass(frozen=True)
class Methodology:
    """The six choices on which every figure depends.

    `ablated` are the component types that are patched, `free` the components that never are (both in
    words: "heads", "MLPs"); `ablation` with `source` are the patched-in values and the prompts they
    come from (None for zeros); `set` is what is patched.

    Denoising claims patch clean values into the run on `source`, so that `ablation` says nothing there. `kept` says
    what edge and path level keep, in words; `through` what effects pass on their way at path level.
    """

    level: str
    ablated: tuple[str, ...]
    free: tuple[str, ...]
    ablation: str
    source: str | None
    positions: Literal["declared", "all"]
    direction: Direction = "noising"
    set: str = "everything outside the circuit"
    kept: str = ""
    through: tuple[str, ...] | None = None
    averaged: str = ""  # over which prompts means are: `800 reference prompts`; empty where none are taken
    left_out: tuple[str, ...] = ()  # dictionaries whose errors are replaced by nothing
    frozen: bool = False  # whether routers are held to what they choose in the run that is patched
    written: bool = False  # what is patched has positions of its own, which hold under `positions: all` too

    @property
    def value(self) -> str:
        """`mean_per_template from abc (over 800 reference prompts)`, `resample from abc`, `zero`."""
        value = self.ablation if self.source is None else f"{self.ablation} from {self.source}"
        return f"{value} (over {self.averaged})" if self.averaged else value

    @property
    def where(self) -> str:
        """`declared positions`; `all positions but where written`."""
        but = " but where written" if self.written and self.positions == "all" else ""
        return f"{self.positions} positions{but}" + (", routing of the run patched" if self.frozen else "")

    def choices(self) -> str:
        """All but direction and set: `node level, mean from abc, all positions, MLPs free`."""
        value = self.value
        if self.level == "path":
            return f"path level {_through(self.through)}, {value}, {self.where}, {self.kept}"
        types = f"{_listed(self.free)} free" if self.free else f"{_listed(self.ablated)} ablated"
        if self.level == "edge":
            types = f"{self.kept}, {types}" if self.free else self.kept
        if self.left_out:
            several = len(self.left_out) > 1
            types += f", error{'s' if several else ''} of {_listed(self.left_out)} left out"
        return f"{self.level} level, {value}, {self.where}, {types}"

    def denoising_choices(self, level: str) -> str:
        """The same for a claim that restores something: `node level, clean values into abc, declared positions`."""
        return f"{level} level, clean values into {self.source}, {self.where}"

    def gate_choices(self) -> str:
        """The same for a gate: `node level, mean from abc noised, clean values into abc denoised, all positions`."""
        return f"node level, {self.value} noised, clean values into {self.source} denoised, {self.where}"

    def path_choices(self, patched: Experiment) -> str:
        """The same for a claim about a path: `path patching through MLPs, mean from abc, declared positions`."""
        value = self.value
        if patched.direction == "denoising":
            value = f"clean values into {self.source}"
        passing = ("mlp",) if patched.rule is not None and patched.rule.through_mlps else ()
        return f"path patching {_through(passing)}, {value}, {self.where}"

    def describe(self) -> str:
        """All six in words."""
        return f"{'ablating' if self.direction == 'noising' else self.direction} {self.set}: {self.choices()}"


def _through(through: tuple[str, ...] | None) -> str:
    return "through MLPs" if through is None or through else "through nothing but the residual stream"


def _listed(words: tuple[str, ...]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else "nothing"


@dataclass(frozen=True)
class Cost:
    n_experiments: int
    n_forwards: int
    seconds: float
    n_stored: int = 0  # experiments that were not run, since they were measured before


@dataclass(frozen=True)
class Verification:
    """A hypothesis, how it was tested, what was measured and what follows."""

    name: str
    digest: str
    model: ModelFacts
    methodology: Methodology
    plan: Plan
    records: Records
    claims: tuple[ClaimResult, ...]
    warnings: tuple[EvidenceWarning, ...]
    cost: Cost
    artifacts: tuple[str, ...] = ()
    prompts_digest: str = ""  # of the prompts themselves: word lists and prompt files are not in `digest`
    self_test: SelfTest | None = None  # None where nothing was run
    negatives: NegativeSearch | None = None  # None where no claim asks for the search
    paths: tuple[PathEffect, ...] = ()  # path patching of each declared path, at edge and path level
    effects: CircuitEffects | None = None  # of the circuit's parts; None where they were not looked at
    sweep: MethodSweep | None = None  # the circuit under other methods; None where it was not asked for
    tests: CircuitTests | None = None  # statistical tests of it; None where they were not asked for
    scrubs: tuple[ScrubCosts, ...] = ()  # scrubbed circuits part by part; none where they were not looked at
    reference: ReferenceFacts | None = None  # other prompts that means were over; None where there are none
    rows: RowFacts | None = None  # of the prompts file; None where there is nothing to say of them
    breakdowns: tuple[Breakdown, ...] = ()  # figures by the values of columns of the prompts file
    alternatives: tuple[AlternativeCircuit, ...] | None = None  # other circuits; None where none were asked for
    dictionaries: DictionariesUsed | None = None  # whose features it names; None where it names none
    shown: ShownPrompts | None = None  # the first prompts as the model sees them
    sequence: SequenceFacts | None = None  # how prompts were drawn until claims were decided; None: a fixed number
    profile: tuple[StageTime, ...] = ()  # where the time went; empty where that was not asked for
    graph: CircuitGraph | None = None  # the hypothesis laid over its model, for pictures of it
    around: AroundPrompts = field(
        default_factory=AroundPrompts
    )  # what stands around the prompts as the model takes them

    @cached_property
    def denominators(self) -> dict[Anchors, dict[str, Gap]]:
        """What recovered performance divides by, for every pair of anchors and metric; seconds for
        10,000 prompts, so computed once for all reports."""
        return denominators(self.plan, self.records)

    @property
    def n_prompts(self) -> int:
        return self.records.n_prompts

    @property
    def verdict(self) -> Status:
        return overall(self.claims)

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]
