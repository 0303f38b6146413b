"""Parts of a circuit by arithmetic: what ablating them does, alone and together, and what is run to know it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuitspec.analysis.circuit_effects import examination as examining
from circuitspec.analysis.circuit_effects.circuit_parts import COMPONENTS, CircuitParts
from circuitspec.analysis.circuit_effects.component_effects import (
    CircuitEffects,
    ExaminedPart,
    ablation_effects,
    most_needed_besides,
)
from circuitspec.analysis.circuit_effects.examination import examine
from circuitspec.analysis.metric_choice import for_parts
from circuitspec.analysis.warnings.effect_warnings import EFFECT_WARNINGS
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.attribution.direct_contributions import DirectRun
from circuitspec.engine.records import Records
from circuitspec.experiments.ablation_source import ablation_source
from circuitspec.experiments.experiment import Experiment, Site
from circuitspec.experiments.levels.node_level import ablating
from circuitspec.experiments.planner import Plan, PlannedClaim
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.members import Effect, Member
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp, Neuron
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.hypothesis_file.schema.blocks import AblationSpec
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.runtime.progress import Silent
from tests.analysis.support import CIRCUIT, CLEAN, CORRUPT, around, make_plan, warned

N = 50
TOYS = Path(__file__).parents[2] / "hypotheses" / "toys"
ABLATION = AblationSpec.model_validate({"value": "resample", "from": "abc"})
A, B, C = (ExaminedPart(name, "positive", (name,)) for name in "abc")
HEADS = tuple(Head(layer, head) for layer in range(2) for head in range(2))
SHAPE = ModelShape(
    family="gpt2", n_layers=2, n_heads=2, n_kv_heads=2, d_model=8, d_head=4, d_mlp=16, n_vocab=50, max_positions=32
)


def spread(seed: int, scale: float = 0.2) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, scale, N)
    return np.asarray(values - values.mean())


# -- ablated alone ------------------------------------------------------------------------------


def test_what_ablating_shows_by_hand() -> None:
    """Clean 4 and corrupt 0: losing A costs 3, losing B brings 1, and C does nothing that could be told from chance."""
    clean, corrupt = around(4.0, N), around(0.0, N)
    runs = {A: clean - 3 + spread(1), B: clean + 1 + spread(2), C: clean + spread(3)}
    a, b, c = ablation_effects(runs, clean, corrupt)
    assert [one.sign for one in (a, b, c)] == ["helps", "hurts", "neither"]
    assert [one.effect for one in (a, b, c)] == pytest.approx([-3, 1, 0], abs=1e-9)
    assert [one.drop.value for one in (a, b, c)] == pytest.approx([0.75, -0.25, 0], abs=1e-9)
    assert [one.is_silent for one in (a, b, c)] == [False, False, False]  # C might do up to 2 % of it


def test_tests_have_two_sides_and_are_corrected() -> None:
    clean, corrupt = around(4.0, N), around(0.0, N)
    noise = np.concatenate([spread(4, 1.0)[: N // 2], -spread(4, 1.0)[: N // 2]])  # no skew: Student's t as it stands
    shifted = noise - 2.1 * noise.std(ddof=1) / np.sqrt(N)  # one-sided p of 0.02
    (alone,) = ablation_effects({A: clean + shifted}, clean, corrupt)
    first, _, _ = ablation_effects({A: clean + shifted, B: clean + spread(5), C: clean + spread(6)}, clean, corrupt)
    assert alone.p_adjusted == pytest.approx(2 * 0.0205, abs=2e-3)
    assert first.p_adjusted == pytest.approx(3 * alone.p_adjusted)
    assert (alone.sign, first.sign) == ("helps", "neither")


def test_a_sure_but_tiny_effect_is_none() -> None:
    clean, corrupt = around(4.0, N), around(0.0, N)
    (one,) = ablation_effects({A: clean - 0.02 + spread(1, 1e-4)}, clean, corrupt)
    assert one.p_adjusted < 1e-9
    assert (one.sign, one.is_silent) == ("neither", True)


# -- ablated besides another --------------------------------------------------------------------


def test_the_part_besides_which_a_loss_costs_most() -> None:
    clean, corrupt = around(4.0, N), around(0.0, N)
    without = clean - 0.4
    others = [
        ("additive", clean - 1, clean - 1.4 + spread(1)),  # as much as alone
        ("backs up", clean - 1, clean - 3 + spread(2)),  # 2 instead of 0.4
        ("a little", clean, clean - 1 + spread(3)),  # 1 instead of 0.4
        ("saturated", clean - 4, clean - 4 + spread(4)),  # 0 instead of 0.4
    ]
    found = most_needed_besides(without, others, clean, corrupt)
    assert found is not None
    assert found.name == "backs up"
    assert found.further.value == pytest.approx((2 - 0.4) / 4)
    assert most_needed_besides(without, [others[0], others[3]], clean, corrupt) is None
    assert most_needed_besides(without, [], clean, corrupt) is None


# -- what is run --------------------------------------------------------------------------------


@dataclass
class Additive:
    """Every head adds its own amount to the metric wherever it is not ablated; in the corrupt run nothing does."""

    amounts: Mapping[Head, float]
    most: float = 100.0  # to which their sum is cut off
    batches: list[list[Experiment]] = field(default_factory=list)

    def run(self, experiments: Iterable[Experiment]) -> Records:
        wanted = list(experiments)
        self.batches.append(wanted)
        return Records({e: {"logit_diff": self.value(e)} for e in wanted}, np.zeros(N, dtype=np.int64))

    def value(self, experiment: Experiment) -> np.ndarray:
        patched = {site.component for site in experiment.sites}
        acting = [head for head in HEADS if (head in patched) == (experiment.base != "clean")]
        seed = int(experiment.digest[:8], 16)
        return min(self.most, sum((self.amounts.get(head, 0.0) for head in acting), 0.0)) + spread(seed, 0.01)

    @property
    def ran(self) -> list[Experiment]:
        return [experiment for batch in self.batches for experiment in batch]

    def direct(
        self, experiments: Sequence[Experiment], metric: str, neurons: Collection[Neuron]
    ) -> Mapping[Experiment, DirectRun]:
        found = {}
        for experiment in (CLEAN, *experiments):
            patched = {site.component for site in experiment.sites}
            effects: dict[Any, np.ndarray] = {
                h: np.full(N, 0.0 if h in patched else self.amounts.get(h, 0.0)) + spread(1) for h in HEADS
            }
            where: dict[Any, np.ndarray] = {h: np.ones(N, dtype=np.bool_) for h in HEADS if h in patched}
            found[experiment] = DirectRun(effects, np.zeros(N), where, self.value(experiment))
        return found


@dataclass(frozen=True)
class Estimated:
    """What a screen of the circuit gave."""

    metric: str
    effects: Mapping[Any, np.ndarray]
    by_role: Mapping[Any, Mapping[str, float]] = field(default_factory=dict)


def examined(
    groups: Mapping[str, tuple[Sequence[Head], Effect]],
    amounts: Mapping[Head, float],
    direct: examining.DirectEffects | None = None,
    ablation: AblationSpec = ABLATION,
    most: float = 100.0,
    every: bool = False,
    kind: type[Additive] | None = None,
    screen: Estimated | None = None,
    claimed: str = "logit_diff",
) -> tuple[CircuitEffects, Plan, Additive]:
    members = [Member(h, Where.everywhere(), g, effect) for g, (heads, effect) in groups.items() for h in heads]
    graph = CircuitGraph(SHAPE, tuple(members), frozenset(Mlp(layer) for layer in range(2)))
    model = (kind or Additive)(amounts, most)
    outside = frozenset(Site(h, Where.everywhere()) for h in HEADS if h not in {m.component for m in members})
    source = ablation_source(ablation)
    corrupt = CORRUPT if source.prompts is not None else ablating(source, dict.fromkeys(HEADS, Where.everywhere()))
    circuit = Experiment("clean", source, outside) if outside else CLEAN
    claim = PlannedClaim(0, Sufficient(metric=claimed, at_least=0.8), circuit, CLEAN, corrupt)
    labels = {circuit: "circuit", CLEAN: "clean", corrupt: "corrupt"}
    plan = Plan(labels=labels, clean=CLEAN, corrupt=corrupt, circuit=circuit, claims=(claim,))
    records = model.run(plan.experiments)
    model.batches.clear()
    parts = CircuitParts.of(graph, ablation, every=every)
    found, plan, records = examine(plan, records, parts, model, direct or model.direct, screen=screen)
    assert found is not None
    assert set(plan.experiments) == set(records.values)
    return found, plan, model


def test_groups_and_components_are_ablated_once_each() -> None:
    """A group of one component is that component; nothing is silent here, so that nothing more is run."""
    groups: dict[str, tuple[Sequence[Head], Effect]] = {
        "one": ([HEADS[0]], "positive"),
        "two": (HEADS[1:3], "positive"),
    }
    found, plan, model = examined(groups, dict.fromkeys(HEADS, 1.0))
    assert len(model.ran) == 1 + 1 + 2
    assert {plan.labels[run] for run in model.ran} == {"one ablated", "two ablated", "a0.h1 ablated", "a1.h0 ablated"}
    assert [round(one.drop.value, 2) for one in found.groups] == [0.25, 0.5]
    assert [round(one.drop.value, 2) for one in found.components] == [0.25, 0.25, 0.25]
    assert [out.name for out in found.knockouts] == ["one", "two", "a0.h1", "a1.h0", "one, two"]
    assert warned(EFFECT_WARNINGS, effects=found) == ()


def test_a_silent_component_is_restored_alone_and_ablated_besides_every_other_part() -> None:
    groups: dict[str, tuple[Sequence[Head], Effect]] = {
        "idle": ([HEADS[0]], "positive"),
        "two": (HEADS[1:3], "positive"),
        "last": ([HEADS[3]], "positive"),
    }
    found, plan, model = examined(groups, dict.fromkeys(HEADS[1:], 1.0))
    later = {plan.labels[run] for batch in model.batches[1:] for run in batch}
    outside = "everything outside and a0.h0 ablated"  # here nothing is
    assert later | {outside} == {"a0.h0 restored", "two and a0.h0 ablated", "last and a0.h0 ablated", outside}
    (warning,) = warned(EFFECT_WARNINGS, effects=found)
    assert warning.code == "CS415"
    assert "a0.h0" in warning.message


def test_without_corrupt_prompts_redundancy_shows_where_all_outside_is_ablated() -> None:
    """Two heads say 4 each, and more than 4 is not said; one of them is outside the circuit."""
    groups: dict[str, tuple[Sequence[Head], Effect]] = {"one": ([HEADS[0]], "positive")}
    zero = AblationSpec(value="zero")
    found, _, _ = examined(groups, {HEADS[0]: 4.0, HEADS[1]: 4.0}, ablation=zero, most=4.0)
    (one,) = found.components
    assert (one.is_silent, one.rise) == (True, None)
    assert one.besides is not None
    assert one.besides.name == "everything outside"
    assert one.besides.further.value == pytest.approx(1, abs=1e-3)
    (warning,) = warned(EFFECT_WARNINGS, effects=found)
    assert warning.code == "CS426"


class Turning(Additive):
    """The head a1.h0 helps where a1.h1 acts, and otherwise hurts by as much."""

    def value(self, experiment: Experiment) -> np.ndarray:
        patched = {site.component for site in experiment.sites}
        turned = experiment.base == "clean" and Head(1, 1) in patched and Head(1, 0) not in patched
        return super().value(experiment) - (2 * self.amounts[Head(1, 0)] if turned else 0.0)


def test_a_negative_group_that_helps_in_the_model_is_ablated_in_the_circuit_alone() -> None:
    groups: dict[str, tuple[Sequence[Head], Effect]] = {
        "main": (HEADS[:2], "positive"),
        "against": ([Head(1, 0)], "negative"),
    }
    found, _, _ = examined(groups, {HEADS[0]: 2.0, HEADS[1]: 2.0, Head(1, 0): 1.0}, kind=Turning)
    assert [one.sign for one in found.groups] == ["helps", "helps"]
    (within,) = found.within
    assert (within.part.name, within.sign) == ("against", "hurts")
    assert within.effect == pytest.approx(1, abs=1e-2)
    assert warned(EFFECT_WARNINGS, effects=found) == ()
    found, _, _ = examined(groups, {HEADS[0]: 2.0, HEADS[1]: 2.0, Head(1, 0): 1.0})
    assert [one.sign for one in found.within] == ["helps"]
    assert [w.code for w in warned(EFFECT_WARNINGS, effects=found)] == ["CS428"]


def test_of_very_many_pairs_none_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: dict[str, tuple[Sequence[Head], Effect]] = {
        "idle": (HEADS[:3], "positive"),
        "last": (HEADS[3:], "positive"),
    }
    amounts = dict.fromkeys(HEADS[3:], 1.0)
    for most, pairs in ((9, 3 + 3), (8, 3), (2, 0)):  # the group and two components each; the group alone; none
        monkeypatch.setattr(examining, "PAIRS", most)
        _, plan, model = examined(groups, amounts)
        assert sum(" and " in plan.labels[run] for run in model.ran) == pairs


def test_of_large_circuits_only_what_is_declared_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that is declared negative takes one run; a declared backup has all groups knocked out, to see it act."""
    monkeypatch.setattr("circuitspec.analysis.circuit_effects.circuit_parts.COMPONENTS", 2)
    amounts = dict.fromkeys(HEADS, 1.0)

    def declared(effect: Effect) -> dict[str, tuple[Sequence[Head], Effect]]:
        return {"one": (HEADS[:3], "positive"), "last": (HEADS[3:], effect)}

    assert COMPONENTS > 2
    found, _, model = examined(declared("positive"), amounts)
    assert (len(model.ran), found.groups, found.components, found.untaken, found.knockouts) == (0, (), (), 4, ())
    found, plan, model = examined(declared("negative"), {**amounts, HEADS[3]: -1.0})
    assert [plan.labels[run] for run in model.ran if run in plan.labels] == ["last ablated"]
    assert ([one.part.name for one in found.groups], found.groups[0].sign, found.knockouts) == (["last"], "hurts", ())
    two: dict[str, tuple[Sequence[Head], Effect]] = {
        "one": (HEADS[:1], "positive"),
        "two": (HEADS[1:3], "negative"),
        "last": (HEADS[3:], "negative"),
    }
    against = {**amounts, HEADS[1]: 0.2, HEADS[2]: 0.1, HEADS[3]: -0.6}
    found, plan, model = examined(two, against)  # together they hurt; by itself one of the two does not
    assert [plan.labels[run] for run in model.batches[0]] == ["two ablated", "last ablated"]
    assert [(one.part.name, one.sign) for one in found.groups] == [("two", "helps"), ("last", "hurts")]
    assert [warning.data["group"] for warning in warned(EFFECT_WARNINGS, effects=found)] == ["two"]
    monkeypatch.setattr("circuitspec.analysis.circuit_effects.circuit_parts.JOINED", 1)
    found, plan, model = examined(two, against)
    assert [plan.labels[run] for run in model.ran if run in plan.labels] == ["two, last ablated"]
    assert [(one.part.name, one.sign) for one in found.groups] == [("two, last", "hurts")]
    found, _, _ = examined(declared("backup"), amounts)
    assert [out.name for out in found.knockouts] == ["one"]
    found, _, model = examined(declared("positive"), amounts, every=True)
    assert len(model.ran) == 2 + 3  # the one of the last group is that group
    assert (len(found.components), found.untaken) == (4, 0)
    assert {out.name for out in found.knockouts} == {
        "one",
        "last",
        *(format_name(head) for head in HEADS[:3]),
        "one, last",
    }


def test_components_of_large_circuits_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three heads two should hurt, and one of these is not declared to: the circuit is run without it."""
    monkeypatch.setattr("circuitspec.analysis.circuit_effects.circuit_parts.COMPONENTS", 2)
    first, second, outside, last = HEADS
    amounts = {first: 4.0, second: -1.0, outside: 2.0, last: -0.5}
    groups: dict[str, tuple[Sequence[Head], Effect]] = {
        "one": ((first, second), "positive"),
        "against": ((last,), "negative"),
    }
    changes = {first: -0.001, second: 2.0, last: 0.4}  # estimates, and not quite what ablating does
    screen = Estimated("logit_diff", {head: change + spread(2) / 100 for head, change in changes.items()})
    found, plan, model = examined(groups, amounts, screen=screen)
    whole = sum(amounts.values())
    drops = {one.part.name: one.drop.value for one in found.estimated}
    assert drops == pytest.approx({format_name(h): -change / whole for h, change in changes.items()}, abs=0.01)
    assert {one.part.name: one.sign for one in found.estimated} == {
        format_name(first): "neither",
        format_name(second): "hurts",
        format_name(last): "hurts",
    }
    assert [one.part.name for one in found.doubtful] == [format_name(second)]
    assert found.components == ()
    scores = {one.name: (one.negatives, one.recovered.value) for one in found.sets}
    without = (whole - amounts[outside] - amounts[second]) / whole
    assert scores[examining.ESTIMATED_OUT] == ((format_name(second),), pytest.approx(without, abs=0.01))
    in_model, alone = found.joint
    assert (in_model.drop.value, alone.drop.value) == pytest.approx((amounts[second] / whole,) * 2, abs=0.01)
    labels = [plan.labels[run] for run in model.ran if run in plan.labels]
    assert labels == [
        "against ablated",
        f"circuit, {examining.NEGATIVES_OUT}",
        f"circuit, {examining.ESTIMATED_OUT}",
        "those that should hurt by estimate ablated",
    ]
    (warning,) = [w for w in warned(EFFECT_WARNINGS, effects=found) if w.code == "CS433"]
    assert f"{format_name(second)} together" in warning.message
    small = {head: change / 50 for head, change in screen.effects.items()}
    little, _, model = examined(groups, amounts, screen=Estimated("logit_diff", small))
    assert (little.joint, [one.name for one in little.sets]) == ((), ["as declared", examining.NEGATIVES_OUT])
    other, _, model = examined(groups, amounts, screen=Estimated("logit", screen.effects))  # of another metric
    assert (other.estimated, other.joint, len(model.ran)) == ((), (), 2)
    thorough, _, _ = examined(groups, amounts, screen=screen, every=True)
    assert (thorough.estimated, len(thorough.components)) == ((), 3)


@dataclass
class Third(Additive):
    """The second head lifts a third token: nothing in the logit difference, and a loss of the probability."""

    def run(self, experiments: Iterable[Experiment]) -> Records:
        wanted = list(experiments)
        self.batches.append(wanted)
        values = {e: {"logit_diff": self.value(e), "prob": 0.1 * self.value(e) - self.lost(e)} for e in wanted}
        return Records(values, np.zeros(N, dtype=np.int64))

    def lost(self, experiment: Experiment) -> np.ndarray:
        patched = {site.component for site in experiment.sites}
        seed = int(experiment.digest[:8], 16)
        return 0.2 * ((HEADS[1] in patched) != (experiment.base == "clean")) + spread(seed, 0.001)


def test_what_the_claimed_metric_shows_is_not_called_idle() -> None:
    """By the logit difference the head does nothing, by the claimed probability it hurts, declared or not."""
    amounts = {HEADS[0]: 4.0, HEADS[2]: 1.0, HEADS[3]: 1.0}
    for effect, without in (("negative", "CS428"), ("positive", "CS415")):
        groups: dict[str, tuple[Sequence[Head], Effect]] = {
            "one": (HEADS[:1], "positive"),
            "against": (HEADS[1:2], effect),  # type: ignore[dict-item]
        }
        found, _, _ = examined(groups, amounts, kind=Third, claimed="prob")
        assert (found.metric, found.second) == ("logit_diff", "prob")
        drops = {one.part.name: one.drop.value for one in found.by_second}
        assert drops["against"] == pytest.approx(-0.2 / (0.1 * 6 - 0.2), abs=0.02)
        assert [w.code for w in warned(EFFECT_WARNINGS, effects=found)] == []
        by_logits, _, _ = examined(groups, amounts, kind=Third)
        assert by_logits.second == ""
        assert without in [w.code for w in warned(EFFECT_WARNINGS, effects=by_logits)]


def test_a_circuit_that_was_never_run_alone_has_effects_by_the_claimed_metric() -> None:
    """A claim of necessity alone needs no run of the circuit alone."""
    text = (TOYS / "and.circuit.yaml").read_text(encoding="utf-8")
    text = text[: text.index("claims:")] + "claims: [{necessary: {metric: prob, at_most: 0.5}}]\n"
    found = verify(
        parse_hypothesis(text, str(TOYS / "and.circuit.yaml")), VerifyOptions(), Silent()
    ).verification.effects
    assert found is not None
    assert (found.metric, found.second, found.within_by_second) == ("logit_diff", "prob", ())
    assert {one.part for one in found.by_second} == {one.part for one in (*found.groups, *found.components)}


def test_where_heads_cannot_be_told_apart_that_is_said() -> None:
    """The rest is looked at all the same; a declared backup is judged by what its own loss costs."""

    def refused(
        experiments: Sequence[Experiment], metric: str, neurons: Collection[Neuron]
    ) -> Mapping[Experiment, DirectRun]:
        raise CircuitspecError(Diagnostic("CS371", "layer 0 has an adapter"))

    groups: dict[str, tuple[Sequence[Head], Effect]] = {"one": (HEADS[:2], "positive"), "last": (HEADS[2:], "backup")}
    found, _, _ = examined(groups, dict.fromkeys(HEADS, 1.0), direct=refused)
    assert found.direct_unknown == "layer 0 has an adapter"
    assert found.knockouts == ()
    (warning,) = warned(EFFECT_WARNINGS, effects=found)
    assert warning.code == "CS429"
    assert "layer 0 has an adapter" in warning.detail


def test_other_errors_are_raised() -> None:
    def broken(
        experiments: Sequence[Experiment], metric: str, neurons: Collection[Neuron]
    ) -> Mapping[Experiment, DirectRun]:
        raise CircuitspecError(Diagnostic("CS503", "off"))

    with pytest.raises(CircuitspecError, match="off"):
        examined({"one": (HEADS[:2], "positive")}, dict.fromkeys(HEADS, 1.0), direct=broken)


def test_the_metric_is_linear_in_the_logits() -> None:
    def records(*metrics: str) -> Records:
        return Records({CLEAN: {m: np.ones(3) for m in metrics}}, np.zeros(3, dtype=np.int64))

    def plan(metric: str) -> Plan:
        return make_plan(Sufficient.model_validate({"metric": metric, "at_least": 0.5}))

    assert for_parts(plan("logit"), records("logit", "logit_diff", "kl")) == "logit"
    assert for_parts(plan("prob"), records("prob", "logit", "logit_diff")) == "logit_diff"
    assert for_parts(plan("prob"), records("prob", "logit")) == "logit"
    assert for_parts(plan("kl"), records("kl")) is None


def test_without_a_difference_between_the_anchors_nothing_is_run() -> None:
    flat = {run: {"logit_diff": around(1.0, N)} for run in (CLEAN, CORRUPT, CIRCUIT)}
    model = Additive({})
    plan = make_plan(Sufficient(metric="logit_diff", at_least=0.5))
    graph = CircuitGraph(SHAPE, (), frozenset())
    for records in (
        Records(flat, np.zeros(N, dtype=np.int64)),
        Records({run: {"logit_diff": np.ones(1)} for run in flat}, np.zeros(1, dtype=np.int64)),
    ):
        found, same, _ = examine(plan, records, CircuitParts.of(graph, ABLATION), model, model.direct)
        assert (found, same, model.ran) == (None, plan, [])
