"""Loading the fast tokenizer of a local model directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from circuitspec.diagnostics import CircuitspecError, Diagnostic

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Any of these sets of files makes a tokenizer. Checked first: without them, transformers may build an empty one.
_SUFFICIENT = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer.model",))


def load_tokenizer(directory: Path, n_vocab: int) -> PreTrainedTokenizerFast:
    """The tokenizer saved in `directory`, of the kind that knows character offsets.

    Raises CS306 where it wants to run code of its own, CS312 where it is missing, unreadable, slow, empty, or knows
    more tokens than the model's `n_vocab`.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if not any(all((directory / name).is_file() for name in names) for names in _SUFFICIENT):
        raise _failure(f"there is no tokenizer in {directory}", "put the model's own tokenizer.json beside config.json")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        content = _read_object(directory / name)
        if "auto_map" in content:
            raise remote_code(directory / name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), trust_remote_code=False, use_fast=True)
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
    return tokenizer


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
