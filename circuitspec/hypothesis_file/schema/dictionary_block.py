"""A dictionary of features, as a file names it: of which place, where it lies, and how its tool saved it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, Tag

from circuitspec.hypothesis_file.grammar.dictionary_places import DictionaryPlace
from circuitspec.hypothesis_file.grammar.texts import DictionaryPlaceText
from circuitspec.hypothesis_file.schema.block import Block, Flag, Positive, Text, form_of, one_form_of

DictionaryFormatName: TypeAlias = Literal[
    "auto",
    "sae_lens",
    "sparsify",
    "dictionary_learning",
    "gemma_scope",
    "gemma_scope_2",
    "llama_scope",
    "circuit_tracer",
]


class HubFolder(Block):
    """A folder of a repository on the Hugging Face hub."""

    id: Text = Field(examples=["google/gemma-scope-2b-pt-res"], description="The repository: owner/name.")
    revision: Text | None = Field(default=None, description="Commit hash on the hub; pins the weights.")
    path: Text | None = Field(
        default=None,
        examples=["layer_20/width_16k/average_l0_71"],
        description="The folder or file in it; left out, the files lie at its top.",
    )

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"{self.id}{revision}" + ("" if self.path is None else f":{self.path}")


class DictionarySpec(Block):
    """A sparse autoencoder of one place of the model, or a transcoder of an MLP."""

    ADDED = ("scale",)

    at: DictionaryPlaceText = Field(
        examples=["r8", "m3"],
        description="What it takes apart: r8 (the residual stream entering block 8; r12 is what leaves the last of 12 "
        "blocks), r8.mid, z3 (the outputs of a "
        "layer's heads), a3 or m3 (what attention or MLP adds to the stream; after a norm of their own, if they have "
        "one). A transcoder reads what enters the MLP of m3.",
    )
    source: Annotated[
        Annotated[Text, Tag("<text>")] | Annotated[HubFolder, Tag("<mapping>")],
        one_form_of(form_of, "a folder such as ./saes/res8, or {id: OWNER/NAME, revision: COMMIT, path: FOLDER}"),
    ] = Field(
        alias="from",
        examples=["./saes/res8"],
        description="The folder or file of its weights, relative to this file; or a folder on the Hugging Face hub.",
    )
    format: DictionaryFormatName = Field(
        default="auto", description="The tool that saved it; auto tells by the names of the files."
    )
    centred: Flag = Field(
        default=False,
        description="It was trained on values less their mean over channels, as some tools process GPT-2.",
    )
    scale: Positive | None = Field(
        default=None, description="What values are multiplied by before they are encoded, where its tool did so."
    )
    skip_first: Flag = Field(
        default=False, description="It says nothing of a prompt's first token: no feature is active there."
    )
    error: Literal["keep", "ablate", "remove"] = Field(
        default="keep",
        description="What becomes of what its features leave over where all outside the circuit is ablated: it stays "
        "as the run has it (keep), is ablated too (ablate), or is left out, so that the value is what its features say "
        "alone (remove). A circuit that names sae:NAME.error has it inside.",
    )

    @property
    def named(self) -> str:
        """`from` in a line: the path as written, or `owner/name@revision:path`."""
        return str(self.source)

    @property
    def place(self) -> DictionaryPlace:
        """`at`, read."""
        return DictionaryPlace.parse(self.at)
