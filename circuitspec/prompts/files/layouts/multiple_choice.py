"""MIB's data sets: a prompt, its choices and the right one, or its label; and counterfactual columns of the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from circuitspec.prompts.files.layouts.row_layout import Content, Layout
from circuitspec.prompts.files.row_values import Unfit, spaced, text_at, value_at

_COUNTERFACTUAL = "_counterfactual"


def _chosen(row: Mapping[str, object]) -> list[Content]:
    """Corruptions are called by their columns, `flip` for `flip_counterfactual`; all other choices are wrong."""
    prompt = text_at(row, "prompt")
    choices = _choices(value_at(row, "choices"))
    number = _number(value_at(row, "answerKey"), value_at(row, "choices"), len(choices))
    return [_content(row, prompt, choices[number], choices)]


def _labelled(row: Mapping[str, object]) -> list[Content]:
    """The label is right; those of the counterfactual prompts that are others are wrong."""
    others = [_label(other) for other in _counterfactuals(row).values() if value_at(other, "label") is not None]
    return [_content(row, text_at(row, "prompt"), _label(row), others)]


def _label(row: Mapping[str, object]) -> str:
    value = value_at(row, "label")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text_at(row, "label")


def _content(row: Mapping[str, object], prompt: str, right: str, every: Sequence[str]) -> Content:
    answer = spaced(right, prompt)
    texts = dict.fromkeys(spaced(one, prompt) for one in every)
    content: Content = {"clean": prompt, "answers": [answer], "wrong": [text for text in texts if text != answer]}
    others = _counterfactuals(row)
    if others:
        content["corrupt"] = {name: text_at(value, "prompt") for name, value in others.items()}
    return content


def _counterfactuals(row: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """Corruptions by name, each as its column has it."""
    return {
        name.removesuffix(_COUNTERFACTUAL): value
        for name, value in row.items()
        if name.endswith(_COUNTERFACTUAL) and isinstance(value, Mapping)
    }


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
    (("prompt", "choices", "answerKey"), ("prompt", "label")),
    lambda row: _chosen(row) if "choices" in row else _labelled(row),
    when=lambda first: "choices" in first or bool(_counterfactuals(first)),
    texts=("prompt",),
)
