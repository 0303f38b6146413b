"""Subspaces that score what they should not: more than the whole vector, as much as random ones, or far from all that
the model has by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from circuitspec.analysis.claims.abstraction.pair_claims import PairTrial, PlannedPairs, figures_of, other_hits
from circuitspec.analysis.claims.abstraction.subspace_figures import PARTS, by_directions, decomposed
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.plain_data import estimate_data
from circuitspec.analysis.statistics.proportions import share_of
from circuitspec.analysis.statistics.wording import number, plural, with_interval
from circuitspec.analysis.warnings.evidence import CLAIMS, Evidence, EvidenceWarning, WarningKind
from circuitspec.experiments.levels.interchange_level import WHOLE
from circuitspec.experiments.subspaces.subspace import is_random
from circuitspec.experiments.subspaces.subspace_files import entry_name
from circuitspec.hypothesis_file.schema.abstraction.isolates_block import Isolates
from circuitspec.prompts.pairs.pair_set import PairSet
from circuitspec.prompts.pairs.settings import Setting
from circuitspec.prompts.templates.template import row_of


def _compared(evidence: Evidence) -> Iterator[tuple[int, PairTrial, Estimate, dict[str, Estimate]]]:
    """Of each claim that components carry a variable in subspaces: IIA on changed pairs, and of each control."""
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
            hits = other_hits(trial, evidence.records)
            found = {name: share_of(one[asked]) for name, one in hits.items()}
            yield planned.index, trial, own, {name: one for name, one in found.items() if one is not None}


# -- CS455 ------------------------------------------------------------------------------------------------------------


def beyond_the_whole(evidence: Evidence) -> list[EvidenceWarning]:
    """CS455: a subspace that does surely more than the whole vector."""
    found = []
    for index, trial, own, others in _compared(evidence):
        whole = others.get(WHOLE)
        if whole is None or own.low is None or whole.high is None or own.low <= whole.high:
            continue
        parts = {name: others[name] for name in PARTS if name in others}
        found.append(
            EvidenceWarning(
                "CS455",
                f"in pairs of {trial.name} the subspace does more than the whole vector: IIA {with_interval(own)} "
                f"against {with_interval(whole)}",
                decomposed(own, parts),
                "do not call the variable localised there; look at the component whole, and at smaller ranks",
                {
                    "claim": index,
                    "pairs": trial.name,
                    "subspace": estimate_data(own),
                    "whole": estimate_data(whole),
                    "parts": {name: estimate_data(one) for name, one in parts.items()},
                },
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
    "arXiv:2311.17030), or the patched value lies where the model has none by itself. To tell which, the subspace is "
    "split into the part along the differences of the variable's mean values and the part across them: each is patched "
    "alone, and both together, each at the source's value. Where both together do less than the subspace, it moves "
    "what lies across by what differs along, which no prompt does.",
    beyond_the_whole,
)


# -- CS456 ------------------------------------------------------------------------------------------------------------


def as_good_at_random(evidence: Evidence) -> list[EvidenceWarning]:
    """CS456: random subspaces of equal rank that are not surely worse."""
    found = []
    for index, trial, own, others in _compared(evidence):
        drawn = [one for name, one in others.items() if is_random(name)]
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
    "variable, and nothing of these directions. `circuitspec align` says it of every control that learning is to beat: "
    "the difference of means and PCA, learning on permuted labels, and learning on an untrained model.",
    as_good_at_random,
)


# -- CS457 ------------------------------------------------------------------------------------------------------------

MOST_OUTSIDE = 0.5  # of the patched states: where more are outside the natural range, most of what is measured is there


def out_of_range(evidence: Evidence) -> list[EvidenceWarning]:
    """CS457: most patched states lie surely where unpatched runs hardly do, and the claim is not surely wrong."""
    found = []
    least = {one.index: one.claim.at_least or 0.0 for one in evidence.plan.claims}
    for index, trial, own, others in _compared(evidence):
        if trial.states is None or (own.high or 0.0) < least[index]:
            continue
        figures = figures_of(trial, evidence.records)
        counted = figures.kept & figures.changed
        for directions, one in by_directions(trial.states).items():
            share = share_of(one.outside[counted])
            if share is None or share.low is None or share.low <= MOST_OUTSIDE:
                continue
            found.append(
                EvidenceWarning(
                    "CS457",
                    f"in pairs of {trial.name} {outside_words(directions, share, one.ratio(counted))}",
                    "what the model does there says little of what it does by itself; "
                    + decomposed(own, {name: others[name] for name in PARTS if name in others}),
                    "look at the component whole, at the parts of the subspace, and at smaller ranks",
                    {
                        "claim": index,
                        "pairs": trial.name,
                        "directions": directions,
                        "outside": estimate_data(share),
                        "ratio": one.ratio(counted),
                    },
                )
            )
            break
    return found


def outside_words(directions: str, share: Estimate, ratio: float | None) -> str:
    """`most patched states are outside the natural range: 0.98 [0.92, 1.00], in all directions (...)`."""
    far = (
        "natural states repeat there"
        if ratio is None
        else f"{number(ratio)} times as far from the nearest natural state"
    )
    return f"most patched states are outside the natural range: {with_interval(share)}, {directions} ({far})"


OUT_OF_RANGE = WarningKind(
    "CS457",
    CLAIMS,
    "patched states outside the natural range",
    "A value of which a part alone is replaced may be one that no prompt leads to. Its distance is taken to the "
    "nearest value of an unpatched run of another pair, and held against the same distance of natural values: 95 % of "
    "these are within the natural range. Of the pairs whose answer must change, surely more than half are patched to "
    "outside of it (by Wilson's interval), in all directions or in those that the subspace's parts along and across "
    "the mean differences span. That the answer is the one asked for may then be owed to what the model does with "
    "values that it never has by itself.",
    out_of_range,
)

# -- CS458 ------------------------------------------------------------------------------------------------------------


def on_training_words(evidence: Evidence) -> list[EvidenceWarning]:
    """CS458: pairs that have words which their subspace was learned on."""
    found = []
    pairs = evidence.pairs
    for planned in evidence.plan.claims:
        if pairs is None or not isinstance(planned, PlannedPairs) or isinstance(planned.claim, Isolates):
            continue
        hits, seen, words = [], [], set[str]()
        for trial in planned.trials:
            figures = figures_of(trial, evidence.records)
            asked = figures.kept & figures.changed
            known = [_known_words(pairs, trial.setting, evidence.learned_on, i) for i in range(len(pairs))]
            hits.append(figures.hit[asked])
            seen.append(np.array([bool(own) for own in known])[asked])
            words.update(*known)
        old = np.concatenate(seen)
        if not old.any() or planned.claim.at_least is None:
            continue
        on_old, on_new = (share_of(np.concatenate(hits)[mask]) for mask in (old, ~old))
        assert on_old is not None
        others = "no pair has other words alone" if on_new is None else f"on the others {with_interval(on_new)}"
        found.append(
            EvidenceWarning(
                "CS458",
                f"`{planned.claim.kind}` is judged on words that the subspace was learned on, in {int(old.sum())} of "
                f"{plural(len(old), 'pair')} whose answer must change",
                f"IIA on these {with_interval(on_old)}, {others}; {plural(len(words), 'word')} of training in all",
                "claim it in a file whose lists have other words, or go by the test of `circuitspec align`",
                {
                    "claim": planned.index,
                    "pairs_with_training_words": int(old.sum()),
                    "pairs": len(old),
                    "with_training_words": estimate_data(on_old),
                    "with_other_words": None if on_new is None else estimate_data(on_new),
                },
            )
        )
    return found


def _known_words(pairs: PairSet, setting: Setting, learned_on: Mapping[str, frozenset[str]], number: int) -> set[str]:
    """The words of training in slots that the setting's variables are read from, in the base and the sources."""
    found = set()
    for variable, family in setting:
        for slots in (pairs.slots(number), pairs.families[family][number].slots):
            names = pairs.model.slots_read(variable) & slots.keys()
            found |= {entry_name(row_of(slots[name])) for name in names} & learned_on.get(variable, frozenset())
    return found


ON_TRAINING_WORDS = WarningKind(
    "CS458",
    CLAIMS,
    "a subspace judged on the words that it was learned on",
    "The file of a subspace says on which words it was learned. The pairs that decide the claim have some of these in "
    "slots that the variable is read from, so that they are no held-out test: a subspace of many directions learns "
    "single words by heart, and fails on others. IIA is given for pairs with words of training and for those "
    "without. `circuitspec align` tests on words of their own where the lists are long enough, and says CS458 where "
    "they are not.",
    on_training_words,
)

SUBSPACE_WARNINGS = (BEYOND_THE_WHOLE, AS_GOOD_AT_RANDOM, OUT_OF_RANGE, ON_TRAINING_WORDS)
