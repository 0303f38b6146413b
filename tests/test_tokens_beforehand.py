"""What only the tokenizer can tell is told by `check` and `plan`, and by `verify` before it reads weights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exploration.exploration_findings import ExploreOptions
from circuitspec.hypothesis_file.load_file import load_exploration, load_hypothesis
from circuitspec.models import load
from circuitspec.pipelines.bundle import compile_bundle
from circuitspec.pipelines.check import BY_NAME, NOT_TOKENISED, check_file
from circuitspec.pipelines.explore import explore
from circuitspec.pipelines.plan import plan_file
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.pipelines.with_locks.locked import run_and_lock
from circuitspec.pipelines.with_locks.suite import Suite
from circuitspec.runtime.progress import Silent
from tests.prompts.conftest import byte_level, fast

HYPOTHESIS = """circuitspec: 1
name: beforehand
model: {{id: {model}}}
task: {{file: prompts.jsonl{task}}}
circuit: {{groups: {{some: {{nodes: [a0.h1]}}}}}}
ablation: {{value: resample, from: corrupt, level: node, positions: all}}
claims:
  - sufficient: {{metric: {metric}, at_least: 0.8}}
"""
GOOD = {
    "clean": "Then, Mary and John went to the store. John gave a ring to",
    "corrupt": "Then, Mary and John went to the store. Paul gave a ring to",
    "answers": [" Mary"],
    "wrong": [" John"],
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory with a config and a tokenizer, as `save_pretrained` writes them, and no weights."""
    folder = tmp_path / "model"
    tokenizer = fast(byte_level(trim=True, prefix=False, bos=True))
    tokenizer.save_pretrained(folder)
    GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=len(tokenizer), n_positions=40).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "gpt2"
    return folder


def write(model: Path, row: object, task: str = "", metric: str = "logit_diff", model_id: str = "./model") -> Path:
    file = model.parent / "h.circuit.yaml"
    (model.parent / "prompts.jsonl").write_text(json.dumps(row), encoding="utf-8")
    file.write_text(HYPOTHESIS.format(model=model_id, task=task, metric=metric), encoding="utf-8")
    return file


def refused(action: Callable[[], object]) -> list[str]:
    with pytest.raises(CircuitspecError) as error:
        action()
    return [d.code for d in error.value.diagnostics]


CASES = [
    ({**GOOD, "answers": [" Bartholomew"]}, "", "logit_diff", "CS346", "tokens, not one"),
    (
        {**GOOD, "corrupt": f"{GOOD['clean']} a"},
        "",
        "logit_diff",
        "CS366 CS343",
        "the clean text is 16 tokens, the corrupted one 17",
    ),
    ({**GOOD, "positions": {"S2": 40}}, "", "logit_diff", "CS345", "is token 40, but the prompt has 15 tokens"),
    (GOOD, ", positions: {X: 40}", "logit_diff", "CS345", "X = 40 lies outside prompt 0"),
    ({**GOOD, "positions": {"S2": {"text": "Anna"}}}, "", "logit_diff", "CS360", "the clean text holds 0 times"),
    (
        {**GOOD, "clean": "a" * 50, "corrupt": "b" * 50, "answers": ["c"], "wrong": ["d"]},
        "",
        "logit_diff",
        "CS505",
        "has 51 tokens, the model takes 40",
    ),
    ({**GOOD, "wrong": []}, "", "logit_diff", "CS350", "the task has no `wrong`"),
]


@pytest.mark.parametrize(("row", "task", "metric", "code", "message"), CASES)
def test_check_and_plan_say_what_verify_would(
    model: Path, row: object, task: str, metric: str, code: str, message: str
) -> None:
    file = write(model, row, task, metric)
    problems, said = check_file(file)
    assert said == ""
    assert [d.code for d in problems] == code.split(), problems
    assert message in problems[0].message
    assert problems[0].span is not None
    assert refused(lambda: plan_file(file)) == code.split()


COMMANDS: dict[str, Callable[[Path], object]] = {
    "verify": lambda file: verify(load_hypothesis(file), VerifyOptions(), Silent()),
    "lock": lambda file: run_and_lock(load_hypothesis(file), VerifyOptions(), Silent()),
    "compile": lambda file: compile_bundle(load_hypothesis(file), "cpu", Silent()),
    "explore": lambda file: explore(load_exploration(file), ExploreOptions(), Silent(), "explore"),
    "suite": lambda file: Suite(locked=False).outcome(file),
}


BY_COMMAND = [("verify", *case) for case in CASES]
BY_COMMAND += [(command, *case) for command in COMMANDS if command != "verify" for case in (CASES[0], CASES[5])]


@pytest.mark.parametrize(("command", "row", "task", "metric", "code", "message"), BY_COMMAND)
def test_it_is_said_before_weights_are_read(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    row: object,
    task: str,
    metric: str,
    code: str,
    message: str,
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("weights are read")

    config = GPT2Config.from_pretrained(model)
    GPT2LMHeadModel(config).save_pretrained(model)
    monkeypatch.setattr(load, "_read_weights", never)
    file = write(model, row, task, metric)
    assert refused(lambda: COMMANDS[command](file)) == code.split()
    write(model, {**GOOD, "positions": {"S2": 3}})
    with pytest.raises(AssertionError, match="weights are read"):
        COMMANDS[command](file)


def test_a_right_file_is_checked_by_its_tokens_without_torch(model: Path) -> None:
    """No weights, no torch: nothing but the config and the tokenizer."""
    file = write(model, GOOD)
    program = (
        "import sys; from pathlib import Path; from circuitspec.pipelines.check import check_file\n"
        "from circuitspec.pipelines.plan import plan_file\n"
        f"problems, said = check_file(Path({str(file)!r})); assert not problems; print(said)\n"
        f"print(next(line for line in plan_file(Path({str(file)!r})).splitlines() if 'prompts of up to' in line))\n"
        "print(sorted({'torch', 'transformers', 'pyvene'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    said, memory, imported = done.stdout.splitlines()
    assert "1 prompt, 1 claim" in said
    assert "note" not in done.stdout
    assert "(prompts of up to 16 tokens)" in memory, "BOS, and of the text 13 words and two marks"
    assert imported == "[]"


def test_where_the_tokenizer_is_not_at_hand_it_is_said(model: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()
    file = write(model, {**GOOD, "answers": [" Bartholomew"]})
    problems, said = check_file(file)
    assert problems == ()
    assert NOT_TOKENISED in said
    assert BY_NAME not in said
    assert NOT_TOKENISED in plan_file(file)
    assert NOT_TOKENISED in check_file(write(model, GOOD, model_id="owner/not-here"))[1]


SIZED = """circuitspec: 1
name: counted
model: {{id: {model}{size}}}
task:
  templates: ["Then, {{IO}} and {{S1}} went to the store. {{S2}} gave a ring to"]
  slots: {{IO: $names, S1: $names, S2: =S1}}
  lists: {{names: [Mary, John, Paul]}}
  answer: " {{IO}}"
  wrong: " {{S1}}"
  corruptions: {{abc: {{S2: $names}}}}
  prompts: 5
circuit: {{groups: {{many: {{nodes: ["a[2-3].h*", m0, a1, "m[1-2]"]}}, one: {{nodes: [a0.h1]}}}}}}
ablation: {{value: resample, from: abc}}
claims:
  - sufficient: {{metric: logit_diff, at_least: 0.8}}
"""


@pytest.mark.parametrize(
    ("model_id", "size", "said"),
    [
        ("zoo:ioi-tiny", "", "16 nodes in 2 groups"),  # 4 layers x 4 heads: 2 * 4 + 1 + 4 + 2, and 1
        ("owner/not-here", ", size: 12x12x768", "40 nodes in 2 groups"),  # 2 * 12 + 1 + 12 + 2, and 1
        ("owner/not-here", "", "5 names of nodes in 2 groups"),
    ],
)
def test_components_are_counted_and_not_patterns(tmp_path: Path, model_id: str, size: str, said: str) -> None:
    file = tmp_path / "h.circuit.yaml"
    file.write_text(SIZED.format(model=model_id, size=size), encoding="utf-8")
    problems, summary = check_file(file)
    assert problems == ()
    assert f"ok   {said}, 5 prompts, 1 claim" in summary


def test_a_layer_beyond_the_stated_size_is_an_error(tmp_path: Path) -> None:
    """Every place of a name is in tests/wrong_files/beyond_stated_size."""
    file = tmp_path / "h.circuit.yaml"
    text = SIZED.format(model="owner/not-here", size=", size: 12x12x768")
    for name, right in (("a11.h11", True), ("a12.h0", False), ("a0.h12", False), ("m12", False), ("r12", False)):
        file.write_text(text.replace("a0.h1]", f"{name}]"), encoding="utf-8")
        problems, _ = check_file(file)
        assert [d.code for d in problems] == ([] if right else ["CS170"]), name
