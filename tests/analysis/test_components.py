"""The search for negative components, with runs whose outcome is planted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest

from circuitspec.analysis.circuit_effects.negative_components import TESTED, candidates, negative_components
from circuitspec.analysis.statistics.split_sample import halves
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.experiments.follow_ups.restorations import Restorations
from circuitspec.experiments.levels.node_level import restored
from circuitspec.experiments.planner import Plan, PlannedClaim
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient

N = 60
CLEAN, CORRUPT = Experiment("clean"), Experiment("abc")
HEADS = [Head(layer, head) for layer in range(5) for head in range(4)]
CIRCUIT = Experiment("clean", Source("resample", "abc"), frozenset(Site(h, Where.everywhere()) for h in HEADS))
TEMPLATES = np.zeros(N, dtype=np.int64)
HALVES = halves(TEMPLATES)  # of 30 prompts each: the one chooses, of the other are the figures


def centred(values: np.ndarray) -> np.ndarray:
    """With a mean of 0 on either half."""
    return values - np.where(HALVES.search, values[HALVES.search].mean(), values[HALVES.judge].mean())


def plan() -> Plan:
    claim = PlannedClaim(0, Sufficient(metric="logit_diff", at_least=0.8), CIRCUIT, CLEAN, CORRUPT)
    return Plan(
        labels={CLEAN: "clean", CORRUPT: "corrupt", CIRCUIT: "circuit"},
        clean=CLEAN,
        corrupt=CORRUPT,
        circuit=CIRCUIT,
        claims=(claim,),
    )


def outside(of: Plan) -> Restorations:
    """Every ablated head, restored by leaving out its site."""
    ablated = frozenset(site.component for site in of.circuit.sites)
    return Restorations(tuple(ablated), lambda components: restored(of.circuit, components))


@dataclass
class Planted:
    """Restoring a head changes each prompt's metric by its effect and a noise of its own; effects add up."""

    effects: dict[Head, float]
    noise: float = 0.2
    metric: str = "logit_diff"
    circuit: float = 4.4
    ran: list[Experiment] = field(default_factory=list)

    def run(self, experiments: Iterable[Experiment]) -> Records:
        wanted = list(experiments)
        self.ran += wanted
        return Records({e: {self.metric: self.value(e)} for e in wanted}, TEMPLATES)

    def value(self, experiment: Experiment) -> np.ndarray:
        restored = set(HEADS) - {site.component for site in experiment.sites}
        value = np.full(N, self.circuit)
        for head in sorted(restored, key=str):
            noise = np.random.default_rng([head.layer, head.head]).normal(0, self.noise, N)
            value += self.effects.get(head, 0.0) + centred(noise)
        return value

    def records(self, clean: float = 4.0, corrupt: float = 0.0) -> Records:
        spread = centred(np.linspace(-0.5, 0.5, N))
        values = {CLEAN: clean + spread, CORRUPT: corrupt - spread, CIRCUIT: self.value(CIRCUIT)}
        return Records({e: {self.metric: v} for e, v in values.items()}, TEMPLATES)


@dataclass
class Estimated:
    effects: dict[Head, np.ndarray]
    by_role: dict[Head, dict[str, float]]


@dataclass
class Once:
    """Any run gives these values."""

    values: np.ndarray

    def run(self, experiments: Iterable[Experiment]) -> Records:
        return Records({e: {"logit_diff": self.values} for e in experiments}, TEMPLATES)


def screen(effects: dict[Head, float], at: str = "END") -> Estimated:
    full = {h: effects.get(h, 0.0) for h in HEADS}
    return Estimated({h: np.full(N, e) for h, e in full.items()}, {h: {at: e, "S2": 0.0} for h, e in full.items()})


NEGATIVE = {Head(3, 1): -0.8, Head(2, 0): -0.4, Head(1, 1): 0.6}


def test_the_worst_by_estimate_are_restored_and_named_with_both_figures() -> None:
    runner = Planted(NEGATIVE)
    estimates = screen({**NEGATIVE, Head(4, 3): -1.0})  # the screen is wrong about one, which the exact run shows
    chosen = candidates(HEADS, "logit_diff", estimates)
    assert len(chosen) == TESTED
    assert chosen[:3] == (Head(4, 3), Head(3, 1), Head(2, 0))
    finding, named, records = negative_components(
        plan(), runner.records(), "logit_diff", chosen, estimates, runner, outside(plan())
    )
    assert finding is not None
    assert (finding.screened, finding.tested) == (20, TESTED)
    assert [c.component for c in finding.components] == ["a3.h1", "a2.h0"]
    assert [c.effect for c in finding.components] == pytest.approx([-0.8, -0.4])
    assert [c.recovered_with.value for c in finding.components] == pytest.approx([3.6 / 4, 4.0 / 4])
    assert [c.mostly_at for c in finding.components] == ["END", "END"]
    assert finding.recovered_declared.value == pytest.approx(4.4 / 4)
    assert finding.recovered_restored is not None
    assert finding.recovered_restored.value == pytest.approx(3.2 / 4)
    together = runner.ran[-1]
    assert {s.component for s in together.sites} == set(HEADS) - {Head(3, 1), Head(2, 0)}
    assert named.labels[together] == "circuit + all negatives"
    assert set(records.values) == {CLEAN, CORRUPT, CIRCUIT, *runner.ran}


def test_what_chose_a_component_does_not_judge_it() -> None:
    """It hurts by 0.8 on the prompts that choose it, and by 0.3 on the others: of these is its effect."""
    runner = Planted({Head(3, 1): -0.8}, noise=1e-3)
    on_others = np.where(HALVES.judge, 0.5, 0.0)
    value = runner.value
    runner.value = lambda run: value(run) + on_others * (run != CIRCUIT)  # type: ignore[method-assign]
    finding, _, _ = negative_components(
        plan(), runner.records(), "logit_diff", (Head(3, 1),), None, runner, outside(plan())
    )
    assert finding is not None
    assert finding.prompts == (30, 30)
    (one,) = finding.components
    assert one.effect == pytest.approx(-0.3)
    assert one.recovered_with.value == pytest.approx((4.4 - 0.3) / 4)
    assert one.recovered_with.n == 30


def test_exact_restores_every_one() -> None:
    runner = Planted(NEGATIVE)
    chosen = candidates(HEADS, "logit_diff", None)
    assert set(chosen) == set(HEADS)
    finding, _, _ = negative_components(plan(), runner.records(), "logit_diff", chosen, None, runner, outside(plan()))
    assert finding is not None
    assert [c.component for c in finding.components] == ["a3.h1", "a2.h0"]
    assert finding.tested == 20


def test_small_estimates_are_tested_all_the_same() -> None:
    """First-order estimates may be near zero where the exact effect is not."""
    runner = Planted({Head(0, 2): -0.5})
    chosen = candidates(HEADS, "logit_diff", screen({Head(0, 2): -1e-6}))
    finding, _, _ = negative_components(plan(), runner.records(), "logit_diff", chosen, None, runner, outside(plan()))
    assert finding is not None
    assert [c.component for c in finding.components] == ["a0.h2"]


@pytest.mark.parametrize(
    ("effect", "noise", "why"),
    [(-0.03, 1e-6, "less than a hundredth of the gap"), (-0.1, 5.0, "lost in the noise"), (0.8, 0.2, "it helps")],
)
def test_what_is_not_named(effect: float, noise: float, why: str) -> None:
    runner = Planted({Head(3, 1): effect}, noise=noise)
    finding, _, _ = negative_components(
        plan(), runner.records(), "logit_diff", (Head(3, 1),), None, runner, outside(plan())
    )
    assert finding is not None
    assert finding.components == (), why
    assert finding.recovered_restored is None


def test_the_correction_is_over_all_that_were_screened() -> None:
    """An effect at p = 0.01 is significant alone, and not among twenty of which one was picked."""
    noise = 1.0
    effect = -2.47 * noise / np.sqrt(HALVES.n_search)  # t of -2.47 at 29 degrees of freedom: one-sided p of 0.01
    spread = centred(np.random.default_rng([3, 1]).normal(0, noise, N))
    effect *= spread[HALVES.search].std(ddof=1) / noise
    runner = Planted({Head(3, 1): effect}, noise=noise)
    alone = Experiment("clean", CIRCUIT.source, frozenset({Site(Head(3, 1), Where.everywhere())}))
    for circuit, named in ((alone, True), (CIRCUIT, False)):
        made = plan()
        made = Plan(
            labels={**made.labels, circuit: "circuit"},
            clean=CLEAN,
            corrupt=CORRUPT,
            circuit=circuit,
            claims=made.claims,
        )
        records = runner.records()
        base = records[CIRCUIT]["logit_diff"]
        records = Records({**records.values, circuit: {"logit_diff": base}}, TEMPLATES)
        change = effect + spread

        finding, _, _ = negative_components(
            made, records, "logit_diff", (Head(3, 1),), None, Once(base + change), outside(made)
        )
        assert finding is not None
        assert bool(finding.components) is named


def test_for_a_metric_where_less_is_better_a_rise_is_the_harm() -> None:
    runner = Planted({Head(3, 1): 0.5, Head(2, 0): -0.5}, metric="kl", circuit=1.0)
    records = runner.records(clean=0.0, corrupt=5.0)
    chosen = candidates(HEADS, "kl", screen({Head(3, 1): 0.5, Head(2, 0): -0.5}))
    assert chosen[0] == Head(3, 1)
    finding, _, _ = negative_components(plan(), records, "kl", chosen, None, runner, outside(plan()))
    assert finding is not None
    assert [c.component for c in finding.components] == ["a3.h1"]
    assert finding.recovered_declared.value == pytest.approx(0.8)
    assert finding.components[0].recovered_with.value == pytest.approx(0.7)


def test_without_a_ratio_nothing_is_restored() -> None:
    runner = Planted(NEGATIVE)
    records = runner.records(clean=0.0, corrupt=0.0)
    finding, _, _ = negative_components(plan(), records, "logit_diff", (Head(3, 1),), None, runner, outside(plan()))
    assert finding is None
    assert runner.ran == []
