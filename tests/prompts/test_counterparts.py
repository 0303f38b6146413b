"""Corruptions with other numbers of tokens: which tokens correspond to which, and where positions are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerFast

from circuitspec.diagnostics.diagnostic import Span
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet, TextPlace, TokenizedTask
from circuitspec.prompts.reference_prompts import chosen
from circuitspec.prompts.tokens.tokenize import tokenize
from tests.prompts.conftest import trained
from tests.prompts.support import build, one_error, spec

LONG = {"names": ["Mary", "John", "Tom", "Anna", "Paul", "Kate"], "places": ["store"], "objects": ["ring"]}


def unequal(tokenizer: PreTrainedTokenizerFast, **changes: object) -> TokenizedTask:
    lists = {**LONG, "long": ["store park", "park store park"]}
    corruptions = {"abc": {"IO": "$names", "S1": "$names", "S2": "$names", "place": "$long"}}
    prompts = build(spec(**{"lists": lists, "corruptions": corruptions, **changes}))
    return tokenize(prompts, {"END": "last", "AFTER": "S2 + 1"}, tokenizer, unequal=True)


def strings(tokenizer: PreTrainedTokenizerFast, task: TokenizedTask, variant: str, prompt: int) -> list[str]:
    return [tokenizer.decode([one]).strip() for one in task.ids[variant][prompt]]


@pytest.mark.parametrize(
    "name", ["word-level", "word-level-bos", "byte-level-trimmed-bos", "metaspace-bos", "llama-like"]
)
def test_pieces_of_a_template_correspond(name: str) -> None:
    """Everything outside the longer slot is the same token, or a name for a name; of the slot the last token is."""
    tokenizer = trained(name)
    task = unequal(tokenizer)
    there, back = task.counterparts(CLEAN, "abc"), task.counterparts("abc", CLEAN)
    assert there is not None
    assert back is not None
    own = task.own["abc"]
    for i in range(task.n):
        clean, corrupt = strings(tokenizer, task, CLEAN, i), strings(tokenizer, task, "abc", i)
        assert len(corrupt) > len(clean)
        assert all(there[i][at] == own.roles[role][i] for role, places in task.roles.items() for at in [places[i]])
        assert corrupt[own.roles["END"][i]] == clean[task.roles["END"][i]] == "to"
        names = {task.roles[role][i] for role in ("IO", "S1", "S2")} | {task.roles["place"][i]}
        slots = {at for slot in task.slot_tokens.values() for at in slot[i]}
        for at, other in enumerate(there[i]):
            assert other >= 0, (at, clean[at])
            assert at in slots or clean[at] == corrupt[other]
        assert [back[i][other] for other in there[i]] == list(range(len(clean)))
        alone = [k for k, at in enumerate(back[i]) if at < 0]  # the longer slot's tokens but the last
        assert alone == list(range(own.slot_tokens["place"][i][0], own.roles["place"][i]))
        assert names


def test_what_the_clean_prompt_has_more_of_has_no_counterpart() -> None:
    tokenizer = trained("word-level")
    lists = {**LONG, "places": ["store park"], "short": ["park"]}
    corruptions = {"abc": {"place": "$short"}, "same": {"IO": "$names"}}
    task = unequal(tokenizer, lists=lists, corruptions=corruptions)
    there = task.counterparts(CLEAN, "abc")
    assert there is not None
    for i in range(task.n):
        assert [k for k, at in enumerate(there[i]) if at < 0] == [task.roles["place"][i] - 1]
        assert "the slot place: 'store park' is 2 tokens, 'park' is 1" in task.own["abc"].unlike[i]
    assert task.counterparts(CLEAN, "same") is None  # aligned token by token, as ever
    between = task.counterparts("abc", "same")
    assert between is not None
    assert all(min(one) >= 0 for one in between)
    some = chosen(task, [4, 2])
    assert some.own["abc"].pairs == tuple(task.own["abc"].pairs[i] for i in (4, 2))  # type: ignore[index]
    assert some.own["abc"].unlike == {0: task.own["abc"].unlike[4], 1: task.own["abc"].unlike[2]}
    assert {d.code for d in task.misfits} == {"CS343"}  # which entry it is, for where that is in the way


def from_file(positions: dict[str, int | TextPlace], corrupt: str) -> PromptSet:
    texts = {CLEAN: "Then Mary and John went to the store", "corrupt": corrupt}
    prompt = Prompt(
        0, 0, texts, (" Mary",), (" John",), positions=positions, where="p.jsonl:1", span=Span("p.jsonl", 1, 1)
    )
    return PromptSet((prompt,), ("corrupt",), ("p.jsonl",))


def test_of_prompts_from_a_file_positions_alone_correspond(words: PreTrainedTokenizerFast) -> None:
    prompts = from_file({"WENT": TextPlace("went"), "PLACE": -1}, "Then Tom and Mary and John went to the park")
    task = tokenize(prompts, {"END": "last", "FIRST": "start"}, words, unequal=True)
    (there,) = task.counterparts(CLEAN, "corrupt") or ()
    clean, corrupt = strings(words, task, CLEAN, 0), strings(words, task, "corrupt", 0)
    assert {clean[k]: corrupt[at] for k, at in enumerate(there) if at >= 0} == {
        "Then": "Then",
        "went": "went",
        "store": "park",
    }
    assert "the clean text is 8 tokens, the corrupted one 10" in task.own["corrupt"].unlike[0]


@pytest.mark.parametrize("place", [4, TextPlace("John")])
def test_a_position_that_the_corrupted_text_does_not_have(
    place: int | TextPlace, words: PreTrainedTokenizerFast
) -> None:
    prompts = from_file({"WENT": place}, "Then Tom and Mary and Kate went to the park")
    finding = one_error(lambda: tokenize(prompts, {}, words, unequal=True), "CS367")
    assert "the position WENT of prompt 0 (p.jsonl:1)" in finding.message
    assert finding.span is not None


def test_two_positions_on_one_token_of_one_text_alone_say_nothing(words: PreTrainedTokenizerFast) -> None:
    """Token 4 counted from the start is `went`'s in the one and not in the other: no counterpart is known."""
    prompts = from_file({"WENT": TextPlace("went")}, "Then Tom and Mary and John went to the park")
    task = tokenize(prompts, {"FIFTH": "start + 4"}, words, unequal=True)
    (there,) = task.counterparts(CLEAN, "corrupt") or ()
    assert task.roles["FIFTH"] == task.roles["WENT"]
    assert there[4] == -1


def test_a_variant_may_be_added_with_other_lengths_if_it_says_what_corresponds(words: PreTrainedTokenizerFast) -> None:
    task = tokenize(from_file({}, "Then Mary and John went to the park"), {"END": "last"}, words)
    own = replace(task.of("corrupt"), ids=(task.ids["corrupt"][0][1:],))
    with pytest.raises(ValueError, match="not as long"):
        task.with_variant("shorter", own)
    paired = replace(own, pairs=(((7, 6),),), roles={"END": (6,)})
    (there,) = task.with_variant("shorter", paired).counterparts(CLEAN, "shorter") or ()
    assert there == (-1,) * 7 + (6,)
