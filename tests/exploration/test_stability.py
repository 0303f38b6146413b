"""A search repeated on parts of its prompts: what it chooses there, how often, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from circuitspec.cli import main
from circuitspec.engine.cache.stored_runner import StoredRunner
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Source
from circuitspec.exploration.exploration_findings import ExplorationFindings, ExploreOptions
from circuitspec.exploration.forward_budget import Allowance
from circuitspec.exploration.output.exploration_figures import pictures
from circuitspec.exploration.output.exploration_tables import tables
from circuitspec.exploration.output.exploration_text import render_exploration
from circuitspec.exploration.output.stability_output import stability_json
from circuitspec.exploration.search.circuit_selection import choose
from circuitspec.exploration.setting import ExplorationSetting, distinct_roles
from circuitspec.exploration.stability.repeated_search import Repetition, Selection, repeated
from circuitspec.exploration.stability.selection_frequencies import entries_chosen, false_choices, standing
from circuitspec.exploration.stability.subsamples import Subsample, all_but_one_template, random_halves
from circuitspec.exploration.stages import HONEST, Stages
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.load_file import load_exploration, parse_hypothesis
from circuitspec.models.load import load_model
from circuitspec.pipelines.explore import explore
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.prompts.reference_prompts import chosen
from circuitspec.prompts.tokens.tokenize import tokenize
from circuitspec.runtime.progress import Silent

ROOT = Path(__file__).parents[2]


def test_halves_are_of_each_template_evenly_and_any_two_share_half() -> None:
    templates = np.array([0, 1, 2, 3] * 25)
    halves = random_halves(templates, 40)
    assert {(int(one.counted.sum()), int((one.counted & one.held_out).sum())) for one in halves} == {(50, 0)}
    assert {count for one in halves for count in np.bincount(templates[one.counted]).tolist()} == {12, 13}
    assert len({one.counted.tobytes() for one in halves}) == 40
    shared = [int((a.counted & b.counted).sum()) for a, b in pairwise(halves)]
    assert np.mean(shared) == pytest.approx(25, abs=1.5)  # hypergeometric, of 50 of 100 each
    with pytest.raises(ValueError, match="too few"):
        random_halves(np.zeros(19, dtype=np.int64), 2)
    (first, second) = all_but_one_template(np.array([0] * 10 + [1] * 12 + [2] * 9), ["a", "b" * 40, "c"])
    assert (first.name, second.name) == ("a", "templates[1]")  # the third has too few prompts to be judged on
    assert second.held_out.sum() == 12


def test_frequencies_are_counted_and_have_wilsons_interval() -> None:
    """9 of 10: by hand (2 n p + z² ± z sqrt(z² + 4 n p (1 - p))) / (2 (n + z²)), z = 1.96: 0.596 .. 0.982."""
    part = Subsample("half 1", "half", np.ones(4, dtype=np.bool_))
    a, b, c = (Head(0, 0), "END"), (Head(0, 1), "END"), (Head(0, 2), "S2")
    chosen = [Selection(part, "", {a: "positive", **({b: "negative"} if i else {})}) for i in range(10)]
    chosen[9] = replace(chosen[9], entries={a: "positive", b: "positive", c: "positive"})
    found = entries_chosen(chosen, {a: "positive"})
    assert list(found) == [a, b, c]
    assert [one.standing for one in found.values()] == ["core", "core", "noise"]
    assert [one.drafted for one in found.values()] == [True, False, False]
    assert found[b].effect == "negative"
    assert found[b].spoken == "chosen 9 of 10"
    assert found[b].frequency.interval == pytest.approx((0.596, 0.982), abs=1e-3)
    assert [standing(one) for one in (0.8, 0.79, 0.2, 0.19)] == ["core", "contingent", "contingent", "noise"]
    # 2 entries in the mean of 50 candidates: 4 / (0.6 * 50)
    assert false_choices(chosen, 50) == pytest.approx((2.0) ** 2 / 30)


@cache
def explored() -> ExplorationFindings:
    folder = ROOT / "hypotheses" / "toys"
    study = load_exploration(folder / "negative.circuit.yaml")
    options = ExploreOptions(exact=100, stability=8, drawn=0, sections=0, linked=4)
    return explore(study, options, Silent(), "circuitspec explore toy.yaml")


def test_what_does_the_task_on_every_prompt_is_chosen_on_every_half() -> None:
    """Both heads do on each prompt what they do on all: +6 and -2, so 6 / 4 of the whole and 1 without one of them."""
    found = explored()
    assert found.stability is not None
    honest, helpful = found.stability.circuits
    for one, members in ((honest, {("a0.h1", "END"), ("a1.h2", "END")}), (helpful, {("a0.h1", "END")})):
        assert {entry for entry, chosen in one.entries.items() if chosen.standing == "core"} == members
        assert {entry: chosen.frequency.value for entry, chosen in one.entries.items()} == dict.fromkeys(members, 1.0)
        assert one.overlap == 1.0
        assert set(one.sizes) == {len(members)}
    assert honest.entries["a1.h2", "END"].effect == "negative"
    assert honest.unseen == pytest.approx((1.0,) * 8, abs=1e-4)
    assert helpful.unseen == pytest.approx((1.5,) * 8, abs=1e-4)
    assert {name: one.frequency.value for name, one in honest.edges.items()} == {
        "a0.h1 -> logits": 1.0,
        "a1.h2 -> logits": 1.0,
        "input -> a0.h1<v>": 1.0,
        "input -> a1.h2<v>": 1.0,
    }
    assert [(one.what, len(one.entries)) for one in honest.subsets] == [
        ("core", 2),
        ("core and contingent", 2),
        ("as drafted", 2),
    ]
    assert honest.subsets[0].recovered.value == pytest.approx(1.0, abs=1e-4)
    assert honest.subsets[0].recovered.n == 12  # 6 things in 6 boxes make 36 prompts, of which 24 were searched on
    assert found.stability.counted == 12


def test_frequencies_are_in_every_form_of_the_report() -> None:
    found = explored()
    assert found.stability is not None
    text = render_exploration(found)
    assert "the search repeated on 8 random halves of its 24 prompts (12 each, without replacement" in text
    assert "on 12 other prompts, drawn anew: recovered 1.00" in text
    assert found.circuits[0].draft.text.count("chosen 8 of 8 (core)") == 2
    assert "# On 12 other prompts, drawn anew: recovered logit_diff 1.00 [1.00, 1.00]," in found.circuits[0].draft.text
    told = parse_hypothesis(found.circuits[0].draft.text, "d.circuit.yaml", ROOT / "hypotheses" / "toys")
    assert len(told.hypothesis.circuit.groups) == 2
    frame = tables(found)["stability"]
    rows = frame[(frame.circuit == "with negatives") & (frame.level == "component at a position")]
    assert rows[["name", "frequency", "standing"]].to_numpy().tolist() == [
        ["a0.h1", 1.0, "core"],
        ["a1.h2", 1.0, "core"],
    ]
    plain = json.loads(stability_json(found.stability))
    assert plain["circuits"][0]["chosen"][0]["frequency"]["n"] == 8
    assert "a1.h2@END" in pictures(found)["stability"].drawn


def test_figures_of_a_draft_are_of_prompts_that_it_was_not_chosen_on() -> None:
    recovered, left = explored().circuits[1].held_out or (None, None)
    assert recovered is not None
    assert left is not None
    assert (recovered.n, recovered.value) == (12, pytest.approx(1.5, abs=1e-4))
    assert left.value == pytest.approx(-0.5, abs=1e-4)  # the head that hurts alone
    assert explored().judged_on == "12 other prompts, drawn anew"


@pytest.mark.nightly
@pytest.mark.parametrize("value", ["resample", "zero"])
def test_a_half_is_searched_as_its_prompts_alone_would_be(value: str) -> None:
    """A runner that has no other prompts, means of estimates instead of estimates by prompt, every run for itself."""
    study = load_exploration(ROOT / "hypotheses" / "ioi-tiny.circuit.yaml")
    options = ExploreOptions(exact=40, drawn=0)
    loaded = load_model(study.exploration.model, study.base_dir)
    prompts = build_prompts(study.exploration.task, study.base_dir, study.source).chosen(range(40))
    whole = tokenize(prompts, study.exploration.task.positions, loaded.tokenizer, study.source)
    claimed = tuple(Head(layer, head) for layer in range(4) for head in range(4))
    source = Source(value, "abc" if value == "resample" else None)

    def setting(task: TokenizedTask, *, by_prompt: bool) -> ExplorationSetting:
        runner = Runner(loaded, task, progress=Silent())
        stored = StoredRunner(runner, None, Silent())
        allowance = Allowance(None, lambda: runner.forwards)
        own = runner, stored, "logit_diff", claimed, distinct_roles(task), source, "abc", allowance
        return ExplorationSetting(*own, by_prompt=by_prompt)

    parts = random_halves(np.array([one.template for one in prompts.prompts]), 3)
    with borrowed(loaded.model):
        together = repeated(setting(whole, by_prompt=True), parts, Repetition(options, (), frozenset()))
        assert len(together) == 6
        for one in together:
            alone = setting(chosen(whole, np.flatnonzero(one.subsample.counted).tolist()), by_prompt=False)
            work = Stages(alone, options, Silent())
            found = work.effects(work.estimates())
            choice = choose(alone, found, options.target, negatives=one.kind == HONEST)
            assert dict(choice.entries) == dict(one.entries)


def test_a_half_of_few_prompts_is_nothing_to_choose_on(tmp_path: Path) -> None:
    """CS584, at the task."""
    text = (ROOT / "hypotheses" / "toys" / "negative.circuit.yaml").read_text().replace("prompts: 24", "prompts: 19")
    (tmp_path / "few.yaml").write_text(text)
    run = CliRunner().invoke(main, ["explore", str(tmp_path / "few.yaml"), "--stability", "5", "--no-store"])
    assert run.exit_code == 5
    assert "error[CS584]" in run.output
    assert "few.yaml:14" in run.output


@pytest.mark.parametrize("beside", [["--recompute-attention"], ["--sections-only"], ["--metric", "rank"]])
def test_what_is_not_known_by_prompt_cannot_be_repeated(beside: list[str]) -> None:
    file = str(ROOT / "hypotheses" / "toys" / "negative.circuit.yaml")
    run = CliRunner().invoke(main, ["explore", file, "--stability", "5", *beside])
    assert run.exit_code == 2
    assert "--stability" in run.output
