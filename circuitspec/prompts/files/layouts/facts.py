"""Facts about subjects: CounterFact (ROME), its list of known facts, and RAVEL's entities and attributes."""

from __future__ import annotations

from collections.abc import Mapping

from circuitspec.prompts.files.layouts.row_layout import Content, Layout
from circuitspec.prompts.files.row_values import Unfit, spaced, text_at, value_at
from circuitspec.prompts.text_places import nth_at

_REWRITE = "requested_rewrite"


def _counterfact(row: Mapping[str, object]) -> list[Content]:
    """The prompt with its subject, the true object right and the new (or false) one wrong; the subject a position."""
    inner = value_at(row, _REWRITE)
    fact = inner if isinstance(inner, Mapping) else row
    subject, template = text_at(fact, "subject"), text_at(fact, "prompt")
    prompt = template.replace("{}", subject)
    before = template.partition("{}")[0] if "{}" in template else ""
    other = "target_new" if value_at(fact, "target_new") is not None else "target_false"
    content = _about(prompt, subject, _target(fact, "target_true"), before)
    content["wrong"] = [spaced(_target(fact, other), prompt)]
    content["metadata"] = {"relation_id": str(fact["relation_id"])} if "relation_id" in fact else {}
    return [content]


def _target(fact: Mapping[str, object], name: str) -> str:
    value = value_at(fact, name)
    return text_at(fact, f"{name}.str" if isinstance(value, Mapping) else name)


def _known(row: Mapping[str, object]) -> list[Content]:
    subject, prompt = text_at(row, "subject"), text_at(row, "prompt")
    before = prompt.partition("{}")[0] if "{}" in prompt else ""
    return [_about(prompt.replace("{}", subject), subject, text_at(row, "attribute"), before)]


def _about(prompt: str, subject: str, answer: str, before: str) -> Content:
    """`before` is the text in front of the subject, which may name it too."""
    if subject not in prompt:
        raise Unfit(f"the prompt does not hold its subject, {subject}")
    return {
        "clean": prompt.rstrip(),
        "answers": [spaced(answer, prompt.rstrip())],
        "positions": {"subject": {"text": subject.strip(), "nth": nth_at(subject.strip(), prompt, len(before))}},
    }


COUNTERFACT = Layout(
    "counterfact",
    "CounterFact",
    (
        (_REWRITE,),
        ("prompt", "subject", "target_true", "target_new"),
        ("prompt", "subject", "target_true", "target_false"),
    ),
    _counterfact,
    texts=(_REWRITE, "prompt", "paraphrase_prompts", "neighborhood_prompts", "attribute_prompts", "generation_prompts"),
)
KNOWN_FACTS = Layout(
    "known_facts",
    "ROME's known facts",
    (("prompt", "subject", "attribute"),),
    _known,
    without=("target_true",),
    texts=("prompt",),
)
