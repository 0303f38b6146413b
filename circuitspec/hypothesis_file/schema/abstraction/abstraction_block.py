"""The `abstraction` block: high-level variables, where they are aligned, and the pairs of prompts that test this."""

from __future__ import annotations

import keyword
import re
from typing import Annotated, TypeAlias

from pydantic import (
    AfterValidator,
    Field,
    Tag,
    model_validator,
)

from circuitspec.hypothesis_file.grammar import texts
from circuitspec.hypothesis_file.grammar.names import IDENTIFIER, NameSyntaxError
from circuitspec.hypothesis_file.grammar.variable_expressions import parse_expression
from circuitspec.hypothesis_file.schema.block import Block, Count, Flag, Seed, Text, form_of, one_form_of


def _expression(text: str) -> str:
    try:
        parse_expression(text)
    except NameSyntaxError as error:
        raise texts.problem("CS184", error.message, hint=error.hint, offset=error.offset, length=error.length) from None
    return text.strip()


def _variable_name(text: str) -> str:
    if re.fullmatch(IDENTIFIER, text) is None or keyword.iskeyword(text):
        raise texts.problem("CS149", f"{text!r} cannot be the name of a variable", hint="write a name such as position")
    return text


def _family_name(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", text) is None:
        raise texts.problem("CS149", f"{text!r} cannot be the name of a family of pairs", hint="write other_names")
    return text


Expression_: TypeAlias = Annotated[str, AfterValidator(_expression)]
VariableName: TypeAlias = Annotated[str, AfterValidator(_variable_name)]
FamilyName: TypeAlias = Annotated[str, AfterValidator(_family_name)]
Positions_: TypeAlias = Annotated[
    Annotated[texts.PositionName, Tag("<text>")]
    | Annotated[tuple[texts.PositionName, ...], Tag("<list>"), Field(min_length=1)],
    one_form_of(form_of, "the name of a position, or a list of them"),
]


Ranks: TypeAlias = Annotated[
    Annotated[Count, Tag("<index>")] | Annotated[tuple[Count, ...], Tag("<list>"), Field(min_length=1)],
    one_form_of(form_of, "a number of directions, or a list of them"),
]


class SubspaceOf(Block):
    """The linear subspace of a component's value that is said to carry a variable."""

    rank: Ranks = Field(
        examples=[2, [1, 2, 4, 8]],
        description="How many orthonormal directions span it. Of a list, `circuitspec align` tries each, and the file "
        "says which was chosen.",
    )
    file: Text | None = Field(
        default=None,
        examples=["ioi.subspaces.safetensors"],
        description="The file with its basis, as `circuitspec align` writes it, relative to this file. Without one the "
        "subspace is still to be learned by `circuitspec align`, and `verify` refuses the file (CS235).",
    )

    @property
    def ranks(self) -> tuple[int, ...]:
        """Each rank that it may have, smallest first."""
        return (self.rank,) if isinstance(self.rank, int) else tuple(sorted(set(self.rank)))


class Alignment(Block):
    """The components, at positions, that are said to carry a variable."""

    nodes: tuple[texts.GroupOrNode, ...] = Field(
        min_length=1,
        examples=[["s_inhibition"]],
        description="Groups, at their positions, or components: at those written with them (a9.h6@END), else at all.",
    )
    at: Positions_ | None = Field(
        default=None, description="Position or positions of all of them, whatever the groups' own are."
    )
    subspace: SubspaceOf | None = Field(
        default=None,
        examples=[{"rank": 2, "file": "ioi.subspaces.safetensors"}],
        description="A subspace of the value, of which alone the variable is said to be made. It is of one component "
        "(a residual stream, an MLP, a head), the same at all of its positions: of several `nodes`, `circuitspec "
        "align` tries each, and the file says which was chosen.",
    )


class PairFamily(Block):
    """One way in which the source of a pair is made of its base, which is a clean prompt, or a file that has both.

    Slots that copy others follow them, unless they are set themselves, so that the source is a prompt of the task.
    """

    ADDED = ("file",)

    redraw: tuple[texts.SlotName, ...] = Field(
        default=(),
        examples=[["IO", "S1"]],
        description="Slots that are drawn afresh from their lists: none of these values is in the base.",
    )
    slots: dict[texts.SlotName, texts.SlotRule] = Field(
        default={},
        description="Slots that are set: =X takes what X holds in the base (where X is redrawn, its new value), "
        "$list draws afresh.",
    )
    corruption: str | None = Field(default=None, description="The source is the base's prompt in this corruption.")
    permute: Flag = Field(
        default=False, description="The source is another clean prompt of the same template, by a seeded permutation."
    )
    file: Text | None = Field(
        default=None,
        examples=["pairs.csv"],
        description="Bases and sources from a file, relative to this file, read as prompts files are: of templates in "
        "columns base.SLOT and source.SLOT, of prompts from a file in base (a clean prompt) and source (another one) "
        "or source.clean, source.COLUMN.",
    )
    seed: Seed = Field(default=0, description="Seed of what is drawn and permuted.")

    @model_validator(mode="after")
    def _one_way(self) -> PairFamily:
        given = [bool(self.redraw or self.slots), self.corruption is not None, self.permute, self.file is not None]
        if sum(given) != 1:
            raise texts.problem(
                "CS186",
                "a family of pairs makes its sources in more than one way"
                if any(given)
                else "the family does not say how its sources are made",
                hint="write redraw: [SLOT, ...] and slots: {SLOT: =OTHER}, or corruption: NAME, or permute: true, or "
                "file: pairs.csv",
                key=True,
            )
        return self


class AbstractionSpec(Block):
    """A high-level causal model of the task, and the components that are said to carry its variables."""

    variables: Annotated[dict[VariableName, Expression_], Field(min_length=1)] = Field(
        examples=[{"position": "0 if S2 == second else 1", "answer": "first if position == 0 else second"}],
        description="High-level variables in order, each an expression over slots, columns of tables (S.plural) and "
        "earlier variables: ==, !=, <, <=, in, and, or, not, x if c else y, + and -.",
    )
    output: texts.Template = Field(
        examples=["answer"],
        description="The answer that the high-level model asks for: a variable, which takes the place of the slot in "
        'the task\'s `answer`, or a text such as " {answer}".',
    )
    align: Annotated[dict[VariableName, Alignment], Field(min_length=1)] = Field(
        default={},
        examples=[{"position": {"nodes": ["s_inhibition"], "at": "END"}}],
        description="For each variable that claims are about, the components that carry it; `explore --variable` "
        "finds some.",
    )
    pairs: Annotated[dict[FamilyName, PairFamily], Field(min_length=1)] = Field(
        examples=[{"other_names": {"redraw": ["first", "second"]}}],
        description="Families of pairs: a base, which is each of the task's prompts, and a source. Several are better "
        "than one, in which what carries the variable may be taken for something else.",
    )
