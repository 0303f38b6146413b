"""`verify --sequential`: prompts are drawn until claims are decided."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import circuitspec
from circuitspec.analysis.claims.sequences.prompts_needed import needed_of_share
from circuitspec.analysis.statistics.confidence_sequences import BETS
from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.pipelines.sequential import Sequential, looks_at
from circuitspec.pipelines.verify import Outcome, VerifyOptions, verify
from circuitspec.reports.live_views import LiveViews
from circuitspec.reports.reported import Reported
from circuitspec.reports.text.text_report import render_text
from circuitspec.runtime.progress import Silent

HYPOTHESES = Path(__file__).parent.parent / "hypotheses"
TINY = (HYPOTHESES / "ioi-tiny.circuit.yaml").read_text()
RESAMPLED = TINY.replace("value: mean_per_template", "value: resample")
CLOSE = RESAMPLED.replace("{metric: logit_diff, at_least: 0.8, at_most: 1.2}", "{metric: logit_diff, at_least: 0.9}")
ROWS = [
    {"clean": f"When {a} and {b} met at the {c}, {b} handed a ring to", "corrupt": f"When {d} and {e} met at the {c}, "
     f"{f} handed a ring to", "answers": [f" {a}"], "wrong": [f" {b}"], "positions": {"S1": 3, "S2": 9}}
    for c in ("store", "park")
    for a, b, d, e, f in (
        ("Mary", "John", "Paul", "Anna", "Emma"), ("John", "Mary", "Emma", "Paul", "Anna"),
        ("Paul", "Anna", "Mary", "John", "David"), ("Anna", "Paul", "David", "Emma", "Mary"),
        ("Peter", "Laura", "David", "Mary", "John"), ("Laura", "Peter", "John", "David", "Paul"),
        ("David", "Emma", "Peter", "Laura", "Anna"), ("Emma", "David", "Laura", "Peter", "John"),
        ("Mary", "Emma", "Paul", "Anna", "Peter"), ("John", "Laura", "Emma", "Paul", "Anna"),
        ("Paul", "David", "Mary", "John", "Emma"), ("Anna", "Peter", "David", "Emma", "Mary"),
    )
]  # fmt: skip
FROM_FILE = """
circuitspec: 1
name: from-file
model: {id: "zoo:ioi-tiny"}
task: {file: prompts.jsonl}
circuit:
  groups: {inhibition: {nodes: [a2.h2]}, last_layer: {nodes: [a3]}}
  free: [m*]
ablation: {value: VALUE, from: corrupt, positions: all}
claims:
  - CLAIM
"""


class StoppedAt(Silent):
    """Interrupts the run at the stage whose name ends so."""

    def __init__(self, ending: str) -> None:
        self._ending = ending

    def stage(self, text: str) -> None:
        if text.endswith(self._ending):
            raise KeyboardInterrupt


def run(
    text: str,
    most: int | None = None,
    folder: Path = HYPOTHESES,
    *,
    store: Path | None = None,
    progress: Silent | None = None,
) -> Outcome:
    document = parse_hypothesis(text, "sequential.circuit.yaml", folder)
    options = VerifyOptions("off", store=store, sequential=Sequential(most))
    return verify(document, options, progress or Silent())


def test_looks_are_at_whole_rounds_of_the_templates_and_at_the_limit() -> None:
    assert looks_at(1, 70) == [20, 30, 40, 50, 60, 70]
    assert looks_at(8, 100) == [24, 40, 56, 72, 88, 100]
    assert looks_at(30, 100) == [30, 60, 90, 100]
    assert looks_at(1, 20) == [20]


@pytest.fixture(scope="module")
def tiny() -> Outcome:
    return run(TINY)


def test_claims_far_from_their_bounds_take_few_prompts(tiny: Outcome) -> None:
    found = tiny.verification
    assert found.sequence is not None
    assert found.sequence.stopped == "decided"
    assert found.sequence.used * 3 <= found.sequence.asked == 100
    assert [claim.status for claim in found.claims] == ["SUPPORTED", "SUPPORTED"]
    assert {claim.estimate.method for claim in found.claims if claim.estimate} == {"asymptotic"}
    assert found.n_prompts == found.sequence.used == tiny.task.n


def test_the_interval_is_wider_than_one_of_a_fixed_number(tiny: Outcome) -> None:
    found = tiny.verification
    assert found.sequence is not None
    for claim, one in zip(found.claims, found.sequence.claims, strict=True):
        assert claim.estimate is not None
        assert one.fixed.estimate is not None
        (low, high), (below, above) = claim.estimate.interval or (0, 0), one.fixed.estimate.interval or (0, 0)
        assert low < below
        assert above < high
        assert claim.estimate.value == pytest.approx(one.fixed.estimate.value)
        assert one.asked is None


def test_reports_say_how_many_prompts_were_used_and_what_does_not_hold(tiny: Outcome) -> None:
    text = render_text(tiny.verification)
    assert "prompts drawn until decided: 20 of at most 400 (the file asks for 100)" in text
    assert "do not hold for who looked before" in text
    document = parse_hypothesis(TINY, "sequential.circuit.yaml", HYPOTHESES)
    views = LiveViews(Reported(tiny.verification, document.source, task=tiny.task))
    said = json.loads(json.dumps(views.document))["sequence"]
    assert (said["used"], said["limit"], said["stopped"]) == (20, 400, "decided")
    assert not any(claim["if_fixed"]["valid_under_peeking"] for claim in said["claims"])
    assert any("until decided" in table.caption for table in views.page.tables)


def test_an_interrupted_drawing_gives_the_verdict_so_far_and_is_gone_on_with(tmp_path: Path) -> None:
    whole = run(CLOSE, 60).verification
    stopped = run(CLOSE, 60, store=tmp_path, progress=StoppedAt("first 32")).verification
    assert stopped.sequence is not None
    assert whole.sequence is not None
    assert (stopped.sequence.used, whole.sequence.used > 20) == (20, True)
    assert [warning.code for warning in stopped.warnings if warning.code == "CS481"] == ["CS481"]
    assert stopped.claims[0].estimate is not None
    assert stopped.claims[0].estimate.interval is not None
    again = run(CLOSE, 60, store=tmp_path).verification
    assert again.sequence == whole.sequence
    assert again.claims == whole.claims
    assert again.cost.n_forwards < whole.cost.n_forwards
    with pytest.raises(KeyboardInterrupt):  # nothing was looked at
        run(CLOSE, 60, progress=StoppedAt("first 20"))


@pytest.mark.nightly
def test_what_a_limit_leaves_undecided_is_said() -> None:
    bound = "{metric: logit_diff, at_least: VALUE, at_most: 9}"
    text = RESAMPLED.replace("{metric: logit_diff, at_least: 0.8, at_most: 1.2}", bound)
    value = run(text.replace("VALUE", "0.1"), 20).verification.claims[0].value
    found = run(text.replace("VALUE", f"{value:.3f}"), 40).verification  # on the bound
    assert found.sequence is not None
    assert (found.sequence.used, found.sequence.stopped) == (40, "limit")
    assert found.claims[0].status == "INCONCLUSIVE"
    assert "CS482" in [warning.code for warning in found.warnings]


def test_claims_without_a_sequence_are_marked() -> None:
    found = run(
        (HYPOTHESES / "toys" / "and-features.circuit.yaml").read_text(), folder=HYPOTHESES / "toys"
    ).verification
    assert found.sequence is not None
    (warning,) = [warning for warning in found.warnings if warning.code == "CS480"]
    assert warning.data["claims"] == [i for i, claim in enumerate(found.claims) if claim.kind == "minimal"]
    assert "no sequence: judged as if fixed" in render_text(found)


def from_file(folder: Path, value: str, claim: str, rows: int = len(ROWS)) -> str:
    lines = [json.dumps(row) for row in ROWS[:rows]]
    (folder / "prompts.jsonl").write_text("\n".join(lines))
    return FROM_FILE.replace("VALUE", value).replace("CLAIM", claim)


def test_rows_of_a_file_are_read_in_an_order_that_says_nothing(tmp_path: Path) -> None:
    text = from_file(tmp_path, "resample", "sufficient: {metric: accuracy, at_least: 0.99}")
    found = run(text, folder=tmp_path)
    order = [prompt.texts["clean"] for prompt in found.task.prompts.prompts]
    assert found.verification.sequence is not None
    assert found.verification.sequence.limit == len(ROWS)
    assert {*order} <= {row["clean"] for row in ROWS}
    assert order != [row["clean"] for row in ROWS][: len(order)]
    estimate = found.verification.claims[0].estimate
    assert estimate is not None
    assert estimate.method == "betting"
    runs = [found.verification.records[run]["accuracy"] for run in found.verification.plan.claims[0].runs]
    clean, corrupt, patched = (float(np.mean(values)) for values in runs[:3])
    assert estimate.value == pytest.approx((patched - corrupt) / (clean - corrupt))


@pytest.mark.parametrize(
    ("value", "claim", "rows", "code", "said"),
    [
        ("resample", "sufficient: {metric: logit_diff, at_least: 0.5}", 10, "CS586", "10 prompts are too few"),
        ("resample", "minimal: {metric: logit_diff, at_least: 0.1}", 24, "CS586", "no claim has a confidence sequence"),
        (
            "mean_per_template",
            "sufficient: {metric: logit_diff, at_least: 0.5}",
            24,
            "CS587",
            "over the scored prompts",
        ),
    ],
)
def test_what_has_no_sequence_is_refused(
    tmp_path: Path, value: str, claim: str, rows: int, code: str, said: str
) -> None:
    with pytest.raises(CircuitspecError, match=said) as caught:
        run(from_file(tmp_path, value, claim, rows), folder=tmp_path)
    assert [finding.code for finding in caught.value.diagnostics] == [code]


@pytest.mark.nightly
@pytest.mark.parametrize("file", ["toys/nobel-scrubbed", "toys/and-variables", "toys/mediation", "toys/nobel-edges"])
def test_every_kind_of_claim_is_decided_as_by_a_fixed_number(file: str) -> None:
    path = HYPOTHESES / f"{file}.circuit.yaml"
    found = run(path.read_text(), folder=path.parent).verification
    assert found.sequence is not None
    assert found.sequence.stopped == "decided"
    assert found.verdict == "SUPPORTED"


def test_plan_says_how_many_prompts_it_takes(tmp_path: Path) -> None:
    file, store = HYPOTHESES / "toys" / "and.circuit.yaml", ["--store", str(tmp_path)]
    assumed = CliRunner().invoke(main, ["plan", str(file), "--alternatives", *store]).output
    (line,) = [line for line in assumed.splitlines() if "1: sufficient" in line]
    count, fixed = int(line.split()[2].rstrip(";")), int(line.split()[3])
    assert "assumed, as nothing is known of this file: figures 0.1 from their bounds, that spread by 0.5" in assumed
    assert fixed == math.ceil((1.959964 * 0.5 / 0.1) ** 2)
    rho2 = (2 * math.log(20) + math.log(2 * math.log(20)) + 1) / (24 / 4)
    halves = [
        0.5 * math.sqrt(2 * (t * rho2 + 1) / (t**2 * rho2) * math.log(math.sqrt(t * rho2 + 1) / 0.05))
        for t in (count - 1, count)
    ]
    assert halves[0] > 0.1 >= halves[1]
    assert "up to 400 for each supported claim of sufficiency (1 here) to look for other circuits" in assumed
    assert CliRunner().invoke(main, ["verify", str(file), *store]).exit_code == 0
    known = CliRunner().invoke(main, ["plan", str(file), *store]).output
    assert "prompts with --sequential, about (from the figures of the last `verify`)" in known
    assert "figure 1.00, 0.01 from its bound, spread 0.00" in known


def test_shares_that_all_hit_take_as_many_as_bets_say() -> None:
    """After n hits in a row the lower end is where the mean over bets of (1 - f + f / m)^n is 40."""
    n = needed_of_share(1.0, 0.9, None)
    assert n is not None
    worth = [float(np.mean((1 - BETS + BETS / 0.9) ** k)) for k in (n - 1, n)]
    assert worth[0] < 40 <= worth[1]


@pytest.mark.nightly
def test_the_command_takes_a_limit_and_refuses_what_does_not_go_together() -> None:
    file = str(HYPOTHESES / "toys" / "and.circuit.yaml")
    found = CliRunner().invoke(main, ["verify", file, "--sequential", "--at-most", "24", "--no-store"])
    assert found.exit_code == 0
    assert "20 of at most 24 (the file asks for 24)" in found.output
    for wrong in (["--at-most", "24"], ["--sequential", "--locked"]):
        assert CliRunner().invoke(main, ["verify", file, *wrong]).exit_code == 2


@pytest.mark.nightly
def test_from_python() -> None:
    file = HYPOTHESES / "toys" / "and.circuit.yaml"
    found = circuitspec.verify(file, negatives="off", sequential=30)
    assert found.sequence is not None
    assert (found.sequence.used, found.sequence.limit) == (20, 30)
    assert found.document.hypothesis.task.prompts == 24
