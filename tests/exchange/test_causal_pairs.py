"""Data sets of base and source pairs of other tools: what becomes of their rows, and rows that do not say enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exchange.variables.causal_pairs import read_causal_pairs
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.pipelines.check import check_file
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.pairs.pair_families import draw_pairs


def trace(first: str, second: str, again: str) -> dict[str, object]:
    """An input as a causal model of the task has it."""
    text = f"Then, {first} and {second} went to the store. {again} gave a ring to"
    answer = first if again == second else second
    names = {"first": first, "second": second, "again": again, "answer": answer, "order": [first, second]}
    return {"raw_input": text, "raw_output": answer, **names}


ROWS: list[dict[str, Any]] = [
    {
        "input": trace("Mary", "John", "John"),
        "counterfactual_inputs": [trace("Mary", "John", "Mary"), trace("Paul", "Anna", "Anna")],
    },
    {
        "input": trace("Paul", "Anna", "Paul"),
        "counterfactual_inputs": [trace("Paul", "Anna", "Anna"), trace("Mary", "John", "Mary")],
    },
    {
        "input": trace("Mary", "John", "John"),
        "counterfactual_inputs": [trace("Anna", "John", "John"), trace("Paul", "Anna", "Paul")],
    },
]
HYPOTHESIS = """\
circuitspec: 1
name: imported
model: {id: zoo:ioi-tiny}
task: TASK
circuit: {groups: {inhibition: {nodes: [a2.h2], at: END}}}
ablation: {value: zero}
abstraction:
  variables: {position: 0 if again == second else 1, name: first if position == 0 else second}
  output: " {name}"
  align: {position: {nodes: [inhibition]}}
  PAIRS
claims:
  - interchange: {variable: position, at_least: 0.8}
"""


def test_rows_become_prompts_and_pairs(tmp_path: Path) -> None:
    """By the command, put together as it says, and read again: each family has the rows' sources, in their order."""
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    out = tmp_path / "mine.jsonl"
    done = CliRunner().invoke(main, ["import", str(data), "--as", "causal-pairs", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "1 row whose base an earlier row has left out" in done.output
    assert "left out: order" in done.output
    said = [line.strip() for line in done.output.splitlines()]
    (task,) = [line.removeprefix("task: ") for line in said if line.startswith("task: ")]
    (pairs,) = [line.removeprefix("abstraction: ")[1:-1] for line in said if line.startswith("abstraction: ")]
    task = task.replace("add_space: true}", "add_space: true}, positions: {END: last}")
    file = tmp_path / "x.circuit.yaml"
    file.write_text(HYPOTHESIS.replace("TASK", task).replace("PAIRS", pairs))
    document = load_hypothesis(file)
    spec = document.hypothesis.abstraction
    assert spec is not None
    prompts = build_prompts(document.hypothesis.task, tmp_path, document.source)
    found = draw_pairs(spec, document.hypothesis.task, prompts, tmp_path, document.source)
    assert [base.texts["clean"] for base in found.bases] == [ROWS[i]["input"]["raw_input"] for i in range(2)]
    for number, sources in enumerate(found.families.values()):
        wanted = [ROWS[i]["counterfactual_inputs"][number]["raw_input"] for i in range(2)]
        assert [source.text for source in sources] == wanted
    assert found.source_answers("pairs") == (" John", " Paul")
    # of Mary, John, John the position of the source asks for John; of Paul, Anna, Paul for Paul
    assert found.expected((("position", "pairs"),)) == (" John", " Paul")
    assert found.expected((("position", "pairs2"),)) == (" Mary", " Anna")
    assert check_file(file)[0] == ()
    again = CliRunner().invoke(
        main, ["import", str(data), "--as", "causal-pairs", "-o", str(tmp_path / "mine2.jsonl"), "--top", "2"]
    )
    assert again.exit_code == 2


def test_columns_of_json(tmp_path: Path) -> None:
    """Data sets that keep inputs as JSON in cells."""
    (tmp_path / "d.json").write_text(json.dumps([{key: json.dumps(value) for key, value in ROWS[0].items()}]))
    found = read_causal_pairs(tmp_path / "d.json")
    assert found.n == 1
    assert len(found.pairs) == 2
    assert json.loads(found.pairs[1])["source"]["raw_input"] == ROWS[0]["counterfactual_inputs"][1]["raw_input"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"input": "a text", "counterfactual_inputs": ["another"]}, "`input` is a text alone"),
        ({"input": trace("A", "B", "A"), "counterfactual_inputs": ["another"]}, "a source is a text alone"),
        ({"input": trace("A", "B", "A")}, "it has no `input` and `counterfactual_inputs`"),
        ({"input": trace("A", "B", "A"), "counterfactual_inputs": []}, "is no list with a source in it"),
        ({"input": {"raw_input": "a"}, "counterfactual_inputs": [trace("A", "B", "A")]}, "no text as `raw_output`"),
        ({**ROWS[1], "counterfactual_inputs": [trace("A", "B", "A")]}, "the base has 1 source, and the first one 2"),
    ],
)
def test_rows_that_do_not_say_enough(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (ROWS[0], row)))
    with pytest.raises(CircuitspecError) as caught:
        read_causal_pairs(tmp_path / "d.jsonl")
    (found,) = caught.value.diagnostics
    assert found.code == "CS570"
    assert said in found.message
    assert found.span is not None
    assert found.span.line == 2
