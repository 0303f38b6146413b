"""Whether two tokenizers cut text alike, and a tokenizer that cuts it as its tokenizer.json says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

# Where pre-tokenizers are known to differ: digits, spaces before them, line breaks, contractions, capitals, marks.
PROBES = (
    "When Mary and John went to the store, John gave a drink to",
    "The war lasted from the year 1732 to the year 17",
    "It  costs 12 or 3.14\n\n  5 of  1234567, it's said; I'LL pay.",
    "def f(x):\n    return x[0]  # f\u00fcr na\u00efve caf\u00e9s\r\n\t\u4f60\u597d camelCase\u2026  ",
    "Mary",
)
_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")

Cut = Callable[[str], Sequence[int]]  # a text's tokens


def as_filed(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer that tokenizer.json in `directory` describes, with the names of special tokens from beside it.

    Without these names where they make special what is an ordinary word in the file. Raises what transformers and the
    tokenizers library raise for files that they cannot read.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(directory), local_files_only=True)
    filed = _read(directory / "tokenizer.json")
    for part in _PARTS:  # settings of tokenizer_config.json may have changed them
        setattr(tokenizer.backend_tokenizer, part, getattr(filed, part))
    if other_tokens(tokenizer, lambda text: filed.encode(text).ids) is not None:
        return PreTrainedTokenizerFast(tokenizer_object=filed)
    return tokenizer


def cut_by_file(file: Path) -> Cut:
    """How a tokenizer.json cuts text, by the library whose format it is."""
    filed = _read(file)
    return lambda text: filed.encode(text).ids


def other_than_filed(tokenizer: object, texts: Iterable[str]) -> str | None:
    """How a tokenizer in memory cuts the texts otherwise than the tokenizer.json that it was loaded from says.

    None where it does not, or where that file is not on this machine.
    """
    file = _file_of(getattr(tokenizer, "name_or_path", None), getattr(tokenizer, "_commit_hash", None))
    if file is None:
        return None
    try:
        cut = cut_by_file(file)
    except Exception as error:
        if type(error) is not Exception:  # the tokenizers library raises the bare class, and only that is its word
            raise
        return None
    return other_tokens(tokenizer, cut, texts)


def _file_of(name: object, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if not isinstance(name, str) or not name:
        return None
    file = Path(name) / "tokenizer.json"
    if file.is_file():
        return file
    try:
        found = try_to_load_from_cache(name, "tokenizer.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _read(file: Path) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer

    filed = Tokenizer.from_file(str(file))
    filed.no_truncation()
    filed.no_padding()
    return filed


def sentencepiece_tokens(file: Path) -> Cut | None:
    """How a SentencePiece model cuts text, without tokens around it; None for a file of another kind."""
    from sentencepiece import SentencePieceProcessor

    try:
        processor = SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError, ValueError):
        return None
    return lambda text: processor.encode(text)


def other_tokens(tokenizer: Any, cut: Cut, texts: Iterable[str] = PROBES, *, bare: bool = False) -> str | None:
    """The first text that a tokenizer does not cut as `cut` does, in words; None where there is none.

    `bare`: without the tokens that the tokenizer puts around a text.
    """
    for text in texts:
        encoding = tokenizer(text, add_special_tokens=not bare, padding=False, truncation=False, verbose=False)
        ours, theirs = list(encoding["input_ids"]), list(cut(text))
        if ours != theirs:
            return f"{text[:60]!r} becomes {len(ours)} tokens ({_some(ours)}) for {len(theirs)} ({_some(theirs)})"
    return None


def _some(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids[:8])) + (" ..." if len(ids) > 8 else "")


def named_tokens(directory: Path) -> frozenset[str]:
    """Tokens that the files beside tokenizer.json name, special and added ones; empty where they name none."""
    named: set[str] = set()
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        try:
            content = json.loads((directory / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not isinstance(content, dict):
            continue
        if name == "added_tokens.json":
            named.update(map(str, content))
            continue
        decoder = content.get("added_tokens_decoder")
        entries = [*decoder.values()] if isinstance(decoder, dict) else []
        entries += [value for key, value in content.items() if key.endswith("_token")]
        texts = (entry.get("content") if isinstance(entry, dict) else entry for entry in entries)
        named.update(text for text in texts if isinstance(text, str))
    return frozenset(named)
