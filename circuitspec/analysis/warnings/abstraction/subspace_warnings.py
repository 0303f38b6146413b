"""Subspaces that score what they should not: more than the whole vector, or no more than others of their rank."""

from __future__ import annotations

from collections.abc import Iterator

from circuitspec.analysis.claims.abstraction.pair_claims import PairTrial, PlannedPairs, control_hits, figures_of
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.plain_data import estimate_data
from circuitspec.analysis.statistics.proportions import share_of
from circuitspec.analysis.statistics.wording import with_interval
from circuitspec.analysis.warnings.evidence import CLAIMS, Evidence, EvidenceWarning, WarningKind
from circuitspec.experiments.levels.interchange_level import WHOLE
from circuitspec.hypothesis_file.schema.abstraction.isolates_block import Isolates


def _compared(evidence: Evidence) -> Iterator[tuple[int, PairTrial, Estimate, dict[str, Estimate]]]:
    """Of each claim that components carry a variable in subspaces: IIA on changed pairs, and that of each control."""
    for planned in evidence.plan.claims:
        if not isinstance(planned, PlannedPairs) or isinstance(planned.claim, Isolates):
            continue
        if planned.claim.at_least is None:
            continue
        for trial in planned.trials:
            figures = figures_of(trial, evidence.records)
            asked = figures.kept & figures.changed
            own = share_of(figures.hit[asked])
            if own is None:
                continue
            found = {name: share_of(hits[asked]) for name, hits in control_hits(trial, evidence.records).items()}
            yield planned.index, trial, own, {name: one for name, one in found.items() if one is not None}


# -- CS455 ------------------------------------------------------------------------------------------------------------


def beyond_the_whole(evidence: Evidence) -> list[EvidenceWarning]:
    """CS455: a subspace that does surely more than the whole vector."""
    found = []
    for index, trial, own, others in _compared(evidence):
        whole = others.get(WHOLE)
        if whole is None or own.low is None or whole.high is None or own.low <= whole.high:
            continue
        found.append(
            EvidenceWarning(
                "CS455",
                f"in pairs of {trial.name} the subspace does more than the whole vector: IIA {with_interval(own)} "
                f"against {with_interval(whole)}",
                "what the subspace leaves as it was does not fit what it sets: the model is led to values that it does "
                "not have by itself, or through a part that is otherwise dormant",
                "do not call the variable localised there; look at the component whole, and at smaller ranks",
                {"claim": index, "pairs": trial.name, "subspace": estimate_data(own), "whole": estimate_data(whole)},
            )
        )
    return found


BEYOND_THE_WHOLE = WarningKind(
    "CS455",
    CLAIMS,
    "a subspace better than its whole vector",
    "With the component's whole value of the source, the answer is the one asked for in surely fewer pairs than with "
    "the part in the subspace alone (the intervals do not meet). A place that carries the variable carries it in its "
    "whole value too. A direction may lead through a part that is otherwise dormant (Makelov et al. 2023, "
    "arXiv:2311.17030), or the patched value lies where the model has none by itself.",
    beyond_the_whole,
)


# -- CS456 ------------------------------------------------------------------------------------------------------------


def as_good_at_random(evidence: Evidence) -> list[EvidenceWarning]:
    """CS456: random subspaces of equal rank that are not surely worse."""
    found = []
    for index, trial, own, others in _compared(evidence):
        drawn = [one for name, one in others.items() if name != WHOLE]
        best = max(drawn, key=lambda one: one.value, default=None)
        if best is None or not own.value or own.low is None or best.high is None or own.low > best.high:
            continue
        found.append(
            EvidenceWarning(
                "CS456",
                f"in pairs of {trial.name} a random subspace of equal rank does as much: IIA {with_interval(best)} "
                f"against {with_interval(own)}",
                "whatever subspace of so many directions is patched, most of the value comes along",
                "take a smaller rank, or more pairs",
                {"claim": index, "pairs": trial.name, "subspace": estimate_data(own), "random": estimate_data(best)},
            )
        )
    return found


AS_GOOD_AT_RANDOM = WarningKind(
    "CS456",
    CLAIMS,
    "a subspace no better than random ones",
    "Beside each claim about a subspace, random subspaces of the same rank are patched. One of them gives the answer "
    "asked for in as many pairs, as far as the intervals tell. The figure then says that the component carries the "
    "variable, and nothing of these directions.",
    as_good_at_random,
)

SUBSPACE_WARNINGS = (BEYOND_THE_WHOLE, AS_GOOD_AT_RANDOM)
