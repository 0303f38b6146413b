"""EAP-IG's tables (and MIB's, made with it): `clean`, `corrupted`, and answers as token ids."""

from __future__ import annotations

import re
from collections.abc import Mapping

from circuitspec.prompts.files.layouts.row_layout import Content, Layout
from circuitspec.prompts.files.row_values import Unfit, text_at, token_ids, value_at

_TEXTS = ("clean", "corrupted")
_IDS = (
    ("correct_idx", "incorrect_idx"),  # indirect object identification, coloured objects
    ("clean_answer_idx", "corrupted_answer_idx"),  # gender
    ("country_idx", "corrupted_country_idx"),  # facts
    ("answers_idx", "corrupted_answers_idx"),  # hypernyms: lists
)
_HARD = "corrupted_hard"


def _pair(row: Mapping[str, object]) -> Content:
    clean, corrupted = (text_at(row, name) for name in _TEXTS)
    if value_at(row, _HARD):
        return {"clean": clean, "corrupt": {"corrupt": corrupted, "corrupt_hard": text_at(row, _HARD)}}
    return {"clean": clean, "corrupt": corrupted}


def _with_ids(row: Mapping[str, object]) -> list[Content]:
    right, wrong = next(names for names in _IDS if all(name in row for name in names))
    ids = {"answers": token_ids(row[right], right), "wrong": token_ids(row[wrong], wrong)}
    return [{**_pair(row), **ids}]


def _greater_than(row: Mapping[str, object]) -> list[Content]:
    """`from the year 1741 to the year 17`: answers are all later years of the century, by their two digits."""
    pair = _pair(row)
    name = "label" if "label" in row else "correct_idx"
    said = value_at(row, name)
    try:
        year = int(str(said))
    except ValueError as error:
        raise Unfit(f"`{name}` is no number of two digits: {said!r}") from error
    if not 0 <= year <= 99 or not re.search(r"\d\d\s*$", str(pair["clean"])):
        raise Unfit("the prompt does not end in a century, such as `17`, with a year of two digits beside it")
    years = [f"{number:02d}" for number in range(100)]
    return [{**pair, "answers": years[year + 1 :], "wrong": years[: year + 1]}]


def _agreement(row: Mapping[str, object]) -> list[Content]:
    """The table has no answers: which verbs count is in no column."""
    return [_pair(row)]


EAP_IG = Layout(
    "eap_ig",
    "EAP-IG's tables with token ids",
    tuple((*_TEXTS, *names) for names in _IDS),
    _with_ids,
    texts=(*_TEXTS, _HARD),
)
EAP_IG_GREATER_THAN = Layout(
    "eap_ig_greater_than",
    "EAP-IG's years",
    ((*_TEXTS, "correct_idx"), (*_TEXTS, "label")),
    _greater_than,
    without=("incorrect_idx", "clean_answer_idx", "country_idx", "answers_idx", "plural"),
    when=lambda first: re.search(r"\d\d\s*$", str(first.get("clean"))) is not None,
    texts=_TEXTS,
)
EAP_IG_SVA = Layout(
    "eap_ig_sva",
    "EAP-IG's subject-verb agreement",
    ((*_TEXTS, "plural"),),
    _agreement,
    without=tuple(name for names in _IDS for name in names),
    texts=_TEXTS,
)
