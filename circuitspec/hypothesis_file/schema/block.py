"""What all blocks of the file are made of: a mapping with known keys, and its numbers and names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from circuitspec.hypothesis_file.grammar.internal_metric_names import from_mapping, is_internal, parse_internal

OUTPUT_METRICS = ("logit_diff", "logit", "logprob", "logprob_diff", "prob", "prob_diff", "accuracy", "rank", "kl")
"""The names of `prompts.output_metrics`, which has what they are."""

Text: TypeAlias = Annotated[str, Field(min_length=1)]
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
Count: TypeAlias = Annotated[int, Field(strict=True, gt=0, le=1_000_000)]
Seed: TypeAlias = Annotated[int, Field(strict=True, ge=0)]
Positive: TypeAlias = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Bound: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Through: TypeAlias = tuple[Literal["mlp"], ...]
Share: TypeAlias = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]


def _spelled(value: object) -> object:
    return from_mapping(value) if isinstance(value, dict) else value


def _kind_of_metric(value: object) -> str:
    return "<internal>" if isinstance(value, str) and is_internal(value) else "<output>"


def _internal(text: str) -> str:
    return str(parse_internal(text))


def _of_output(value: object) -> object:
    if not isinstance(value, str) or value not in OUTPUT_METRICS:
        raise PydanticCustomError("literal_error", "one of {choices}", {"choices": list(OUTPUT_METRICS)})
    return value


def _of(description: str) -> dict[str, str]:
    return {"type": "string", "description": description}


_INTERNAL_SCHEMA = [
    {"type": "string", "pattern": r"^\s*(attention|neuron|projection|routing)\s*\("},
    {
        "type": "object",
        "description": "The attention that a head pays from one position to another.",
        "properties": {"attention": _of("The head: a9.h9."), "from": _of("Where it is."), "to": _of("Where it looks.")},
        "required": ["attention", "from", "to"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "description": "A neuron's activation at a position.",
        "properties": {"neuron": _of("The neuron: m1.n42."), "at": _of("The position.")},
        "required": ["neuron", "at"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "description": "A residual stream's or MLP output's scalar product with the direction in a file of numbers.",
        "properties": {
            "projection": _of("A residual stream or MLP: r5, r5.mid, m3."),
            "at": _of("The position."),
            "along": _of("A text file with one number for each of the model's dimensions."),
        },
        "required": ["projection", "at", "along"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "description": "The weight with which a router chooses an expert at a position; zero where it does not.",
        "properties": {"routing": _of("The expert: m3.e5."), "at": _of("The position.")},
        "required": ["routing", "at"],
        "additionalProperties": False,
    },
]


class _MetricSchema:
    """The names as they are when a schema is made."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"enum": list(OUTPUT_METRICS), "type": "string"}, *_INTERNAL_SCHEMA]}


MetricName: TypeAlias = Annotated[
    Annotated[str, BeforeValidator(_of_output), Tag("<output>")]
    | Annotated[str, AfterValidator(_internal), Tag("<internal>")],
    Discriminator(_kind_of_metric),
    BeforeValidator(_spelled),
    _MetricSchema(),
]
"""A score of the output by its name, or one of what the model does inside, in its one spelling."""


class Block(BaseModel):
    """A mapping of the file whose keys are all known.

    `ADDED` are keys that a block got after its first version. They are written out only where they differ from their
    default, so that the digest of a file does not change with what it does not say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    ADDED: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_added(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        for block in type(self).__mro__:
            for key in vars(block).get("ADDED", ()):
                if getattr(self, key) == type(self).model_fields[key].default:
                    content.pop(key, None)  # not there where only what was given is written out
        return content


def form_of(value: object) -> str | None:
    """Which of several written forms a value has: the discriminator of the unions below."""
    match value:
        case str():
            return "<text>"
        case list() | tuple():
            return "<list>"
        case dict() | BaseModel():
            return "<mapping>"
        case int() if not isinstance(value, bool):
            return "<index>"
        case _:
            return None


def one_form_of(discriminate: Callable[[Any], str | None], wanted: str) -> Discriminator:
    """The discriminator of a union of written forms; `wanted` says which there are."""
    return Discriminator(discriminate, custom_error_type="wrong_form", custom_error_message=wanted)
