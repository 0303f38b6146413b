"""Pairs that differ in a word: feature-circuits' agreement sets, and BLiMP by one prefix or by two."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile

from circuitspec.prompts.files.layouts.row_layout import Content, Layout
from circuitspec.prompts.files.row_values import Unfit, spaced, text_at, value_at

_GOOD, _BAD = "sentence_good", "sentence_bad"


def _agreement(row: Mapping[str, object]) -> list[Content]:
    """Some of these sets have the space before an answer, others have not: the answer is the next word in both."""
    clean = text_at(row, "clean_prefix")
    right, wrong = (spaced(text_at(row, name), clean) for name in ("clean_answer", "patch_answer"))
    return [{"clean": clean, "corrupt": text_at(row, "patch_prefix"), "answers": [right], "wrong": [wrong]}]


def _words(row: Mapping[str, object]) -> tuple[list[str], list[str], int]:
    """Both sentences in words, and how many they share from the start on."""
    good, bad = (text_at(row, name).split(" ") for name in (_GOOD, _BAD))
    return good, bad, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(good, bad, strict=False)))


def _bare(word: str) -> str:
    """A word without what punctuation ends it."""
    return word.rstrip(".,;:!?")


def _one_prefix(row: Mapping[str, object]) -> list[Content]:
    """What both share from the start on is the prompt; the words at which they part are the answers."""
    good, bad, shared = _words(row)
    if not shared:
        raise Unfit("the sentences part at their first word, so that there is no prompt before it")
    if shared in (len(good), len(bad)) or _bare(good[shared]) == _bare(bad[shared]):
        raise Unfit("the sentences do not part at a word")
    right, wrong = (f" {_bare(words[shared])}" for words in (good, bad))
    return [{"clean": " ".join(good[:shared]), "answers": [right], "wrong": [wrong]}]


def _two_prefixes(row: Mapping[str, object]) -> list[Content]:
    """The sentences differ, then go on alike: the first word that they share again is the answer to both."""
    good, bad, shared = _words(row)
    after = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(good[::-1], bad[::-1], strict=False)))
    after = min(after, len(good) - shared, len(bad) - shared)
    if not after or shared + after == len(good) == len(bad):
        raise Unfit("the sentences do not go on with the same word after they differ")
    clean, corrupt = (" ".join(words[: len(words) - after]) for words in (good, bad))
    if not clean or not corrupt:
        raise Unfit("one of the sentences begins with the word that both go on with")
    return [{"clean": clean, "corrupt": corrupt, "answers": [f" {_bare(good[len(good) - after])}"]}]


def _says(row: Mapping[str, object], name: str) -> bool:
    return str(value_at(row, name)).lower() == "true"


FEATURE_CIRCUITS = Layout(
    "feature_circuits",
    "feature-circuits' agreement sets",
    (("clean_prefix", "patch_prefix", "clean_answer", "patch_answer"),),
    _agreement,
    texts=("clean_prefix", "patch_prefix"),
)
BLIMP = Layout(
    "blimp",
    "BLiMP, by one prefix",
    ((_GOOD, _BAD),),
    _one_prefix,
    when=lambda first: _says(first, "one_prefix_method"),
    texts=(_GOOD, _BAD),
)
BLIMP_TWO_PREFIXES = Layout(
    "blimp_two_prefixes",
    "BLiMP, by two prefixes",
    ((_GOOD, _BAD),),
    _two_prefixes,
    when=lambda first: _says(first, "two_prefix_method") and not _says(first, "one_prefix_method"),
    texts=(_GOOD, _BAD),
)
