"""What claims about variables have in common: their runs, which pairs count, and the table of their figures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from circuitspec.analysis.claims.claim_kind import Choices, ClaimKind, undefined_or
from circuitspec.analysis.claims.claim_result import (
    CROSSES,
    MIN_PROMPTS,
    ClaimPart,
    ClaimResult,
    Judgement,
    Status,
    place,
)
from circuitspec.analysis.statistics.wording import MISSING, bound, number, with_interval
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment, Site
from circuitspec.experiments.levels.interchange_level import check_apart, instead_of_subspaces, interchanging
from circuitspec.experiments.planner import CLEAN, Measure, PlannedClaim, Planning
from circuitspec.experiments.subspaces.natural_states import PatchedStates
from circuitspec.experiments.subspaces.subspace_files import where_name
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.schema.abstraction.interchange_block import IIA, AboutVariables
from circuitspec.prompts.pairs.settings import (
    Setting,
    families_of,
    in_words,
    scored_as,
    scored_as_base,
    settings_of,
    source_variant,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from circuitspec.analysis.claims.means_error import MeansError
    from circuitspec.analysis.statistics.estimate import Estimate
    from circuitspec.analysis.statistics.scores import Gap

C = TypeVar("C", bound=AboutVariables)

MOST = 0.5  # of the pairs that a figure is about: the model itself must answer more of them right


@dataclass(frozen=True)
class PairTrial:
    """One intervention on one family of pairs (or, of several variables, on pairs with several sources).

    The base run with aligned components at their values in sources is `patched`, scored by what the high-level model
    asks for, and `stayed`, scored by the answer to the base; `unpatched` and `base` are the base run, scored so. The
    `sources` are scored by their own answers. `changed` says of which pairs the answer must change, `telling` by name
    which pairs the claim is about; both are empty where the prompts are not at hand.
    Where it is along subspaces (those of the `sites` by variable), `controls` are runs with whole components and with
    random subspaces, scored alike; `parts` are runs along the subspaces' parts, and `states` says how far from natural
    states it leads: both are known once the bases' and sources' values are.
    """

    name: str
    setting: Setting
    patched: Experiment
    stayed: Experiment
    unpatched: Experiment
    base: Experiment
    sources: tuple[Experiment, ...]
    changed: tuple[bool, ...] = ()
    telling: Mapping[str, tuple[bool, ...]] = field(default_factory=dict, hash=False)
    controls: Mapping[str, Experiment] = field(default_factory=dict, hash=False)
    sites: Mapping[str, frozenset[Site]] = field(default_factory=dict, hash=False)
    parts: Mapping[str, Experiment] = field(default_factory=dict, hash=False)
    states: PatchedStates | None = field(default=None, hash=False)

    @property
    def runs(self) -> tuple[Experiment, ...]:
        own = (self.base, self.unpatched, *self.sources, self.patched, self.stayed)
        return (*own, *self.controls.values(), *self.parts.values())

    def first(self, n: int) -> PairTrial:
        """The trial on the first `n` pairs alone."""
        telling = {name: mask[:n] for name, mask in self.telling.items()}
        return replace(self, changed=self.changed[:n], telling=telling)

    @property
    def subspaces(self) -> Mapping[str, Site]:
        """The site of every variable that it sets along a subspace."""
        found = {name: next(iter(sites)) for name, sites in self.sites.items() if len(sites) == 1}
        return {name: site for name, site in found.items() if site.subspace is not None}


@dataclass(frozen=True)
class PlannedPairs(PlannedClaim):
    """The trials of a claim; `patched` is the first one's, `clean` and `corrupt` are the file's anchors."""

    measure: Measure = "IIA"
    trials: tuple[PairTrial, ...] = field(kw_only=True)

    between_behaviours: ClassVar[bool] = False

    @property
    def anchored(self) -> Mapping[Experiment, tuple[Experiment, Experiment]]:
        """None of its runs lies between the anchors: they are scored by other answers."""
        return {}

    def first(self, n: int) -> PlannedPairs:
        return replace(self, trials=tuple(trial.first(n) for trial in self.trials))

    @property
    def more_runs(self) -> tuple[Experiment, ...]:
        return tuple(dict.fromkeys(run for trial in self.trials for run in trial.runs))


@dataclass(frozen=True)
class PairFigures:
    """What a trial comes to, over the pairs whose base and sources the unpatched model answers right.

    `kept` are these pairs, `hit` those on which the patched model's answer, among the pair's candidates, is the one
    that the high-level model asks for, `top` those on which it is the likeliest token of the vocabulary; `nothing` are
    hits of the base run itself. `difference` is the logit of the expected answer less that of the base's, with the
    patch and without. All are `[pair]`.
    """

    kept: NDArray[np.bool_]
    changed: NDArray[np.bool_]
    hit: NDArray[np.bool_]
    stays: NDArray[np.bool_]
    top: NDArray[np.bool_]
    nothing: NDArray[np.bool_]
    difference: NDArray[np.float64]
    unpatched_difference: NDArray[np.float64]


def figures_of(trial: PairTrial, records: Records) -> PairFigures:
    """The figures of a trial, pair by pair."""
    import numpy as np

    right = [records[run][IIA] == 1 for run in (trial.base, *trial.sources)]
    return PairFigures(
        kept=np.logical_and.reduce(right),
        changed=np.array(trial.changed, dtype=bool),
        hit=records[trial.patched][IIA] == 1,
        stays=records[trial.stayed][IIA] == 1,
        top=(records[trial.patched][IIA] == 1) & (records[trial.patched]["rank"] == 0),
        nothing=records[trial.unpatched][IIA] == 1,
        difference=records[trial.patched]["logit"] - records[trial.stayed]["logit"],
        unpatched_difference=records[trial.unpatched]["logit"] - records[trial.base]["logit"],
    )


def other_hits(trial: PairTrial, records: Records) -> dict[str, NDArray[np.bool_]]:
    """On which pairs each control and each part of its subspaces gives the answer that is asked for, `[pair]`."""
    return {name: records[run][IIA] == 1 for name, run in (*trial.controls.items(), *trial.parts.items())}


class PairClaims(ClaimKind[C, PlannedPairs]):
    """Aligned components take their values in the source, and answers are compared with the high-level model's."""

    several = True
    has_controls = True
    own_answers = True

    @abstractmethod
    def telling(self, claim: C, setting: Setting, planning: Planning) -> Mapping[str, tuple[bool, ...]]:
        """By the name of a part, the pairs that it is about."""

    @abstractmethod
    def hits(self, figures: PairFigures) -> NDArray[np.bool_]:
        """The pairs on which the claim holds, `[pair]`."""

    @property
    @abstractmethod
    def untold(self) -> str:
        """Why nothing is judged where no pair can tell."""

    def plan(self, claim: C, planning: Planning) -> PlannedPairs:
        trials = []
        for setting in settings_of(claim, planning.abstraction):
            sites = {variable: planning.sites(variable) for variable, _ in setting}
            aligned = {variable: {site.component: site.where for site in own} for variable, own in sites.items()}
            check_apart(setting, aligned, planning.graph.shape, planning.text)
            trial = self._trial(claim, setting, interchanging(setting, sites), planning)
            trials.append(replace(trial, sites=sites))
        planning.name_anchor(planning.anchor)
        first = trials[0].patched
        return PlannedPairs(planning.index, claim, first, CLEAN, planning.anchor, trials=tuple(trials))

    def _trial(self, claim: C, setting: Setting, run: Experiment, planning: Planning) -> PairTrial:
        expected, own = scored_as(setting), scored_as_base(setting)
        families = families_of(setting)
        patched, stayed = (replace(run, expected=by) for by in (expected, own))
        base, unpatched = (Experiment("clean", expected=by) for by in (own, expected))
        sources = tuple(Experiment(v, expected=v) for v in map(source_variant, families))
        words, which = in_words(setting), ", ".join(families)
        at = ", ".join(self._nodes(variable, planning) for variable, _ in setting)
        planning.name(base, f"base prompts of {which}")
        for source, family in zip(sources, families, strict=True):
            planning.name(source, f"source prompts of {family}")
        planning.name(unpatched, f"base prompts, scored by {words}")
        planning.name(patched, f"{words} at {at}")
        planning.name(stayed, f"{words} at {at}, scored by the base's answer")
        changed = () if planning.pairs is None else planning.pairs.changed(setting)
        telling = {} if planning.pairs is None else self.telling(claim, setting, planning)
        name = which if len(setting) == 1 else words
        controls = {what: replace(one, expected=expected) for what, one in instead_of_subspaces(run).items()}
        for what, one in controls.items():
            planning.name(one, f"{words} at {at}, {what}")
        return PairTrial(name, setting, patched, stayed, unpatched, base, sources, changed, telling, controls)

    def _nodes(self, variable: str, planning: Planning) -> str:
        spec = planning.abstraction.align[variable]
        if spec.subspace is not None:  # of several components it is of the one that its file says
            (site,) = planning.sites(variable)
            return f"{format_name(site.component)}@{where_name(site.where)}"
        at = "" if spec.at is None else "@" + (spec.at if isinstance(spec.at, str) else "{" + ",".join(spec.at) + "}")
        return ", ".join(f"{node}{at}" for node in spec.nodes)

    # -- judging ------------------------------------------------------------------------------------------------------

    def no_ratio(self, planned: PlannedPairs, records: Records, between: Gap) -> str:
        """There is no ratio that could be missing."""
        return ""

    def decide(self, planned: PlannedPairs, records: Records, between: Gap, error: MeansError | None) -> Judgement:
        claim = planned.claim
        parts = [part for trial in planned.trials for part in self._parts(trial, records, claim, error)]
        notes = (*self.notes(error), *_state_notes(planned, records))
        judged = [part for part in parts if part.reason != self.untold]
        if not judged:
            return Judgement("INCONCLUSIVE", self.untold, parts=tuple(parts), found="no pairs", notes=notes)
        statuses = {part.status for part in judged}
        if "REFUTED" in statuses or statuses == {"SUPPORTED"}:
            reason = ""
        else:
            reason = "; ".join(f"{part.name}: {part.reason}" for part in judged if part.reason)
        status: Status = "REFUTED" if "REFUTED" in statuses else "INCONCLUSIVE" if reason else "SUPPORTED"
        return Judgement(status, reason, parts=tuple(parts), found=self.found(planned, records), notes=notes)

    def _parts(self, trial: PairTrial, records: Records, claim: Any, error: MeansError | None) -> list[ClaimPart]:
        import numpy as np

        from circuitspec.analysis.claims.sequences.sequential_estimates import share_among

        figures = figures_of(trial, records)
        found = []
        for name, mask in trial.telling.items():
            asked = np.array(mask, dtype=bool)
            counted = asked & figures.kept
            left_out = int((asked & ~figures.kept).sum())
            note = f"({left_out} of {int(asked.sum())} pairs left out: answered wrong without any patch)"
            hits, right = (self.hits(figures), counted), (figures.kept, asked)
            part = self._judged(name, share_among(*hits, error), share_among(*right, error), claim)
            told = {**shares_of(figures), **compared(trial, figures, records)}
            figures_told = tuple((name, one) for name, one in told.items() if one is not None)
            found.append(replace(part, note=note if left_out else "", figures=figures_told))
        return found

    def _judged(self, name: str, estimate: Estimate | None, right: Estimate | None, claim: Any) -> ClaimPart:
        """The part, judged where the model itself answers most of the pairs that it is about right."""
        least, most = claim.at_least, claim.at_most
        if right is None:
            return ClaimPart(name, "INCONCLUSIVE", None, least, most, self.untold)
        if estimate is None or estimate.interval is None or (right.low or 0.0) <= MOST:
            why = (
                f"the unpatched model answers base and source right on {round(right.value * right.n)} of {right.n} "
                "pairs, which is not surely most of them"
            )
            return ClaimPart(name, "INCONCLUSIVE", estimate, least, most, why)
        if estimate.n < MIN_PROMPTS:
            why = f"{estimate.n} pairs are too few for a verdict, which needs {MIN_PROMPTS}"
            return ClaimPart(name, "INCONCLUSIVE", estimate, least, most, why)
        status = place(estimate.interval, least, most)
        return ClaimPart(name, status, estimate, least, most, CROSSES if status == "INCONCLUSIVE" else "")

    def notes(self, error: MeansError | None) -> tuple[str, ...]:
        """How its figures are to be read."""
        from circuitspec.analysis.claims.sequences.sequential_estimates import SequentialEstimates

        interval = "intervals are Wilson's"
        if isinstance(error, SequentialEstimates):
            interval = "intervals of what is claimed are those of a betting sequence, all others Wilson's"
        return (
            "pairs whose base or source the unpatched model answers wrong are left out; the model's answer is the "
            f"likeliest of the pair's candidates (top-1: of the vocabulary); {interval}",
        )

    def found(self, planned: PlannedPairs, records: Records) -> str:
        """What all pairs say together: `all pairs 0.99, doing nothing 0.50`."""
        import numpy as np

        every = [figures_of(trial, records) for trial in planned.trials]
        kept = np.concatenate([one.kept for one in every])
        hit, nothing = (np.concatenate([getattr(one, name) for one in every])[kept] for name in ("hit", "nothing"))
        if not len(hit):
            return "no pairs"
        return f"on all pairs {number(float(hit.mean()))}, doing nothing {number(float(nothing.mean()))}"

    # -- in words -----------------------------------------------------------------------------------------------------

    def describe(self, planned: PlannedPairs) -> str:
        which = ", ".join(dict.fromkeys(trial.name for trial in planned.trials))
        return f"interchange of {self.distinction(planned)} on pairs of {which}"

    def distinction(self, planned: PlannedPairs) -> str:
        return ", ".join(name for name, _ in planned.claim.set_together)  # type: ignore[attr-defined]

    def subject(self, claim: Any) -> str:
        return f"{claim.kind}: {', '.join(name for name, _ in claim.set_together)}"

    def choices(self, planned: PlannedPairs, made: Choices) -> str:
        return "node level, resample from the source prompt, aligned positions"

    def measured(self, claim: ClaimResult) -> str:
        return "IIA"

    def value(self, claim: ClaimResult) -> str:
        """`IIA 1.00 [0.96, 1.00] (flipped), 0.75 [0.66, 0.82] (other_names)`, of the pairs that tell."""
        told = [part for part in claim.parts if part.reason != self.untold]
        figures = ", ".join(f"{undefined_or(part)} ({part.name})" for part in told) or "undefined"
        return f"{self.measured(claim)} {figures}" + (f"; {claim.found}" if claim.found else "")

    def bound_words(self, claim: ClaimResult) -> str:
        """One bound for all families."""
        return bound(claim.at_least, claim.at_most)

    def rows(self, planned: PlannedPairs, claim: ClaimResult, records: Records) -> list[list[str]]:
        """A row a family: the share of pairs on which the answer is as the high-level model asks for.

        Below it, where it is about subspaces, what whole components, random subspaces and its own parts score.
        """
        from circuitspec.analysis.statistics.proportions import share_of

        head = ["pairs", "kept", "must change", "IIA, changed [95% CI]", "top-1, changed", "unchanged", "all pairs"]
        rows = [[*head, "doing nothing", "asked - base"]]
        for trial in planned.trials:
            one = figures_of(trial, records)
            changed = one.kept & one.changed
            shares = [MISSING if share is None else with_interval(share) for share in shares_of(one).values()]
            moved = MISSING
            if changed.any():
                ends = (one.unpatched_difference[changed].mean(), one.difference[changed].mean())
                moved = " -> ".join(number(float(end)) for end in ends)
            counts = (f"{int(one.kept.sum())} of {len(one.kept)}", str(int(changed.sum())))
            rows.append([trial.name, *counts, *shares, moved])
            for what, hits in other_hits(trial, records).items():
                told = [share_of(hits[mask]) for mask in (changed, one.kept & ~one.changed, one.kept)]
                first, same, every = (MISSING if share is None else with_interval(share) for share in told)
                rows.append([f"  {what}", "", "", first, MISSING, same, every, MISSING, MISSING])
        return rows


def shares_of(figures: PairFigures) -> dict[str, Estimate | None]:
    """The shares of pairs that are reported of a trial, by their names; None of no pairs."""
    from circuitspec.analysis.statistics.proportions import share_of

    changed, unchanged = figures.kept & figures.changed, figures.kept & ~figures.changed
    return {
        "IIA, changed": share_of(figures.hit[changed]),
        "top-1, changed": share_of(figures.top[changed]),
        "unchanged": share_of(figures.hit[unchanged]),
        "all pairs": share_of(figures.hit[figures.kept]),
        "doing nothing": share_of(figures.nothing[figures.kept]),
    }


def compared(trial: PairTrial, figures: PairFigures, records: Records) -> dict[str, Estimate | None]:
    """Of a trial along subspaces, by their names: IIA on changed pairs of each control and part, and the shares of
    patched states that are outside the natural range."""
    from circuitspec.analysis.claims.abstraction.subspace_figures import outside_shares
    from circuitspec.analysis.statistics.proportions import share_of

    changed = figures.kept & figures.changed
    found = {f"IIA, changed, {name}": share_of(own[changed]) for name, own in other_hits(trial, records).items()}
    states = {} if trial.states is None else outside_shares(trial.states, changed)
    return found | {f"outside the natural range, {name}": share for name, share in states.items()}


def _state_notes(planned: PlannedPairs, records: Records) -> list[str]:
    """How far from natural states each trial along a subspace leads, over the pairs that must change."""
    from circuitspec.analysis.claims.abstraction.subspace_figures import state_words

    notes = []
    for trial in planned.trials:
        figures = figures_of(trial, records)
        counted = figures.kept & figures.changed
        if trial.states is not None and counted.any():
            notes.append(
                f"patched states of {trial.name} outside the natural range: {state_words(trial.states, counted)}"
            )
    return notes
