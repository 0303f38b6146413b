"""`verify` once more where nothing has changed: the same bytes, at once, without torch and without the model."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import click.testing
import pytest

from circuitspec.cli import main, verifying
from circuitspec.models.zoo import zoo_path

TOYS = Path(__file__).parents[2] / "hypotheses" / "toys"
SAID = "nothing has changed since this result was made"

PROGRAM = """
import sys
from circuitspec.cli import main
try:
    main()
finally:
    heavy = sorted({"torch", "pyvene", "transformers", "scipy", "pandas"} & set(sys.modules))
    print("heavy", heavy, file=sys.stderr)
"""


def verify(*arguments: object) -> click.testing.Result:
    words = ["verify", *map(str, arguments), *([] if "--no-store" in arguments else ["--store", "store"])]
    return click.testing.CliRunner().invoke(main, words, catch_exceptions=False)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a hypothesis about a model in a folder, and a list of words in a file."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(zoo_path("ioi-tiny"), tmp_path / "model")
    (tmp_path / "names.txt").write_text("Mary\nJohn\nClara\nAnna\nPaul\nKate\n", encoding="utf-8")
    (tmp_path / "one.circuit.yaml").write_text(
        """circuitspec: 1
name: one
model: {id: ./model}
task:
  templates: ["When {IO} and {S1} went to the store, {S2} gave a book to"]
  slots: {IO: $names, S1: $names, S2: =S1}
  lists: {names: names.txt}
  answer: " {IO}"
  wrong: " {S1}"
  corruptions: {flip: {IO: =S1, S1: =IO, S2: =IO}}
  positions: {END: last}
  prompts: 12
circuit: {groups: {all: {nodes: ["a*", "m*"], at: END}}}
ablation: {value: resample, from: flip, level: node, positions: declared}
claims:
  - necessary: {metric: logit_diff, at_most: -9}
""",
        encoding="utf-8",
    )
    return tmp_path


def test_the_same_bytes_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of its own, and this one; what the run cost is told of each for itself."""
    monkeypatch.chdir(tmp_path)
    words = [str(TOYS / "and.circuit.yaml"), "--format", "json", "--report", "html=page.html"]
    ran = verify(*words)
    assert ran.exit_code == 0, ran.stderr
    assert SAID not in ran.stderr
    again = subprocess.run(
        [sys.executable, "-c", PROGRAM, "verify", *words, "--store", "store"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert SAID in again.stderr
    assert again.stderr.endswith("heavy []\n")
    page = (tmp_path / "page.html").read_bytes()
    assert verify(*words).stdout == again.stdout
    assert (tmp_path / "page.html").read_bytes() == page
    first, second = json.loads(ran.stdout), json.loads(again.stdout)
    assert second["cost"]["stored"] == second["cost"]["experiments"] == first["cost"]["experiments"]
    assert second["cost"]["forwards"] == 0
    assert {**first, "cost": None} == {**second, "cost": None}


@pytest.mark.usefixtures("here")
def test_a_claim_that_is_refuted_is_so_again() -> None:
    one, other = (verify("one.circuit.yaml") for _ in range(2))
    assert one.exit_code == other.exit_code == 1
    assert SAID in other.stderr
    assert one.stdout.splitlines()[:-1] == other.stdout.splitlines()[:-1]  # the last line says what it cost


@pytest.mark.parametrize(
    "changed",
    [
        "names.txt",
        "model/config.json",
        *(pytest.param(name, marks=pytest.mark.nightly) for name in ("one.circuit.yaml", "model/tokenizer.json")),
    ],
)
def test_whatever_changes_it_is_run_again(here: Path, changed: str) -> None:
    assert SAID not in verify("one.circuit.yaml").stderr
    assert SAID in verify("one.circuit.yaml").stderr
    file = here / changed
    file.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    again = verify("one.circuit.yaml")
    assert again.exit_code in (0, 1, 4)
    assert SAID not in again.stderr


def test_weights_options_and_versions_count(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SAID not in verify("one.circuit.yaml").stderr
    for words in (["--negatives", "off"], ["--output-dir", "out"]):
        assert SAID not in verify("one.circuit.yaml", *words).stderr
        assert SAID in verify("one.circuit.yaml", *words).stderr
    assert SAID not in verify("one.circuit.yaml", "--no-store").stderr
    monkeypatch.setattr("circuitspec.repository.environment.version", lambda name: "0")
    assert SAID not in verify("one.circuit.yaml").stderr
    monkeypatch.undo()
    monkeypatch.chdir(here)
    weights = here / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert SAID not in verify("one.circuit.yaml").stderr


def test_the_file_of_reference_prompts_counts(here: Path) -> None:
    """Means go over the prompts in it."""

    def rows(prompts: int) -> str:
        text, names = "When {} and {} went to the store, {} gave a book to", ("Mary", "John", "Anna", "Paul", "Kate")
        found = []
        for one, two in list(itertools.permutations(names, 2))[:prompts]:
            texts = {"clean": text.format(one, two, two), "corrupt": text.format(one, two, one)}
            found.append(json.dumps({**texts, "answers": [f" {one}"], "wrong": [f" {two}"]}))
        return "\n".join(found)

    (here / "prompts.jsonl").write_text(rows(12), encoding="utf-8")
    (here / "more.jsonl").write_text(rows(15), encoding="utf-8")
    (here / "two.circuit.yaml").write_text(
        """circuitspec: 1
name: two
model: {id: ./model}
task: {file: prompts.jsonl, positions: {END: last}}
circuit: {groups: {all: {nodes: ["a*", "m*"], at: END}}}
ablation: {value: mean, from: corrupt, reference: {file: more.jsonl}}
claims:
  - necessary: {metric: logit_diff, at_most: 0.5}
""",
        encoding="utf-8",
    )
    assert SAID not in verify("two.circuit.yaml").stderr
    assert SAID in verify("two.circuit.yaml").stderr
    (here / "more.jsonl").write_text(rows(16), encoding="utf-8")
    again = verify("two.circuit.yaml")
    assert again.exit_code in (0, 1, 4), again.stderr
    assert SAID not in again.stderr
    refused = verify("two.circuit.yaml", "--html", "more.jsonl")
    assert refused.exit_code == 2
    assert "the file of reference prompts" in refused.stderr


def test_of_files_that_take_long_to_read_no_result_is_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of dictionaries or weights of many gigabytes would be read through before every run."""
    size = (here / "model" / "model.safetensors").stat().st_size
    monkeypatch.setattr("circuitspec.repository.kept_results.MOST_BYTES", size)
    assert verify("one.circuit.yaml").exit_code == 1
    assert not (here / "store" / "results").exists()
    assert SAID not in verify("one.circuit.yaml").stderr


def test_a_file_that_changes_during_the_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows which of the two was run."""
    names = here / "names.txt"

    def run(*of: object) -> object:
        outcome = whole(*of)
        names.write_text(names.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        return outcome

    whole = verifying._run
    monkeypatch.setattr(verifying, "_run", run)
    assert verify("one.circuit.yaml").exit_code == 1
    assert not (here / "store" / "results").exists()


def test_a_place_that_cannot_be_written_is_said(here: Path) -> None:
    """The run is whole all the same."""
    (here / "store").mkdir()
    (here / "store" / "results").write_text("", encoding="utf-8")
    ran = verify("one.circuit.yaml")
    assert ran.exit_code == 1
    assert "warning[CS565]: what is measured is not kept:" in ran.stderr


def test_what_is_damaged_or_gone_is_made_again(here: Path) -> None:
    written = ["--output-dir", "out"]
    first = verify("one.circuit.yaml", *written)
    tables = {path.name: path.read_bytes() for path in (here / "out").iterdir() if path.suffix == ".csv"}
    assert SAID in verify("one.circuit.yaml", *written).stderr
    (here / "out" / "experiments.csv").unlink()
    again = verify("one.circuit.yaml", *written)
    assert SAID not in again.stderr
    assert {path.name: path.read_bytes() for path in (here / "out").iterdir() if path.suffix == ".csv"} == tables
    (kept,) = (here / "store" / "results").glob("*/report.json")
    kept.write_text(kept.read_text(encoding="utf-8")[:-100], encoding="utf-8")
    again = verify("one.circuit.yaml", *written)
    assert SAID not in again.stderr
    assert again.stdout.splitlines()[:-1] == first.stdout.splitlines()[:-1]
