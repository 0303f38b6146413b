"""Scrubbed toys part by part: arithmetic says what each part costs, and what could be carried less."""

from __future__ import annotations

import pytest

from circuitspec.analysis.claims.abstraction.scrub_costs import ScrubCosts
from circuitspec.analysis.verification_result import Verification
from circuitspec.experiments.follow_ups import scrub_parts
from circuitspec.hypothesis_file.load_file import load_hypothesis, parse_hypothesis
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.reports.figures.svg_safety import unsafe_part
from circuitspec.reports.html.html_view import page_of
from circuitspec.reports.machine.json_document import to_document
from circuitspec.reports.reported import Reported
from circuitspec.reports.text.data_frames import experiments_frame
from circuitspec.reports.text.text_report import render_text
from circuitspec.runtime.progress import Silent
from tests.zoo.test_scrubbed_hypotheses import NAIVE
from tests.zoo.toy_cases import HYPOTHESES

CLOSE = 1e-4


USUAL = VerifyOptions()


def verified(name: str, *changes: tuple[str, str], options: VerifyOptions = USUAL) -> Verification:
    text = (HYPOTHESES / f"{name}.circuit.yaml").read_text("utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    document = parse_hypothesis(text, str(HYPOTHESES / "changed.circuit.yaml"))
    return verify(document, options, Silent()).verification


def figures(found: ScrubCosts) -> dict[str, tuple[float | None, float | None]]:
    """Recovered with each part alone, and without it."""
    return {
        one.part.described: tuple(None if e is None else e.value for e in (one.alone, one.without))  # type: ignore[misc]
        for one in found.parts
    }


# The neuron of m1 fires if both words are there; its logit difference is then 4, else -4, as on random prompts. What
# reads Peace from a random prompt breaks all, by itself and whatever else is left as it is.
WRONG = (
    ("    input@second -> prize: [second]", "    input@second -> prize: nothing"),
    ("    prize: [first, second]", "    prize: everything"),
)


@pytest.fixture(scope="module")
def wrong() -> Verification:
    return verified("nobel-scrubbed", *WRONG, ("prompts: 24", "prompts: 12"))


def test_a_value_that_carries_too_little_costs_all(wrong: Verification) -> None:
    found = wrong
    assert found.verdict == "REFUTED"
    (costs,) = found.scrubs
    assert costs.together.value == pytest.approx(0, abs=CLOSE)
    entry = "input@second -> prize: nothing"
    told = figures(costs)
    assert told.pop(entry) == pytest.approx((0, 1), abs=CLOSE)
    assert len(told) == 5  # two entries, and what three read beside them
    for alone, without in told.values():
        assert (alone, without) == pytest.approx((1, 0), abs=CLOSE)
    assert costs.costliest is not None
    assert costs.costliest.part.described == entry
    assert (
        f"scrubbing the entry {entry} costs most: with all others scrubbed and this not, 1.00 is recovered, 1.00 more"
        in render_text(found)
    )


def test_the_tree_and_its_costs_are_in_every_report(wrong: Verification) -> None:
    source = load_hypothesis(HYPOTHESES / "nobel-scrubbed.circuit.yaml").source
    found = wrong
    page = page_of(Reported(found, source))
    (chart,) = (one for one in page.charts if "what each value carries" in one.picture.title)
    assert chart.picture.alt == "Tree of 7 branches below logits. The costliest is input@second, carries nothing: 1.00."
    assert unsafe_part(chart.picture.drawn) == ""
    (told,) = to_document(found)["scrubs"]  # type: ignore[misc, union-attr]
    assert [one["entry"] for one in told["parts"] if one["carries"] == []] == ["input@second -> prize"]  # type: ignore
    frame = experiments_frame(found.plan, found.records).set_index("experiment")
    alone = frame.loc["scrubbed alone, input@second -> prize: nothing"]
    assert alone["recovered_logit_diff"] == pytest.approx(0, abs=CLOSE)  # between the clean and the random runs
    cells = [line.strip().split("   ")[0] for line in render_text(found).splitlines()]
    assert cells[cells.index("logits") :][:8] == [
        "logits",
        "all else",
        "m1@second (prize)",
        "all else",
        "input@second (input@second -> prize)",
        "a0.h0@second (previous_token)",
        "all else",
        "<v> input@first (input@first -> previous_token)",
    ]


@pytest.mark.nightly
def test_of_what_is_supported_only_the_parts_alone_are_run() -> None:
    found = verified("nobel-scrubbed")
    assert found.verdict == "SUPPORTED"
    (costs,) = found.scrubs
    assert costs.narrowed == ()
    for alone, without in figures(costs).values():
        assert alone == pytest.approx(1, abs=CLOSE)
        assert without is None
    assert verified("nobel-scrubbed", options=VerifyOptions(negatives="off")).scrubs == ()


@pytest.mark.nightly
def test_what_is_too_much_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub_parts, "MOST", 3)
    found = verified("nobel-scrubbed", ("prompts: 24", "prompts: 12"))
    (costs,) = found.scrubs
    assert (len(costs.parts), costs.left_out) == (3, 4)  # four values, and what three things read beside
    assert "4 runs of its parts left out" in render_text(found)


def test_entries_that_could_carry_less() -> None:
    """The names of those who win change nothing; Nobel and Peace do, and the neuron carries both of what it reads."""
    changes = (
        ("    previous_token: [first]", "    previous_token: [first, name]"),
        ("input@first -> previous_token: [first]", "input@first -> previous_token: everything"),
        ("    input@second -> prize: [second]", "    input@second -> prize: everything"),
    )
    (costs,) = verified("nobel-scrubbed", *changes, options=VerifyOptions(negatives="exact")).scrubs
    told = {(one.part.key, one.dropped): one for one in costs.narrowed}
    assert told["previous_token", "name"].lossless
    for dropped in ("first", "second"):
        less = told["prize", dropped]
        assert less.recovered is not None
        assert (less.recovered.value, less.lossless) == (pytest.approx(0, abs=CLOSE), False)


@pytest.mark.nightly
def test_what_something_reads_cannot_be_dropped_before_it() -> None:
    (costs,) = verified("nobel-scrubbed", options=VerifyOptions(negatives="exact")).scrubs
    told = {(one.part.key, one.dropped): one for one in costs.narrowed}
    first = told["previous_token", "first"]
    assert first.recovered is None
    assert "prize" in first.why or "m1" in first.why


@pytest.mark.nightly
def test_the_naive_induction_lacks_a_path() -> None:
    """Each is the clean run's 64/7 for B and 8/7 for A's -3, and 5 of 8 of B are what the induction head reads else."""
    found = verify(load_hypothesis(HYPOTHESES / f"{NAIVE}.circuit.yaml"), VerifyOptions(), Silent()).verification
    (costs,) = found.scrubs
    told = {one.part.described: one for one in costs.parts}
    head, rest = told["all else that induction reads"], told["all else that logits reads"]
    for estimate, expected in ((head.alone, 4 / 9), (head.without, 8 / 9), (rest.alone, 8 / 9), (rest.without, 4 / 9)):
        assert estimate is not None
        assert estimate.interval is not None
        assert estimate.interval[0] <= expected <= estimate.interval[1]
    assert costs.costliest == head
    assert "look for paths into induction" in render_text(found)


@pytest.mark.nightly
def test_the_induction_head_need_carry_one_word() -> None:
    said = ("    induction: [B]", "    induction: [A, B, C, D]"), ("draws: 8", "draws: 1")
    (costs,) = verified("induction-scrubbed", *said, options=VerifyOptions(negatives="exact")).scrubs
    told = {one.dropped: one.lossless for one in costs.narrowed if one.part.key == "induction"}
    assert told == {"A": True, "B": False, "C": True, "D": True}
