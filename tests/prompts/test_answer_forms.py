"""Other spellings of answers, as tokens after their prompt."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from circuitspec.prompts.prompt_set import Prompt, PromptSet
from circuitspec.prompts.tokens.answer_forms import answer_forms
from circuitspec.prompts.tokens.tokenize import tokenize
from tests.prompts.conftest import fast, word_level


def letters() -> PreTrainedTokenizerFast:
    """One character a token, so that every form of a letter is one."""
    known = ["<s>", "<unk>", *"abcAB", " ", " a", " b", " A", " B"]
    tokenizer = Tokenizer(models.WordLevel({text: i for i, text in enumerate(known)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?."), behavior="isolated")
    return fast(tokenizer)


def test_every_form_that_is_one_token() -> None:
    tokenizer = letters()
    prompts = (
        Prompt(0, 0, {"clean": "c"}, ("a",), ("b",)),
        Prompt(1, 0, {"clean": "cc"}, (" A",), (" a",)),
    )
    task = tokenize(PromptSet(prompts, (), ("t",)), {}, tokenizer)
    found = {form.name: form for form in answer_forms(task, tokenizer)}
    assert found["with the space before it"].texts == ((" a",), ())
    assert found["with a capital letter"].texts == (("A",), ())
    assert found["with the space before it and with a capital letter"].texts == ((" A",), ())
    assert found["without the space before it"].texts == ((), ("A",))
    assert found["without the space before it and with a small letter"].texts == ((), ("a",))
    assert "with a small letter" not in found, "' a' is the second prompt's wrong answer already"
    assert found["with the space before it"].ids == ((tokenizer.convert_tokens_to_ids(" a"),), ())
    assert found["with the space before it"].advice == "with the space before them"


def test_words_outside_the_vocabulary_are_no_form() -> None:
    tokenizer = fast(word_level(bos=True))
    prompt = Prompt(0, 0, {"clean": "Then, Mary and John went to"}, (" Mary",), (" John",))
    task = tokenize(PromptSet((prompt,), (), ("t",)), {}, tokenizer)
    assert answer_forms(task, tokenizer) == ()
