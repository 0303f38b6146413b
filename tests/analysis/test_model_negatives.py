"""Negative components whose inputs the circuit leaves out: idle on top of it, at work in the whole model (CS437)."""

from __future__ import annotations

from pathlib import Path

import pytest

import circuitspec
from circuitspec.analysis.circuit_effects.model_negatives import CALLED_NEGATIVE, model_negatives
from circuitspec.experiments.experiment import Source
from circuitspec.experiments.levels.node_level import ablating
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.models.zoo.toys.blueprint import ONE, HardHead, Match, Toy
from circuitspec.models.zoo.toys.boxes import IS, LOGITS, SAY, TOKENS, a_thing, saying
from circuitspec.models.zoo.toys.weights import build
from tests.analysis.support import CLEAN, CORRUPT, around, make_plan, make_records

ROOT = Path(__file__).parents[2]
FILE = ROOT / "hypotheses" / "toys" / "negative-left-out.circuit.yaml"

# a0.h1 adds 6 to the thing's logit; a0.h3 carries the thing to the end, where a1.h2 takes 2 off its logit
FED = Toy(
    name="fed",
    description="a1.h2 works against a0.h1, and reads what a0.h3 brings",
    features=(*IS, *SAY, "end"),
    tokens={**TOKENS, " the": {"end": 1.0}},
    positions={},
    heads=(
        HardHead(0, 1, (a_thing({ONE: 1}),), saying(6)),
        HardHead(0, 3, (a_thing({ONE: 1}),), {is_: {is_: 1.0} for is_ in IS}),
        HardHead(1, 2, (Match({ONE: 1}, {"end": 1}),), saying(-2)),
    ),
    neurons=(),
    logits=LOGITS,
)


def verified(folder: Path, circuit: str) -> circuitspec.Result:
    text = FILE.read_text("utf-8")
    head, rest = text.partition("circuit:\n")[0], text.partition("\nablation:")[2]
    file = folder / "fed.circuit.yaml"
    file.write_text(f"{head}circuit: {circuit}\n\nablation:{rest}", "utf-8")
    model, tokenizer = build(FED)
    return circuitspec.verify(file, model.float(), tokenizer)


def test_a_negative_head_that_the_circuit_does_not_feed(tmp_path: Path) -> None:
    """Clean 6 - 2 = 4 and corrupt -4; with a1.h2, or what feeds it, ablated 6 + 2: half the difference more."""
    result = verified(tmp_path, "{groups: {naming: {nodes: [a0.h1], at: END}}}")
    (claim,) = result.claims
    assert claim.estimate is not None
    assert claim.estimate.value == pytest.approx((8 + 4) / 8, abs=1e-4)
    found = {warning.code: warning for warning in result.warnings}
    assert "CS401" not in found  # on top of the circuit neither does anything without the other
    warning = found["CS437"]
    components = {one["component"]: one["share"] for one in warning.data["components"]}  # type: ignore[attr-defined]
    assert components == pytest.approx({"a0.h3": 0.5, "a1.h2": 0.5}, abs=1e-4)
    assert "a0.h3 (+0.50), a1.h2 (+0.50)" in warning.message


def test_what_is_named_on_top_of_the_circuit_is_not_named_again(tmp_path: Path) -> None:
    """With a0.h3 in the circuit, a1.h2 works against it there too."""
    result = verified(tmp_path, "{groups: {naming: {nodes: [a0.h1, a0.h3], at: END}}}")
    found = {warning.code: warning for warning in result.warnings}
    assert "a1.h2 (-0.50" in found["CS401"].message
    assert "CS437" not in found


MEANS = Source("mean_per_template", "abc")
PLACES = {Head(2, head): Where.everywhere() for head in range(4)}


class Recorded:
    """Runs of the model without one head each, with these shares of clean - corrupt (4) above clean."""

    def __init__(self, *shares: float) -> None:
        heads = zip(PLACES, shares, strict=True)
        self.runs = {ablating(MEANS, {head: PLACES[head]}): around(4.0 + 4 * share) for head, share in heads}

    def run(self, experiments: object) -> object:
        wanted = {run: {"logit_diff": self.runs[run]} for run in experiments}  # type: ignore[attr-defined]
        return make_records({CLEAN: {"logit_diff": around(4.0)}, **wanted})


def test_the_floor_is_a_tenth() -> None:
    records = make_records({CLEAN: {"logit_diff": around(4.0)}, CORRUPT: {"logit_diff": around(0.0)}})
    runner = Recorded(0.3, CALLED_NEGATIVE + 0.002, CALLED_NEGATIVE - 0.002, -0.2)
    found, _, _ = model_negatives(make_plan(), records, "logit_diff", MEANS, PLACES, None, runner)  # type: ignore[arg-type]
    assert found is not None
    assert [(one.component, round(one.share, 6)) for one in found.components] == [("a2.h0", 0.3), ("a2.h1", 0.102)]
    assert (found.screened, found.tested) == (4, 4)
