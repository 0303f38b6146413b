"""The reference checked against the models themselves, against hooks, against arithmetic by hand and closed forms."""

from __future__ import annotations

import copy
import dataclasses
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from . import builders, families, hooked, node
from .metrics import NAMES, metrics, recovered

MODELS = {family: (build, hooked.NAMES[family]) for family, build in builders.BUILDERS.items()}
EAGER_ALONE = ("bloom", "gemma2", "gpt_neo", "gpt_oss", "gptj", "mpt", "vaultgemma")
IMPLEMENTED = [(f, a) for f in sorted(MODELS) for a in ("eager", "sdpa") if a == "eager" or f not in EAGER_ALONE]
TWO = ["gpt2", "llama"]
TIGHT = 1e-10


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def prompts(count: int = 4, length: int = 7) -> list[node.Prompt]:
    return [
        node.Prompt(
            clean=builders.random_ids(10 + i, length),
            corrupt=builders.random_ids(100 + i, length),
            template=i % 2,
            answers=[3, 5] if i % 2 else [7],
            wrong=[11, 12, 13] if i % 2 else [14],
            roles={"subject": 1 + i % 2, "end": length - 1},
        )
        for i in range(count)
    ]


def everything(net: Any, length: int) -> set[node.Site]:
    return {(c, p) for c in [*node.nodes(net), ("input",)] for p in range(length)}


# ------------------------------------------------------------------------------------------------ the forward pass


@pytest.mark.every_family
@pytest.mark.parametrize(("family", "attn"), IMPLEMENTED)
def test_forward_is_the_model(family: str, attn: str) -> None:
    for seed in range(3):
        model = MODELS[family][0](seed, attn)
        ids = builders.random_ids(seed, 9)
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits[0]
        assert expected.dtype == torch.float64
        assert expected.std() > 0.3
        assert distance(node.forward(model, ids).logits, expected) < TIGHT


@pytest.mark.parametrize(("family", "attn"), IMPLEMENTED)
def test_forward_is_the_untouched_model_up_to_float32(family: str, attn: str) -> None:
    model = MODELS[family][0](0, attn, False)
    ids = builders.random_ids(0, 9)
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0]
    assert distance(node.forward(model, ids).logits, expected) < 1e-4


VARIANTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt2 by layer": (builders.random_gpt2, {"scale_attn_by_inverse_layer_idx": True}),
    "gpt2 unscaled": (builders.random_gpt2, {"scale_attn_weights": False}),
    "gpt2 relu": (builders.random_gpt2, {"activation_function": "relu"}),
    "gpt_neox in sequence": (builders.random_gpt_neox, {"use_parallel_residual": False}),
    "gpt_neox without biases": (builders.random_gpt_neox, {"attention_bias": False}),
    "llama with biases": (builders.random_llama, {"attention_bias": True, "mlp_bias": True}),
    "llama with one kv head": (builders.random_llama, {"num_key_value_heads": 1}),
    "llama without sharing": (builders.random_llama, {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "mistral without a window": (builders.random_mistral, {"sliding_window": None}),
    "olmo2 with biases": (builders.random_olmo2, {"attention_bias": True}),
    "gemma3 with a cap": (builders.random_gemma3, {"final_logit_softcapping": 3.0}),
}


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_variants_of_families(name: str) -> None:
    build, options = VARIANTS[name]
    model = build(0, **options)
    ids = builders.random_ids(0, 9)
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0]
    assert distance(node.forward(model, ids).logits, expected) < TIGHT


FEATURES = {
    "gpt2": {"bq", "bk", "bv", "bo", "scale"},
    "gpt_neox": {"bq", "bk", "bv", "bo", "scale", "rope", "parallel"},
    "llama": {"scale", "rope"},
    "mistral": {"scale", "rope", "window"},
    "qwen2": {"bq", "bk", "bv", "scale", "rope", "window"},
    "qwen3": {"scale", "rope", "q_norm", "k_norm"},
    "gemma2": {"scale", "rope", "window", "softcap", "post_attention", "post_mlp", "embed_scale", "final_softcap"},
    "gemma3_text": {"scale", "rope", "window", "q_norm", "k_norm", "post_attention", "post_mlp", "embed_scale"},
    "olmo2": {"scale", "rope", "q_norm", "k_norm", "norm_across_heads", "post_attention", "post_mlp"},
    "phi3": {"scale", "rope", "window"},
}


@pytest.mark.parametrize("family", sorted(FEATURES))
def test_every_feature_of_a_family_matters(family: str) -> None:
    """Without any one feature the logits are clearly others: so agreement with the model means it is right."""
    net = families.read(MODELS[family][0](0))
    ids = builders.random_ids(0, 9)
    expected = node.forward(net, ids).logits
    for feature in sorted(FEATURES[family]):
        layers = []
        for layer in net.layers:
            att = layer.attention
            off: dict[str, Any] = {"scale": att.scale * 1.1, "norm_across_heads": False}
            off |= {b: torch.zeros_like(getattr(att, b)) for b in ("bq", "bk", "bv", "bo")}
            if feature == "norm_across_heads":
                assert att.q_norm is not None
                assert att.k_norm is not None
                for name, norm in (("q_norm", att.q_norm), ("k_norm", att.k_norm)):
                    off[name] = dataclasses.replace(norm, weight=norm.weight[:8])
                att = dataclasses.replace(att, q_norm=off["q_norm"], k_norm=off["k_norm"], norm_across_heads=False)
            elif hasattr(att, feature):
                change: dict[str, Any] = {feature: off.get(feature)}
                att = dataclasses.replace(att, **change)
            layer = dataclasses.replace(layer, attention=att)
            if feature in ("post_attention", "post_mlp", "parallel"):
                switch: dict[str, Any] = {feature: False if feature == "parallel" else None}
                layer = dataclasses.replace(layer, **switch)
            layers.append(layer)
        other = dataclasses.replace(net, layers=layers)
        if feature in ("embed_scale", "final_softcap"):
            ends: dict[str, Any] = {feature: 1.0 if feature == "embed_scale" else None}
            other = dataclasses.replace(net, **ends)
        moved = distance(node.forward(other, ids).logits, expected)
        # a constant added to every key moves no softmax, unless it is rotated
        assert moved > 1e-3 or (feature == "bk" and family == "gpt2"), feature


def test_an_exact_model_survives_a_deep_copy() -> None:
    model = builders.random_llama(0)
    ids = builders.random_ids(0, 9)
    other = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.zero_()
    with torch.no_grad():
        assert distance(other(torch.tensor([ids])).logits[0], node.forward(other, ids).logits) < TIGHT


@pytest.mark.parametrize("family", sorted(MODELS))
def test_recorded_values_are_those_hooks_see(family: str) -> None:
    build, names = MODELS[family]
    model = build(1)
    ids = builders.random_ids(1, 8)
    run, seen = node.forward(model, ids, record=True), hooked.forward(model, ids, names)
    neurons = set() if any(isinstance(one.mlp, families.Mixture) for one in families.read(model).layers) else {"neuron"}
    assert {c[0] for c in seen.values} >= {"head", "mlp", "attn", "resid", "input"} | neurons
    for component, value in seen.values.items():
        assert distance(run.values[component], value) < TIGHT, component


@pytest.mark.parametrize("family", sorted(MODELS))
def test_attention_patterns_are_the_models(family: str) -> None:
    model = MODELS[family][0](2)
    ids = builders.random_ids(2, 8)
    run = node.forward(model, ids, record=True)
    with torch.no_grad():
        attentions = model(torch.tensor([ids]), output_attentions=True).attentions
    with_heads = [i for i, layer in enumerate(families.read(model).layers) if layer.attention.heads]
    for (layer, head), pattern in run.patterns.items():
        assert distance(pattern, attentions[with_heads.index(layer)][0, head]) < TIGHT


@pytest.mark.parametrize("family", sorted(MODELS))
def test_random_patches_agree_with_hooks(family: str) -> None:
    build, names = MODELS[family]
    model = build(2)
    ids = builders.random_ids(2, 7)
    shapes = hooked.forward(model, ids, names).values
    generator = torch.Generator().manual_seed(0)
    for seed in range(12):
        rng = random.Random(seed)
        kinds = [{"head", "mlp"}, {"head", "mlp", "neuron"}, {c[0] for c in shapes}, {"kv", "input"}][seed % 4]
        pool = sorted((c, p) for c in shapes if c[0] in kinds for p in range(len(ids)))
        sites = rng.sample(pool, rng.randint(1, min(12, len(pool))))
        patches = {(c, p): torch.randn(shapes[c].shape[1], generator=generator, dtype=torch.float64) for c, p in sites}
        ours = node.forward(model, ids, patches, record=True)
        theirs = hooked.forward(model, ids, names, patches)
        assert distance(ours.logits, theirs.logits) < TIGHT
        for component, value in theirs.values.items():
            assert distance(ours.values[component], value) < TIGHT, component


def test_a_patch_nowhere_is_an_error() -> None:
    model = builders.random_gpt2(0)
    for site in [(("head", 0, 4), 0), (("head", 0, 0), 5), (("mlp", 3), 0), (("heads", 0, 0), 0)]:
        with pytest.raises(ValueError, match="no such place"):
            node.forward(model, [1, 2, 3], {site: torch.zeros(8, dtype=torch.float64)})
    with pytest.raises(ValueError, match="wide"):
        node.forward(model, [1, 2, 3], {(("head", 0, 0), 0): torch.zeros(1, dtype=torch.float64)})


# ----------------------------------------------------------------------------------------- identities of patching


@pytest.mark.parametrize("family", sorted(MODELS))
def test_own_values_change_nothing(family: str) -> None:
    model = MODELS[family][0](3)
    ids = builders.random_ids(3, 6)
    run = node.forward(model, ids, record=True)
    sites = {(c, p) for c in run.values for p in range(len(ids))}
    assert distance(node.noise(model, ids, run.values, sites), run.logits) < TIGHT


@pytest.mark.parametrize("family", sorted(MODELS))
def test_patching_everything_gives_the_source(family: str) -> None:
    model = MODELS[family][0](4)
    base, source = builders.random_ids(5, 6), builders.random_ids(6, 6)
    expected = node.forward(model, source, record=True)
    given = expected.values
    assert distance(node.noise(model, base, given, everything(model, 6)), expected.logits) < TIGHT
    final = {(("resid", builders.LAYERS, "pre"), p) for p in range(6)}
    assert distance(node.noise(model, base, given, final), expected.logits) < TIGHT
    # the values are those of the source, so patching less than everything is something else
    assert distance(node.noise(model, base, given, {(("head", 0, 0), 2)}), expected.logits) > 1e-3


@pytest.mark.parametrize("family", sorted(MODELS))
def test_a_patch_changes_no_earlier_position(family: str) -> None:
    model = MODELS[family][0](5)
    ids = builders.random_ids(7, 6)
    patch = {(("head", 1, 2), 3): torch.ones_like(node.zero_values(model, 1)["head", 1, 2][0])}
    delta = (node.forward(model, ids, patch).logits - node.forward(model, ids).logits).abs().max(1).values
    assert float(delta[:3].max()) == 0.0
    assert float(delta[3]) > 1e-6


@pytest.mark.parametrize("family", sorted(MODELS))
def test_heads_are_parts_of_their_block(family: str) -> None:
    """All heads of a layer patched to a source's values are its attention output patched to the source's."""
    model = MODELS[family][0](6)
    base, source = builders.random_ids(8, 6), builders.random_ids(9, 6)
    values = node.resample_values(model, source)
    heads = {(("head", 1, h), p) for h in range(builders.HEADS) for p in range(6)}
    block = {(("attn", 1), p) for p in range(6)}
    assert distance(node.noise(model, base, values, heads), node.noise(model, base, values, block)) < TIGHT
    neurons = {(c, p) for c in values if c[:2] == ("neuron", 1) for p in range(6)}
    mlp = {(("mlp", 1), p) for p in range(6)}
    if isinstance(families.read(model).layers[1].mlp, families.Mixture):
        assert not neurons
        return
    assert distance(node.noise(model, base, values, neurons), node.noise(model, base, values, mlp)) < TIGHT


def test_sharing_a_kv_head() -> None:
    """Query heads 2h and 2h + 1 read key-value head h: a patched kv head leaves the other heads' patterns alone."""
    model = builders.random_llama(7)
    ids = builders.random_ids(10, 6)
    clean = node.forward(model, ids, record=True)
    run = node.forward(model, ids, {(("kv", 0, 1), 2): torch.ones(16, dtype=torch.float64)}, record=True)
    changed = {h for h in range(4) if distance(run.values["head", 0, h], clean.values["head", 0, h]) > 1e-6}
    assert changed == {2, 3}


# ------------------------------------------------------------------------------------------------------ by hand


def test_one_layer_by_hand() -> None:
    """Two dimensions, two heads of one dimension, uniform attention, no MLP, norms with epsilon 3.

    Token 0 is (3, 1) and token 1 is (1, 3). A layer norm maps (a, b) to (x, -x) with d = (a - b) / 2 and
    x = d / sqrt(d^2 + 3): the tokens become (1/2, -1/2) and (-1/2, 1/2). On the prompt 0 0 1 the values average to
    (1/6, -1/6) at the end, so the residual is (1 + 1/6, 3 - 1/6), d = -5/6 and x = -5 / sqrt(133). The unembedding is
    the embedding: logits (2x, -2x). With head 0 set to 5: residual (6, 17/6), d = 19/12, x = 19 / sqrt(793).
    """
    config = GPT2Config(vocab_size=2, n_positions=4, n_embd=2, n_layer=1, n_head=2, n_inner=2, layer_norm_epsilon=3.0)
    model = GPT2LMHeadModel(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        body = model.transformer
        body.wte.weight.copy_(torch.tensor([[3.0, 1.0], [1.0, 3.0]]))
        for norm in (body.h[0].ln_1, body.h[0].ln_2, body.ln_f):
            norm.weight.fill_(1.0)
        body.h[0].attn.c_attn.weight[:, 4:].copy_(torch.eye(2))
        body.h[0].attn.c_proj.weight.copy_(torch.eye(2))
    run = node.forward(model, [0, 0, 1], record=True)
    assert run.values["head", 0, 0][2].item() == pytest.approx(1 / 6, abs=1e-12)
    assert run.values["head", 0, 1][2].item() == pytest.approx(-1 / 6, abs=1e-12)
    x = -5 / math.sqrt(133)
    assert run.logits[2].tolist() == pytest.approx([2 * x, -2 * x], abs=1e-12)
    patched = node.forward(model, [0, 0, 1], {(("head", 0, 0), 2): torch.tensor([5.0], dtype=torch.float64)})
    x = 19 / math.sqrt(793)
    assert patched.logits[2].tolist() == pytest.approx([2 * x, -2 * x], abs=1e-12)


# ----------------------------------------------------------------------------------------------- ablation values


def test_mean_values_are_means() -> None:
    model = builders.random_gpt2(8)
    texts = [builders.random_ids(s, 5) for s in range(4)]
    mean = node.mean_values(model, texts)
    for component in [("head", 1, 2), ("mlp", 0), ("input",)]:
        rows = [node.forward(model, ids, record=True).values[component].numpy() for ids in texts]
        assert np.allclose(mean[component].numpy(), sum(rows) / 4, atol=1e-12)
    groups = node.mean_values_per_template(model, texts, [7, 9, 7, 7])
    assert sorted(groups) == [7, 9]
    assert distance(groups[9]["mlp", 1], node.resample_values(model, texts[1])["mlp", 1]) == 0.0
    assert distance((groups[7]["mlp", 1] * 3 + groups[9]["mlp", 1]) / 4, mean["mlp", 1]) < TIGHT
    with pytest.raises(ValueError, match="one length"):
        node.mean_values(model, [[1, 2], [1, 2, 3]])
    zero = node.zero_values(model, 5)
    assert zero["head", 0, 0].shape == (5, 8)
    assert not any(v.any() for v in zero.values())


# ------------------------------------------------------------------------------------------------------- metrics


def test_metrics_of_a_known_distribution() -> None:
    p = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625])
    clean = np.array([0.2, 0.2, 0.2, 0.2, 0.2])
    got = metrics(np.log(p) + 17.0, [1, 2], [0, 3], np.log(clean) - 3.0)
    two = math.log(2)
    assert got["logit"] == pytest.approx(17 - 2.5 * two)
    assert got["logit_diff"] == pytest.approx(-2.5 * two + 2.5 * two)
    assert got["prob"] == pytest.approx(0.375)
    assert got["logprob"] == pytest.approx(math.log(0.375))
    assert got["prob_diff"] == pytest.approx(0.375 - 0.5625)
    assert got["accuracy"] == 0.0
    assert got["rank"] == 1.0
    assert got["kl"] == pytest.approx(sum(0.2 * math.log(0.2 / x) for x in p))


def test_metrics_with_ties_and_extremes() -> None:
    flat = np.zeros(4)
    got = metrics(flat, [0], [1], flat)
    assert got["accuracy"] == 0.0
    assert got["rank"] == 0.0
    assert got["kl"] == 0.0
    assert got["logprob"] == pytest.approx(-math.log(4))
    far = metrics(np.array([900.0, 0.0, -900.0]), [0], [2], np.array([900.0, 0.0, -900.0]))
    assert far["logit_diff"] == 1800.0
    assert far["logprob"] == pytest.approx(0.0)
    assert far["accuracy"] == 1.0
    assert far["kl"] == 0.0
    assert math.isnan(metrics(flat, [0], [], flat)["logit_diff"])
    assert set(got) == set(NAMES)


def test_recovered_is_a_ratio_of_means() -> None:
    assert recovered([1.0, 5.0], [0.0, 0.0], [2.0, 10.0]) == 0.5
    assert recovered([3.0], [1.0], [2.0]) == 2.0
    assert recovered([1.0, 1.0], [0.0, 2.0], [4.0, 0.0]) == 0.0
    assert math.isnan(recovered([1.0], [1.0], [1.0]))
    assert recovered([2.0], [1.0], [1.0]) == math.inf


# --------------------------------------------------------------------------------------------------- experiments

ABLATIONS = ["resample", "mean", "mean_per_template", "zero"]


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("family", TWO)
def test_whole_and_empty_circuits(family: str, ablation: str) -> None:
    model = MODELS[family][0](9)
    texts = prompts()
    free = {("mlp", 0), ("mlp", 2)}
    whole: node.Circuit = {c: None for c in node.nodes(model) if c not in free}
    kept = node.sufficient(model, texts, whole, free, ablation)
    assert kept.recovered["logit_diff"] == pytest.approx(1.0)
    assert np.allclose(kept.patched["kl"], 0.0)
    empty = node.sufficient(model, texts, {}, free, ablation)
    gone = node.necessary(model, texts, whole, free, ablation)
    assert np.allclose(empty.logits, gone.logits, atol=TIGHT)
    if ablation != "resample":  # the fully ablated model is the corrupt anchor
        assert empty.recovered["logit_diff"] == pytest.approx(0.0)
    none = node.necessary(model, texts, {}, free, ablation)
    assert none.recovered["kl"] == pytest.approx(1.0)
    clean, corrupt = node.anchors(model, texts, free, ablation)
    assert np.array_equal(clean["logit"], empty.clean["logit"])
    assert np.array_equal(corrupt["logit"], gone.corrupt["logit"])


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("family", TWO)
def test_circuits_step_by_step_with_hooks(family: str, ablation: str) -> None:
    """Sufficient, necessary and restore, each done once more from its definition with hooks and its own bookkeeping."""
    build, names = MODELS[family]
    model = build(10)
    texts = prompts()
    free = {("mlp", 1)}
    circuit: node.Circuit = {("head", 0, 1): {"subject"}, ("head", 2, 3): {"end", "subject"}, ("mlp", 2): None}
    results = {
        "sufficient": node.sufficient(model, texts, circuit, free, ablation),
        "necessary": node.necessary(model, texts, circuit, free, ablation),
        "restore": node.restore(model, texts, circuit, free, ("head", 0, 1), ablation),
    }
    recorded = [hooked.forward(model, t.corrupt, names).values for t in texts]
    for i, text in enumerate(texts):
        length = len(text.clean)
        at = {"subject": text.roles["subject"], "end": text.roles["end"]}
        declared: set[node.Site] = {
            (("head", 0, 1), at["subject"]),
            (("head", 2, 3), at["end"]),
            (("head", 2, 3), at["subject"]),
        }
        declared |= {(("mlp", 2), p) for p in range(length)}
        universe: set[node.Site] = {(("head", x, h), p) for x in range(3) for h in range(4) for p in range(length)}
        universe |= {(("mlp", x), p) for x in (0, 2) for p in range(length)}
        sites = {
            "sufficient": universe - declared,
            "necessary": declared,
            "restore": universe - declared - {(("head", 0, 1), p) for p in range(length)},
        }
        for name, where in sites.items():
            patches = {}
            for c, p in where:
                own = recorded[i][c][p]
                peers = [r[c][p] for r, t in zip(recorded, texts, strict=True) if t.template == text.template]
                everyone = [r[c][p] for r in recorded]
                patches[c, p] = {
                    "resample": own,
                    "zero": own * 0,
                    "mean": torch.stack(everyone).mean(0),
                    "mean_per_template": torch.stack(peers).mean(0),
                }[ablation]
            logits = hooked.forward(model, text.clean, names, patches).logits[-1].numpy()
            assert np.abs(results[name].logits[i] - logits).max() < TIGHT
            clean = hooked.forward(model, text.clean, names).logits[-1].numpy()
            for metric, value in metrics(logits, text.answers, text.wrong, clean).items():
                assert results[name].patched[metric][i] == pytest.approx(value, abs=1e-9)
    if ablation == "resample":
        for i, text in enumerate(texts):
            with torch.no_grad():
                logits = model(torch.tensor([text.corrupt])).logits[0, -1]
            assert results["necessary"].corrupt["logit"][i] == pytest.approx(float(logits[text.answers].mean()))


def test_denoising_the_final_residual_restores_everything() -> None:
    model = builders.random_llama(11)
    prompt = prompts(1)[0]
    sites = {(("resid", 3, "pre"), p) for p in range(7)}
    assert distance(node.denoise(model, prompt, sites), node.forward(model, prompt.clean).logits) < TIGHT
    assert distance(node.denoise(model, prompt, set()), node.forward(model, prompt.corrupt).logits) == 0.0


def test_circuits_that_make_no_sense_are_refused() -> None:
    model = builders.random_gpt2(0)
    with pytest.raises(ValueError, match="free"):
        node.sufficient(model, prompts(), {("mlp", 0): None}, {("mlp", 0)})
    with pytest.raises(ValueError, match="not a head"):
        node.necessary(model, prompts(), {("mlp", 9): None}, set())
    with pytest.raises(ValueError, match="ablation"):
        node.necessary(model, prompts(), {("mlp", 0): None}, set(), "median")
