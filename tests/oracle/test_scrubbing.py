"""Scrubbed trees checked against arithmetic by hand, path sets, explicit edges, and plain runs."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from . import builders, edge, edge_circuit, families, node, path, scrubbing, tree
from .scrubbing import Input, Node, Use
from .test_edges_and_paths import MODELS
from .test_oracle import TIGHT, distance
from .test_tree import A0, A1, IN, M0, M1, OUT, TINY, every_path, scalar_net

FINAL = ("final",)
LAYOUTS = ["gpt2", "gpt_neox", "llama", "gemma2"]
CLEAN, OTHER = tuple(builders.random_ids(60, 4)), tuple(builders.random_ids(61, 4))
EVERY_FAMILY = [
    family if family in LAYOUTS else pytest.param(family, marks=pytest.mark.nightly) for family in sorted(MODELS)
]


@functools.cache
def network(family: str, layers: int = 2) -> families.Net:
    return families.read(MODELS[family](30, layers=layers))


def reads(*senders: Node) -> tuple[Input, ...]:
    return tuple(Input(sender) for sender in senders)


# -------------------------------------------------------------------------------------------------------- by hand


def one(t: int) -> tuple[int, ...]:
    return (t,)


# TINY has gains 2 (a0), 3 (m0), 5 (a1), 7 (m1): on token t they read t, 3 t, 12 t, 72 t and add 2 t, 9 t, 60 t, 504 t.
BY_HAND: list[tuple[str, Node, float]] = [
    ("a plain run", Node(FINAL, one(4)), 576 * 4),
    ("the residual alone", Node(FINAL, one(4), reads(Node(IN, one(1)))), 576 * 4 - 4 + 1),
    ("a leaf", Node(FINAL, one(4), reads(Node(A1, one(3)))), 576 * 4 - 60 * 4 + 60 * 3),
    ("one hop more", Node(FINAL, one(4), reads(Node(A1, one(3), reads(Node(IN, one(1)))))), 516 * 4 + 5 * (12 * 3 - 2)),
    (
        "three prompts below one reader",
        Node(FINAL, one(4), reads(Node(M1, one(2), reads(Node(IN, one(5)), Node(A0, one(6)), Node(M0, one(7)))))),
        72 * 4 + 7 * (72 * 2 + (5 - 2) + 2 * (6 - 2) + 9 * (7 - 2)),
    ),
    (
        "one component in two places",
        Node(
            FINAL, one(4), reads(Node(A0, one(1), reads(Node(IN, one(9)))), Node(A1, one(2), reads(Node(A0, one(8)))))
        ),
        576 * 4 - 2 * 4 - 60 * 4 + 2 * 9 + 5 * (12 * 2 + 2 * (8 - 2)),
    ),
    (
        "four hops",
        Node(
            FINAL,
            one(10),
            reads(Node(M1, one(20), reads(Node(A1, one(30), reads(Node(M0, one(40), reads(Node(A0, one(50))))))))),
        ),
        72 * 10 + 7 * (72 * 20 - 60 * 20 + 5 * (12 * 30 - 9 * 30 + 3 * (3 * 40 + 2 * (50 - 40)))),
    ),
]


@pytest.mark.parametrize(("root", "expected"), [x[1:] for x in BY_HAND], ids=[x[0] for x in BY_HAND])
def test_a_linear_model_adds_what_is_sent(root: Node, expected: float) -> None:
    assert float(scrubbing.scrub(TINY, root)) == pytest.approx(expected, abs=1e-9)


def test_mlps_that_are_let_through() -> None:
    """IN -> a1 -> logits: m0 is recomputed between the input and a1, and m1 between a1 and the logits."""
    root = Node(FINAL, one(4), reads(Node(A1, one(3), reads(Node(IN, one(1))))))
    a1 = 5 * (1 + 2 * 3) * (1 + 3)
    assert float(scrubbing.scrub(TINY, root, ("mlp",))) == pytest.approx(((3 * 4) * (1 + 3) + a1) * (1 + 7), abs=1e-9)
    a1 = 5 * (1 + 2 * 3 + 9 * 3)  # m0 at what it adds in the run of a1's own prompt
    expected = ((12 * 4) + a1) * (1 + 7)
    assert float(scrubbing.scrub(TINY, root, ("mlp",), [M0])) == pytest.approx(expected, abs=1e-9)
    assert float(scrubbing.scrub(TINY, root, ("mlp",), [M0, M1])) == pytest.approx(
        float(scrubbing.scrub(TINY, root)), abs=1e-9
    )


def test_ports_and_positions_by_hand() -> None:
    """A head that reads the mean so far, twice as much; keys and queries are zero whatever they read."""
    net = scalar_net([[2.0]], [0.0])
    head = ("head", 0, 0)

    def logits(*inputs: Input, root: tuple[int, int] = (10, 20)) -> list[float]:
        computed = Node(head, (4, 6), inputs)
        out = scrubbing.scrub(net, Node(FINAL, root, (Input(computed, None, frozenset([1])),)))
        return [float(x) for x in out[:, 0]]

    leaf = Node(IN, (7, 9))
    assert logits() == [10 + 2 * 10, 20 + (4 + 6)]
    assert logits(Input(leaf)) == [30, 20 + (7 + 9)]
    assert logits(Input(leaf, frozenset("qk"))) == [30, 20 + (4 + 6)]
    assert logits(Input(leaf, frozenset("v"), frozenset([0]))) == [30, 20 + (7 + 6)]
    two = (Input(leaf, None, frozenset([0])), Input(Node(IN, (50, 70)), None, frozenset([1])))
    assert logits(*two) == [30, 20 + (7 + 70)]


# ---------------------------------------------------------------------------------------------- against path sets


def as_tree(net: families.Net, paths: list[list[tree.Hop]], kept: tuple[int, ...], frozen: tuple[int, ...]) -> Node:
    """What `tree.tree` evaluates: leaves are the starts of paths, on one prompt, all other nodes run on another."""
    every = range(len(kept))

    def below(ways: frozenset[Any], port: str) -> list[Input]:
        out = []
        for component in sorted({way[-1].component for way in ways}, key=repr):
            for p in every:
                here = frozenset(w for w in ways if w[-1].component == component and p in w[-1].positions)
                if any(len(way) == 1 for way in here):
                    sender = Node(component, kept)
                elif here:
                    sender = inner(component, here)
                else:
                    continue
                out.append(Input(sender, frozenset([port]), frozenset([p])))
        return out

    @functools.cache
    def inner(component: node.Component, ways: frozenset[Any]) -> Node:
        inputs = []
        for port in edge_circuit.inputs(net, component):
            before = frozenset(way[:-1] for way in ways if port in way[-1].ports)
            inputs += below(before, port)
        return Node(component, frozen, tuple(inputs))

    declared = frozenset(tree._checked(net, path, len(kept)) for path in paths)
    return Node(FINAL, frozen, tuple(below(declared, "in")))


def some_paths(net: families.Net, seed: int, count: int = 5) -> list[list[tree.Hop]]:
    """Random paths of up to four hops at random ports and positions."""
    rng = random.Random(seed)
    paths: list[list[tree.Hop]] = []
    while len(paths) < count:
        chosen = sorted(rng.sample([IN, *node.nodes(net)], rng.randint(1, 4)), key=[IN, *node.nodes(net)].index)
        if tree._in_order(net, [*((c, None, None) for c in chosen), OUT]):
            path: list[tree.Hop] = []
            for c in chosen:
                ports = sorted(edge_circuit.inputs(net, c)) if path else []
                some = rng.sample(ports, rng.randint(1, len(ports))) if ports else None
                path.append((c, some, rng.sample(range(len(CLEAN)), rng.randint(1, len(CLEAN)))))
            paths.append([*path, OUT])
    return paths


@pytest.mark.parametrize("family", EVERY_FAMILY)
@pytest.mark.parametrize("through", [(), ("mlp",)])
def test_paths_of_two_prompts(family: str, through: tuple[str, ...]) -> None:
    """With one prompt for all leaves and another for all else, a tree is a set of paths."""
    net = network(family)
    clean, other = node.resample_values(net, CLEAN), node.resample_values(net, OTHER)
    for seed in range(3):
        paths = some_paths(net, seed)
        expected = tree.tree(net, CLEAN, paths, clean, other, through)
        got = scrubbing.scrub(net, as_tree(net, paths, CLEAN, OTHER), through)
        assert distance(got, expected) < TIGHT
        assert distance(got, node.forward(net, OTHER).logits) > 1e-6


@pytest.mark.parametrize("family", LAYOUTS)
def test_all_paths_from_one_prompt_are_its_run(family: str) -> None:
    net = network(family, 1)
    root = as_tree(net, every_path(net, ()), CLEAN[:2], OTHER[:2])
    assert distance(scrubbing.scrub(net, root), node.forward(net, CLEAN[:2]).logits) < TIGHT


# -------------------------------------------------------------------------------------------- trees of many prompts


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_random_trees(family: str) -> None:
    """One prompt everywhere is its run; MLPs that are named are not let through; and prompts below the root matter."""
    net = network(family)
    mlps = [c for c in node.nodes(net) if c[0] == "mlp"]
    for seed in range(4):
        root = scrubbing.random_tree(net, seed, len(CLEAN))
        assert distance(scrubbing.scrub(net, on_one(root, CLEAN)), node.forward(net, CLEAN).logits) < TIGHT
        got = scrubbing.scrub(net, root)
        assert distance(got, scrubbing.scrub(net, root, ("mlp",), mlps)) < TIGHT
        assert distance(got, node.forward(net, root.prompt).logits) > 1e-6


def on_one(tree: Node, prompt: tuple[int, ...]) -> Node:
    """A tree with one prompt for all its nodes."""
    below = tuple(Input(on_one(x.sender, prompt), x.ports, x.positions) for x in tree.inputs)
    return Node(tree.component, prompt, below)


def test_random_trees_are_trees_of_every_kind() -> None:
    """Depths 1 to 4, heads, MLPs and the input as leaves, heads and MLPs in the middle, one component in two places."""
    net = network("llama")
    depths, leaves, inner, twice = set(), set(), set(), 0
    for seed in range(40):
        root = scrubbing.random_tree(net, seed, len(CLEAN))
        below = [n for n in scrubbing.walk(root) if n is not root]
        depths.add(depth(root))
        leaves |= {n.component[0] for n in below if not n.inputs}
        inner |= {n.component[0] for n in below if n.inputs}
        twice += len({n.component for n in below}) < len(below)
    assert (depths, leaves, inner) == ({1, 2, 3, 4}, {"input", "head", "mlp"}, {"head", "mlp"})
    assert twice > 10


def depth(tree: Node) -> int:
    return max((1 + depth(x.sender) for x in tree.inputs), default=0)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_tree_of_five_prompts_by_explicit_sums(family: str) -> None:
    """input (p) -> m0 (q) -> a1.h2<v> (r) -> logits (s), and a0.h1 (t) -> a1.h2<k>, each sum and norm written out."""
    net = network(family)
    p, q, r, s, t = (tuple(builders.random_ids(70 + i, 4)) for i in range(5))
    sent = {ids: edge.contributions(net, ids) for ids in (p, q, r, s, t)}
    ran = {ids: node.forward(net, ids, record=True) for ids in (p, q, r, s, t)}
    first, second = net.layers
    mlp = first.mlp.hidden(first.pre_mlp(ran[q].reads["mlp_in", 0] - sent[q][IN] + sent[p][IN]))  # type: ignore[misc]
    m0 = mlp @ first.mlp.w_out + first.mlp.b_out
    resid = ran[r].values["resid", 1, "pre"]
    norm, att = second.pre_attention, second.attention
    assert norm is not None
    g = 2 // (att.heads // att.kv_heads)
    xk, xv = norm(resid - sent[r]["head", 0, 1] + sent[t]["head", 0, 1]), norm(resid - sent[r]["mlp", 0] + m0)
    kv = range(att.kv_heads)
    x = norm(resid)
    z = node.attend(att, [x] * att.heads, [xk if i == g else x for i in kv], [xv if i == g else x for i in kv])
    expected = net.finish(ran[s].values["resid", 2, "pre"] - sent[s]["head", 1, 2] + z[2] @ att.wo[2])
    head = Node(
        ("head", 1, 2),
        r,
        (
            Input(Node(("mlp", 0), q, reads(Node(IN, p))), frozenset("v")),
            Input(Node(("head", 0, 1), t), frozenset("k")),
        ),
    )
    assert distance(scrubbing.scrub(net, Node(FINAL, s, reads(head))), expected) < TIGHT


def test_computed_heads_under_a_post_norm_by_explicit_sums() -> None:
    """a0.h0 (q) reads the input (p), a0.h1 is a leaf (t): in the final residual of s, h0 is normed with the z of h1 in
    t and of the other heads in s, while h1 adds what it adds in t."""
    net = network("gemma2", 1)
    p, q, s, t = (tuple(builders.random_ids(80 + i, 4)) for i in range(4))
    plain = {ids: node.forward(net, ids, record=True) for ids in (p, q, s, t)}
    (layer,) = net.layers
    norm, att = layer.pre_attention, layer.attention
    assert norm is not None
    assert layer.post_attention is not None
    x = norm(plain[p].values["input",])  # the whole of what layer 0 reads
    z = node.attend(att, [x] * att.heads, [x] * att.kv_heads, [x] * att.kv_heads)[0]
    others = [z, plain[t].values["head", 0, 1], *(plain[s].values["head", 0, h] for h in (2, 3))]
    share = node.head_shares(layer, others)[0]
    own = edge.contributions(net, s)
    stream = plain[s].values["resid", 1, "pre"] - own["head", 0, 0] - own["head", 0, 1]
    expected = net.finish(stream + share + edge.contributions(net, t)["head", 0, 1])
    root = Node(FINAL, s, reads(Node(("head", 0, 0), q, reads(Node(IN, p))), Node(("head", 0, 1), t)))
    assert distance(scrubbing.scrub(net, root), expected) < TIGHT


# ------------------------------------------------------------------------------------------------- what is no tree


@pytest.mark.parametrize(
    ("root", "said"),
    [
        (Node(A0, one(1)), "the root of a tree is"),
        (Node(FINAL, one(1), reads(Node(A0, one(1), reads(Node(M0, one(1)))))), "does not send to"),
        (Node(FINAL, one(1), reads(Node(A0, (1, 2)))), "equally long"),
        (Node(FINAL, one(1), (Input(Node(A0, one(1)), frozenset("q")),)), "has the ports"),
        (Node(FINAL, one(1), (Input(Node(A0, one(1)), None, frozenset([1])),)), "no such positions"),
        (Node(FINAL, one(1), reads(Node(A0, one(1)), Node(A0, one(2)))), "two values"),
        (Node(FINAL, one(1), reads(Node(("neuron", 0, 0), one(1)))), "sends nothing"),
    ],
)
def test_what_is_no_tree(root: Node, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        scrubbing.scrub(TINY, root)


# ----------------------------------------------------------------------------------------------- trees from paths


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_paths_treeified(family: str) -> None:
    """With one prompt for the leaves and another for all else: what `tree.tree` makes of the paths."""
    net = network(family)
    clean, other = node.resample_values(net, CLEAN), node.resample_values(net, OTHER)
    for seed in range(3):
        paths = [[(hop[0], None, None) for hop in path] for path in some_paths(net, seed)]
        use = scrubbing.treeified(net, paths, len(CLEAN))
        root = scrubbing.with_prompts(use, lambda use: OTHER if use.inputs else CLEAN)
        assert distance(scrubbing.scrub(net, root), tree.tree(net, CLEAN, paths, clean, other, ())) < TIGHT


def test_a_component_stands_in_the_tree_once_for_every_rest() -> None:
    net = network("llama")
    a, b, c = ("head", 0, 0), ("head", 1, 1), ("mlp", 1)
    paths: list[list[tree.Hop]] = [
        [(IN, None, [1]), (a, ["v"], [2]), (b, ["k"], None), OUT],
        [(IN, None, [0]), (a, ["q"], [2]), (b, ["k"], None), OUT],
        [(a, None, [2]), (b, ["v"], None), OUT],
        [(IN, None, None), (a, None, None), (c, None, [3]), OUT],
    ]
    root = scrubbing.treeified(net, paths, 4)
    found = [(use.way, sorted(ports or ()), sorted(positions or ())) for use, ports, positions in below(root)]
    assert sorted(found) == sorted(
        [
            ((b,), ["in"], [0, 1, 2, 3]),
            ((a, b), ["k"], [2]),
            ((IN, a, b), ["v"], [1]),
            ((IN, a, b), ["q"], [0]),
            ((a, b), ["v"], [2]),
            ((c,), ["in"], [3]),
            ((a, c), ["in"], [0, 1, 2, 3]),
            ((IN, a, c), ["k", "q", "v"], [0, 1, 2, 3]),
        ]
    )


def below(use: Use) -> list[tuple[Use, frozenset[str] | None, frozenset[int] | None]]:
    return [x for one in use.inputs for x in ((one.sender, one.ports, one.positions), *below(one.sender))]


@pytest.mark.parametrize("through", [(), ("mlp",)])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_paths_that_end_before_the_logits(family: str, through: tuple[str, ...]) -> None:
    """One path from one source is `path.open_ends`; with a source for each of two, each moves its own end."""
    net = network(family)
    one, two = tuple(builders.random_ids(90, 4)), tuple(builders.random_ids(91, 4))
    a, b, m = ("head", 0, 1), ("head", 1, 2), ("mlp", 1)

    def ends(*sources: tuple[node.Component, tuple[int, ...], node.Component]) -> torch.Tensor:
        given = [(Node(end, CLEAN, (Input(Node(s, ids), None, frozenset([0, 2])),)), None) for s, ids, end in sources]
        return scrubbing.ended(net, CLEAN, given, through)

    for sender, end in ((a, b), (IN, m)):
        source = node.resample_values(net, one)
        expected = path.open_ends(net, CLEAN, source, sender, [(end, None, None)], through, [0, 2])
        assert distance(ends((sender, one, end)), expected) < TIGHT
    seen = {
        s: path.direct(net, CLEAN, {(s, p): node.resample_values(net, ids)[s][p] for p in (0, 2)}, through).reads
        for s, ids in ((a, one), (IN, two))
    }
    reads = {receiver: seen[a][receiver] for receiver in edge_circuit.inputs(net, b).values()}
    reads["mlp_in", 1] = seen[IN]["mlp_in", 1]
    expected = path.after(net, CLEAN, node.Run(torch.empty(0), reads=reads), [(b, None, None), (m, None, None)])
    assert distance(ends((a, one, b), (IN, two, m)), expected) < TIGHT


# ------------------------------------------------------------------------------------------------------------ draws

PLACES = tuple(f"p{p}" for p in range(len(CLEAN)))
"""Slots of prompts that are any tokens: a token each."""


def random_tokens(seed: int) -> Callable[[scrubbing.Slots, frozenset[str]], scrubbing.Slots]:
    rng = random.Random(seed)
    return lambda prompt, carried: {
        slot: word if slot in carried else str(rng.randrange(builders.VOCAB)) for slot, word in prompt.items()
    }


def tokens(prompt: scrubbing.Slots) -> list[int]:
    return [int(prompt[slot]) for slot in PLACES]


def test_draws_agree_with_the_reader_on_what_the_sender_carries() -> None:
    """A slot that an inner node carries and its sender does too is the reference's; of one that the inner node does not
    carry, the sender has the inner node's draw; and what a node does not carry is drawn anew."""
    drawn = iter(range(100))
    slots = ("x", "y")

    def redraw(prompt: scrubbing.Slots, carried: frozenset[str]) -> scrubbing.Slots:
        return {slot: word if slot in carried else str(next(drawn)) for slot, word in prompt.items()}

    use = scrubbing.treeified(TINY, [[(IN, None, None), (A1, None, None), OUT]], 1)
    root = scrubbing.agreeing(
        use,
        lambda use: frozenset("x" if use.component == A1 else "xy"),
        {"x": "1000", "y": "2000"},
        redraw,
        lambda prompt: [int(prompt[slot]) for slot in slots],
    )
    (a1,) = (x.sender for x in root.inputs)
    (leaf,) = (x.sender for x in a1.inputs)
    assert not set(root.prompt) & {1000, 2000}
    assert not set(a1.prompt) & {1000, 2000, *root.prompt}
    assert leaf.prompt[0] == 1000
    assert leaf.prompt[1] not in {2000, *root.prompt, *a1.prompt}


@pytest.mark.parametrize("family", LAYOUTS)
def test_a_whole_hypothesis_that_carries_everything_is_the_model(family: str) -> None:
    """All paths of the model, from prompts that agree on all slots: whatever the random prompts, nothing moves."""
    net = network(family, 1)
    use = scrubbing.treeified(net, every_path(net, ()), len(CLEAN))
    reference = {slot: str(t) for slot, t in zip(PLACES, CLEAN, strict=True)}
    root = scrubbing.agreeing(use, lambda _: frozenset(PLACES), reference, random_tokens(0), tokens)
    assert len({x.prompt for x in scrubbing.walk(root)}) > 5
    assert distance(scrubbing.scrub(net, root), node.forward(net, CLEAN).logits) < TIGHT


def test_random_carried_sets() -> None:
    """Each is computable from the senders', and what the leaves' prompts share with the reference is what all on their
    way carry."""
    net = network("gpt2")
    reference = {slot: str(1000 + t) for slot, t in zip(PLACES, CLEAN, strict=True)}
    sizes = set()
    for seed in range(10):
        use = scrubbing.treeified(net, some_paths(net, seed), len(CLEAN))
        carried = scrubbing.random_carries(use, PLACES, seed)
        for one, _, _ in below(use):
            senders = frozenset[str]().union(*(carried[x.sender] for x in one.inputs))
            assert carried[one] <= senders or not one.inputs
            sizes.add(len(carried[one]))
        root = scrubbing.agreeing(use, carried.__getitem__, reference, random_tokens(seed), tokens)

        def compare(use: Use, drawn: Node, kept: frozenset[str], carried: Any = carried) -> None:
            if not use.inputs:
                assert {slot for slot, t in zip(PLACES, drawn.prompt, strict=True) if t >= 1000} == kept
            for one, other in zip(use.inputs, drawn.inputs, strict=True):
                compare(one.sender, other.sender, kept & carried[one.sender])

        compare(use, root, frozenset(PLACES))
    assert sizes == {0, 1, 2, 3, 4}


def test_scores_by_hand() -> None:
    """Two references, two draws each, of a model whose logits are 2 and the residual."""
    net = scalar_net([[0.0]], [0.0])
    net = dataclasses.replace(
        net,
        unembed=torch.tensor([[0.0, 1.0]], dtype=torch.float64),
        unembed_bias=torch.tensor([2.0, 0.0], dtype=torch.float64),
    )
    prompts = [node.Prompt([t], [0], 0, [1], [0], {}) for t in (3, 5)]
    trees = [[Node(FINAL, one(0), reads(Node(IN, one(t)))) for t in draws] for draws in ((3, 1), (4, 0))]
    scores = scrubbing.experiment(net, prompts, trees, [[one(0), one(1)], [one(1), one(0)]])
    assert scores.clean.tolist() == [3 - 2, 5 - 2]
    assert scores.scrubbed.tolist() == [[3 - 2, 1 - 2], [4 - 2, 0 - 2]]
    assert scores.random.tolist() == [[0 - 2, 1 - 2], [1 - 2, 0 - 2]]
    assert scores.recovered == (0 + 1.5) / (2 + 1.5)
    assert scores.by_draw.tolist() == [(1.5 + 1.5) / 3.5, (-1.5 + 1.5) / 3.5]
    assert scores.flips.tolist() == [[0, 1], [0, 1]]

    def kl(clean: float, scrubbed: float) -> float:
        """With the logits 0 and x, the probabilities 1 / (1 + exp(x)) and exp(x) / (1 + exp(x))."""
        p, q = 1 / (1 + math.exp(-clean)), 1 / (1 + math.exp(-scrubbed))
        return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    assert scores.kl.flatten().tolist() == pytest.approx([kl(1, 1), kl(1, -1), kl(3, 2), kl(3, -2)], abs=1e-12)
