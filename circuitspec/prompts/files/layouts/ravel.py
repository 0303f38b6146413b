"""RAVEL: tables of entities with their attributes, and prompts for each attribute, in files beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from circuitspec.prompts.files.layouts.row_layout import Content, Layout
from circuitspec.prompts.files.row_values import Unfit, spaced, text_at
from circuitspec.prompts.text_places import nth_at

ENTITIES = "_entity_attributes.json"  # how the file of entities ends; the others begin as it does
PROMPTS = "_attribute_to_prompts.json"
SPLITS = "_entity_to_split.json"
MOST = 20_000  # prompts that are made where the file does not say how many


def ravel_rows(
    entities: Mapping[str, object], prompts: Mapping[str, object], splits: Mapping[str, object]
) -> Iterator[dict[str, object]]:
    """Every entity with every prompt of every attribute that it has, in an order in which both soon vary.

    The other entity of a row is the next one in the table whose value is another.
    """
    names = [name for name, own in entities.items() if isinstance(own, Mapping)]
    texts = [
        (attribute, text)
        for attribute, listed in prompts.items()
        if isinstance(listed, Sequence) and not isinstance(listed, str)
        for text in listed
        if isinstance(text, str) and "%s" in text
    ]
    for shift, place in product(range(len(texts)), range(len(names))):
        attribute, text = texts[(place + shift) % len(texts)]
        name = names[place]
        value = _value(entities[name], attribute)
        if value is None:
            continue
        around = (names[(place + step) % len(names)] for step in range(1, len(names)))
        other = next((one for one in around if _value(entities[one], attribute) not in (None, value)), None)
        if other is None:
            continue
        row: dict[str, object] = {"entity": name, "attribute": attribute, "template": text, "value": value}
        row |= {"other_entity": other, "other_value": _value(entities[other], attribute)}
        yield {**row, "split": splits[name]} if name in splits else row


def _value(own: object, attribute: str) -> str | None:
    value = own.get(attribute) if isinstance(own, Mapping) else None
    return None if value is None or not str(value).strip() else str(value)


def _read(row: Mapping[str, object]) -> list[Content]:
    """The corrupted prompt asks the same of the other entity; the position `entity` is the entity's last token."""
    entity, other, template = (text_at(row, name) for name in ("entity", "other_entity", "template"))
    if "%s" not in template:
        raise Unfit("the template has no %s")
    clean, corrupt = (template.replace("%s", one).rstrip() for one in (entity, other))
    return [
        {
            "clean": clean,
            "corrupt": corrupt,
            "answers": [spaced(text_at(row, "value"), clean)],
            "wrong": [spaced(text_at(row, "other_value"), clean)],
            "positions": {"entity": {"text": entity, "nth": nth_at(entity, clean, template.index("%s"))}},
            "template": template,
        }
    ]


RAVEL = Layout(
    "ravel",
    "RAVEL's entities and attributes",
    (("entity", "attribute", "template", "value", "other_entity", "other_value"),),
    _read,
)
