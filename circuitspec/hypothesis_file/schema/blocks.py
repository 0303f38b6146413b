"""The hypothesis file as frozen values: what each block may say.

Names inside are kept as text in their canonical spelling; `names`, `positions` and `fields` parse them.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from circuitspec.hypothesis_file.grammar import texts
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS, phrases
from circuitspec.hypothesis_file.schema.abstraction.abstraction_block import AbstractionSpec
from circuitspec.hypothesis_file.schema.block import (
    Block,
    Count,
    Flag,
    Positive,
    Seed,
    Share,
    Text,
    Through,
    form_of,
    one_form_of,
)
from circuitspec.hypothesis_file.schema.carries_block import Carries, Extent
from circuitspec.hypothesis_file.schema.chat_block import Chat
from circuitspec.hypothesis_file.schema.claims.written_claim import Claim
from circuitspec.hypothesis_file.schema.dictionary_block import DictionarySpec
from circuitspec.hypothesis_file.schema.position_blocks import Position
from circuitspec.hypothesis_file.schema.prompts_block import ColumnNames, Columns, LayoutName, Skip

FormatVersion: TypeAlias = Annotated[Literal[1], BeforeValidator(texts.check_version)]


def _wrong_form(value: object) -> str | None:
    written = form_of(value)
    if written == "<mapping>":
        by_number = isinstance(value, Above) or (
            isinstance(value, dict) and {"from", "above", "at_most"} & value.keys()
        )
        return written if by_number else "<answer_of>"
    return written


def _entry_form(value: object) -> str | None:
    return "<mapping>" if isinstance(value, dict) else "<text>"


class RopeScaling(Block):
    """Rotary positions other than those of the checkpoint, for longer texts."""

    type: Literal["linear", "dynamic", "yarn"] = Field(
        examples=["linear"], description="How they are scaled, as transformers calls it (`rope_type`)."
    )
    factor: float = Field(gt=0, le=1_000, allow_inf_nan=False, examples=[2.0], description="By how much.")
    original_positions: int | None = Field(
        default=None,
        strict=True,
        gt=0,
        le=1_000_000_000,
        examples=[4096],
        description="For how many positions the model was trained (`original_max_position_embeddings`).",
    )

    def __str__(self) -> str:
        trained = "" if self.original_positions is None else f" of {self.original_positions} positions"
        return f"rotary positions scaled: {self.type}, factor {self.factor:g}{trained}"


class ModelSpec(Block):
    """Which model, pinned."""

    ADDED = ("size", "adapter", "attention", "rope_scaling")

    id: Text = Field(
        examples=["zoo:ioi-tiny", "openai-community/gpt2"],
        description="A Hugging Face model id, a local directory, zoo:NAME (a model shipped with circuitspec), "
        "or package:MODULE/FILE.gguf (a GGUF file inside an installed Python package).",
    )
    revision: Text | None = Field(default=None, description="Commit hash on the hub; pins the weights.")
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = Field(
        default="float32", description="Number format the model runs in."
    )
    allow_pickle: Flag = Field(
        default=False, description="Read pickled weights, which can run code. Only for files that you trust."
    )
    size: texts.ModelSizeText | None = Field(
        default=None,
        examples=["12x12x768", "16x8x512-parallel"],
        description="LAYERSxHEADS or LAYERSxHEADSxCHANNELS, `-parallel` behind it for parallel blocks: what `export` "
        "needs while the model is not on this machine. `import` writes it. A model of another size is refused.",
    )
    adapter: Text | None = Field(
        default=None,
        examples=["./lora"],
        description="A directory with a LoRA adapter as peft saves it: it is merged into the weights as they are "
        "loaded, and named in reports.",
    )
    attention: Literal["eager", "sdpa"] | None = Field(
        default=None,
        description="Which implementation computes attention, by the names of transformers. Left out, it is the one "
        "that transformers takes for the model.",
    )
    rope_scaling: RopeScaling | None = Field(
        default=None,
        examples=[{"type": "linear", "factor": 2.0}],
        description="Rotary positions other than those of the checkpoint.",
    )


class Above(Block):
    """Answers by number: the entries of a list above one slot's value, or at most another's."""

    source: texts.ListReference = Field(
        alias="from", examples=["$years"], description="The list of numbers: $list, or $table.column."
    )
    above: texts.FieldReference | None = Field(
        default=None, description="A slot (or SLOT.column): only entries above its number count."
    )
    at_most: texts.FieldReference | None = Field(
        default=None, description="A slot (or SLOT.column): only entries up to its number count."
    )

    @model_validator(mode="after")
    def _compares(self) -> Above:
        if self.above is None and self.at_most is None:
            raise texts.problem("CS148", "neither `above` nor `at_most` is given", hint="write above: SLOT")
        return self


class AnswerOf(Block):
    """The wrong answer is the answer that the named corruption's prompt asks for."""

    answer_of: str = Field(examples=["swap"], description="The corruption whose answer it is.")


class RepeatedTokens(Block):
    """Random tokens, then the same tokens again: prompts for induction."""

    length: int = Field(
        strict=True, gt=1, le=100_000, examples=[24], description="Tokens before the repetition starts."
    )


class Generate(Block):
    """Prompts made by a registered generator; name exactly one."""

    repeated_tokens: RepeatedTokens | None = Field(
        default=None, description="Random tokens, then the same tokens again: prompts for induction."
    )


class Checks(Block):
    """What must be true of the unpatched model before anything is verified."""

    accuracy: Share | None = Field(
        default=None, description="Share of prompts on which the model must prefer a right answer to the wrong ones."
    )


Answer: TypeAlias = Annotated[
    Annotated[texts.Template, Tag("<text>")]
    | Annotated[tuple[texts.Template, ...], Tag("<list>"), Field(min_length=1)]
    | Annotated[Above, Tag("<mapping>")],
    one_form_of(form_of, "a text, a list of texts, or {from: $list, above: SLOT}"),
]
Wrong: TypeAlias = Annotated[
    Annotated[texts.Template, Tag("<text>")]
    | Annotated[tuple[texts.Template, ...], Tag("<list>"), Field(min_length=1)]
    | Annotated[Above, Tag("<mapping>")]
    | Annotated[AnswerOf, Tag("<answer_of>")],
    one_form_of(_wrong_form, "a text, a list of texts, {from: $list, at_most: SLOT}, or {answer_of: CORRUPTION}"),
]
ListEntry: TypeAlias = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[dict[str, Text], Tag("<mapping>"), Field(min_length=1)],
    Discriminator(_entry_form),
]
WordList: TypeAlias = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[tuple[ListEntry, ...], Tag("<list>")]
    | Annotated[dict[str, tuple[Text, ...]], Tag("<mapping>"), Field(min_length=1)],
    one_form_of(form_of, "a file name (.txt or .csv), a list of texts, or a table"),
]
At: TypeAlias = Annotated[
    Annotated[texts.PositionName, Tag("<text>")]
    | Annotated[tuple[texts.PositionName, ...], Tag("<list>"), Field(min_length=1)],
    one_form_of(form_of, "the name of a position, or a list of them"),
]


class TaskSpec(Block):
    """Prompts, their corruptions and answers: from templates, from a file, or generated."""

    ADDED = ("columns", "layout", "skip", "by", "chat", "score", "fillings", "special_tokens")

    templates: tuple[texts.Template, ...] = Field(
        default=(), description='Sentences with slots, such as "Then, {IO} and {S1} went home. {S2} gave a ring to".'
    )
    slots: dict[texts.SlotName, texts.SlotRule] = Field(
        default={},
        description="What fills each slot: $list draws an entry (slots drawn from one list differ), $table.column a "
        "row of which that column is shown, =X copies slot X, =X.column shows a column of its row.",
    )
    lists: dict[texts.ListName, WordList] = Field(
        default={},
        description="Word lists by name: a .txt or .csv file, a list of texts, or a table (mappings, or columns).",
    )
    answer: Answer | None = Field(
        default=None, description="The right continuation: a text with slots, a list of them, or entries by number."
    )
    wrong: Wrong | None = Field(
        default=None,
        description="The continuation that the right one is compared with: as `answer`, or {answer_of: CORRUPTION}.",
    )
    score: Literal["first_token", "sum_logprob"] | None = Field(
        default=None,
        description="How an answer of several tokens is scored: sum_logprob (the summed log probability of its tokens, "
        "each after those before it) or first_token (its first token counts alone). Unless given, every answer must be "
        "one token.",
    )
    corruptions: dict[texts.CorruptionName, Annotated[dict[str, texts.SlotRule], Field(min_length=1)]] = Field(
        default={},
        description="For each corruption the slots that change: $list draws afresh, =X takes X's clean value, "
        "=X.column another column of X's row. Slots not named keep their clean value.",
    )
    positions: dict[texts.PositionName, Position] = Field(
        default={},
        description="Token positions by name: S1 + 1, S#2, last, a token index (BOS is not counted) or a list of them, "
        "{slot: S1, tokens: all}, {text: gave}. Every slot is a position already: its last token.",
    )
    fillings: Text | None = Field(
        default=None,
        examples=["pairs.csv"],
        description="Templates only: a file that says what the slots hold in each prompt, in columns SLOT (or "
        "base.SLOT, of a file of pairs), instead of drawing them; relative to this file, read as prompts files are.",
    )
    prompts: Count = Field(default=100, description="How many prompts to make (or to read from the file).")
    seed: int = Field(default=0, strict=True, ge=0, description="Seed of the drawing.")
    file: Text | None = Field(
        default=None,
        description="Prompts from a file instead of templates, relative to this file: .jsonl, .json, .csv, .tsv, "
        ".parquet, or the folder of a Hugging Face data set.",
    )
    columns: Columns | None = Field(
        default=None, description="Prompts from a file only: which of its columns is what. Others are kept for `by`."
    )
    layout: LayoutName | None = Field(
        default=None,
        examples=["eap_ig"],
        description="Prompts from a file only: the layout in which others have written it, where its columns do not "
        "tell.",
    )
    skip: tuple[Skip, ...] = Field(
        default=(),
        examples=[["repeats", "misaligned"]],
        description="Prompts from a file only: rows that are left out and counted, instead of refusing the file. "
        "repeats: the prompt of an earlier row; misaligned: clean and corrupted prompt differ in their tokens, or a "
        "position is missing; split_answers: an answer is not one token; unfit: no prompt can be made of the row.",
    )
    by: ColumnNames | None = Field(
        default=None,
        examples=["UID"],
        description="Prompts from a file only: the column (or columns) by whose values figures are broken down.",
    )
    generate: Generate | None = Field(default=None, description="Prompts from a generator instead of templates.")
    checks: Checks = Field(default=Checks(), description="What the unpatched model must be able to do.")
    special_tokens: Literal["auto", "none", "bos"] = Field(
        default="auto",
        description="Special tokens around each prompt: what the tokenizer adds by itself (auto), none, or a BOS token "
        "in front and nothing else (bos).",
    )
    chat: Chat | None = Field(
        default=None, description="Put each prompt into a conversation, by the tokenizer's own chat template."
    )

    @property
    def by_columns(self) -> tuple[str, ...]:
        """The columns by whose values figures are broken down."""
        return (self.by,) if isinstance(self.by, str) else self.by or ()


class Group(Block):
    """Components that play one role, at one or several positions (none named: everywhere)."""

    nodes: tuple[texts.Node, ...] = Field(
        min_length=1,
        examples=[["a9.h6", "a9.h9"]],
        description="Components: a9.h6 (head), a9 (all heads of a layer), m3 (MLP), m1.n42 (neuron), sae:NAME.f7 "
        "(feature of a dictionary), ...",
    )
    at: At | None = Field(default=None, description="Position or positions at which the role is played.")
    effect: Literal["positive", "negative", "backup"] = Field(
        default="positive", description="Whether the role helps, hurts, or takes over when others fail."
    )
    description: str | None = Field(default=None, description="What the role is, for readers.")


class CircuitSpec(Block):
    """The components claimed to be the circuit, and the paths between them."""

    ADDED = ("carries", "unnamed")

    groups: Annotated[dict[texts.GroupName, Group], Field(min_length=1)] = Field(
        examples=[{"name_mover": {"nodes": ["a9.h6", "a9.h9"], "at": "END"}}], description="Roles by name."
    )
    free: tuple[texts.FreeNode, ...] = Field(
        default=(), description="Components outside the claim: never ablated, always recomputed. m* is every MLP."
    )
    paths: tuple[texts.PathText, ...] = Field(
        default=(), description="Paths between groups or components: A, B -> C<q> -> logits."
    )
    carries: Carries | None = Field(
        default=None,
        examples=[{"previous_token": ["S1"], "input@S2 -> induction<q>": ["S2"]}],
        description="What values along the paths may depend on, for `scrubbed` claims: slots and variables, "
        "everything, or nothing. By a group or component, whose value it then is on all paths, or by the beginning of "
        "a path from it on (A -> B<q>); of several that fit, the longest counts.",
    )
    unnamed: Extent | None = Field(
        default=None,
        description="What values along the paths carry that no entry of `carries` is about (everything, unless given).",
    )


class ReferenceFile(Block):
    """Other prompts, from a file of the same form."""

    file: Text = Field(
        examples=["more.jsonl"], description="A .jsonl, .csv or .json file of prompts, relative to this file."
    )


def _of_prompts(value: object) -> object:
    if value != "prompts":
        hint = "write a number of prompts, prompts (those that are scored), or {file: more.jsonl}"
        raise texts.problem("CS169", f"there are no prompts called {value}", hint=hint)
    return value


Reference: TypeAlias = Annotated[
    Annotated[Count, Tag("<index>")]
    | Annotated[Literal["prompts"], BeforeValidator(_of_prompts), Tag("<text>")]
    | Annotated[ReferenceFile, Tag("<mapping>")],
    one_form_of(form_of, "a number of prompts, prompts (those that are scored), or {file: more.jsonl}"),
]


class AblationChoices:
    """The names of the rows as an enumeration: read when a schema is made or a file is checked."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(ABLATIONS)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"enum": [*self.names], "type": "string"}


def _ablation_value(value: object) -> object:
    if not isinstance(value, str) or value not in ABLATIONS:
        choices = list(ABLATIONS)
        raise PydanticCustomError("literal_error", "one of {choices}", {"choices": choices})
    return value


AblationValue: TypeAlias = Annotated[str, BeforeValidator(_ablation_value), AblationChoices()]


class AblationSpec(Block):
    """How everything outside the circuit is ablated."""

    ADDED = ("reference", "routing")

    value: AblationValue = Field(description=f"What replaces an ablated activation: {phrases()}.")
    source: str | None = Field(
        default=None,
        alias="from",
        description="The corruption whose prompts give the replacing activations; not needed where there is one only.",
    )
    reference: Reference | None = Field(
        default=None,
        examples=[2000, "prompts"],
        description="Means only: the prompts that they are over. A number of other prompts, drawn by the same rules "
        "(unless given as many as it takes, where prompts are drawn); prompts, those that are scored (unless given, "
        "where they come from a file); or {file: more.jsonl}.",
    )
    level: Literal["node", "edge", "path"] = Field(default="node", description="What is cut: components, edges, paths.")
    through: Through | None = Field(
        default=None,
        examples=[["mlp"]],
        description="Level path only: what effects may pass through between the hops of a path: MLPs, which are then "
        "recomputed ([mlp], unless given), or nothing but the residual stream ([]).",
    )
    positions: Literal["declared", "all"] = Field(
        default="declared",
        description="Whether a component of the circuit is kept at its declared positions only, or at all. Positions "
        "of groups are meant: those written in a path or a claim (a5.h5@S2) hold under all too.",
    )
    std: Positive | None = Field(
        default=None,
        examples=[3.0],
        description="Gaussian noise only: its standard deviation, in units of that of the token embeddings (3 unless "
        "given).",
    )
    at: At | None = Field(
        default=None,
        description="Gaussian noise only: where it is added. A slot stands for all tokens of all its occurrences, "
        "another position for its one.",
    )
    draws: Count | None = Field(
        default=None, description="Gaussian noise only: how many draws metrics are averaged over (10 unless given)."
    )
    seed: Seed | None = Field(default=None, description="Gaussian noise only: seed of the draws (0 unless given).")
    routing: Literal["free", "frozen"] = Field(
        default="free",
        description="Of MLPs with experts, at level node: whether routers choose anew in a patched run (free), or the "
        "experts of each token are those of the run that is patched (frozen).",
    )


class Subject(Block):
    """What every file says first: which model, and which task it does."""

    circuitspec: FormatVersion = Field(examples=[1], description="Version of this file format: 1.")
    name: Text = Field(examples=["ioi-gpt2-small"], description="What the hypothesis is called in reports.")
    source: str | None = Field(default=None, description="Where it comes from, such as a paper.")
    description: str | None = Field(default=None, description="What it says, for readers.")
    model: ModelSpec = Field(examples=[{"id": "zoo:ioi-tiny"}], description="Which model, pinned.")
    task: TaskSpec = Field(examples=[{"file": "prompts.jsonl"}], description="Prompts, their corruptions and answers.")


class Hypothesis(Subject):
    """A circuit hypothesis: what the circuit is, and what must then be true."""

    ADDED = ("dictionaries", "abstraction")

    dictionaries: dict[texts.DictionaryName, DictionarySpec] = Field(
        default={},
        examples=[{"res8": {"at": "r8", "from": "./saes/res8"}}],
        description="Dictionaries of features (sparse autoencoders, transcoders) by name: nodes of the circuit are "
        "then sae:NAME.f12, sae:NAME.f[3,10-20], sae:NAME.f* (all features) and sae:NAME.error (what features leave "
        "over).",
    )
    circuit: CircuitSpec = Field(
        examples=[{"groups": {"name_mover": {"nodes": ["a9.h6"]}}}],
        description="The components claimed to be the circuit.",
    )
    ablation: AblationSpec = Field(
        examples=[{"value": "mean_per_template", "from": "abc"}],
        description="How everything outside the circuit is ablated.",
    )
    abstraction: AbstractionSpec | None = Field(
        default=None, description="What the parts of the circuit carry: a high-level model, for `interchange` claims."
    )
    claims: tuple[Claim, ...] = Field(
        min_length=1,
        examples=[[{"sufficient": {"metric": "logit_diff", "at_least": 0.8}}]],
        description="What must be true.",
    )


class Exploration(Subject):
    """A file to explore: as a hypothesis, but that nothing has to be claimed yet."""

    dictionaries: dict[texts.DictionaryName, DictionarySpec] = Field(default={})
    circuit: CircuitSpec | None = None
    ablation: AblationSpec | None = None
    abstraction: AbstractionSpec | None = None
    claims: tuple[Claim, ...] = ()
