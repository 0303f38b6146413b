"""A word-level tokenizer that keeps GPT-2's convention: a word's token contains the space before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "<|unknown|>"


def word_tokenizer(vocabulary: Sequence[str], max_length: int) -> PreTrainedTokenizerFast:
    """A fast tokenizer over `vocabulary`, to which the two special tokens are added in front (ids 0 and 1).

    Nothing is prepended or appended to a text, and `decode(encode(text)) == text` for known words.
    """
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=plain_word_tokenizer(vocabulary),
        model_max_length=max_length,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )


def plain_word_tokenizer(vocabulary: Sequence[str]) -> Tokenizer:
    """What `word_tokenizer` is made of. Imports no torch."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    ids = {token: index for index, token in enumerate((END_OF_TEXT, UNKNOWN, *vocabulary))}
    tokenizer = Tokenizer(models.WordLevel(vocab=ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?\p{L}+| ?[^\s\p{L}]|\s+"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer
