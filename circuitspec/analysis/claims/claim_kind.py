"""What every kind of claim says of itself: which runs it takes, how it is judged, and how reports tell of it.

A kind is a class in `kinds`, listed in `registry`. It says here only what differs from the usual claim: one patched run
between two anchors, whose recovered performance has a bound. Nothing heavy is imported before something is judged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from circuitspec.analysis.claims.claim_result import ClaimPart, ClaimResult, Judgement
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.wording import MISSING, bound, briefly, with_interval
from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.engine.records import Records, RunsExperiments
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import PlannedClaim, Planning
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.hypothesis_file.schema.blocks import AblationSpec
from circuitspec.hypothesis_file.yaml.source import Path_, SourceText

if TYPE_CHECKING:
    from circuitspec.analysis.claims.means_error import MeansError
    from circuitspec.analysis.statistics.scores import Gap

C = TypeVar("C")
P = TypeVar("P", bound=PlannedClaim)

NOT_APART = "no ratio: the clean and corrupt runs do not differ (see CS403)"
INVERTED = "no meaningful ratio: the corrupt run does better than the clean one (see CS403)"


class Choices(Protocol):
    """The choices of the file, in words (`Methodology`)."""

    @property
    def where(self) -> str: ...

    def choices(self) -> str: ...

    def denoising_choices(self, level: str) -> str: ...

    def gate_choices(self) -> str: ...

    def path_choices(self, patched: Experiment) -> str: ...


@dataclass(frozen=True)
class Searched(Generic[P]):
    """A claim with the runs that a search found, their names, and what they measured."""

    planned: P
    labels: Mapping[Experiment, str]
    records: Records


@dataclass(frozen=True)
class Bars:
    """A picture: one figure a row, with its interval and its bound."""

    title: str
    series: str
    quantity: str
    parts: tuple[ClaimPart, ...]
    note: str


@dataclass(frozen=True)
class Dot:
    """A point of a picture, of the kind by which it is coloured."""

    kind: str
    across: float
    upward: float


@dataclass(frozen=True)
class Cloud:
    """A picture: points around the diagonal, with one of them named. `kinds` are in the order of the legend."""

    title: str
    across: str
    upward: str
    diagonal: str
    kinds: tuple[str, ...]
    dots: tuple[Dot, ...]
    named: str
    named_at: tuple[float, float]
    alt: str
    note: str


class ClaimKind(ABC, Generic[C, P]):
    """How claims of one kind are planned, judged and told of.

    `C` is what the file says (the class in `hypothesis.schema`), `P` the claim with its runs.
    """

    needs_circuit: ClassVar[bool] = False
    """Whether its runs are those of the whole circuit."""
    of_circuit: ClassVar[bool] = False
    """Whether its figure is that of all of the circuit, kept alone or taken out."""
    claims_sufficiency: ClassVar[bool] = False
    """Whether it says that the circuit alone does the task, which components left outside can make look wrong."""
    knocks_out: ClassVar[bool] = False
    """Whether it is about what is lost from the clean run, rather than about what is left of it."""
    several: ClassVar[bool] = False
    """Whether several figures decide it together, so that none is an estimate of the claim."""
    halves_prompts: ClassVar[bool] = False
    """Whether it is judged on one half of the prompts alone."""
    prompts_decide: ClassVar[bool] = True
    """Whether more prompts would narrow its figure."""
    claimed_metrics_only: ClassVar[bool] = False
    """Whether its table shows the claimed metrics alone: a file may have dozens of such claims."""
    has_controls: ClassVar[bool] = False
    """Whether its table has what its figures are to be held against, so that a page without it would mislead."""
    own_answers: ClassVar[bool] = False
    """Whether its runs are scored by other answers than the task's, so that its metric says nothing of the task's."""
    nothing_patched: ClassVar[str] = "no component is declared that could be patched"
    """Why its experiment patches nothing, where it does not."""

    has_sequence: ClassVar[bool] = True
    """Whether its figures are shares or ratios of means over prompts, so that they may be looked at while prompts come
    in; not those of claims that search, or compare with circuits drawn at random."""

    # -- planning -----------------------------------------------------------------------------------------------------

    def refused(
        self, claim: C, place: Path_, ablation: AblationSpec, graph: CircuitGraph, text: SourceText
    ) -> Iterable[Diagnostic]:
        """What makes such a claim (at `place` in the file) impossible in this model, before any run is thought of."""
        return ()

    @abstractmethod
    def plan(self, claim: C, planning: Planning) -> P:
        """The claim with its runs, which are given names. Raises CircuitspecError for what is wrong with it."""

    def search(self, planned: P, records: Records, runner: RunsExperiments) -> Searched[P]:
        """The runs that it takes beside those measured, found by trying (of claims that search)."""
        return Searched(planned, {}, records)

    # -- judging ------------------------------------------------------------------------------------------------------

    def no_ratio(self, planned: P, records: Records, between: Gap) -> str:
        """Why there is no figure, given the gap between its anchors; empty where there is one."""
        return {"zero": NOT_APART, "inverted": INVERTED}.get(between.state, "")

    def decide(self, planned: P, records: Records, between: Gap, error: MeansError | None) -> Judgement:
        """What the claim comes to, where its anchors lie apart and its runs in their range."""
        from circuitspec.analysis.claims.single_figure import decide_by_one

        return decide_by_one(planned, records, error)

    # -- in words -----------------------------------------------------------------------------------------------------

    def describe(self, planned: P) -> str:
        """What was run: `denoising a9.h6, a9.h9`."""
        direction, patched = planned.patched.direction, self.patched_set(planned.claim)  # type: ignore[arg-type]
        return (
            f"{patched}: nothing to patch"
            if direction is None
            else f"{'ablating' if self.of_circuit and direction == 'noising' else direction} {patched}"
        )

    def patched_set(self, claim: C) -> str:
        """What it patches, in words."""
        raise NotImplementedError(type(self).__name__)

    def distinction(self, planned: P) -> str:
        """What tells it from others of its kind in a line of results; empty where a file has one such claim."""
        return ""

    def subject(self, claim: Any) -> str:
        """What it is about, in the few words of a picture: `necessary: logit_diff`."""
        return f"{claim.kind}: {claim.metric}"

    def choices(self, planned: P, made: Choices) -> str:
        """How its run was made: what of the file's choices applies to it."""
        if planned.patched.direction == "denoising":
            return made.denoising_choices(planned.patched.level)
        return made.choices()

    def measured(self, claim: ClaimResult) -> str:
        """What was measured: `recovered logit_diff`."""
        return f"{claim.measure} {claim.metric}"

    def alike(self, claim: ClaimResult) -> bool:
        """Whether its parts are many alike, of which sentences name the one that matters most (`said`)."""
        return False

    def said(self, claim: ClaimResult) -> str:
        """That one, and what all say together: `recovered logit_diff 0.91 [0.85, 0.97] as in the file (...)`."""
        return self.with_found(f"{self.measured(claim)} {figure(claim.parts[0])}", claim)

    def with_found(self, line: str, claim: ClaimResult) -> str:
        """The line, and in brackets what all parts say together."""
        return f"{line} ({claim.found})" if claim.found else line

    def value(self, claim: ClaimResult) -> str:
        """`recovered logit_diff 0.52 [0.47, 0.58]`; or that there is no value. Of several parts all figures."""
        if self.alike(claim):
            return self.said(claim)
        if claim.parts:
            figures = ", ".join(self.part_value(part) for part in claim.parts)
            return f"{self.measured(claim)} {figures} ({self.found_words(claim)})"
        value = "undefined" if claim.estimate is None else with_interval(claim.estimate, limits(claim))
        return f"{self.measured(claim)} {value}"

    def part_value(self, part: ClaimPart) -> str:
        """`noised 1.00 [0.98, 1.02]`."""
        return f"{part.name} {undefined_or(part)}"

    def found_words(self, claim: ClaimResult) -> str:
        """What its parts say together."""
        return claim.found

    def bound_words(self, claim: ClaimResult) -> str:
        """`at least 0.8`; of a claim with several parts that of each, and a dash where it came to none of them."""
        if not claim.parts and claim.at_least is None and claim.at_most is None:
            return MISSING
        if not claim.parts or self.alike(claim):
            return bound(claim.at_least, claim.at_most)
        return ", ".join(f"{part.name} {bound(part.at_least, part.at_most)}" for part in claim.parts)

    def main_estimate(self, claim: ClaimResult) -> Estimate | None:
        """The figure that stands for all of them: the worst subset, the file's own method."""
        return claim.estimate or next((part.estimate for part in claim.parts if part.estimate is not None), None)

    # -- tables and pictures ------------------------------------------------------------------------------------------

    def rows(self, planned: P, claim: ClaimResult, records: Records) -> list[list[str]]:
        """A table of its parts: rows of cells, the head first, with the means that every figure is made from."""
        head = [claim.metric, measure_head(claim)]
        return [head, *([part.name, noted_figure(part)] for part in claim.parts)]

    def picture(self, claim: ClaimResult) -> Bars | Cloud | None:
        """A picture of its parts, beside that of all claims."""
        return None

    # -- what others ask of it ----------------------------------------------------------------------------------------

    def interchangeable(self, claim: C) -> frozenset[str]:
        """Parts of the circuit of which it says that one does for the other."""
        return frozenset()

    def own_path(self, planned: P) -> tuple[str, Path_] | None:
        """The one path that is patched by itself, and where it stands in the file."""
        return None


AnyKind = ClaimKind[Any, Any]


def limits(one: ClaimResult | ClaimPart) -> list[float]:
    """The ends of its bound."""
    return [end for end in (one.at_least, one.at_most) if end is not None]


def figure(part: ClaimPart) -> str:
    """`0.31 [0.25, 0.37]`, or a dash."""
    return MISSING if part.estimate is None else briefly(part.estimate, limits(part))


def undefined_or(part: ClaimPart) -> str:
    """`0.31 [0.25, 0.37]`, or that it is undefined."""
    return "undefined" if part.estimate is None else briefly(part.estimate, limits(part))


def noted_figure(part: ClaimPart) -> str:
    """`0.31 [0.25, 0.37]` and what a reader has to know to read it."""
    return f"{figure(part)} {part.note}".rstrip()


def measure_head(claim: ClaimResult) -> str:
    """The head of a column of figures: `interaction [95% CI]`."""
    estimates = (part.estimate for part in claim.parts if part.estimate is not None)
    levels = dict.fromkeys(estimate.level for estimate in estimates if estimate.interval is not None)
    return claim.measure + "".join(f" [{level:.0%} CI]" for level in levels)
