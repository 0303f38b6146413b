"""Random models and tasks for engine tests, in the engine's types and the oracle's; any experiment by the oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Noised, Variant, texts_of
from circuitspec.graph.circuit_graph import NodeComponent
from circuitspec.hypothesis_file.grammar.components import (
    AttentionPattern,
    Expert,
    ExpertNeuron,
    Head,
    Input,
    KvHead,
    Mixer,
    Mlp,
    Neuron,
    Resid,
    Routing,
    SharedExpert,
    SharedNeuron,
)
from circuitspec.models.families.family_table import architecture_named, architecture_of
from circuitspec.models.load import LoadedModel, Provenance
from circuitspec.models.model_config import shape_of
from circuitspec.prompts.prompt_set import Prompt, PromptSet, TokenizedTask
from tests.oracle import builders, families, metrics, node, stream_builders

TOLERANCE = 1e-9
FAMILIES = tuple(sorted(builders.BUILDERS))  # a new family: one builder there
WITH_PATTERNS = tuple(  # whose heads are weighted sums of values
    family
    for family, known in ((family, architecture_named(family)) for family in FAMILIES)
    if not known.query_gates and not known.paired_heads
)
WITH_NEURONS = tuple(family for family in FAMILIES if architecture_named(family).mlp_down is not None)


@cache
def model(family: str, seed: int = 3, attention: str = "", **config: Any) -> Any:
    """A random model, shared by all tests that do not change it; with sdpa attention where that computes the family."""
    return (builders.BUILDERS | stream_builders.BUILDERS)[family](
        seed=seed, attn=attention or architecture_named(family).attention or "sdpa", **config
    )


class Silent:
    """Progress that counts what it is told."""

    def __init__(self) -> None:
        self.expected = 0
        self.done = 0

    def expect(self, prompts: int) -> None:
        self.expected += prompts

    def advance(self, prompts: int) -> None:
        self.done += prompts

    def plan(self, experiments: int, stored: int, prompts: int) -> None: ...

    def measured(self, experiments: int) -> None: ...


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


def parts_of_mlp(model: Any, layer: int) -> list[NodeComponent]:
    """Some neurons of an MLP; or its first and last expert, the one for all tokens, and what the router chooses."""
    shape = loaded(model).shape
    if not shape.n_experts:
        return [Neuron(layer, 0), Neuron(layer, shape.d_mlp - 1)]
    if layer in shape.dense_layers:
        return [Neuron(layer, 0), Neuron(layer, shape.d_mlp - 1)]
    shared = [SharedExpert(layer)] if shape.has_shared else []
    of_neurons = [ExpertNeuron(layer, 1, shape.d_expert - 1), ExpertNeuron(layer, 1, 0)]
    of_shared = [SharedNeuron(layer, shape.d_shared - 1)] if shape.has_shared else []
    experts = [Expert(layer, 0), Expert(layer, shape.n_experts - 1)]
    return [*experts, *shared, Routing(layer), *of_neurons, *of_shared]


def wide_windows(family: str) -> dict[str, int]:
    """The numbers of a family's windows that its prompts here fit in."""
    config = model(family).config
    return {name: 16 for name in ("sliding_window", "attention_chunk_size") if getattr(config, name, None)}


def gradual_parts(model: Any, layers: Sequence[int]) -> list[NodeComponent]:
    """One part of an MLP in each of these layers that can be moved a little: not of what routers choose."""
    found = [[part for part in parts_of_mlp(model, layer) if not isinstance(part, Routing)] for layer in layers]
    return [parts[0] for parts in found if parts]


def oracle_component(component: NodeComponent) -> tuple[Any, ...]:
    match component:
        case Head(layer, head):
            return "head", layer, head
        case AttentionPattern(layer, head):
            return "pattern", layer, head
        case Mixer(layer):
            return "mixer", layer
        case Mlp(layer):
            return "mlp", layer
        case Neuron(layer, index):
            return "neuron", layer, index
        case Expert(layer, index):
            return "expert", layer, index
        case SharedExpert(layer):
            return "shared", layer
        case ExpertNeuron(layer, expert, index):
            return "expert_neuron", layer, expert, index
        case SharedNeuron(layer, index):
            return "shared_neuron", layer, index
        case Routing(layer):
            return "routing", layer
        case KvHead(layer, head):
            return "kv", layer, head
        case Resid(layer, mid):
            return "resid", layer, "mid" if mid else "pre"
        case Input():
            return ("input",)
    raise TypeError(component)


NoiseOf = Callable[[Noised, int, int], np.ndarray]
"""(noise, draw, prompt) -> what is added to the prompt's embeddings, `[position, d_model]`."""


def oracle_sites(prompt: node.Prompt, experiment: Experiment) -> set[node.Site]:
    """The experiment's components at their token positions of one prompt."""
    sites = set()
    for site in experiment.sites:
        named = {prompt.roles[role] for role in site.where.roles}
        for position in range(len(prompt.clean)):
            if (position in named) != site.where.inverted:
                sites.add((oracle_component(site.component), position))
    return sites


def oracle_records(
    model: Any, prompts: list[node.Prompt], experiment: Experiment, noise: NoiseOf | None = None
) -> dict[str, np.ndarray]:
    """Every metric of every prompt, by the oracle; the mean over the draws where there is noise."""
    net = families.read(model)

    def ids(variant: Variant, prompt: node.Prompt) -> list[int]:
        return prompt.clean if texts_of(variant) == "clean" else prompt.corrupt

    def shifted(variant: Variant, i: int, draw: int) -> dict[node.Site, Any]:
        if not isinstance(variant, Noised):
            return {}
        assert noise is not None
        clean = node.forward(net, prompts[i].clean, record=True).values["input",]
        added = noise(variant, draw, i)
        return {(("input",), p): clean[p] + added[p] for p in range(len(clean))}

    def source_values(i: int, draw: int) -> node.Values:
        source = experiment.source
        assert source is not None
        if source.prompts is None:
            return node.zero_values(net, len(prompts[i].clean))
        variant = source.prompts
        match source.kind:
            case "mean":
                return node.mean_values(net, [ids(variant, p) for p in prompts])
            case "mean_per_template":
                alike = [ids(variant, p) for p in prompts if p.template == prompts[i].template]
                return node.mean_values(net, alike)
        return node.forward(net, ids(variant, prompts[i]), shifted(variant, i, draw), record=True).values

    draws = []
    for draw in range(experiment.draws):
        rows = []
        for i, prompt in enumerate(prompts):
            patches = shifted(experiment.base, i, draw)
            if experiment.source is not None:
                values = source_values(i, draw)
                patches |= {(c, p): values[c][p] for c, p in oracle_sites(prompt, experiment)}
            clean = node.forward(net, prompt.clean).logits[-1].numpy()
            logits = node.forward(net, ids(experiment.base, prompt), patches).logits[-1].numpy()
            rows.append(metrics.metrics(logits, prompt.answers, prompt.wrong, clean))
        draws.append(metrics.columns(rows))
    return {name: np.mean([d[name] for d in draws], axis=0) for name in draws[0]}


def assert_same(actual: Any, expected: dict[str, np.ndarray]) -> None:
    assert set(actual) == set(expected)
    for metric, values in expected.items():
        np.testing.assert_allclose(actual[metric], values, rtol=0, atol=TOLERANCE, err_msg=metric)
