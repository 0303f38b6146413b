"""A model's tokenizer as far as it is on this machine, read without torch and without the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.model_reference import resolve_reference
from circuitspec.models.tokenizers.tokenizer_files import named_tokens

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerBase

_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")  # any of these says where a tokenizer is


class PlainTokenizer:
    """What `tasks` asks of transformers' fast tokenizers, from the library that these are made of.

    It gives the tokens that `models.tokenizers.tokenizer` gives, which takes what tokenizer.json says.
    """

    is_fast = True

    def __init__(self, tokenizer: tokenizers.Tokenizer, bos_token: str | None = None) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.unk_token: str | None = getattr(tokenizer.model, "unk_token", None) or None
        self.unk_token_id = None if self.unk_token is None else tokenizer.token_to_id(self.unk_token)
        self.bos_token_id = None if bos_token is None else tokenizer.token_to_id(bos_token)

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def __call__(
        self, texts: Sequence[str], *, add_special_tokens: bool = True, **_how: object
    ) -> dict[str, list[list[object]]]:
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        return {
            "input_ids": [list(one.ids) for one in encodings],
            "offset_mapping": [list(one.offsets) for one in encodings],
            "special_tokens_mask": [list(one.special_tokens_mask) for one in encodings],
        }

    def decode(self, ids: Sequence[int], **_how: object) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)


@dataclass(frozen=True)
class TokenizerAtHand:
    """`plain` where it can be had without torch; `directory` where the tokenizer is in files, for `loaded`."""

    plain: PlainTokenizer | None
    directory: Path | None

    def loaded(self, n_vocab: int) -> PreTrainedTokenizerBase:
        """As `verify` loads it, and refuses it. Imports torch."""
        from circuitspec.models.storage.quiet import quiet_transformers
        from circuitspec.models.tokenizers.tokenizer import load_tokenizer

        assert self.directory is not None
        with quiet_transformers():
            return load_tokenizer(self.directory, n_vocab)


def tokenizer_at_hand(model: ModelSpec, base_dir: Path) -> TokenizerAtHand | None:
    """The tokenizer of the model that a hypothesis names; None where it is not on this machine.

    Nothing is downloaded or converted. Raises CS300 to CS303 for a reference that leads nowhere.
    """
    reference = resolve_reference(model, base_dir)
    if reference.kind == "built":
        from circuitspec.models.zoo import built_model
        from circuitspec.models.zoo.word_tokenizer import END_OF_TEXT

        tokenizer = built_model(model.id.removeprefix("zoo:")).tokenizer()
        return TokenizerAtHand(PlainTokenizer(tokenizer, END_OF_TEXT), None)
    if reference.kind == "hub":
        directory = _cached_on_hub(reference.id, model.revision)
    elif reference.kind == "gguf":
        from circuitspec.models.gguf import converted_directory

        directory = converted_directory(reference.local_path, only="tokenizer.json")
    else:
        directory = reference.local_path
    if directory is None or not any((directory / name).is_file() for name in _FILES):
        return None
    return TokenizerAtHand(_plain(directory / "tokenizer.json"), directory)


def _cached_on_hub(repo_id: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(repo_id, name, revision=revision) for name in _FILES]
    return next((Path(one).parent for one in found if isinstance(one, str)), None)


def _plain(file: Path) -> PlainTokenizer | None:
    """None for a file that is not there, or is damaged: what is wrong with it is told by who loads it in earnest.

    Nor where other files name tokens that are not in it, or are ordinary there.
    """
    from tokenizers import Tokenizer

    if not file.is_file():
        return None
    try:
        tokenizer = Tokenizer.from_file(str(file))
        added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        return PlainTokenizer(tokenizer) if named_tokens(file.parent) <= added else None
    except (OSError, ValueError, TypeError):
        return None
    except Exception as error:
        if type(error) is not Exception:  # the tokenizers library raises the bare class, and only that is its word
            raise
        return None
