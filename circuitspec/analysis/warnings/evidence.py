"""What evidence warnings are found in, what one is, and what a kind of them is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from circuitspec.analysis.circuit_effects.alternative_circuits import AlternativeCircuit
from circuitspec.analysis.circuit_effects.component_effects import CircuitEffects
from circuitspec.analysis.circuit_effects.model_negatives import ModelNegatives
from circuitspec.analysis.circuit_effects.negative_components import NegativeFinding
from circuitspec.analysis.circuit_effects.path_effects import PathEffect
from circuitspec.analysis.claims.claim_result import ClaimResult
from circuitspec.analysis.claims.means_error import MeansError
from circuitspec.analysis.claims.sequences.sequence_facts import SequenceFacts
from circuitspec.analysis.dictionary_figures import DictionariesUsed
from circuitspec.analysis.task_behaviour import AnswerStanding, Instead
from circuitspec.engine.records import Records
from circuitspec.experiments.planner import Plan
from circuitspec.hypothesis_file.yaml.source import Path_
from circuitspec.models.in_memory.foreign_hooks import Foreign
from circuitspec.prompts.pairs.pair_set import PairSet
from circuitspec.prompts.prompt_set import PromptSet, TokenizedTask

CLAIMS: Path_ = ("claims",)


@dataclass(frozen=True)
class EvidenceWarning:
    """A finding about the evidence: it stands whatever the verdict is.

    `detail` is a second line with the numbers, `help` what to do; `data` holds the numbers themselves. `place` is the
    part of the file that the remedy changes, if it is not about one claim alone, whose index then is `data["claim"]`.
    """

    code: str
    message: str
    detail: str = ""
    help: str = ""
    data: Mapping[str, object] = field(default_factory=dict, hash=False)
    place: Path_ = CLAIMS


@dataclass(frozen=True)
class Evidence:
    """Everything that a run gives to judge its evidence by.

    `claims` are those that `verdict.judge` made of the same plan and records, so that the claimed metrics are known to
    be finite. What was not looked for is None or empty, and then nothing is said of it. Raises ValueError where
    `prompts` are not those that the records are over.
    """

    plan: Plan
    records: Records
    claims: Sequence[ClaimResult]
    prompts: PromptSet | None = None  # the texts behind the records
    task: TokenizedTask | None = None  # with the prompts that means are over
    variables: frozenset[str] = frozenset()  # slots that the circuit is about (`variables.circuit_variables`)
    by_name: Mapping[str, str] = field(default_factory=dict)  # slots that have declared positions as other names
    kept: Collection[str] = ()  # of these, slots that the ablation's corruption leaves as they are
    negatives: NegativeFinding | None = None
    in_model: ModelNegatives | None = None
    paths: Sequence[PathEffect] = ()
    unfed: Sequence[str] = ()  # components of the circuit into which no edge is kept
    effects: CircuitEffects | None = None
    means_error: MeansError | None = None
    asked: int | None = None  # how many other prompts for means the file asks for
    shares: Sequence[NDArray[np.float64]] | None = None  # each answer's, by prompt; None where no prompt has several
    standing: AnswerStanding | None = None  # how the right answers stand in the clean run
    instead: Instead | None = None  # what the model says where it hardly says them
    foreign: Foreign = field(default_factory=Foreign)  # what a model in memory has beyond its weights
    own_metrics: Sequence[str] = ()  # names of metrics of the caller's own, which no file defines
    pairs: PairSet | None = None  # of the abstraction
    learned_on: Mapping[str, frozenset[str]] = field(default_factory=dict)  # words, by variables with learned subspaces
    dictionaries: DictionariesUsed | None = None  # whose features the circuit names
    alternatives: Sequence[AlternativeCircuit] = ()  # what was found of circuits that do as well
    sequence: SequenceFacts | None = None  # how prompts were drawn until claims were decided
    other_tokens: str | None = None  # how the tokenizer differs from the one of the model's files, in words

    def __post_init__(self) -> None:
        if self.prompts is not None and len(self.prompts.prompts) != self.records.n_prompts:
            raise ValueError(f"{len(self.prompts.prompts)} prompts, but records over {self.records.n_prompts}")


@dataclass(frozen=True)
class WarningKind:
    """All there is to one warning: its code, the part of the file that its remedy changes, what `circuitspec explain`
    says, and the function that finds it, which gives nothing for evidence that it has no quarrel with.
    """

    code: str
    place: Path_
    title: str
    explanation: str
    find: Callable[[Evidence], Iterable[EvidenceWarning]]
