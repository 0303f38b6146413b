"""`explore --carries`: the least that the values of toys must carry, which is known on paper."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.experiments.levels.scrub_tree import ScrubTree, TreeInput, TreeNode
from circuitspec.exploration.variables.carried_names import CarriesFindings, Scrubbing, least_carried
from circuitspec.exploration.variables.carries_output import render_carries
from circuitspec.graph.edges import Receiver
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Logits
from circuitspec.hypothesis_file.load_file import load_hypothesis, parse_hypothesis
from circuitspec.hypothesis_file.yaml.yaml_writer import write_yaml
from circuitspec.pipelines.abstraction.carries_search import CarriesRequest, search_carries
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.runtime.progress import Silent
from tests.zoo.test_scrubbed_files import FLOWS, HYPOTHESIS, ROOMS, row
from tests.zoo.toy_cases import HYPOTHESES

NOBEL = HYPOTHESES / "nobel-scrubbed.circuit.yaml"


USUAL = CarriesRequest()


def found_in(file: Path, request: CarriesRequest = USUAL) -> CarriesFindings:
    return search_carries(load_hypothesis(file), request, Silent())


def as_written(found: CarriesFindings, file: Path) -> Any:
    """The file with the draft in place of its own `carries` and claims."""
    yaml = YAML(typ="safe")
    data, draft = yaml.load(file.read_text("utf-8")), yaml.load(found.draft)
    data["circuit"]["carries"] = draft["circuit"]["carries"]
    return parse_hypothesis(write_yaml(data | {"claims": draft["claims"]}), str(HYPOTHESES / "changed.circuit.yaml"))


def test_each_value_of_nobel_carries_the_word_that_it_is_about() -> None:
    found = found_in(NOBEL)
    assert {one.key: one.said for one in found.entries} == {
        "prize -> logits": "first, second",
        "previous_token -> prize": "first",
        "input@first -> previous_token<v>": "first",
        "input@second -> prize": "second",
    }
    assert found.whole.recovered.value == pytest.approx(1, abs=1e-4)
    assert "input@second -> prize: [second]" in render_carries(found)
    assert (
        verify(as_written(found, NOBEL), VerifyOptions(negatives="off"), Silent()).verification.verdict == "SUPPORTED"
    )


def test_an_allowance_ends_it() -> None:
    found = found_in(NOBEL, CarriesRequest(most=1))
    assert {one.said for one in found.entries} == {"everything"}
    assert "the allowance of forwards ended" in render_carries(found)
    assert "leaves paths out" not in render_carries(found)
    little = replace(found.whole, recovered=replace(found.whole.recovered, value=0.3, low=0.2, high=0.4))
    assert "with everything carried 0.30 is recovered" in render_carries(replace(found, whole=little))


@pytest.mark.nightly
def test_induction() -> None:
    """What stands before each word matters where it is the one that is asked for."""
    found = found_in(HYPOTHESES / "induction-scrubbed.circuit.yaml")
    assert {one.key: one.said for one in found.entries} == {
        "induction -> logits": "B",
        "previous_token -> induction<k>": "A",
        "input -> previous_token<v>": "A",
        "input@B -> induction<v>": "B",
        "same_token -> induction<v>": "B",
        "input@B -> same_token<v>": "B",
        "input -> induction<q>": "A",
    }


def test_what_cancels_is_not_lost_in_the_mean() -> None:
    """The mean is recovered without the sky; single prompts are not, and so it stays."""
    found = found_in(HYPOTHESES / "cancel-scrubbed.circuit.yaml")
    assert {one.said for one in found.entries} == {"flow, sky"}


@pytest.mark.nightly
def test_variables_in_place_of_the_slots_that_they_are_made_of() -> None:
    """The right way round, each head carries a sum or a difference, and nothing else of the two words."""
    found = found_in(HYPOTHESES / "swapped-scrubbed.circuit.yaml", CarriesRequest(share=0.99))
    assert {one.key: one.said for one in found.entries} == {
        "adds -> logits": "sum",
        "takes -> logits": "difference",
        "switch -> logits": "flow",
    }


@pytest.mark.parametrize(("enough", "said"), [("sum", "sum, C"), ("A", "A, C"), ("double", "double, C")])
def test_a_variable_takes_the_place_of_all_slots_that_it_is_made_of(enough: str, said: str) -> None:
    """C is needed, and beside it A and B or what is `enough` of them; D, which nothing needs, is left out."""
    made_of = {name: frozenset(name) for name in "ABCD"} | {"sum": frozenset("AB"), "double": frozenset("A")}
    node = TreeNode(Head(0, 0), Where.everywhere(), "a0.h0 -> logits", None, "a", ())
    tree = ScrubTree((TreeInput(Receiver(Logits()), Where.everywhere(), (node,)),), ())

    def tried(changed: ScrubTree) -> Scrubbing:
        carried = changed.nodes[0].carries
        told = carried is None or {"C", enough} <= set(carried) or {"A", "B", "C"} <= set(carried)
        told = told or (enough in "AB" and {"A", "C"} <= set(carried or ()))
        told = told or (enough == "double" and {"A", "C"} <= set(carried or ()))
        value = 1.0 if told else 0.5
        return Scrubbing(Estimate(value, value, value, 0.95, 9, "constant"), 0.0, 1.0)

    names = ("A", "B", "C", "D")
    _, (entry,) = least_carried(tree, names, made_of, tried, lambda _: True, 0.9, lambda: False, lambda key: None)
    assert sorted(entry.said.split(", ")) == sorted(said.split(", "))


def test_columns_of_a_prompts_file(tmp_path: Path) -> None:
    """The lamp follows whether current flows, which the word says too, and more."""
    rows = [row(room, word) for room in ROOMS for word in FLOWS]
    (tmp_path / "lamps.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    text = HYPOTHESIS.format(carries="{relay: [room]}")
    found = search_carries(parse_hypothesis(text, str(tmp_path / "lamps.circuit.yaml")), USUAL, Silent())
    assert {one.key: one.said for one in found.entries} == {"lamp -> logits": "flows", "relay -> lamp": "flows"}


def test_a_file_without_paths() -> None:
    text = (HYPOTHESES / "and.circuit.yaml").read_text("utf-8")
    text = text[: text.index("  paths:")] + text[text.index("\nablation:") :]
    document = parse_hypothesis(text, str(HYPOTHESES / "changed.circuit.yaml"))
    with pytest.raises(CircuitspecError) as caught:
        search_carries(document, USUAL, Silent())
    assert [one.code for one in caught.value.diagnostics] == ["CS529"]


def test_paths_that_recover_nothing() -> None:
    """Nothing can be lost of it: every step would be kept."""
    text = NOBEL.read_text(encoding="utf-8")
    circuit, claims = text.index("circuit:\n"), text.index("ablation:")
    idle = "circuit: {groups: {idle: {nodes: [a0.h3], at: second}}, paths: [idle -> logits]}\n\n"
    rest = text[claims : text.index("claims:")] + "claims:\n  - sufficient: {metric: logit_diff, at_least: 0.8}\n"
    document = parse_hypothesis(text[:circuit] + idle + rest, str(HYPOTHESES / "changed.circuit.yaml"))
    with pytest.raises(CircuitspecError, match=r"the paths recover 0\.00.* of logit_diff: maybe nothing") as caught:
        search_carries(document, USUAL, Silent())
    assert [one.code for one in caught.value.diagnostics] == ["CS529"]


def test_options_that_say_nothing_of_it() -> None:
    for option in (["--sweep", "heads"], ["--draft", "x.yaml"], ["--variable", "V"], ["--plan"]):
        result = CliRunner().invoke(main, ["explore", str(NOBEL), "--carries", *option])
        assert result.exit_code == 2
        assert f"{option[0]} does not go with --carries" in result.output
