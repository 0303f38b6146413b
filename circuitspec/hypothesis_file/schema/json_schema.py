"""The JSON Schema of the hypothesis file, for editors and other tools."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.hypothesis_file.schema.claims.all_blocks import CLAIMS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FILE = "circuitspec.schema.json"


def json_schema() -> dict[str, Any]:
    """The schema, made from the pydantic models; claims in the form in which they are written."""
    schema = Hypothesis.model_json_schema(by_alias=True, mode="validation")
    definitions = schema["$defs"]
    for claim in CLAIMS.values():
        del definitions[claim.__name__]["properties"]["kind"]
    schema["properties"]["claims"]["items"] = {
        "oneOf": [_written_claim(name, definitions[claim.__name__]) for name, claim in CLAIMS.items()]
    }
    _describe(schema, definitions)
    return {
        "$schema": DIALECT,
        "title": "Circuit hypothesis",
        "description": schema.pop("description"),
        **{key: _without_titles(value) for key, value in schema.items() if key != "title"},
    }


def _describe(value: Any, definitions: dict[str, Any]) -> None:
    """Give keys that only refer to a block its description: editors show what stands at the key."""
    if isinstance(value, list):
        for inner in value:
            _describe(inner, definitions)
    if not isinstance(value, dict):
        return
    properties: dict[str, Any] = value.get("properties", {})
    for key, inner in properties.items():
        if "$ref" in inner and "description" not in inner:
            block = definitions[inner["$ref"].removeprefix("#/$defs/")]
            properties[key] = {"description": block["description"], **inner}
    for inner in value.values():
        _describe(inner, definitions)


def schema_text() -> str:
    """The schema as it is committed and printed."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def committed_schema_text() -> str:
    """The copy inside the package."""
    return resources.files("circuitspec.hypothesis_file.schema").joinpath(FILE).read_text(encoding="utf-8")


def _written_claim(name: str, definition: dict[str, Any]) -> dict[str, Any]:
    """`{sufficient: {...}}`: one key, whose value are the settings."""
    return {
        "type": "object",
        "description": definition["description"],
        "properties": {
            name: {"$ref": f"#/$defs/{CLAIMS[name].__name__}", "description": definition["description"]},
        },
        "required": [name],
        "additionalProperties": False,
    }


def _without_titles(value: Any) -> Any:
    """Without pydantic's titles, which only repeat the keys. A property called `title` would be a mapping."""
    if isinstance(value, dict):
        return {
            key: _without_titles(inner)
            for key, inner in value.items()
            if not (key == "title" and isinstance(inner, str))
        }
    return [_without_titles(inner) for inner in value] if isinstance(value, list) else value
