"""Learning subspaces: a plane that was planted is found, tested on words that it was not learned on, and verified."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import circuitspec
from circuitspec.analysis.claims.abstraction.pair_claims import PlannedPairs
from circuitspec.analysis.verification_result import Verification
from circuitspec.analysis.warnings.abstraction.subspace_warnings import beyond_the_whole
from circuitspec.analysis.warnings.evidence import Evidence
from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.attribution.subspace_training import LearnedBasis, PairHits, TrainingSettings, learn_basis
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Site
from circuitspec.experiments.levels.interchange_level import WHOLE
from circuitspec.experiments.subspaces.subspace import principal_angles, random_basis
from circuitspec.experiments.subspaces.subspace_files import parsed, written
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp, Resid
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.load_file import load_hypothesis, parse_hypothesis
from circuitspec.models.zoo.toys.blueprint import ONE, HardHead, Match, Toy
from circuitspec.models.zoo.toys.weights import build
from circuitspec.pipelines.abstraction import alignment_controls, subspace_search
from circuitspec.pipelines.abstraction.alignment_controls import PERMUTED, UNTRAINED
from circuitspec.pipelines.abstraction.alignment_text import render_alignments
from circuitspec.pipelines.abstraction.alignment_warnings import warnings_of
from circuitspec.pipelines.abstraction.pair_preparation import pairs_of
from circuitspec.pipelines.abstraction.pair_splits import split_pairs
from circuitspec.pipelines.abstraction.subspace_search import AlignedVariable, AlignOptions, Tried, align, earliest
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.prompts.prompt_set import prompts_digest
from circuitspec.repository.locked_directions import direction_drift, lock_directions
from circuitspec.runtime.progress import Silent

LETTERS = "abcdefghijklmnopqrstuvwx"
CORNERS = {" north": (0, 0), " east": (1, 0), " south": (0, 1), " west": (1, 1)}
THINGS = {f" thing{letter}": tuple(CORNERS)[i % 4] for i, letter in enumerate(LETTERS)}
PLACES = {f" place{letter}": i % 2 for i, letter in enumerate(LETTERS)}


def toy() -> Toy:
    """A thing is in one of four corners, by two features; a place has a third, which no answer reads."""
    things = {word: {"f": CORNERS[corner][0], "g": CORNERS[corner][1]} for word, corner in THINGS.items()}
    places = {word: {"h": side} for word, side in PLACES.items()}

    def logit(f: int, g: int) -> dict[str, float]:
        signs = 2 * f - 1, 2 * g - 1
        return {"F": 4 * signs[0], "G": 4 * signs[1], ONE: -2 * sum(signs)}

    return Toy(
        "corners",
        "things in corners",
        ("f", "g", "h", "at thing", "at place", "F", "G", "H"),
        {**things, **places, "The": {}, " near": {}, " is": {}, **{corner: {} for corner in CORNERS}},
        {1: {"at thing": 1}, 3: {"at place": 1}},
        (
            HardHead(0, 0, (Match({ONE: 1}, {"at thing": 1}),), {"f": {"F": 1}, "g": {"G": 1}}),
            HardHead(0, 1, (Match({ONE: 1}, {"at place": 1}),), {"h": {"H": 1}}),
        ),
        (),
        {corner: logit(*features) for corner, features in CORNERS.items()},
    )


FILE = """circuitspec: 1
name: corners
model: {id: ./model}
task:
  templates: ["The {A.word} near {B} is"]
  slots: {A: $things, B: $places}
  lists:
    things: THINGS
    places: PLACES
  answer: " {A.corner}"
  wrong: " {A.other}"
  positions: {END: last}
  prompts: 48
circuit:
  groups:
    reader: {nodes: [a0.h0], at: END}
ablation: {value: zero, level: node, positions: declared}
abstraction:
  variables:
    corner: A.corner
  output: " {corner}"
  align:
    corner: {nodes: [r1], at: END, subspace: {rank: 2}}
  pairs:
    thing: {redraw: [A]}
    both: {redraw: [A, B]}
    place: {redraw: [B]}
claims:
  - interchange: {variable: corner, at_least: 0.8}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corners")
    model, tokenizer = build(toy())
    model.float().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    after = dict(zip(CORNERS, [*list(CORNERS)[1:], next(iter(CORNERS))], strict=True))
    things = [
        {"word": word.strip(), "corner": corner.strip(), "other": after[corner].strip()}
        for word, corner in THINGS.items()
    ]
    text = FILE.replace("THINGS", json.dumps(things)).replace("PLACES", json.dumps([p.strip() for p in PLACES]))
    (folder / "corners.circuit.yaml").write_text(text, encoding="utf-8")
    return folder


OPTIONS = AlignOptions(TrainingSettings(steps=300, lr=0.1), seeds=2, rows=16)


@pytest.fixture(scope="module")
def found(folder: Path) -> AlignedVariable:
    made = align(load_hypothesis(folder / "corners.circuit.yaml"), OPTIONS, Silent())
    (folder / "corners.subspaces.safetensors").write_bytes(made.content)
    print(render_alignments(made, "corners.subspaces.safetensors"))
    return made.variables[0]


@cache
def planted() -> np.ndarray:
    """The directions of F and G in the residual stream: pairs of channels, one up and one down."""
    names = toy().features
    basis = np.zeros((32, 2))
    for column, name in enumerate(("F", "G")):
        channel = 2 * (names.index(name) + 1)
        basis[channel, column], basis[channel + 1, column] = np.sqrt(0.5), -np.sqrt(0.5)
    return basis


def test_a_planted_plane_is_found(found: AlignedVariable) -> None:
    assert principal_angles(found.basis, planted()).max() < 0.05, principal_angles(found.basis, planted())
    assert 0 < max(found.angles) < 0.1
    kept = found.test.kept
    assert kept.all()
    assert found.test.hit.all()
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(2), atol=1e-10)


def test_controls(found: AlignedVariable) -> None:
    """The whole vector carries it too; random planes, permuted labels and random weights do not."""
    by_name = {one.name: one for one in found.controls}

    def changed(name: str) -> float:
        hits = by_name[name].hits
        return float(hits.hit[hits.kept & hits.changed].mean())

    assert changed(WHOLE) == 1
    assert changed("difference of means") == 1  # of four corners: the same plane
    assert max(changed(name) for name in by_name if name.startswith("random")) < 0.5
    assert changed(PERMUTED) < 0.7
    assert changed(UNTRAINED) < 0.7
    matched = [said.partition(" (")[0] for code, said in warnings_of(found) if code == "CS456"]
    assert [code for code, _ in warnings_of(found)] == ["CS456"] * len(matched)
    assert matched == ["difference of means"]  # nothing is learned that the means do not tell


class Site32:
    """The values of four bases and of their sources at a site, and every basis that is tested there."""

    width = 32
    batches = (SimpleNamespace(stream=torch.zeros(1, dtype=torch.float64)),)

    def __init__(self) -> None:
        self.bases: list[np.ndarray | None] = []
        base, source = np.random.default_rng(0).standard_normal((2, 4, 32))
        self.both = np.concatenate([base, source])
        batch = SimpleNamespace(prompts=[0, 1, 2, 3])
        self._values = [(batch, "f", torch.tensor(base), torch.tensor(source))]

    def values(self) -> list[Any]:
        return self._values

    def hits(self, basis: torch.Tensor | None) -> PairHits:
        self.bases.append(None if basis is None else basis.numpy())
        return scored(0)


def test_what_the_controls_are_made_of() -> None:
    """Five random planes that are apart; the line between two means; the eigenvectors of the covariance."""
    site: Any = Site32()
    of_source = [SimpleNamespace(slots=p >= 2) for p in range(4)]
    pairs: Any = SimpleNamespace(
        model=SimpleNamespace(run=lambda one: {"V": one}), slots=lambda p: p >= 1, families={"f": of_source}
    )
    made = alignment_controls.plain_controls(site, site, pairs, "V", 2, 0)
    full, *drawn, means, principal = site.bases
    assert [one.rank for one in made] == [None, 2, 2, 2, 2, 2, 1, 2]
    assert full is None
    for one, other in itertools.combinations(drawn, 2):
        assert principal_angles(one, other).min() > 0.3
    told = np.array([False, True, True, True, False, False, True, True])
    between = site.both[told].mean(0) - site.both[~told].mean(0)
    assert abs(between @ means[:, 0]) == pytest.approx(np.linalg.norm(between))
    largest = np.linalg.eigh(np.cov(site.both.T))[1][:, -2:]
    assert principal_angles(principal, largest).max() < 1e-6


def test_permuted_labels_are_those_of_the_choice_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and validation have other labels, dealt out apart; the test has the right ones."""

    class Labels:
        def __init__(self, name: str) -> None:
            self.name, self.batches = name, Site32.batches

        def permuted(self, seed: int) -> Labels:
            return Labels(f"{self.name}, dealt out {seed}")

        def hits(self, basis: torch.Tensor) -> PairHits:
            assert self.name == "test"
            return scored(5)

    asked: list[str] = []

    def learning(training: Labels, validation: Labels, *how: object) -> LearnedBasis:
        asked.extend((training.name, validation.name))
        return LearnedBasis(np.eye(4)[:, :1], scored(9), 1)

    monkeypatch.setattr(alignment_controls, "learn_basis", learning)
    splits: Any = [Labels(name) for name in ("training", "validation", "test")]
    found = alignment_controls.permuted_control(*splits, 1, 7, TrainingSettings(), lambda question, learn: learn())
    assert asked == ["training, dealt out 7", "validation, dealt out 8"]
    assert found is not None
    assert found.hits.hit.sum() == 5


def test_what_was_learned_is_verified(folder: Path, found: AlignedVariable) -> None:
    """With the file named, the claim is about the subspace: supported, and the store and plan tell bases apart."""
    text = (folder / "corners.circuit.yaml").read_text(encoding="utf-8")
    named = text.replace("{rank: 2}", "{rank: 2, file: corners.subspaces.safetensors}")
    file = folder / "learned.circuit.yaml"
    file.write_text(named, encoding="utf-8")
    verification = verify(load_hypothesis(file), VerifyOptions(), Silent()).verification
    (claim,) = verification.claims
    assert claim.status == "SUPPORTED", claim.reason
    figures = dict(claim.parts[0].figures)
    assert figures["IIA, changed"].value == 1


def test_words_of_training_are_warned_of(folder: Path, found: AlignedVariable) -> None:
    """A pair is on training words if its thing is one, or its source's; things of the test alone are none."""
    text = (folder / "corners.circuit.yaml").read_text(encoding="utf-8")
    file = folder / "learned.circuit.yaml"
    file.write_text(text.replace("{rank: 2}", "{rank: 2, file: corners.subspaces.safetensors}"), encoding="utf-8")
    told = parsed((folder / "corners.subspaces.safetensors").read_bytes())[1]["corner"]
    learned = {row["word"] for row in told["training_words"]["things"]}
    document = load_hypothesis(file)
    prompts = verify(document, VerifyOptions(negatives="off"), Silent())
    (warning,) = (one for one in prompts.verification.warnings if one.code == "CS458")
    pairs = pairs_of(document.hypothesis, prompts.task.prompts, document)
    assert pairs is not None
    expected, total = 0, 0
    for family in pairs.families:
        for i, changes in enumerate(pairs.changed((("corner", family),))):
            things = {pairs.slots(i)["A"]["word"], pairs.families[family][i].slots["A"]["word"]}  # type: ignore[index]
            total += changes
            expected += changes and bool(things & learned)
    assert (warning.data["pairs_with_training_words"], warning.data["pairs"]) == (expected, total)
    assert 0 < expected < total
    assert warning.data["with_training_words"]["value"] == 1  # type: ignore[index]
    assert warning.data["with_other_words"]["value"] == 1  # type: ignore[index]
    others = [row for row in document.hypothesis.task.lists["things"] if row["word"] not in learned]  # type: ignore[index]
    lines = text.splitlines()
    lines = [f"    things: {json.dumps([dict(row) for row in others])}" if "    things:" in x else x for x in lines]
    held_out = "\n".join(lines).replace("{rank: 2}", "{rank: 2, file: corners.subspaces.safetensors}")
    file.write_text(held_out, encoding="utf-8")
    again = verify(load_hypothesis(file), VerifyOptions(negatives="off"), Silent()).verification
    assert again.claims[0].status == "SUPPORTED"
    assert "CS458" not in {one.code for one in again.warnings}


def test_lists_that_are_too_short_to_split_are_warned_of(folder: Path, found: AlignedVariable) -> None:
    """Seven things, of which a quarter is one; and places, which the variable is not read from."""
    hypothesis = load_hypothesis(folder / "corners.circuit.yaml").hypothesis
    lists = {"things": hypothesis.task.lists["things"][:7], "places": hypothesis.task.lists["places"][:7]}
    document = load_hypothesis(folder / "corners.circuit.yaml")
    short = hypothesis.task.model_copy(update={"lists": lists})
    assert hypothesis.abstraction is not None
    splits = split_pairs(short, hypothesis.abstraction, folder, document.source)
    assert splits.shared == {"things", "places"}
    assert splits.shared_by("corner", short) == ("things",)
    assert len(splits.parts["training"].words["things"]) == 7
    warned = replace(found, rows=replace(found.rows, shared=("things",)))
    ((_, said),) = ((code, said) for code, said in warnings_of(warned) if code == "CS458")
    assert said.startswith("training, validation and test share the words of things")


@pytest.mark.parametrize("templates", [1, 2, 3, 5])
def test_splits_share_no_words_and_no_templates(templates: int) -> None:
    """Of 24 things 12, 6 and 6; of two templates the test has one to itself, of more every split."""
    things = [{"word": w.strip(), "corner": "north", "other": "east"} for w in THINGS]
    text = FILE.replace("THINGS", json.dumps(things)).replace("PLACES", json.dumps([p.strip() for p in PLACES]))
    said = [f"Number {n}: the {{A.word}} near {{B}} is" for n in range(templates)]
    document = parse_hypothesis(text.replace('["The {A.word} near {B} is"]', json.dumps(said)), "corners.circuit.yaml")
    assert document.hypothesis.abstraction is not None
    splits = split_pairs(document.hypothesis.task, document.hypothesis.abstraction, Path(), document.source)
    seen: dict[str, tuple[set[str], set[str]]] = {}
    for name, part in splits.parts.items():
        of_pairs = [source.slots for family in part.pairs.families.values() for source in family]
        slots = [*map(part.pairs.slots, range(len(part.pairs))), *of_pairs]
        words = {str(one["A"]["word"]) for one in slots} | {str(one["B"]) for one in slots}  # type: ignore[index]
        seen[name] = words, {prompt.texts["clean"].split(":")[0] for prompt in part.prompts.prompts}
        assert len(part.words["things"]) == (12 if name == "training" else 6)
    (training, of_training), (validation, of_validation), (test, of_test) = seen.values()
    assert not training & validation
    assert not (training | validation) & test
    assert bool((of_training | of_validation) & of_test) == (templates == 1)
    assert bool(of_training & of_validation) == (templates < 3)
    assert splits.shared == frozenset()


def scored(hits: int, of: int = 100) -> PairHits:
    hit, every = np.arange(of) < hits, np.ones(of, dtype=bool)
    return PairHits(hit, hit, ~every, every, every, 0.0)


@pytest.mark.parametrize(
    ("shares", "chosen"),
    [
        ({("r1", 1): 81, ("r1", 4): 90, ("r3", 1): 90}, ("r1", 4)),  # Wilson's interval of 90 of 100 begins at 0.826
        ({("r1", 1): 83, ("r1", 4): 90, ("r3", 1): 90}, ("r1", 1)),
        ({("r3", 4): 90, ("r3", 1): 84, ("r10", 1): 99}, ("r10", 1)),  # and of 99 of 100 at 0.946
        ({("r10", 1): 90, ("r3", 4): 88, ("r3", 2): 85, ("r3", 1): 40}, ("r3", 2)),
    ],
)
def test_the_earliest_place_and_there_the_smallest_rank_as_good_as_the_best(
    shares: dict[tuple[str, int], int], chosen: tuple[str, int]
) -> None:
    tried = [
        Tried(Site(Resid(int(name[1:])), Where.at("END")), rank, LearnedBasis(np.eye(8)[:, :rank], scored(hits), 1))
        for (name, rank), hits in shares.items()
    ]
    found = earliest(tried)
    assert (format_name(found.site.component), found.rank) == chosen


def test_one_family_that_carries_the_result(found: AlignedVariable) -> None:
    """The test's figures, with the hits of one family taken away, and then with its pairs taken for unchanged."""
    of_thing = np.array(found.rows.families) == "thing"
    of_both = np.array(found.rows.families) == "both"
    lost = replace(found, test=replace(found.test, hit=found.test.hit & ~of_both))
    (said,) = (said for code, said in warnings_of(lost) if code == "CS454")
    assert said.startswith("one family of pairs carries the result: thing 1.00 [")
    alone = replace(found, test=replace(found.test, changed=found.test.changed & of_thing))
    (said,) = (said for code, said in warnings_of(alone) if code == "CS454")
    assert said.startswith("the answer must change in one family of pairs alone, thing")


@pytest.mark.parametrize("name", ["random subspace 3", "difference of means", "PCA", PERMUTED, UNTRAINED])
def test_every_control_that_does_as_much_is_named(found: AlignedVariable, name: str) -> None:
    """Each with the subspace's own hits, and the others with none."""
    none = replace(found.test, hit=np.zeros_like(found.test.hit))
    controls = tuple(replace(one, hits=found.test if one.name == name else none) for one in found.controls)
    said = [said for code, said in warnings_of(replace(found, controls=controls)) if code == "CS456"]
    assert [one.startswith(f"{name} (1.00 [") for one in said] == [True]


@pytest.mark.parametrize(
    ("written_as", "code", "said"),
    [
        ("{rank: 3, file: x.safetensors}", "CS236", "its rank is 2, not 3"),
        ("{rank: 2, file: y.safetensors}", "CS236", "y.safetensors does not exist"),
        ("{rank: 2, file: moved.safetensors}", "CS236", "it is a subspace of r0 at END, not of r1 at END"),
        ("{rank: 2, file: skewed.safetensors}", "CS236", "its columns are not orthonormal"),
        ("{rank: 2, file: text.safetensors}", "CS236", "this is no safetensors file"),
        ("{rank: 2, file: narrow.safetensors}", "CS236", "its vectors have 8 numbers"),
        ("{rank: [1, 3], file: x.safetensors}", "CS236", "its rank is 2, not 1 or 3"),
        ("{rank: 2}", "CS235", "the subspace of corner has no file"),
    ],
)
def test_files_that_do_not_fit(folder: Path, written_as: str, code: str, said: str) -> None:
    told = {"corner": {"component": "r1", "where": "END"}}
    content = {
        "x": written({"corner": planted()}, told),
        "moved": written({"corner": planted()}, {"corner": {"component": "r0", "where": "END"}}),
        "skewed": written({"corner": planted() * 1.001}, told),
        "text": b"not tensors",
        "narrow": written({"corner": np.eye(8)[:, :2]}, told),
    }
    for name, raw in content.items():
        (folder / f"{name}.safetensors").write_bytes(raw)
    file = folder / "other.circuit.yaml"
    text = (folder / "corners.circuit.yaml").read_text(encoding="utf-8")
    file.write_text(text.replace("{rank: 2}", written_as), encoding="utf-8")
    result = CliRunner().invoke(main, ["plan", str(file)])
    assert result.exit_code == 3
    assert f"error[{code}]" in result.output
    assert said in " ".join(result.output.split())


def test_nothing_to_learn(folder: Path) -> None:
    text = (folder / "corners.circuit.yaml").read_text(encoding="utf-8")
    file = folder / "whole.circuit.yaml"
    file.write_text(text.replace(", subspace: {rank: 2}", ""), encoding="utf-8")
    with pytest.raises(CircuitspecError) as refused:
        align(load_hypothesis(file), OPTIONS, Silent())
    assert [one.code for one in refused.value.diagnostics] == ["CS524"]


def test_the_file_says_where_it_comes_from(folder: Path, found: AlignedVariable) -> None:
    tensors, told = parsed((folder / "corners.subspaces.safetensors").read_bytes())
    np.testing.assert_array_equal(tensors["corner"], found.basis)
    own = told["corner"]
    assert (own["component"], own["where"], own["rank"], own["loss"]) == ("r1", "END", 2, "candidates")
    assert set(own["prompts"]) == {"training", "validation", "test"}
    assert len(set(own["prompts"].values())) == 3
    assert len(own["model_digest"]) == 64
    assert own["versions"]["circuitspec"] == circuitspec.__version__
    assert len(own["training_words"]["things"]) == 12


def verified(folder: Path, basis: np.ndarray) -> Verification:
    """The claim on a given basis of r1."""
    told = {"corner": {"component": "r1", "where": "END"}}
    (folder / "given.safetensors").write_bytes(written({"corner": basis}, told))
    text = (folder / "corners.circuit.yaml").read_text(encoding="utf-8")
    file = folder / "given.circuit.yaml"
    rank = basis.shape[1]
    file.write_text(text.replace("{rank: 2}", f"{{rank: {rank}, file: given.safetensors}}"), encoding="utf-8")
    return verify(load_hypothesis(file), VerifyOptions(negatives="off"), Silent()).verification


def test_random_subspaces_that_do_as_much(folder: Path) -> None:
    """All but one of the model's dimensions: whatever is left out, the answer comes along."""
    verification = verified(folder, random_basis(32, 31, seed=9))
    assert "CS456" in {warning.code for warning in verification.warnings}


def test_a_subspace_better_than_its_whole_vector(folder: Path) -> None:
    """Told from the figures: where the whole vector's hits are taken away, and nothing else."""
    verification = verified(folder, planted())
    assert not {warning.code for warning in verification.warnings} & {"CS455", "CS456"}
    (claim,) = verification.plan.claims
    assert isinstance(claim, PlannedPairs)
    values = {run: dict(columns) for run, columns in verification.records.values.items()}
    for trial in claim.trials:
        run = trial.controls[WHOLE]
        values[run]["accuracy"] = np.zeros_like(values[run]["accuracy"])
    evidence = Evidence(verification.plan, Records(values, verification.records.templates), claims=verification.claims)
    assert {one.code for one in beyond_the_whole(evidence)} == {"CS455"}


@pytest.mark.nightly
def test_the_command(folder: Path, tmp_path: Path) -> None:
    """Two layers and two ranks tried: the corner is in r1 alone, and takes two directions."""
    target = tmp_path / "found.safetensors"
    asked = ["--ranks", "1,2", "--sites", "r0,r1", "--steps", "60", "--lr", "0.1", "--seeds", "1", "--no-controls"]
    file = folder / "corners.circuit.yaml"
    result = CliRunner().invoke(main, ["align", str(file), "-o", str(target), "--batch-size", "16", *asked])
    assert result.exit_code == 0, result.output
    told = parsed(target.read_bytes())[1]["corner"]
    assert (told["component"], told["rank"]) == ("r1", 2)
    assert [one[:2] for one in told["tried"]] == [["r0", 1], ["r0", 2], ["r1", 1], ["r1", 2]]
    assert "corner: rank 2 of r1 at END" in result.output
    assert "corner: {nodes: [r1], at: [END], subspace: {rank: 2, file: found.safetensors}}" in result.output


def test_a_lock_has_the_file(folder: Path) -> None:
    (folder / "locked.safetensors").write_bytes(written({"corner": planted()}, {}))
    text = (folder / "corners.circuit.yaml").read_text(encoding="utf-8")
    file = folder / "locked.circuit.yaml"
    file.write_text(text.replace("{rank: 2}", "{rank: 2, file: locked.safetensors}"), encoding="utf-8")
    document = load_hypothesis(file)
    locked = lock_directions(document)
    assert list(locked) == ["locked.safetensors"]
    assert not list(direction_drift(document, locked))
    (folder / "locked.safetensors").write_bytes(written({"corner": -planted()}, {}))
    (finding,) = direction_drift(document, locked)
    assert finding.code == "CS552"
    assert "locked.safetensors (subspace) changed since it was locked" in finding.message


class Learning:
    """Counts what is learned, by the command's own functions, and stops it at the one after `most`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int | None = None) -> None:
        self.count, self._most, self._learn = 0, most, learn_basis
        self.prompts: set[tuple[str, str]] = set()  # that it was learned on, and chosen on
        monkeypatch.setattr(subspace_search, "learn_basis", self)
        monkeypatch.setattr(alignment_controls, "learn_basis", self)

    def __call__(self, *given: Any) -> LearnedBasis | None:
        if self.count == self._most:
            raise KeyboardInterrupt
        self.count += 1
        training, validation = (prompts_digest(pairs._forward.task.prompts) for pairs in given[:2])
        self.prompts.add((training, validation))
        return self._learn(*given)


@pytest.mark.parametrize(
    ("most", "kept"), [(1, "1 subspace"), pytest.param(5, "5 subspaces", marks=pytest.mark.nightly)]
)
def test_a_search_that_was_stopped_goes_on(
    most: int, kept: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was learned is not learned again, and the output is that of an undisturbed search to the last byte.

    Two sites with two ranks each, a second seed at the chosen one, permuted labels and an untrained model: seven. What
    was learned in other steps is another question.
    """
    command = ["align", str(folder / "corners.circuit.yaml"), "--ranks", "1,2", "--sites", "r0,r1", "--steps", "6"]
    command += ["--lr", "0.1", "--seeds", "2", "--batch-size", "16"]

    seen: set[tuple[str, str]] = set()

    def run(store: str, most: int | None = None) -> tuple[int, str, str, bytes, int]:
        file = tmp_path / "found.subspaces.safetensors"
        file.unlink(missing_ok=True)
        with monkeypatch.context() as patched:
            learning = Learning(patched, most)
            ran = CliRunner().invoke(main, [*command, "-o", str(file), "--store", str(tmp_path / store)])
        seen.update(learning.prompts)
        return ran.exit_code, ran.stdout, ran.stderr, file.read_bytes() if file.exists() else b"", learning.count

    code, out, _, content, learned = run("whole")
    assert (code, learned) == (0, 7)
    told_of = parsed(content)[1]["corner"]["prompts"]
    assert seen == {(told_of["training"], told_of["validation"])}  # and the test's have no part in it
    code, said, told, written_, _ = run("stopped", most)
    assert (code, said, written_) == (130, "", b"")
    assert told.endswith(f"interrupted; {kept} kept: run the same command again\n")
    code, said, _, written_, learned = run("stopped")
    assert (code, said, written_, learned) == (0, out, content, 7 - most)
    text = (folder / "corners.circuit.yaml").read_text(encoding="utf-8")
    listed = text.replace("nodes: [r1]", 'nodes: ["r[0-1]"]').replace("rank: 2", "rank: [2, 1]")
    (folder / "listed.circuit.yaml").write_text(listed, encoding="utf-8")
    command[1:6] = [str(folder / "listed.circuit.yaml")]
    assert run("whole")[3:] == (content, 0)  # as the file says by itself
    (folder / "listed.subspaces.safetensors").write_bytes(content)
    named = listed.replace("rank: [2, 1]", "rank: [2, 1], file: listed.subspaces.safetensors")
    (folder / "named.circuit.yaml").write_text(named, encoding="utf-8")
    ran = CliRunner().invoke(main, ["plan", str(folder / "named.circuit.yaml")])
    (component, rank) = (parsed(content)[1]["corner"][key] for key in ("component", "rank"))
    assert (ran.exit_code, rank in (1, 2), f"at {component}@END" in ran.output) == (0, True, True), ran.output
    command[command.index("6")] = "7"
    assert run("whole", 0)[2].endswith("interrupted; 0 subspaces kept: run the same command again\n")


def test_what_was_learned_is_found_again_in_any_order_of_positions(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two names that a set has in the order in which they came, as other processes have others in another order."""
    names = (f"P{number}" for number in range(1000))
    one = next(names)
    other = next(name for name in names if repr(frozenset((one, name))) != repr(frozenset((name, one))))
    text = (folder / "corners.circuit.yaml").read_text(encoding="utf-8")
    text = text.replace("{END: last}", f"{{END: last, {one}: A, {other}: B}}")
    learned = []
    for number, at in enumerate((f"[{one}, {other}]", f"[{other}, {one}]")):
        file = folder / f"ordered{number}.circuit.yaml"
        file.write_text(text.replace("r1], at: END", f"r1], at: {at}"), encoding="utf-8")
        command = ["align", str(file), "-o", str(tmp_path / "x.safetensors"), "--store", str(tmp_path / "store")]
        with monkeypatch.context() as patched:
            learning = Learning(patched)
            ran = CliRunner().invoke(main, [*command, "--steps", "1", "--seeds", "1", "--no-controls"])
        assert ran.exit_code == 0, ran.output
        learned.append(learning.count)
    assert learned == [1, 0]


def test_the_earliest_site_is_the_first_in_the_order_of_the_model(found: AlignedVariable) -> None:
    """Of equal scores: the stream that enters a layer is before its heads, and these before its MLP."""
    (tried,) = found.tried
    components = (Mlp(1), Head(1, 10), Head(1, 2), Resid(1))
    every = [replace(tried, site=Site(one, tried.site.where)) for one in components]
    for most in range(4, 0, -1):
        assert earliest(every[:most]).site.component == components[most - 1]


def test_a_neuron_has_no_subspace(folder: Path) -> None:
    text = (folder / "corners.circuit.yaml").read_text(encoding="utf-8")
    file = folder / "neuron.circuit.yaml"
    file.write_text(text.replace("nodes: [r1]", "nodes: [r1, m0.n0]"), encoding="utf-8")
    for command in ("plan", "align"):
        result = CliRunner().invoke(main, [command, str(file)])
        assert result.exit_code == 3
        assert "error[CS185]: the value of m0.n0 is no single vector" in result.output


@pytest.mark.nightly
def test_subspaces_where_a_variable_is_found(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a0.h0 writes the corner, at END, into a plane of r1: a plane of it does what the whole does, and no line.

    `align` finds what was learned in the store, and says the same of it.
    """
    file, store = str(folder / "corners.circuit.yaml"), ["--store", str(tmp_path / "store")]

    def explored(rank: int) -> tuple[str, pd.DataFrame]:
        asked = ["--variable", "corner", "--rank", str(rank), "--places", "1", "--output-dir", str(tmp_path)]
        ran = CliRunner().invoke(main, ["explore", file, *asked, *store])
        assert ran.exit_code == 0, ran.output
        return ran.stdout, pd.read_csv(tmp_path / "subspaces.csv")

    said, table = explored(2)
    (row,) = table.to_dict("records")
    assert (row["component"], row["position"], row["rank"]) == ("r1", "END", 2)
    assert [row[name] for name in ("iia", "unchanged", "whole_iia", "whole_unchanged")] == [1, 1, 1, 1]
    assert "corner: {nodes: [r1], at: END, subspace: {rank: 2}}" in said
    assert "corner: {nodes: [r1]" in (tmp_path / "align-corner.yaml").read_text(encoding="utf-8")
    learning = Learning(monkeypatch)
    out = str(tmp_path / "x.safetensors")
    ran = CliRunner().invoke(main, ["align", file, "--seeds", "1", "--no-controls", "-o", out, *store])
    assert (ran.exit_code, learning.count) == (0, 0)
    assert explored(1)[1]["iia"][0] < 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--rank", "2"], "--rank and --places go with --variable"),
        (["--places", "2"], "--rank and --places go with --variable"),
        (["--variable", "corner", "--rank", "2", "--sweep", "attention"], "--rank is of one vector"),
    ],
)
def test_options_that_do_not_go_together(folder: Path, given: list[str], said: str) -> None:
    ran = CliRunner().invoke(main, ["explore", str(folder / "corners.circuit.yaml"), *given])
    assert (ran.exit_code, said in ran.output) == (2, True), ran.output
