"""Prompts that name no positions: what is found at the last token and at all tokens, against plain hooks."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exploration.asked.unnamed_positions import declaring_last
from circuitspec.exploration.exploration_findings import ExplorationFindings, ExploreOptions
from circuitspec.exploration.output.exploration_tables import tables
from circuitspec.exploration.output.exploration_text import render_exploration
from circuitspec.exploration.search.component_sweep import MATERIAL, Effect
from circuitspec.exploration.setting import EVERYWHERE, places_of
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.load_file import load_exploration, load_hypothesis, parse_hypothesis
from circuitspec.hypothesis_file.yaml.source import parse_source
from circuitspec.models.zoo import zoo_path
from circuitspec.pipelines.explore import explore
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.prompts.build import build_prompts
from circuitspec.runtime.progress import Silent

HYPOTHESES = Path(__file__).parents[2] / "hypotheses"
PROMPTS = 16
Shares = dict[tuple[int, int, str], tuple[float, float]]  # by layer, head and place: drop, rise
FILE = "circuitspec: 1\nname: bare\nmodel: {id: zoo:ioi-tiny}\ntask: {file: p.jsonl}\n"


def write_prompts(folder: Path) -> list[dict[str, Any]]:
    """Rows of clean, corrupt, answers and wrong, and nothing else; every third is longer than the others."""
    document = load_hypothesis(HYPOTHESES / "ioi-tiny.circuit.yaml")
    prompts = build_prompts(document.hypothesis.task, document.base_dir).prompts[:PROMPTS]
    rows = [
        {
            "clean": prompt.texts["clean"],
            "corrupt": prompt.texts["abc"],
            "answers": list(prompt.answers),
            "wrong": list(prompt.wrong),
        }
        for prompt in prompts
    ]
    for row in rows[::3]:
        for text in ("clean", "corrupt"):
            row[text] = f"Then, {row[text]}"
    (folder / "p.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return rows


@cache
def explored(folder: Path, **options: Any) -> ExplorationFindings:
    write_prompts(folder)
    file = folder / "bare.yaml"
    file.write_text(FILE, "utf-8")
    return explore(load_exploration(file), ExploreOptions(**options), Silent(), "explore bare.yaml")


@pytest.fixture(scope="module")
def truth(folder: Path) -> Shares:
    return hooked(write_prompts(folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unnamed")


def hooked(rows: list[dict[str, Any]]) -> Shares:
    """(drop, rise) of every head at its last token and at all tokens, by hooks on the model as transformers loads it.

    One prompt at a time; shares of clean - corrupt, of means over prompts.
    """
    path = zoo_path("ioi-tiny")
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    heads = model.config.n_head
    width = model.config.n_embd // heads
    projections = [block.attn.c_proj for block in model.transformer.h]

    @torch.no_grad()
    def run(text: str, patch: tuple[int, slice, slice, torch.Tensor] | None = None) -> tuple[torch.Tensor, list[Any]]:
        seen: list[Any] = [None] * len(projections)

        def hook(layer: int) -> Any:
            def change(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
                z = args[0].clone()
                if patch is not None and patch[0] == layer:
                    z[0, patch[1], patch[2]] = patch[3][0, patch[1], patch[2]]
                seen[layer] = z
                return (z, *args[1:])

            return change

        handles = [module.register_forward_pre_hook(hook(layer)) for layer, module in enumerate(projections)]
        try:
            return model(**tokenizer(text, return_tensors="pt")).logits[0, -1], seen
        finally:
            for handle in handles:
                handle.remove()

    def score(logits: torch.Tensor, row: dict[str, Any]) -> float:
        right, wrong = (
            tokenizer(row[key][0], add_special_tokens=False)["input_ids"][0] for key in ("answers", "wrong")
        )
        return float(logits[right] - logits[wrong])

    plain = {name: [run(row[name]) for row in rows] for name in ("clean", "corrupt")}
    mean = {name: sum(score(run[0], row) for run, row in zip(own, rows, strict=True)) for name, own in plain.items()}
    found = {}
    for layer in range(len(projections)):
        for head in range(heads):
            channels = slice(head * width, (head + 1) * width)
            for place, tokens in (("END", slice(-1, None)), (EVERYWHERE, slice(None))):
                sums = {}
                for base, source in (("clean", "corrupt"), ("corrupt", "clean")):
                    patches = [(layer, tokens, channels, plain[source][i][1][layer]) for i in range(len(rows))]
                    runs = [run(row[base], patch)[0] for row, patch in zip(rows, patches, strict=True)]
                    sums[base] = sum(score(logits, row) for logits, row in zip(runs, rows, strict=True))
                gap = mean["clean"] - mean["corrupt"]
                drop = (mean["clean"] - sums["clean"]) / gap
                found[layer, head, place] = drop, (sums["corrupt"] - mean["corrupt"]) / gap
    return found


def heads_of(found: ExplorationFindings) -> dict[tuple[int, int, str], Effect]:
    return {
        (e.component.layer, e.component.head, *places_of(e.where)): e
        for e in found.sweep.exact
        if isinstance(e.component, Head)
    }


@pytest.mark.parametrize(
    "start",
    [
        pytest.param({}, id="estimates"),
        pytest.param({"start": "resid", "linked": 0, "sections": 0}, id="resid", marks=pytest.mark.nightly),
    ],
)
def test_the_head_that_takes_away_most_comes_first(folder: Path, truth: Shares, start: dict[str, Any]) -> None:
    found = explored(folder, **start)
    strongest = max(truth, key=lambda at: max(map(abs, truth[at])))
    effects = heads_of(found)
    assert next(iter(effects)) == strongest
    if not start:
        assert effects.keys() == truth.keys()
    for at, effect in effects.items():
        assert (effect.drop, effect.rise) == pytest.approx(truth[at], abs=2e-5), at


def test_the_report_says_where_it_looked(folder: Path) -> None:
    found = explored(folder)
    text = render_exploration(found)
    assert "the prompts name no positions: components are patched at the last token" in text
    assert "a2.h2@END" in text
    assert "nothing that was swept" not in text
    assert set(tables(found)["effects"]["position"]) == {"END", EVERYWHERE}


@pytest.mark.nightly
def test_sweeps_go_over_the_last_token_and_all(folder: Path, truth: Shares) -> None:
    (grid,) = explored(folder, sweeps=("heads",), linked=0, sections=0).grids
    assert set(grid.wheres.values()) == {"END", "other positions", "all"}
    for cell in grid.of("heads", grid.series[0]):
        name = {"END": "END", "all": EVERYWHERE}.get(grid.wheres[cell.spot.where])
        if name is not None:
            assert isinstance(cell.spot.target, Head)
            at = cell.spot.target.layer, cell.spot.target.head, name
            assert cell.share == pytest.approx(truth[at][0], abs=2e-5)


@pytest.mark.parametrize("kind", [0, 1])
def test_the_draft_verifies_with_the_same_numbers(folder: Path, kind: int) -> None:
    circuit = explored(folder).circuits[kind]
    document = parse_hypothesis(circuit.draft.text, "draft.circuit.yaml", folder)
    assert document.hypothesis.task.positions == {"END": "last"}
    verified = verify(document, VerifyOptions("off"), Silent()).verification
    assert verified.verdict == "SUPPORTED"
    sufficient, necessary = verified.claims
    assert sufficient.estimate is not None
    assert necessary.estimate is not None
    assert sufficient.estimate.value == pytest.approx(circuit.recovered, abs=1e-6)
    assert necessary.estimate.value == pytest.approx(circuit.knocked_out, abs=1e-6)


def test_a_member_is_named_where_it_acts(folder: Path, truth: Shares) -> None:
    """A head that does at the last token what it does anywhere is a member there; none is a member at both."""
    circuit = explored(folder).circuits[0]
    places: dict[str, list[str]] = {}
    for component, place, _ in circuit.entries:
        places.setdefault(component, []).append(place)
    assert all(len(own) == 1 for own in places.values())
    for (layer, head, place), effects in truth.items():
        name, other = f"a{layer}.h{head}", truth[layer, head, "END"]
        if place == EVERYWHERE and max(map(abs, effects)) >= MATERIAL and max(map(abs, other)) >= MATERIAL:
            apart = max(abs(a - b) for a, b in zip(effects, other, strict=True))
            if abs(apart - MATERIAL) > 0.01 and name in places and places[name] == ["END"]:
                assert apart < MATERIAL


TASKS = {
    "task: {file: p.jsonl}": "task: {positions: {END: last}, file: p.jsonl}",
    "task:\n  file: p.jsonl": "task:\n  positions: {END: last}\n  file: p.jsonl",
    "task: # a\n    # b\n    file: p.jsonl\n": "task: # a\n    # b\n    positions: {END: last}\n    file: p.jsonl\n",
    "task: {\n  file: p.jsonl,\n  prompts: 3}": "task: {\n  positions: {END: last}, file: p.jsonl,\n  prompts: 3}",
    "task: &t {file: p.jsonl}": "task: &t {positions: {END: last}, file: p.jsonl}",
    "task:\n  file: p.jsonl\n  positions: {}": "task:\n  file: p.jsonl\n  positions: {END: last}",
    "task:\n  file: p.jsonl\n  positions: {S2: 3}": "task:\n  file: p.jsonl\n  positions: {END: last, S2: 3}",
    "task:\n  file: p.jsonl\n  positions:\n    S2: 3": "task:\n  file: p.jsonl\n  positions:\n    END: last\n    S2: 3",
    "task:\n  file: p.jsonl\n  positions: {END: -1}": "task:\n  file: p.jsonl\n  positions: {END: -1}",
}


@pytest.mark.parametrize("written", list(TASKS))
def test_the_last_token_gets_a_name_in_every_spelling_of_the_task(written: str) -> None:
    found = declaring_last(parse_source(f"circuitspec: 1\n{written}\nname: x\n", "x.yaml"))
    assert "\n".join(found.lines).strip() == f"circuitspec: 1\n{TASKS[written]}\nname: x"


@pytest.mark.parametrize("positions", ["{END: 3}", "{\n  }"])
def test_a_file_that_calls_another_token_so_gives_no_draft(positions: str, tmp_path: Path) -> None:
    write_prompts(tmp_path)
    file, fresh = tmp_path / "bare.yaml", tmp_path / "fresh.yaml"
    file.write_text(FILE, "utf-8")
    fresh.write_text(FILE.replace("{file: p.jsonl}", f"{{file: p.jsonl, positions: {positions}}}"), "utf-8")
    with pytest.raises(CircuitspecError) as error:
        explore(load_exploration(file), ExploreOptions(), Silent(), "explore", load_exploration(fresh))
    (found,) = error.value.diagnostics
    assert found.code == "CS562"
    assert found.span is not None
    assert (found.span.file, found.span.line) == (str(fresh), 4)


def test_positions_that_no_hypothesis_can_name_are_refused(tmp_path: Path) -> None:
    rows = write_prompts(tmp_path)
    lines = [json.dumps({**row, "positions": {EVERYWHERE: 2}}) for row in rows]
    (tmp_path / "p.jsonl").write_text("\n".join(lines), "utf-8")
    file = tmp_path / "bare.yaml"
    file.write_text(FILE, "utf-8")
    with pytest.raises(CircuitspecError) as error:
        explore(load_exploration(file), ExploreOptions(), Silent(), "explore")
    assert [(one.code, EVERYWHERE in one.message) for one in error.value.diagnostics] == [("CS562", True)]
