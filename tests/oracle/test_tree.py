"""Path sets checked against arithmetic by hand, against chains of single paths, and against edge-level runs."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from . import builders, edge, edge_circuit, families, node, path, tree
from .test_edges_and_paths import BASE, MODELS, PLAIN, POST_NORM, SOURCE, TWO
from .test_oracle import TIGHT, distance, prompts

IN: node.Component = ("input",)
OUT: tree.Hop = (("final",), None, None)
THROUGH = [("mlp",), ()]


@functools.cache
def network(family: str, layers: int = 3) -> families.Net:
    return families.read(MODELS[family](20, layers=layers))


def identity(x: Tensor) -> Tensor:
    return x


def scalar_net(
    heads: Sequence[Sequence[float]], mlps: Sequence[float], query_heads: int | None = None, parallel: bool = False
) -> families.Net:
    """A linear model of width one in which token t is the number t, nothing is normed and the logit is the residual.

    Key-value head g of layer i multiplies by ``heads[i][g]`` the mean of what it reads so far; MLP i by ``mlps[i]``.
    """

    def full(rows: int, *shape: int, value: float = 0.0) -> Tensor:
        return torch.full((rows, *shape), value, dtype=torch.float64)

    layers = []
    for gains, gain in zip(heads, mlps, strict=True):
        kv = len(gains)
        n = query_heads or kv
        attention = families.Attention(
            wq=full(n, 1, 1),
            bq=full(n, 1),
            wk=full(kv, 1, 1),
            bk=full(kv, 1),
            wv=torch.tensor(gains, dtype=torch.float64)[:, None, None],
            bv=full(kv, 1),
            wo=full(n, 1, 1, value=1.0),
            bo=full(1),
            scale=1.0,
        )
        mlp = families.Mlp(full(1, 1, value=gain), full(1), full(1, 1, value=1.0), full(1), identity)
        layers.append(families.Layer(attention, mlp, None, None, None, None, parallel))
    return families.Net(
        embed=torch.arange(100, dtype=torch.float64)[:, None],
        embed_scale=1.0,
        positions=None,
        layers=layers,
        final_norm=identity,  # type: ignore[arg-type]
        unembed=full(1, 1, value=1.0),
        unembed_bias=full(1),
    )


def to(*components: node.Component) -> list[tree.Hop]:
    """A path through components at all ports and positions, to the logits."""
    return [*((c, None, None) for c in components), OUT]


def full(ids: Sequence[int]) -> range:
    return range(len(ids))


# -------------------------------------------------------------------------------------------------------- by hand

A0, M0, A1, M1 = ("head", 0, 0), ("mlp", 0), ("head", 1, 0), ("mlp", 1)
TINY = scalar_net([[2.0], [5.0]], [3.0, 7.0])
"""Gains 2, 3, 5, 7: the residual is multiplied by 3, 4, 6 and 8, in all by 576."""
BY_HAND: list[tuple[str, list[list[tree.Hop]], tuple[str, ...], float]] = [
    ("one path", [to(IN, A0, M0, A1, M1)], (), 2 * 3 * 5 * 7),
    ("the same path is counted once", [to(IN, A0), to(IN, A0)], (), 2),
    ("two paths of one component, but not its other two", [to(IN, A0, M0), to(IN, M0, A1)], (), 2 * 3 + 3 * 5),
    ("the residual alone", [to(IN)], (), 1),
    ("no paths", [], (), 0),
    ("no paths, MLPs let through", [], ("mlp",), 0),
    ("a component that starts a path is clean", [to(A1)], (), 5 * 12),
    ("a start dominates", [to(A1), to(IN, A1)], (), 5 * 12),
    ("but only before the same rest", [to(A1, M1), to(IN, A1)], (), 5 * 12 * 7 + 5),
    ("on another way to the same component as well", [to(A0, A1), to(IN, A0, A1), to(IN, A1)], (), 5 * (2 + 1)),
    ("MLPs before and after the head", [to(IN, A1)], ("mlp",), (1 + 3) * 5 * (1 + 7)),
    ("all MLPs", [to(IN)], ("mlp",), (1 + 3) * (1 + 7)),
    ("an MLP that starts a path", [to(M0)], ("mlp",), 3 * 3 * (1 + 7)),
    ("a named MLP is passed nowhere", [to(IN, A1), to(IN, M1)], ("mlp",), (1 + 3) * 5 + (1 + 3) * 7),
    ("both named", [to(IN, M0, M1), to(IN, A1)], ("mlp",), 3 * 7 + 5),
    ("all paths", [to(IN), to(IN, A0), to(IN, A1), to(IN, A0, A1)], ("mlp",), 576),
]


@pytest.mark.parametrize(("declared", "through", "gain"), [x[1:] for x in BY_HAND], ids=[x[0] for x in BY_HAND])
def test_a_linear_model_sums_its_paths(declared: list[list[tree.Hop]], through: tuple[str, ...], gain: float) -> None:
    """Clean is 1, corrupt is 20; each path adds its product of gains times the difference to the frozen 576."""
    clean, corrupt = node.resample_values(TINY, [1]), node.resample_values(TINY, [20])
    sufficient = tree.tree(TINY, [1], declared, clean, corrupt, through)
    necessary = tree.tree(TINY, [1], declared, corrupt, clean, through)
    assert float(sufficient) == pytest.approx(576 * 20 - 19 * gain, abs=1e-9)
    assert float(necessary) == pytest.approx(576 * 1 + 19 * gain, abs=1e-9)


def test_frozen_values_that_no_run_has() -> None:
    """Frozen: input 100, a0 10, m0 1000, a1 30, m1 4; the clean input is 1."""
    numbers: dict[node.Component, float] = {IN: 100.0, A0: 10.0, M0: 1000.0, A1: 30.0, M1: 4.0}
    frozen = {c: torch.tensor([[x]], dtype=torch.float64) for c, x in numbers.items()}
    clean = node.resample_values(TINY, [1])

    def logit(declared: list[list[tree.Hop]], through: tuple[str, ...], *named: node.Component) -> float:
        return float(tree.tree(TINY, [1], declared, clean, frozen, through, named))

    assert logit([], ()) == 100 + 10 + 1000 + 30 + 4
    assert logit([], ("mlp",)) == ((100 + 10) * 4 + 30) * 8
    assert logit([], ("mlp",), M0) == (100 + 10 + 1000 + 30) * 8
    assert logit([], ("mlp",), M0, M1) == logit([], ())
    assert logit([to(IN)], ()) == 1 + 10 + 1000 + 30 + 4
    assert logit([to(A0)], ()) == 100 + 2 + 1000 + 30 + 4
    # a1 reads the frozen run, but for the input; its own frozen value does not come in
    assert logit([to(IN, A1)], ()) == 100 + 10 + 1000 + 5 * (1 + 10 + 1000) + 4
    assert logit([to(IN, A1)], ("mlp",)) == ((100 + 10) * 4 + 5 * (1 + 10) * 4) * 8
    assert logit([to(IN, M1)], ("mlp",)) == (100 + 10) * 4 + 30 + 7 * ((1 + 10) * 4 + 30)


def test_positions_by_hand() -> None:
    """Two positions; the head at position 1 reads the mean of both."""
    net = scalar_net([[2.0]], [3.0])
    clean, corrupt = node.resample_values(net, [4, 6]), node.resample_values(net, [10, 20])
    frozen = torch.tensor([10.0 * 3 * 4, (20 + 30) * 4])  # position 0: x (1 + 2); position 1: x + (10 + 20); MLP x 4

    def changes(*declared: list[tree.Hop]) -> list[float]:
        logits = tree.tree(net, [4, 6], declared, clean, corrupt, ())
        return [float(x) for x in logits[:, 0] - frozen]

    head = ("head", 0, 0)
    assert changes([(IN, None, [0]), OUT]) == [-6, 0]
    assert changes([(IN, None, [0]), (head, ["v"], None), OUT]) == [2 * -6, -6]
    assert changes([(IN, None, [0]), (head, None, [1]), OUT]) == [0, -6]
    assert changes([(IN, None, [0]), (head, ["q", "k"], None), OUT]) == [0, 0]
    assert changes([(IN, None, [1]), (head, ["v"], None), OUT]) == [0, -14]
    assert changes([(IN, None, [0]), (head, ["v"], [1]), (("mlp", 0), None, [0]), OUT]) == [0, 0]
    assert changes([(IN, None, [0]), (head, ["v"], None), (("mlp", 0), None, [1]), OUT]) == [0, 3 * -6]
    # what comes to the head at position 0 and at position 1 is told apart, also where both are declared
    first: list[tree.Hop] = [(IN, None, [0]), (head, ["v"], [0, 1]), OUT]
    second: list[tree.Hop] = [(IN, None, [1]), (head, ["v"], [1]), OUT]
    assert changes(first, second) == [2 * -6, -6 - 14]
    assert changes(first, [(head, None, [0]), OUT]) == [2 * -6, -6]
    assert changes(first, [(head, None, [1]), OUT]) == [2 * -6, -6 - 14]


# ------------------------------------------------------------------------------------------------ against single paths


@pytest.mark.parametrize("family", sorted(MODELS))
@pytest.mark.parametrize("through", THROUGH)
def test_one_path_is_a_chain(family: str, through: tuple[str, ...]) -> None:
    """A chain through keys or values moves every query head that shares them: a path through each of them."""
    net = network(family)
    ids = BASE[:4]
    base, source = node.resample_values(net, ids), node.resample_values(net, SOURCE[:4])
    ports = {"q": "q", "k": "k", "v": "v", "mlp_in": "in"}
    chains: list[tuple[node.Component, list[node.Receiver], list[int] | None]] = [
        (("head", 0, 1), [("final",)], [1, 3]),
        (IN, [("v", 0, net.layers[0].attention.kv_heads - 1), ("q", 2, 2), ("final",)], None),
        (("head", 0, 0), [("q", 1, 3), ("mlp_in", 2 if net.layers[0].parallel else 1), ("final",)], [1, 2]),
        (("mlp", 1), [("k", 2, 0), ("final",)], None),
    ]
    for sender, receivers, at in chains:
        declared: list[list[tree.Hop]] = [[(sender, None, at)]]
        for receiver in receivers[:-1]:
            declared = [
                [*some, (owner, [ports[receiver[0]]], None)]
                for some in declared
                for owner in edge_circuit.owners(net, receiver)
            ]
        got = tree.tree(net, ids, [[*some, OUT] for some in declared], source, base, through)
        expected = path.chain(net, ids, source, sender, receivers, through, at)
        assert distance(got, expected) < TIGHT
        assert distance(got, node.forward(net, ids).logits) > 1e-6


# -------------------------------------------------------------------------------------------------- all paths and none


def every_path(net: families.Net, through: tuple[str, ...]) -> list[list[tree.Hop]]:
    """Each path from the input to the logits over heads, and over MLPs where they are not let through."""
    middle = [c for c in node.nodes(net) if c[0] == "head" or not through]
    ways: dict[node.Component, list[list[node.Component]]] = {IN: [[IN]]}
    for c in middle:
        reads = edge_circuit.inputs(net, c).values()
        ways[c] = [[*way, c] for s in list(ways) for way in ways[s] if all(edge.precedes(net, s, r) for r in reads)]
    return [to(*way) for some in ways.values() for way in some]


@pytest.mark.parametrize("family", sorted(MODELS))
@pytest.mark.parametrize("through", THROUGH)
def test_all_paths_are_the_kept_run_and_none_the_frozen_one(family: str, through: tuple[str, ...]) -> None:
    net = network(family, 2)
    joint = net.layers[0].attention.norm_across_heads
    if joint:  # one norm over the queries of all heads: paths of single heads cannot make up all of it
        net = families.read(builders.BUILDERS[family](20, layers=2, num_attention_heads=1, num_key_value_heads=1))
    clean, corrupt = node.forward(net, BASE, record=True), node.forward(net, SOURCE, record=True)
    paths = every_path(net, through)
    if not through and not joint:  # 4 heads, then the MLP that reads 5 of them (1 if it is parallel), and so on
        assert len(paths) == (1 + 4 + 1 + 4 * 6 + 6 if net.layers[0].parallel else 1 + 4 + 5 + 4 * 10 + 50)
    assert distance(tree.tree(net, BASE, paths, clean.values, corrupt.values, through), clean.logits) < TIGHT
    if not through:
        assert distance(tree.tree(net, BASE, paths, corrupt.values, clean.values, through), corrupt.logits) < TIGHT
    assert distance(tree.tree(net, BASE, [], clean.values, corrupt.values, through), corrupt.logits) < TIGHT
    assert distance(tree.tree(net, BASE, [], corrupt.values, clean.values, through), clean.logits) < TIGHT


@pytest.mark.parametrize("family", sorted(MODELS))
def test_a_path_of_unchanged_values_changes_nothing(family: str) -> None:
    net = network(family)
    clean = node.forward(net, BASE, record=True)
    paths = [to(IN, ("head", 0, 1), ("mlp", 2)), to(("head", 1, 2), ("head", 2, 0)), to(("mlp", 0))]
    for through in THROUGH:
        assert distance(tree.tree(net, BASE, paths, clean.values, clean.values, through), clean.logits) < TIGHT


@pytest.mark.parametrize("family", sorted(MODELS))
def test_no_paths_under_means_is_a_run_with_means_in_place(family: str) -> None:
    net = network(family)
    means = node.mean_values(net, [SOURCE, builders.random_ids(52, 6)])
    clean = node.resample_values(net, BASE)
    for through in THROUGH:
        held = [node.written(net, c) for c in [IN, *node.nodes(net)] if c[0] != "mlp" or not through]
        expected = node.noise(net, BASE, means, {(c, p) for c in held for p in full(BASE)})
        assert distance(tree.tree(net, BASE, [], clean, means, through), expected) < TIGHT


# ------------------------------------------------------------------------------------------- against edge-level runs


def wires(net: families.Net, seed: int, share: float) -> list[tuple[node.Component, node.Component, str]]:
    """Random (sender, component, port) such that each lies on a path of such wires from the input to the logits.

    Heads that share a key or value input share its wires.
    """
    rng = random.Random(seed)
    some = {e for e in edge.edges(net) if rng.random() < share}
    chosen = [
        (s, c, port)
        for c in [*node.nodes(net), ("final",)]
        for port, receiver in edge_circuit.inputs(net, c).items()
        for s in edge.senders(net)
        if (s, receiver) in some
    ]
    reached = {IN}
    for s, c, _ in chosen:  # in the order of the layers
        if s in reached:
            reached.add(c)
    leading = {("final",)}
    for s, c, _ in reversed(chosen):
        if c in leading:
            leading.add(s)
    return [w for w in chosen if w[0] in reached & leading and w[1] in leading]


@pytest.mark.parametrize("family", [f for f in PLAIN if not network(f, 1).layers[0].attention.norm_across_heads])
@pytest.mark.parametrize("ablation", ["resample", "mean"])
def test_all_paths_from_the_input_along_some_edges_are_these_edges(family: str, ablation: str) -> None:
    """With every path from the input that a set of edges allows, a component has one value, whatever the rest: the one
    it has when exactly these edges are kept. Random positions for each component.

    (Of less than all paths, of paths that start elsewhere, and in the other direction, this does not hold.)
    """
    net = network(family, 2)
    texts = prompts(3)
    ablated = edge.ablated_contributions(net, texts, ablation)[0]
    frozen = node._sources(net, texts, ablation)[0]
    text = texts[0]
    clean = node.resample_values(net, text.clean)
    sizes = []
    for seed, share in [(4, 0.4), (7, 0.25)]:
        rng = random.Random(seed)
        text.roles.update({str(p): p for p in range(7)})
        members = {
            c: None if rng.random() < 0.4 else [str(p) for p in sorted(rng.sample(range(7), 4))]
            for c in edge.senders(net)
        }
        pieces: list[Any] = [[[(s, None, None)], [(c, port, None)]] for s, c, port in wires(net, seed, share)]
        pieces = [[s, [(c, None if p == "in" else [p], at)]] for s, [(c, p, at)] in pieces]
        kept = edge_circuit.kept_edges(net, text, pieces, members)
        expected = edge.edge_run(net, text.clean, ablated, kept).logits
        paths = tree.complete(net, tree.placed(pieces, members, text))
        sizes.append(len(paths))
        assert distance(tree.tree(net, text.clean, paths, clean, frozen, ()), expected) < TIGHT
        assert not paths or distance(expected, edge.edge_run(net, text.clean, ablated, {}).logits) > 1e-3
    assert max(sizes) > 20


@pytest.mark.parametrize("family", sorted(POST_NORM))
def test_the_same_over_mlps_under_post_norms(family: str) -> None:
    """Where heads share a norm, a frozen head's contribution depends on the others in a hop pass; an MLP's does not."""
    net = network(family)
    declared = [[IN, ("mlp", 0)], [("mlp", 0), ("mlp", 1)], [("mlp", 0), ("mlp", 2)], [("mlp", 1), ("final",)]]
    declared += [[("mlp", 2), ("final",)], [IN, ("mlp", 2)]]
    pieces: list[Any] = [[[(c, None, None)] for c in pair] for pair in declared]
    text = prompts(1)[0]
    kept = edge_circuit.kept_edges(net, text, pieces, {})
    ablated = edge.contributions(net, text.corrupt)
    clean, corrupt = node.resample_values(net, text.clean), node.resample_values(net, text.corrupt)
    paths = tree.complete(net, pieces)
    got = tree.tree(net, text.clean, paths, clean, corrupt, ())
    assert len(paths) == 3
    assert distance(got, edge.edge_run(net, text.clean, ablated, kept).logits) < TIGHT


@pytest.mark.parametrize("family", PLAIN)
def test_removing_paths_of_one_hop_is_removing_edges(family: str) -> None:
    net = network(family)
    clean, corrupt = node.resample_values(net, BASE), node.resample_values(net, SOURCE)
    ablated = edge.contributions(net, SOURCE)
    gone: dict[node.Component, list[int] | None] = {
        IN: [0, 3],
        ("head", 0, 1): None,
        ("mlp", 1): [5],
        ("head", 2, 3): [1, 5],
    }
    kept: dict[edge.Edge, Any] = dict.fromkeys(edge.edges(net))
    for c, at in gone.items():
        kept[c, ("final",)] = [p for p in full(BASE) if at is not None and p not in at]
    paths: list[list[tree.Hop]] = [[(c, None, at), OUT] for c, at in gone.items()]
    got = tree.tree(net, BASE, paths, corrupt, clean, ())
    assert distance(got, edge.edge_run(net, BASE, ablated, kept).logits) < TIGHT


# --------------------------------------------------------------------------------------------- one path at a time


@pytest.mark.parametrize("family", TWO)
def test_a_component_has_two_values_by_explicit_sums(family: str) -> None:
    """d -> a<v> -> b<q> -> logits and a -> b<k> -> logits: a is recomputed for the queries of b and clean for its keys.

    Residuals are summed from contributions and the heads computed from their weights, all in the corrupt run.
    """
    net = network(family)
    clean, corrupt = node.resample_values(net, BASE), node.resample_values(net, SOURCE)
    own, other = edge.contributions(net, BASE), edge.contributions(net, SOURCE)
    run = node.forward(net, SOURCE, record=True)
    d, a, b = ("head", 0, 1), ("head", 1, 2), ("head", 2, 0)
    group = 4 // net.layers[0].attention.kv_heads

    def head(component: node.Component, **change: Tensor) -> Tensor:
        """What a head adds to the residual when its inputs are those of the corrupt run, changed."""
        _, index, h = component
        layer, heads = net.layers[index], range(net.layers[index].attention.heads)
        g = h // group
        resid = run.values["resid", index, "pre"]
        assert layer.pre_attention is not None
        plain, changed = layer.pre_attention(resid), {k: layer.pre_attention(resid + x) for k, x in change.items()}
        kv = range(layer.attention.kv_heads)
        z = node.attend(
            layer.attention,
            [changed.get("q", plain) if i == h else plain for i in heads],
            [changed.get("k", plain) if i == g else plain for i in kv],
            [changed.get("v", plain) if i == g else plain for i in kv],
        )
        return z[h] @ layer.attention.wo[h]

    a_to_queries = head(a, v=own[d] - other[d])
    new = head(b, q=a_to_queries - other[a], k=own[a] - other[a])
    expected = net.finish(run.values["resid", 3, "pre"] - other[b] + new)
    paths: list[list[tree.Hop]] = [
        [(d, None, None), (a, ["v"], None), (b, ["q"], None), OUT],
        [(a, None, None), (b, ["k"], None), OUT],
    ]
    got = tree.tree(net, BASE, paths, clean, corrupt, ())
    assert distance(got, expected) < TIGHT
    joint = head(b, q=own[a] - other[a], k=own[a] - other[a])  # were the clean a seen by both
    assert distance(got, net.finish(run.values["resid", 3, "pre"] - other[b] + joint)) > 1e-4


def test_a_named_mlp_is_frozen_on_the_paths_of_others() -> None:
    """d -> b<q> -> logits and m1 -> logits: the pass into b's queries has m1 at its frozen value, not at its clean one
    and not recomputed; m0 is recomputed. Each pass is written as a forward pass of its own."""
    net = families.read(builders.random_gpt2(28))
    clean, corrupt = node.resample_values(net, BASE), node.resample_values(net, SOURCE)
    d, b, m1 = ("head", 0, 1), ("head", 2, 0), ("mlp", 1)
    every = full(BASE)
    hold = {(c, p): corrupt[c][p] for c in [IN, m1, *node.nodes(net)] if c[0] != "mlp" or c == m1 for p in every}
    into_b = node.forward(net, BASE, {**hold, **{(d, p): clean[d][p] for p in every}}, record=True).reads["q", 2, 0]
    new_b = node.forward(net, SOURCE, reads={(("q", 2, 0), p): into_b[p] for p in every}, record=True).values[b]
    last = {(c, p): x[p] for c, x in ((b, new_b), (m1, clean[m1])) for p in every}
    expected = node.forward(net, BASE, {**hold, **last}).logits
    paths: list[list[tree.Hop]] = [[(d, None, None), (b, ["q"], None), OUT], to(m1)]
    got = tree.tree(net, BASE, paths, clean, corrupt)
    assert distance(got, expected) < TIGHT
    alone = tree.tree(net, BASE, paths[:1], clean, corrupt)
    frozen = tree.tree(net, BASE, paths[:1], clean, corrupt, named=[m1])
    assert distance(alone, frozen) > 1e-4


# -------------------------------------------------------------------------------------------- declared paths joined


def names(paths: list[list[tree.Hop]]) -> set[tuple[node.Component, ...]]:
    return {tuple(hop[0] for hop in some) for some in paths}


def test_pieces_are_joined() -> None:
    net = scalar_net([[2.0, 2.0], [5.0, 5.0]], [3.0, 7.0])
    a, b, c, d = ("head", 0, 0), ("head", 0, 1), ("head", 1, 0), ("head", 1, 1)
    end = ("final",)

    def piece(*hops: list[Any]) -> list[list[tree.Hop]]:
        return [[part if isinstance(part[0], tuple) else (part, None, None) for part in hop] for hop in hops]

    joined = tree.complete(
        net, [piece([a, b], [(c, ["q"], [1, 2]), (d, ["k"], None)]), piece([(c, None, [2, 3]), d], [end])]
    )
    assert joined == [
        [(a, None, None), (c, ["q"], frozenset({2})), OUT],
        [(a, None, None), (d, ["k"], None), OUT],
        [(b, None, None), (c, ["q"], frozenset({2})), OUT],
        [(b, None, None), (d, ["k"], None), OUT],
    ]
    # what ends nowhere else is a start; what starts and is passed stays a start
    assert names(tree.complete(net, [piece([a, c], [end]), piece([IN], [a], [end]), piece([IN], [c])])) == {
        (a, end),
        (IN, a, end),
        (IN, c, end),
    }
    # out of order: gone, and what hangs on it
    assert names(tree.complete(net, [piece([a, c], [b, d, M0], [end])])) == {(a, d, end), (a, M0, end)}
    assert tree.complete(net, [piece([c], [d], [end])]) == tree.complete(net, []) == []
    chain = [piece([IN], [A0]), piece([A0], [M0]), piece([M0], [M1], [end]), piece([M0], [end])]
    assert names(tree.complete(net, chain)) == {(IN, A0, M0, M1, end), (IN, A0, M0, end)}
    with pytest.raises(ValueError, match="leads on"):
        tree.complete(net, [piece([IN], [a])])


def test_wrong_paths() -> None:
    clean = node.resample_values(TINY, [1])
    wrong: list[tuple[list[tree.Hop], str]] = [
        ([(A0, None, None)], "leads from"),
        ([OUT], "leads from"),
        ([(A0, None, None), (("final",), None, [0])], "leads from"),
        (to(A1, M0), "does not send"),
        (to(A0, IN), "reads nothing"),
        (to(("neuron", 0, 0)), "does not send"),
        ([(A0, ["q"], None), OUT], "starts at"),
        ([(IN, None, None), (A0, ["in"], None), OUT], "ports"),
        ([(IN, None, [1]), OUT], "no such positions"),
    ]
    for some, match in wrong:
        with pytest.raises(ValueError, match=match):
            tree.tree(TINY, [1], [some], clean, clean)
    with pytest.raises(ValueError, match="let through"):
        tree.tree(TINY, [1], [], clean, clean, ("head",))


# ------------------------------------------------------------------------------------------------------ experiments


@pytest.mark.parametrize("ablation", ["resample", "mean_per_template"])
def test_experiments(ablation: str) -> None:
    """Groups, roles and joined pieces against single calls with the paths and positions written out."""
    net, texts = families.read(builders.random_llama(29)), prompts(3)
    a, b, c = ("head", 0, 0), ("head", 1, 1), ("head", 2, 3)
    members: edge_circuit.Members = {a: ["subject"], b: ["subject", "end"], c: ["end"]}
    pieces: list[edge_circuit.Path] = [
        [[(a, None, None), (("input",), None, ["subject"])], [(b, ["k", "v"], None)]],
        [[(b, None, ["end"]), (("mlp", 0), None, None)], [(c, ["q"], None)], [(("final",), None, None)]],
    ]
    for keep in (True, False):
        got = tree.tree_experiment(net, texts, pieces, members, ablation, keep)
        for i, text in enumerate(texts):
            s, e = text.roles["subject"], text.roles["end"]
            last: list[tree.Hop] = [(c, ["q"], [e]), OUT]
            paths: list[list[tree.Hop]] = [
                [(a, None, [s]), (b, ["k", "v"], [e]), *last],
                [(IN, None, [s]), (b, ["k", "v"], [e]), *last],
                [(("mlp", 0), None, None), *last],
            ]
            source, clean = node._sources(net, texts, ablation)[i], node.resample_values(net, text.clean)
            kept, frozen = (clean, source) if keep else (source, clean)
            expected = tree.tree(net, text.clean, paths, kept, frozen)[-1].numpy()
            assert np.abs(got.logits[i] - expected).max() < TIGHT
            anchor = node.forward(net, text.corrupt).logits[-1]
            if ablation != "resample":
                held = [x for x in [IN, *node.nodes(net)] if x[0] != "mlp" or x == ("mlp", 0)]
                anchor = node.noise(net, text.clean, source, {(x, p) for x in held for p in range(7)})[-1]
            assert got.corrupt["logit"][i] == pytest.approx(float(anchor[text.answers].mean()), abs=1e-9)
