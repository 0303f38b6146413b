from __future__ import annotations

import dataclasses

import click
import numpy as np

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.verification_result import Cost, Methodology, Verification
from circuitspec.engine.records import Records, SelfTest
from circuitspec.experiments.experiment import Experiment, Site
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.reports.reported import choices_of
from circuitspec.reports.text.text_report import render_text
from tests.analysis.support import CIRCUIT, CLEAN, CORRUPT, make_plan
from tests.reports.support import METHODOLOGY, NECESSARY, SUFFICIENT, example, restoring

EXPECTED = """\
ioi-tiny   zoo:ioi-tiny (GPT-2, 4 layers x 4 heads)   100 prompts
ablating everything outside the circuit: node level, mean_per_template from abc, declared positions, MLPs free

               clean   corrupt   circuit   recovered [95% CI]
  logit_diff    4.31     -0.02      3.79   0.88 [0.84, 0.91]
  accuracy      1.00      0.48      0.97   0.94
  kl (nats)     0.00      5.12      0.21   0.96

ablating the circuit: node level, mean_per_template from abc, declared positions, MLPs free

               clean   corrupt   circuit ablated   recovered [95% CI]
  logit_diff    4.31     -0.02              2.23   0.52 [0.47, 0.58]
  accuracy      1.00      0.48              0.60   0.23
  kl (nats)     0.00      5.12              3.30   0.36

SUPPORTED  sufficient   recovered logit_diff 0.88 [0.84, 0.91], bound 0.8 .. 1.2
REFUTED    necessary    recovered logit_diff 0.52 [0.47, 0.58], bound at most 0.3

warning[CS401]: negative components are left out: a3.h1 (-0.14), a2.h0 (-0.06)
   recovered logit_diff 0.88 as declared, 0.69 with all of them restored
   help: add them to a group with `effect: negative`, or explain why they are not part of the circuit

1 supported, 1 refuted, 1 warning   (14 experiments, 31 forwards, 2.9 s)
"""
# accuracy: (0.97 - 0.48) / 0.52 and (0.60 - 0.48) / 0.52; kl: 1 - 0.21 / 5.12 and 1 - 3.30 / 5.12


def test_what_a_file_says_moves_no_cursor() -> None:
    """Nor does a saved result, which may be a stranger's."""
    text = render_text(dataclasses.replace(example(), name="x\x1b[2J\u202ey"))
    assert text.startswith("x<U+001B>[2J<U+202E>y   zoo:ioi-tiny")
    assert text.isascii()


def test_the_whole_report() -> None:
    assert render_text(example()) == EXPECTED


def test_a_denoising_claim_names_its_base_and_its_values() -> None:
    text = render_text(restoring())
    assert "\ndenoising mover, a0.h1: node level, clean values into abc, declared positions\n" in text
    assert "\n               clean   corrupt   mover, a0.h1 restored   recovered [95% CI]\n" in text
    assert "\nSUPPORTED  cross_section   mover, a0.h1 restored: recovered logit_diff 0.75 [" in text


def test_positions_that_a_claim_itself_names_are_not_said_to_be_all() -> None:
    found = restoring()
    for positions, where, expected in (
        ("all", Where.everywhere(), "all positions"),
        ("all", Where.at("S2"), "all positions but where written"),
        ("declared", Where.at("S2"), "declared positions"),
    ):
        (planned,) = found.plan.claims
        run = Experiment("abc", planned.patched.source, frozenset(Site(Head(0, h), where) for h in range(2)))
        own = dataclasses.replace(
            found,
            plan=dataclasses.replace(found.plan, claims=(dataclasses.replace(planned, patched=run),)),
            methodology=dataclasses.replace(METHODOLOGY, positions=positions),
        )
        assert choices_of(own, own.plan.claims[0]) == f"node level, clean values into abc, {expected}"


def test_half_precision_states_how_far_its_self_tests_deviate() -> None:
    found = dataclasses.replace(example(), self_test=SelfTest(0.0, 2e-3))
    assert render_text(found) == EXPECTED
    for dtype in ("bfloat16", "float16"):
        half = dataclasses.replace(found, model=dataclasses.replace(found.model, dtype=dtype))
        assert (
            f"\n{dtype}: in the self-tests, patching own values moved the logits by 0 of their standard deviation, "
            "patching everything by 0.002\n"
        ) in render_text(half)


def test_colour_changes_nothing_but_colour() -> None:
    coloured = render_text(example(), color=True)
    assert click.unstyle(coloured) == EXPECTED
    assert click.style("REFUTED  ", fg="red") in coloured


def only(found: Verification, **changes: object) -> Verification:
    """The example with its first claim alone."""
    planned = dataclasses.replace(found.plan, claims=found.plan.claims[:1])
    claim = dataclasses.replace(SUFFICIENT, **changes)
    return dataclasses.replace(found, plan=planned, claims=(claim,), warnings=(), cost=Cost(1, 1, 0.04))


def test_without_a_ratio_no_number_is_printed() -> None:
    found = only(example(), status="INCONCLUSIVE", estimate=None, reason="no ratio: the runs do not differ (see CS403)")
    text = render_text(found)
    assert "  logit_diff    4.31     -0.02      3.79   -\n" in text
    assert (
        "\nINCONCLUSIVE  sufficient   recovered logit_diff undefined, bound 0.8 .. 1.2; "
        "no ratio: the runs do not differ (see CS403)\n"
    ) in text
    assert text.endswith("\n\n1 inconclusive   (1 experiment, 1 forward, 0.0 s)\n")
    assert "recovered\n" in text  # no interval, no level


def test_an_interval_across_the_bound_is_written_with_the_digits_that_show_it() -> None:
    estimate = Estimate(0.84, 0.797, 0.88, 0.9, 100, "percentile")
    text = render_text(only(example(), status="INCONCLUSIVE", estimate=estimate, reason="why"))
    assert "recovered [90% CI]" in text
    assert "recovered logit_diff 0.840 [0.797, 0.880] (percentile interval), bound 0.8 .. 1.2; why\n" in text


def test_metrics_that_are_missing_or_not_finite() -> None:
    found = only(example())
    values = {run: dict(by) for run, by in found.records.values.items()}
    del values[CORRUPT]["kl"]
    values[CIRCUIT]["accuracy"] = np.full(100, np.nan)
    values[CLEAN]["projection"] = np.zeros(100)  # a metric of somebody else's, in one run alone
    text = render_text(dataclasses.replace(found, records=Records(values, found.records.templates)))
    assert "  accuracy      1.00      0.48         -   -\n" in text
    assert "  kl (nats)     0.00         -      0.21   -\n" in text
    assert "  projection    0.00         -         -   -\n" in text


def test_the_claimed_metric_comes_first() -> None:
    found = only(example(), metric="kl")
    lines = render_text(found).splitlines()
    assert [line.split()[0] for line in lines[4:7]] == ["kl", "logit_diff", "accuracy"]


def test_claims_on_one_run_share_a_table() -> None:
    found = example()
    second = dataclasses.replace(SUFFICIENT, index=1, metric="accuracy", status="INCONCLUSIVE", reason="why")
    plan = dataclasses.replace(
        found.plan, claims=(found.plan.claims[0], dataclasses.replace(found.plan.claims[0], index=1))
    )
    text = render_text(dataclasses.replace(found, plan=plan, claims=(SUFFICIENT, second)))
    assert text.count("ablating everything outside the circuit") == 1
    assert "  accuracy      1.00      0.48      0.97   0.88 [0.84, 0.91]\n" in text
    assert "\nSUPPORTED     sufficient   recovered logit_diff" in text


def test_without_claims_the_circuit_is_shown() -> None:
    found = dataclasses.replace(example(), plan=make_plan(), claims=(), warnings=())
    text = render_text(found)
    assert METHODOLOGY.describe() in text
    assert "  logit_diff    4.31     -0.02      3.79   0.88\n" in text
    assert text.endswith("no claims   (14 experiments, 31 forwards, 2.9 s)\n")


def test_artifacts_are_named() -> None:
    text = render_text(dataclasses.replace(example(), artifacts=("out/a.parquet", "out/a.csv")))
    assert "\n\nwritten: out/a.parquet, out/a.csv\n\n1 supported" in text


def test_methodology_in_words() -> None:
    zero = Methodology("node", ("heads", "MLPs"), (), "zero", None, "all")
    assert zero.describe() == (
        "ablating everything outside the circuit: node level, zero, all positions, heads and MLPs ablated"
    )
    denoising = dataclasses.replace(METHODOLOGY, direction="denoising", set="name_mover", free=("MLPs", "a0.h1"))
    assert denoising.describe() == (
        "denoising name_mover: node level, mean_per_template from abc, declared positions, MLPs and a0.h1 free"
    )


def test_the_verdict_of_the_whole() -> None:
    found = example()
    assert (found.verdict, found.exit_code, found.n_prompts) == ("REFUTED", 1, 100)
    assert dataclasses.replace(found, claims=(SUFFICIENT,)).exit_code == 0
    inconclusive = dataclasses.replace(NECESSARY, status="INCONCLUSIVE")
    assert dataclasses.replace(found, claims=(SUFFICIENT, inconclusive)).exit_code == 4
