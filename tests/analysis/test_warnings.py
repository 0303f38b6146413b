from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from circuitspec.analysis.circuit_effects.negative_components import NegativeComponent, NegativeFinding
from circuitspec.analysis.claims.verdict import judge
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.warnings.evidence import EvidenceWarning
from circuitspec.analysis.warnings.negative_warnings import NEGATIVE_WARNINGS, negative_components
from circuitspec.analysis.warnings.path_warnings import PATH_WARNINGS
from circuitspec.analysis.warnings.score_warnings import SCORE_WARNINGS
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import Plan, PlannedClaim
from circuitspec.hypothesis_file.schema.claims.necessary_block import Necessary
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from tests.analysis.support import (
    CIRCUIT,
    CLEAN,
    CORRUPT,
    KNOCKED_OUT,
    around,
    evidence,
    make_plan,
    make_records,
    warned,
)

KINDS = (*NEGATIVE_WARNINGS, *SCORE_WARNINGS, *PATH_WARNINGS)


def estimate(value: float, spread: float = 0.03) -> Estimate:
    return Estimate(value, value - spread, value + spread, 0.95, 100, "bca")


def component(name: str, recovered: float, mostly_at: str | None = None) -> NegativeComponent:
    return NegativeComponent(name, 4.0 * (recovered - 0.88), estimate(recovered), 0.001, mostly_at)


FINDING = NegativeFinding(
    metric="logit_diff",
    screened=14,
    tested=3,
    components=(component("a3.h1", 0.74, "END"), component("a2.h0", 0.82)),
    recovered_declared=estimate(0.88),
    recovered_restored=estimate(0.69),
)


def found(
    plan: Plan,
    means: dict[Experiment, float],
    n: int = 100,
    templates: list[int] | None = None,
    metric: str = "logit_diff",
) -> tuple[EvidenceWarning, ...]:
    records = make_records({run: {metric: around(mean, n)} for run, mean in means.items()}, templates)
    return warned(KINDS, plan, records, claims=judge(plan, records))


SOUND = {CLEAN: 4.0, CORRUPT: 0.0, CIRCUIT: 3.2, KNOCKED_OUT: 0.0}


def test_sound_evidence_has_no_warnings() -> None:
    plan = make_plan(Sufficient(metric="logit_diff", at_least=0.7), Necessary(metric="logit_diff", at_most=0.3))
    assert found(plan, SOUND) == ()


def test_negative_components() -> None:
    (warning,) = negative_components(evidence(negatives=FINDING))
    assert warning.code == "CS401"
    assert warning.message == "negative components are left out: a3.h1 (-0.14, mostly at END), a2.h0 (-0.06)"
    assert warning.detail == (
        "recovered logit_diff 0.88 as declared, 0.69 with all of them restored "
        "(3 of 14 ablated components were tried; --negatives exact tries all)"
    )
    assert warning.help == (
        "add them to a group with `effect: negative`, or explain why they are not part of the circuit"
    )
    assert (warning.data["metric"], warning.data["screened"], warning.data["tested"]) == ("logit_diff", 14, 3)
    assert warning.data["recovered_restored"] == {
        "value": 0.69,
        "ci": [pytest.approx(0.66), pytest.approx(0.72)],
        "level": 0.95,
        "n": 100,
        "method": "bca",
    }
    components = warning.data["components"]
    assert isinstance(components, list)
    assert components[0]["component"] == "a3.h1"
    assert components[0]["effect"] == pytest.approx(-0.56)
    assert components[0]["effect_on_recovered"] == pytest.approx(-0.14)
    assert components[0]["p_adjusted"] == 0.001
    assert [c["mostly_at"] for c in components] == ["END", None]


def test_many_negative_components_are_counted_in_the_message_and_kept_in_the_data() -> None:
    many = tuple(component(f"a1.h{i}", 0.8) for i in range(11))
    finding = dataclasses.replace(FINDING, components=many, recovered_restored=None)
    (warning,) = negative_components(evidence(negatives=finding))
    assert warning.message.endswith("a1.h7 (-0.08), and 3 more")
    assert warning.detail == (
        "recovered logit_diff 0.88 as declared (3 of 14 ablated components were tried; --negatives exact tries all)"
    )
    assert len(warning.data["components"]) == 11  # type: ignore[arg-type]


def test_negatives_come_first_and_only_when_there_are_any() -> None:
    plan = make_plan(Sufficient(metric="logit_diff", at_least=0.8))
    records = make_records({run: {"logit_diff": around(m)} for run, m in {**SOUND, CIRCUIT: 4.8}.items()})
    claims = judge(plan, records)
    assert [w.code for w in warned(KINDS, plan, records, claims=claims, negatives=FINDING)] == ["CS401", "CS402"]
    nothing = dataclasses.replace(FINDING, components=(), recovered_restored=None)
    assert [w.code for w in warned(KINDS, plan, records, claims=claims, negatives=nothing)] == ["CS402"]


def test_recovery_above_one() -> None:
    (warning,) = found(make_plan(Sufficient(metric="logit_diff", at_least=0.8)), {**SOUND, CIRCUIT: 4.56})
    assert warning.code == "CS402"
    assert warning.message.startswith("recovered logit_diff is above 100 %: 1.14 [1.1")
    assert "negative components were left out" in warning.detail
    assert warning.data["claim"] == 0
    recovered = warning.data["recovered"]
    assert isinstance(recovered, dict)
    assert recovered["value"] == pytest.approx(1.14)


def test_an_interval_that_reaches_down_to_one_is_not_above_it() -> None:
    assert found(make_plan(Sufficient(metric="logit_diff", at_least=0.8)), {**SOUND, CIRCUIT: 4.02}) == ()


def test_recovery_above_one_matters_for_sufficiency_only() -> None:
    assert found(make_plan(Necessary(metric="logit_diff", at_most=0.3)), {**SOUND, KNOCKED_OUT: 5.0}) == ()


def test_a_corruption_that_breaks_nothing() -> None:
    plan = make_plan(Sufficient(metric="logit_diff", at_least=0.8), Necessary(metric="logit_diff", at_most=0.3))
    (warning,) = found(plan, {**SOUND, CORRUPT: 4.01})  # once, though two claims divide by it
    assert warning.code == "CS403"
    assert warning.message == (
        "the corruption does not break the behaviour: logit_diff is 4.00 in `clean` and 4.01 in `corrupt`"
    )
    assert warning.detail.startswith("difference -0.01 [-0.")
    assert warning.data["state"] == "zero"
    assert warning.data["clean"] == pytest.approx(4.0)
    assert warning.data["corrupt"] == pytest.approx(4.01)


def test_a_corruption_that_improves_the_behaviour() -> None:
    (warning,) = found(make_plan(Sufficient(metric="logit_diff", at_least=0.8)), {**SOUND, CORRUPT: 6.0})
    assert warning.code == "CS403"
    assert warning.message.startswith(
        "the corruption improves the behaviour instead of breaking it: logit_diff is 4.00"
    )
    assert warning.data["state"] == "inverted"


def test_kl_is_broken_when_it_rises() -> None:
    means = {CLEAN: 0.5, CORRUPT: 5.0, CIRCUIT: 1.0}
    assert found(make_plan(Sufficient(metric="kl", at_least=0.1)), means, metric="kl") == ()


def test_a_claim_that_patches_nothing() -> None:
    claim = PlannedClaim(0, Sufficient(metric="logit_diff", at_least=0.1), CLEAN, CLEAN, CORRUPT)
    plan = Plan(
        labels={CLEAN: "clean", CORRUPT: "corrupt"}, clean=CLEAN, corrupt=CORRUPT, circuit=CLEAN, claims=(claim,)
    )
    (warning,) = found(plan, {CLEAN: 4.0, CORRUPT: 0.0})
    assert warning.code == "CS405"
    assert warning.data == {"claim": 0, "kind": "sufficient"}


def test_a_hair_above_100_percent_is_not_worth_a_warning() -> None:
    plan = make_plan(Sufficient(metric="logit_diff", at_least=0.1))
    spread = np.linspace(-1e-4, 1e-4, 50)
    codes = []
    for above in (1.005, 1.02):
        values = {CLEAN: 4 + spread, CORRUPT: 0 * spread, CIRCUIT: 4 * above + spread}
        records = make_records({run: {"logit_diff": list(v)} for run, v in values.items()})
        codes.append([w.code for w in warned(KINDS, plan, records, claims=judge(plan, records))])
    assert codes == [[], ["CS402"]]


def test_one_prompt_is_told_apart_from_no_gap() -> None:
    plan = make_plan(Sufficient(metric="logit_diff", at_least=0.1))
    records = make_records({run: {"logit_diff": [m]} for run, m in SOUND.items()})
    assert [w.code for w in warned(KINDS, plan, records, claims=judge(plan, records))] == []
