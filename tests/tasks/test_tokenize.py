"""Token ids, positions and answers, compared with what decoding says, on tokenizers of every kind."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from circuitspec.diagnostics import CircuitspecError
from circuitspec.tasks.prompts import CLEAN, Prompt, PromptSet, TokenizedTask
from circuitspec.tasks.tokenize import tokenize
from tests.tasks.conftest import MAKERS, fast, trained, whitespace
from tests.tasks.support import NAMES, build, plain, spec


def last_token_by_decoding(tokenizer: PreTrainedTokenizerFast, ids: tuple[int, ...], text: str, end: int) -> int:
    """The token with which the first `end` characters are complete: uses decoding only, never offsets."""
    for k in range(len(ids)):
        decoded = tokenizer.decode(ids[: k + 1], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if decoded.lstrip(" ").startswith(text[:end].lstrip(" ")):
            return k
    raise AssertionError("the text is never complete")


def check_roles(task: TokenizedTask, tokenizer: PreTrainedTokenizerFast) -> None:
    for prompt in task.prompts.prompts:
        for variant in (CLEAN, *task.prompts.corruptions):
            for role, (_, end) in prompt.slots[variant].items():
                expected = last_token_by_decoding(
                    tokenizer, task.ids[variant][prompt.index], prompt.texts[variant], end
                )
                assert task.roles[role][prompt.index] == expected, (prompt.texts[variant], role)


def test_slots_are_found_by_every_tokenizer(any_tokenizer: PreTrainedTokenizerFast) -> None:
    task = tokenize(build(spec(prompts=30)), {}, any_tokenizer)
    assert task.n == 30
    assert task.lengths == tuple(len(ids) for ids in task.ids["flip"])
    for variant in (CLEAN, "abc", "flip"):
        texts = [prompt.texts[variant] for prompt in task.prompts.prompts]
        assert [list(ids) for ids in task.ids[variant]] == any_tokenizer(texts)["input_ids"]
    check_roles(task, any_tokenizer)
    for prompt, answers, wrong in zip(task.prompts.prompts, task.answers, task.wrong, strict=True):
        for texts_, ids in ((prompt.answers, answers), (prompt.wrong, wrong)):
            assert len(ids) == 1
            whole = any_tokenizer(prompt.texts[CLEAN] + texts_[0])["input_ids"]
            assert whole == [*task.ids[CLEAN][prompt.index], ids[0]]


def test_slots_of_several_tokens_are_known_whole(any_tokenizer: PreTrainedTokenizerFast) -> None:
    """From first to last token is the least that decodes to the filling."""
    task = tokenize(build(spec(prompts=30)), {"X": "S1 + 1"}, any_tokenizer)
    assert "X" not in task.slot_tokens
    for prompt in task.prompts.prompts:
        ids = task.ids[CLEAN][prompt.index]
        for role, (start, end) in prompt.slots[CLEAN].items():
            (first, *rest), last = task.slot_tokens[role][prompt.index], task.roles[role][prompt.index]
            assert [first, *rest] == list(range(first, last + 1))
            filling = prompt.texts[CLEAN][start:end].strip()
            assert filling in any_tokenizer.decode(ids[first : last + 1])
            assert filling not in any_tokenizer.decode(ids[first + 1 : last + 1])


glue = st.text(alphabet="(\"'- .,;!énya", max_size=2)
word = st.one_of(
    st.text(alphabet="abcdeMJohnaryTé", min_size=1, max_size=9),
    st.sampled_from(["Mar", "Joh", "John", "An", "caf", "ki"]),
)


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if not kind.startswith("word")])
@given(
    before=glue,
    after=glue,
    fillings=st.lists(word, min_size=1, max_size=3),
    tail=st.sampled_from(["", " x", " to the end"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_last_tokens_of_arbitrary_slots(kind: str, before: str, after: str, fillings: list[str], tail: str) -> None:
    tokenizer = trained(kind)
    text, spans = "Then", {}
    for number, filling in enumerate(fillings):
        text += f" {before}"
        spans[f"S{number}"] = (len(text), len(text) + len(filling))
        text += f"{filling}{after}"
    text += tail
    prompts = PromptSet((Prompt(0, 0, {CLEAN: text}, (), (), {CLEAN: spans}),), (), ("t",))
    try:
        task = tokenize(prompts, {}, tokenizer)
    except CircuitspecError as error:
        findings = error.diagnostics
    else:
        check_roles(task, tokenizer)
        return
    event("shared last token")
    assert {d.code for d in findings} == {"CS344"}
    # the token with which the slot is complete must be the one with which the next character is
    ids = tuple(tokenizer(text)["input_ids"])
    ends = [min(end + more, len(text)) for _, end in spans.values() for more in (0, 1)]
    last = [last_token_by_decoding(tokenizer, ids, text, end) for end in ends]
    assert sum(a == b for a, b in zip(last[::2], last[1::2], strict=True)) >= len(findings)


def test_words_without_spaces_of_their_own() -> None:
    task = tokenize(build(spec(prompts=4)), {"S1+1": "S1 + 1", "END": "last"}, fast(whitespace()))
    # Then , IO and S1 went to the place . S2 gave a object to: written out by hand
    assert task.lengths == (15,) * 4
    assert [task.roles[role][0] for role in ("IO", "S1", "place", "S2", "object", "S1+1", "END")] == [
        2,
        4,
        8,
        10,
        13,
        5,
        14,
    ]
    assert [task.roles[role][1] for role in ("IO", "S1", "place", "S2", "object", "S1+1", "END")] == [
        4,
        2,
        8,
        10,
        13,
        3,
        14,
    ]


def test_gpt2_ioi(gpt2: PreTrainedTokenizerFast) -> None:
    positions: dict[str, str | int] = {"S1+1": "S1 + 1", "END": "last", "first": 0, "before": -2, "P": "S2 - 1"}
    task = tokenize(build(spec(prompts=6)), positions, gpt2)
    for k in range(6):
        io, s1 = (2, 4) if k % 2 == 0 else (4, 2)
        assert {role: at[k] for role, at in task.roles.items()} == {
            "IO": io,
            "S1": s1,
            "place": 8,
            "S2": 10,
            "object": 13,
            "S1+1": s1 + 1,
            "END": 14,
            "first": 0,
            "before": 13,
            "P": 9,
        }
        answer = task.prompts.prompts[k].answers[0]
        assert gpt2.decode([task.answers[k][0]]) == answer == gpt2.decode([task.ids[CLEAN][k][io]])
    check_roles(task, gpt2)


def test_gpt2_several_answers_of_numbers(gpt2: PreTrainedTokenizerFast) -> None:
    years = [f"{k:02}" for k in range(2, 99)]
    task = plain(
        templates=["The war lasted from the year 17{YY} to the year 17"],
        slots={"YY": "$starts"},
        lists={"years": years, "starts": ["11", "32", "56", "77", "98"]},
        answer={"from": "$years", "above": "YY"},
        wrong={"from": "$years", "at_most": "YY"},
        prompts=3,
    )
    found = tokenize(build(task), {"YEAR": "YY"}, gpt2)
    for prompt, answers, wrong in zip(found.prompts.prompts, found.answers, found.wrong, strict=True):
        assert [gpt2.decode([one]) for one in answers] == list(prompt.answers)
        assert len(answers) + len(wrong) == len(years)
    check_roles(found, gpt2)


def test_gpt2_prompts_of_different_length(gpt2: PreTrainedTokenizerFast) -> None:
    task = plain(
        templates=["{C.name} is in the city of"],
        slots={"C": "$l"},
        lists={
            "l": [
                {"name": "The Colosseum", "city": "Rome"},
                {"name": "The Eiffel Tower", "city": "Paris"},
                {"name": "Big Ben", "city": "London"},
            ]
        },
        answer=" {C.city}",
        prompts=3,
    )
    found = tokenize(build(task), {"END": "last"}, gpt2)
    assert len(set(found.lengths)) > 1
    assert found.roles["END"] == tuple(n - 1 for n in found.lengths)
    check_roles(found, gpt2)


def test_gpt2_induction(gpt2: PreTrainedTokenizerFast) -> None:
    made = build(plain(generate={"repeated_tokens": {"length": 24}}, prompts=100))
    task = tokenize(made, {"AFTER": "A + 1"}, gpt2)
    assert task.roles["AFTER"] == task.roles["B"]
    assert task.roles["A#2"] == tuple(n - 1 for n in task.lengths)
    for k, ids in enumerate(task.ids[CLEAN]):
        # the word after A is the answer; the first word of a text has no space and so another token
        assert ids[task.roles["B"][k]] == task.answers[k][0]
        assert task.roles["A"][k] == 0 or ids[task.roles["A"][k]] == ids[-1]


def test_every_common_word_is_one_token_of_gpt2(gpt2: PreTrainedTokenizerFast) -> None:
    from circuitspec.tasks.generators import common_words

    for word_ in common_words():
        assert len(gpt2(word_)["input_ids"]) == len(gpt2(f" {word_}")["input_ids"]) == 1


@pytest.mark.parametrize("kind", ["byte-level-trimmed", "byte-level-trimmed-bos", "metaspace-bos"])
def test_positions_from_a_file_count_from_the_model_or_from_the_text(kind: str) -> None:
    tokenizer = trained(kind)
    front = 1 if kind.endswith("bos") else 0
    prompt = Prompt(0, 0, {CLEAN: "Then, Mary and John", "c": "Then, Tom and John"}, (), (), {}, {"IO": 2, "end": -1})
    for text_positions in (False, True):
        task = tokenize(PromptSet((prompt,), ("c",), ("t",), text_positions), {"IO+1": "IO + 1"}, tokenizer)
        place = 2 + front * text_positions
        assert task.roles == {"IO": (place,), "end": (task.lengths[0] - 1,), "IO+1": (place + 1,)}


def test_a_slot_that_only_some_templates_have_is_no_role(words: PreTrainedTokenizerFast) -> None:
    made = build(
        spec(templates=["Then, {IO} and {S1} went to {S2}", "Then, {S1} and {IO} went to the {place}"], corruptions={})
    )
    task = tokenize(made, {}, words)
    assert set(task.roles) == {"IO", "S1"}
    assert task.partial_roles == {"S2": (1,), "place": (0,)}


def test_second_occurrences(words: PreTrainedTokenizerFast) -> None:
    made = build(plain(templates=["{X} and {Y} and {X}"], slots={"X": "$l", "Y": "$l"}, lists={"l": NAMES}, prompts=3))
    # a bare name at the start is another word for this tokenizer
    made = PromptSet(
        tuple(
            Prompt(
                p.index,
                0,
                {CLEAN: f"Then {p.texts[CLEAN]}"},
                (),
                (),
                {CLEAN: {role: (a + 5, b + 5) for role, (a, b) in p.slots[CLEAN].items()}},
            )
            for p in made.prompts
        ),
        (),
        ("t",),
    )
    task = tokenize(made, {"P": "X#2 - 1", "Q": "X#2"}, words)
    assert task.roles == {"X": (1,) * 3, "Y": (3,) * 3, "X#2": (5,) * 3, "P": (4,) * 3, "Q": (5,) * 3}


def test_answers_with_the_same_token_count_once(words: PreTrainedTokenizerFast) -> None:
    prompts = PromptSet((Prompt(0, 0, {CLEAN: "Then, Mary went to"}, (" Mary", " Mary"), (" John",)),), (), ("t",))
    task = tokenize(prompts, {}, words)
    assert (len(task.answers[0]), len(task.wrong[0])) == (1, 1)


def test_the_same_ids_however_many_prompts_are_asked_for(any_tokenizer: PreTrainedTokenizerFast) -> None:
    few, many = (tokenize(build(spec(prompts=n)), {"END": "last"}, any_tokenizer) for n in (3, 24))
    for variant in few.ids:
        assert many.ids[variant][:3] == few.ids[variant]
    assert {role: at[:3] for role, at in many.roles.items()} == dict(few.roles)
