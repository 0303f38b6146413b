"""Other prompts, for means to go over."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.schema.blocks import AblationSpec, TaskSpec
from circuitspec.models.zoo.word_tokenizer import word_tokenizer
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask, prompts_digest
from circuitspec.prompts.reference_prompts import MOST, MOST_TIMES, ReferencePrompts, first_size, largest_size
from circuitspec.prompts.templates.generators import common_words
from circuitspec.prompts.tokens.tokenize import tokenize
from tests.prompts.conftest import fast, word_level
from tests.prompts.support import IOI, spec

MEANS = {"value": "mean_per_template", "from": "abc"}
TOKENIZER = fast(word_level(bos=False))


def tokenized(task: TaskSpec) -> TokenizedTask:
    return tokenize(build_prompts(task, Path()), task.positions, TOKENIZER)


def others(task: TaskSpec, **ablation: object) -> ReferencePrompts:
    settings = AblationSpec.model_validate({**MEANS, **ablation})
    return ReferencePrompts(task, settings, Path(), None, TOKENIZER)


def texts(task: TokenizedTask) -> list[str]:
    return [prompt.texts[CLEAN] for prompt in task.prompts.prompts]


def test_others_are_drawn_by_the_same_rules_and_none_is_scored() -> None:
    task = spec()
    scored = tokenized(task)
    referring = others(task).of(scored)
    assert referring.reference is not None
    assert referring.reference.n == first_size(scored.n) == 200
    assert not set(texts(scored)) & set(texts(referring.reference))
    assert len(set(texts(referring.reference))) == 200
    assert prompts_digest(referring.prompts) == prompts_digest(scored.prompts)
    for prompt in referring.reference.prompts.prompts:
        assert prompt.template in (0, 1)
        names = {prompt.texts[CLEAN].split()[1], *prompt.texts["abc"].split()[1:4:2]}
        assert names <= {*IOI["lists"]["names"]}  # type: ignore[index]


def test_more_of_them_begin_with_the_same() -> None:
    task = spec()
    scored, made = tokenized(task), others(task)
    few, many = made.of(scored, 30).reference, made.of(scored, 80).reference
    assert few is not None
    assert many is not None
    assert texts(many)[:30] == texts(few)
    assert [prompt.index for prompt in many.prompts.prompts] == list(range(80))


def test_what_the_file_asks_for_is_drawn() -> None:
    task = spec()
    made = others(task, reference=17)
    assert made.asked == 17
    assert not made.grows
    referring = made.of(tokenized(task), 500)
    assert referring.averaged.n == 17


def test_the_scored_prompts_themselves_on_request() -> None:
    task = spec()
    assert others(task, reference="prompts").of(tokenized(task)).reference is None


def small() -> TaskSpec:
    """3 * 2 names, 2 places, 1 object, 2 templates: 24 prompts in all."""
    lists = {"names": ["Mary", "John", "Tom"], "places": ["store", "park"], "objects": ["ring"]}
    corruptions = {"flip": {"IO": "=S1", "S1": "=IO", "S2": "=IO"}}
    return spec(lists=lists, prompts=14, corruptions=corruptions)


def test_where_lists_give_fewer_others_than_are_scored_means_go_over_the_scored_ones() -> None:
    scored = tokenized(small())
    assert others(small(), **{"from": "flip"}).of(scored).reference is None
    asked = others(small(), reference=50, **{"from": "flip"}).of(scored)
    assert asked.reference is not None
    assert asked.reference.n == 24 - 14
    assert set(texts(asked.reference)).isdisjoint(texts(scored))


def test_others_that_the_tokenizer_does_not_take_are_left_out() -> None:
    """Robin is no word of the tokenizer: as a scored prompt's name it would be an error."""
    names = ["Mary", "John", "Tom", "Anna", "Paul", "Kate", "Robin"]
    task = spec(
        prompts=1, seed=1, lists={**IOI["lists"], "names": names}, corruptions={"flip": IOI["corruptions"]["flip"]}
    )  # type: ignore[index, dict-item]
    referring = others(task, reference=60, **{"from": "flip"}).of(tokenized(task))
    assert referring.reference is not None
    assert referring.reference.n > 20
    assert not any("Robin" in text for text in texts(referring.reference))


def test_a_generator_makes_others_too() -> None:
    task = TaskSpec.model_validate({"generate": {"repeated_tokens": {"length": 4}}, "prompts": 12})
    tokenizer = word_tokenizer([spelled for word in common_words() for spelled in (word, f" {word}")], 99)
    scored = tokenize(build_prompts(task, Path()), task.positions, tokenizer)
    settings = AblationSpec.model_validate({"value": "mean_per_template", "from": "unrelated"})
    referring = ReferencePrompts(task, settings, Path(), None, tokenizer).of(scored, 60)
    assert referring.reference is not None
    assert referring.reference.n == 60
    assert not set(texts(scored)) & set(texts(referring.reference))


LINE = '{{"clean": "Then {0} and {1} went to the store", "corrupt": "Then {2} and {2} went to the park"}}'


def lines(*names: str) -> str:
    return "\n".join(LINE.format(*one.split()) for one in names) + "\n"


def from_file(tmp_path: Path, more: str) -> TokenizedTask:
    (tmp_path / "p.jsonl").write_text(lines("Mary John Tom", "Tom Anna Paul", "Kate Mary John"))
    (tmp_path / "more.jsonl").write_text(more)
    task = TaskSpec.model_validate({"file": "p.jsonl"})
    settings = AblationSpec.model_validate({"value": "mean", "from": "corrupt", "reference": {"file": "more.jsonl"}})
    scored = tokenize(build_prompts(task, tmp_path), task.positions, TOKENIZER)
    return ReferencePrompts(task, settings, tmp_path, None, TOKENIZER).of(scored)


def test_others_from_a_file_less_those_that_are_scored(tmp_path: Path) -> None:
    found = from_file(tmp_path, lines("Paul Kate Tom", "Mary John Tom", "Anna Paul Mary"))
    assert found.reference is not None
    assert texts(found.reference) == ["Then Paul and Kate went to the store", "Then Anna and Paul went to the store"]


def test_others_from_a_file_have_the_same_corruptions(tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError) as error:
        from_file(tmp_path, lines("Paul Kate Tom").replace('"corrupt": "', '"corrupt": {"x": "').replace('"}', '"}}'))
    assert {finding.code for finding in error.value.diagnostics} == {"CS340"}


def test_bounds_of_how_many_are_drawn() -> None:
    assert [first_size(n) for n in (10, 100, 400)] == [200, 200, 800]
    assert largest_size(10) == MOST
    assert largest_size(1000) == MOST_TIMES * 1000
