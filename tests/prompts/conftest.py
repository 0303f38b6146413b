"""Small tokenizers of every kind that models come with, trained on the spot."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.prompts.support import NAMES

# not part of the repository: tests that want it are skipped unless a folder beside the checkout has it
GPT2 = sorted(Path(__file__).parents[3].glob("*/models/gpt2-tokenizer/tokenizer.json"))

CORPUS = [
    f"Then, {a} and {b} went to the {place}. {b} gave a {thing} to {a}"
    for a in NAMES
    for b in NAMES
    for place in ("store", "park", "café")
    for thing in ("ring", "kiss")
] * 2

SPECIALS = ["<s>", "<unk>"]


def fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


def with_bos(tokenizer: Tokenizer, *others: processors.PostProcessor) -> None:
    bos = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    tokenizer.post_processor = processors.Sequence([*others, bos])


def word_level(*, bos: bool) -> Tokenizer:
    """One token per word or punctuation mark; a word's token includes the space before it."""
    tokenizer = Tokenizer(models.WordLevel(vocab={}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?\p{L}+| ?[^\s\p{L}]|\s+"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.train_from_iterator(CORPUS, trainers.WordLevelTrainer(special_tokens=SPECIALS, show_progress=False))
    if bos:
        with_bos(tokenizer)
    return tokenizer


def whitespace() -> Tokenizer:
    """Words without their spaces."""
    tokenizer = Tokenizer(models.WordLevel(vocab={}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(CORPUS, trainers.WordLevelTrainer(special_tokens=SPECIALS, show_progress=False))
    return tokenizer


def byte_level(*, trim: bool, prefix: bool, bos: bool) -> Tokenizer:
    """Byte-level BPE as in GPT-2, in all its settings."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    own = processors.ByteLevel(trim_offsets=trim, add_prefix_space=prefix)
    if bos:
        with_bos(tokenizer, own)
    else:
        tokenizer.post_processor = own
    return tokenizer


def metaspace(*, bos: bool) -> Tokenizer:
    """A unigram model over words with a visible space, as SentencePiece makes them."""
    whole = sorted({f"▁{word}" for text in CORPUS for word in re.findall(r"\w+", text)} | {"▁Mar", "ohn", "at", "aul"})
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,;:!()'\"-é"]
    pieces = [("<s>", 0.0), ("<unk>", 0.0), *((one, -3.0) for one in whole), *((one, -9.0) for one in letters)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=1))
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    if bos:
        with_bos(tokenizer)
    return tokenizer


def llama_like() -> Tokenizer:
    """BPE with spaces made visible by the normalizer and bytes as a fallback, as in Llama 2."""
    visible = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.normalizer = visible
    learner.pre_tokenizer = pre_tokenizers.Split(Regex(r"▁?\w+|[^\w▁]"), behavior="isolated")
    learner.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=200, special_tokens=SPECIALS, show_progress=False)
    )
    learned = json.loads(learner.to_str())["model"]
    # what it never saw (é is in the corpus, ü is not) falls apart into bytes
    vocab = {**learned["vocab"], **{f"<0x{k:02X}>": len(learned["vocab"]) + k for k in range(256)}}
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.normalizer = visible
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    with_bos(tokenizer)
    return tokenizer


MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "word-level": lambda: word_level(bos=False),
    "word-level-bos": lambda: word_level(bos=True),
    **{
        f"byte-level{'-trimmed' * trim}{'-prefixed' * prefix}{'-bos' * bos}": (
            lambda trim=trim, prefix=prefix, bos=bos: byte_level(trim=trim, prefix=prefix, bos=bos)
        )
        for trim in (False, True)
        for prefix in (False, True)
        for bos in (False, True)
    },
    "metaspace": lambda: metaspace(bos=False),
    "metaspace-bos": lambda: metaspace(bos=True),
    "llama-like": llama_like,
}


@cache
def trained(name: str) -> PreTrainedTokenizerFast:
    return fast(MAKERS[name]())


@pytest.fixture(params=list(MAKERS))
def any_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """Each kind in turn; all of them can decode what they encode."""
    return trained(request.param)


@pytest.fixture(scope="session")
def words() -> PreTrainedTokenizerFast:
    return trained("word-level")


@pytest.fixture(scope="session")
def gpt2() -> PreTrainedTokenizerFast:
    if not GPT2:
        pytest.skip("GPT-2's tokenizer is not at hand")
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_file=str(GPT2[0]), bos_token=end, eos_token=end, unk_token=end)
