"""Random models and tasks for engine tests, in the engine's own types and in the oracle's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from circuitspec.engine.runner import Runner
from circuitspec.graph.circuit import NodeComponent
from circuitspec.models.architecture import architecture_of
from circuitspec.models.load import LoadedModel, Provenance
from circuitspec.models.shapes import shape_of
from circuitspec.spec.components import Head
from circuitspec.tasks.prompts import Prompt, PromptSet, TokenizedTask
from tests.oracle import node


class Silent:
    """Progress that counts what it is told."""

    def __init__(self) -> None:
        self.expected = 0
        self.done = 0

    def expect(self, prompts: int) -> None:
        self.expected += prompts

    def advance(self, prompts: int) -> None:
        self.done += prompts


def loaded(model: Any) -> LoadedModel:
    config = model.config.to_dict()
    shape = shape_of(config)
    provenance = Provenance("random", None, "float64", shape.family, "random", 0, Path())
    return LoadedModel(model, None, architecture_of(config), shape, provenance)  # type: ignore[arg-type]


def runner(model: Any, task: TokenizedTask, rows: int = 4, side: Any = "right") -> Runner:
    return Runner(loaded(model), task, rows=rows, progress=Silent(), side=side)


def random_prompts(seed: int, lengths: list[int], vocab: int = 60, templates: int = 1) -> list[node.Prompt]:
    """Prompts with random tokens, two named positions that differ from prompt to prompt, and two answers each."""
    rng = np.random.default_rng(seed)
    prompts = []
    for i, length in enumerate(lengths):
        clean, corrupt = (rng.integers(0, vocab, length).tolist() for _ in range(2))
        answers = rng.choice(vocab, 4, replace=False).tolist()
        roles = {"A": int(rng.integers(0, length)), "B": int(rng.integers(0, length)), "END": length - 1}
        prompts.append(node.Prompt(clean, corrupt, i % templates, answers[:2], answers[2:], roles))
    return prompts


def task_of(prompts: list[node.Prompt]) -> TokenizedTask:
    """The oracle's prompts as the engine takes them."""
    texts = tuple(
        Prompt(i, p.template, {"clean": f"prompt {i}", "abc": f"corrupt {i}"}, (), ()) for i, p in enumerate(prompts)
    )
    labels = tuple(f"template {t}" for t in range(max(p.template for p in prompts) + 1))
    return TokenizedTask(
        PromptSet(texts, ("abc",), labels),
        {"clean": tuple(tuple(p.clean) for p in prompts), "abc": tuple(tuple(p.corrupt) for p in prompts)},
        {role: tuple(p.roles[role] for p in prompts) for role in prompts[0].roles},
        tuple(tuple(p.answers) for p in prompts),
        tuple(tuple(p.wrong) for p in prompts),
    )


def oracle_component(component: NodeComponent) -> tuple[Any, ...]:
    return ("head", component.layer, component.head) if isinstance(component, Head) else ("mlp", component.layer)
