"""Loading the fast tokenizer of a local model directory: the one that its files describe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.models.tokenizers.tokenizer_files import as_filed, other_tokens, sentencepiece_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Any of these sets of files makes a tokenizer. Checked first: without them, transformers may build an empty one.
_SUFFICIENT = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer.model",))


def load_tokenizer(directory: Path, n_vocab: int) -> PreTrainedTokenizerFast:
    """The tokenizer saved in `directory`, of the kind that knows character offsets.

    Where there is a tokenizer.json it is what that file says, whatever class the model's family or another file names:
    such classes put parts of their own in place of the file's. Raises CS306 where it wants to run code of its own,
    CS312 where it is missing, unreadable, slow, empty, other than its files say, or knows more tokens than the model's
    `n_vocab`.
    """
    from transformers import PreTrainedTokenizerFast

    if not any(all((directory / name).is_file() for name in names) for names in _SUFFICIENT):
        raise _failure(f"there is no tokenizer in {directory}", "put the model's own tokenizer.json beside config.json")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        content = _read_object(directory / name)
        if "auto_map" in content:
            raise remote_code(directory / name)
    filed = (directory / "tokenizer.json").is_file()
    try:
        tokenizer = as_filed(directory) if filed else _by_its_class(directory)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        raise _unreadable(directory, error) from error
    except Exception as error:
        if type(error) is not Exception:  # the tokenizers library raises the bare class, and only that is its word
            raise
        raise _unreadable(directory, error) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise _failure(
            f"the tokenizer in {directory} is not a fast one",
            "save it as tokenizer.json: positions need character offsets",
        )
    if tokenizer.vocab_size == 0:
        raise _failure(f"the tokenizer in {directory} has no tokens", "put the model's own tokenizer.json there")
    if tokenizer.vocab_size > n_vocab:
        raise _failure(
            f"the tokenizer in {directory} knows {tokenizer.vocab_size} tokens, the model {n_vocab}",
            "it belongs to another model; put the model's own tokenizer.json there",
        )
    if not filed:
        _check_vocabulary(directory, tokenizer)
    return tokenizer


def _by_its_class(directory: Path) -> PreTrainedTokenizerFast:
    """What transformers makes of a vocabulary alone: the rest is that of the class that the files name."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(directory), trust_remote_code=False, use_fast=True)
    named = _read_object(directory / "tokenizer_config.json").get("tokenizer_class")
    made = type(tokenizer).__name__
    general = ("PreTrainedTokenizer", "TokenizersBackend", "PythonBackend")
    if isinstance(named, str) and named.removesuffix("Fast") not in (made.removesuffix("Fast"), *general):
        raise _failure(
            f"tokenizer_config.json in {directory} names {named}, and transformers takes {made} for this family",
            f"write tokenizer.json: transformers.{named.removesuffix('Fast')}.from_pretrained(DIRECTORY)"
            ".save_pretrained(DIRECTORY)",
        )
    return tokenizer


def _check_vocabulary(directory: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """CS312 unless every token of the files is in the tokenizer, and texts are cut as the files' own library does."""
    hint = "put the model's own tokenizer.json there, or name the right `tokenizer_class` in tokenizer_config.json"
    made = type(tokenizer).__name__
    held = tokenizer.get_vocab()
    lost = [token for token, number in _read_object(directory / "vocab.json").items() if held.get(token) != number]
    if lost:
        raise _failure(
            f"{made} does not read the vocabulary in {directory}: {len(lost)} tokens of vocab.json are not in it", hint
        )
    model = directory / "tokenizer.model"
    cut = sentencepiece_tokens(model) if model.is_file() and not (directory / "vocab.json").is_file() else None
    difference = None if cut is None else other_tokens(tokenizer, cut, bare=True)
    if difference is not None:
        raise _failure(f"{made} cuts text otherwise than {model}: {difference}", hint)


def remote_code(file: Path) -> CircuitspecError:
    """CS306: the file asks for the model's own Python code to be run."""
    return CircuitspecError(
        Diagnostic(
            "CS306",
            f"{file} asks to run code that comes with the model (`auto_map`)",
            hint="circuitspec never does; use a model whose family is part of transformers",
        )
    )


def _read_object(file: Path) -> dict[str, object]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise _failure(f"{file} cannot be read as JSON: {error}", "copy or download the file again") from error
    if not isinstance(content, dict):
        raise _failure(f"{file} holds no JSON object", "copy or download the file again")
    return content


def _unreadable(directory: Path, error: BaseException) -> CircuitspecError:
    hint = "copy or download tokenizer.json again"
    if isinstance(error, UnicodeEncodeError):
        hint = "rename the folder: the tokenizers library opens no file whose path is not UTF-8"
    return _failure(f"the tokenizer in {directory} cannot be loaded: {error}", hint)


def _failure(message: str, hint: str) -> CircuitspecError:
    return CircuitspecError(Diagnostic("CS312", message, hint=hint))
