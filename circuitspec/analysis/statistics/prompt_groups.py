"""Groups of prompts (templates, orders of the answers): what each recovers, and whether they differ."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.stats import Values
from circuitspec.engine.records import Records
from circuitspec.experiments.planner import PlannedClaim
from circuitspec.prompts.prompt_set import CLEAN, GivenAnswer, PromptSet

PERMUTATIONS = 1999  # p-values down to 0.0005
_CELLS = 2**20  # permutations are drawn in batches of at most this many (permutation, prompt) cells
# A group in which the corruption does less than this share of what it does overall has no ratio to trust
SMALL_GAP = 0.25


@dataclass(frozen=True)
class Grouping:
    """A way of sorting prompts into groups: `member[prompt]` is a place in `labels`, or -1 for no group."""

    name: str
    labels: tuple[str, ...]
    member: NDArray[np.int64]

    def of(self, group: int) -> NDArray[np.bool_]:
        """Which prompts belong to the group numbered `group`."""
        return np.equal(self.member, group)


@dataclass(frozen=True)
class Runs:
    """One metric in the run in question and at its anchors, `[prompt]` each: 0 is recovered at `zero`, 1 at `one`."""

    patched: Values
    zero: Values
    one: Values

    def at(self, chosen: NDArray[np.bool_]) -> Runs:
        """The same for some of the prompts."""
        return Runs(self.patched[chosen], self.zero[chosen], self.one[chosen])

    @property
    def gap(self) -> float:
        """What recovered performance divides by."""
        return float((self.one - self.zero).mean())

    @property
    def recovered(self) -> float:
        return float((self.patched - self.zero).mean()) / self.gap


def runs_of(planned: PlannedClaim, records: Records, metric: str) -> Runs:
    """What a claim's estimate is made from, by this metric. Raises KeyError where it was not measured."""
    zero, one = (planned.clean, planned.corrupt) if planned.falls else (planned.corrupt, planned.clean)
    return Runs(records[planned.patched][metric], records[zero][metric], records[one][metric])


@dataclass(frozen=True)
class GroupScore:
    """What one group recovers; no estimate where its own anchors cannot be told apart, or lie the wrong way round."""

    label: str
    n: int
    recovered: Estimate | None


@dataclass(frozen=True)
class Heterogeneity:
    """How far groups differ in what they recover.

    `p_value` is of the hypothesis that all recover the same; `spread` the standard deviation between groups, with
    what prompts alone would make of it taken off (0 where that explains all).
    """

    p_value: float
    spread: float


def by_template(templates: NDArray[np.int64], prompts: PromptSet | None = None) -> Grouping:
    """One group a template, labelled by its text where `prompts` are given."""
    used = [int(number) for number in np.unique(templates)]
    labels = [f"template {n}" if prompts is None else prompts.templates[n] for n in used]
    return Grouping("template", tuple(labels), np.searchsorted(used, templates).astype(np.int64))


def by_column(prompts: PromptSet, column: str) -> Grouping:
    """One group for each value of a column of the prompts file, in the order of their names."""
    values = [prompt.metadata.get(column, "none") for prompt in prompts.prompts]
    labels = sorted(set(values), key=_by_number)
    return Grouping(column, tuple(labels), np.asarray([labels.index(value) for value in values], dtype=np.int64))


def _by_number(label: str) -> tuple[float, str]:
    """Numbers by their size, before texts."""
    try:
        return float(label), ""
    except ValueError:
        return math.inf, label


def groupings(templates: NDArray[np.int64], prompts: PromptSet) -> list[Grouping]:
    """Every way of sorting the prompts that makes more than one group."""
    found = [
        by_template(templates, prompts),
        by_answer_order(prompts),
        *(by_column(prompts, one) for one in prompts.by),
    ]
    return [one for one in found if one is not None and len(one.labels) > 1]


def by_answer_order(prompts: PromptSet) -> Grouping | None:
    """Prompts that name the right answer before the wrong one, and the other way round (ABBA and BABA).

    None unless there are two prompts of either kind. Prompts that do not name both are in no group.
    """
    places = []
    for prompt in prompts.prompts:
        right, wrong = (_first(prompt.texts[CLEAN], texts) for texts in (prompt.answers, prompt.wrong))
        places.append(-1 if right is None or wrong is None else int(wrong < right))
    member = np.asarray(places, dtype=np.int64)
    if min((member == 0).sum(), (member == 1).sum()) < 2:
        return None
    return Grouping("answer order", ("right answer named first", "wrong answer named first"), member)


def _first(text: str, answers: Sequence[GivenAnswer]) -> int | None:
    """Where the first of the answers that are texts begins in the text, as a word of its own."""
    words = [said.strip() for said in answers if isinstance(said, str) and said.strip()]
    found = [match.start() for said in words if (match := re.search(_as_word(said), text))]
    return min(found, default=None)


def _as_word(text: str) -> str:
    return rf"(?<!\w){re.escape(text)}(?!\w)"


def group_scores(runs: Runs, grouping: Grouping, *, level: float = stats.LEVEL) -> tuple[GroupScore, ...]:
    """Recovered performance of every group, each by its own anchors."""
    scores = []
    for number, label in enumerate(grouping.labels):
        own = runs.at(grouping.of(number))
        scores.append(GroupScore(label, len(own.patched), _recovered(own, runs.gap, level)))
    return tuple(scores)


def _recovered(own: Runs, overall_gap: float, level: float) -> Estimate | None:
    if len(own.patched) < 2 or own.gap / overall_gap < SMALL_GAP:
        return None
    if stats.mean_difference(own.one, own.zero, level=level).may_be(0.0):
        return None
    return stats.recovered(own.patched, own.zero, own.one, level=level)


def heterogeneity(runs: Runs, grouping: Grouping, *, at_least: float = 0.0) -> Heterogeneity | None:
    """Whether groups recover different shares, judged by their prompts' residuals from the common share.

    The p-value is a permutation test's: under the hypothesis that every group recovers the same, residuals may be
    exchanged between groups. It is only looked for where the spread comes to `at_least`, and 1 otherwise.
    None where fewer than two groups have a ratio, or no group has two prompts.
    """
    sound = [
        g
        for g in range(len(grouping.labels))
        if grouping.of(g).any() and runs.at(grouping.of(g)).gap / runs.gap >= SMALL_GAP
    ]
    chosen = np.isin(grouping.member, sound)
    n, k = int(chosen.sum()), len(sound)
    if k < 2 or n <= k:
        return None
    own, member = runs.at(chosen), np.searchsorted(sound, grouping.member[chosen])
    residuals = (own.patched - own.zero) - own.recovered * (own.one - own.zero)
    gaps = np.bincount(member, own.one - own.zero) / np.bincount(member)
    spread = _spread(residuals / gaps[member], member)
    if spread < at_least or spread == 0:
        return Heterogeneity(1.0, spread)
    groups = [residuals[member == g] for g in range(k)]
    test = scipy.stats.permutation_test(
        groups,
        _between,
        permutation_type="independent",
        alternative="greater",
        n_resamples=PERMUTATIONS,
        vectorized=True,
        batch=max(1, _CELLS // n),
        axis=-1,
        rng=np.random.default_rng(stats.SEED),
    )
    return Heterogeneity(float(test.pvalue), spread)


def _between(*groups: Values, axis: int = -1) -> Values:
    """Sum of squares between groups of residuals (whose common mean is zero), which grows with their differences."""
    return np.asarray(sum(group.shape[axis] * group.mean(axis=axis) ** 2 for group in groups))


def _spread(values: Values, member: NDArray[np.int64]) -> float:
    """Standard deviation between groups: the analysis of variance's estimate for groups drawn at random."""
    sizes = np.bincount(member)
    n, k = len(values), len(sizes)
    means = np.bincount(member, values) / sizes
    within = float(((values - means[member]) ** 2).sum()) / (n - k)
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (k - 1)
    per_group = (n - float((sizes**2).sum()) / n) / (k - 1)
    return math.sqrt(max(0.0, (between - within) / per_group))
