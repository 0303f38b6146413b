"""How much every component matters at every position: estimated for all, then patched exactly for those that count.

Estimates are first-order, and miss what saturates (attention that is one-hot) and what cancels (a direct effect that
later layers undo). So some of what they call small is drawn at random and patched too, which bounds how much they miss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from scipy import stats

from circuitspec.experiments.experiment import CLEAN_VALUES, Experiment, Source, Variant
from circuitspec.exploration.search.effect_estimates import Spot, estimate_edges, estimate_nodes
from circuitspec.exploration.search.prompt_race import Racer, race
from circuitspec.exploration.setting import CLEAN, ExplorationSetting, where_of
from circuitspec.graph.edges import Edge, is_writer, precedes, receivers
from circuitspec.graph.nodes import Ablatable
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import sort_key

MATERIAL = 0.05  # share of clean - corrupt: a component that does this much by itself belongs to the circuit
NEEDED = 0.005  # what taking an entry out of a circuit may cost before it is called needed
MISSED = 0.25  # of an exact effect: an estimate smaller than this missed it
CONFIDENCE = 0.95
SEED = 0

T = TypeVar("T")


@dataclass(frozen=True)
class Effect:
    """What a component does at some positions, as shares of clean - corrupt.

    `drop` is what ablating it takes away and `rise` what restoring it in the corrupt run brings, both None unless
    patched exactly; `drop_estimate` and `rise_estimate` are first-order estimates of the same. `magnitude` is the
    larger of what they are with one layer's gradients dropped at a time, None unless asked for. `prompts` says on how
    many each of the exact ones was measured, where that is fewer than all: enough to see that it is next to nothing.
    """

    component: Ablatable
    where: Where
    drop_estimate: float
    rise_estimate: float
    drop: float | None = None
    rise: float | None = None
    magnitude: float | None = None
    prompts: tuple[int | None, int | None] = (None, None)  # of drop and of rise; None: all

    @property
    def size(self) -> float:
        """The larger of its two effects, by exact patching where there is one."""
        return max(abs(self.drop_best), abs(self.rise_best))

    @property
    def estimated(self) -> float:
        """The largest of its estimates: by it components are chosen to be patched."""
        return max(abs(self.drop_estimate), abs(self.rise_estimate), self.magnitude or 0.0)

    @property
    def drop_best(self) -> float:
        return self.drop_estimate if self.drop is None else self.drop

    @property
    def rise_best(self) -> float:
        return self.rise_estimate if self.rise is None else self.rise

    @property
    def is_negative(self) -> bool:
        """Whether it is negative: what it does lowers the metric."""
        return (self.drop_best if abs(self.drop_best) >= abs(self.rise_best) else self.rise_best) < 0

    @property
    def missed(self) -> bool:
        """Whether an exact effect is large, and all estimates together are small beside it."""
        return self.drop is not None and self.size >= MATERIAL and self.estimated < MISSED * self.size


Found = TypeVar("Found", covariant=True)


@dataclass(frozen=True)
class Drawn(Generic[Found]):
    """What was drawn at random among `population` with small estimates, and what of it matters after all.

    `at_most` is the share of the population that may matter, with 95 % confidence: the exact (Clopper-Pearson) upper
    bound of a binomial, and what was found where all of them were drawn.
    """

    count: int
    population: int
    mattering: tuple[Found, ...]
    at_most: float


@dataclass(frozen=True)
class ComponentSweep:
    """All effects, the exact ones first and each kind by size.

    `agreement` is Spearman's rank correlation of estimates and exact effects, of drop and of rise, over those
    that were chosen to be patched (None for fewer than three). `overlap` is how many of the k largest by estimate are
    among the k largest by exact effect, as a share of k. `sample` are those that were drawn.
    """

    effects: tuple[Effect, ...]
    agreement: tuple[float | None, float | None]
    overlap: tuple[int, float] | None = None  # k, share
    drawn: Drawn[Effect] | None = None
    sample: frozenset[Spot] = frozenset()

    @property
    def exact(self) -> tuple[Effect, ...]:
        return tuple(e for e in self.effects if e.drop is not None)

    @property
    def missed(self) -> tuple[Effect, ...]:
        """Exact effects that the estimates did not show, the largest first."""
        return tuple(sorted((e for e in self.exact if e.missed), key=lambda e: -e.size))


@dataclass(frozen=True)
class Estimation:
    """How effects are estimated, and how many components are patched.

    Of what has small estimates so many are `drawn`, or (where the draw was made before) the `sample` is taken.
    """

    exact: int
    steps: int = 1
    drawn: int = 0
    sample: frozenset[Spot] | None = None
    dropping: bool = False
    recomputing: bool = False


def sweep(
    setting: ExplorationSetting, found: Sequence[Effect], how: Estimation, chosen: Sequence[Spot] | None = None
) -> ComponentSweep:
    """Patch the largest of the estimated effects, or the `chosen`, in both directions; then some of the others.

    A component is taken if either direction calls it large, so that what is flat at one end of the change shows at
    the other. Where the allowance ends, those with the largest estimates are patched.
    """
    taken = list(found[: how.exact])
    if chosen is not None:
        wanted = frozenset(chosen)
        taken = [e for e in found if (e.component, e.where) in wanted]
    patched = _patched(setting, taken)
    done = frozenset((e.component, e.where) for e in patched)
    rest = [e for e in found if (e.component, e.where) not in done]
    drawn = _draw(setting, rest, how)
    if drawn is not None:
        sample, bound = drawn
        looked = frozenset((e.component, e.where) for e in sample)
        rest = [e for e in rest if (e.component, e.where) not in looked]
    else:
        sample, bound = [], None
    whole = sorted([*patched, *sample, *rest], key=lambda e: (e.drop is None, -e.size, *_order(e)))
    at_random = frozenset((e.component, e.where) for e in sample)
    return ComponentSweep(tuple(whole), _agreement(patched), _overlap(patched), bound, at_random)


def exactly(setting: ExplorationSetting, spots: Sequence[Spot]) -> ComponentSweep:
    """These in both directions, as far as the allowance goes, without estimates, which are then not numbers."""
    found = _patched(setting, [Effect(*spot, np.nan, np.nan) for spot in dict.fromkeys(spots)])
    return ComponentSweep(tuple(sorted(found, key=lambda e: (-e.size, *_order(e)))), (None, None))


def estimates(setting: ExplorationSetting, how: Estimation) -> list[Effect]:
    """Every component at every place, the largest estimates first. Raises AllowanceSpent."""
    back = CLEAN_VALUES
    loss, gain = setting.gap.difference.value, setting.prompt_gap.difference.value
    down = estimate_nodes(setting, "clean", setting.source, dropping=how.dropping)
    up = estimate_nodes(setting, setting.corrupt, back, steps=how.steps, dropping=how.dropping)
    more_down: dict[Spot, float] = {}
    more_up: dict[Spot, float] = {}
    if how.recomputing:
        more_down = _through_attention(setting, "clean", setting.source)
        more_up = _through_attention(setting, setting.corrupt, back)
    found = []
    for at in down.effects:
        drop = -(down.effects[at] + more_down.get(at, 0.0)) / loss
        rise = (up.effects[at] + more_up.get(at, 0.0)) / gain
        sizes = [one.magnitudes[at] / abs(whole) for one, whole in ((down, loss), (up, gain)) if one.magnitudes]
        found.append(Effect(*at, drop, rise, magnitude=max(sizes, default=None)))
    found.sort(key=lambda e: (-e.estimated, *_order(e)))
    return found


def _through_attention(setting: ExplorationSetting, base: Variant, source: Source) -> dict[Spot, float]:
    """What the estimates leave out of each component's effect through later queries and keys.

    To first order a component's effect is the sum of those of its edges; so the difference that recomputing attention
    makes to its edges into queries and keys is what the sum is short of.
    """
    shape = setting.runner.loaded.shape
    attending = [receiver for receiver in receivers(shape) if receiver.port in ("q", "k")]
    edges = [
        Edge(sender, receiver, where_of(place))
        for sender in setting.claimed
        if is_writer(sender)
        for receiver in attending
        if precedes(sender, receiver, shape)
        for place in setting.places
    ]
    found = estimate_edges(setting, base, source, edges, recomputing=True)
    short: dict[Spot, float] = {}
    for edge, effect in found.effects.items():
        assert is_writer(edge.sender)
        at = edge.sender, edge.where
        short[at] = short.get(at, 0.0) + effect - found.linear[edge]
    return short


def _patched(setting: ExplorationSetting, effects: Sequence[Effect]) -> list[Effect]:
    """These effects exactly, as far as the allowance goes; on all prompts those that may matter."""
    corrupt, least = Experiment(setting.corrupt), least_of(setting)
    pairs = [
        (
            Racer(
                setting.ablated(e.component, e.where),
                CLEAN,
                setting.anchor,
                falls=True,
                doubted=abs(e.drop_estimate) >= least,
            ),
            Racer(setting.denoised(e.component, e.where), corrupt, corrupt, doubted=abs(e.rise_estimate) >= least),
        )
        for e in effects
    ]
    stands = race(setting, [racer for pair in pairs for racer in pair], least)
    return [
        replace(
            e,
            drop=stands[down].effect,
            rise=stands[up].effect,
            prompts=(stands[down].by, stands[up].by),
        )
        for e, (down, up) in zip(effects, pairs, strict=True)
        if down in stands and up in stands
    ]


def least_of(setting: ExplorationSetting) -> float:
    """The least effect by itself that makes a component one of a circuit: of features many do a little each."""
    return NEEDED if setting.sites else MATERIAL


def _draw(
    setting: ExplorationSetting, rest: Sequence[Effect], how: Estimation
) -> tuple[list[Effect], Drawn[Effect]] | None:
    """Some of the others, patched, as many as the allowance leaves (in the order drawn); None where there are none."""
    if not rest or not how.drawn:
        return None
    if how.sample is None:
        patched = _patched(setting, sample_of(rest, how.drawn))
    else:
        patched = _patched(setting, [e for e in rest if (e.component, e.where) in how.sample])
    if not patched:
        return None
    mattering = tuple(sorted((e for e in patched if e.size >= MATERIAL), key=lambda e: -e.size))
    return patched, Drawn(len(patched), len(rest), mattering, upper_bound(len(mattering), len(patched), len(rest)))


def sample_of(rest: Sequence[T], count: int) -> list[T]:
    """So many of them, in the order in which they were drawn; all where there are no more."""
    few = np.random.default_rng(SEED).choice(len(rest), min(count, len(rest)), replace=False)
    return [rest[i] for i in few]


def upper_bound(found: int, drawn: int, population: int) -> float:
    """The largest share that is compatible with so many found among those drawn, at 95 % confidence.

    Exact for a binomial (Clopper and Pearson 1934), and so safe for drawing without putting back.
    """
    if drawn >= population or found == drawn:
        return found / drawn
    return float(stats.beta.ppf(CONFIDENCE, found + 1, drawn - found))


def _agreement(patched: Sequence[Effect]) -> tuple[float | None, float | None]:
    return (
        rank_agreement([e.drop_estimate for e in patched], [e.drop_best for e in patched]),
        rank_agreement([e.rise_estimate for e in patched], [e.rise_best for e in patched]),
    )


def _overlap(patched: Sequence[Effect]) -> tuple[int, float] | None:
    return top_overlap([e.estimated for e in patched], [e.size for e in patched])


def top_overlap(estimated: Sequence[float], exact: Sequence[float]) -> tuple[int, float] | None:
    """(k, share of the k largest by estimate that are among the k largest by exact size); k is a third of them.

    None for fewer than six values.
    """
    k = len(estimated) // 3
    if k < 2:
        return None
    first, second = (set(np.argsort(-np.abs(values), kind="stable")[:k].tolist()) for values in (estimated, exact))
    return k, len(first & second) / k


def rank_agreement(estimated: Sequence[float], exact: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None for fewer than three values, or where one side is constant."""
    if len(estimated) < 3 or np.ptp(estimated) == 0 or np.ptp(exact) == 0:
        return None
    return float(stats.spearmanr(estimated, exact).statistic)


def _order(effect: Effect) -> tuple[object, ...]:
    return sort_key(effect.component), effect.where.canonical()
