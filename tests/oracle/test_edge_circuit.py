"""The expansion of declared paths into edges, checked by hand, by published counts and against edge-level runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from . import builders, edge, families, node
from .edge_circuit import (
    FINAL,
    INPUT,
    Path,
    circuit_experiment,
    cross_section,
    declared_edges,
    free_edges,
    inputs,
    kept_edges,
    kept_without,
    out_of_order,
)
from .test_oracle import ABLATIONS, TIGHT, distance, prompts
from .test_tree import A0, A1, M0, M1, TINY, scalar_net


def text(
    length: int = 1, corrupt: list[int] | None = None, clean: list[int] | None = None, **roles: int
) -> node.Prompt:
    clean = clean or [1] * length
    return node.Prompt(clean, corrupt or [2] * len(clean), 0, [0], [], roles)


def line(*hops: Any) -> Path:
    """A path of hops that are a component, a part or a list of components and parts."""
    listed = [hop if isinstance(hop, list) else [hop] for hop in hops]
    return [[part if isinstance(part[0], tuple) else (part, None, None) for part in hop] for hop in listed]


def used(kept: Mapping[edge.Edge, set[int]]) -> set[edge.Edge]:
    return {e for e, where in kept.items() if where}


# ------------------------------------------------------------------------------------------------------------ counts


SHAPE = scalar_net([[1.0] * 12] * 12, [1.0] * 12)
"""The shape of GPT-2 small."""


def group(*names: str) -> list[node.Component]:
    return [("head", int(layer), int(h)) for layer, h in (name.split(".") for name in names)]


PREVIOUS = group("2.2", "4.11")
DUPLICATE = group("0.1", "0.10", "3.0")
INDUCTION = group("5.5", "5.8", "5.9", "6.9")
INHIBITION = group("7.3", "7.9", "8.6", "8.10")
MOVER = group("9.9", "10.0", "9.6")
NEGATIVE = group("10.7", "11.10")
BACKUP = group("10.10", "10.6", "10.2", "10.1", "11.2", "9.7", "9.0", "11.9")
AT = [(PREVIOUS, "S1+1"), (DUPLICATE, "S2"), (INDUCTION, "S2")]
AT += [(some, "END") for some in (INHIBITION, MOVER, NEGATIVE, BACKUP)]
IOI_MEMBERS = {c: [role] for some, role in AT for c in some}
IOI_PROMPT = node.Prompt([1] * 15, [2] * 15, 0, [0], [], {"IO": 2, "S1": 4, "S1+1": 5, "S2": 10, "END": 14})


def reading(components: list[node.Component], ports: str | None = None) -> list[Any]:
    return [(c, ports, None) for c in components]


IOI_PATHS: list[Path] = [
    line(INPUT, reading(PREVIOUS)),
    line(INPUT, reading(DUPLICATE)),
    line(INPUT, reading(INHIBITION, "q")),
    line(INPUT, reading(NEGATIVE, "kv")),
    line(INPUT, reading(MOVER, "kv")),
    line(INPUT, reading(BACKUP, "kv")),
    line(PREVIOUS, reading(INDUCTION, "kv")),
    line(INDUCTION, reading(INHIBITION, "kv")),
    line(DUPLICATE, reading(INHIBITION, "kv")),
    line(INHIBITION, reading(NEGATIVE, "q")),
    line(INHIBITION, reading(MOVER, "q")),
    line(INHIBITION, reading(BACKUP, "q")),
    line([*NEGATIVE, *MOVER, *BACKUP], FINAL),
]


def test_published_counts_of_the_ioi_circuit() -> None:
    """GPT-2 small has 32,491 edges; the IOI circuit's 15 connections 182 between heads, and 963 with all edges of MLPs
    to and from its 26 heads, among themselves, from the input and to the logits, and the one from the input there."""
    assert len(edge.edges(SHAPE)) == 32_491
    assert len(IOI_MEMBERS) == 26
    heads = declared_edges(SHAPE, IOI_PROMPT, IOI_PATHS, IOI_MEMBERS)
    assert len(used(heads)) == len(heads) == 182
    assert not out_of_order(SHAPE, IOI_PATHS)

    mlps = [("mlp", layer) for layer in range(12)]
    through = kept_edges(SHAPE, IOI_PROMPT, IOI_PATHS, IOI_MEMBERS, mlps)
    assert len(used(through)) == 962
    direct = [*IOI_PATHS, line(INPUT, FINAL)]
    everything = kept_edges(SHAPE, IOI_PROMPT, direct, IOI_MEMBERS, mlps)
    assert len(used(everything)) == 963
    inside = {
        c for s, r in everything for c in [s, *([] if r == FINAL else [("head", *r[1:])] if r[0] in "qkv" else [])]
    }
    assert {c for c in inside if c[0] == "head"} == set(IOI_MEMBERS)

    without = kept_without(SHAPE, IOI_PROMPT, IOI_PATHS, IOI_MEMBERS)
    assert len(without) == 32_491
    assert sum(len(where) < 15 for where in without.values()) == 182
    # previous-token heads read with queries at S1+1 alone, and with keys and values everywhere
    assert heads[INPUT, ("q", 2, 2)] == {5}
    assert heads[INPUT, ("v", 2, 2)] == set(range(15))
    assert heads[("head", 2, 2), ("k", 5, 9)] == {5}
    assert heads[("head", 5, 9), ("v", 7, 3)] == {10}
    assert heads[("head", 8, 6), ("q", 9, 9)] == {14}


def test_published_count_of_the_greater_than_circuit() -> None:
    """235 residual edges, as ACDC's list has them: all MLPs up to the eighth in line and into the middle's queries."""
    low, one, early = group("0.3", "0.5"), group("0.1"), [("mlp", i) for i in range(4)]
    middle, late = group("5.5", "6.1", "6.9", "7.10", "8.11", "9.1"), [("mlp", i) for i in range(8, 12)]
    line_of_mlps = [("mlp", i) for i in range(9)]
    paths = [
        line(INPUT, [*low, *one, *early]),
        line([*middle, *late], FINAL),
        line(early, early),
        line(late, late),
        line(one, early),
        line([*one, *low, *early], middle),
        line(middle, late),
        line(line_of_mlps, line_of_mlps),
        line(line_of_mlps, reading(middle, "q")),
    ]
    # from the input, to the logits, early, late, a0.h1 to early; to the middle; a9.h1 cannot reach MLP 8; all MLPs in
    # line without the early ones; MLPs 4 to 8 into the queries
    by_hand = (3 * 3 + 4) + 10 + 6 + 6 + 4 + 7 * 6 * 3 + (6 * 4 - 1) + (36 - 6) + (1 + 2 + 2 + 3 + 4 + 5)
    assert len(declared_edges(SHAPE, text(1), paths, {})) == by_hand == 235
    assert len(out_of_order(SHAPE, paths)) > 0


# --------------------------------------------------------------------------------------------------- declared edges


def test_positions_of_an_edge() -> None:
    net = scalar_net([[1.0, 1.0], [1.0, 1.0]], [1.0, 1.0])
    at = text(4, S=1, T=2, END=3)
    a, b, m = ("head", 0, 0), ("head", 1, 1), ("mlp", 1)
    members = {a: ["S", "T"], b: ["T", "END"]}
    q, k, v = ("q", 1, 1), ("k", 1, 1), ("v", 1, 1)
    everywhere = {0, 1, 2, 3}
    cases: list[tuple[Path, dict[edge.Edge, set[int]]]] = [
        # the sender's group; queries meet the reader's group, keys and values do not
        (line(a, b), {(a, q): {2}, (a, k): {1, 2}, (a, v): {1, 2}}),
        # written positions come before the group's, on either side
        (line((a, None, ["END"]), (b, "q", None)), {(a, q): {3}}),
        (line((a, None, ["END"]), (b, "qk", ["S"])), {(a, q): set(), (a, k): {3}}),
        (line(a, (b, "q", ["S"])), {(a, q): {1}}),
        # without a group, everywhere; the input is as any sender
        (line(INPUT, (b, "qv", None)), {(INPUT, q): {2, 3}, (INPUT, v): everywhere}),
        (line((INPUT, None, ["S"]), FINAL), {(INPUT, FINAL): {1}}),
        # an MLP reads where it is written or its group is
        (line(a, m), {(a, ("mlp_in", 1)): {1, 2}}),
        (line(a, (m, None, ["T", "END"])), {(a, ("mlp_in", 1)): {2}}),
        (line(b, m, FINAL), {(b, ("mlp_in", 1)): {2, 3}, (m, FINAL): everywhere}),
        # several hops: the middle one is written once, for reading and for sending
        (line(a, (b, "q", ["T"]), FINAL), {(a, q): {2}, (b, FINAL): {2}}),
        # several parts on each side
        (
            line([a, (M0, None, ["S"])], [(b, "k", None), FINAL]),
            {(a, k): {1, 2}, (a, FINAL): {1, 2}, (M0, k): {1}, (M0, FINAL): {1}},
        ),
    ]
    for declared, expected in cases:
        assert declared_edges(net, at, [declared], members) == expected
        # with `all`, groups have no positions, and what is written holds
        assert declared_edges(net, at, [declared], members, "all") == declared_edges(net, at, [declared], {})
        without = kept_without(net, at, [declared], members)
        assert {e: everywhere - where for e, where in without.items() if where != everywhere} == {
            e: where for e, where in expected.items() if where
        }
    assert declared_edges(net, at, [line(a, b)], members, "all") == dict.fromkeys([(a, q), (a, k), (a, v)], everywhere)
    written = line((a, None, ["S"]), (b, "qk", None))
    assert declared_edges(net, at, [written], members, "all") == {(a, q): {1}, (a, k): {1}}
    both = declared_edges(net, at, [cases[0][0], cases[1][0]], members)
    assert both == {(a, q): {2, 3}, (a, k): {1, 2}, (a, v): {1, 2}}
    # roles are looked up in each prompt: where two fall on one token, sender and reader meet there
    apart, together = text(4, S=1, T=2), text(4, S=1, T=1)
    pair = line((a, None, ["S"]), (b, "q", ["T"]))
    assert declared_edges(net, apart, [pair], {})[a, q] == set()
    assert declared_edges(net, together, [pair], {})[a, q] == {1}


def test_what_the_order_of_layers_allows() -> None:
    heads, parallel = scalar_net([[1.0]] * 2, [1.0] * 2), scalar_net([[1.0]] * 2, [1.0] * 2, parallel=True)
    everything = [line([INPUT, A0, M0, A1, M1], [A0, M0, A1, M1, FINAL])]
    pairs = {
        (s, r) for s in (INPUT, A0, M0, A1, M1) for c in (A0, M0, A1, M1, FINAL) for r in inputs(heads, c).values()
    }
    for net in (heads, parallel):
        got = declared_edges(net, text(), everything, {})
        assert set(got) == set(edge.edges(net))
        assert out_of_order(net, everything) == pairs - set(got)
    assert (A1, ("mlp_in", 1)) in out_of_order(parallel, everything) - out_of_order(heads, everything)
    assert out_of_order(heads, [line(M0, (A0, "q", None))]) == {(M0, ("q", 0, 0))}


def test_keys_and_values_belong_to_key_value_heads() -> None:
    net = scalar_net([[1.0, 1.0]] * 2, [1.0] * 2, query_heads=4)
    a, h2, h3, kv = ("head", 0, 3), ("head", 1, 2), ("head", 1, 3), ("kv", 1, 1)
    at = text(3, S=0, T=1, END=2)
    k, v = ("k", 1, 1), ("v", 1, 1)
    assert set(declared_edges(net, at, [line(a, [h2, h3])], {})) == {(a, ("q", 1, 2)), (a, ("q", 1, 3)), (a, k), (a, v)}
    assert set(declared_edges(net, at, [line(a, kv)], {})) == {(a, k), (a, v)}
    # two query heads name the same key edge: it has the positions of both
    twice = [line((a, None, ["S"]), (h2, "k", None)), line((a, None, ["T"]), (h3, "k", None))]
    assert declared_edges(net, at, twice, {}) == {(a, k): {0, 1}}
    # a free MLP is read by the keys of a member's key-value head, and by the member's own queries
    into = {r for s, r in free_edges(net, at, [], {h2: None}, [M0]) if s == M0 and r != FINAL}
    assert into == {("q", 1, 2), k, v}
    into = {r for s, r in free_edges(net, at, [line(a, (kv, "v", None))], {}, [M0]) if s == M0 and r != FINAL}
    assert into == {k, v}


def test_wrong_declarations() -> None:
    with pytest.raises(ValueError, match="two hops"):
        declared_edges(TINY, text(), [line(A0)], {})
    with pytest.raises(ValueError, match="sends nothing"):
        declared_edges(TINY, text(), [line(("kv", 0, 0), FINAL)], {})
    with pytest.raises(ValueError, match="sends nothing"):
        declared_edges(TINY, text(), [line(FINAL, A0)], {})
    with pytest.raises(ValueError, match="reads nothing"):
        declared_edges(TINY, text(), [line(A0, INPUT)], {})
    with pytest.raises(ValueError, match="ports"):
        declared_edges(TINY, text(), [line(A0, (M0, "q", None))], {})
    with pytest.raises(ValueError, match="ports"):
        declared_edges(TINY, text(), [line(A0, (A1, "", None))], {})
    with pytest.raises(ValueError, match="declared or all"):
        declared_edges(TINY, text(), [line(A0, A1)], {}, "some")
    with pytest.raises(ValueError, match="both in a group and free"):
        kept_edges(TINY, text(), [], {A0: None}, [A0])
    with pytest.raises(KeyError):
        declared_edges(TINY, text(), [line((A0, None, ["S"]), FINAL)], {})


# ------------------------------------------------------------------------------------------------------- free edges


def test_edges_of_free_components() -> None:
    """Two layers of three heads; a0.h0 and a1.h0 in groups, a1.h1 named in a path, the others outside; MLP 0 free."""
    net = scalar_net([[1.0] * 3] * 2, [1.0] * 2)
    at = text(3, S=0, T=1, END=2)
    a, b, c = ("head", 0, 0), ("head", 1, 0), ("head", 1, 1)
    members = {a: ["S"], b: None}
    paths = [line((c, None, ["T"]), FINAL), line((c, None, ["END"]), FINAL)]
    everywhere = {0, 1, 2}
    readers = [(kind, *h[1:]) for h in (b, c) for kind in "qkv"]
    expected = {(INPUT, ("mlp_in", 0)): everywhere, (a, ("mlp_in", 0)): {0}, (M0, FINAL): everywhere}
    expected |= {(M0, r): everywhere for r in readers}
    assert free_edges(net, at, paths, members, [M0]) == expected
    # the other MLP: whoever is a member sends to it, at its positions; the free MLPs send to each other
    more = expected | {(s, ("mlp_in", 1)): everywhere for s in (INPUT, M0, b)}
    more |= {(a, ("mlp_in", 1)): {0}, (c, ("mlp_in", 1)): {1, 2}, (M1, FINAL): everywhere}
    assert free_edges(net, at, paths, members, [M0, M1]) == more
    # with `all`, a1.h1 alone has positions: those written with it
    pinned = dict.fromkeys(more, everywhere) | {(c, ("mlp_in", 1)): {1, 2}}
    assert free_edges(net, at, paths, members, [M0, M1], "all") == pinned
    # declared edges join at their own positions; a mention without positions is everywhere
    joined = kept_edges(net, at, paths, members, [M0, M1])
    assert joined == more | {(c, FINAL): {1, 2}}
    elsewhere = line((a, None, ["END"]), M0)
    assert kept_edges(net, at, [*paths, elsewhere], members, [M0, M1])[a, ("mlp_in", 0)] == {0, 2}
    loose = free_edges(net, at, [*paths, line(c, FINAL)], members, [M1])
    assert loose[c, ("mlp_in", 1)] == everywhere
    # the input is no member, in a group or not: it sends everywhere to free components, and to the logits only where
    # declared
    grouped = kept_edges(net, at, [line(INPUT, FINAL)], {INPUT: ["S"]}, [M0])
    assert grouped == {(INPUT, FINAL): {0}, (INPUT, ("mlp_in", 0)): everywhere, (M0, FINAL): everywhere}
    written = kept_edges(net, at, [line((INPUT, None, ["S"]), FINAL)], {}, [M0])
    assert written == {(INPUT, FINAL): {0}, (INPUT, ("mlp_in", 0)): everywhere, (M0, FINAL): everywhere}
    # a free head, and no members
    alone = free_edges(net, at, [], {}, [("head", 0, 2), M1])
    assert set(alone) == {
        *((INPUT, (kind, 0, 2)) for kind in "qkv"),
        (INPUT, ("mlp_in", 1)),
        (("head", 0, 2), ("mlp_in", 1)),
        (("head", 0, 2), FINAL),
        (M1, FINAL),
    }
    # a free component is free everywhere, also where a path names it at some positions
    named = free_edges(net, at, [line((M0, None, ["S"]), (b, "q", None))], {}, [M0])
    assert named[M0, FINAL] == named[M0, ("k", 1, 0)] == everywhere
    assert free_edges(net, at, [], {}, []) == {}


def test_all_components_free_keeps_all_but_the_residual() -> None:
    net = scalar_net([[1.0] * 2] * 2, [1.0] * 2)
    everything = free_edges(net, text(), [], {}, node.nodes(net))
    assert set(everything) == set(edge.edges(net)) - {(INPUT, FINAL)}


# ------------------------------------------------------------------------------------------------------------- values


def test_runs_of_a_linear_model_by_hand() -> None:
    """Gains 2, 3, 5, 7 in turn; the clean input is 1, the corrupt one 20.

    The six edges hold the paths input -> a0 -> m0 -> logits, input -> m0 -> logits, input -> m0 -> a1 -> logits and
    input -> a0 -> m0 -> a1 -> logits: 6 + 3 + 15 + 30 = 54 of the 576.
    """
    paths = [line(INPUT, A0, M0, FINAL), line(INPUT, M0, A1, FINAL)]
    clean, corrupt = text(1), edge.contributions(TINY, [20])

    def logit(kept: Any, swapped: bool = False) -> float:
        ids, other = ([20], edge.contributions(TINY, [1])) if swapped else ([1], corrupt)
        return float(edge.edge_run(TINY, ids, other, kept).logits)

    assert logit(kept_edges(TINY, clean, paths, {})) == 54 * 1 + 522 * 20
    # with a free last MLP, which reads all: input, a0 (2), m0 (9) clean, a1 as 5 (9 clean + 3 corrupt)
    assert logit(kept_edges(TINY, clean, paths, {}, [M1])) == (54 + 7 * (1 + 2 + 9 + 45)) + (18 + 7 * 15) * 20
    # ablated: m0 reads corrupt alone; a1 = 5 (1 clean + 11 corrupt); m1 = 7 (input + a0 + m0 + a1)
    without = kept_without(TINY, clean, paths, {})
    assert logit(without) == (1 + 7 * 6) + (2 + 9 + 60 + 7 * 66) * 20
    assert logit(without, swapped=True) == (1 + 7 * 6) * 20 + (2 + 9 + 60 + 7 * 66)


def test_positions_by_hand() -> None:
    """Two positions, a head that doubles the mean so far, an MLP that triples; input@S -> a0.h0<v> -> logits@END."""
    net = scalar_net([[2.0]], [3.0])
    at = node.Prompt([4, 6], [10, 20], 0, [0], [], {"S": 0, "END": 1})
    paths = [line((INPUT, None, ["S"]), (A0, "v", None), FINAL)]
    kept = kept_edges(net, at, paths, {A0: ["END"]})
    assert kept == {(INPUT, ("v", 0, 0)): {0}, (A0, FINAL): {1}}
    logits = edge.edge_run(net, at.clean, edge.contributions(net, at.corrupt), kept).logits
    assert logits[:, 0].tolist() == [10 * 3 * 4, 20 + (4 + 20) + 3 * (20 + 30)]


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_experiments_without_free_components(ablation: str) -> None:
    """Against the experiment on edges given one by one, with roles; here read positions are the sender's."""
    net, texts = families.read(builders.random_llama(30, layers=2)), prompts(3)
    a, b = ("head", 0, 1), ("head", 1, 2)
    members = {a: ["subject"], b: ["subject", "end"]}
    paths = [line((INPUT, None, ["end"]), (a, "kv", None)), line(a, (b, "v", None), M1), line(M1, FINAL)]
    circuit: dict[edge.Edge, Any] = {
        (INPUT, ("k", 0, 0)): {"end"},
        (INPUT, ("v", 0, 0)): {"end"},
        (a, ("v", 1, 1)): {"subject"},
        (b, ("mlp_in", 1)): {"subject", "end"},
        (M1, FINAL): None,
    }
    for keep in (True, False):
        got = circuit_experiment(net, texts, paths, members, (), ablation, keep)
        expected = edge.edge_experiment(net, texts, circuit, ablation, keep)
        assert np.abs(got.logits - expected.logits).max() < TIGHT
        for name in ("logit_diff", "kl"):
            assert np.allclose(got.corrupt[name], expected.corrupt[name], atol=1e-9)
            assert np.allclose(got.clean[name], expected.clean[name], atol=1e-9)
            assert got.recovered[name] == pytest.approx(expected.recovered[name], abs=1e-9)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_anchors_with_free_components(ablation: str) -> None:
    """Nothing declared recovers nothing under means and zeros; free MLPs then see the input and one another alone."""
    net, texts = families.read(builders.random_gpt2(31, layers=2)), prompts(2)
    free = [M0, M1]
    got = circuit_experiment(net, texts, [], {}, free, ablation)
    for i, (prompt, ablated) in enumerate(zip(texts, edge.ablated_contributions(net, texts, ablation), strict=True)):
        kept = {(INPUT, ("mlp_in", 0)), (INPUT, ("mlp_in", 1)), (M0, ("mlp_in", 1)), (M0, FINAL), (M1, FINAL)}
        expected = edge.edge_run(net, prompt.clean, ablated, dict.fromkeys(kept)).logits[-1]
        assert distance(torch.tensor(got.logits[i]), expected) < TIGHT
        anchor = node.forward(net, prompt.corrupt).logits[-1] if ablation == "resample" else expected
        assert got.corrupt["logit"][i] == pytest.approx(float(anchor[prompt.answers].mean()), abs=1e-9)
    if ablation != "resample":
        assert got.recovered["logit_diff"] == pytest.approx(0.0, abs=1e-9)
    members = dict.fromkeys(c for c in node.nodes(net) if c not in free)
    all_paths = [line([INPUT, *members], [*members, FINAL])]
    assert circuit_experiment(net, texts, all_paths, members, free, ablation).recovered["kl"] == pytest.approx(1.0)


def test_restoring() -> None:
    """All edges into the logits restore the clean run; one of them adds its difference to the corrupt residual; an
    inner edge acts through everything after it."""
    net, texts = families.read(builders.random_gpt2(32, layers=2)), prompts(2)
    whole = cross_section(net, texts, [line(edge.senders(net), FINAL)], {})
    assert whole.recovered["logit_diff"] == pytest.approx(1.0)
    assert cross_section(net, texts, [], {}).recovered["logit_diff"] == pytest.approx(0.0, abs=1e-12)
    assert cross_section(net, texts, [line(INPUT, [*node.nodes(net), FINAL])], {}).recovered["kl"] == pytest.approx(1.0)
    one = cross_section(net, texts, [line((A1, None, ["end"]), FINAL)], {})
    inner = cross_section(net, texts, [line((M0, None, ["end"]), M1)], {})
    for i, prompt in enumerate(texts):
        clean, corrupt = (edge.contributions(net, ids) for ids in (prompt.clean, prompt.corrupt))
        resid = node.forward(net, prompt.corrupt, record=True)
        final = resid.values["resid", 2, "pre"]
        expected = net.finish(final + clean[A1] - corrupt[A1])[-1]
        assert distance(torch.tensor(one.logits[i]), expected) < TIGHT
        read = {(("mlp_in", 1), 6): (resid.reads["mlp_in", 1] + clean[M0] - corrupt[M0])[6]}
        assert distance(torch.tensor(inner.logits[i]), node.forward(net, prompt.corrupt, reads=read).logits[-1]) < TIGHT
