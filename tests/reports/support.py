"""The verification of an example, made by hand."""

from __future__ import annotations

import dataclasses

from circuitspec.analysis.claims.verdict import ClaimResult, judge
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.verification_result import Cost, Methodology, ModelFacts, Verification
from circuitspec.analysis.warnings.evidence import EvidenceWarning
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.experiments.planner import Plan, PlannedClaim
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.schema.claims.cross_section_block import CrossSection
from circuitspec.hypothesis_file.schema.claims.necessary_block import Necessary
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from circuitspec.prompts.prompt_set import Prompt, PromptSet
from circuitspec.reports.live_views import LiveViews
from circuitspec.reports.report_formats import FORMATS
from circuitspec.reports.reported import Reported
from circuitspec.reports.views import Style
from tests.analysis.support import CIRCUIT, CLEAN, CORRUPT, KNOCKED_OUT, around, make_plan, make_records

MODEL = ModelFacts("zoo:ioi-tiny", None, "float32", "GPT-2", 4, 4)
METHODOLOGY = Methodology("node", ("heads",), ("MLPs",), "mean_per_template", "abc", "declared")

SUFFICIENT = ClaimResult(
    index=0,
    kind="sufficient",
    metric="logit_diff",
    status="SUPPORTED",
    estimate=Estimate(0.88, 0.84, 0.91, 0.95, 100, "bca"),
    at_least=0.8,
    at_most=1.2,
    n=100,
    reason="",
    experiment="ablating everything outside the circuit",
)
NECESSARY = dataclasses.replace(
    SUFFICIENT,
    index=1,
    kind="necessary",
    status="REFUTED",
    estimate=Estimate(0.52, 0.47, 0.58, 0.95, 100, "bca"),
    at_least=None,
    at_most=0.3,
    experiment="ablating the circuit",
)
WARNING = EvidenceWarning(
    "CS401",
    "negative components are left out: a3.h1 (-0.14), a2.h0 (-0.06)",
    "recovered logit_diff 0.88 as declared, 0.69 with all of them restored",
    "add them to a group with `effect: negative`, or explain why they are not part of the circuit",
    {"screened": 14},
    ("circuit", "groups"),
)

MEANS = {
    CLEAN: {"logit_diff": 4.31, "kl": 0.0, "accuracy": 1.0},
    CORRUPT: {"logit_diff": -0.02, "kl": 5.12, "accuracy": 0.48},
    CIRCUIT: {"logit_diff": 3.79, "kl": 0.21, "accuracy": 0.97},
    KNOCKED_OUT: {"logit_diff": 2.23, "kl": 3.3, "accuracy": 0.6},
}

SPREAD = {"logit_diff": 0.4, "kl": 0.0, "accuracy": 0.0}


def example() -> Verification:
    values = {run: {m: around(mean, 100, SPREAD[m]) for m, mean in by.items()} for run, by in MEANS.items()}
    plan = make_plan(
        Sufficient(metric="logit_diff", at_least=0.8, at_most=1.2), Necessary(metric="logit_diff", at_most=0.3)
    )
    return Verification(
        name="ioi-tiny",
        digest="sha256:12ab",
        model=MODEL,
        methodology=METHODOLOGY,
        plan=plan,
        records=make_records(values, [0, 1] * 50),
        claims=(SUFFICIENT, NECESSARY),
        warnings=(WARNING,),
        cost=Cost(14, 31, 2.94),
    )


def shown(name: str, reported: Reported, *, color: bool = False, list_prompts: bool = False) -> str:
    """The report in a format, as `verify` gives it."""
    return FORMATS[name](LiveViews(reported, list_prompts=list_prompts), Style(color, list_prompts))


def restoring() -> Verification:
    """A verification of one claim, that restoring two heads in the corrupt run brings the behaviour back."""
    base = example()
    run = Experiment(
        "abc", Source("resample", "clean"), frozenset(Site(Head(0, h), Where.everywhere()) for h in range(2))
    )
    claim = CrossSection(metric="logit_diff", nodes=("mover", "a0.h1"), at_least=0.5)
    plan = Plan({CLEAN: "clean", CORRUPT: "corrupt", run: "mover, a0.h1 restored"}, CLEAN, CORRUPT, CIRCUIT, ())
    plan = dataclasses.replace(plan, claims=(PlannedClaim(0, claim, run, CLEAN, CORRUPT),))
    values = {CLEAN: {"logit_diff": around(4.0)}, CORRUPT: {"logit_diff": around(0.0)}}
    records = make_records({**values, run: {"logit_diff": around(3.0)}})
    return dataclasses.replace(base, plan=plan, records=records, claims=judge(plan, records), warnings=())


def prompt_set(n: int) -> PromptSet:
    prompts = tuple(
        Prompt(i, i % 2, {"clean": f"clean {i}", "abc": f"corrupt {i}"}, (" Mary",), (" John",)) for i in range(n)
    )
    return PromptSet(prompts, ("abc",), ("{A} and {B}", "{B} and {A}"))
