"""Families with layouts that none of the four tested in full has, in small; and the settings of further families."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.validation.self_test import self_test
from circuitspec.models.families.family_table import architecture_named
from tests.engine.support import TOLERANCE, loaded, random_prompts, runner, task_of
from tests.engine.test_against_oracle import check_circuit
from tests.engine.test_edges_against_oracle import SOURCES, experiment_of, oracle_edges, random_edges
from tests.oracle import builders, node


def check_edges(model: Any, ablation: str = "resample") -> None:
    """Some edges ablated at positions of their own; before them the self-test, which takes every edge and a path."""
    prompts = random_prompts(11, [5, 7, 6])
    ablated = random_edges(loaded(model).shape, 5, 0.6)
    experiment = experiment_of(ablated, SOURCES[ablation])
    with borrowed(model):
        run = runner(model, task_of(prompts), rows=3)
        self_test(run, edges=True)
        found = run.run([experiment])[experiment]
    for name, values in oracle_edges(model, prompts, ablated, SOURCES[ablation], "clean").items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=TOLERANCE, err_msg=name)


# a multiplier on what is added; queries that share a key and a value in one projection, and one norm for both; an MLP
# without a module, given tokens in one row; an MLP whose module adds the stream; keys and values of all heads from one
# latent
@pytest.mark.parametrize("layout", ["granite", "falcon", "opt", "bloom", "deepseek_v3"])
def test_a_layout_of_its_own(layout: str) -> None:
    model = of(layout)
    check_circuit(model, "resample")
    check_edges(model, "zero" if layout == "granite" else "resample")


def test_a_multiplier_that_config_json_does_not_give_is_found() -> None:
    model = copy.deepcopy(of("granite"))
    model.model.layers[1].residual_multiplier = 0.31  # config.json says 0.3
    with borrowed(model), pytest.raises(CircuitspecError) as raised:
        self_test(runner(model, task_of(random_prompts(11, [5, 7])), rows=2))
    assert {diagnostic.code for diagnostic in raised.value.diagnostics} == {"CS503"}


def of(family: str, **config: Any) -> Any:
    return builders.BUILDERS[family](3, architecture_named(family).attention or "sdpa", layers=2, **config)


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "arcee without sharing": ("arcee", {"num_key_value_heads": 4, "mlp_bias": False, "attention_bias": True}),
    "bloom of eight heads": ("bloom", {"n_head": 8}),
    "cohere without norms of q and k": ("cohere", {"use_qk_norm": False, "attention_bias": False}),
    "cohere with the usual scale": ("cohere", {"logit_scale": 0.0625}),
    "cohere 2 with biases": ("cohere2", {"attention_bias": True, "tie_word_embeddings": False}),
    "deepseek 3 without a latent of queries": ("deepseek_v3", {"q_lora_rank": None, "attention_bias": False}),
    "deepseek 3 with halves rotated": ("deepseek_v3", {"rope_interleave": False, "norm_topk_prob": False}),
    "deepseek 3 with keys as wide as values": (
        "deepseek_v3",
        {"qk_nope_head_dim": 8, "v_head_dim": 8, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "first_k_dense_replace": 0},
    ),
    "exaone 4 with one kv head": ("exaone4", {"num_key_value_heads": 1}),
    "falcon with one kv head": ("falcon", {"new_decoder_architecture": False, "bias": False}),
    "falcon in sequence, without rotation": (
        "falcon",
        {
            "new_decoder_architecture": False,
            "multi_query": False,
            "num_kv_heads": 4,
            "parallel_attn": False,
            "alibi": True,
        },
    ),
    "falcon with one norm": ("falcon", {"num_ln_in_parallel_attn": 1}),
    "falcon without rotation": ("falcon", {"alibi": True}),
    "gemma with biases and one kv head": ("gemma", {"attention_bias": True, "num_key_value_heads": 1}),
    "gemma untied": ("gemma", {"tie_word_embeddings": False}),
    "glm-4 without biases": ("glm4", {"attention_bias": False, "num_key_value_heads": 1}),
    "gpt-neo without windows": ("gpt_neo", {"attention_types": [[["global"], 2]]}),
    "gpt-j wholly rotated": ("gptj", {"rotary_dim": 8}),
    "gpt-neox in sequence": ("gpt_neox", {"use_parallel_residual": False}),
    "granite moe with multipliers of one": (
        "granitemoe",
        {"residual_multiplier": 1.0, "embedding_multiplier": 1.0, "logits_scaling": 1.0, "attention_bias": False},
    ),
    "granite untied, without biases": (
        "granite",
        {"tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False},
    ),
    "granite with multipliers of one": (
        "granite",
        {"residual_multiplier": 1.0, "embedding_multiplier": 1.0, "logits_scaling": 1.0},
    ),
    "helium with biases": ("helium", {"attention_bias": True, "mlp_bias": True}),
    "ministral without a window": ("ministral", {"layer_types": ["full_attention"] * 2}),
    "mpt with a scale of its own": ("mpt", {"attn_config": {"softmax_scale": 0.2}}),
    "nemotron with biases": ("nemotron", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "olmo without clipping": ("olmo", {"clip_qkv": None, "attention_bias": True}),
    "olmo 3 with one kv head": ("olmo3", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "opt without biases": ("opt", {"enable_bias": False, "tie_word_embeddings": False}),
    "opt with a gelu": ("opt", {"activation_function": "gelu"}),
    "persimmon without norms of q and k": ("persimmon", {"qk_layernorm": False}),
    "phi without norms of q and k": ("phi", {"qk_layernorm": False, "num_key_value_heads": 1}),
    "phi tied": ("phi", {"tie_word_embeddings": True}),
    "seed-oss without biases": ("seed_oss", {"attention_bias": False, "attention_out_bias": False}),
    "smollm3 without windows": ("smollm3", {"use_sliding_window": False, "attention_bias": True, "mlp_bias": True}),
    "starcoder2 without biases and window": ("starcoder2", {"use_bias": False, "sliding_window": None}),
    "vaultgemma without caps": ("vaultgemma", {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
}


@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_settings_of_a_family(name: str) -> None:
    family, config = VARIANTS[name]
    model = of(family, **config)
    ids = builders.random_ids(0, 9)
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0]
    assert float((node.forward(model, ids).logits - expected).abs().max()) < 1e-10
    check_circuit(model, "resample")
    check_edges(model)


STRETCHED: dict[str, dict[str, Any]] = {
    "dynamic": {"factor": 4.0},
    "linear": {"factor": 4.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16},
    "longrope": {"short_factor": 1.25, "long_factor": 3.0, "original_max_position_embeddings": 16},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
}
ROTATED = (
    "arcee",
    "bitnet",
    "cohere",
    "deepseek_v3",
    "diffllama",
    "exaone4",
    "gemma",
    "glm4",
    "glm4_moe",
    "granite",
    "granitemoe",
    "helium",
    "mixtral",
    "nemotron",
    "olmo",
    "olmoe",
    "persimmon",
    "phi",
    "qwen2_moe",
    "qwen3_moe",
    "seed_oss",
    "smollm3",
    "starcoder2",
)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", sorted(STRETCHED))
@pytest.mark.parametrize("family", ROTATED)
def test_rotary_embeddings_that_are_stretched(family: str, kind: str) -> None:
    """All kinds of them in all further families that take any, against the papers' formulas."""
    config = of(family).config
    before = config.rope_parameters or {}
    said = {"rope_theta": 10_000.0, **before, "rope_type": kind, **STRETCHED[kind]}
    if kind == "longrope":
        width = getattr(config, "qk_rope_head_dim", None) or getattr(config, "head_dim", None)
        width = width or config.hidden_size // config.num_attention_heads
        pairs = int(width * said.get("partial_rotary_factor", 1.0)) // 2
        said |= {name: [said[name] + i / 8 for i in range(pairs)] for name in ("short_factor", "long_factor")}
    # transformers 5.23 cannot stretch Mixtral's where config.json leaves head_dim to be worked out
    sizes = {"head_dim": config.hidden_size // config.num_attention_heads} if family == "mixtral" else {}
    model = of(family, rope_parameters=said, **sizes)
    ids = builders.random_ids(0, 9)
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0]
        plain = of(family, **sizes)(torch.tensor([ids])).logits[0]
    assert float((node.forward(model, ids).logits - expected).abs().max()) < 1e-10
    assert kind == "dynamic" or float((plain - expected).abs().max()) > 1e-6  # it is read
    check_circuit(model, "resample")
    check_edges(model)
