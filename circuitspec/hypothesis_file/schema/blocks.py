"""The hypothesis file as frozen values: what each block may say.

Names inside are kept as text in their canonical spelling; `names`, `positions` and `fields` parse them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from circuitspec.hypothesis_file.grammar import texts
from circuitspec.hypothesis_file.schema.block import Block, Bound, Count, Flag, MetricName, Positive, Seed, Share, Text
from circuitspec.hypothesis_file.schema.tested_claims import BeatsRandom, Complete, Minimal

GateName = Literal["and", "or", "additive"]
AblationValue = Literal["resample", "mean", "mean_per_template", "zero", "gaussian"]
Through = tuple[Literal["mlp"], ...]

FormatVersion: TypeAlias = Annotated[Literal[1], BeforeValidator(texts.check_version)]


def _form(value: object) -> str | None:
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


def _wrong_form(value: object) -> str | None:
    form = _form(value)
    if form == "<mapping>":
        by_number = isinstance(value, Above) or (
            isinstance(value, dict) and {"from", "above", "at_most"} & value.keys()
        )
        return form if by_number else "<answer_of>"
    return form


def _entry_form(value: object) -> str | None:
    return "<mapping>" if isinstance(value, dict) else "<text>"


def _choice(discriminate: Callable[[Any], str | None], wanted: str) -> Discriminator:
    return Discriminator(discriminate, custom_error_type="wrong_form", custom_error_message=wanted)


class ModelSpec(Block):
    """Which model, pinned."""

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

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `size` where it is not given: the digest of a file does not change with what it does not say."""
        content: dict[str, Any] = handler(self)
        if self.size is None:
            content.pop("size", None)
        return content


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
    _choice(_form, "a text, a list of texts, or {from: $list, above: SLOT}"),
]
Wrong: TypeAlias = Annotated[
    Annotated[texts.Template, Tag("<text>")]
    | Annotated[tuple[texts.Template, ...], Tag("<list>"), Field(min_length=1)]
    | Annotated[Above, Tag("<mapping>")]
    | Annotated[AnswerOf, Tag("<answer_of>")],
    _choice(_wrong_form, "a text, a list of texts, {from: $list, at_most: SLOT}, or {answer_of: CORRUPTION}"),
]
ListEntry: TypeAlias = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[dict[str, Text], Tag("<mapping>"), Field(min_length=1)],
    Discriminator(_entry_form),
]
WordList: TypeAlias = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[tuple[ListEntry, ...], Tag("<list>")]
    | Annotated[dict[str, tuple[Text, ...]], Tag("<mapping>"), Field(min_length=1)],
    _choice(_form, "a file name (.txt or .csv), a list of texts, or a table"),
]
Position: TypeAlias = Annotated[
    Annotated[texts.PositionText, Tag("<text>")] | Annotated[texts.TokenIndex, Tag("<index>")],
    _choice(_form, "a position such as S1 + 1 or last, or a token index"),
]
At: TypeAlias = Annotated[
    Annotated[texts.PositionName, Tag("<text>")]
    | Annotated[tuple[texts.PositionName, ...], Tag("<list>"), Field(min_length=1)],
    _choice(_form, "the name of a position, or a list of them"),
]


ChoiceName = Literal["level", "ablation", "corruption", "positions", "direction"]
RobustTo: TypeAlias = Annotated[
    Annotated[tuple[ChoiceName, ...], Tag("<list>")]
    | Annotated[dict[ChoiceName, Annotated[tuple[Text, ...], Field(min_length=1)]], Tag("<mapping>")],
    _choice(_form, "a list of choices such as [ablation, corruption], or their values: {ablation: [mean, zero]}"),
]
_METHODS: dict[str, tuple[str, ...]] = {
    "level": ("node", "edge", "path"),
    "ablation": ("resample", "mean", "mean_per_template", "zero"),
    "positions": ("declared", "all"),
    "direction": ("noising", "denoising"),
}


class TaskSpec(Block):
    """Prompts, their corruptions and answers: from templates, from a file, or generated."""

    templates: tuple[texts.Template, ...] = Field(
        default=(), description='Sentences with slots, such as "Then, {IO} and {S1} went home. {S2} gave a ring to".'
    )
    slots: dict[texts.SlotName, texts.SlotRule] = Field(
        default={},
        description="What fills each slot: $list draws an entry (slots drawn from one list differ), =X copies slot X.",
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
    corruptions: dict[texts.CorruptionName, Annotated[dict[str, texts.SlotRule], Field(min_length=1)]] = Field(
        default={},
        description="For each corruption the slots that change: $list draws afresh, =X takes X's clean value. "
        "Slots not named keep their clean value.",
    )
    positions: dict[texts.PositionName, Position] = Field(
        default={},
        description="Token positions by name: S1 + 1, S#2, last, or a token index (BOS is not counted). Every slot is "
        "a position already.",
    )
    prompts: Count = Field(default=100, description="How many prompts to make (or to read from the file).")
    seed: int = Field(default=0, strict=True, ge=0, description="Seed of the drawing.")
    file: Text | None = Field(
        default=None,
        description="Prompts from a .jsonl, .csv or .json file instead of templates, relative to this file.",
    )
    generate: Generate | None = Field(default=None, description="Prompts from a generator instead of templates.")
    checks: Checks = Field(default=Checks(), description="What the unpatched model must be able to do.")


class Group(Block):
    """Components that play one role, at one or several positions (none named: everywhere)."""

    nodes: tuple[texts.Node, ...] = Field(
        min_length=1,
        examples=[["a9.h6", "a9.h9"]],
        description="Components: a9.h6 (head), a9 (all heads of a layer), m3 (MLP), m1.n42 (neuron), ...",
    )
    at: At | None = Field(default=None, description="Position or positions at which the role is played.")
    effect: Literal["positive", "negative", "backup"] = Field(
        default="positive", description="Whether the role helps, hurts, or takes over when others fail."
    )
    description: str | None = Field(default=None, description="What the role is, for readers.")


class CircuitSpec(Block):
    """The components claimed to be the circuit, and the paths between them."""

    groups: Annotated[dict[texts.GroupName, Group], Field(min_length=1)] = Field(
        examples=[{"name_mover": {"nodes": ["a9.h6", "a9.h9"], "at": "END"}}], description="Roles by name."
    )
    free: tuple[texts.FreeNode, ...] = Field(
        default=(), description="Components outside the claim: never ablated, always recomputed. m* is every MLP."
    )
    paths: tuple[texts.PathText, ...] = Field(
        default=(), description="Paths between groups or components: A, B -> C<q> -> logits."
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
    _choice(_form, "a number of prompts, prompts (those that are scored), or {file: more.jsonl}"),
]


class AblationSpec(Block):
    """How everything outside the circuit is ablated."""

    value: AblationValue = Field(
        description="What replaces an ablated activation: that of the corrupted prompt (resample), its mean over "
        "prompts (of one template), zero, or noise."
    )
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

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `reference` where it is not given: the digest of a file does not change with what it does not say."""
        content: dict[str, Any] = handler(self)
        if self.reference is None:
            content.pop("reference", None)
        return content


class _Bounded(Block):
    """A score with a lower bound, an upper bound, or both."""

    metric: MetricName = Field(examples=["logit_diff"], description="The score.")
    at_least: Bound | None = Field(
        default=None, description="Recovered performance is at least this (1 is the whole model)."
    )
    at_most: Bound | None = Field(
        default=None, description="Recovered performance is at most this (1 is the whole model)."
    )

    @model_validator(mode="after")
    def _bounds(self) -> _Bounded:
        texts.check_bounds(at_least=self.at_least, at_most=self.at_most)
        return self


class _OfCircuit(_Bounded):
    """A claim about the whole circuit, which may have to hold under other methods too."""

    robust_to: RobustTo | None = Field(
        default=None,
        examples=[["ablation", "corruption"]],
        description="Choices of method under all values (and combinations) of which the claim holds: level, ablation, "
        "corruption, positions, direction; or the values themselves: {ablation: [mean, zero]}. Others are as in the "
        "file.",
    )

    @model_validator(mode="after")
    def _known_methods(self) -> _OfCircuit:
        named = [*(self.robust_to or ())]
        if self.robust_to is not None and not named:
            raise texts.problem(
                "CS167", "robust_to names nothing", hint="write [ablation, corruption]", at=("robust_to",)
            )
        for i, choice in enumerate(named):
            if choice in named[:i]:
                raise texts.problem("CS167", f"{choice} is named twice", hint="remove one", at=("robust_to", i))
        if not isinstance(self.robust_to, dict):
            return self
        for choice, values in self.robust_to.items():
            known = _METHODS.get(choice)
            for i, value in enumerate(values):
                if known is not None and value not in known:
                    raise texts.problem(
                        "CS167",
                        f"there is no {choice} {value}",
                        hint=texts.did_you_mean(value, known) or f"write {', '.join(known)}",
                        at=("robust_to", choice, i),
                    )
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `robust_to` where it is not given: the digest of a file does not change with what it does not say."""
        content: dict[str, Any] = handler(self)
        if self.robust_to is None:
            content.pop("robust_to", None)  # not there where only what was given is written out
        return content


class Sufficient(_OfCircuit):
    """The circuit alone does the task: everything else is ablated."""

    kind: Literal["sufficient"] = "sufficient"


class Necessary(_OfCircuit):
    """Without the circuit the task is not done: the circuit is ablated, everything else kept."""

    kind: Literal["necessary"] = "necessary"


class CrossSection(_Bounded):
    """Restoring these components, or these paths, alone in the corrupted run brings the behaviour back."""

    kind: Literal["cross_section"] = "cross_section"
    nodes: tuple[texts.GroupOrNode, ...] | None = Field(
        default=None,
        min_length=1,
        examples=[["name_mover"]],
        description="Groups, at their positions, or components: at those written with them (a9.h6@END), else at all.",
    )
    paths: tuple[texts.PathText, ...] | None = Field(
        default=None,
        min_length=1,
        examples=[["input -> a0.h0<v>"]],
        description="Paths instead: every edge along them is restored, and nothing else (edge level).",
    )

    @model_validator(mode="after")
    def _nodes_or_paths(self) -> CrossSection:
        if (self.nodes is None) == (self.paths is None):
            raise texts.problem(
                "CS158",
                "a cross-section is of nodes or of paths",
                hint="write nodes: [GROUP, ...], or paths: [A -> B, ...]"
                if self.nodes is None
                else "remove one of them",
                key=True,
            )
        return self


class _OfPath(Block):
    """A claim about one path: it is patched as Wang et al. (2022, appendix B) do."""

    of: texts.PathText = Field(examples=["s_inhibition -> name_mover<q>"], description="The path: A -> B<q>.")
    metric: MetricName = Field(examples=["logit_diff"], description="The score.")
    through: Through | None = Field(
        default=None,
        examples=[["mlp"]],
        description="What the effect may pass through between two hops: MLPs, which are then recomputed ([mlp], unless "
        "given here or under `ablation`), or nothing but the residual stream ([]).",
    )


class PathClaim(_OfPath):
    """Breaking a path in the clean run lowers the score, or restoring it in the corrupted run raises it."""

    kind: Literal["path"] = "path"
    direction: Literal["noising", "denoising"] = Field(description="Break the clean run, or restore the corrupted one.")
    drop_at_least: Bound | None = Field(
        default=None, description="Noising: the score falls by at least this share of what the corruption takes away."
    )
    drop_at_most: Bound | None = Field(
        default=None, description="Noising: the score falls by at most this share of what the corruption takes away."
    )
    rise_at_least: Bound | None = Field(
        default=None, description="Denoising: the score rises by at least this share of what the corruption takes away."
    )
    rise_at_most: Bound | None = Field(
        default=None, description="Denoising: the score rises by at most this share of what the corruption takes away."
    )

    @model_validator(mode="after")
    def _bounds(self) -> PathClaim:
        right, wrong = ("drop", "rise") if self.direction == "noising" else ("rise", "drop")
        for end in ("at_least", "at_most"):
            if getattr(self, f"{wrong}_{end}") is not None:
                raise texts.problem(
                    "CS159",
                    f"{self.direction} a path makes the score {'fall' if right == 'drop' else 'rise'}",
                    hint=f"write {right}_{end}",
                    at=(f"{wrong}_{end}",),
                    key=True,
                )
        least, most = f"{right}_at_least", f"{right}_at_most"
        texts.check_bounds(**{least: getattr(self, least), most: getattr(self, most)})
        return self

    @property
    def at_least(self) -> float | None:
        return self.drop_at_least if self.direction == "noising" else self.rise_at_least

    @property
    def at_most(self) -> float | None:
        return self.drop_at_most if self.direction == "noising" else self.rise_at_most


class Mediation(_OfPath):
    """How A reaches C: through B alone (mediation), or directly as well (amplification), in `of: A -> B -> C`.

    The direct share is the effect of patching A -> C, as a share of that of patching A -> C and A -> B -> C together.
    """

    kind: Literal["mediation"] = "mediation"
    direction: Literal["noising", "denoising"] = Field(
        default="noising", description="Break the clean run, or restore the corrupted one."
    )
    direct_at_least: Bound | None = Field(
        default=None, description="The direct share is at least this (amplification: B adds to what A does itself)."
    )
    direct_at_most: Bound | None = Field(
        default=None, description="The direct share is at most this (0.1: A acts through B, and hardly otherwise)."
    )

    @model_validator(mode="after")
    def _bounds(self) -> Mediation:
        texts.check_bounds(direct_at_least=self.direct_at_least, direct_at_most=self.direct_at_most)
        return self

    @property
    def at_least(self) -> float | None:
        return self.direct_at_least

    @property
    def at_most(self) -> float | None:
        return self.direct_at_most


class Gate(Block):
    """How two parts of a circuit work together: the score needs both (and), either (or), or is their sum (additive).

    Each and both are noised in the clean run and denoised in the corrupted one: six runs. What each does alone, added
    up, less what both do together, as a share of the latter, says which gate it is, in either direction.
    """

    kind: Literal["gate"] = "gate"
    nodes: tuple[texts.GroupOrNode, ...] = Field(
        examples=[["first", "second"]],
        description="The two: groups, at their positions, or components, at those written with them, else at all.",
        json_schema_extra={"minItems": 2, "maxItems": 2},
    )
    gate: GateName = Field(
        alias="is",
        description="and: noising either breaks what noising both breaks, and neither alone restores it. or: neither "
        "alone breaks it, and one alone restores it (also for a backup, which acts only where the other fails). "
        "additive: effects add up (the interaction lies within 0.1 of 0 both ways).",
    )
    metric: MetricName = Field(examples=["logit_diff"], description="The score.")

    @model_validator(mode="after")
    def _of_two(self) -> Gate:
        if len(self.nodes) != 2:
            raise texts.problem(
                "CS164",
                f"a gate is of two groups or components, not of {len(self.nodes)}",
                hint="write nodes: [A, B], and a group for what works as one",
                at=("nodes",),
                key=True,
            )
        return self

    @property
    def at_least(self) -> None:
        """Bounds are those of the gate it is said to be (`analysis.gates`)."""
        return None

    @property
    def at_most(self) -> None:
        return None


class Traces(Block):
    """What components react to: the named corruptions, and none of the task's other ones.

    They are noised with the values of one corruption after another. The reaction is the fall of the score, as a share
    of what that corruption takes away; where it takes nothing away, of what `ablation: from:` takes away.
    """

    kind: Literal["traces"] = "traces"
    nodes: tuple[texts.GroupOrNode, ...] = Field(
        min_length=1,
        examples=[["previous_token"]],
        description="Groups or components, noised together, at the positions as for cross_section.",
    )
    to: tuple[str, ...] = Field(
        min_length=1, examples=[["abc"]], description="The corruptions to which they react; to no other."
    )
    metric: MetricName = Field(examples=["logit_diff"], description="The score.")
    reaction_at_least: Share = Field(
        default=0.5, alias="at_least", description="The reaction to each of the named corruptions is at least this."
    )
    others_at_most: Share = Field(
        default=0.1, description="The reaction to every other corruption is at most this, in either direction."
    )

    @model_validator(mode="after")
    def _apart(self) -> Traces:
        if self.others_at_most >= self.reaction_at_least:
            written = "others_at_most" if "others_at_most" in self.model_fields_set else "at_least"
            raise texts.problem(
                "CS122",
                "what counts as a reaction must be more than what counts as none",
                label=f"at_least is {self.reaction_at_least:g}, others_at_most is {self.others_at_most:g}",
                hint="write at_least: 0.5, others_at_most: 0.1",
                at=(written,),
            )
        return self

    @property
    def at_least(self) -> None:
        """Every corruption has bounds of its own."""
        return None

    @property
    def at_most(self) -> None:
        return None


CLAIMS: dict[str, type[Block]] = {
    "sufficient": Sufficient,
    "necessary": Necessary,
    "cross_section": CrossSection,
    "path": PathClaim,
    "mediation": Mediation,
    "gate": Gate,
    "traces": Traces,
    "complete": Complete,
    "minimal": Minimal,
    "beats_random": BeatsRandom,
}


def _claim_from_mapping(value: object) -> object:
    """The written form `{sufficient: {...}}` as the tagged form `{kind: sufficient, ...}`."""
    if not isinstance(value, dict):
        return value
    known = ", ".join(CLAIMS)
    if len(value) != 1:
        named = [key for key in value if key in CLAIMS]
        hint = "write - sufficient: {metric: logit_diff, at_least: 0.8}"
        if named:
            hint = f"start every claim with its own dash, and indent its settings below {named[0]}"
        first = next(iter(value), None)
        raise texts.problem(
            "CS120",
            "a claim is one name with its settings below it",
            hint=hint,
            at=() if first is None else (first,),
            key=True,
        )
    ((name, body),) = value.items()
    if name not in CLAIMS:
        raise texts.problem(
            "CS120",
            f"there is no claim {name}",
            hint=texts.did_you_mean(str(name), CLAIMS) or f"the claims are {known}",
            at=(name,),
            key=True,
        )
    if not isinstance(body, dict):
        raise texts.problem(
            "CS120",
            f"the claim {name} has no settings",
            hint=f"write {name}: {{metric: logit_diff, ...}}, or indent its settings below it",
            at=(name,),
            key=True,
        )
    if "kind" in body:
        raise texts.problem("CS110", f"unknown key kind in the claim {name}", at=(name, "kind"), key=True)
    return {"kind": name, **body}


Claim: TypeAlias = Annotated[
    Annotated[
        Sufficient
        | Necessary
        | CrossSection
        | PathClaim
        | Mediation
        | Gate
        | Traces
        | Complete
        | Minimal
        | BeatsRandom,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_claim_from_mapping),
]


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

    circuit: CircuitSpec = Field(
        examples=[{"groups": {"name_mover": {"nodes": ["a9.h6"]}}}],
        description="The components claimed to be the circuit.",
    )
    ablation: AblationSpec = Field(
        examples=[{"value": "mean_per_template", "from": "abc"}],
        description="How everything outside the circuit is ablated.",
    )
    claims: tuple[Claim, ...] = Field(
        min_length=1,
        examples=[[{"sufficient": {"metric": "logit_diff", "at_least": 0.8}}]],
        description="What must be true.",
    )


class Exploration(Subject):
    """A file to explore: as a hypothesis, but that nothing has to be claimed yet."""

    circuit: CircuitSpec | None = None
    ablation: AblationSpec | None = None
    claims: tuple[Claim, ...] = ()
