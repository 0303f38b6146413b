from __future__ import annotations

import re
from itertools import combinations
from random import Random

import pytest

from circuitspec.models.zoo.ioi_corpus import (
    NAMES,
    OBJECTS,
    ORDERS,
    PLACES,
    TEST_TEMPLATES,
    Order,
    document,
    held_out_pairs,
    held_out_prompts,
    ioi_prompt,
    vocabulary,
)
from circuitspec.models.zoo.word_tokenizer import UNKNOWN, word_tokenizer


def test_a_tenth_of_all_pairs_is_held_out() -> None:
    assert len(set(NAMES)) == 48
    assert len(held_out_pairs()) == 113  # of 48 * 47 / 2 = 1128
    assert all(len(pair) == 2 and pair <= set(NAMES) for pair in held_out_pairs())


@pytest.fixture(scope="module")
def documents() -> tuple[str, ...]:
    rng = Random(7)
    return tuple(document(rng) for _ in range(5000))


def test_no_document_brings_a_held_out_pair_together(documents: tuple[str, ...]) -> None:
    seen = set()
    for text in documents:
        words = set(text.replace(",", " ").replace(".", " ").split())
        seen |= {frozenset(pair) for pair in combinations(words & set(NAMES), 2)}
    assert not seen & held_out_pairs()
    assert len(seen) == 1128 - 113  # and every other pair does meet


def test_orders_say_which_name_comes_first() -> None:
    abba = ioi_prompt(TEST_TEMPLATES[0], "ABBA", "Mary", "John", "zoo", "ring")
    baba = ioi_prompt(TEST_TEMPLATES[0], "BABA", "Mary", "John", "zoo", "ring")
    assert abba.text == "Then, Mary and John went to the zoo. John gave a ring to"
    assert baba.text == "Then, John and Mary went to the zoo. John gave a ring to"
    assert (abba.receiver, abba.giver) == (baba.receiver, baba.giver) == ("Mary", "John")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("template", TEST_TEMPLATES)
def test_test_templates_belong_to_the_training_distribution(
    template: str, order: Order, documents: tuple[str, ...]
) -> None:
    """Sentences of exactly this form, receiver included, turn up in training documents."""
    first, second = ("receiver", "giver") if order == "ABBA" else ("giver", "receiver")
    form = re.escape(f"{template} {{receiver}}.").replace(r"\{", "{").replace(r"\}", "}")
    form = form.replace("{giver}", "(?P=giver)").replace("{receiver}", "(?P=receiver)")
    form = form.replace("{first}", rf"(?P<{first}>\w+)").replace("{second}", rf"(?P<{second}>\w+)")
    form = form.replace("{place}", f"(?:{'|'.join(PLACES)})").replace("{object}", f"(?:{'|'.join(OBJECTS)})")
    assert any(re.search(form, text) for text in documents)


@pytest.mark.parametrize("order", ORDERS)
def test_held_out_prompts_draw_held_out_pairs_in_both_directions(order: Order) -> None:
    prompts = held_out_prompts(TEST_TEMPLATES[1], order, 400, Random(3))
    assert all(frozenset((p.receiver, p.giver)) in held_out_pairs() for p in prompts)
    assert {p.receiver < p.giver for p in prompts} == {True, False}


def test_the_vocabulary_covers_the_language(documents: tuple[str, ...]) -> None:
    tokenizer = word_tokenizer(vocabulary(), 64)
    for text in documents[:500]:
        ids = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text
    assert tokenizer.tokenize("Mary quoted 5 Johns") == ["Mary", UNKNOWN, UNKNOWN, UNKNOWN]
