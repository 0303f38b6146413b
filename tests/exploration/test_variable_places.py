"""Sweeps for a variable: each cell is the interchange at that place alone (oracle, hooks, arithmetic)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import circuitspec
from circuitspec.analysis.statistics.proportions import share_of
from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exploration.variables.place_trials import AlignedPlace
from circuitspec.exploration.variables.variable_findings import Lowest, earliest
from circuitspec.hypothesis_file.grammar.components import Resid
from circuitspec.hypothesis_file.load_file import Study, parse_exploration
from circuitspec.models.zoo import zoo_path
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.pairs.pair_families import draw_pairs
from circuitspec.prompts.prompt_set import CLEAN
from tests.oracle import builders, families, hooked, node

ONE_FAMILY = Path(__file__).parents[2] / "hypotheses" / "pitfalls" / "ioi-tiny-one-family.circuit.yaml"
LAMP = Path(__file__).parents[2] / "hypotheses" / "toys" / "and-variables.circuit.yaml"
NAMES = """\
circuitspec: 1
name: who
model: {id: zoo:ioi-tiny}
task:
  templates: ["Then, {first} and {second} went to the store. {again} gave a ring to"]
  slots: {first: $names, second: $names, again: =second}
  lists: {names: [Mary, John, Paul, Anna, Peter, Laura]}
  answer: " {first}"
  wrong: " {second}"
  positions: {END: last}
  prompts: 24
abstraction:
  variables:
    position: 0 if again == second else 1
    answer: first if position == 0 else second
  output: answer
  pairs:
    flipped: {slots: {again: =first}}
    both: {redraw: [first, second], slots: {again: =first}}
    other_names: {redraw: [first, second]}
"""
MORE = NAMES.replace("Laura]", "Laura, David, Emma]").replace("prompts: 24", "prompts: 56")
NEEDED = ["layer", "position", "family", "iia", "low", "high", "n", "do_nothing"]
ROLES = {"first": 0, "second": 1, "again": 2}


def study(text: str = NAMES) -> Study:
    return parse_exploration(text, "who.circuit.yaml", Path(), model_given=True)


def random_model(family: str, words: int) -> Any:
    sizes = {"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 16, "vocab_size": words}
    if family == "gpt2":
        config: Any = GPT2Config(
            n_layer=3, n_head=2, n_embd=16, vocab_size=words, n_positions=32, initializer_range=0.4
        )
        return GPT2LMHeadModel(config).double()
    config = LlamaConfig(**sizes, num_key_value_heads=1, intermediate_size=24, initializer_range=0.4)
    return builders.exact(LlamaForCausalLM(config).double())


class ByHand:
    """Every pair by itself: what base and source hold, and the logits at the last token with one of them replaced."""

    def __init__(self, model: Any, tokenizer: Any, given: Study, family: str, forward: Any) -> None:
        subject = given.exploration
        assert subject.abstraction is not None
        pairs = draw_pairs(subject.abstraction, subject.task, build_prompts(subject.task, Path()), Path())
        self.forward = forward
        token = {name: tokenizer(f" {name}").input_ids[-1] for name in subject.task.lists["names"]}
        self.rows = []
        candidates = pairs.candidates((("position", family),))
        for base, source, among in zip(pairs.bases, pairs.families[family], candidates, strict=True):
            slots, other = base.fillings[CLEAN], source.slots
            ids = [tokenizer(text).input_ids for text in (base.texts[CLEAN], source.text)]
            places = []
            for one, own in zip(ids, (slots, other), strict=True):
                named = [i for i, word in enumerate(one) if word in (token[own["first"]], token[own["second"]])]
                places.append({name: named[number] for name, number in ROLES.items()} | {"END": len(one) - 1})
            right = [token[v["first"] if v["again"] == v["second"] else v["second"]] for v in (slots, other)]
            # the base's names, and the position of the source
            asked = token[slots["first" if other["again"] == other["second"] else "second"]]
            self.rows.append((ids, right, asked, [token[text.strip()] for text in among], places))
        self.values = [[forward(one) for one in ids] for ids, *_ in self.rows]

    def answers(self, sites: Any, position: str) -> list[Any]:
        """Logits of the base runs with these components at their values in the sources."""
        found = []
        for (ids, *_, places), (_, source) in zip(self.rows, self.values, strict=True):
            here, there = (own[position] for own in places)
            new = {(one, here): source.values[one][there] for one in sites}
            found.append(self.forward(ids[0], new).logits[-1].numpy())
        return found

    def cell(self, sites: Any, position: str) -> dict[str, float]:
        hits: dict[bool, list[tuple[bool, bool]]] = {True: [], False: []}
        nothing, moved = [], []
        patched = self.answers(sites, position)
        for (_, right, asked, among, _), plain, logits in zip(self.rows, self.values, patched, strict=True):
            own = [one.logits[-1].numpy() for one in plain]
            if any(among[int(np.argmax(one[among]))] != told for one, told in zip(own, right, strict=True)):
                continue
            hit = among[int(np.argmax(logits[among]))] == asked
            hits[asked != right[0]].append((hit, hit and int(np.argmax(logits)) == asked))
            nothing.append(among[int(np.argmax(own[0][among]))] == asked)
            if asked != right[0]:
                moved.append(logits[asked] - logits[right[0]])
        changed, stays = hits[True], hits[False]
        return {
            "n": len(changed),
            "iia": float(np.mean([hit for hit, _ in changed])) if changed else np.nan,
            "top1": float(np.mean([top for _, top in changed])) if changed else np.nan,
            "unchanged": float(np.mean([hit for hit, _ in stays])) if stays else np.nan,
            "unchanged_n": len(stays),
            "do_nothing": float(np.mean(nothing)) if nothing else np.nan,
            "kept": len(nothing),
            "asked_minus_base": float(np.mean(moved)) if moved else np.nan,
        }


def agree(frame: pd.DataFrame, hands: dict[str, ByHand], sites_of: Any) -> None:
    assert {*NEEDED} <= {*frame.columns}
    seen = set()
    for row in frame.to_dict("records"):
        found = hands[row["family"]].cell(sites_of(row), row["position"])
        for name, value in found.items():
            assert row[name] == pytest.approx(value, abs=1e-9, nan_ok=True), (row["component"], row["position"], name)
        if row["n"]:
            hits = round(row["iia"] * row["n"])
            ends = scipy.stats.binomtest(hits, int(row["n"])).proportion_ci(method="wilson")
            assert (row["low"], row["high"]) == pytest.approx((ends.low, ends.high), abs=1e-12)
        seen.add((row["component"], row["position"], row["family"]))
    assert len(seen) == len(frame)


@pytest.mark.filterwarnings("ignore:CS438")  # the oracle's models compute in float64 what others round
@pytest.mark.parametrize("which", ["gpt2", pytest.param("llama", marks=pytest.mark.nightly)])
def test_every_cell_is_the_interchange_at_that_place_alone(which: str) -> None:
    """On random weights in float64, against the oracle, which is right on some pairs by chance."""
    import torch

    torch.manual_seed(7)  # of which each family has pairs that count
    tokenizer = AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))
    model, given = random_model(which, len(tokenizer)), study(MORE)
    frame = circuitspec.interchange_sweep(model, tokenizer, given, "position", batch_size=7)
    net = families.read(model)

    def forward(ids: Any, patches: Any = None) -> Any:
        return node.forward(net, ids, patches or {}, record=True)

    hands = {name: ByHand(model, tokenizer, given, name, forward) for name in ("flipped", "both", "other_names")}
    assert len(frame) == 3 * 4 * 3
    most = frame.groupby("family")[["n", "unchanged_n"]].max()
    assert min(most.loc["flipped", "n"], most.loc["both", "n"], most.loc["other_names", "unchanged_n"]) >= 1
    agree(frame, hands, lambda row: [("resid", row["layer"], "pre")])


@pytest.mark.nightly
def test_kinds_of_components_against_plain_hooks() -> None:
    """On the shipped model, which does the task: attention layers, MLPs and heads at two positions."""
    tokenizer = AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))
    model = AutoModelForCausalLM.from_pretrained(zoo_path("ioi-tiny")).double()
    given = study(NAMES.replace("prompts: 24", "prompts: 6"))
    frame = circuitspec.interchange_sweep(
        model, tokenizer, given, "position", ["resid", "attention", "mlps", "heads"], at=["again", "END"], layers=[1, 2]
    )
    heads = model.config.num_attention_heads
    assert len(frame) == 3 * 2 * 2 * (3 + heads)
    hands = {
        name: ByHand(model, tokenizer, given, name, lambda ids, new=None: hooked.forward(model, ids, hooked.GPT2, new))
        for name in ("flipped", "both", "other_names")
    }

    def sites(row: Any) -> list[Any]:
        layer = row["layer"]
        match row["component"][0], row["head"]:
            case "r", _:
                return [("resid", layer, "pre")]
            case "m", _:
                return [("mlp", layer)]
            case _, head if not pd.isna(head):
                return [("head", layer, head)]
        return [("head", layer, head) for head in range(heads)]

    agree(frame, hands, sites)
    assert frame.heatmap("iia", kind="resid").values["flipped"].shape == (3, 2)


@pytest.mark.nightly
def test_sources_of_other_lengths_against_plain_hooks() -> None:
    """A comma more or less before every position: values come from where the position is in the source."""
    tokenizer = AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))
    model = AutoModelForCausalLM.from_pretrained(zoo_path("ioi-tiny")).double()
    text = NAMES.replace("prompts: 24", "prompts: 6").replace('["Then, {first}', '["{opening} {first}')
    text = text.replace("again: =second}", "again: =second, opening: $openings}")
    text = text.replace("Laura]}", 'Laura], openings: ["Then,", Then, "When,", When]}')
    longer = "longer: {redraw: [opening], slots: {again: =first}}"
    assert "flipped: {slots: {again: =first}}" in text
    given = study(text.replace("flipped: {slots: {again: =first}}", longer))
    frame = circuitspec.interchange_sweep(
        model, tokenizer, given, "position", ["resid", "heads"], at=["again", "END"], layers=[1, 2]
    )
    hands = {
        name: ByHand(model, tokenizer, given, name, lambda ids, new=None: hooked.forward(model, ids, hooked.GPT2, new))
        for name in ("longer", "both", "other_names")
    }
    lengths = {len(base) - len(source) for (base, source), *_ in hands["longer"].rows}
    assert lengths - {0}
    assert frame[frame["family"] == "longer"]["n"].max() >= 3

    def sites(row: Any) -> list[Any]:
        head = row["head"]
        return [("resid", row["layer"], "pre")] if pd.isna(head) else [("head", row["layer"], int(head))]

    agree(frame, hands, sites)


# -- a toy of which it is known where its variables are --------------------------------------------------------------


def test_a_switch_is_at_its_word_and_the_lamp_where_it_is_read(tmp_path: Path) -> None:
    """The heads of layer 0 read the words at the last token, so that `first` is at its word before layer 0 alone.

    After it, the stream at the last token carries the lamp: it gives the source's answer where only the other switch
    is off, too, and so is not proposed. Elsewhere nothing happens.
    """
    arguments = ["explore", str(LAMP), "--variable", "first", "--no-store", "--output-dir", str(tmp_path)]
    ran = CliRunner().invoke(main, [*arguments, "--html", str(tmp_path / "page.html")], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    frame = pd.read_csv(tmp_path / "interchange.csv")
    cells = {(one["component"], one["position"], one["family"]): one for one in frame.to_dict("records")}

    def at(place: str, name: str) -> dict[str, Any]:
        component, position = place.split("@")
        return {
            family: cells[component, position, family][name]
            for family in ("first_off", "second_off", "both_off", "other_words")
            if not pd.isna(cells[component, position, family][name])
        }

    carries = {"r0@A": (1, 1, 1), "r0@B": (0, 1, 0), "r1@END": (1, 1, 0)}
    for place in {f"{c}@{p}" for c, p, _ in cells}:
        alone, both, stays = carries.get(place, (0, 0, 1))
        assert at(place, "iia") == {"first_off": alone, "both_off": both}, place
        assert at(place, "unchanged") == {"second_off": stays, "other_words": 1}, place
    assert {f"{c}@{p}" for c, p, _ in cells} >= {*carries, "r0@END", "r1@A", "r1@room"}
    assert set(frame["do_nothing"][frame["family"].isin(["first_off", "both_off"])]) == {0.0}
    assert "   # chosen on these very pairs" in ran.output
    assert "no place carries first in every family" not in ran.output
    entry = "{nodes: [r0], at: A}"
    assert f"first: {entry}" in ran.output
    assert (tmp_path / "align-first.yaml").read_text("utf-8").count(entry) == 1
    for name in ("interchange.parquet", "interchange-first-resid.svg", "page.html"):
        assert (tmp_path / name).stat().st_size > 0
    drafted = tmp_path / "drafted.circuit.yaml"
    text = LAMP.read_text("utf-8")
    assert "first: {nodes: [first_switch]}" in text
    drafted.write_text(text.replace("first: {nodes: [first_switch]}", f"first: {entry}"), "utf-8")
    found = circuitspec.verify(circuitspec.load(drafted), negatives="off")
    assert found.claims[0].status == "SUPPORTED"


@pytest.mark.parametrize(
    ("agreement", "chosen"),
    [
        ({0: 60, 1: 82, 2: 90, 3: 90}, 2),  # Wilson's interval of 82 of 100 ends at 0.883
        ({0: 60, 1: 85, 2: 90, 3: 90}, 1),  # and of 85 at 0.907
        ({0: 60, 1: 40, 2: 30, 3: 20}, None),  # surely below the 90 of the other position
    ],
)
def test_the_earliest_layer_that_is_as_good_as_the_best(agreement: dict[int, int], chosen: int | None) -> None:
    def lowest(layer: int, position: str, hits: int) -> Lowest:
        share = share_of(np.arange(100) < hits)
        assert share is not None
        return Lowest(AlignedPlace("resid", Resid(layer), position), "both", share, share, "")

    here = [lowest(layer, "END", hits) for layer, hits in agreement.items()]
    found = earliest([*here[::-1], lowest(0, "A", 90)], "END", 0.9)
    assert (None if found is None else found.place.layer) == chosen


# -- what cannot be swept ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "variable", "code", "said"),
    [
        (NAMES[: NAMES.index("abstraction:")], "position", "CS528", "declares no variables"),
        (NAMES, "positon", "CS528", "there is no variable positon"),
    ],
)
def test_variables_that_are_not_there(text: str, variable: str, code: str, said: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))
    model = random_model("gpt2", len(tokenizer))
    with pytest.raises(CircuitspecError) as caught:
        circuitspec.interchange_sweep(model, tokenizer, study(text), variable)
    (found,) = caught.value.diagnostics
    assert found.code == code
    assert said in found.message


def test_calls_that_ask_for_what_there_is_not() -> None:
    tokenizer = AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))
    model = random_model("gpt2", len(tokenizer))
    with pytest.raises(ValueError, match="give some of resid"):
        circuitspec.interchange_sweep(model, tokenizer, study(), "position", "neurons")
    with pytest.raises(ValueError, match="no layer 3"):
        circuitspec.interchange_sweep(model, tokenizer, study(), "position", layers=[3])
    with pytest.raises(CircuitspecError, match="CS507"):
        circuitspec.interchange_sweep(model, tokenizer, study(), "position", at="S2")


@pytest.mark.nightly
def test_a_variable_that_no_place_carries_in_every_family(tmp_path: Path) -> None:
    """ioi-tiny goes by names: with these redrawn no place has surely more than half of the answers, which is said."""
    arguments = ["explore", str(ONE_FAMILY), "--variable", "position", "--no-store", "--output-dir", str(tmp_path)]
    ran = CliRunner().invoke(main, arguments, catch_exceptions=False)
    lowest = pd.read_csv(tmp_path / "interchange.csv").groupby(["component", "position"])["low"].min()
    assert lowest.max() <= 0.5
    assert "note: no place carries position in every family" in ran.output


@pytest.mark.parametrize("more", [["--draft", "x.yaml"], ["--sweep", "neurons"], ["--plan"], ["--exact", "3"]])
def test_options_that_say_nothing_of_a_sweep_for_a_variable(more: list[str]) -> None:
    ran = CliRunner().invoke(main, ["explore", str(LAMP), "--variable", "first", *more])
    assert ran.exit_code == 2
    assert "does not go with --variable" in ran.output
