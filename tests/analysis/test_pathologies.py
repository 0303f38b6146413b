"""Each pathology produced on purpose, by arithmetic on logits: its warning appears, and no other."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from circuitspec.analysis.claims.verdict import ClaimResult, judge
from circuitspec.analysis.warnings.evidence import EvidenceWarning
from circuitspec.analysis.warnings.metric_warnings import LEAST_REST, METRIC_WARNINGS, recovered_by
from circuitspec.analysis.warnings.prompt_warnings import PROMPT_WARNINGS, prompts_needed, too_few_prompts
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment, Noised, Site, Source
from circuitspec.experiments.planner import Plan, PlannedClaim
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.hypothesis_file.schema.claims.necessary_block import Necessary
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from circuitspec.prompts.prompt_set import Prompt, PromptSet, PromptsFile
from circuitspec.reports.explanations import all_codes
from tests.analysis.answers import Logits, records
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

KINDS = (*METRIC_WARNINGS, *PROMPT_WARNINGS)

N = 100
LOGIT_DIFF = Sufficient(metric="logit_diff", at_least=0.7, at_most=1.2)
BOTH = make_plan(LOGIT_DIFF, Necessary(metric="logit_diff", at_most=0.3))


def spread(seed: int, scale: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, N)


# The right answer at 6, the wrong one at 2, all other tokens at 5.5 together; corrupt, both answers at 2. The circuit
# brings 9 tenths of either move back, the model without it one tenth.
CLEAN_RUN: Logits = (6 + spread(1), 2 + spread(2), 5.5)
CORRUPT_RUN: Logits = (2 + spread(3), 2 + spread(4), 5.5)
CIRCUIT_RUN: Logits = (5.6 + spread(1), 2 + spread(2), 5.5)
ABLATED_RUN: Logits = (2.4 + spread(3), 2 + spread(4), 5.5)


def measured(
    clean: Logits = CLEAN_RUN,
    corrupt: Logits = CORRUPT_RUN,
    circuit: Logits = CIRCUIT_RUN,
    ablated: Logits = ABLATED_RUN,
) -> Records:
    return records(clean, {CORRUPT: corrupt, CIRCUIT: circuit, KNOCKED_OUT: ablated}, of=CLEAN)


def found(
    plan: Plan, values: Records, prompts: PromptSet | None = None, variables: frozenset[str] = frozenset()
) -> tuple[EvidenceWarning, ...]:
    return warned(KINDS, plan, values, claims=judge(plan, values), prompts=prompts, variables=variables)


def only(warnings: tuple[EvidenceWarning, ...], code: str) -> EvidenceWarning:
    assert [w.code for w in warnings] == [code]
    assert code in all_codes()
    assert warnings[0].detail
    assert warnings[0].help
    return warnings[0]


def test_sound_evidence_has_no_warning() -> None:
    claims = [
        kind(metric=metric, **bound)
        for metric in ("logit_diff", "logprob", "prob", "prob_diff", "kl")
        for kind, bound in ((Sufficient, {"at_least": 0.5}), (Necessary, {"at_most": 0.5}))
    ]
    assert found(make_plan(*claims), measured()) == ()


def test_a_sound_toy_without_any_spread_has_no_warning() -> None:
    clean, corrupt = (np.full(24, 8.0), 4.0, 3.2), (np.zeros(24), 4.0, 3.2)  # as zoo:and
    assert found(BOTH, measured(clean, corrupt, clean, corrupt)) == ()


# -- CS416 --------------------------------------------------------------------------------------


# In a model that finds both names unlikely (2 % at best), corrupt prompts make the wrong one likely: 6 against 2
LIKELY: Logits = (6 + spread(1), 2 + spread(2), 10.0)
SWAPPED: Logits = (2 + spread(3), 6 + spread(4), 10.0)


def test_a_damaged_model_lowers_the_wrong_answer() -> None:
    damaged = (2 + spread(3), -0.8 + spread(2), 10.0)  # logit difference 2.8: (2.8 + 4) / 8 = 0.85
    warning = only(found(make_plan(LOGIT_DIFF), measured(LIKELY, SWAPPED, damaged)), "CS416")
    (move,) = warning.data["moves"]  # type: ignore[misc, attr-defined]
    assert (move["from"], move["to"], move["claim"]) == ("corrupt", "circuit", 0)
    assert move["rise"] == pytest.approx(6.8, abs=0.2)
    assert move["share_of_right"]["value"] == pytest.approx(0, abs=0.02)
    # right against the rest: 2 - 10 in both; wrong: 6 - 10, then -0.8 - 10
    assert move["right"] == pytest.approx([-8, -8], abs=0.2)
    assert move["wrong"] == pytest.approx([-4, -10.8], abs=0.2)
    assert "from `corrupt` to `circuit` is " in warning.message


def test_where_the_right_answer_was_likely_kl_shows_the_damage_too() -> None:
    clean, corrupt = (6 + spread(1), 2 + spread(2), 5.5), (2 + spread(3), 6 + spread(4), 5.5)
    damaged = (2 + spread(3), -0.8 + spread(2), 5.5)
    codes = [w.code for w in found(make_plan(LOGIT_DIFF), measured(clean, corrupt, damaged))]
    assert codes == ["CS416", "CS419"]  # and not CS418: the probability is broken for the reason that CS416 gives


def test_a_shift_of_all_logits_is_no_gain_of_the_right_answer() -> None:
    """By its logit alone the right answer would seem to bring 3 of the 6.8."""
    damaged = (5 + spread(3), 2.2 + spread(2), 13.0)
    only(found(make_plan(LOGIT_DIFF), measured(LIKELY, SWAPPED, damaged)), "CS416")


def test_a_corruption_that_moves_the_wrong_answer_only() -> None:
    corrupt = (6 + spread(3), 6 + spread(4), 5.5)
    circuit = (6 + spread(1), 2.4 + spread(2), 5.5)
    warning = only(found(make_plan(LOGIT_DIFF), measured(corrupt=corrupt, circuit=circuit)), "CS416")
    moves = warning.data["moves"]
    assert isinstance(moves, list)
    assert [(m["from"], m["to"], m["claim"]) for m in moves] == [("corrupt", "clean", None), ("corrupt", "circuit", 0)]


def test_ablating_the_circuit_raises_the_wrong_answer_only() -> None:
    ablated = (6 + spread(1), 5.8 + spread(2), 5.5)
    warning = only(found(make_plan(Necessary(metric="logit_diff", at_most=0.3)), measured(ablated=ablated)), "CS416")
    (move,) = warning.data["moves"]  # type: ignore[misc, attr-defined]
    assert (move["from"], move["to"]) == ("circuit ablated", "clean")


def test_where_the_model_is_certain_no_gain_can_be_seen_and_none_is_missed() -> None:
    """The right answer alone gains 20 logits, all other tokens have less than a millionth before and after."""
    clean, ablated = (44.9 + spread(1), 5 + spread(2), 4.0), (24.6 + spread(3), 5 + spread(4), 4.0)
    plan = make_plan(Necessary(metric="logit_diff", at_most=0.6))
    assert [w.code for w in found(plan, measured(clean=clean, ablated=ablated))] == ["CS418"]  # accuracy sees nothing


def test_a_corruption_that_swaps_the_answers_moves_both() -> None:
    swapped = (2 + spread(3), 6 + spread(4), 5.5)
    back = (5.7 + spread(1), 2.3 + spread(2), 5.5)
    assert found(make_plan(LOGIT_DIFF), measured(corrupt=swapped, circuit=back)) == ()


def test_certainty_has_no_log_odds_beyond_the_arithmetic() -> None:
    certain = (60 + spread(1), 20 + spread(2), 5.5)  # nothing is left for the rest in double precision
    assert found(make_plan(LOGIT_DIFF), measured(clean=certain, circuit=certain)) == ()
    assert LEAST_REST > 1e-7


def test_a_claim_that_hardly_moves_anything_has_no_parts() -> None:
    # nothing of a rise by 0.1 comes from the right answer, but it is no rise worth speaking of
    circuit = (2 + spread(3), 1.9 + spread(4), 5.5)
    assert found(make_plan(Sufficient(metric="logit_diff", at_most=0.3)), measured(circuit=circuit)) == ()


# -- CS417 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["logprob", "prob", "prob_diff"])
def test_two_runs_near_certainty_look_alike(metric: str) -> None:
    # clean 20 against 5.5, circuit 11.5 against 5.5: 0.0 and -0.002 nats, but a third of the margin is gone
    clean, circuit = (20 + spread(1), 2 + spread(2), 5.5), (11.5 + spread(1), 2 + spread(2), 5.5)
    warning = only(
        found(make_plan(Sufficient(metric=metric, at_least=0.8)), measured(clean=clean, circuit=circuit)), "CS417"
    )
    assert warning.data["prompts"] == N
    assert warning.data["by"] == "logit_diff"
    assert warning.data["recovered"]["value"] == pytest.approx(1.0, abs=0.01)  # type: ignore[index, call-overload]
    unsaturated = warning.data["recovered_unsaturated"]
    assert isinstance(unsaturated, dict)
    assert unsaturated["value"] == pytest.approx(9.5 / 18, abs=0.02)
    assert "100 of 100 prompts" in warning.message


def test_without_wrong_answers_the_log_odds_show_it() -> None:
    values = measured((11 + spread(1), -40, 5.5), (2 + spread(3), -40, 5.5), (9 + spread(1), -40, 5.5))
    kept = {
        e: {m: v for m, v in by.items() if m in ("logit", "logprob", "prob", "kl")} for e, by in values.values.items()
    }
    plan = make_plan(Sufficient(metric="logprob", at_least=0.8))
    warning = only(found(plan, Records(kept, values.templates)), "CS417")
    assert warning.data["by"] == "log odds"
    unsaturated = warning.data["recovered_unsaturated"]
    assert isinstance(unsaturated, dict)
    assert unsaturated["value"] == pytest.approx(7 / 9, abs=0.02)  # (9 - 2) / (11 - 2)


def test_certainty_that_hides_nothing_is_no_matter() -> None:
    clean, circuit = (20 + spread(1), 2 + spread(2), 5.5), (19.5 + spread(1), 2 + spread(2), 5.5)
    plan = make_plan(Sufficient(metric="logprob", at_least=0.8))
    assert found(plan, measured(clean=clean, circuit=circuit)) == ()


# -- CS418 --------------------------------------------------------------------------------------

# Clean 0.62 of the probability, circuit 0.15, corrupt 0.01; the names are told apart as well as before. (Figures of
# SmolLM2's circuit.) By KL nearly three quarters are back.
UNSURE: Logits = (4.0 + spread(1), 0.4 + spread(2), 5.5)
FAINT: Logits = (1.0 + spread(3), 1.0 + spread(4), 5.5)


def test_the_answers_are_told_apart_but_unlikely() -> None:
    values = measured(corrupt=FAINT, circuit=UNSURE)
    warning = only(found(make_plan(LOGIT_DIFF), values), "CS418")
    assert warning.data["claim"] == 0
    assert warning.data["recovered"]["value"] == pytest.approx(0.9, abs=0.03)  # type: ignore[index, call-overload]
    by = warning.data["by"]
    assert isinstance(by, dict)
    assert list(by) == ["prob"]
    assert by["prob"]["value"] == pytest.approx(0.28, abs=0.04)


def test_a_claim_about_the_probability_is_compared_with_the_logit_difference() -> None:
    plan = make_plan(Sufficient(metric="prob", at_least=0.7))
    warning = only(found(plan, measured(corrupt=FAINT, circuit=UNSURE)), "CS418")
    assert list(warning.data["by"]) == ["logit_diff"]  # type: ignore[call-overload]


def test_accuracy_falls_where_a_few_prompts_carry_the_mean() -> None:
    # on 30 prompts the circuit's margin is 12, on 70 it is -0.3: the mean is 3.4 of 4, and 30 % are right
    carried = np.where(np.arange(N) < 30, 12.0, -0.3)
    values = {
        CLEAN: {"logit_diff": around(4.0), "accuracy": np.ones(N)},
        CORRUPT: {"logit_diff": around(-1.0), "accuracy": np.zeros(N)},
        CIRCUIT: {"logit_diff": carried, "accuracy": (carried > 0).astype(float)},
    }
    warning = only(found(make_plan(dataclasses_with(LOGIT_DIFF, at_least=0.55)), make_records(values)), "CS418")
    by = warning.data["by"]
    assert isinstance(by, dict)
    assert by["accuracy"]["value"] == pytest.approx(0.3)


def dataclasses_with(claim: Sufficient, **changes: float) -> Sufficient:
    return claim.model_copy(update=changes)


def test_the_curve_of_the_probability_is_no_disagreement() -> None:
    # 0.8 of the way in logits is 0.68 of the probability: below the bound, but above one half
    circuit = (5.2 + spread(1), 2 + spread(2), 5.5)
    assert found(make_plan(Sufficient(metric="logit_diff", at_least=0.75)), measured(circuit=circuit)) == ()


# -- CS419 --------------------------------------------------------------------------------------


def with_kl(circuit: float, corrupt: float) -> Records:
    values = {e: dict(by) for e, by in measured().values.items()}
    values[CIRCUIT]["kl"], values[CORRUPT]["kl"] = around(circuit, spread=0.1 * circuit), around(corrupt, spread=0.05)
    return make_records(values)


def test_the_output_is_another() -> None:
    warning = only(found(make_plan(LOGIT_DIFF), with_kl(1.8, 2.5)), "CS419")
    assert warning.data["recovered_kl"]["value"] == pytest.approx(1 - 1.8 / 2.5, abs=1e-3)  # type: ignore[index, call-overload]
    assert (warning.data["kl"], warning.data["kl_corrupt"]) == (pytest.approx(1.8), pytest.approx(2.5))


def test_distributions_that_hardly_differ_are_not_broken() -> None:
    assert found(make_plan(LOGIT_DIFF), with_kl(0.08, 0.1)) == ()


def test_a_file_that_claims_kl_needs_no_warning_of_it() -> None:
    assert found(make_plan(LOGIT_DIFF, Sufficient(metric="kl", at_least=0.2)), with_kl(1.8, 2.5)) == ()


def test_kl_is_for_circuits_that_recover_the_logit_difference() -> None:
    refuted = make_plan(Sufficient(metric="logit_diff", at_least=0.99))
    assert found(refuted, with_kl(1.8, 2.5)) == ()


# -- CS420 --------------------------------------------------------------------------------------


def test_only_discrete_metrics() -> None:
    plan = make_plan(Sufficient(metric="accuracy", at_least=0.5), Sufficient(metric="rank", at_least=0.5))
    assert found(make_plan(LOGIT_DIFF, Sufficient(metric="accuracy", at_least=0.5)), measured()) == ()
    values = {e: {**by, "rank": 1 - by["accuracy"]} for e, by in measured().values.items()}
    assert only(found(plan, make_records(values)), "CS420").data == {"metrics": ["accuracy", "rank"]}


# -- CS421 --------------------------------------------------------------------------------------


def test_the_corrupt_run_still_does_the_task() -> None:
    half = (4 + spread(3), 2 + spread(4), 5.5)  # half the clean margin, right on nearly all prompts
    warning = only(found(BOTH, measured(corrupt=half, ablated=half)), "CS421")
    assert warning.data["corrupt"] == pytest.approx(2.0, abs=0.2)
    assert warning.data["preferred"] > 95  # type: ignore[operator]
    assert f"preferred on {warning.data['preferred']} of 100 prompts" in warning.message


def test_a_corruption_that_works_on_some_prompts_only() -> None:
    works = np.arange(N) < 30
    corrupt = (np.where(works, 2, 6) + spread(3), np.where(works, 6, 2) + spread(4), 5.5)
    warning = only(found(make_plan(LOGIT_DIFF), measured(corrupt=corrupt)), "CS421")
    assert 65 <= warning.data["standing"] <= 75  # type: ignore[operator]


@pytest.mark.parametrize("noise", [1.0, 2.0, 3.0])
def test_answers_that_are_told_apart_by_chance_do_not_stand(noise: float) -> None:
    """Unrelated names: half of the prompts prefer the right one, by margins as large as the clean one."""
    corrupt = (2 + spread(3, noise), 2 + spread(4, noise), 5.5)
    assert found(make_plan(Sufficient(metric="logit_diff", at_least=0.1)), measured(corrupt=corrupt)) == ()


def test_without_wrong_answers_accuracy_decides() -> None:
    right = (np.arange(N) < 80).astype(float)
    values = {CLEAN: {"accuracy": np.ones(N), "logit": around(4.0)}, CORRUPT: {"accuracy": right, "logit": around(3.0)}}
    values[CIRCUIT] = {"accuracy": np.ones(N), "logit": around(3.9)}
    warning = only(found(make_plan(Sufficient(metric="logit", at_least=0.5)), make_records(values)), "CS421")
    assert (warning.data["metric"], warning.data["standing"]) == ("accuracy", 80)


# -- CS422 --------------------------------------------------------------------------------------

RESAMPLED = Experiment("clean", Source("resample", "abc"), frozenset({Site(Head(0, 1), Where.everywhere())}))


def resampled(variant: str | Noised = "abc") -> Plan:
    run = Experiment("clean", Source("resample", variant), RESAMPLED.sites)
    plan = make_plan(LOGIT_DIFF)
    planned = PlannedClaim(0, LOGIT_DIFF, run, CLEAN, CORRUPT)
    return dataclasses.replace(plan, circuit=run, claims=(planned,), labels={**plan.labels, run: "circuit"})


def named(corrupted: tuple[str, str]) -> PromptSet:
    """Two names and a place; the corrupt prompts have these names and the same place."""
    prompts = []
    for i in range(N):
        texts, slots = {}, {}
        for variant, (first, second) in {"clean": ("Mary", "John"), "abc": corrupted}.items():
            texts[variant] = f"{first} and {second} at home"
            slots[variant] = {"IO": (0, len(first)), "S": (len(first) + 5, len(first) + 5 + len(second))}
            slots[variant]["place"] = (len(texts[variant]) - 4, len(texts[variant]))
        prompts.append(Prompt(i, 0, texts, (" Mary",), (" John",), slots))
    return PromptSet(tuple(prompts), ("abc",), ("{IO} and {S} at {place}",))


def at_circuit(plan: Plan) -> Records:
    values = dict(measured().values)
    values[plan.circuit] = values[CIRCUIT]
    return Records(values, np.zeros(N, dtype=np.int64))


def test_a_corruption_that_keeps_a_variable() -> None:
    plan = resampled()
    warning = only(found(plan, at_circuit(plan), named(("Alice", "John")), frozenset({"IO", "S"})), "CS422")
    assert warning.message == "the corruption abc keeps S"
    assert warning.data == {"claim": 0, "corruption": "abc", "kept": ["S"], "varied": ["IO"]}


def test_a_corruption_of_all_variables_may_keep_the_scenery() -> None:
    plan = resampled()
    assert found(plan, at_circuit(plan), named(("Alice", "Tom")), frozenset({"IO", "S"})) == ()


def test_means_forget_what_the_corruption_keeps() -> None:
    assert found(make_plan(LOGIT_DIFF), measured(), named(("Alice", "John")), frozenset({"IO", "S"})) == ()


def test_noise_varies_the_slots_it_is_added_to() -> None:
    for where, kept in ((Where.at("IO"), ["S"]), (Where.at("IO", "S"), []), (Where.everywhere(), [])):
        plan = resampled(Noised(3.0, where, 10, 0))
        warnings = found(plan, at_circuit(plan), named(("Alice", "Tom")), frozenset({"IO", "S"}))
        assert [w.data["kept"] for w in warnings] == ([kept] if kept else [])


# -- CS423 --------------------------------------------------------------------------------------

# auto-circuit's tests, GPT-2 small without a start token: the IOI circuit's logit difference in % of the model's, for
# 15 templates with the indirect object named first and 15 with the subject named first, 50 prompts each
ABBA = (86.49, 80.72, 83.32, 91.42, 75.28, 81.17, 61.94, 57.41, 84.04, 79.22, 84.04, 89.66, 76.80, 81.14, 72.38)
BABA = (115.65, 110.64, 114.99, 123.69, 142.08, 124.64, 101.44, 108.35, 132.28, 135.30, 98.98, 119.48, 144.59, 112.72)
BABA = (*BABA, 100.47)
PER_TEMPLATE = 50


def ioi(shares: tuple[float, ...]) -> tuple[Records, PromptSet]:
    """Logit differences around 3.56, 0 and the template's share of 3.56; the texts are ABBA, then BABA."""
    dice = np.random.default_rng(0)
    templates = np.repeat(np.arange(len(shares)), PER_TEMPLATE)
    clean = 3.56 + dice.normal(0, 1.2, len(templates))
    noise = dice.normal(0, 1.0, len(templates))
    for template in range(len(shares)):  # the figures are exactly the templates' own
        of = templates == template
        clean[of] += 3.56 - clean[of].mean()
        noise[of] -= noise[of].mean()
    circuit = np.asarray(shares)[templates] / 100 * clean + noise
    values = {CLEAN: {"logit_diff": clean}, CORRUPT: {"logit_diff": dice.normal(0, 1.0, len(templates))}}
    values[CORRUPT]["logit_diff"] -= values[CORRUPT]["logit_diff"].mean()
    values[CIRCUIT] = {"logit_diff": circuit}
    order = [("Mary", "John") if t < len(ABBA) else ("John", "Mary") for t in templates]
    prompts = tuple(
        Prompt(i, int(t), {"clean": f"{a} and {b} met. John gave a ring to"}, (" Mary",), (" John",))
        for i, (t, (a, b)) in enumerate(zip(templates, order, strict=True))
    )
    labels = tuple(f"template {i} {'ABBA' if i < len(ABBA) else 'BABA'}" for i in range(len(shares)))
    return make_records(values, list(templates)), PromptSet(prompts, (), labels)


def test_the_ioi_papers_templates_average_to_a_figure_that_holds_for_neither() -> None:
    values, prompts = ioi(ABBA + BABA)
    plan = make_plan(Sufficient(metric="logit_diff", at_least=0.8, at_most=1.2))
    (claim,) = judge(plan, values)
    assert (claim.status, round(claim.estimate.value, 2)) == ("SUPPORTED", 0.99)  # type: ignore[union-attr]
    warning = only(warned(KINDS, plan, values, claims=(claim,), prompts=prompts), "CS423")
    by_order, by_template = warning.data["groupings"]  # type: ignore[misc, attr-defined]
    assert [(g["label"], g["n"], round(g["recovered"]["value"], 2)) for g in by_order["groups"]] == [
        ("right answer named first", 750, 0.79),
        ("wrong answer named first", 750, 1.19),
    ]
    found_shares = [g["recovered"]["value"] for g in by_template["groups"]]
    assert found_shares == pytest.approx([s / 100 for s in ABBA + BABA], abs=0.06)  # corrupt means differ a little
    assert by_order["spread"] == pytest.approx(abs(1.1902 - 0.79) / 2**0.5, abs=0.01)
    assert "0.79 [" in warning.message
    for key in re.findall("`([^`]*)`", warning.help):  # it names keys that there are
        assert key in Hypothesis.model_fields
    assert "hypothesis' `description`" in warning.help
    assert "1.19 [" in warning.message
    assert "30 templates" in warning.detail


def test_without_the_texts_templates_are_compared() -> None:
    values, _ = ioi(ABBA + BABA)
    plan = make_plan(Sufficient(metric="logit_diff", at_least=0.8, at_most=1.2))
    (grouping,) = only(found(plan, values), "CS423").data["groupings"]  # type: ignore[misc, attr-defined]
    assert grouping["by"] == "template"


def test_templates_that_differ_a_little_are_no_matter() -> None:
    values, prompts = ioi((86.0, 88.0, 90.0, 92.0, 94.0, 96.0))
    assert found(make_plan(LOGIT_DIFF), values, prompts) == ()


def test_few_prompts_differ_by_chance() -> None:
    codes = []
    for seed in range(40):
        dice = np.random.default_rng(seed)
        clean = dice.normal(3.5, 1.2, 60)
        values = {CLEAN: clean, CORRUPT: dice.normal(0, 1.5, 60), CIRCUIT: 0.9 * clean + dice.normal(0, 1.0, 60)}
        run = make_records({e: {"logit_diff": v} for e, v in values.items()}, [i % 10 for i in range(60)])
        codes += [w.code for w in found(make_plan(Sufficient(metric="logit_diff", at_least=0.3)), run)]
    assert codes.count("CS423") <= 2  # 1 % of 40 tests is 0.4


def test_necessity_may_differ_between_templates_within_the_bound() -> None:
    templates = [i % 2 for i in range(N)]
    left = np.where(np.asarray(templates) == 0, -1.6, -0.4) + spread(7, 0.2)
    values = {CLEAN: around(4.0), CORRUPT: around(0.0), KNOCKED_OUT: left}
    run = make_records({e: {"logit_diff": v} for e, v in values.items()}, templates)
    assert found(make_plan(Necessary(metric="logit_diff", at_most=0.3)), run) == ()
    only(found(make_plan(Necessary(metric="logit_diff", at_most=-0.2)), run), "CS423")


# -- CS424 --------------------------------------------------------------------------------------


def undecided(value: float, half: float, n: int = 100, **bound: float) -> ClaimResult:
    values = {CLEAN: {"logit_diff": around(4.0)}, CORRUPT: {"logit_diff": around(0.0)}}
    values[CIRCUIT] = {"logit_diff": around(4 * value)}
    (claim,) = judge(make_plan(Sufficient(metric="logit_diff", **bound)), make_records(values))
    assert claim.estimate is not None
    estimate = dataclasses.replace(claim.estimate, value=value, low=value - half, high=value + half, n=n)
    return dataclasses.replace(claim, estimate=estimate, status="INCONCLUSIVE", n=n)


def test_prompts_needed_by_hand() -> None:
    """Half-width 0.1 at n = 100, bound 0.05 away: (1.96 + 0.84) / 1.96 = 1.43, (1.43 x 0.1 / 0.05)^2 x 100 = 818."""
    factor = (1.959964 + 0.841621) / 1.959964
    expected = int(np.ceil(100 * (factor * 0.1 / 0.05) ** 2))
    assert prompts_needed(undecided(0.85, 0.1, at_least=0.8)) == expected == 818
    assert prompts_needed(undecided(0.75, 0.1, at_least=0.8)) == expected  # as far outside
    assert prompts_needed(undecided(0.25, 0.1, at_most=0.3)) == expected
    assert prompts_needed(undecided(1.0, 0.3, at_least=0.8, at_most=1.1)) == int(np.ceil(100 * (factor * 3) ** 2))
    assert prompts_needed(undecided(0.801, 0.1, at_least=0.8)) is None  # 2 million
    assert prompts_needed(undecided(0.8, 0.1, at_least=0.8)) is None


def test_the_asked_for_prompts_decide_in_four_of_five_draws() -> None:
    """The true value is 0.05 above the bound; with the number asked for, most intervals lie above it."""
    dice, decided = np.random.default_rng(0), 0
    needed = prompts_needed(undecided(0.85, 0.1, at_least=0.8))
    assert needed is not None
    deviation = 0.1 / 1.96 * 10  # that gives half a width of 0.1 at 100 prompts
    for _ in range(2000):
        mean = dice.normal(0.85, deviation / needed**0.5)
        decided += mean - 1.96 * deviation / needed**0.5 >= 0.8
    assert decided / 2000 == pytest.approx(0.8, abs=0.03)


def test_too_few_prompts() -> None:
    circuit = (5.6 + spread(9, 3.0), 2 + spread(2), 5.5)
    plan = make_plan(Sufficient(metric="logit_diff", at_least=0.85))
    warnings = found(plan, measured(circuit=circuit))
    warning = next(w for w in warnings if w.code == "CS424")
    assert warning.data["n"] == 100
    assert isinstance(warning.data["needed"], int)
    assert warning.data["needed"] > 100
    assert warning.help == f"write `task: prompts: {warning.data['needed']}`"
    assert warning.data["claim"] == 0


@pytest.mark.parametrize(
    ("holds", "help_"),
    [
        (100, "add prompts to p.jsonl, which holds 100, and write `task: prompts: 818`"),
        (817, "add prompts to p.jsonl, which holds 817, and write `task: prompts: 818`"),
        (818, "write `task: prompts: 818`"),
    ],
)
def test_prompts_that_a_file_does_not_hold_must_be_added_to_it(holds: int, help_: str) -> None:
    """818 as computed above; asking a file for more than it holds is an error, CS339."""
    (warning,) = too_few_prompts(
        evidence(
            claims=[undecided(0.85, 0.1, at_least=0.8)],
            prompts=PromptSet((), (), (), file=PromptsFile("p.jsonl", holds)),
        )
    )
    assert (warning.code, warning.help) == ("CS424", help_)


def test_a_value_on_the_bound_is_not_decided_by_any_number() -> None:
    warning = only(
        warned(KINDS, make_plan(LOGIT_DIFF), measured(), claims=(undecided(0.8001, 0.1, at_least=0.8),)), "CS424"
    )
    assert warning.data["needed"] is None
    assert "no number of prompts" in warning.detail


# -- all of them --------------------------------------------------------------------------------


def test_claims_about_the_same_run_and_metric_warn_once() -> None:
    plan = make_plan(LOGIT_DIFF, Sufficient(metric="logit_diff", at_least=0.6))
    only(found(plan, measured(corrupt=FAINT, circuit=UNSURE)), "CS418")


def test_warnings_come_in_order_of_code() -> None:
    half = (4 + spread(3), 2 + spread(4), 5.5)
    plan = make_plan(Sufficient(metric="accuracy", at_least=-5.0))
    values = measured(corrupt=half)
    values[CORRUPT]["accuracy"][:40] = 0.0  # type: ignore[index]
    assert [w.code for w in found(plan, values)] == ["CS420", "CS421"]


def test_one_prompt_has_no_warnings() -> None:
    one = tuple(np.asarray(x)[:1] if np.ndim(x) else x for x in CLEAN_RUN)
    other = tuple(np.asarray(x)[:1] if np.ndim(x) else x for x in CORRUPT_RUN)
    assert found(BOTH, measured(one, other, one, other)) == ()  # type: ignore[arg-type]


def test_metrics_beside_the_claimed_one_may_be_missing_or_broken() -> None:
    values = {e: dict(by) for e, by in measured(corrupt=FAINT, circuit=UNSURE).values.items()}
    values[CIRCUIT]["prob"] = np.full(N, np.nan)
    del values[CORRUPT]["kl"], values[CLEAN]["accuracy"]
    assert found(make_plan(LOGIT_DIFF), make_records(values)) == ()
    planned = make_plan(LOGIT_DIFF).claims[0]
    assert recovered_by(planned, make_records(values), "prob") is None


def test_the_prompts_must_be_those_of_the_records() -> None:
    values, prompts = ioi(ABBA)
    with pytest.raises(ValueError, match="750 prompts, but records over 100"):
        evidence(BOTH, measured(), prompts=prompts)
    assert values.n_prompts == 750


def sound(seed: int) -> tuple[Records, PromptSet]:
    """A circuit that brings 0.85 to 1.02 of every logit back, on prompts, margins and corruptions of all kinds."""
    dice = np.random.default_rng(seed)
    n, k = int(dice.integers(30, 200)), int(dice.integers(1, 12))
    margin, rest, share = dice.uniform(2, 10), dice.uniform(-3, 1), dice.uniform(0.85, 1.02)
    own, scatter = margin * dice.uniform(0.05, 0.2), margin * dice.uniform(0.01, 0.15)
    right, wrong = dice.normal(0, own, n), dice.normal(-margin, own, n)
    if dice.random() < 0.5:  # swapped, or unrelated to both answers
        corrupt = (wrong + dice.normal(0, own, n), right + dice.normal(0, own, n), rest)
    else:
        pull = margin * dice.uniform(0.07, 0.42)
        corrupt = (dice.normal(-margin, pull, n), dice.normal(-margin, pull, n), rest)

    def mixed(share: float) -> Logits:
        pairs = zip((right, wrong), corrupt[:2], strict=True)
        a, b = (zero + share * (one - zero) + dice.normal(0, scatter, n) for one, zero in pairs)
        return a, b, rest

    values = measured((right, wrong, rest), corrupt, mixed(share), mixed(0.05))
    templates = np.arange(n) % k
    names = (("Mary", "John"), ("John", "Mary"))
    prompts = (
        Prompt(i, int(t), {"clean": "{} and {}".format(*names[t % 2])}, (" Mary",), (" John",))
        for i, t in enumerate(templates)
    )
    return Records(values.values, templates), PromptSet(tuple(prompts), (), tuple(f"template {t}" for t in range(k)))


@pytest.mark.nightly
def test_sound_circuits_of_all_kinds_are_left_alone() -> None:
    plan = make_plan(
        Sufficient(metric="logit_diff", at_least=0.6, at_most=1.3), Necessary(metric="logit_diff", at_most=0.3)
    )
    warned = [bool(found(plan, *sound(seed))) for seed in range(60)]
    assert sum(warned) <= 1
