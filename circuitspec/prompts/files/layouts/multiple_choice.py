"""MIB's data sets: a prompt, its choices, the number of the right one; and counterfactual columns of the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from circuitspec.prompts.files.layouts.row_layout import Content, Layout
from circuitspec.prompts.files.row_values import Unfit, spaced, text_at, value_at

_COUNTERFACTUAL = "_counterfactual"


def _read(row: Mapping[str, object]) -> list[Content]:
    """Corruptions are called by their columns, `flip` for `flip_counterfactual`; all other choices are wrong."""
    prompt = text_at(row, "prompt")
    choices = _choices(value_at(row, "choices"))
    number = _number(value_at(row, "answerKey"), value_at(row, "choices"), len(choices))
    texts = [spaced(choice, prompt) for choice in choices]
    content: Content = {
        "clean": prompt,
        "answers": [texts[number]],
        "wrong": list(dict.fromkeys(text for text in texts if text != texts[number])),
    }
    others = {
        name.removesuffix(_COUNTERFACTUAL): text_at(value, "prompt")
        for name, value in row.items()
        if name.endswith(_COUNTERFACTUAL) and isinstance(value, Mapping)
    }
    if others:
        content["corrupt"] = others
    return [content]


def _choices(value: object) -> list[str]:
    """A list of texts, or (in tables of questions) letters as `label` beside their `text`."""
    found = value.get("label") if isinstance(value, Mapping) else value
    if not isinstance(found, Sequence) or isinstance(found, str) or not all(isinstance(one, str) for one in found):
        raise Unfit("`choices` is no list of texts")
    return list(found)


def _number(key: object, choices: object, count: int) -> int:
    if isinstance(key, str) and not key.isdigit() and isinstance(choices, Mapping):
        labels = choices.get("label")
        if isinstance(labels, Sequence) and key in labels:
            return labels.index(key)
    elif isinstance(key, (int, str)) and not isinstance(key, bool) and str(key).isdigit() and int(key) < count:
        return int(key)
    raise Unfit(f"`answerKey` is the number of none of the choices: {key!r}")


MIB = Layout(
    "mib",
    "MIB's choices",
    (("prompt", "choices", "answerKey"),),
    _read,
    texts=("prompt",),
)
