"""Exploring the toys gives back the circuits that were built into them, and the drafts hold."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.cli import main
from circuitspec.cli.outputs import command_line
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exploration.draft import missed_by, plain
from circuitspec.exploration.exploration_findings import ExplorationFindings, ExploreOptions
from circuitspec.exploration.output.exploration_figures import _curve, pictures
from circuitspec.exploration.output.exploration_tables import (
    effects_frame,
    frontier_frame,
    gates_frame,
    links_frame,
    tables,
)
from circuitspec.exploration.output.exploration_text import render_exploration as rendered
from circuitspec.exploration.output.exploration_warnings import exploration_warnings
from circuitspec.exploration.search.component_sweep import Effect
from circuitspec.exploration.search.path_search import Link
from circuitspec.graph.edges import Receiver
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp, Neuron
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.load_file import load_exploration, parse_exploration, parse_hypothesis
from circuitspec.pipelines.explore import explore
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.runtime.progress import Silent
from tests.waiting import without_progress

TOYS = Path(__file__).parents[2] / "hypotheses" / "toys"

# what each toy is made of: members (backup and negative ones so called), and the direct paths between them
KNOWN: dict[str, tuple[set[tuple[str, str, str]], set[str]]] = {
    "and": (
        {("a0.h0", "END", "positive"), ("a0.h1", "END", "positive"), ("m1", "END", "positive")},
        {"input -> a0.h0<v>", "input -> a0.h1<v>", "a0.h0 -> m1", "a0.h1 -> m1", "m1 -> logits"},
    ),
    "or": (
        {("a0.h0", "END", "positive"), ("a0.h1", "END", "positive"), ("m1", "END", "positive")},
        {"input -> a0.h0<v>", "input -> a0.h1<v>", "a0.h0 -> m1", "a0.h1 -> m1", "m1 -> logits"},
    ),
    "nobel": (
        {("a0.h0", "second", "positive"), ("m1", "second", "positive")},
        {"input -> a0.h0<v>", "input -> m1", "a0.h0 -> m1", "m1 -> logits"},
    ),
    "negative": (
        {("a0.h1", "END", "positive"), ("a1.h2", "END", "negative")},
        {"input -> a0.h1<v>", "input -> a1.h2<v>", "a0.h1 -> logits", "a1.h2 -> logits"},
    ),
    "mediation": (
        {("a0.h0", "END", "positive"), ("a1.h0", "END", "positive"), ("m1", "END", "positive")},
        {"input -> a0.h0<v>", "a0.h0 -> a1.h0<v>", "a1.h0 -> m1", "m1 -> logits"},
    ),
    "amplification": (
        {("a0.h0", "END", "positive"), ("a1.h0", "END", "positive"), ("m1", "END", "positive")},
        {"input -> a0.h0<v>", "a0.h0 -> a1.h0<v>", "a0.h0 -> m1", "a1.h0 -> m1", "m1 -> logits"},
    ),
}


class Quiet(Silent):
    """Nobody waits."""


@cache
def explored(toy: str, **options: Any) -> ExplorationFindings:
    path = TOYS / f"{toy}.circuit.yaml"
    return explore(load_exploration(path), ExploreOptions(**{"exact": 200, **options}), Quiet(), f"explore {path.name}")


def paths_of(text: str) -> set[str]:
    return {line.strip()[2:].partition(" #")[0] for line in text.splitlines() if " -> " in line and "- " in line}


@pytest.mark.parametrize("toy", sorted(KNOWN))
def test_the_known_circuit_comes_out(toy: str) -> None:
    found = explored(toy)
    members, paths = KNOWN[toy]
    honest = found.circuits[0]
    assert set(honest.entries) == members
    assert honest.recovered == pytest.approx(1.0, abs=1e-4)
    assert honest.knocked_out == pytest.approx(0.0, abs=1e-4)
    assert paths_of(honest.draft.text) == paths
    outcome = verify(parse_hypothesis(honest.draft.text, "draft.circuit.yaml", TOYS), VerifyOptions("off"), Quiet())
    assert outcome.verification.verdict == "SUPPORTED"


@pytest.mark.parametrize("start", ["estimates", pytest.param("resid", marks=pytest.mark.nightly)])
def test_an_mlp_is_the_neuron_that_does_what_it_does(start: str) -> None:
    """Of the 64 neurons of m1 one alone makes Prize of Nobel and Peace, as the toy was built."""
    found = explored("nobel", start=start, neurons=True)
    for circuit in found.circuits:
        assert set(circuit.entries) == {("a0.h0", "second", "positive"), ("m1.n42", "second", "positive")}
        assert circuit.recovered == pytest.approx(1.0, abs=1e-4)
        assert "- m1.n42 # (1.00, 1.00)" in circuit.draft.text
    text = found.circuits[0].draft.text
    assert paths_of(text) == {"input -> a0.h0<v>", "input -> m1.n42", "a0.h0 -> m1.n42", "m1.n42 -> logits"}
    outcome = verify(parse_hypothesis(text, "draft.circuit.yaml", TOYS), VerifyOptions("off"), Quiet())
    assert outcome.verification.verdict == "SUPPORTED"


def test_a_backup_is_found_behind_the_head_it_backs_up() -> None:
    found = explored("backup")
    honest, helpful = found.circuits
    assert set(honest.entries) == {("a0.h2", "END", "positive"), ("a1.h1", "END", "backup")}
    assert honest.knocked_out == pytest.approx(0.0, abs=1e-4)
    # without it the circuit recovers as much, and its removal leaves 0.7 of the behaviour: (7 - 5 + 5) / 10
    assert set(helpful.entries) == {("a0.h2", "END", "positive")}
    assert helpful.knocked_out == pytest.approx(0.7, abs=1e-4)
    assert "a0.h2 -> a1.h1<q>" in paths_of(honest.draft.text)


def test_leaving_out_what_hurts_looks_better_and_is_shown_beside() -> None:
    honest, helpful = explored("negative").circuits
    assert (honest.recovered, helpful.recovered) == (pytest.approx(1.0, abs=1e-4), pytest.approx(1.5, abs=1e-4))
    assert [entry[2] for entry in helpful.entries] == ["positive"]


def test_a_draft_claims_the_same_whatever_its_circuit_does() -> None:
    """CS413. Without the head that hurts, 1.5 is recovered: (12 - 0 + 0) / 8. The draft is refuted, and says so."""
    found = explored("negative")
    honest, helpful = found.circuits
    assert not honest.draft.misses
    claim = "sufficient: {metric: logit_diff, at_least: 0.8, at_most: 1.2}"
    assert claim in honest.draft.text
    assert claim in helpful.draft.text
    said = "recovered logit_diff 1.50 [1.50, 1.50] is outside 0.8 .. 1.2, which the draft claims"
    assert f"# FALLS SHORT: {said}." in helpful.draft.text
    (warning,) = [one for one in exploration_warnings(found) if one.code == "CS413"]
    assert warning.message == f"the circuit helpful only falls short: {said}"
    outcome = verify(parse_hypothesis(helpful.draft.text, "draft.circuit.yaml", TOYS), VerifyOptions("off"), Quiet())
    assert outcome.verification.verdict == "REFUTED"
    # the backup does 0.7 of the work when the head it backs up is out
    (left,) = [one for one in exploration_warnings(explored("backup")) if one.code == "CS413"]
    assert "with the circuit ablated 0.70 is left, where the draft claims at most 0.3" in left.message


def test_where_a_circuit_misses() -> None:
    ends = (
        (0.95, 0.9, 1.0),
        (0.85, 0.75, 0.95),
        (0.0, -0.02, 0.02),
        (0.1, 0.05, 0.15),
        (0.28, 0.2, 0.35),
        (0.5, 0.4, 0.6),
    )
    good, wide, low, little, doubtful, much = (Estimate(*three, level=0.95, n=10, method="bca") for three in ends)
    assert missed_by(good, little, "kl", 0.9) == ()
    assert missed_by(wide, little, "kl", None) == (
        "recovered kl 0.85 [0.75, 0.95] is not all within 0.8 .. 1.2, which the draft claims",
    )
    assert missed_by(low, little, "kl", 0.9) == (
        "recovered kl 0.00 [-0.02, 0.02] is outside 0.8 .. 1.2, which the draft claims",
        "recovered kl 0.00 misses the target 0.9",
    )
    assert missed_by(good, doubtful, "kl", 0.9) == (
        "with the circuit ablated 0.28 [0.20, 0.35] is left, not all of it at most 0.3, as the draft claims",
    )
    assert missed_by(good, much, "kl", 0.9) == (
        "with the circuit ablated 0.50 is left, where the draft claims at most 0.3",
    )


def test_drafts_have_names_of_their_own_and_say_what_was_spared() -> None:
    """On OR either switch is enough, so that the helpful circuit spares one; the honest one has both."""
    found = explored("or")
    honest, helpful = found.circuits
    assert "\nname: toy-or\n" in honest.draft.text
    assert "\nname: toy-or-helpful\n" in helpful.draft.text
    (spared,) = {("a0.h0", "END"), ("a0.h1", "END")} - {entry[:2] for entry in helpful.entries}
    assert helpful.spared == (spared,)
    assert honest.spared == ()
    assert f"helpful components left out: {spared[0]}@END." in helpful.draft.text
    assert f"helpful left out: {spared[0]}@END" in rendered(found)


def test_members_that_were_not_patched_alone_show_their_estimates() -> None:
    """With one patched, the head that hurts is found by its estimate: -4 of 8, exact where heads only add up."""
    text = explored("negative", exact=1, drawn=0).circuits[0].draft.text
    assert "- a1.h2 # (-0.50, -0.50)" in text  # by the 12 prompts of 36 that were held out, on which all are patched
    every = (TOYS / "negative.circuit.yaml").read_text("utf-8").replace("prompts: 24", "prompts: 30")
    study = parse_exploration(every, "negative.circuit.yaml", TOYS)
    found = explore(study, ExploreOptions(exact=1, drawn=0), Quiet(), "explore")
    text = found.circuits[0].draft.text
    assert "- a1.h2 # (~-0.50, ~-0.50)" in text
    assert "(-, -)" not in text
    assert found.not_judged == "the word lists give too few other prompts"


def test_a_draft_says_how_it_was_made_and_not_where(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = "circuitspec explore /a/b.yaml --free m* --store /tmp/s --output-dir=/tmp/o --no-store --draft /c/d.yaml"
    monkeypatch.setattr("sys.argv", typed.split())
    assert command_line(Path("/a/b.yaml")) == "circuitspec explore b.yaml --free 'm*' --draft d.yaml"


def test_names_that_yaml_takes_for_something_else_are_quoted(tmp_path: Path) -> None:
    """A position called `false` and a corruption called `null`: the draft is read, and holds."""
    text = (TOYS / "and.circuit.yaml").read_text("utf-8")
    text = text[: text.index("\ncircuit:")].replace("{END: last}", '{"false": last}').replace("both: ", '"null": ')
    file = tmp_path / "own.yaml"
    file.write_text(text, "utf-8")
    found = explore(load_exploration(file), ExploreOptions(), Quiet(), "explore")
    for circuit in found.circuits:
        draft = parse_hypothesis(circuit.draft.text, "draft.circuit.yaml", tmp_path)
        claims = verify(draft, VerifyOptions("off"), Quiet()).verification.claims
        assert [claim.status for claim in claims] == ["SUPPORTED", "SUPPORTED"]
        assert '      at: "false"\n' in circuit.draft.text
        assert '{value: mean_per_template, from: "null", ' in circuit.draft.text
    plainly = {"END": "END", "S1+1": "S1+1", "S#2": "S#2", "12": '"12"', "a b": '"a b"', "a, b": '"a, b"', "~": '"~"'}
    assert {name: plain(name) for name in plainly} == plainly


def test_every_pair_of_the_scan_is_shown() -> None:
    """On OR the gate with either head is none of the textbook's: noised the gate alone breaks it."""
    found = explored("or")
    assert len(found.gates) == 3
    assert [g.finding.kind for g in found.gates].count("input of an OR") == 2
    text = rendered(found)
    for pair in found.gates:
        assert f"{format_name(pair.first)}, {format_name(pair.second)}   " in text
    assert text.count("interaction: what two members do alone, added up, less what both do together") == 1
    halves = [g.finding.kind for g in explored("and").gates if Mlp(1) in (g.first, g.second)]
    assert halves == ["input of an AND"] * 2


def test_paths_are_drawn_at_random_too() -> None:
    found = explored("and", paths=1, drawn=1000)
    links = found.links
    assert links.drawn is not None
    assert (links.chosen, links.drawn.count) == (1, links.candidates - 1)
    assert links.drawn.population == links.candidates - 1
    assert links.drawn.at_most == pytest.approx(len(links.drawn.mattering) / links.drawn.count)
    (warning,) = [w for w in exploration_warnings(found) if w.code == "CS411" and "paths" in w.data]
    assert warning.message.startswith(f"of {links.drawn.count} paths drawn at random from the {links.drawn.count} with")
    assert {"a0.h0 -> m1", "a0.h1 -> m1"} <= {links.name_of(link) for link in (*links.drawn.mattering, *links.found)}


def test_effects_are_those_of_arithmetic_and_estimates_fail_where_they_must() -> None:
    """On AND the gate is flat in the corrupt run, on OR in the clean one: a gradient there sees nothing."""
    for toy, drop, rise in (("and", 1.0, 0.0), ("or", 0.0, 1.0)):
        frame = effects_frame(explored(toy)).set_index(["component", "position"])
        for head in ("a0.h0", "a0.h1"):
            row = frame.loc[head, "END"]
            assert (row["drop"], row["rise"]) == (pytest.approx(drop, abs=1e-4), pytest.approx(rise, abs=1e-4))
            assert row["drop_estimate"] == pytest.approx(drop, abs=1e-3)
            assert row["rise_estimate"] == pytest.approx(rise, abs=1e-3)
        assert frame.loc[("m1", "END"), "drop"] == pytest.approx(1.0, abs=1e-4)


def test_which_component_reacts_to_which_corruption() -> None:
    """The previous-token head carries Nobel, not Peace; the neuron takes both (Heimersheim & Nanda, section 2.6)."""
    found = explored("nobel")
    assert found.traces is not None
    head, mlp = (found.traces.reactions[c, "second"] for c in (Head(0, 0), Mlp(1)))
    close = pytest.approx
    assert [head[name].drop for name in ("random", "x_peace", "nobel_y")] == close([1.0, 1.0, 0.0], abs=1e-4)
    assert [mlp[name].drop for name in ("random", "x_peace", "nobel_y")] == close([1.0, 1.0, 1.0], abs=1e-4)
    # the other half of the AND is there in the run of X Peace, and missing in the two others
    assert [head[name].rise for name in ("random", "x_peace", "nobel_y")] == close([0.0, 1.0, 0.0], abs=1e-4)
    assert found.traces.traced((Head(0, 0), "second")) == ("random", "x_peace")
    frame = tables(found)["traces"].set_index(["component", "position", "corruption"])
    assert not frame.loc[("a0.h0", "second", "nobel_y"), "reacts"]
    assert frame.loc[("a0.h0", "second", "x_peace"), "rise"] == close(1.0, abs=1e-4)
    assert re.search(r"^a0\.h0@second +1\.00 0\.00 +1\.00 1\.00 +0\.00 0\.00 +random, x_peace", rendered(found), re.M)
    drawn = pictures(found)
    assert "a0.h0@second" in drawn["traces-noising"].standalone()
    assert {"traces-noising", "traces-denoising"} <= set(drawn)


def test_a_component_that_reacts_to_another_corruption_alone_is_seen_too(tmp_path: Path) -> None:
    """Explored with the first switch corrupted, the head that reads the second does nothing; it is traced anyway."""
    file = tmp_path / "bare.yaml"
    file.write_text(
        FILE.replace("{CORRUPTIONS}", "{first: {A: $stops}, second: {B: $stops}}")
        + "ablation: {value: resample, from: first}\n"
    )
    found = explore(load_exploration(file), ExploreOptions(exact=3), Quiet(), "explore")
    assert found.traces is not None
    second = found.traces.reactions[Head(0, 1), "END"]
    assert (second["first"].drop, second["second"].drop) == (pytest.approx(0.0), pytest.approx(1.0, abs=1e-4))
    assert found.traces.traced((Head(0, 1), "END")) == ("second",)


def test_links_are_estimated_then_the_largest_are_patched() -> None:
    """`negative` has no gate: heads add to the logits, so that estimates to first order are the effects themselves."""
    found = explored("negative").links
    assert len(found.found) == found.candidates
    for link in found.found:
        assert link.drop_estimate == pytest.approx(link.drop, abs=2e-3)
        assert link.rise_estimate == pytest.approx(link.rise, abs=2e-3)
    assert found.overlap is not None
    assert found.overlap[1] == 1.0
    few = explored("negative", paths=2, drawn=0)
    largest = sorted((link.estimated for link in found.found), reverse=True)[:2]
    assert [link.estimated for link in few.links.found] == pytest.approx(largest, abs=1e-6)
    assert list(few.links.names) == [names for names in found.names if names in few.links.names]
    left = found.candidates - 2
    assert f"{left} of {found.candidates} paths between members: their estimates are smaller" in rendered(few)
    assert f"2 of {found.candidates} direct paths between members patched exactly" in rendered(few)


def test_ranks_of_links_disagree_where_a_gate_is_flat() -> None:
    """Half of an AND restores nothing, and its estimate says so; noised, every link of the circuit is all of it."""
    found = explored("and").links
    drops = {names: (link.drop, link.drop_estimate) for link, names in zip(found.found, found.names, strict=True)}
    assert drops["a0.h0", "m1"] == (pytest.approx(1.0, abs=1e-4), pytest.approx(1.0, abs=1e-3))
    assert drops["input", "m1"] == (pytest.approx(0.0, abs=1e-4), pytest.approx(0.0, abs=1e-3))
    assert found.agreement[0] is not None
    assert found.agreement[0] > 0.8
    assert "rank agreement of estimates and exact effects: " in rendered(explored("and"))


@pytest.mark.parametrize(
    ("toy", "pair", "kind"),
    [
        ("and", {"a0.h0", "a0.h1"}, "and"),
        ("or", {"a0.h0", "a0.h1"}, "or"),
        ("backup", {"a0.h2", "a1.h1"}, "backup"),
        ("negative", {"a0.h1", "a1.h2"}, "additive"),
        ("mediation", {"a0.h0", "a1.h0"}, "mediation"),
        ("amplification", {"a0.h0", "a1.h0"}, "amplification"),
    ],
)
def test_gates_of_the_toys(toy: str, pair: set[str], kind: str) -> None:
    found = explored(toy)
    (gate,) = [g for g in found.gates if {format_name(g.first), format_name(g.second)} == pair]
    assert gate.finding.kind == kind


def test_gates_come_with_intervals() -> None:
    """AND: either noised breaks all that both do, (1 + 1 - 1) / 1; neither alone restores anything, (0 + 0 - 1) / 1."""
    found = explored("and")
    frame = gates_frame(found)
    pair = frame[(frame["first"] + frame["second"]).isin(["a0.h0a0.h1", "a0.h1a0.h0"])].set_index("direction")
    for direction, alone, expected in (("noising", 1.0, 1.0), ("denoising", 0.0, -1.0)):
        row = pair.loc[direction]
        assert (row["first_alone"], row["second_alone"], row["both"]) == pytest.approx((alone, alone, 1.0), abs=1e-4)
        assert row["interaction"] == pytest.approx(expected, abs=1e-3)
        assert row["low"] <= row["interaction"] <= row["high"]
        assert row["high"] - row["low"] < 0.01  # prompts of a toy differ by next to nothing
    assert "1.00 1.00, 1.00" in rendered(found)


@pytest.mark.nightly
def test_cross_sections_restore_and_half_of_one_does_not() -> None:
    """On AND both heads together are a cross-section, and so is the gate; each restores all of the behaviour."""
    drafted, declared = explored("and").sections
    assert {s.components for s in drafted.found} == {(Head(0, 0), Head(0, 1)), (Mlp(1),)}
    assert {s.components for s in declared.found} == {(Head(0, 0), Head(0, 1)), (Neuron(1, 0),)}
    assert all(s.restores and not s.missing for sections in (drafted, declared) for s in sections.found)
    # with one switch free, the other alone is taken for a cross-section, and the free one is not there to be named
    half = explored("and", free=("a0.h1",)).sections[0]
    (first, gate) = half.found
    assert not first.restores
    assert first.recovered.value == pytest.approx(0.0, abs=1e-4)
    assert gate.restores
    # on mediation every stage restores it, on amplification the booster alone is no cross-section
    assert len(explored("mediation").sections[0].found) == 3
    assert [s.restores for s in explored("amplification").sections[0].found] == [True, True]


def test_free_components_are_left_out() -> None:
    found = explored("and", free=("m*",))
    assert {component for component, _, _ in found.circuits[0].entries} == {"a0.h0", "a0.h1"}
    assert "free: [m*]" in found.circuits[0].draft.text


def test_the_report_and_its_tables() -> None:
    found = explored("negative")
    text = rendered(found)
    assert "circuit with negatives: recovered 1.00 [1.00, 1.00], 2 of 8 heads" in text
    assert "circuit helpful only: recovered 1.50" in text
    assert re.search(r"^a1\.h2@END +-0\.50 +-0\.50", text, re.MULTILINE)
    assert len(effects_frame(found)) == 10 * 3  # 8 heads and 2 MLPs, at three positions
    assert set(frontier_frame(found)["circuit"]) == {"with negatives", "helpful only"}
    for _, tried in frontier_frame(found).groupby("circuit"):
        size, near = tried["entries"], 1 - (1 - tried["recovered"]).abs()
        for own in tried.index:
            better = (size <= size[own]) & (near >= near[own]) & ((size < size[own]) | (near > near[own]))
            assert tried["pareto"][own] == (not better.any())
    for circuit, curve in zip(found.circuits, map(_curve, found.circuits), strict=True):
        assert [point.size for point in curve.points] == sorted({p.entries for p in circuit.frontier if p.pareto})
    assert re.search(r"^ +1 +1 +1\.50 \[1\.50, 1\.50\] +\*", text, re.MULTILINE)
    columns = {"sender", "receiver", "drop", "rise", "drop_estimate", "rise_estimate", "drop_prompts", "rise_prompts"}
    assert columns == set(links_frame(found).columns)


def test_pictures_say_what_the_tables_say() -> None:
    drawn = pictures(explored("negative"))
    assert set(drawn) == {"layers-and-positions", "layers-and-heads", "frontier", "circuit"}
    root = ET.fromstring(drawn["circuit"].standalone().encode())
    words = {e.text for e in root.iter() if e.text}
    assert any("a1.h2" in word for word in words)
    assert "1.50" in drawn["layers-and-heads"].alt
    assert "without" in drawn["frontier"].title


def circuit_picture(entries: tuple[tuple[str, str, str], ...], links: tuple[Link, ...]) -> str:
    found = explored("negative")
    drawn = replace(found.circuits[0], entries=entries)
    return pictures(replace(found, circuits=(drawn,), links=replace(found.links, found=links)))["circuit"].standalone()


def test_a_component_at_two_positions_is_one_node_of_the_picture() -> None:
    """A link is patched from all positions of its sender: none of them is singled out."""
    receiver = Receiver(Head(1, 2), "q")
    link = Link(Head(0, 1), Head(1, 2), receiver, 0.5, 0.2, 0.0, 0.0)
    role = next(role for role in explored("negative").roles if role != "END")
    entries = (("a0.h1", role, "negative"), ("a0.h1", "END", "positive"), ("a1.h2", "END", "negative"))
    drawn = circuit_picture(entries, (link,))
    words = re.findall(r">([^<>]+)</text>", drawn)
    assert words.count("a0.h1") == 1
    both = ", ".join(sorted((role, "END"), key=explored("negative").roles.index))
    assert both in words
    assert "heads, several effects" in words
    assert "negative" in words  # the outline is explained by itself, not on the swatch of the heads
    assert f"a0.h1@{both} -&gt; a1.h2@END: effect 0.50" in drawn


@pytest.mark.nightly
def test_heads_of_an_or_are_seen_in_the_panel_of_denoising() -> None:
    """Noising either does nothing, restoring either all: 1.00 twice in one panel, and effects do not cancel."""
    alt = pictures(explored("or"))["layers-and-heads"].alt
    noising, denoising = alt.split("Heatmap of restored: rise")
    assert "1.00" not in noising
    assert "largest 1.00 at layer 0, head" in denoising
    effects = [Effect(Head(0, 3), Where.at(role), drop, 0.0, drop, 0.0) for role, drop in (("A", -0.09), ("B", 0.1))]
    found = explored("or")
    alt = pictures(replace(found, sweep=replace(found.sweep, effects=tuple(effects))))["layers-and-heads"].alt
    assert "largest 0.10 at layer 0, head 3" in alt


def test_frontiers_stand_side_by_side_in_text() -> None:
    """Of `negative`: one entry recovers 1.5 in either circuit, and with the negative head 1 in the one with it."""
    text = rendered(explored("negative"))
    assert re.search(r"^  entries +heads +recovered with negatives +heads +recovered helpful only", text, re.M)
    assert re.search(r"^  1 +1 +1\.50 .*1 +1\.50", text, re.M)


FILE = """
circuitspec: 1
name: bare
model: {id: "zoo:and"}
task:
  templates: ["{room} lamp: one switch {A}, one switch {B}, so it is"]
  slots: {room: $rooms, A: $flows, B: $flows}
  lists: {rooms: [Kitchen, Hall, Cellar], flows: ["on", closed, up], stops: ["off", open, down]}
  answer: " lit"
  wrong: " dark"
  corruptions: {CORRUPTIONS}
  positions: {END: last}
  prompts: 12
"""


def test_model_and_task_are_enough_and_the_draft_takes_another_task(tmp_path: Path) -> None:
    bare, fresh = tmp_path / "bare.yaml", tmp_path / "fresh.yaml"
    bare.write_text(FILE.replace("{CORRUPTIONS}", "{both: {A: $stops, B: $stops}}"))
    fresh.write_text(bare.read_text().replace("Kitchen, Hall, Cellar", "Attic, Garden, Porch") + "# the end\n")
    found = explore(load_exploration(bare), ExploreOptions(), Quiet(), "explore bare.yaml", load_exploration(fresh))
    assert found.ablation == "{value: mean_per_template, from: both, level: node, positions: declared}"
    text = found.circuits[0].draft.text
    assert "Attic, Garden, Porch" in text
    assert "Kitchen" not in text
    outcome = verify(parse_hypothesis(text, "draft.circuit.yaml", tmp_path), VerifyOptions("off"), Quiet())
    assert outcome.verification.verdict == "SUPPORTED"


@pytest.mark.parametrize(
    ("corruptions", "more", "said"),
    [
        ("{}", "", "the prompts have no corruption"),
        ("{room: {room: $rooms}}", "", "does not break the behaviour"),
    ],
)
def test_what_cannot_be_explored(tmp_path: Path, corruptions: str, more: str, said: str) -> None:
    file = tmp_path / "bare.yaml"
    file.write_text(FILE.replace("{CORRUPTIONS}", corruptions) + more)
    with pytest.raises(CircuitspecError) as error:
        explore(load_exploration(file), ExploreOptions(), Quiet(), "explore")
    assert [d.code for d in error.value.diagnostics] == ["CS541"]
    assert said in error.value.diagnostics[0].message


@pytest.mark.parametrize(("corruption", "prompts"), [("{A: $stops, B: $stops}", 1), ("{room: $rooms}", 12)])
def test_one_prompt_cannot_tell_whether_the_behaviour_breaks(tmp_path: Path, corruption: str, prompts: int) -> None:
    """With both switches off the lamp is dark, though no interval says so; another room changes nothing at all."""
    file = tmp_path / "bare.yaml"
    text = FILE.replace("{CORRUPTIONS}", f"{{other: {corruption}}}").replace("prompts: 12", f"prompts: {prompts}")
    file.write_text(text + "ablation: {value: resample, from: other}\n")
    with pytest.raises(CircuitspecError) as error:
        explore(load_exploration(file), ExploreOptions(), Quiet(), "explore")
    (found,) = error.value.diagnostics
    assert found.code == "CS541"
    doubtful = found.message.startswith("1 prompt cannot tell whether ablating everything breaks the behaviour: ")
    assert doubtful == (prompts == 1)
    assert (found.hint == "take 10 prompts or more") == doubtful


def drafting(folder: Path, *arguments: str) -> tuple[int, str, str, set[str]]:
    """Exit code, report, errors and the drafts that were written."""
    drafts = ("--draft", str(folder / "all.yaml"), "--draft-helpful", str(folder / "helpful.yaml"))
    ran = CliRunner().invoke(main, ["explore", *arguments, *drafts, "--no-store"])
    return ran.exit_code, ran.stdout, ran.stderr, {path.name for path in folder.glob("*.yaml")}


NOTHING = (
    "nothing that was swept changes logit_diff by 0.05 or more of clean - corrupt; with all of it ablated 1.00 is "
    "recovered"
)


@pytest.mark.parametrize("start", [(), pytest.param(("--start", "resid"), marks=pytest.mark.nightly)])
def test_where_nothing_acts_there_is_no_draft(start: tuple[str, ...], tmp_path: Path) -> None:
    """In the negative toy the heads do it all: with these free, the MLPs change nothing."""
    file = str(TOYS / "negative.circuit.yaml")
    code, out, err, written = drafting(tmp_path, file, "--free", "a*", *start)
    assert (code, written) == (5, set())
    assert out.count("warning[CS414]: ") == 1
    assert f"warning[CS414]: {NOTHING}\n" in out
    assert "what is free, or reads the embeddings directly, does the task\n" in out
    assert "CS413" not in out
    for name in ("all", "helpful"):
        assert f"error[CS543]: {tmp_path / name}.yaml is not written: {NOTHING}\n" in err
    page = tmp_path / "page.html"
    ran = CliRunner().invoke(main, ["explore", file, "--free", "a*", *start, "--no-store", "--html", str(page)])
    assert (ran.exit_code, without_progress(ran.stderr)) == (0, "")
    assert "at_least: 0.8" not in page.read_text("utf-8")  # no draft in it


def test_where_the_allowance_ends_first_nothing_is_said_of_what_was_not_swept(tmp_path: Path) -> None:
    """Twelve forwards estimate nothing and patch nothing: that is no circuit, and none that is known to be empty."""
    file = TOYS.parent / "ioi-tiny.circuit.yaml"
    code, out, err, written = drafting(tmp_path, str(file), "--free", "m*", "--max-forwards", "12")
    assert (code, written) == (5, set())
    assert "error[CS542]: --max-forwards 12 ended before a circuit was chosen: " in err
    assert "a circuit (with negatives)" in out
    assert "warning[CS412]" in out
    assert "CS414" not in out
    assert "CS543" not in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--draft", "a.yaml", "--draft-helpful", "./a.yaml"),
            "--draft-helpful would replace a.yaml, which is --draft",
        ),
        (("--draft", "own.circuit.yaml"), "--draft would replace own.circuit.yaml, which is FILE"),
        (("--draft", "t.yaml", "--task-from", "t.yaml"), "--draft would replace t.yaml, which is --task-from"),
    ],
)
def test_drafts_replace_nothing_they_are_made_from(
    options: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("own.circuit.yaml", "t.yaml"):
        Path(name).write_bytes((TOYS / "and.circuit.yaml").read_bytes())
    ran = CliRunner().invoke(main, ["explore", "own.circuit.yaml", *options, "--no-store"])
    assert (ran.exit_code, said in ran.stderr) == (2, True)
    assert {path.name for path in tmp_path.iterdir()} == {"own.circuit.yaml", "t.yaml"}
    assert Path("own.circuit.yaml").read_bytes() == (TOYS / "and.circuit.yaml").read_bytes()


def test_of_what_only_hurts_there_is_no_draft_of_helpful_ones(tmp_path: Path) -> None:
    """With the naming head free, the one against it is all there is: without it 1.5 is recovered, and more is worse."""
    code, out, err, written = drafting(tmp_path, str(TOYS / "negative.circuit.yaml"), "--free", "a0")
    assert (code, written) == (5, {"all.yaml"})
    said = (
        "of what was swept nothing is in the circuit helpful only: with all of it ablated 1.50 is recovered, and the "
        "target of 0.9 is met by nothing"
    )
    assert f"warning[CS414]: {said}\n" in out
    assert f"error[CS543]: {tmp_path / 'helpful.yaml'} is not written: {said}\n" in err
    assert "- a1.h2 # (-0.50, -0.50)" in (tmp_path / "all.yaml").read_text("utf-8")


def test_names_to_leave_free_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "bare.yaml"
    file.write_text(FILE.replace("{CORRUPTIONS}", "{both: {A: $stops, B: $stops}}"))
    with pytest.raises(CircuitspecError) as error:
        explore(load_exploration(file), ExploreOptions(free=("m7", "9.10")), Quiet(), "explore")
    assert sorted(d.code for d in error.value.diagnostics) == ["CS220", "CS541"]


@pytest.mark.parametrize("name", ["m1.n0", "m1.n*", "r1", "input", "a0.h0<q>", "a0.h0@END", "m1@END"])
def test_what_cannot_be_left_free_is_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / "bare.yaml"
    file.write_text(FILE.replace("{CORRUPTIONS}", "{both: {A: $stops, B: $stops}}"))
    with pytest.raises(CircuitspecError) as error:
        explore(load_exploration(file), ExploreOptions(free=("a0", name)), Quiet(), "explore")
    (found,) = error.value.diagnostics
    assert found.code == "CS541"
    assert found.message.startswith(f"--free {name}: ")
