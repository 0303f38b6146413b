"""One edge ablated is the path of one hop that passes through nothing: at both levels, and by the oracle at both.

In families with post-norms too, where a head's new z would change the norm that it shares with the layer's other heads.
But not into queries and keys that are normed with those of other heads (OLMo 2): there an edge changes all of these,
and a path the head at its end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import pytest

from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.levels.path_level import along, travelling
from circuitspec.graph.edges import Receiver, Sender
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, KvHead, Logits, Mlp
from tests.engine.support import FAMILIES, TOLERANCE, loaded, model, runner, task_of
from tests.engine.test_edges_against_oracle import (
    SOURCES,
    experiment_of,
    oracle_edges,
    oracle_sender,
    prompts_for,
)
from tests.engine.test_paths_against_oracle import FILE, declared, oracle_end, source_values, stop, tokens
from tests.oracle import families, metrics, node, path

AT = Where.at("A", "END")
RECEIVERS = (
    Receiver(Logits()),
    Receiver(Head(1, 3), "q"),
    Receiver(KvHead(1, 1), "k"),  # or the only one
    Receiver(KvHead(1, 0), "v"),
    Receiver(Mlp(1)),
)
Link: TypeAlias = tuple[Sender, Receiver]
EDGES: list[Link] = [(s, r) for s in (Head(0, 1), Mlp(0)) for r in RECEIVERS]
EDGES.append((Head(1, 2), Receiver(Logits())))


def existing(edge: Link, shape: ModelShape) -> Link:
    """The same, into the only key-value head where there is one for all heads."""
    sender, receiver = edge
    component = receiver.component
    if not isinstance(component, KvHead):
        return edge
    return sender, replace(receiver, component=KvHead(component.layer, min(component.head, shape.n_kv_heads - 1)))


@pytest.mark.parametrize("kind", ["resample", pytest.param("mean", marks=pytest.mark.nightly)])
@pytest.mark.parametrize(
    "family",  # both levels are compared with the oracle in all families; OLMo 2 norms its queries together
    [pytest.param(family, marks=[pytest.mark.nightly] * (family not in ("gpt2", "olmo2"))) for family in FAMILIES],
)
def test_an_ablated_edge_is_a_path_through_nothing(family: str, kind: str) -> None:
    m = model(family, exactly=True)
    net, shape, source = families.read(m), loaded(m).shape, SOURCES[kind]
    prompts = prompts_for(kind, seed=31)[:3]
    edges, paths = [], []
    for sender, receiver in (existing(edge, shape) for edge in EDGES):
        edges.append(experiment_of({(sender, receiver): AT}, source))
        one = declared(
            (stop(sender, AT),), (stop(receiver.component, ports=(receiver.port,) if receiver.port else ()),)
        )
        paths.append(travelling("clean", source, along([one], shape, FILE), [one], through=()))
    with borrowed(m):
        records = runner(m, task_of(prompts)).run([*edges, *paths])

    def assert_is(found: Experiment, expected: dict[str, np.ndarray], edge: Any) -> None:
        for name, values in expected.items():
            np.testing.assert_allclose(records[found][name], values, rtol=0, atol=TOLERANCE, err_msg=f"{edge} {name}")

    clean = [node.forward(net, p.clean).logits[-1].numpy() for p in prompts]
    for (sender, receiver), cut, patched in zip([existing(edge, shape) for edge in EDGES], edges, paths, strict=True):
        apart = net.layers[0].attention.norm_across_heads and receiver.port in ("q", "k")
        if not apart:
            assert_is(patched, dict(records[cut]), (sender, receiver))
        assert_is(cut, oracle_edges(m, prompts, {(sender, receiver): AT}, source, "clean"), (sender, receiver))
        rows = []
        for i, prompt in enumerate(prompts):
            values, at = source_values(net, prompts, i, source), sorted(tokens(AT, prompt))
            end = oracle_end(stop(receiver.component, ports=(receiver.port,) if receiver.port else ()))
            logits = path.open_ends(net, prompt.clean, values, oracle_sender(sender), [end], (), at)[-1]
            rows.append(metrics.metrics(logits.numpy(), prompt.answers, prompt.wrong, clean[i]))
        assert_is(patched, metrics.columns(rows), (sender, receiver))
        moved = np.abs(
            records[patched]["logit_diff"]
            - [metrics.metrics(c, p.answers, p.wrong, c)["logit_diff"] for c, p in zip(clean, prompts, strict=True)]
        )
        if apart:
            assert np.abs(records[patched]["logit_diff"] - records[cut]["logit_diff"]).max() > 1e-4
        assert moved.max() > 1e-3  # the edge matters, so that agreement says something
