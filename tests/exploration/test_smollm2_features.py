"""The dictionary of SmolLM2's stream, and the features that `explore` found in it: on words that neither ever saw."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from circuitspec.dictionaries.readers.all_formats import read_dictionary
from circuitspec.dictionaries.told_places import place_told
from circuitspec.hypothesis_file.load_file import load_exploration, load_hypothesis
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.prompts.build import build_prompts
from circuitspec.runtime.progress import Silent
from tests.exploration.test_explored_files import NEEDS_SMOLLM2

HYPOTHESES = Path(__file__).parents[2] / "hypotheses"
FOLDER = HYPOTHESES / "smollm2-features"
EXPLORED = HYPOTHESES / "explored"
FILE = HYPOTHESES / "agreement-smollm2-features.circuit.yaml"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_smollm2_features", FOLDER / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def words_of(file: str) -> set[str]:
    with (HYPOTHESES / "lists" / file).open(encoding="utf-8") as lines:
        return {row["noun"] for row in csv.DictReader(lines)}


def test_the_dictionary_is_as_its_readme_says(script: ModuleType) -> None:
    """Also what rounding to float16 leaves of directions of length 1: 11 bits, so 2 ** -11 of each number at most."""
    stored = read_dictionary(FOLDER / "r8", 8)
    dictionary, recipe = stored.dictionary, script.Recipe()
    assert str(place_told(stored.hook)) == "r8"
    assert (dictionary.d_in, dictionary.n_features, dictionary.dtype) == (576, recipe.n_features, torch.float32)
    assert dictionary.topk is not None
    assert (dictionary.topk.k, dictionary.topk.norms) == (recipe.k, None)
    assert torch.equal(dictionary.decoder, dictionary.decoder.half().float())
    assert (dictionary.decoder.norm(dim=-1) - 1).abs().max() < 2**-11
    assert sum(path.stat().st_size for path in (FOLDER / "r8").iterdir()) < 3_000_000


def test_its_features_are_those_that_the_script_trains(script: ModuleType) -> None:
    features = torch.tensor([[0.5, -1.0, 3.0, 2.0], [-3.0, -1.0, 4.0, -2.0]])
    kept = script.largest(features, 2)  # a negative one among the two largest is left out
    assert kept.tolist() == [[0.0, 0.0, 3.0, 2.0], [0.0, 0.0, 4.0, 0.0]]


def test_no_template_has_a_word_that_is_held_out(script: ModuleType) -> None:
    fresh = load_hypothesis(FILE)
    held_out = {*words_of("nouns-fresh.csv"), *fresh.hypothesis.task.lists["places"]}
    assert held_out == {*script.nouns("nouns-fresh.csv"), *script.HELD_OUT_PLACES}
    trained = {word.strip(",.") for text in script.templated_texts(script.Recipe()) for word in text.split()}
    assert words_of("nouns.csv") <= trained
    assert not held_out & trained
    study = load_exploration(EXPLORED / "agreement-smollm2-features.task.yaml")
    explored = build_prompts(study.exploration.task, study.base_dir, study.source)
    seen = {word for prompt in explored.prompts for text in prompt.texts.values() for word in text.split()}
    assert not held_out & seen


NUMBER = ("sae:stream.f657",)


@pytest.mark.parametrize(
    ("file", "features"),
    [
        pytest.param("agreement-smollm2-features", [NUMBER], marks=NEEDS_SMOLLM2),
        pytest.param("explored/agreement-smollm2-features-drafted-helpful", [NUMBER], marks=NEEDS_SMOLLM2),
        pytest.param(
            "explored/agreement-smollm2-features-drafted", [("sae:stream.f470",), NUMBER], marks=NEEDS_SMOLLM2
        ),
    ],
)
def test_the_feature_of_number_holds_on_fresh_nouns(file: str, features: list[tuple[str, ...]]) -> None:
    """One feature of 1,024 (or with one that hurts a little): kept alone it recovers, ablated alone it takes away."""
    document = load_hypothesis(HYPOTHESES / f"{file}.circuit.yaml")
    assert [group.nodes for group in document.hypothesis.circuit.groups.values()] == features
    found = verify(document, VerifyOptions(negatives="off"), Silent()).verification
    assert {claim.status for claim in found.claims} == {"SUPPORTED"}
    sufficient, necessary = found.claims[:2]
    assert sufficient.estimate is not None
    assert necessary.estimate is not None
    assert sufficient.estimate.value > 0.9
    assert necessary.estimate.value < 0.15
