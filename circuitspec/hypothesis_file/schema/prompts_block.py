"""How a prompts file is read: which columns are what, in which layout, and which rows are left out."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, Tag
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from circuitspec.hypothesis_file.schema.block import Block, Flag, Text, form_of, one_form_of

LAYOUTS = (
    "circuitspec",
    "auto_circuit",
    "eap_ig",
    "eap_ig_greater_than",
    "eap_ig_sva",
    "feature_circuits",
    "blimp",
    "blimp_two_prefixes",
    "mib",
    "counterfact",
    "known_facts",
    "ravel",
)
"""The names of `prompts.files.layouts`, which has what they are."""

SKIPS = ("repeats", "misaligned", "split_answers", "unfit")


class LayoutChoices:
    """The names as an enumeration, read when a schema is made."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"enum": list(LAYOUTS), "type": "string"}


def _layout(value: object) -> object:
    if not isinstance(value, str) or value not in LAYOUTS:
        raise PydanticCustomError("literal_error", "one of {choices}", {"choices": list(LAYOUTS)})
    return value


LayoutName: TypeAlias = Annotated[str, BeforeValidator(_layout), LayoutChoices()]
Skip: TypeAlias = Literal["repeats", "misaligned", "split_answers", "unfit"]

ColumnNames: TypeAlias = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[tuple[Text, ...], Tag("<list>"), Field(min_length=1)],
    one_form_of(form_of, "the name of a column, or a list of them"),
]
CorruptColumns: TypeAlias = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[dict[Text, Text], Tag("<mapping>"), Field(min_length=1)],
    one_form_of(form_of, "the name of a column, or columns by corruption"),
]


class Columns(Block):
    """Which column of a prompts file is what. `a.b` is the key b inside the column a."""

    clean: Text = Field(examples=["clean_prefix"], description="The column of the prompts.")
    corrupt: CorruptColumns | None = Field(
        default=None,
        examples=["corrupted", {"flip": "flipped"}],
        description="The column of the corrupted prompts; or one for each corruption, by its name.",
    )
    answers: ColumnNames | None = Field(
        default=None, description="The column of the right answers (a text, a list, or in a table texts between |)."
    )
    wrong: ColumnNames | None = Field(default=None, description="The column of the wrong answers.")
    answer_ids: ColumnNames | None = Field(default=None, description="The column of right answers that are token ids.")
    wrong_ids: ColumnNames | None = Field(default=None, description="The column of wrong answers that are token ids.")
    positions: dict[Text, Text] = Field(
        default={},
        description="For each position its column: of token indices, or of texts that stand in the prompt.",
    )
    template: Text | None = Field(default=None, description="The column that names the kind of prompt.")
    add_space: Flag = Field(
        default=False, description="Put a space before answers that have none, as most tokenizers want it."
    )
