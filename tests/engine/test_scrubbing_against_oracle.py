"""Causal scrubbing against the oracle: random trees, every node with prompts of its own, float64 below 1e-9."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from circuitspec.engine.cache.store_keys import Keys, setting_of
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.experiment import passes, values_in
from circuitspec.experiments.follow_ups.scrub_parts import ScrubPart, parts_of, scrubbing_only
from circuitspec.experiments.levels.path_entries import with_sources
from circuitspec.experiments.levels.path_level import path_set, travelling
from circuitspec.experiments.levels.scrub_level import ScrubDraw, scrub_draw
from circuitspec.experiments.levels.scrub_tree import ScrubTree, TreeInput, scrub_tree
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.paths import DeclaredPath
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Input, Mlp
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.schema.blocks import CircuitSpec
from circuitspec.prompts.prompt_set import TokenizedTask, TokenizedVariant
from tests.engine.support import FAMILIES, TOLERANCE, loaded, model, random_prompts, runner, task_of
from tests.engine.test_edges_against_oracle import oracle_sender
from tests.engine.test_paths_against_oracle import FILE, LOGITS, declared, random_stops, shape_of, stop, tokens
from tests.oracle import families, metrics, node, scrubbing

LENGTHS = [6, 5, 7, 6]
NORMED_BEHIND = ("bitnet", "exaone4", "gemma2", "gemma3_text", "glm4", "olmo2", "olmo3")
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


def tree_of(family: str, paths: list[DeclaredPath], **carries: Any) -> ScrubTree:
    circuit = CircuitSpec.model_validate({"groups": {"any": {"nodes": ["a0.h0"]}}, "unnamed": "nothing", **carries})
    graph = CircuitGraph(shape_of(family), (), frozenset(), tuple(paths))
    return scrub_tree(circuit, graph, FILE, all_positions=False, variables={}, roots={"A": "A", "B": "B"})


def chosen(draw: ScrubDraw, base: list[node.Prompt]) -> tuple[TokenizedTask, dict[str, list[tuple[int, ...]]]]:
    """The task with random tokens for every set of drawn prompts, and these by what they are for."""
    task = task_of(base)
    by_use = {}
    for number, drawn in enumerate(draw.prompts):
        own = task_of(random_prompts(seed=100 + number, lengths=LENGTHS))
        variant = TokenizedVariant(own.ids["clean"], task.answers, task.wrong, task.roles)
        task = task.with_variant(drawn.variant, variant)
        by_use[drawn.use] = [tuple(ids) for ids in own.ids["clean"]]
    return task, by_use


def oracle_tree(
    tree: ScrubTree, by_use: dict[str, list[tuple[int, ...]]], base: list[node.Prompt], i: int
) -> scrubbing.Node:
    """The same tree by the oracle, for reference prompt `i`: values on their prompts, and all else that they read.

    What no prompt is drawn for is of the prompt of what reads it.
    """

    def of(use: str, otherwise: tuple[int, ...]) -> tuple[int, ...]:
        return by_use[use][i] if use in by_use else otherwise

    def inputs(given: tuple[TreeInput, ...], reader: tuple[int, ...]) -> tuple[scrubbing.Input, ...]:
        found = []
        for one in given:
            ports = None if one.receiver.port is None else frozenset({one.receiver.port})
            for sender in one.nodes:
                before, own = sender.inputs if sender.tested else (), of(sender.name, reader)
                ids = of(f"all else that is read by {sender.name}", own) if before else own
                inner = scrubbing.Node(oracle_sender(sender.sender), ids, inputs(before, own))
                found.append(scrubbing.Input(inner, ports, frozenset(tokens(sender.where, base[i]))))
        return tuple(found)

    clean = tuple(base[i].clean)
    others = clean if tree.whole else by_use["all else that is read by logits"][i]
    return scrubbing.Node(("final",), others, inputs(tree.inputs, clean))


def assert_scrubbed(
    family: str, tree: ScrubTree, through: tuple[str, ...], side: Any = "right", parts: Collection[ScrubPart] = ()
) -> None:
    """With `parts`, these alone are scrubbed: the oracle computes what they leave as it is all the same.

    Where a norm stands behind heads, a head that is computed is normed in what its reader reads, and not by itself.
    """
    only = scrubbing_only(tree, parts) if parts else tree
    if family in NORMED_BEHIND:
        tree = only
    base = random_prompts(seed=61, lengths=LENGTHS)
    draw = scrub_draw(only, 0, by=("clean",), seed=0, through=through)
    task, by_use = chosen(draw, base)
    m = model(family, exactly=True)
    net = families.read(m)
    with borrowed(m):
        run = runner(m, task, rows=3, side=side)
        found = run.run([draw.scrubbed, draw.nothing_kept])
    named = {oracle_sender(c) for path in tree.paths for c in path.components if isinstance(c, Mlp)}
    expected = {draw.scrubbed: [], draw.nothing_kept: []}
    for i, prompt in enumerate(base):
        clean = node.forward(net, prompt.clean).logits[-1].numpy()
        root = oracle_tree(replace(tree, whole=only.whole), by_use, base, i)
        logits = scrubbing.scrub(m, root, through, named)[-1].numpy()
        random = node.forward(net, by_use["all else that is read by logits"][i]).logits[-1].numpy()
        expected[draw.scrubbed].append(metrics.metrics(logits, prompt.answers, prompt.wrong, clean))
        expected[draw.nothing_kept].append(metrics.metrics(random, prompt.answers, prompt.wrong, clean))
    for experiment, rows in expected.items():
        for name, values in metrics.columns(rows).items():
            np.testing.assert_allclose(found[experiment][name], values, rtol=0, atol=TOLERANCE, err_msg=name)
    if family == "gpt2":  # elsewhere heads that share keys or a norm may take runs of their own
        assert run.forwards == passes((draw.scrubbed, draw.nothing_kept))


@EVERY_FAMILY
@pytest.mark.parametrize(
    ("seed", "through"),
    [
        (1, ("mlp",)),
        pytest.param(1, (), marks=pytest.mark.nightly),
        *(pytest.param(seed, through, marks=pytest.mark.nightly) for seed in (2, 3, 4) for through in ((), ("mlp",))),
    ],
)
def test_random_trees(family: str, seed: int, through: tuple[str, ...]) -> None:
    """Paths that share components: each use has a value of its own."""
    rng = np.random.default_rng(seed + len(family))
    wheres: dict[Any, Where] = {}
    chains = [random_stops(shape_of(family), rng, wheres) for _ in range(4)]
    paths = [declared(*[(one,) for one in chain], (LOGITS,)) for chain in chains]
    assert_scrubbed(family, tree_of(family, paths), through, side="left" if seed % 2 else "right")


@pytest.mark.parametrize("through", [pytest.param((), marks=pytest.mark.nightly), ("mlp",)], ids=["nothing", "MLPs"])
@EVERY_FAMILY
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in (2, 3))])
def test_some_parts_of_random_trees(family: str, seed: int, through: tuple[str, ...]) -> None:
    """What is not scrubbed, values or all else that they read, is of the prompt of what reads it."""
    rng = np.random.default_rng(seed + 10 * len(family))
    wheres: dict[Any, Where] = {}
    chains = [random_stops(shape_of(family), rng, wheres) for _ in range(4)]
    paths = [declared(*[(one,) for one in chain], (LOGITS,)) for chain in chains]
    senders = dict.fromkeys(format_name(one.sender) for one in tree_of(family, paths).nodes)
    tree = tree_of(family, paths, carries=dict.fromkeys(senders, "nothing"))
    parts = parts_of(tree)
    chosen_parts = [part for part in parts if rng.random() < 0.5] or [parts[-1]]
    assert_scrubbed(family, tree, through, parts=chosen_parts)


@EVERY_FAMILY
def test_one_component_is_used_by_two_heads_and_by_two_inputs_of_one(family: str) -> None:
    first = stop(Head(0, 0), Where.at("A"), ("v",))
    later = stop(Head(1, 1), Where.at("A"), ("q", "v")), stop(Head(1, 0), Where.at("END"), ("k",))
    paths = [declared((stop(Input(), Where.at("A")),), (first,)), declared((first,), later, (LOGITS,))]
    tree = tree_of(family, paths)
    assert len(tree.nodes) == 8  # three uses of a0.h0, each with its input, and two heads
    assert_scrubbed(family, tree, ())


def test_what_is_not_tested_is_as_in_the_reference() -> None:
    """A path without an entry has the value of the run on what reads it: here the clean prompt."""
    paths = [declared((stop(Input()),), (stop(Head(0, 0)),), (LOGITS,)), declared((stop(Head(1, 1)),), (LOGITS,))]
    tree = tree_of("gpt2", paths, unnamed="everything", carries={"a1.h1": "nothing"})
    draw = scrub_draw(tree, 0, by=("clean",), seed=0, through=())
    (sent,) = (s for r in draw.scrubbed.readings for s in r.senders if s.component == Head(0, 0))
    assert sent.prompts == "clean"
    assert not sent.inputs
    assert_scrubbed("gpt2", tree, ())


def test_equal_trees_are_one_experiment_and_what_prompts_are_counts() -> None:
    paths = [declared((stop(Head(0, 0)),), (stop(Head(1, 1)),), (LOGITS,))]
    tree = tree_of("gpt2", paths)
    one, again, other = (scrub_draw(tree, draw, by=("clean",), seed=0, through=()).scrubbed for draw in (0, 0, 1))
    assert one.digest == again.digest != other.digest
    base = random_prompts(seed=61, lengths=LENGTHS)
    draw = scrub_draw(tree, 0, by=("clean",), seed=0, through=())
    task, _ = chosen(draw, base)
    m = model("gpt2", exactly=True)
    setting = setting_of(loaded(m))
    changed = task.with_variant(draw.rests[1].variant, task.of("abc"))
    assert Keys(setting, task).of(one) != Keys(setting, changed).of(one)


@pytest.mark.nightly
@EVERY_FAMILY
@pytest.mark.parametrize("keep", [True, False])
def test_starts_of_paths_with_sources_of_their_own(family: str, keep: bool) -> None:
    """Two paths into one head, of which one takes its start from a third set of prompts; all else is frozen."""
    base = random_prompts(seed=61, lengths=LENGTHS)
    third = [tuple(p.clean) for p in random_prompts(seed=62, lengths=LENGTHS)]
    task = task_of(base)
    task = task.with_variant("other", TokenizedVariant(tuple(third), task.answers, task.wrong, task.roles))
    first, second, last = stop(Head(0, 0), Where.at("A")), stop(Mlp(0)), stop(Head(2, 1), ports=("v",))
    paths = [declared((first, second), (last,), (LOGITS,))]
    graph = CircuitGraph(shape_of(family), (), frozenset(), tuple(paths))
    readings = path_set(paths, graph.shape, FILE)
    sent = with_sources(readings, {"a0.h0 -> a2.h1<v>": "other"}, graph, FILE, ("claims", 0))
    experiment = travelling("clean", values_in("abc"), sent, paths, through=(), keep=keep)
    m = model(family, exactly=True)
    with borrowed(m):
        found = runner(m, task, rows=3).run([experiment])[experiment]
    rows = []
    for i, prompt in enumerate(base):
        clean, corrupt = tuple(prompt.clean), tuple(prompt.corrupt)
        own, frozen = (clean, corrupt) if keep else (corrupt, clean)
        read = (
            scrubbing.Input(scrubbing.Node(("head", 0, 0), third[i]), frozenset("v"), frozenset({prompt.roles["A"]})),
            scrubbing.Input(scrubbing.Node(("mlp", 0), own), frozenset("v")),
        )
        root = scrubbing.Node(("final",), frozen, (scrubbing.Input(scrubbing.Node(("head", 2, 1), frozen, read)),))
        logits = scrubbing.scrub(m, root)[-1].numpy()
        unpatched = node.forward(families.read(m), prompt.clean).logits[-1].numpy()
        rows.append(metrics.metrics(logits, prompt.answers, prompt.wrong, unpatched))
    for name, values in metrics.columns(rows).items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=TOLERANCE, err_msg=name)


def test_starts_at_two_positions_of_which_one_has_a_source_of_its_own() -> None:
    """The embeddings at A and at B, into one head on one rest of path: a source for A says nothing of B."""
    base = [replace(p, roles={"A": 1, "B": 3}) for p in random_prompts(seed=61, lengths=LENGTHS)]
    third = [tuple(p.clean) for p in random_prompts(seed=62, lengths=LENGTHS)]
    task = task_of(base)
    task = task.with_variant("other", TokenizedVariant(tuple(third), task.answers, task.wrong, task.roles))
    head = stop(Head(0, 0), ports=("v",))
    paths = [declared((stop(Input(), Where.at(role)),), (head,), (LOGITS,)) for role in ("A", "B")]
    graph = CircuitGraph(shape_of("gpt2"), (), frozenset(), tuple(paths))
    readings = path_set(paths, graph.shape, FILE)
    sent = with_sources(readings, {"input@A": "other"}, graph, FILE, ("claims", 0))
    experiment = travelling("clean", values_in("abc"), sent, paths, through=(), keep=True)
    m = model("gpt2", exactly=True)
    with borrowed(m):
        found = runner(m, task, rows=3).run([experiment])[experiment]
    rows = []
    for i, prompt in enumerate(base):
        clean, corrupt = tuple(prompt.clean), tuple(prompt.corrupt)
        starts = (("A", third[i]), ("B", clean))
        read = tuple(
            scrubbing.Input(scrubbing.Node(("input",), ids), frozenset("v"), frozenset({prompt.roles[role]}))
            for role, ids in starts
        )
        root = scrubbing.Node(("final",), corrupt, (scrubbing.Input(scrubbing.Node(("head", 0, 0), corrupt, read)),))
        logits = scrubbing.scrub(m, root)[-1].numpy()
        unpatched = node.forward(families.read(m), prompt.clean).logits[-1].numpy()
        rows.append(metrics.metrics(logits, prompt.answers, prompt.wrong, unpatched))
    for name, values in metrics.columns(rows).items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=TOLERANCE, err_msg=name)
