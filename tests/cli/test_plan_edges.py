"""`plan` of edge-level and path-level hypotheses, and the bundle that cannot be written for them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from circuitspec.cli import main
from circuitspec.pipelines.check import NOT_TOKENISED

ROOT = Path(__file__).parents[2]
HYPOTHESES = ROOT / "hypotheses"
GPT2_SMALL = {
    "model_type": "gpt2",
    "n_layer": 12,
    "n_head": 12,
    "n_embd": 768,
    "vocab_size": 50257,
    "n_positions": 1024,
}
LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "vocab_size": 60,
    "max_position_embeddings": 32,
}
PARALLEL = {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"} | {"model_type": "gpt_neox"}
SMALL = """\
circuitspec: 1
name: small
model: {id: ./model}
task:
  templates: ["{A} and {B} then {A}"]
  slots: {A: $names, B: $names}
  lists: {names: [x, y, z, u, v]}
  answer: " {B}"
  wrong: " {A}"
  corruptions: {abc: {A: $names, B: $names}}
  positions: {END: last}
  prompts: 5
circuit: CIRCUIT
ablation: {value: resample, from: abc, level: LEVEL}
claims:
  - sufficient: {metric: logit_diff, at_least: 0.8}
"""


def written(folder: Path, text: str, config: dict[str, object]) -> Path:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps(config), "utf-8")
    file = folder / "own.circuit.yaml"
    file.write_text(text, "utf-8")
    return file


def published(folder: Path, name: str) -> Path:
    """A hypothesis about GPT-2 small, of which the configuration alone is at hand."""
    shutil.copytree(HYPOTHESES / "lists", folder / "lists")
    lines = (HYPOTHESES / f"{name}.circuit.yaml").read_text("utf-8").splitlines()
    lines = ["  id: ./model" if line.startswith("  id: ") else line for line in lines if "  revision: " not in line]
    return written(folder, "\n".join(lines), GPT2_SMALL)


def small(folder: Path, circuit: str, config: dict[str, object], level: str = "edge") -> Path:
    return written(folder, SMALL.replace("CIRCUIT", circuit).replace("LEVEL", level), config)


def plan(file: Path) -> str:
    ran = CliRunner().invoke(main, ["plan", str(file)], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def by_receiver(said: str) -> dict[str, tuple[int, int]]:
    """Kept and ablated edges of each receiver that the text lists."""
    rows = re.findall(r"^ {3}(\S+|\d+ other receivers?) +([\d,]+) +([\d,]+)$", said, re.MULTILINE)
    return {name: (int(kept.replace(",", "")), int(cut.replace(",", ""))) for name, kept, cut in rows}


def test_ioi_with_free_mlps(tmp_path: Path) -> None:
    """182 declared edges; with those of the MLPs 962 are kept, of 32,491."""
    said = plan(published(tmp_path, "ioi-gpt2-small-edges"))
    assert "edges   182 declared, 962 kept, 31,529 ablated, 32,491 in the model\n" in said
    rows = by_receiver(said)
    assert sum(kept for kept, _ in rows.values()) == 962
    assert sum(map(sum, rows.values())) == 32_491
    # 3 name movers, 8 backups, 2 negative ones and 12 MLPs, of 1 + 12 * 13 senders
    assert rows["logits"] == (25, 157 - 25)
    # of 1 + 9 * 13 senders the 4 heads of S-inhibition and 9 MLPs; keys read the input and MLPs
    assert rows["a9.h9<q>"] == (4 + 9, 118 - 13)
    assert rows["a9.h9<k>"] == rows["a9.h9<v>"] == (1 + 9, 118 - 10)
    # the first MLP reads the input and two duplicate-token heads, of the input and 12 heads
    assert rows["m0"] == (1 + 2, 13 - 3)
    assert rows["a0.h1<q>"] == (1, 0)
    # 12 * 36 inputs of heads, 12 MLPs and the logits; of the 26 heads all inputs are read, and all MLPs
    assert f"{12 * 36 + 13 - (26 * 3 + 13)} other receivers" in rows


def test_ioi_with_all_residual_edges_declared(tmp_path: Path) -> None:
    said = plan(published(tmp_path, "ioi-gpt2-small-residual-edges"))
    assert "edges   963 declared, 963 kept, 31,528 ablated, 32,491 in the model\n" in said
    rows = by_receiver(said)
    assert rows["logits"] == (26, 157 - 26)  # and the input
    assert sum(kept for kept, _ in rows.values()) == 963


def test_pairs_that_are_no_edges_are_flagged(tmp_path: Path) -> None:
    """Against the order of layers (parallel blocks too), and at positions that do not meet; not where all is well."""
    groups = "{one: {nodes: [a0.h1, a2.h0], at: END}, two: {nodes: [m0, m1], at: [A, END]}}"
    circuit = f"{{groups: {groups}, paths: [one -> two, 'm0@A -> a1.h0<q>@END, m2', two -> logits]}}"
    said = plan(small(tmp_path, circuit, PARALLEL))
    assert said.split("named by paths, but no edges: ")[1].split("\n\n")[0].splitlines() == [
        "4 pairs",
        "   m0 -> a1.h0<q>: m0 writes at A, and that reads at END",
        "   a0.h1 -> m0: a0.h1 does not come before it",
        "   a2.h0 -> m0: a2.h0 does not come before it",
        "   a2.h0 -> m1: a2.h0 does not come before it",
    ]
    other = tmp_path / "other"
    other.mkdir()
    assert "no edges" not in plan(small(other, "{groups: {one: {nodes: [a0.h1]}}, paths: [one -> m1]}", PARALLEL))


def test_many_pairs_against_the_order_are_counted(tmp_path: Path) -> None:
    """A group that leads to itself: of three layers with four heads each, 24 of 144 pairs of q, k or v are in order."""
    said = plan(small(tmp_path, "{groups: {all: {nodes: ['a*.h*']}}, paths: [all -> all]}", PARALLEL))
    in_order = 4 * 4 * 3 * 3
    assert f"edges   {in_order} declared, {in_order} kept" in said
    assert f"named by paths, but no edges: {12 * 12 * 3 - in_order} pairs\n" in said
    assert f"   {12 * 12 * 3 - in_order} against the order of layers\n" in said


def test_at_path_level_edges_are_not_ablated_one_by_one(tmp_path: Path) -> None:
    circuit = (
        "{groups: {one: {nodes: [a0.h1], at: A}}, paths: ['one -> a1.h0<q,v>@END -> logits', 'a1.h0@END -> logits']}"
    )
    said = plan(small(tmp_path, circuit, PARALLEL, "path"))
    assert "edges   2 along the paths\n" in said  # a0.h1 -> a1.h0<v> and a1.h0 -> logits
    assert "   a0.h1 -> a1.h0<q>: a0.h1 writes at A, and that reads at END" in said
    assert "paths that add nothing, since others start there: those into a1.h0" in said
    assert "receiver" not in said
    assert "ablated, " not in said


def test_grouped_queries_are_noted(tmp_path: Path) -> None:
    circuit = "{groups: {one: {nodes: [a0.h1]}}, paths: ['one -> a1.h3<k>, a1.h2<k,v>, a2.h0<q> -> logits']}"
    said = plan(small(tmp_path, circuit, LLAMA))
    assert "note: keys and values belong to kv heads, each shared by 2 query heads: a1.kv1<k>, a1.kv1<v>" in said
    assert "acts for" not in said  # both readers of a1.kv1 are named
    rows = by_receiver(said)
    assert rows["a1.kv1<k>"] == (1, 5)
    assert rows["a2.h0<q>"] == (1, 10)
    assert "edges   6 declared, 6 kept" in said  # a1.h3 and a1.h2 read one kv head, and three heads reach the logits
    for name, model, path in (
        ("queries", LLAMA, "one -> a1.h3<q> -> logits"),
        ("all", PARALLEL, "one -> a1.h3<k> -> logits"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        assert "kv heads" not in plan(
            small(folder, f"{{groups: {{one: {{nodes: [a0.h1]}}}}, paths: ['{path}']}}", model)
        )


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("edge", "note: an edge into a key or value acts for all heads that read it: here for a1.h2, a2.h0 too\n"),
        ("path", "note: a path into a key or value acts for the heads that it names alone\n"),
    ],
)
def test_plan_says_for_which_heads_shared_keys_act(tmp_path: Path, level: str, said: str) -> None:
    """a1.h2 reads the keys of a1.h3, and a2.h0 the values of a2.h1; a2.h2 is named elsewhere."""
    paths = "['one -> a1.h3<k> -> logits', 'one -> a2.h1<v>, a2.h3<k> -> logits', 'a2.h2 -> logits']"
    shown = plan(small(tmp_path, f"{{groups: {{one: {{nodes: [a0.h1]}}}}, paths: {paths}}}", LLAMA, level))
    assert [line + "\n" for line in shown.splitlines() if " acts for " in line] == [said]


def test_a_model_without_mlps_has_no_edges_to_them(tmp_path: Path) -> None:
    """Four layers of four heads: 12 inputs of 1, 5, 9 senders, and 13 reach the logits."""
    attention_only = {**PARALLEL, "intermediate_size": 0}
    file = small(tmp_path, "{groups: {one: {nodes: [a0.h1]}}, paths: ['one -> a1.h0<q> -> logits']}", attention_only)
    assert f"edges   2 declared, 2 kept, {12 * 15 + 13 - 2} ablated, {12 * 15 + 13} in the model\n" in plan(file)
    named = tmp_path / "named"
    named.mkdir()
    file = small(named, "{groups: {one: {nodes: [a0.h1]}}, paths: ['one -> m1 -> logits']}", attention_only)
    ran = CliRunner().invoke(main, ["plan", str(file)])
    assert ran.exit_code == 3
    assert "error[CS220]: the model has no m1" in ran.stderr
    assert "help: it has attention only" in ran.stderr


def test_all_mlps_may_be_free_where_there_are_none(tmp_path: Path) -> None:
    """So that one file serves models with and without: the edges are those of a file that does not free them."""
    attention_only = {**PARALLEL, "intermediate_size": 0}
    circuit = "{{groups: {{one: {{nodes: [a0.h1]}}}}, {}paths: ['one -> a1.h0<q> -> logits']}}"
    said = []
    for name, free in (("with", "free: ['m*', 'm[0-2]'], "), ("without", "")):
        folder = tmp_path / name
        folder.mkdir()
        said.append(plan(small(folder, circuit.format(free), attention_only)))
    noted = "".join(
        f"note: `{text}` under `free` stands for nothing: this model has attention only\n" for text in ("m*", "m[0-2]")
    )
    assert noted in said[0]
    assert said[0].replace(noted, "").split() == said[1].split()
    named = tmp_path / "named"
    named.mkdir()
    ran = CliRunner().invoke(main, ["plan", str(small(named, circuit.format("free: [m1], "), attention_only))])
    assert (ran.exit_code, "error[CS220]: the model has no m1" in ran.stderr) == (3, True)


@pytest.mark.parametrize("level", ["edge", "path"])
def test_no_bundle_for_edges_and_paths(level: str, tmp_path: Path) -> None:
    """CS500, before anything is written."""
    text = (HYPOTHESES / "toys" / "mediation.circuit.yaml").read_text("utf-8")
    start, end = text.index("  paths:"), text.index("ablation:")
    text = text[:start] + "  paths: [input -> switch, switch -> lamp -> logits]\n\n" + text[end:]
    text = text[: text.index("\nclaims:")].replace("level: edge", f"level: {level}")
    file = tmp_path / "own.circuit.yaml"
    file.write_text(text + "\nclaims:\n  - sufficient: {metric: logit_diff, at_least: 0.9}\n", "utf-8")
    ran = CliRunner().invoke(main, ["compile", str(file), "--emit", str(tmp_path / "bundle")])
    assert ran.exit_code == 5
    assert ran.stdout == ""
    said = f"error[CS500]: {level} level is not written to a bundle: pyvene by itself has no intervention for it\n"
    assert said in ran.stderr
    assert "help: `verify` runs it; a bundle takes `level: node` and claims about nodes" in ran.stderr
    assert not (tmp_path / "bundle").exists()


def test_the_search_for_negative_components_has_its_cost_at_edge_level() -> None:
    """Of eight heads and two MLPs two are in the circuit: eight restored one by one, and all that hurt together; each
    time the clean and the source's run, twice. And the eight ablated in the model, with both of these once more."""
    ran = CliRunner().invoke(main, ["plan", str(HYPOTHESES / "toys" / "nobel-edges.circuit.yaml")])
    assert ran.exit_code == 0
    assert f"and up to {8 + 1 + 4 + 8 + 2} to look for negative components (--negatives off: none)" in ran.output


# --------------------------------------------------------------------------- positions that the tokens tell apart

BY_NAME = (
    "note: the model's tokenizer is not at hand, so positions along paths were compared by name only, not by token"
)
NO_EDGE = "a0.h1 does not write at S2 before that acts at IO: attention looks back only"
EDGES = """
circuit:
  groups: {early: {nodes: [a0.h1], at: S2}, late: {nodes: [a2.h2, a3.h0], at: END}}
  paths:
    - PATH
    - early -> late<k,v> -> logits
ablation: {value: resample, from: abc, level: edge}
claims:
  - sufficient: {metric: logit_diff, at_least: 0.8}
"""


def of_ioi_tiny(folder: Path, path: str, model: str = "zoo:ioi-tiny") -> Path:
    """Edge level on the tiny model's own task, in which S2 comes after IO and S1, and END after all."""
    text = (HYPOTHESES / "ioi-tiny.circuit.yaml").read_text("utf-8")
    task = text[: text.index("\ncircuit:")].replace("zoo:ioi-tiny", model)
    file = folder / "own.circuit.yaml"
    file.write_text(task + EDGES.replace("PATH", path), "utf-8")
    return file


def described(folder: Path, *files: str) -> None:
    """The tiny model's configuration and some of its tokenizer's files, without weights."""
    folder.mkdir(parents=True)
    for name in ("config.json", *files):
        shutil.copy(ROOT / "circuitspec" / "models" / "zoo" / "ioi-tiny" / name, folder / name)


def test_pairs_that_share_no_token_are_flagged(tmp_path: Path) -> None:
    """By role S2 may write what IO attends to; in no prompt does it, since it comes later. END comes after it."""
    file = of_ioi_tiny(tmp_path, "'early -> a1.h3<k>@IO, a1.h2<v>@END'")
    said = plan(file)
    flagged = said.split("named by paths, but no edges: ")[1].split("\n\n")[0].splitlines()
    assert flagged == ["1 pair", f"   a0.h1 -> a1.h3<k>: {NO_EDGE}"]
    assert "note:" not in said
    ran = CliRunner().invoke(main, ["check", str(file)])
    assert (ran.exit_code, ran.stdout) == (0, f"{file}: ok   3 nodes in 2 groups, 100 prompts, 1 claim\n")


def test_what_comes_first_in_some_prompts_is_no_mistake(tmp_path: Path) -> None:
    """IO stands before S1 in two of the four templates."""
    assert "no edges" not in plan(of_ioi_tiny(tmp_path, "a0.h3@IO -> a1.h3<k>@S1"))


@pytest.mark.parametrize("command", ["plan", "check", "verify"])
def test_a_path_along_which_nothing_arrives_is_refused_before_a_run(command: str, tmp_path: Path) -> None:
    ran = CliRunner().invoke(main, [command, str(of_ioi_tiny(tmp_path, "early -> a1.h3<k>@IO"))])
    assert ran.exit_code == 3
    assert f"error[CS227]: there is no edge from a0.h1 to a1.h3<k>: {NO_EDGE}\n" in ran.stderr
    assert "|     - early -> a1.h3<k>@IO\n" in ran.stderr


def test_claims_at_node_level_are_compared_by_token_too(tmp_path: Path) -> None:
    file = of_ioi_tiny(tmp_path, "early -> late")
    text = file.read_text("utf-8").replace("level: edge", "level: node")
    claim = 'path: {of: "a0.h1@S2 -> a1.h3<k>@IO", direction: noising, metric: logit_diff, drop_at_most: 0.1}'
    file.write_text(f"{text}  - {claim}\n", "utf-8")
    ran = CliRunner().invoke(main, ["plan", str(file)])
    assert ran.exit_code == 3
    assert f"error[CS227]: there is no edge from a0.h1 to a1.h3<k>: {NO_EDGE}\n" in ran.stderr


@pytest.mark.parametrize("files", [("tokenizer.json",), ("tokenizer.json", "tokenizer_config.json")])
def test_the_tokenizer_of_a_local_directory(files: tuple[str, ...], tmp_path: Path) -> None:
    described(tmp_path / "model", *files)
    said = plan(of_ioi_tiny(tmp_path, "'early -> a1.h3<k>@IO, a1.h2<v>@END'", "./model"))
    assert f"   a0.h1 -> a1.h3<k>: {NO_EDGE}" in said
    assert "note:" not in said


def test_the_tokenizer_of_a_hub_model_is_that_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "snapshot"
    described(snapshot, "tokenizer.json")

    def find(repo_id: str, name: str, revision: str | None = None) -> str | None:
        assert (repo_id, revision) == ("someone/tiny", None)
        return str(snapshot / name) if (snapshot / name).is_file() else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", find)
    file = of_ioi_tiny(tmp_path, "'early -> a1.h3<k>@IO, a1.h2<v>@END'", "someone/tiny")
    assert f"   a0.h1 -> a1.h3<k>: {NO_EDGE}" in plan(file)
    (snapshot / "tokenizer.json").unlink()
    assert BY_NAME in plan(file)


def test_without_a_tokenizer_a_note_says_that_names_were_compared(tmp_path: Path) -> None:
    """The pair is then none of those that are known not to exist, and nothing is refused."""
    described(tmp_path / "model")
    file = of_ioi_tiny(tmp_path, "early -> a1.h3<k>@IO", "./model")
    said = plan(file)
    assert f"\n\nnote: {NOT_TOKENISED}\n{BY_NAME}\n\n" in said
    assert "no edges" not in said
    ran = CliRunner().invoke(main, ["check", str(file)])
    assert (ran.exit_code, ran.stdout.splitlines()[1:]) == (0, [f"   note: {NOT_TOKENISED}", f"   {BY_NAME}"])


def test_paths_without_positions_need_no_tokenizer(tmp_path: Path) -> None:
    assert BY_NAME not in plan(small(tmp_path, "{groups: {one: {nodes: [a0.h1]}}, paths: [one -> m1]}", PARALLEL))


def test_prompts_that_do_not_fit_the_tokenizer_are_told_as_verify_tells_them(tmp_path: Path) -> None:
    """Nor is a damaged tokenizer passed over."""
    described(tmp_path / "model", "tokenizer.json", "tokenizer_config.json")
    file = of_ioi_tiny(tmp_path, "early -> late", "./model")
    good = file.read_text("utf-8")
    file.write_text(good.replace("Then, {IO}", "Suddenly, {IO}"), "utf-8")
    ran = CliRunner().invoke(main, ["plan", str(file)])
    assert (ran.exit_code, "error[CS349]: 'Suddenly' is not in the vocabulary" in ran.stderr) == (3, True)
    file.write_text(good, "utf-8")
    (tmp_path / "model" / "tokenizer.json").write_text("{", "utf-8")
    ran = CliRunner().invoke(main, ["plan", str(file)])
    assert (ran.exit_code, "error[CS312]" in ran.stderr) == (5, True)
