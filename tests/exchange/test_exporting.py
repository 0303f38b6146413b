"""From a hypothesis to a circuit file: which edges, and what is said to be lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exchange.edge_lists import Size
from circuitspec.exchange.exchange_formats import FORMATS, FormatName
from circuitspec.exchange.exporting import Exported, export_circuit
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from tests.exchange.support import SMALL, edges, findings, kinds, losses_of
from tests.exchange.test_importing import llama

TEXT = """\
circuitspec: 1
name: small
model: {{id: {model}}}
task:
  templates: ["Then {{IO}} and {{S1}} went home. {{S2}} gave a ring to"]
  slots: {{IO: $names, S1: $names, S2: =S1}}
  lists: {{names: [Mary, John, Tom, James, Anna, Paul]}}
  answer: " {{IO}}"
  wrong: " {{S1}}"
  corruptions: {{abc: {{IO: $names, S1: $names, S2: $names}}}}
  positions: {{END: last}}
circuit:
{circuit}
ablation: {{value: resample, from: abc, level: {level}, positions: {positions}}}
claims:
  - sufficient: {{metric: logit_diff, at_least: 0.8}}
"""

CIRCUIT = """\
  groups:
    movers: {nodes: [a0.h1], at: S1}
    copiers: {nodes: [a1.h0, a1.h1], at: END}
    against: {nodes: [m1], effect: negative}
  paths:
    - input -> movers<v>
    - movers -> copiers<k>
    - copiers -> logits
"""
ALL = edges("input->a0.h1<v>", "a0.h1->a1.h0<k>", "a0.h1->a1.h1<k>", "a1.h0->logits", "a1.h1->logits")


def export(
    circuit: str = CIRCUIT,
    name: FormatName = "eap",
    size: Size | None = SMALL,
    level: str = "edge",
    positions: str = "declared",
    model: str = "openai-community/gpt2-of-two-layers",
    folder: Path | None = None,
    out: str = "",
) -> Exported:
    text = TEXT.format(circuit=circuit, level=level, positions=positions, model=model)
    path = Path(out or f"x{FORMATS[name].suffixes[0]}")
    return export_circuit(parse_hypothesis(text, base_dir=folder), name, path, size)


def test_paths_become_edges_and_the_rest_is_told() -> None:
    found = export()
    assert found.edges.edges == ALL
    kept = {name for name, info in json.loads(found.content)["edges"].items() if info["in_graph"]}
    assert kept == {"input->a0.h1<v>", "a0.h1->a1.h0<k>", "a0.h1->a1.h1<k>", "a1.h0->logits", "a1.h1->logits"}
    assert kinds(found.losses) == {"positions", "roles", "signs", "dangling", "claims", "scores"}
    assert losses_of(found, "positions") == ["4 edges kept at some token positions now lie at all of them"]
    assert losses_of(found, "roles") == ["the groups movers, copiers, against are not named"]
    assert losses_of(found, "signs") == ["that against are negative or backup components is not said"]
    assert losses_of(found, "dangling") == ["members of against that no path names are left out"]
    assert "1 claim" in losses_of(found, "claims")[0]


def test_at_all_positions_none_are_lost() -> None:
    found = export(positions="all")
    assert found.edges.edges == ALL
    assert not losses_of(found, "positions")


def test_another_level_is_told() -> None:
    assert losses_of(export(level="node"), "ablation") == [
        "the hypothesis ablates at node level; its paths are written as edges that are kept"
    ]


def test_edges_of_free_components_are_part_of_what_is_kept() -> None:
    circuit = "  groups: {movers: {nodes: [a0.h1]}}\n  free: [m0]\n  paths: [input -> movers<v>, movers -> logits]"
    found = export(circuit)
    assert found.edges.edges == edges("input->a0.h1<v>", "a0.h1->logits", "input->m0", "a0.h1->m0", "m0->logits")
    assert losses_of(found, "free") == [
        "there is no `free`: 3 edges of the free components are written as part of the circuit"
    ]


def test_shared_keys_are_written_for_each_head(tmp_path: Path) -> None:
    circuit = "  groups: {movers: {nodes: [a0.h1]}}\n  paths: [input -> a0.h1<k>, movers -> logits]"
    found = export(circuit, model=llama(tmp_path), folder=tmp_path, size=None)
    assert found.edges.size == Size(2, 4, 4, 16)
    assert found.edges.edges == edges("input->a0.h0<k>", "input->a0.h1<k>", "a0.h1->logits")
    assert losses_of(found, "sharing")


def test_without_paths_there_is_nothing_to_export() -> None:
    with pytest.raises(CircuitspecError) as error:
        export("  groups: {movers: {nodes: [a0.h1]}}\n  free: [m*]", level="node")
    (found,) = findings(error)
    assert found.code == "CS389"
    assert found.span is not None
    assert found.span.line == 12


def test_the_name_must_be_one_that_the_tool_reads() -> None:
    for name, out in (
        ("interpbench", "edges.json"),
        ("edge-pruning", "edges.pkl"),
        ("eap", "graph.txt"),
        ("acdc", "x.pkl"),
    ):
        with pytest.raises(CircuitspecError) as error:
            export(name=name, out=out)  # type: ignore[arg-type]
        assert findings(error)[0].code == "CS389"


def test_the_size_of_the_model_must_be_known() -> None:
    with pytest.raises(CircuitspecError) as error:
        export(size=None)
    (found,) = findings(error)
    assert found.code == "CS386"
    assert found.span is not None
    assert found.span.line == 3
    assert "--size" in found.hint


def test_neurons_are_refused_with_what_to_write_instead(tmp_path: Path) -> None:
    """The MLPs of zoo:ioi-tiny have 256 neurons: nothing is said to be missing in the model."""
    circuit = (
        "  groups: {some: {nodes: [m0.n4, 'm1.n*']}}\n"
        "  free: ['m[2-3].n7']\n"
        "  paths: [input -> some, some -> logits, input -> m0.n255 -> logits]"
    )
    for model, size in (("zoo:ioi-tiny", None), ("openai-community/gpt2-of-two-layers", SMALL)):
        with pytest.raises(CircuitspecError) as error:
            export(circuit, size=size, model=model, folder=tmp_path, level="node")
        whole = "is part of an MLP, and the formats hold MLPs whole"
        assert [(d.code, d.message, d.hint) for d in findings(error)] == [
            ("CS389", f"m0.n4 {whole}", "write its MLP: m0"),
            ("CS389", f"m1.n* {whole}", "write its MLP: m1"),
            ("CS389", f"m[2-3].n7 {whole}", "write its MLP: m[2-3]"),
            ("CS389", f"m0.n255 {whole}", "write its MLP: m0"),
        ]
        assert all(d.span is not None for d in findings(error))


def test_a_circuit_that_the_model_cannot_have_is_refused() -> None:
    with pytest.raises(CircuitspecError) as error:
        export("  groups: {movers: {nodes: [a7.h1]}}\n  paths: [input -> movers<v>, movers -> logits]")
    assert findings(error)[0].code == "CS220"
    with pytest.raises(CircuitspecError) as error:
        export("  groups: {movers: {nodes: [a0.h1]}}\n  paths: [input -> movers<v>, movers -> r1, r1 -> logits]")
    assert findings(error)[0].code == "CS226"
