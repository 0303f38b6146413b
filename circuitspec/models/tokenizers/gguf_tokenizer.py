"""The tokenizer of a GGUF file, as its metadata states it: pre-tokenizer, first token, space in front.

transformers builds it from vocabulary and merges, and takes GPT-2's pre-tokenizer for every name that it does not know.
What the names mean is defined by llama.cpp, whose format it is; where a family's own tokenizer.json spells a pattern
that llama.cpp had to rewrite, it is the family's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

Field = Callable[[str], object]  # a value of the metadata by its key; None where the file does not give it


class NotStated(ValueError):
    """The metadata does not say enough for the file's own tokens."""


_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CAPITALS = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
_REST_WITH_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class _Named:
    """What a name of `tokenizer.ggml.pre` stands for.

    `patterns` isolate their matches, one after the other; none stands for GPT-2's own, which also follows where
    `digits` are taken one by one. `whole` words that are in the vocabulary are one token, whatever the merges give.
    `bos`: prompts begin with a special token unless the file says otherwise.
    """

    patterns: tuple[str, ...] = ()
    digits: bool = False
    whole: bool = False
    bos: bool = False

    def pre_tokenizer(self) -> PreTokenizer:
        from tokenizers import Regex, pre_tokenizers

        steps: list[PreTokenizer] = [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in self.patterns
        ]
        if self.digits:
            steps.append(pre_tokenizers.Digits(individual_digits=True))
        gpt2 = not self.patterns
        return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=gpt2)])


_GPT2 = _Named()
_DIGITS = _Named(digits=True)
_LLAMA3_PATTERN = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
_LLAMA3 = _Named((_LLAMA3_PATTERN,), whole=True, bos=True)
_QWEN2 = _Named((rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}",))
_GPT4O = _Named((rf"{_CAPITALS[0]}{_CONTRACTIONS}?|{_CAPITALS[1]}{_CONTRACTIONS}?|\p{{N}}{{1,3}}|{_REST_WITH_SLASH}",))

_EAST_ASIAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"

_NAMES: dict[str, _Named] = {
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion"), _GPT2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _DIGITS),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"), _LLAMA3),
    **dict.fromkeys(("smaug-bpe", "dbrx"), _Named((_LLAMA3_PATTERN,))),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"), _QWEN2),
    "tekken": _Named((rf"{_CAPITALS[0]}|{_CAPITALS[1]}|\p{{N}}|{_REST_WITH_SLASH}",), whole=True, bos=True),
    **dict.fromkeys(("gpt-4o", "llama4"), _GPT4O),
    "deepseek-coder": _Named((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _EAST_ASIAN), True),
}


def as_stated(tokenizer: Any, field: Field, family: str) -> None:
    """Give a tokenizer that transformers made of a GGUF file the parts that the file's metadata states.

    Raises NotStated where these are not known, or cannot be had.
    """
    kind = field("tokenizer.ggml.model")
    if kind == "gpt2":
        named = _pre_tokenizer_of(field("tokenizer.ggml.pre"))
        tokenizer.backend_tokenizer.pre_tokenizer = named.pre_tokenizer()
        tokenizer.backend_tokenizer.model.ignore_merges = named.whole
        _begin(tokenizer, field("tokenizer.ggml.add_bos_token"), otherwise=named.bos)
    elif kind == "llama":
        _put_space(tokenizer, field("tokenizer.ggml.add_space_prefix"), family)
        _begin(tokenizer, field("tokenizer.ggml.add_bos_token"), otherwise=True)
    else:
        raise NotStated(f"its tokenizer is of the kind {kind!r}, known are gpt2 (byte-level) and llama (SentencePiece)")


def _pre_tokenizer_of(name: object) -> _Named:
    if isinstance(name, str) and name in _NAMES:
        return _NAMES[name]
    said = (
        "its metadata does not say how text is cut before merging (tokenizer.ggml.pre)"
        if name is None or name == "default"
        else f"its pre-tokenizer {name!r} (tokenizer.ggml.pre) is not known here"
    )
    raise NotStated(
        f"{said}, so that prompts might become other tokens than the model was trained on; known: {', '.join(_NAMES)}. "
        "Convert the original model again, or use its safetensors with tokenizer.json"
    )


def _put_space(tokenizer: Any, stated: object, family: str) -> None:
    """Have SentencePiece's space put in front of a text, always, exactly if the file says so; Gemma's have none."""
    from tokenizers import decoders, normalizers

    wanted = not family.startswith("gemma") if stated is None else bool(stated)
    if family.startswith("gemma") and not wanted:
        return
    backend = tokenizer.backend_tokenizer
    spaces = normalizers.Replace(" ", "\u2581")
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), spaces]) if wanted else spaces
    backend.pre_tokenizer = None
    parts = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if wanted else parts)


def _begin(tokenizer: Any, stated: object, *, otherwise: bool) -> None:
    """Have prompts begin with a special token exactly if the file says so, or its pre-tokenizer's name does."""
    wanted = otherwise if stated is None else bool(stated)

    def adds() -> bool:
        return bool(tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id])

    if adds() != wanted:
        tokenizer.add_bos_token = wanted
        if adds() != wanted:
            raise NotStated("its tokenizer cannot be made to treat the beginning of a prompt as the file says")
