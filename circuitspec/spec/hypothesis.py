"""The hypothesis file as frozen values: what each block may say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MetricName = Literal["logit_diff", "logit", "logprob", "prob", "prob_diff", "accuracy", "rank", "kl"]
AblationValue = Literal["resample", "mean", "mean_per_template", "zero", "gaussian"]


class Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class ModelSpec(Block):
    """Which model, pinned."""

    id: str
    revision: str | None = None
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    allow_pickle: bool = False  # pickled weights are read only on this explicit request


class Above(Block):
    """Answers by number: entries of a list above (or at most) a slot's value."""

    source: str = Field(alias="from")
    above: str | None = None
    at_most: str | None = None


class AnswerOf(Block):
    """The wrong answer is the answer that the named corruption's prompt asks for."""

    answer_of: str


class RepeatedTokens(Block):
    length: int = Field(gt=1)


class Generate(Block):
    repeated_tokens: RepeatedTokens | None = None


class Checks(Block):
    accuracy: float | None = Field(default=None, ge=0, le=1)


class TaskSpec(Block):
    """Prompts, their corruptions and answers: from templates, from a file, or generated."""

    templates: tuple[str, ...] = ()
    slots: dict[str, str] = {}
    lists: dict[str, object] = {}  # file name | list of strings | table
    answer: str | tuple[str, ...] | Above | None = None
    wrong: str | tuple[str, ...] | Above | AnswerOf | None = None
    corruptions: dict[str, dict[str, str]] = {}
    positions: dict[str, str | int] = {}
    prompts: int = Field(default=100, gt=0)
    seed: int = 0
    file: str | None = None
    generate: Generate | None = None
    checks: Checks = Checks()


class Group(Block):
    """Components that play one role, at one or several positions (none named: everywhere)."""

    nodes: tuple[str, ...]
    at: str | tuple[str, ...] | None = None
    effect: Literal["positive", "negative", "backup"] = "positive"
    description: str | None = None


class CircuitSpec(Block):
    groups: dict[str, Group]
    free: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


class AblationSpec(Block):
    """How everything outside the circuit is ablated."""

    value: AblationValue
    source: str | None = Field(default=None, alias="from")
    level: Literal["node", "edge", "path"] = "node"
    positions: Literal["declared", "all"] = "declared"


class Sufficient(Block):
    kind: Literal["sufficient"] = "sufficient"
    metric: MetricName
    at_least: float | None = None
    at_most: float | None = None


class Necessary(Block):
    kind: Literal["necessary"] = "necessary"
    metric: MetricName
    at_least: float | None = None
    at_most: float | None = None


class CrossSection(Block):
    kind: Literal["cross_section"] = "cross_section"
    nodes: tuple[str, ...]  # groups or components
    metric: MetricName
    at_least: float | None = None
    at_most: float | None = None


class PathClaim(Block):
    kind: Literal["path"] = "path"
    of: str
    direction: Literal["noising", "denoising"]
    metric: MetricName
    drop_at_least: float | None = None
    drop_at_most: float | None = None


Claim = Annotated[Sufficient | Necessary | CrossSection | PathClaim, Field(discriminator="kind")]


class Hypothesis(Block):
    """A whole `.circuit.yaml`."""

    circuitspec: Literal[1]
    name: str
    source: str | None = None
    description: str | None = None
    model: ModelSpec
    task: TaskSpec
    circuit: CircuitSpec
    ablation: AblationSpec
    claims: tuple[Claim, ...]
