"""Prompts that cannot be compared, and what is said about them."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from circuitspec.diagnostics.diagnostic import Diagnostic, Span
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet
from circuitspec.prompts.tokens.tokenize import tokenize
from tests.prompts.conftest import fast, trained, whitespace
from tests.prompts.support import ABBA, IOI, NAMES, build, errors_of, one_error, plain, spec

LISTS = IOI["lists"]
BYTES = "byte-level-trimmed-bos"


def single(texts: dict[str, str], **fields: object) -> PromptSet:
    prompt = Prompt(
        0, 0, texts, where="prompts.jsonl:3", span=Span("prompts.jsonl", 3, 1), **{"answers": (), "wrong": (), **fields}
    )  # type: ignore[arg-type]
    return PromptSet((prompt,), tuple(name for name in texts if name != CLEAN), ("t",))


def with_names(*names: str, **changes: object) -> PromptSet:
    return build(spec(**{"lists": {**LISTS, "names": list(names)}, "prompts": 30, **changes}))  # type: ignore[dict-item]


def refused(prompts: PromptSet, tokenizer: PreTrainedTokenizerFast, **positions: str | int) -> tuple[Diagnostic, ...]:
    return errors_of(lambda: tokenize(prompts, positions, tokenizer))


def alone(prompts: PromptSet, tokenizer: PreTrainedTokenizerFast, code: str, **positions: str | int) -> Diagnostic:
    return one_error(lambda: tokenize(prompts, positions, tokenizer), code)


def test_a_list_entry_of_several_tokens_is_named_once() -> None:
    tokenizer = trained(BYTES)
    prompts = with_names(*NAMES, "Bartholomew", "Zed", answer=None, wrong=None)
    found = refused(prompts, tokenizer)
    sizes = {name: len(tokenizer(f" {name}", add_special_tokens=False)["input_ids"]) for name in ("Bartholomew", "Zed")}
    assert all(size > 1 for size in sizes.values())
    assert sorted(str(d.data["entry"]) for d in found) == ["Bartholomew", "Zed"]
    for finding in found:
        entry = str(finding.data["entry"])
        assert finding.code == "CS343"
        assert finding.message.startswith(f"{entry} is {sizes[entry]} tokens, ")
        assert f"remove {entry} from the list names" in finding.hint
        ids = tokenizer(f" {entry}", add_special_tokens=False)["input_ids"]
        assert "|".join(repr(tokenizer.decode([one])) for one in ids) in finding.label
        assert "against" in finding.label


def test_how_many_prompts_an_entry_spoils() -> None:
    tokenizer = trained(BYTES)
    prompts = with_names(*NAMES, "Bartholomew", answer=None, wrong=None, corruptions={"other": {"IO": "$names"}})
    spoiled = 0
    for prompt in prompts.prompts:
        held = {v: prompt.texts[v][slice(*prompt.slots[v]["IO"])] for v in prompt.texts}
        spoiled += (held[CLEAN] == "Bartholomew") != (held["other"] == "Bartholomew")
    finding = alone(prompts, tokenizer, "CS343")
    assert 0 < spoiled == finding.data["prompts"]
    assert f"(it is in {spoiled} of 30 prompts)" in finding.hint


def test_equal_length_is_not_enough() -> None:
    # a name of several tokens and one of one token change places: as many tokens, at other positions
    task = plain(
        templates=["Then, {A} and {B} went to the park"],
        slots={"A": "$one", "B": "$many"},
        lists={"one": ["Mary", "John"], "many": ["Zed"]},
        corruptions={"swap": {"A": "=B", "B": "=A"}},
        prompts=2,
    )
    prompts = build(task)
    tokenizer = trained(BYTES)
    lengths = {len(ids) for text in prompts.prompts[0].texts.values() for ids in [tokenizer(text)["input_ids"]]}
    assert len(lengths) == 1
    assert {d.code for d in refused(prompts, tokenizer)} == {"CS343"}


def test_a_prompt_from_a_file_that_is_longer_than_its_corruption(words: PreTrainedTokenizerFast) -> None:
    prompts = single({CLEAN: "Then, Mary went to the store", "c": "Then, Mary and John went to the store"})
    finding = alone(prompts, words, "CS343")
    assert finding.message == "prompt 0 (prompts.jsonl:3) is 7 tokens, its corruption c is 9"
    assert finding.label == "from token 3 on: nothing against ' and'|' John'"
    assert finding.span == Span("prompts.jsonl", 3, 1)


def test_gpt2_names_the_long_name(gpt2: PreTrainedTokenizerFast) -> None:
    found = refused(with_names("Mary", "John", "Tom", "Anna", "Paul", "Bartholomew"), gpt2)
    shapes = [d for d in found if d.code == "CS343"]
    assert len(shapes) == 1
    assert shapes[0].message.startswith("Bartholomew is 3 tokens, ")
    assert shapes[0].label.startswith("' Barth'|'ol'|'omew' against ' ")
    assert [d.data["answer"] for d in found if d.code == "CS346"] == [" Bartholomew", " Bartholomew"]


def test_a_token_that_reaches_beyond_the_slot() -> None:
    task = plain(templates=["Then, {X}n went"], slots={"X": "$l"}, lists={"l": ["Joh"]}, prompts=1)
    finding = alone(build(task), trained(BYTES), "CS344")
    assert finding.label == "the token ' John' holds 'Joh' and 'n'"


def test_a_slot_without_tokens(words: PreTrainedTokenizerFast) -> None:
    prompts = single({CLEAN: "Then, Mary"}, slots={CLEAN: {"X": (5, 5)}})
    assert "no token of its own" in alone(prompts, words, "CS344").message


def test_unknown_positions(words: PreTrainedTokenizerFast) -> None:
    finding = alone(build(spec()), words, "CS345", P="S + 1")
    assert finding.hint in ("did you mean S1?", "did you mean S2?")
    assert "IO#2" in alone(build(spec()), words, "CS345", P="IO#2").message


@pytest.mark.parametrize(
    ("position", "place"), [("IO - 5", -3), ("object + 3", 16), (15, 15), (-16, -1), ("last - 15", -1)]
)
def test_positions_outside_a_prompt(words: PreTrainedTokenizerFast, position: str | int, place: int) -> None:
    finding = alone(build(spec(templates=[ABBA])), words, "CS345", P=position)
    assert f"it would be token {place}, and the prompt has tokens 0 to 14" in finding.message
    assert "prompt 0 (templates[0])" in finding.message
    assert finding.label == "outside 12 of 12 prompts"


def test_a_position_that_some_prompts_lack(words: PreTrainedTokenizerFast) -> None:
    prompts = build(spec(templates=[ABBA, "Then, {IO} and {S1} went to {S2}"], corruptions={}))
    finding = alone(prompts, words, "CS345", P="place + 1")
    assert "templates[1]" in finding.message
    assert finding.label == "6 of 12 prompts lack it"


def test_a_position_named_like_a_slot(words: PreTrainedTokenizerFast) -> None:
    assert "S1" in alone(build(spec()), words, "CS345", S1="S1 + 1").message
    assert "S1" in tokenize(build(spec()), {"S1": "S1"}, words).roles


@pytest.mark.parametrize("place", [3, -4])
def test_a_position_from_a_file_outside_its_prompt(words: PreTrainedTokenizerFast, place: int) -> None:
    finding = alone(single({CLEAN: "Then, Mary"}, positions={"X": place}), words, "CS345")
    assert f"is token {place}, but the prompt has 3 tokens" in finding.message
    assert finding.span is not None
    assert finding.span.line == 3


def test_an_answer_without_its_space() -> None:
    finding = next(d for d in refused(build(spec(answer="{IO}")), trained(BYTES)) if d.code == "CS346")
    answer = str(finding.data["answer"])
    assert f'write " {answer}", with the space before it' in finding.hint
    assert finding.message.startswith(f"the answer {answer!r} ")


def test_an_answer_with_a_space_too_many(words: PreTrainedTokenizerFast) -> None:
    prompts = single({CLEAN: "Then, Mary went"}, answers=(" .",))
    finding = alone(prompts, words, "CS346")
    assert 'write ".", without the space' in finding.hint


def test_a_prompt_that_ends_in_a_space() -> None:
    prompts = build(spec(templates=[f"{ABBA} "], answer="{IO}", wrong=None))
    for kind in (BYTES, "llama-like", "metaspace"):
        found = refused(prompts, trained(kind))
        assert {d.code for d in found} == {"CS346"}
        assert all("the prompt ends in a space: remove it" in d.hint for d in found)


def test_two_spaces_are_refused_even_where_they_are_tokens() -> None:
    prompts = build(spec(templates=[f"{ABBA} "], answer=" {IO}", wrong=None))
    tokenizer = trained("metaspace")
    text = prompts.prompts[0].texts[CLEAN]
    ids = tokenizer(text)["input_ids"]
    assert tokenizer(text + prompts.prompts[0].answers[0])["input_ids"][:-1] == ids
    found = refused(prompts, tokenizer)
    assert {d.code for d in found} == {"CS346"}
    assert "would stand after two spaces" in found[0].message
    assert "remove it" in found[0].hint


def test_an_answer_of_several_tokens() -> None:
    found = refused(build(spec(wrong=" Zebedee")), trained(BYTES))
    n = len(trained(BYTES)(" Zebedee", add_special_tokens=False)["input_ids"])
    assert [d.message.partition(",")[0] for d in found] == [f"the wrong answer ' Zebedee' is {n} tokens"]
    assert "remove Zebedee (12 of 12 prompts ask for it)" in found[0].hint


def test_an_answer_that_the_tokenizer_does_not_know(words: PreTrainedTokenizerFast) -> None:
    finding = alone(build(spec(answer=" Zebedee")), words, "CS346")
    assert "not in the vocabulary" in finding.message


def test_an_answer_that_changes_the_prompt() -> None:
    prompts = single({CLEAN: "Then, Joh"}, answers=("n",))
    finding = alone(prompts, trained(BYTES), "CS346")
    assert "changes the tokens of the prompt" in finding.message
    assert finding.label.startswith("' John' where the prompt has ")


def test_one_token_more_is_not_enough_when_the_prompt_changes() -> None:
    # x|a becomes x|ab|c: one token more, but c does not follow x|a
    vocab = {"<s>": 0, "<unk>": 1, "x": 2, "a": 3, "b": 4, "c": 5, "ab": 6}
    tokenizer = fast(Tokenizer(models.BPE(vocab, [("a", "b")], unk_token="<unk>")))
    assert tokenizer(["xa", "xabc"])["input_ids"] == [[2, 3], [2, 6, 5]]
    finding = alone(single({CLEAN: "xa"}, answers=("bc",)), tokenizer, "CS346")
    assert "changes the tokens of the prompt" in finding.message


def test_answer_and_wrong_answer_with_one_token() -> None:
    prompts = single({CLEAN: "Then, Mary went."}, answers=(" John",), wrong=("John", " Mary"))
    finding = alone(prompts, fast(whitespace()), "CS347")
    assert finding.label == "'John'"


def test_a_tokenizer_without_offsets() -> None:
    finding = one_error(lambda: tokenize(build(spec()), {}, ByT5Tokenizer()), "CS342")
    assert "ByT5Tokenizer" in finding.message


def test_a_tokenizer_that_ends_every_text() -> None:
    tokenizer = whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <s>", special_tokens=[("<s>", 0)])
    alone(build(spec()), fast(tokenizer), "CS348")


def test_words_outside_the_vocabulary(words: PreTrainedTokenizerFast) -> None:
    lists = {**LISTS, "objects": ["ring", "sextant"]}  # type: ignore[dict-item]
    prompts = build(spec(lists=lists))
    n = sum("sextant" in p.texts[CLEAN] for p in prompts.prompts)
    finding = alone(prompts, words, "CS349")
    assert finding.message.startswith("'sextant' is not in the vocabulary")
    assert finding.label == f"in {n} of 12 prompts"


def test_the_unknown_token_may_be_written_out(gpt2: PreTrainedTokenizerFast) -> None:
    # GPT-2 has one token for "unknown" and "end of text", with which many prompts start
    task = tokenize(build(spec(templates=[f"<|endoftext|>{ABBA}"])), {"BOS": 0}, gpt2)
    assert task.ids[CLEAN][0][0] == 50256


def test_texts_that_become_the_same_tokens() -> None:
    tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "<unk>": 1, "then": 2, "mary": 3}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    finding = alone(single({CLEAN: "Then Mary", "c": "Then mary"}), fast(tokenizer), "CS349")
    assert "the same tokens" in finding.message


def test_everything_is_reported_at_once(words: PreTrainedTokenizerFast) -> None:
    prompts = single(
        {CLEAN: "Then, Mary went", "c": "Then, Mary and John went"},
        answers=(" Zebedee",),
        positions={"X": 99},
    )
    assert {d.code for d in refused(prompts, words, P="nowhere")} == {"CS343", "CS345", "CS346"}
