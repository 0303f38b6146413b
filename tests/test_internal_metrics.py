"""Claims about what a toy does inside, from the file to the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.shapes import read_shape
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.reports.reported import Reported
from tests.engine.support import model as random_model
from tests.models.conftest import save_tokenizer
from tests.reports.support import shown
from tests.test_many_runs import CLOSE, Quiet, text_of

LOOKS = "attention(a0.h2, END -> thing)"


def reported(text: str, base_dir: Path | None = None, store: Path | None = None, **options: bool) -> Reported:
    document = parse_hypothesis(text, "backup.circuit.yaml", base_dir)
    outcome = verify(document, VerifyOptions(store=store, **options), Quiet())  # type: ignore[arg-type]
    return Reported(outcome.verification, document.source, task=outcome.task)


def test_what_the_main_head_looks_at(tmp_path: Path) -> None:
    """It looks at the thing and, where a secret is in the box, at all of the ten tokens alike."""
    claims = (
        "sufficient: {metric: {attention: a0.h2, from: END, to: thing}, at_least: 0.99, at_most: 1.01}",
        f"necessary: {{metric: '{LOOKS}', at_most: 0.01}}",
    )
    told = reported(text_of(*claims), store=tmp_path)
    found = told.verification
    assert found.records[found.plan.clean][LOOKS] == pytest.approx([1.0] * 24, abs=CLOSE)
    assert found.records[found.plan.corrupt][LOOKS] == pytest.approx([1 / 10] * 24, abs=CLOSE)
    sufficient, necessary = found.claims
    assert sufficient.estimate is not None
    assert necessary.estimate is not None
    assert (sufficient.status, necessary.status) == ("SUPPORTED", "REFUTED")  # where it looks is not what it writes
    assert (sufficient.estimate.value, necessary.estimate.value) == pytest.approx((1.0, 1.0), abs=CLOSE)
    text = shown("text", told)
    assert f"SUPPORTED  sufficient   recovered {LOOKS} 1.00" in text
    assert json.loads(shown("json", told))["claims"][0]["metric"] == LOOKS
    again = reported(text_of(*claims), store=tmp_path).verification
    assert again.cost.n_stored > 0
    assert again.claims[0].estimate == sufficient.estimate
    other = reported(text_of(f"necessary: {{metric: '{LOOKS.replace('h2', 'h1')}', at_most: 0.01}}"), store=tmp_path)
    assert other.verification.claims[0].metric == "attention(a0.h1, END -> thing)"  # not what is stored


def test_a_backup_looks_where_the_main_head_is_silent() -> None:
    """What such a metric is for: which part decides where a head looks. Here the main head does."""
    looks = "attention(a1.h1, END -> thing)"
    claim = f"complete: {{metric: '{looks}', at_most: 0.5}}"
    found = reported(text_of(claim), tests=True, sweep=True).verification
    (sweep, tests) = found.sweep, found.tests
    assert sweep is not None
    assert tests is not None
    assert sweep.metric == tests.metric == looks
    at_paths = [score for score in sweep.scores if score.method.level == "path"]
    assert {score.why for score in at_paths} == {f"{looks} is not measured at path level"}
    silent = next(run for run, label in found.plan.labels.items() if label == "model without naming")
    assert found.records[found.plan.clean][looks] == pytest.approx([0.0] * 24, abs=CLOSE)
    assert found.records[silent][looks] == pytest.approx([1.0] * 24, abs=CLOSE)


def test_where_a_head_looks_that_is_no_part_of_a_circuit_of_edges() -> None:
    """All its edges are ablated, so it looks where the corrupt prompt has it look, though nothing of it is kept."""
    looks = "attention(a1.h1, END -> thing)"
    text = text_of(f"sufficient: {{metric: '{looks}', at_most: 0.5}}", alone=True).replace("level: node", "level: edge")
    text = text.replace("- naming -> logits", "- input -> naming<q,k,v>\n    - naming -> logits")
    found = reported(text).verification
    clean, corrupt, circuit = (
        found.records[run][looks] for run in (found.plan.clean, found.plan.corrupt, found.plan.circuit)
    )
    assert corrupt == pytest.approx(circuit, abs=CLOSE)
    assert abs(clean - corrupt).min() > 0.05


def test_what_a_circuit_keeps_low_beats_random_circuits() -> None:
    """Clean the backup looks at the thing by 0, corrupt by 0.1, and by 1 with the main head noised, as all others do:
    the circuit of the main head recovers 1, and every other circuit -9."""
    looks = "attention(a1.h1, END -> thing)"
    claim = f"beats_random: {{metric: '{looks}', circuits: 30}}"
    found = reported(text_of(claim, alone=True), tests=True).verification
    (judged,) = found.claims
    assert judged.status == "SUPPORTED"
    assert found.tests is not None
    by_name = {test.name: test for test in found.tests.tests}
    assert by_name["sufficiency"].statistic == 1.0


def test_where_it_looks_in_random_circuits_of_edges() -> None:
    """None of them keeps an edge into that head, so it looks at all ten tokens alike, as on the corrupt prompts."""
    looks = "attention(a1.h1, END -> thing)"
    claim = f"beats_random: {{metric: '{looks}', circuits: 30}}"
    text = text_of(claim, alone=True).replace("level: node", "level: edge")
    text = text.replace("- naming -> logits", "- input -> naming<q,k,v>\n    - naming -> logits")
    found = reported(text).verification
    rivals = found.plan.claims[0].rivals
    assert rivals is not None
    for run in (found.plan.circuit, *rivals.kept):
        assert found.records[run][looks] == pytest.approx([1 / 10] * 24, abs=CLOSE)


@pytest.mark.parametrize(
    ("metric", "code", "said"),
    [
        ("attention(a9.h2, END -> thing)", "CS220", "the model has no a9.h2"),
        ("neuron(m9.n0@END)", "CS220", "m9.n0"),
        ("projection(r1@END, none.txt)", "CS432", "none.txt"),
        ("projection(r1@END, short.txt)", "CS432", "holds 2 numbers"),
    ],
)
def test_what_this_model_does_not_have(tmp_path: Path, metric: str, code: str, said: str) -> None:
    (tmp_path / "short.txt").write_text("1 2", encoding="utf-8")
    with pytest.raises(CircuitspecError) as error:
        reported(text_of(f"necessary: {{metric: '{metric}', at_most: 0.5}}"), tmp_path)
    (finding,) = error.value.diagnostics
    assert (finding.code, said in finding.message) == (code, True), finding.message


def test_a_projection_of_the_stream(tmp_path: Path) -> None:
    """Twice the direction gives twice the product, also where the other's is stored: the content of the file counts."""
    text = text_of("necessary: {metric: {projection: r1, at: END, along: first.txt}, at_most: 2}")
    width = read_shape(ModelSpec(id="zoo:backup"), tmp_path).d_model  # type: ignore[union-attr]
    sums = {}
    for name, numbers in (("one", [1.0] * width), ("two", [2.0] * width)):
        (tmp_path / "first.txt").write_text("\n".join(map(str, numbers)), encoding="utf-8")
        found = reported(text, tmp_path, store=tmp_path / "store").verification
        sums[name] = found.records[found.plan.clean]["projection(r1@END, first.txt)"]
    assert sums["two"] == pytest.approx(2 * sums["one"], rel=1e-5)


def test_what_is_stored_of_a_metric_is_of_its_tokens(tmp_path: Path) -> None:
    """The head looks at the thing alone, also where the token before it was of the same name when it was stored."""
    looks = "attention(a0.h2, END -> LOOK)"
    text = text_of(f"necessary: {{metric: '{looks}', at_most: 2}}")
    for place, weight in (("thing", 1.0), ("thing - 1", 0.0)):
        told = text.replace("positions: {END: last}", f"positions: {{END: last, LOOK: {place}}}")
        found = reported(told, store=tmp_path).verification
        assert found.records[found.plan.clean][looks] == pytest.approx([weight] * 24, abs=CLOSE), place


@pytest.mark.parametrize("of", ["r1", "m0"])
def test_projections_are_of_node_level_alone(tmp_path: Path, of: str) -> None:
    """At edge level each component reads a stream of its own, also where a sweep or a claim of paths goes there."""
    width = read_shape(ModelSpec(id="zoo:backup"), tmp_path).d_model  # type: ignore[union-attr]
    (tmp_path / "first.txt").write_text("\n".join(["1.0"] * width), encoding="utf-8")
    metric = f"projection({of}@END, first.txt)"
    found = reported(text_of(f"necessary: {{metric: '{metric}', at_most: 2}}"), tmp_path, sweep=True).verification
    assert found.sweep is not None
    whys = {score.why for score in found.sweep.scores if score.method.level == "edge"}
    assert whys == {f"{metric} is not measured at edge level"}
    by_node = [score.run.patched for score in found.sweep.scores if score.method.level == "node"]
    assert all(metric in found.records[run] for run in by_node)
    with pytest.raises(CircuitspecError, match=r"CS168.*at edge level every component reads a residual stream"):
        reported(text_of(f"cross_section: {{paths: [naming -> logits], metric: '{metric}', at_least: 0}}"), tmp_path)


OLMO = """
circuitspec: 1
name: neurons
model: {id: MODEL, dtype: float64}
task:
  templates: ["the {a} sat on a {b}"]
  slots: {a: $animals, b: $things}
  lists: {animals: [cat, dog], things: [mat, log]}
  answer: " {a}"
  wrong: " {b}"
  corruptions: {other: {a: $things}}
  prompts: 4
  positions: {END: last}
circuit: {groups: {one: {nodes: [a0.h1, m0]}}, paths: ["input -> one", "one -> logits"]}
ablation: {value: resample, from: other, level: LEVEL}
claims: [{sufficient: {metric: "neuron(m1.n3@END)", at_least: 0.0}}]
"""


def test_neurons_of_mlps_that_read_the_stream_itself(tmp_path: Path) -> None:
    """OLMo 2: at node level they are measured, and left out where such a file is swept; at edge level refused."""
    model = random_model("olmo2", layers=2, exactly=False)
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path, ("[UNK]", "the", "cat", "dog", "sat", "on", "a", "mat", "log"))
    text = OLMO.replace("MODEL", str(tmp_path))
    found = reported(text.replace("LEVEL", "node"), tmp_path, sweep=True).verification
    assert all("neuron(m1.n3@END)" in found.records[run] for run in (found.plan.clean, found.plan.circuit))
    assert found.sweep is not None
    assert {score.why for score in found.sweep.scores if score.method.level == "edge" and score.why} == {
        "neuron(m1.n3@END) is not measured at edge level"
    }
    with pytest.raises(CircuitspecError, match=r"CS372.*neuron\(m1\.n3@END\) cannot be measured at edge level"):
        reported(text.replace("LEVEL", "edge"), tmp_path)
