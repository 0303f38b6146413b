"""Cross-sections of declared and drafted circuits, against what the toys are built to do."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exploration.exploration_findings import ExplorationFindings, ExploreOptions
from circuitspec.exploration.output.exploration_tables import sections_frame, tables
from circuitspec.exploration.output.exploration_text import render_exploration as rendered
from circuitspec.exploration.search import cross_sections as module
from circuitspec.exploration.search.cross_sections import Sections
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.graph.declared import INPUT, LOGITS, declared_graph
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, KvHead, Mlp, Neuron
from circuitspec.hypothesis_file.load_file import load_exploration
from circuitspec.hypothesis_file.schema.blocks import CircuitSpec
from circuitspec.hypothesis_file.yaml.source import parse_leniently
from circuitspec.pipelines.explore import explore
from circuitspec.runtime.progress import Silent

TOYS = Path(__file__).parents[2] / "hypotheses" / "toys"
TEXT, _ = parse_leniently("circuit: {groups: {}}", "circuit.yaml")
END = Where.at("END")


class Quiet(Silent):
    """Nobody waits."""


@cache
def explored(toy: str, **options: Any) -> ExplorationFindings:
    path = TOYS / f"{toy}.circuit.yaml"
    return explore(load_exploration(path), ExploreOptions(**{"exact": 200, **options}), Quiet(), "explore")


def found_of(tmp_path: Path, toy: str, *changes: tuple[str, str], **options: Any) -> ExplorationFindings:
    """The toy's own file with something of it changed, and only its cross-sections restored."""
    text = (TOYS / f"{toy}.circuit.yaml").read_text()
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after)
    file = tmp_path / "changed.circuit.yaml"
    file.write_text(text)
    return explore(load_exploration(file), ExploreOptions(sections_only=True, **options), Quiet(), "explore")


def sections_of(tmp_path: Path, toy: str, *changes: tuple[str, str], **options: Any) -> Sections:
    (found,) = found_of(tmp_path, toy, *changes, **options).sections
    return found


def recovered(sections: Sections) -> dict[str, float]:
    return {one.name: round(one.recovered.value, 3) for one in sections.found}


def missing(sections: Sections) -> dict[str, dict[str, tuple[float, str]]]:
    return {one.name: {m.name: (round(m.change, 3), m.standing) for m in one.missing} for one in sections.broken}


def test_every_cross_section_of_a_declared_circuit_restores_it(tmp_path: Path) -> None:
    """The two switches together, or the neuron: an AND of the two."""
    found = sections_of(tmp_path, "and")
    assert recovered(found) == {"a0.h0@END, a0.h1@END": 1.0, "m1.n0@END": 1.0}
    assert not found.broken
    assert (found.more, found.assumed, found.direct, found.unlinked) == (False, False, False, ())
    assert found.whole is not None
    assert found.whole.value == pytest.approx(1.0, abs=1e-4)


def test_a_link_that_is_not_declared_is_found_by_the_partner_of_an_and(tmp_path: Path) -> None:
    """Restored alone, neither switch does anything; the second one beside the first brings all of it back."""
    found = found_of(tmp_path, "and", ("first_switch, second_switch -> lamp", "first_switch -> lamp"))
    (own,) = found.sections
    assert recovered(own) == {"a0.h0@END": 0.0, "m1.n0@END": 1.0}
    assert missing(own) == {"a0.h0@END": {"a0.h1@END": (1.0, "member")}}
    assert own.unlinked == ((Head(0, 1), END),)
    text = rendered(found)
    assert re.search(r"^a0\.h0@END +0\.00 +does not restore it$", text, re.M)
    assert "a0.h1@END +1.00: a member: a link from it is missing" in text
    assert "on no path from the input to the logits: a0.h1@END" in text


def test_a_member_that_was_left_out_is_named(tmp_path: Path) -> None:
    left_out = (
        ("    second_switch: {nodes: [a0.h1], at: END}\n", ""),
        ("first_switch, second_switch -> lamp", "first_switch -> lamp"),
    )
    text = (TOYS / "and.circuit.yaml").read_text()
    claims = (text[text.index("claims:") :], "")
    found = found_of(tmp_path, "and", *left_out, claims)
    (own,) = found.sections
    assert missing(own) == {"a0.h0@END": {"a0.h1@END": (1.0, "no member")}}
    assert "a0.h1@END +1.00: not a member" in rendered(found)
    frame = tables(found)["cross-sections"].set_index("section")
    assert frame.loc["a0.h0@END", "missing"] == "a0.h1@END"
    assert frame.loc["a0.h0@END", "change"] == pytest.approx(1.0, abs=1e-4)
    assert frame.loc["a0.h0@END", "standing"] == "no member"
    assert list(frame["restores"]) == [False, True]
    assert frame.loc["m1.n0@END", "low"] == pytest.approx(1.0, abs=1e-4)


def test_what_a_neuron_reads_of_the_embeddings_is_missing_in_nobel(tmp_path: Path) -> None:
    """The neuron is an AND of the head and of the embedding of Peace, and no path says so."""
    found = sections_of(tmp_path, "nobel")
    assert recovered(found) == {"a0.h0@second": 0.0, "m1.n42@second": 1.0}
    assert missing(found) == {"a0.h0@second": {"input@second": (1.0, "input")}}
    whole = sections_of(
        tmp_path,
        "nobel",
        ("    - previous_token -> prize -> logits", "    - previous_token, input@second -> prize -> logits"),
    )
    assert recovered(whole) == {"m1.n42@second": 1.0}


def test_the_neuron_of_nobel_left_out_on_purpose(tmp_path: Path) -> None:
    text = (TOYS / "nobel.circuit.yaml").read_text()
    found = sections_of(
        tmp_path,
        "nobel",
        ("    prize: {nodes: [m1.n42], at: second}\n", ""),
        ("previous_token -> prize -> logits", "previous_token -> logits"),
        (text[text.index("claims:") :], ""),
    )
    assert recovered(found) == {"a0.h0@second": 0.0}
    assert missing(found) == {"a0.h0@second": {"m1@second": (1.0, "no member")}}


def test_a_negative_component_left_out_makes_a_section_recover_too_much(tmp_path: Path) -> None:
    """a0.h1 writes 10 to a difference that a1.h2 takes 5 off: restored alone it recovers 1.5, and a1.h2 brings -0.5."""
    text = (TOYS / "negative.circuit.yaml").read_text()
    start = text.index("circuit:\n")
    circuit = "circuit:\n  groups: {mover: {nodes: [a0.h1], at: END}}\n  paths: [mover -> logits]\n\n"
    found = found_of(
        tmp_path,
        "negative",
        (text[start : text.index("ablation:")], circuit),
        (text[text.index("claims:") :], ""),
    )
    (own,) = found.sections
    assert recovered(own) == {"a0.h1@END": 1.5}
    assert missing(own) == {"a0.h1@END": {"a1.h2@END": (-0.5, "no member")}}
    assert "restores too much" in rendered(found)
    assert "beside a0.h1@END a negative component is missing" in rendered(found)


def test_members_are_tried_however_small_their_estimates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXHAUSTIVE", 0)
    monkeypatch.setattr(module, "SCREENED", 0)
    found = sections_of(tmp_path, "and", ("first_switch, second_switch -> lamp", "first_switch -> lamp"))
    assert missing(found) == {"a0.h0@END": {"a0.h1@END": (1.0, "member")}}
    assert [one.tried for one in found.broken] == [1]


def test_estimates_beside_the_section_rank_what_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`negative` adds up, so that first-order estimates are exact: one candidate is enough."""
    monkeypatch.setattr(module, "EXHAUSTIVE", 0)
    monkeypatch.setattr(module, "SCREENED", 1)
    text = (TOYS / "negative.circuit.yaml").read_text()
    circuit = "circuit:\n  groups: {mover: {nodes: [a0.h1], at: END}}\n  paths: [mover -> logits]\n\n"
    found = sections_of(
        tmp_path,
        "negative",
        (text[text.index("circuit:\n") : text.index("ablation:")], circuit),
        (text[text.index("claims:") :], ""),
    )
    assert missing(found) == {"a0.h1@END": {"a1.h2@END": (-0.5, "no member")}}
    assert [one.tried for one in found.broken] == [1]


def test_so_many_cross_sections_are_restored_and_no_more(tmp_path: Path) -> None:
    found = found_of(tmp_path, "and", sections=1)
    (own,) = found.sections
    assert recovered(own) == {"a0.h0@END, a0.h1@END": 1.0}
    assert own.more
    assert "(the first 1, nearest to the input; there are more: --sections)" in rendered(found)


@pytest.mark.nightly
def test_drafts_have_cross_sections_without_links_too() -> None:
    """With the neuron free no link of a member reaches the logits: both switches are what must be restored."""
    for options in ({"free": ("m1",)}, {"free": ("m1",), "linked": 0}):
        found = explored("and", **options)
        drafted = found.sections[0]
        assert drafted.circuit == "the drafted circuit"
        assert drafted.assumed
        assert recovered(drafted) == {"a0.h0@END, a0.h1@END": 1.0}
        assert "no links are known that lead from the input to the logits" in rendered(found)
    drafted = explored("and", linked=0).sections[0]
    assert recovered(drafted) == {"a0.h0@END, a0.h1@END, m1@END": 1.0}


def test_a_file_without_paths_has_no_cross_sections(tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError) as error:
        found_of(tmp_path, "and", ("  paths:\n    - first_switch, second_switch -> lamp -> logits\n", ""))
    (found,) = error.value.diagnostics
    assert found.code == "CS541"
    assert "--sections-only: the file declares no paths" in found.message


def test_a_position_that_the_prompts_of_a_file_lack_is_refused(tmp_path: Path) -> None:
    prompt = {
        "clean": "Kitchen lamp: one switch on, one switch on, so it is",
        "corrupt": "Kitchen lamp: one switch off, one switch off, so it is",
        "answers": [" lit"],
        "wrong": [" dark"],
        "positions": {"END": 13},
    }
    (tmp_path / "prompts.jsonl").write_text(json.dumps(prompt) + "\n")
    file = tmp_path / "lacking.circuit.yaml"
    file.write_text(
        "circuitspec: 1\nname: lacking\nmodel: {id: 'zoo:and'}\ntask: {file: prompts.jsonl}\n"
        "circuit: {groups: {lamp: {nodes: [m1], at: MIDDLE}}, paths: [lamp -> logits]}\n"
    )
    with pytest.raises(CircuitspecError) as error:
        explore(load_exploration(file), ExploreOptions(sections_only=True), Quiet(), "explore")
    (found,) = error.value.diagnostics
    assert found.code == "CS507"
    assert "position `MIDDLE` is not in every prompt" in found.message


def test_the_table_of_sections_has_a_row_for_each() -> None:
    frame = sections_frame(explored("and"))
    assert set(frame["circuit"]) == {"the drafted circuit", "the file's circuit"}
    assert frame["missing"].isna().all()
    assert frame["tried"].isna().all()


SHAPE = ModelShape("llama", 4, 4, 2, 8, 2, 16, 100)


def graph_of(groups: dict[str, Any], paths: list[str], free: tuple[str, ...] = ()) -> Any:
    spec = CircuitSpec.model_validate({"groups": groups, "paths": paths, "free": free})
    return lay_out(spec, SHAPE, TEXT)


def test_links_of_a_declared_circuit_go_from_position_to_position() -> None:
    """A query is read where the head is, so that one of the sender's positions leads there; keys are read at all."""
    groups = {"first": {"nodes": ["a0.h0"], "at": ["S1", "S2"]}, "second": {"nodes": ["a1.h3"], "at": "S2"}}
    one, two, reader = (Head(0, 0), Where.at("S1")), (Head(0, 0), Where.at("S2")), (Head(1, 3), Where.at("S2"))
    found = declared_graph(graph_of(groups, ["first -> second<q> -> logits"]), all_positions=False)
    assert set(found.links.edges) == {(INPUT, two), (two, reader), (reader, LOGITS)}
    assert found.unlinked == (one,)
    found = declared_graph(graph_of(groups, ["first -> second<k> -> logits"]), all_positions=False)
    assert set(found.links.edges) == {(INPUT, one), (INPUT, two), (one, reader), (two, reader), (reader, LOGITS)}
    everywhere = declared_graph(graph_of(groups, ["first -> second<q> -> logits"]), all_positions=True)
    sender, reader = ((head, Where.everywhere()) for head in (Head(0, 0), Head(1, 3)))
    assert set(everywhere.links.edges) == {(INPUT, sender), (sender, reader), (reader, LOGITS)}
    written = declared_graph(graph_of(groups, ["a0.h0@S2 -> second<q> -> logits"]), all_positions=True)
    assert set(written.links.edges) == {(INPUT, two), (two, reader), (reader, LOGITS)}
    assert written.unlinked == ()
    groups["third"] = {"nodes": ["a0.h1"], "at": "S1"}
    written = declared_graph(graph_of(groups, ["a0.h0@S2 -> second<q> -> logits"]), all_positions=True)
    assert written.unlinked == ((Head(0, 1), Where.everywhere()),)


def test_paths_that_stop_before_the_logits_are_taken_to_write_there() -> None:
    groups = {"first": {"nodes": ["a0.h0"], "at": "END"}, "second": {"nodes": ["m1.n3", "a2.kv1"], "at": "END"}}
    found = declared_graph(graph_of(groups, ["input -> first -> second"]), all_positions=False)
    assert found.open_ended
    head, neuron, kv = ((c, END) for c in (Head(0, 0), Neuron(1, 3), KvHead(2, 1)))
    assert set(found.links.edges) == {(INPUT, head), (head, neuron), (head, kv), (neuron, LOGITS), (kv, LOGITS)}


def test_what_reaches_a_key_value_head_is_read_by_its_heads() -> None:
    groups = {"first": {"nodes": ["a0.h0"]}, "kv": {"nodes": ["a1.kv1"]}, "last": {"nodes": ["m2"], "at": "END"}}
    paths = ["first -> kv<k>", "a1.h2@END -> last -> logits", "a1.h0@END -> last"]
    found = declared_graph(graph_of(groups, paths), all_positions=False).links
    everywhere = Where.everywhere()
    assert set(found.successors((KvHead(1, 1), everywhere))) == {(Head(1, 2), END)}
    assert (Mlp(2), END) in found.successors((Head(1, 0), END))
