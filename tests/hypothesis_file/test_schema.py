"""The JSON Schema says what the reader accepts, as far as a schema can."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from circuitspec.hypothesis_file.schema.claims.all_blocks import CLAIMS
from circuitspec.hypothesis_file.schema.json_schema import committed_schema_text, json_schema, schema_text
from circuitspec.hypothesis_file.starter_file import starter_text
from circuitspec.hypothesis_file.yaml.source import parse_source
from tests.hypothesis_file.support import GOOD, HYPOTHESES, good_but
from tests.hypothesis_file.test_load import IOI, TASKS, whole_file

VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def _data(text: str) -> Any:
    return parse_source(text, "f").data


def test_the_committed_copy_is_this_schema() -> None:
    assert committed_schema_text() == schema_text()
    assert json.loads(committed_schema_text()) == json_schema()


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


GOOD_TEXTS = {
    "small": GOOD,
    "the full example": IOI,
    "starter": starter_text(),
    **{kind: whole_file(kind) for kind in TASKS},
    **{file.name: file.read_text(encoding="utf-8") for file in sorted(HYPOTHESES.glob("*.circuit.yaml"))},
}


@pytest.mark.parametrize("name", GOOD_TEXTS)
def test_accepts(name: str) -> None:
    VALIDATOR.validate(_data(GOOD_TEXTS[name]))


@pytest.mark.parametrize(
    "change",
    [
        ("name: small", "name: small\nnmae: x"),
        ("name: small\n", ""),
        ("circuitspec: 1", "circuitspec: 2"),
        ("name: small", "name: 3"),
        ("name: small", 'name: ""'),
        ('{id: "zoo:ioi-tiny"}', "{}"),
        ('{id: "zoo:ioi-tiny"}', "{id: gpt2, dtype: fp32}"),
        ('{id: "zoo:ioi-tiny"}', "{id: gpt2, revision: 123}"),
        ("{END: last}", "{END: [last]}"),
        ("{END: last}", "{END: 1.5}"),
        ("{END: last}", "{END: last}\n  prompts: 0"),
        ("{END: last}", '{END: last}\n  prompts: "5"'),
        ("{END: last}", "{END: last}\n  checks: {accuracy: 90}"),
        ("names: [Mary", "names: [3, Mary"),
        ("S2: =S1", "S2: 3"),
        ('answer: " {IO}"', "answer: {above: S1}"),
        ('wrong: " {S1}"', "wrong: {answer_off: abc}"),
        ("[a3.h0]", "[9.10]"),
        ("[a3.h0]", "[]"),
        ("[a3.h0]", "a3.h0"),
        ("mover: {nodes: [a3.h0], at: END}", "mover: {nodes: [a3.h0], position: END}"),
        ("mover: {nodes: [a3.h0], at: END}", "mover: {nodes: [a3.h0], effect: bad}"),
        ("from: abc", "source: abc"),
        ("value: resample", "value: resampled"),
        ("- sufficient", "- sufficent"),
        ("- sufficient: {", "- {kind: sufficient, "),
        ("  - sufficient: {metric: logit_diff, at_least: 0.8}", "  - sufficient"),
        ("metric: logit_diff", "metric: logits"),
        ("metric: logit_diff, ", ""),
        ("at_least: 0.8", "at_leest: 0.8"),
        ("  - sufficient: {metric: logit_diff, at_least: 0.8}", "  []"),
    ],
)
def test_rejects(change: tuple[str, str]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(_data(good_but(change)))


def _properties(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.get("properties", {}).items():
            yield key, inner
        for inner in value.values():
            yield from _properties(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _properties(inner)


def test_every_key_is_described() -> None:
    """Editors show the description at the key, and not what it refers to."""
    found = list(_properties(json_schema()))
    assert len(found) > 150
    assert [key for key, inner in found if not inner.get("description", "").strip()] == []
    for name, claim in CLAIMS.items():
        (description,) = {inner["description"] for key, inner in found if key == name and "$ref" in inner}
        assert description.split() == (claim.__doc__ or "").split()


def test_no_key_is_called_kind() -> None:
    """Claims are described in the form in which they are written."""
    assert "kind" not in {key for key, _ in _properties(json_schema())}
