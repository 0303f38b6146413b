"""A model's tokens are those of its own files, read by the library whose format they are; whatever class is named."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.at_hand import tokenizer_at_hand
from circuitspec.models.families.family_table import SUPPORTED
from circuitspec.models.tokenizers.tokenizer import load_tokenizer
from circuitspec.models.tokenizers.tokenizer_files import PROBES

CodeOf = Callable[[Callable[[], object]], str]
TEXTS = (*PROBES, "<|end|>the end<|pad|>", " 12 345", "a\u0301 \u00e1 \ufb01")  # special tokens, marks, ligatures
# The classes that transformers 5 takes for a family, and others that models on the hub name
OWN = {
    "gpt2": "GPT2Tokenizer",
    "gpt_neox": "GPTNeoXTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "gemma2": "GemmaTokenizer",
    "gemma3_text": "GemmaTokenizer",
}
NAMED = (
    "none",
    "own",
    "own, Fast",
    "PreTrainedTokenizerFast",
    "LlamaTokenizer",
    "LlamaTokenizerFast",
    "Qwen2TokenizerFast",
)


@functools.cache
def byte_level() -> str:
    """In the manner of GPT-2, with digits apart and a token in front, which none of the classes' own parts have."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFKC()
    digits = pre_tokenizers.Digits(individual_digits=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(PROBES * 5, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", 0)])
    return str(tokenizer.to_str())


@functools.cache
def metaspace() -> str:
    """In the manner of SentencePiece, with a space in front of a text only where there is none."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace()
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    tokenizer.train_from_iterator(
        PROBES * 5, trainers.BpeTrainer(vocab_size=500, special_tokens=specials, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return str(tokenizer.to_str())


def write(directory: Path, family: str, named: str, content: str, **settings: Any) -> Path:
    (directory / "config.json").write_text(json.dumps({"model_type": family}))
    (directory / "tokenizer.json").write_text(content)
    name = {
        "none": None,
        "own": OWN.get(family, "LlamaTokenizer"),
        "own, Fast": OWN.get(family, "LlamaTokenizer") + "Fast",
    }
    tokenizer_class = name.get(named, named)
    stated = {} if tokenizer_class is None else {"tokenizer_class": tokenizer_class}
    if stated or settings:
        (directory / "tokenizer_config.json").write_text(json.dumps({**stated, **settings}))
    return directory


def at_hand(directory: Path) -> Callable[[str], Sequence[object]]:
    found = tokenizer_at_hand(ModelSpec(id=str(directory)), directory)
    assert found is not None
    plain = found.plain or found.loaded(10**6)
    return lambda text: plain([text])["input_ids"][0]


@pytest.mark.parametrize("content", [byte_level, metaspace])
@pytest.mark.parametrize("named", NAMED)
@pytest.mark.parametrize("family", SUPPORTED)
def test_tokens_are_those_of_the_file(family: str, named: str, content: Callable[[], str], tmp_path: Path) -> None:
    directory = write(tmp_path, family, named, content())
    loaded, short = load_tokenizer(directory, 10**6), at_hand(directory)
    filed = Tokenizer.from_file(str(directory / "tokenizer.json"))
    for text in TEXTS:
        expected = filed.encode(text)
        encoded = loaded(text, return_offsets_mapping=True, return_special_tokens_mask=True)
        assert encoded["input_ids"] == expected.ids
        assert [tuple(pair) for pair in encoded["offset_mapping"]] == expected.offsets
        assert encoded["special_tokens_mask"] == expected.special_tokens_mask
        assert short(text) == expected.ids
    stated = json.loads((directory / "tokenizer.json").read_text())
    made = json.loads(loaded.backend_tokenizer.to_str())
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        assert made[part] == json.loads(filed.to_str())[part]
        assert (made[part] is None) == (stated[part] is None)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "gpt_neox"])
@pytest.mark.parametrize(
    "settings", [{"add_bos_token": False}, {"add_prefix_space": True}, {"fix_mistral_regex": True}]
)
def test_settings_beside_the_file_change_nothing(family: str, settings: dict[str, Any], tmp_path: Path) -> None:
    directory = write(tmp_path, family, "own", byte_level(), bos_token="<|end|>", **settings)
    loaded, short = load_tokenizer(directory, 10**6), at_hand(directory)
    filed = Tokenizer.from_file(str(directory / "tokenizer.json"))
    for text in TEXTS:
        assert loaded(text)["input_ids"] == filed.encode(text).ids == short(text)


@pytest.mark.parametrize(
    "settings",
    [
        {"pad_token": "[PAD]"},  # in no other file
        {"additional": "", "added_tokens_decoder": {"900": {"content": "<tool>", "special": True}}},
        {"unk_token": "the"},  # an ordinary token, made special
    ],
)
def test_tokens_named_beside_the_file_are_the_same_at_hand(settings: dict[str, Any], tmp_path: Path) -> None:
    directory = write(tmp_path, "gpt2", "own", byte_level(), **settings)
    loaded, short = load_tokenizer(directory, 10**6), at_hand(directory)
    for text in (*TEXTS, "[PAD] <tool> <tool>the the"):
        assert loaded(text)["input_ids"] == short(text)


# -- without tokenizer.json -----------------------------------------------------------------------


def vocabulary(directory: Path, family: str, named: str | None) -> Path:
    content = json.loads(byte_level())["model"]
    (directory / "config.json").write_text(json.dumps({"model_type": family}))
    (directory / "vocab.json").write_text(json.dumps(content["vocab"]))
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in content["merges"])
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    if named is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": named}))
    return directory


@pytest.mark.parametrize("named", [None, "GPT2Tokenizer", "GPT2TokenizerFast"])
def test_a_vocabulary_of_gpt2(named: str | None, tmp_path: Path) -> None:
    directory = vocabulary(tmp_path, "gpt2", named)
    plain = Tokenizer(models.BPE.from_file(str(directory / "vocab.json"), str(directory / "merges.txt")))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    loaded = load_tokenizer(directory, 10**6)
    for text in PROBES:
        assert loaded(text)["input_ids"] == plain.encode(text).ids


@pytest.mark.parametrize(
    ("family", "named"),
    [
        ("qwen2", "GPT2Tokenizer"),  # transformers takes Qwen2Tokenizer all the same
        ("llama", None),  # LlamaTokenizer reads no vocab.json, and would be empty
        ("phi3", "GPT2Tokenizer"),
    ],
)
def test_a_vocabulary_that_is_not_read_as_its_files_say(
    family: str, named: str | None, tmp_path: Path, code_of: CodeOf
) -> None:
    directory = vocabulary(tmp_path, family, named)
    assert code_of(lambda: load_tokenizer(directory, 10**6)) == "CS312"


def sentencepiece_model(directory: Path) -> Path:
    import sentencepiece

    text = directory / "text.txt"
    text.write_text("\n".join([*PROBES[:2], *PROBES[4:]] * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(directory / "tokenizer"),
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    return directory / "tokenizer.model"


@pytest.mark.parametrize("named", ["LlamaTokenizer", "LlamaTokenizerFast", None])
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_sentencepiece_model_is_cut_as_its_own_library_cuts_it_or_refused(
    family: str, named: str | None, tmp_path: Path, code_of: CodeOf
) -> None:
    from sentencepiece import SentencePieceProcessor

    model = sentencepiece_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({} if named is None else {"tokenizer_class": named}))
    own = SentencePieceProcessor(model_file=str(model))
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path))
    if all(tokenizer(text, add_special_tokens=False)["input_ids"] == own.encode(text) for text in PROBES):
        loaded = load_tokenizer(tmp_path, 10**6)
        assert loaded(PROBES[0])["input_ids"] == tokenizer(PROBES[0])["input_ids"]
    else:  # transformers leaves out the space in front where no class is named
        assert code_of(lambda: load_tokenizer(tmp_path, 10**6)) == "CS312"
