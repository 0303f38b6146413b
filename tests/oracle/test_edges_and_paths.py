"""The edge-level and path-level references checked against each other, the node level and hooks."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from . import builders, edge, families, hooked, node, path
from .test_oracle import ABLATIONS, TIGHT, distance, prompts

MODELS = builders.BUILDERS
POST_NORM = {f for f, build in MODELS.items() if node.shares_a_norm(families.read(build(0, layers=1)).layers[0])}
PLAIN = sorted(set(MODELS) - POST_NORM)
TWO = ["gpt2", "llama"]
BASE, SOURCE = builders.random_ids(50, 6), builders.random_ids(51, 6)


def all_but(net: Any, ablated: set[edge.Edge]) -> edge.Kept:
    return {e: None for e in edge.edges(net) if e not in ablated}


# --------------------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize("family", sorted(MODELS))
def test_contributions_sum_to_the_residual(family: str) -> None:
    net = families.read(MODELS[family](0))
    run = node.forward(net, BASE, record=True)
    total = torch.stack(list(edge.contributions(net, BASE).values())).sum(0)
    total = total + torch.stack([layer.attention.bo * layer.scale for layer in net.layers]).sum(0)
    assert distance(total, run.values["resid", len(net.layers), "pre"]) < TIGHT


@pytest.mark.parametrize("family", sorted(MODELS))
def test_all_edges_kept_is_the_base_and_none_the_source(family: str) -> None:
    for seed in range(3):
        net = families.read(MODELS[family](seed))
        ablated = edge.contributions(net, SOURCE)
        base, source = node.forward(net, BASE, record=True), node.forward(net, SOURCE, record=True)
        whole, none = edge.edge_run(net, BASE, ablated, all_but(net, set())), edge.edge_run(net, BASE, ablated, {})
        assert distance(whole.logits, base.logits) < TIGHT
        assert distance(none.logits, source.logits) < TIGHT
        for receiver, value in base.reads.items():
            assert distance(whole.reads[receiver], value) < TIGHT
            assert distance(none.reads[receiver], source.reads[receiver]) < TIGHT


def test_the_number_of_edges() -> None:
    """Three layers, four heads, h = 5 senders a layer and the input; receivers 4 q + kv k + kv v + 1 MLP a layer."""
    for build, kv in ((builders.random_gpt2, 4), (builders.random_llama, 2)):
        attention = sum((4 + 2 * kv) * (1 + 5 * layer) for layer in range(3))
        mlp = sum(1 + 5 * layer + 4 for layer in range(3))
        assert len(edge.edges(build(0))) == attention + mlp + 16


@pytest.mark.parametrize("family", sorted(MODELS))
def test_ablating_all_edges_out_of_a_component_is_patching_it(family: str) -> None:
    net = families.read(MODELS[family](1))
    values, ablated = node.resample_values(net, SOURCE), edge.contributions(net, SOURCE)
    for seed in range(6):
        rng = random.Random(seed)
        chosen = rng.sample(edge.senders(net), rng.randint(1, 6))
        if family in POST_NORM:  # a head alone changes the norm of the others; a whole block does not
            blocks = {c[1] for c in chosen if c[0] == "head"}
            chosen = [c for c in edge.senders(net) if c in chosen or (c[0] == "head" and c[1] in blocks)]
        where = sorted(rng.sample(range(6), 3))
        kept: dict[edge.Edge, Any] = dict.fromkeys(edge.edges(net))
        for e in kept:
            if e[0] in chosen:
                kept[e] = [p for p in range(6) if p not in where]
        expected = node.noise(net, BASE, values, {(c, p) for c in chosen for p in where})
        assert distance(edge.edge_run(net, BASE, ablated, kept).logits, expected) < TIGHT


@pytest.mark.parametrize("family", sorted(MODELS))
def test_direct_effect_on_the_logits_is_a_sum(family: str) -> None:
    net = families.read(MODELS[family](2))
    ablated, own = edge.contributions(net, SOURCE), edge.contributions(net, BASE)
    resid = node.forward(net, BASE, record=True).values["resid", len(net.layers), "pre"]
    for sender in edge.senders(net):
        got = edge.edge_run(net, BASE, ablated, all_but(net, {(sender, ("final",))})).logits
        assert distance(got, net.finish(resid - own[sender] + ablated[sender])) < TIGHT


@pytest.mark.parametrize("family", sorted(MODELS))
def test_random_edge_sets_receiver_by_receiver(family: str) -> None:
    """The same run built the long way: receivers in order, each read set by hand in a full forward pass of its own."""
    net = families.read(MODELS[family](3, layers=2))
    ablated = edge.contributions(net, SOURCE)
    for seed in range(2):
        rng = random.Random(seed)
        kept: dict[edge.Edge, Any] = {
            e: None if rng.random() < 0.3 else rng.sample(range(6), 4) for e in edge.edges(net) if rng.random() < 0.5
        }
        reads: dict[tuple[node.Receiver, int], Tensor] = {}
        for receiver in edge.receivers(net):
            values = node.forward(net, BASE, reads=reads, record=True).values
            earlier = 2 if receiver[0] == "final" else receiver[1]
            earlier += receiver[0] == "mlp_in" and not net.layers[0].parallel
            bias = sum(
                (net.layers[i].attention.bo * net.layers[i].scale for i in range(earlier)), torch.zeros(net.d_model)
            )
            for p in range(6):
                row = bias.clone().double()
                for sender in edge.senders(net):
                    if (sender, receiver) not in edge.edges(net):
                        continue
                    own = values[sender][p]
                    layer = net.layers[sender[1]] if len(sender) > 1 else net.layers[0]
                    if sender[0] == "head":
                        if (norm := layer.attention.head_norm) is not None:
                            heads = torch.stack([values["head", sender[1], h][p] for h in range(layer.attention.heads)])
                            weights = norm.weight.reshape(heads.shape)[sender[2]]
                            own = own / (heads.square().mean() + norm.eps).sqrt() * weights
                        own = own @ layer.attention.wo[sender[2]]
                        if layer.post_attention is not None:
                            size = values["attn", sender[1]][p].square().mean() + layer.post_attention.eps
                            own = own / size.sqrt() * layer.post_attention.weight
                    if sender[0] == "mlp" and layer.post_mlp is not None:
                        own = layer.post_mlp(own)
                    if sender[0] in ("head", "mlp"):
                        own = own * layer.scale
                    where = kept.get((sender, receiver), [])
                    row = row + (own if where is None or p in where else ablated[sender][p])
                reads[receiver, p] = row
        expected = node.forward(net, BASE, reads=reads).logits
        assert distance(edge.edge_run(net, BASE, ablated, kept).logits, expected) < TIGHT


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_edge_experiments(ablation: str) -> None:
    net = families.read(builders.random_llama(4, layers=2))
    texts = prompts(3)
    whole: dict[edge.Edge, Any] = dict.fromkeys(edge.edges(net))
    assert edge.edge_experiment(net, texts, whole, ablation).recovered["logit_diff"] == pytest.approx(1.0)
    assert edge.edge_experiment(net, texts, {}, ablation).recovered["logit_diff"] == pytest.approx(0.0, abs=1e-9)
    assert edge.edge_experiment(net, texts, {}, ablation, keep=False).recovered["kl"] == pytest.approx(1.0)
    some: dict[edge.Edge, Any] = {e: None for i, e in enumerate(edge.edges(net)) if i % 3}
    rest: dict[edge.Edge, Any] = {e: None for e in edge.edges(net) if e not in some}
    a = edge.edge_experiment(net, texts, some, ablation)
    b = edge.edge_experiment(net, texts, rest, ablation, keep=False)
    assert np.allclose(a.logits, b.logits, atol=TIGHT)


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("keep", [True, False])
def test_edge_experiments_with_roles_step_by_step(ablation: str, keep: bool) -> None:
    """Roles, templates and free senders; ablated contributions taken from hooks and the model's own weights."""
    model = builders.random_llama(5, layers=2)
    net, texts = families.read(model), prompts(4)
    rng = random.Random(0)
    choices: list[set[str] | None] = [None, {"subject"}, {"subject", "end"}]
    circuit = {e: rng.choice(choices) for e in edge.edges(net) if e[0] != ("mlp", 0) and rng.random() < 0.5}
    got = edge.edge_experiment(net, texts, circuit, ablation, keep, free=[("mlp", 0)])

    recorded = []
    for text in texts:
        values = hooked.forward(model, text.corrupt, hooked.LLAMA).values
        out: dict[node.Component, Tensor] = {("input",): values["input",]}
        for index, block in enumerate(model.model.layers):
            out["mlp", index] = values["mlp", index]
            for h in range(4):
                matrix = block.self_attn.o_proj.weight[:, h * 8 : h * 8 + 8]
                out["head", index, h] = values["head", index, h] @ matrix.T
        recorded.append(out)
    for i, text in enumerate(texts):
        peers = [r for r, t in zip(recorded, texts, strict=True) if t.template == text.template]
        pool = {"resample": [recorded[i]], "mean": recorded, "mean_per_template": peers, "zero": [recorded[i]]}[
            ablation
        ]
        ablated = {
            s: torch.stack([one[s] for one in pool]).mean(0) * (0.0 if ablation == "zero" else 1.0) for s in recorded[i]
        }
        kept: dict[edge.Edge, set[int]] = {}
        for e in edge.edges(net):
            if e in circuit:
                roles = circuit[e]
                inside = set(range(7)) if roles is None else {text.roles[name] for name in roles}
            else:
                inside = set()
            kept[e] = set(range(7)) if e[0] == ("mlp", 0) else inside if keep else set(range(7)) - inside
        expected = edge.edge_run(net, text.clean, ablated, kept).logits[-1].numpy()
        assert np.abs(got.logits[i] - expected).max() < TIGHT
        if ablation == "resample":
            anchor = node.forward(net, text.corrupt).logits[-1]
        else:
            free: edge.Kept = {e: None for e in edge.edges(net) if e[0] == ("mlp", 0)}
            anchor = edge.edge_run(net, text.clean, ablated, free).logits[-1]
        assert got.corrupt["logit"][i] == pytest.approx(float(anchor[text.answers].mean()), abs=1e-9)


# --------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("family", sorted(MODELS))
def test_through_nothing_is_the_residual_edge(family: str) -> None:
    net = families.read(MODELS[family](5))
    values, ablated = node.resample_values(net, SOURCE), edge.contributions(net, SOURCE)
    for seed in range(8):
        rng = random.Random(seed)
        sender = rng.choice([s for s in edge.senders(net) if s[0] != "head" or family in PLAIN])
        first = rng.choice([r for r in edge.receivers(net) if edge.precedes(net, sender, r)])
        beside = [r for r in edge.receivers(net) if r[0] in "qkv" and r[1:2] == first[1:2]]
        chosen = rng.sample(beside, 3) if first in beside else [first]
        got = path.path_patch(net, BASE, values, sender, chosen, through=())
        expected = edge.edge_run(net, BASE, ablated, all_but(net, {(sender, r) for r in chosen})).logits
        assert distance(got, expected) < TIGHT


def last_kv(net: families.Net) -> int:
    """The last key-value head of a layer."""
    return net.layers[0].attention.kv_heads - 1


def test_later_receivers_do_not_see_earlier_ones() -> None:
    """Receivers in line: the later one is set to its read of pass C, whatever the earlier one changes."""
    net = families.read(builders.random_gpt2(5))
    values, base = node.resample_values(net, SOURCE), node.forward(net, BASE, record=True)
    sender, chosen = ("head", 0, 0), [("v", 1, 0), ("final",)]
    both = path.path_patch(net, BASE, values, sender, chosen)
    assert distance(both, path.path_patch(net, BASE, values, sender, [("final",)])) < TIGHT
    assert distance(both, base.logits) > 1e-3


@pytest.mark.parametrize("family", sorted(MODELS))
@pytest.mark.parametrize("through", [("mlp",), ()])
def test_a_sender_at_its_base_value_has_no_effect(family: str, through: tuple[str, ...]) -> None:
    net = families.read(MODELS[family](6))
    run = node.forward(net, BASE, record=True)
    neurons = [c for c in [("neuron", 0, 3)] if c in run.values]
    for sender in [("head", 0, 1), ("mlp", 1), ("input",), *neurons]:
        chosen = [("q", 2, 0), ("v", 2, last_kv(net)), ("final",)]
        assert distance(path.path_patch(net, BASE, run.values, sender, chosen, through), run.logits) < TIGHT


@pytest.mark.parametrize("family", sorted(MODELS))
def test_mlps_make_the_difference(family: str) -> None:
    """With no MLP between sender and receiver both kinds of path agree; with one between them they do not."""
    net = families.read(MODELS[family](7))
    values = node.resample_values(net, SOURCE)
    if net.layers[0].parallel:
        with pytest.raises(ValueError, match="before"):
            path.path_patch(net, BASE, values, ("head", 1, 0), [("mlp_in", 1)])
        return
    for sender, receiver, same in [
        (("head", 1, 0), ("mlp_in", 1), True),
        (("mlp", 0), ("k", 1, last_kv(net)), True),
        (("mlp", len(net.layers) - 1), ("final",), True),
        (("head", 0, 2), ("q", 1, 3), False),
        (("head", 2, 2), ("final",), False),
    ]:
        a = path.path_patch(net, BASE, values, sender, [receiver], ("mlp",))
        b = path.path_patch(net, BASE, values, sender, [receiver], ())
        assert (distance(a, b) < TIGHT) is same
        assert distance(a, node.forward(net, BASE).logits) > 1e-3


@pytest.mark.parametrize("through", [("mlp",), ()])
def test_path_patching_step_by_step_with_hooks(through: tuple[str, ...]) -> None:
    """All four passes on the model itself with hooks: the receivers' q, k and v are patched after their projections."""
    model = builders.random_llama(8)
    values = node.resample_values(model, SOURCE)
    base = hooked.forward(model, BASE, hooked.LLAMA).values
    for sender in [("head", 0, 2), ("mlp", 0), ("head", 1, 1)]:
        frozen = {
            (c, p): base[c][p] for c in base if c[0] == "head" or (c[0] == "mlp" and not through) for p in range(6)
        }
        new = {(sender, p): values[sender][p] for p in (2, 4)}
        resid = hooked.forward(model, BASE, hooked.LLAMA, {**frozen, **new}).values["resid", 2, "pre"]
        block = model.model.layers[2]
        normed = block.input_layernorm(resid)
        handles = []
        for name, index in (("q_proj", 3), ("k_proj", 0), ("v_proj", 1)):
            projection = getattr(block.self_attn, name)
            piece = slice(index * 8, index * 8 + 8)
            patch = projection(normed)[:, piece]

            at = (3, 4, 5) if name == "q_proj" else range(6)  # of the queries; keys and values are of every position

            def hook(
                _: Any, args: Any, output: Tensor, piece: slice = piece, patch: Tensor = patch, at: Any = at
            ) -> Tensor:
                output = output.clone()
                for p in at:
                    output[0, p, piece] = patch[p]
                return output

            handles.append(projection.register_forward_hook(hook))
        with torch.no_grad():
            expected = model(torch.tensor([BASE])).logits[0]
        for handle in handles:
            handle.remove()
        chosen = [("q", 2, 3), ("k", 2, 0), ("v", 2, 1)]
        got = path.path_patch(model, BASE, values, sender, chosen, through, (2, 4), (3, 4, 5))
        assert distance(got, expected) < TIGHT
        assert distance(got, node.forward(model, BASE).logits) > 1e-4


@pytest.mark.parametrize("family", sorted(MODELS))
def test_a_path_to_the_logits_is_pass_c(family: str) -> None:
    net = families.read(MODELS[family](9))
    values = node.resample_values(net, SOURCE)
    sent = node.written(net, ("head", 0, 0))
    new = {(sent, p): values[sent][p] for p in range(6)}
    expected = path.direct(net, BASE, new).logits
    assert distance(path.path_patch(net, BASE, values, ("head", 0, 0), [("final",)]), expected) < TIGHT


@pytest.mark.parametrize("family", sorted(MODELS))
def test_a_chain_of_one_hop_is_a_path(family: str) -> None:
    net = families.read(MODELS[family](10))
    values = node.resample_values(net, SOURCE)
    for receiver in [("v", 1, last_kv(net)), ("mlp_in", 2), ("final",)]:
        a = path.chain(net, BASE, values, ("head", 0, 1), [receiver])
        assert distance(a, path.path_patch(net, BASE, values, ("head", 0, 1), [receiver])) < TIGHT


@pytest.mark.parametrize("family", sorted(MODELS))
def test_a_chain_of_residual_edges(family: str) -> None:
    """s -> MLP 1 -> logits: in the edge picture, MLP 1 reads one ablated edge and writes to the logits alone."""
    net = families.read(MODELS[family](11))
    values, ablated = node.resample_values(net, SOURCE), edge.contributions(net, SOURCE)
    sender: node.Component = ("head", 0, 1) if family in PLAIN else ("mlp", 0)
    got = path.chain(net, BASE, values, sender, [("mlp_in", 1), ("final",)], through=())
    own = edge.contributions(net, BASE)
    run = edge.edge_run(net, BASE, ablated, all_but(net, {(sender, ("mlp_in", 1))}))
    resid = node.forward(net, BASE, record=True).values["resid", len(net.layers), "pre"]
    expected = net.finish(resid - own["mlp", 1] + run.contributions["mlp", 1])
    assert distance(got, expected) < TIGHT


@pytest.mark.parametrize("family", PLAIN)
def test_a_neuron_writes_its_column(family: str) -> None:
    net = families.read(MODELS[family](12))
    run, values = node.forward(net, BASE, record=True), node.resample_values(net, SOURCE)
    sender = ("neuron", 1, 5)
    if isinstance(net.layers[1].mlp, families.Mixture):
        assert sender not in run.values
        return
    delta = (values[sender] - run.values[sender]) @ net.layers[1].mlp.w_out[5:6] * net.layers[1].scale
    expected = net.finish(run.values["resid", len(net.layers), "pre"] + delta)
    assert distance(path.path_patch(net, BASE, values, sender, [("final",)], through=()), expected) < TIGHT
    assert distance(expected, run.logits) > 1e-4


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_chain_through_values_moves_every_head_that_shares_them(family: str) -> None:
    """MLP 0 -> values of key-value head 1 in layer 1 -> logits, with the attention patterns of the base run."""
    net = families.read(MODELS[family](13))
    run, values = node.forward(net, BASE, record=True), node.resample_values(net, SOURCE)
    layer = net.layers[1]
    assert layer.pre_attention is not None
    resid = run.values["resid", 1, "pre"]
    before, after = (
        layer.pre_attention(x) @ layer.attention.wv[1] + layer.attention.bv[1]
        for x in (resid, resid - run.values["mlp", 0] + values["mlp", 0])
    )
    final = run.values["resid", 3, "pre"]
    for head in [1] if family == "gpt2" else [2, 3]:
        final = final + run.patterns[1, head] @ (after - before) @ layer.attention.wo[head]
    got = path.chain(net, BASE, values, ("mlp", 0), [("v", 1, 1), ("final",)], through=())
    assert distance(got, net.finish(final)) < TIGHT
