"""A model of GPT-2's shape in random weights, and random prompts for it: only the arithmetic is timed."""

from __future__ import annotations

import numpy as np
from transformers import GPT2Config, GPT2LMHeadModel

from circuitspec.models.families.family_table import architecture_of
from circuitspec.models.load import LoadedModel, Provenance
from circuitspec.models.model_config import shape_of
from circuitspec.prompts.prompt_set import Prompt, PromptSet, TokenizedTask

PROMPTS, TOKENS = 8, 16
ANSWER, WRONG = 1, 2


def random_model(**sizes: int) -> LoadedModel:
    """GPT-2 small's, unless sizes say otherwise; float32."""
    config = GPT2Config(**sizes)
    model = GPT2LMHeadModel(config).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    facts = config.to_dict()
    provenance = Provenance("random", None, "float32", "gpt2", "random", 0, None)
    return LoadedModel(model, None, architecture_of(facts), shape_of(facts), provenance)


def random_task(prompts: int, tokens: int, vocabulary: int) -> TokenizedTask:
    """Random prompts with a role for each position, `P0` to the last, and `S2` in the middle, `END` at the last."""
    rng = np.random.default_rng(0)
    clean, corrupt = (
        tuple(tuple(row) for row in rng.integers(0, vocabulary, (prompts, tokens)).tolist()) for _ in range(2)
    )
    texts = tuple(Prompt(i, 0, {"clean": "", "abc": ""}, (), ()) for i in range(prompts))
    roles = {f"P{position}": (position,) * prompts for position in range(tokens)}
    roles |= {"S2": (tokens // 2,) * prompts, "END": (tokens - 1,) * prompts}
    ids = {"clean": clean, "abc": corrupt}
    return TokenizedTask(PromptSet(texts, ("abc",), ("",)), ids, roles, ((ANSWER,),) * prompts, ((WRONG,),) * prompts)
