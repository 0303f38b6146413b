"""Token ids, positions and answers, compared with what decoding says, on tokenizers of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet, TextPlace, TokenizedTask
from circuitspec.prompts.tokens.roles import occurrences
from circuitspec.prompts.tokens.tokenize import tokenize
from tests.prompts.conftest import MAKERS, fast, trained, whitespace
from tests.prompts.support import NAMES, build, one_error, plain, spec


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
    from circuitspec.prompts.templates.generators import common_words

    for word_ in common_words():
        assert len(gpt2(word_)["input_ids"]) == len(gpt2(f" {word_}")["input_ids"]) == 1


@pytest.mark.parametrize("kind", ["byte-level-trimmed", "byte-level-trimmed-bos", "metaspace-bos", "word-level"])
def test_one_index_is_one_word_with_and_without_bos(kind: str, tmp_path: Path) -> None:
    """A .jsonl, a .csv, auto-circuit's word_idxs and `positions` of the hypothesis: index 2 is Mary in all of them."""
    tokenizer = trained(kind)
    clean, corrupt = "Then, Mary and John", "Then, Tom and John"
    line = {"clean": clean, "corrupt": corrupt, "positions": {"IO": 2, "end": -1}}
    whole = {
        "prompts": [{"clean": clean, "corrupt": corrupt, "answers": [], "wrong_answers": []}],
        "word_idxs": {"IO": 2, "end": -1},
    }
    files = {
        "p.jsonl": json.dumps(line),
        "p.csv": f'clean,corrupt,position:IO,position:end\n"{clean}","{corrupt}",2,-1\n',
        "p.json": json.dumps(whole),
    }
    for file, text in files.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
        declared: dict[str, str | int] = {"IO+1": "IO + 1", "two": 2, "first": "start", "back": -3}
        task = tokenize(build(plain(file=file), tmp_path), declared, tokenizer)
        words = {name: tokenizer.decode([task.ids[CLEAN][0][at]]).strip() for name, (at,) in task.roles.items()}
        assert words["IO"] == words["two"] == words["back"] == "Mary", file
        assert (words["IO+1"], words["end"]) == ("and", "John")
        assert task.roles["first"] == (0,), "what the model sees first, BOS or not"


def up_to(kind: str, text: str, nth: int = 1, clean: str = "John, and John went to John") -> str:
    """The prompt up to and with the token that a position by text is."""
    tokenizer = trained(kind)
    prompt = Prompt(0, 0, {CLEAN: clean}, (), (), {}, {"X": TextPlace(text, nth)}, where="p.jsonl:7")
    task = tokenize(PromptSet((prompt,), (), ("t",)), {}, tokenizer)
    (place,) = task.roles["X"]
    ids = task.ids[CLEAN][0][: place + 1]
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()


def test_positions_by_text_are_the_same_words_under_every_tokenizer(any_tokenizer: PreTrainedTokenizerFast) -> None:
    clean = "Then, John and John went to John"
    for text, nth, expected in (
        ("John", 1, "Then, John"),
        ("John", 2, "Then, John and John"),
        ("John", 3, clean),
        ("and John", 1, "Then, John and John"),
    ):
        prompt = Prompt(0, 0, {CLEAN: clean}, (), (), {}, {"X": TextPlace(text, nth)})
        task = tokenize(PromptSet((prompt,), (), ("t",)), {}, any_tokenizer)
        assert task.roles["X"][0] == last_token_by_decoding(any_tokenizer, task.ids[CLEAN][0], clean, len(expected))


def test_a_text_is_found_as_whole_words() -> None:
    assert up_to("byte-level", "John", 1, "Johnny saw John") == "Johnny saw John"
    assert list(occurrences("17", "1732, 17")) == [(6, 8)]
    assert list(occurrences("a, a", "a, a, a")) == [(0, 4), (3, 7)]
    assert list(occurrences("東京", "東京都と東京")) == [(0, 2), (4, 6)], "no spaces between words"
    assert list(occurrences("'s", "it's")) == [(2, 4)], "an apostrophe is no letter that could go on"


@pytest.mark.parametrize(
    ("text", "nth", "clean", "message", "label"),
    [
        ("John", 2, "John went", "is occurrence 2 of 'John', which the clean text holds 1 time", ""),
        ("Mary", 1, "John went", "is occurrence 1 of 'Mary', which the clean text holds 0 times", ""),
        ("John", 1, "Johnny went", "which the clean text holds 0 times", "only inside other words"),
    ],
)
def test_a_text_that_is_not_there(text: str, nth: int, clean: str, message: str, label: str) -> None:
    found = one_error(lambda: up_to("byte-level", text, nth, clean), "CS360")
    assert "position X of prompt 0 (p.jsonl:7)" in found.message
    assert message in found.message
    assert found.label == label


def test_a_text_that_ends_within_a_token() -> None:
    """BPE that has learnt `,` and the space after it as one token."""
    tokenizer = Tokenizer(models.BPE({"a": 0, ",": 1, " ": 2, "b": 3, ", ": 4}, [(",", " ")]))
    prompt = Prompt(0, 0, {CLEAN: "a, b"}, (), (), {}, {"X": TextPlace("a,")}, where="p.jsonl:7")
    found = one_error(lambda: tokenize(PromptSet((prompt,), (), ("t",)), {}, fast(tokenizer)), "CS360")
    assert "'a,' does not end where a token ends" in found.message
    assert found.label == "the token there is ', '"


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
