"""The README and the overview show real files, and the real output they give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from circuitspec.hypothesis_file.load_file import load_hypothesis, parse_hypothesis
from circuitspec.hypothesis_file.starter_file import starter_text
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.reports.text.text_report import render_text
from tests.documents import unlike
from tests.test_verification import HYPOTHESES, TINY, Quiet

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OVERVIEW = (ROOT / "docs" / "overview.md").read_text(encoding="utf-8")
FLAGSHIP = HYPOTHESES / "who-has-what.circuit.yaml"


def block(language: str, text: str = OVERVIEW) -> str:
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(("text", "shipped_file"), [(OVERVIEW, TINY), (README, FLAGSHIP)], ids=["overview", "readme"])
def test_the_file_shown_is_the_file_shipped_but_for_its_word_lists(text: str, shipped_file: Path) -> None:
    shown = parse_hypothesis(block("yaml", text), str(shipped_file)).hypothesis.model_dump()
    shipped = load_hypothesis(shipped_file).hypothesis.model_dump()
    lists = shown["task"].pop("lists"), shipped["task"].pop("lists")
    for one in (shown, shipped):
        one.pop("description")
    assert shown == shipped
    for name, words in lists[0].items():
        assert set(words) <= set(lists[1][name])


@pytest.mark.nightly
def test_the_output_of_the_readme_is_in_the_output_given() -> None:
    command, *shown = block("console", README).rstrip().splitlines()
    assert command == "$ circuitspec verify hypotheses/who-has-what.circuit.yaml"
    given = render_text(verify(load_hypothesis(FLAGSHIP), VerifyOptions(), Quiet()).verification)
    assert unlike(shown, given) == ""


def test_the_readme_is_one_page_and_has_the_words_that_are_searched_for() -> None:
    assert len(README.splitlines()) < 120
    words = "faithfulness, completeness, minimality, activation patching, path patching, causal scrubbing, DAS, IIA"
    text = " ".join(README.split())
    for word in [*words.split(", "), "knockout", "self-repair", "TransformerLens", "auto-circuit", "circuit-tracer"]:
        assert word in text, word


def test_the_output_shown_is_the_output_given() -> None:
    command, *shown = block("console").rstrip().splitlines()
    assert command == "$ circuitspec verify hypotheses/ioi-tiny.circuit.yaml"
    given = render_text(verify(load_hypothesis(TINY), VerifyOptions(), Quiet()).verification).rstrip().splitlines()
    assert shown[:-1] == given[:-1]
    without_time = re.compile(r", [0-9.]+ s\)$")
    assert without_time.sub("", shown[-1]) == without_time.sub("", given[-1])


@pytest.mark.nightly
def test_the_starter_file_is_supported_as_it_stands(tmp_path: Path) -> None:
    found = verify(
        parse_hypothesis(starter_text(), str(tmp_path / "s.circuit.yaml")), VerifyOptions(), Quiet()
    ).verification
    assert found.verdict == "SUPPORTED"


def test_every_file_and_command_named_exists() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE)
    assert {"demo", "test", "demo-real"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_loop_over_claims_runs_where_a_claim_has_no_estimate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lamp in another room is as lit: nothing to recover a share of, and a gate, of which six figures decide."""
    text = (HYPOTHESES / "toys" / "and.circuit.yaml").read_text(encoding="utf-8")
    gate = "- gate: {nodes: [first_switch, second_switch], is: and, metric: logit_diff}"
    file = tmp_path / "and.circuit.yaml"
    head = text.split("claims:")[0].replace("both: {A: $stops, B: $stops}", "both: {room: $rooms}")
    file.write_text(f"{head}claims:\n  - necessary: {{metric: logit_diff, at_most: 0.3}}\n  {gate}\n", encoding="utf-8")
    loop = block("python").replace("hypotheses/ioi-tiny.circuit.yaml", str(file))
    assert str(file) in loop
    exec(compile(loop, "README.md", "exec"), {})
    necessary, both = capsys.readouterr().out.splitlines()
    assert necessary == ("INCONCLUSIVE necessary nan no ratio: the clean and corrupt runs do not differ (see CS403)")
    assert both.startswith("INCONCLUSIVE gate nan ")
