"""Texts as tokens that know their characters. The tokenizer is passed in; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 4096  # texts given to the tokenizer at once


@dataclass(frozen=True)
class Encoded:
    """A text's tokens. `spans[k]` are the characters of token k, empty for tokens put around the text.

    `own` are the characters of the prompt itself, where a chat template stands around it.
    """

    text: str
    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    before: int  # tokens in front of the prompt: a BOS token, those of a chat template
    after: int  # tokens put behind it
    own: tuple[int, int] | None = None
    added: int = 0  # special tokens put in front, which are among those `before`

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def own_text(self) -> tuple[int, int]:
        """The characters of the prompt itself."""
        return (0, len(self.text)) if self.own is None else self.own

    def tokens_of(self, start: int, end: int) -> range:
        """The tokens that share a character with `text[start:end]`; possibly none.

        Whether a token's span includes the space before a word differs between tokenizers and does not
        matter here: the space is not part of the slot. Several tokens may hold bytes of one character.
        """
        touching = [k for k, (first, last) in enumerate(self.spans) if first < end and start < last]
        return range(touching[0], touching[-1] + 1) if touching else range(0)

    def tokens_since(self, start: int, end: int) -> range:
        """The tokens that `text[start:end]` brings: from those of the text before it (spaces aside) to its last one.

        Unlike `tokens_of`, this counts a token that holds nothing but the space before a word.
        """
        preceding = self.tokens_of(0, len(self.text[:start].rstrip()))
        return range(preceding.stop or self.before, max(self.tokens_of(start, end).stop, preceding.stop))


def encode(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> dict[str, Encoded]:
    """Every different text once, encoded as the model will see it, unpadded and not cut."""
    return dict(_encode(tokenizer, list(dict.fromkeys(texts))))


def _encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Iterable[tuple[str, Encoded]]:
    for start in range(0, len(texts), BATCH):
        batch = list(texts[start : start + BATCH])
        encoding = tokenizer(
            batch,
            padding=False,
            truncation=False,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_attention_mask=False,
            verbose=False,
        )
        columns = (encoding["input_ids"], encoding["offset_mapping"], encoding["special_tokens_mask"])
        for text, ids, offsets, added in zip(batch, *columns, strict=True):
            before = next((k for k, flag in enumerate(added) if not flag), len(added))
            after = next((k for k, flag in enumerate(reversed(added)) if not flag), 0)
            spans = tuple((0, 0) if flag else (int(a), int(b)) for (a, b), flag in zip(offsets, added, strict=True))
            yield text, Encoded(text, tuple(map(int, ids)), spans, before, after, added=before)


def encode_ids(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Only the token ids of every different text, which is several times faster than `encode`."""
    wanted = list(dict.fromkeys(texts))
    found: dict[str, tuple[int, ...]] = {}
    for start in range(0, len(wanted), BATCH):
        batch = wanted[start : start + BATCH]
        encoding = tokenizer(batch, padding=False, truncation=False, return_attention_mask=False, verbose=False)
        found.update(zip(batch, map(tuple, encoding["input_ids"]), strict=True))
    return found


def alone(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """The token ids of a text by itself, with nothing put around it."""
    return tuple(map(int, tokenizer([text], add_special_tokens=False, verbose=False)["input_ids"][0]))


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> str:
    """What token ids say, special tokens included."""
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def token_strings(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> str:
    """Tokens for a message: `' Bart'|'hol'|'omew'`."""
    return "|".join(repr(tokenizer.decode([one], clean_up_tokenization_spaces=False)) for one in ids)
