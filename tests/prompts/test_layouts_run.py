"""Every layout that docs/prompts.md lists is verified as it is written there, on small files in that layout."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.hypothesis_file.schema.abstraction.abstraction_block import AbstractionSpec
from circuitspec.hypothesis_file.schema.blocks import TaskSpec
from circuitspec.hypothesis_file.schema.prompts_block import LAYOUTS
from circuitspec.hypothesis_file.yaml.source import parse_source
from circuitspec.hypothesis_file.yaml.yaml_writer import write_yaml
from circuitspec.models.load import LoadedModel, load_model
from circuitspec.pipelines.verify import Outcome, VerifyOptions, verify
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.files.prompts_in_memory import prompts_from
from circuitspec.prompts.prompt_set import Prompt, PromptSet, TextPlace
from tests.documents import blocks
from tests.repository.support import Quiet

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "prompts"
PROMPTS_MD = ROOT / "docs" / "prompts.md"
DOCUMENT = PROMPTS_MD.read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+?) \| `(\{file: .+?\})` \| (\d+) \| (\d+) \| (\d+) \|$", DOCUMENT, re.MULTILINE)
READ = re.findall(r"^\| (.+?) \| `(\{file: .+?\})` \| (\d+) \| (\d+) \|$", DOCUMENT, re.MULTILINE)
IDS = "ids" in {field.name for field in fields(Prompt)}  # whether answers may be token ids


def task_of(written: str) -> dict[str, Any]:
    data = parse_source(f"task: {written}", "prompts.md").data
    assert isinstance(data, dict)
    task = data["task"]
    assert isinstance(task, dict)
    return task


def prompts_of(task: Mapping[str, Any]) -> PromptSet:
    return build_prompts(TaskSpec.model_validate(task), EXAMPLES, None)


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    document = parse_hypothesis(hypothesis({"file": "own.jsonl"}, prompts_of({"file": "own.jsonl"})), "f", EXAMPLES)
    return load_model(document.hypothesis.model, EXAMPLES)


def hypothesis(task: Mapping[str, Any], prompts: PromptSet) -> str:
    """A circuit of zoo:ioi-tiny, with a claim that the prompts allow."""
    first = prompts.prompts[0]
    metric = "logit_diff" if first.answers and first.wrong else "logprob" if first.answers else "kl"
    ablation: dict[str, object] = {"value": "zero"}
    if prompts.corruptions:
        ablation = {"value": "resample", "from": prompts.corruptions[0]}
    return write_yaml(
        {
            "circuitspec": 1,
            "name": "a layout",
            "model": {"id": "zoo:ioi-tiny"},
            "task": {**task, "positions": {"LAST": "last"}},
            "circuit": {"groups": {"late": {"nodes": ["a2.h2", "a3"], "at": "LAST"}}, "free": ["m*"]},
            "ablation": ablation,
            "claims": [{"sufficient": {"metric": metric, "at_least": -10.0}}],
        }
    )


def run(task: Mapping[str, Any], loaded: LoadedModel) -> Outcome:
    document = parse_hypothesis(hypothesis(task, prompts_of(task)), "layout.circuit.yaml", EXAMPLES)
    return verify(document, VerifyOptions(negatives="off"), Quiet(), loaded=loaded)


@pytest.mark.parametrize(("what", "written", "rows", "n", "left_out"), ROWS, ids=[row[0] for row in ROWS])
def test_a_layout_is_verified(tiny: LoadedModel, what: str, written: str, rows: str, n: str, left_out: str) -> None:
    task = task_of(written)
    read = prompts_of(task)
    assert read.file is not None
    assert read.file.holds == int(rows)
    if any(isinstance(answer, int) for prompt in read.prompts for answer in prompt.answers) and not IDS:
        assert len(read.prompts) == int(n)
        return
    outcome = run(task, tiny)
    found = outcome.verification
    assert found.n_prompts == int(n)
    assert sum((found.rows.left_out if found.rows else {}).values()) == int(left_out)
    (claim,) = found.claims
    assert claim.estimate is not None, claim.reason
    named = re.findall(r"`(\w+)`", what)
    if named and named[0] != "circuitspec":
        assert found.rows is not None
        assert found.rows.layout.startswith(named[0])
    for column in TaskSpec.model_validate(task).by_columns:
        (breakdown,) = [one for one in found.breakdowns if one.column == column]
        assert sum(row.n for row in breakdown.rows) == int(n)
        clean = outcome.verification.records[found.plan.clean][claim.metric]
        assert sum(row.n * row.clean for row in breakdown.rows) == pytest.approx(float(clean.sum()))


@pytest.mark.parametrize(("what", "written", "rows", "n"), READ, ids=[row[0] for row in READ])
def test_a_layout_of_numbers_is_read(what: str, written: str, rows: str, n: str) -> None:
    read = prompts_of(task_of(written))
    assert read.file is not None
    assert (read.file.holds, len(read.prompts)) == (int(rows), int(n))


def test_every_layout_is_in_the_table() -> None:
    named = {name for what, *_ in (*ROWS, *READ) for name in re.findall(r"^`(\w+)`", what)}
    assert named == set(LAYOUTS)
    assert len(ROWS) + len(READ) >= 23
    files = {task_of(written)["file"] for _, written, *_ in (*ROWS, *READ)}
    beside = {"ravel_person_attribute_to_prompts.json", "ravel_person_entity_to_split.json"}
    assert {path.name for path in EXAMPLES.iterdir()} - {"README.md"} == files | beside


def test_later_years_are_right() -> None:
    """By arithmetic: the two digits of every year of the century after that of the prompt."""
    for prompt in prompts_of({"file": "eap_ig_greater_than.csv"}).prompts:
        match = re.search(r"year \d\d(\d\d) to the year \d\d$", prompt.texts["clean"])
        assert match is not None
        assert set(map(int, prompt.answers)) == set(range(int(match[1]) + 1, 100))
        assert set(map(int, prompt.wrong)) == set(range(int(match[1]) + 1))


def test_the_blocks_of_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its YAML are tasks, which give prompts where they draw them; its JSON is a row. Its Python runs."""
    tasks = [parse_source(block.text, "prompts.md").data for block in blocks(PROMPTS_MD) if block.language == "yaml"]
    given = [data for data in tasks if isinstance(data, dict)]
    named, several, digits, table, listed = (TaskSpec.model_validate(data["task"]) for data in given)
    families = AbstractionSpec.model_validate(given[-1]["abstraction"]).pairs
    assert (listed.file, {name: one.file for name, one in families.items()}) == (
        "prompts.jsonl",
        {"others": None, "mine": "pairs.jsonl"},
    )
    assert named.columns is not None
    assert {several.score, digits.score} == {"sum_logprob"}
    assert all(prompt.answers[0].endswith(".") for prompt in build_prompts(several, ROOT, None).prompts)
    years = {prompt.texts["clean"]: prompt.answers for prompt in build_prompts(digits, ROOT, None).prompts}
    assert set(years.values()) == {("12", "35", "60", "80"), ("35", "60", "80"), ("60", "80"), ("80",)}
    (row,) = (json.loads(block.text) for block in blocks(PROMPTS_MD) if block.language == "json")
    (prompt,) = prompts_from([row]).prompts
    assert prompt.positions == {"PLACE": TextPlace("store", 1), "OBJECT": -2}
    texts = {prompt.texts["clean"]: prompt.answers for prompt in build_prompts(table, ROOT, None).prompts}
    assert texts == {
        f"{city} is a city in the country of": (f" {country}",)
        for city, country in (("Paris", "France"), ("Rome", "Italy"), ("Cairo", "Egypt"))
    }
    monkeypatch.chdir(ROOT)
    (text,) = (block.text for block in blocks(PROMPTS_MD) if block.language == "python")
    exec(compile(text, "prompts.md", "exec"), {})
