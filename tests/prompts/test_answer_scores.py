"""Answers of several tokens: which of their tokens count, on tokenizers that split words and digits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from circuitspec.prompts.output_metrics import available_metrics, check_metrics
from circuitspec.prompts.prompt_set import CLEAN, AnswerSequences, prompts_digest
from circuitspec.prompts.reference_prompts import chosen
from circuitspec.prompts.tokens.tokenize import tokenize
from tests.prompts.conftest import fast, trained
from tests.prompts.support import build, errors_of, one_error, plain, spec
from tests.prompts.test_tokenize_errors import single

BYTES = "byte-level-trimmed-bos"


def by_digit() -> PreTrainedTokenizerFast:
    """Words with the space before them, and every digit by itself."""
    words = ["The", " war", " lasted", " from", " the", " year", " to", " 17", "17", *map(str, range(10))]
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" 17", "isolated"),
            pre_tokenizers.Split(r" ", "merged_with_next"),
            pre_tokenizers.Digits(True),
        ]
    )
    tokenizer.decoder = decoders.Fuse()
    return fast(tokenizer)


def test_every_token_of_an_answer_counts() -> None:
    tokenizer = trained(BYTES)
    task = tokenize(
        build(spec(answer=" {IO} Zebedee", wrong=[" {S1} Zebedee", " {S1}"], score="sum_logprob")), {}, tokenizer
    )
    assert task.answers == task.wrong == ((),) * task.n  # nothing takes the first token for the answer
    assert task.sequences is not None
    for k, prompt in enumerate(task.prompts.prompts):
        for texts, sequences in ((prompt.answers, task.sequences.answers[k]), (prompt.wrong, task.sequences.wrong[k])):
            whole = [tuple(tokenizer(prompt.texts[CLEAN] + text)["input_ids"]) for text in texts]
            assert [(*task.ids[CLEAN][k], *one) for one in sequences] == whole
    assert task.row_lengths == tuple(
        len(ids) + max(len(one) - 1 for one in (*right, *wrong))
        for ids, right, wrong in zip(task.ids[CLEAN], task.sequences.answers, task.sequences.wrong, strict=True)
    )
    assert chosen(task, [3, 1]).sequences == AnswerSequences(
        (task.sequences.answers[3], task.sequences.answers[1]), (task.sequences.wrong[3], task.sequences.wrong[1])
    )


def test_what_follows_a_prompt_is_run_once_for_all_answers_that_it_begins() -> None:
    sequences = AnswerSequences((((5, 6, 7), (8,)), ((1, 2),)), (((5, 6, 9), (5, 6)), ((1, 3),)))
    assert sequences.continuations == (((5, 6), (), (5,)), ((1,),))


def test_the_first_token_counts_where_that_is_asked_for() -> None:
    tokenizer = trained(BYTES)
    prompts = build(spec(answer=" {IO} Zebedee", wrong=" {S1} Zebedee", score="first_token"))
    task = tokenize(prompts, {}, tokenizer)
    assert task.sequences is None
    for k, prompt in enumerate(prompts.prompts):
        (answer,) = prompt.answers
        continued = tokenizer(prompt.texts[CLEAN] + answer)["input_ids"]
        assert task.answers[k] == (continued[len(task.ids[CLEAN][k])],)


def test_answers_that_begin_alike_need_all_their_tokens() -> None:
    changes: dict[str, Any] = {"answer": " {IO} Zebedee", "wrong": " {IO} Tom"}
    found = errors_of(lambda: tokenize(build(spec(**changes, score="first_token")), {}, trained(BYTES)))
    assert {d.code for d in found} == {"CS347"}
    assert "begin with the same token" in found[0].message
    assert "sum_logprob" in found[0].hint
    assert tokenize(build(spec(**changes, score="sum_logprob")), {}, trained(BYTES)).sequences is not None


def test_the_same_answer_is_not_right_and_wrong() -> None:
    prompts = build(spec(answer=" {IO} Zebedee", score="sum_logprob"))
    both = replace(prompts, prompts=tuple(replace(one, wrong=(" Tom", *one.answers)) for one in prompts.prompts))
    found = errors_of(lambda: tokenize(both, {}, trained(BYTES)))
    assert {d.code for d in found} == {"CS347"}
    assert "are the same tokens" in found[0].message


@pytest.mark.parametrize("score", ["first_token", "sum_logprob"])
def test_an_answer_must_leave_the_prompt_as_it_is(score: Any) -> None:
    prompts = replace(single({CLEAN: "Then, Joh"}, answers=("n went",)), score=score)
    finding = one_error(lambda: tokenize(prompts, {}, trained(BYTES)), "CS346")
    assert "changes the tokens of the prompt" in finding.message
    assert "score" not in finding.hint


def test_without_a_score_the_hint_names_both_and_skipping() -> None:
    found = errors_of(lambda: tokenize(build(spec(wrong=" Zebedee")), {}, trained(BYTES)))
    assert all(word in found[0].hint for word in ("score: sum_logprob", "score: first_token", "skip: [split_answers]"))


def test_years_on_a_tokenizer_that_splits_digits() -> None:
    task = plain(
        templates=["The war lasted from the year 17{YY} to the year 17"],
        slots={"YY": "$starts"},
        lists={"years": [f"{k:02}" for k in range(2, 99)], "starts": ["11", "32", "77"]},
        answer={"from": "$years", "above": "YY"},
        wrong={"from": "$years", "at_most": "YY"},
        prompts=3,
        score="sum_logprob",
    )
    tokenizer = by_digit()
    found = tokenize(build(task), {"END": "last"}, tokenizer)
    assert found.sequences is not None
    assert found.continuations is not None
    for k, prompt in enumerate(found.prompts.prompts):
        sequences = (*found.sequences.answers[k], *found.sequences.wrong[k])
        assert {len(one) for one in sequences} == {2}
        assert ["".join(map(tokenizer.decode, one)) for one in sequences] == [*prompt.answers, *prompt.wrong]
        assert len(found.continuations[k]) == 10  # the first digits


def test_which_metrics_whole_answers_have() -> None:
    whole = build(spec(answer=" {IO} Tom", wrong=" {S1} Tom", score="sum_logprob"))
    assert set(available_metrics(whole)) == {"logprob", "logprob_diff", "prob", "prob_diff", "accuracy", "kl"}
    assert "accuracy" not in available_metrics(build(spec(answer=" {IO} Tom", wrong=None, score="sum_logprob")))
    finding = one_error(lambda: check_metrics(["logprob", "logit_diff"], whole), "CS365")
    assert "logit_diff" in finding.message
    assert "logprob_diff" in finding.hint
    single = build(spec())
    assert {"logit_diff", "logprob_diff"} <= set(available_metrics(single))


def test_prompts_that_do_not_say_how_they_are_scored_keep_their_digest() -> None:
    single, first = build(spec()), build(spec(score="first_token"))
    assert single.prompts == first.prompts
    assert prompts_digest(single) == prompts_digest(first)  # what differs is the hypothesis
    assert "score" not in spec().model_dump(by_alias=True)
    assert spec(score="first_token").model_dump(by_alias=True)["score"] == "first_token"


@pytest.mark.parametrize("score", ["first_token", "sum_logprob"])
def test_an_unknown_token_is_no_answer(score: str, words: PreTrainedTokenizerFast) -> None:
    found = errors_of(lambda: tokenize(build(spec(answer=" {IO} Zebedee", score=score)), {}, words))
    assert "CS346" in {d.code for d in found}
    assert any("not in the vocabulary" in d.message for d in found)
