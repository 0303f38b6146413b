"""Every entry of the family table, held against what the family's forward pass does."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.graph.shape import LatentWidths, ModelShape
from circuitspec.models.families.architecture import Architecture, FusedQKV, LatentQKV
from circuitspec.models.families.family_table import _TABLE, SUPPORTED, architecture_named, architecture_of
from circuitspec.models.families.modules import submodule, verify_modules
from circuitspec.models.model_config import shape_of
from tests.matrix import STREAMS
from tests.models.conftest import tiny_gpt2, tiny_llama
from tests.oracle.dense_configs import DENSE, dense_numbers

COMMON = {"vocab_size": 17, "hidden_size": 12, "num_hidden_layers": 3, "bos_token_id": 0, "eos_token_id": 0}
GROUPED = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 10, "max_position_embeddings": 32}
WIDE = {**COMMON, **GROUPED, "head_dim": 6, "pad_token_id": 0}
EVEN = {**COMMON, **GROUPED, "hidden_size": 16, "pad_token_id": 0}
SMALLER = {
    "falcon": {"ffn_hidden_size": 10},
    "gptj": {"n_embd": 16},
    "mpt": {"d_model": 16},
    "opt": {"ffn_dim": 10},
}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 3, "n_head": 4, "n_embd": 12, "vocab_size": 17, "n_positions": 32, "n_inner": 10},
    "gpt_neox": {**COMMON, "num_attention_heads": 2, "intermediate_size": 10, "max_position_embeddings": 32},
    "llama": WIDE,
    "mistral": WIDE,
    "qwen2": EVEN,
    "qwen3": WIDE,
    "gemma2": WIDE,
    "gemma3_text": WIDE,
    "olmo2": EVEN,
    "phi3": EVEN,
    **{
        family: dense_numbers(family, EVEN, SMALLER.get(family, {}))
        for family, own in DENSE.items()
        if "head_dim" not in own
    },
    **{family: dense_numbers(family, WIDE, {"head_dim": 6}) for family, own in DENSE.items() if "head_dim" in own},
    "helium": {**EVEN, "head_dim": 4},
}
UNSHARED = ("bloom", "gptj", "gpt_neo", "mpt", "opt", "persimmon")
FOURFOLD = ("bloom", "gptj", "mpt")
PARALLEL = ("cohere", "cohere2", "falcon", "gptj", "phi")
ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
MIXED = {"num_experts_per_tok": 2, "intermediate_size": 10, "moe_intermediate_size": 6}
WITH_EXPERTS: dict[str, dict[str, Any]] = {
    "mixtral": {**WIDE, **MIXED, "num_local_experts": 5},
    "qwen2_moe": {**EVEN, **MIXED, "num_experts": 5, "shared_expert_intermediate_size": 7},
    "qwen3_moe": {**WIDE, **MIXED, "num_experts": 5, "decoder_sparse_step": 2},
    "olmoe": {**EVEN, **MIXED, "num_experts": 5},
    "phimoe": {**EVEN, **MIXED, "num_local_experts": 5},
    "gpt_oss": {**WIDE, **MIXED, "num_local_experts": 5, "rope_parameters": ROPE},
    "glm4_moe": {**WIDE, **MIXED, "n_routed_experts": 5, "first_k_dense_replace": 1},
    "deepseek_v3": {
        **EVEN,
        **MIXED,
        "num_key_value_heads": 4,
        "n_routed_experts": 5,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "v_head_dim": 6,
        "kv_lora_rank": 9,
        "q_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 3,
    },
    "granitemoe": {
        **EVEN,
        **MIXED,
        "num_local_experts": 5,
        "residual_multiplier": 0.3,
        "logits_scaling": 2.0,
    },
    "llama4_text": {**WIDE, **MIXED, "num_local_experts": 5, "moe_layers": [0, 2], "intermediate_size_mlp": 9},
}
DENSE_LAYERS = {"deepseek_v3": {0}, "qwen3_moe": {0, 2}, "glm4_moe": {0}, "llama4_text": {1}}
CONFIGS |= WITH_EXPERTS
TYPES = ["linear_attention", "full_attention", "linear_attention"]
SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": {**EVEN, "attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_state": 3},
    "granitemoehybrid": {
        **EVEN,
        "layer_types": TYPES,
        "mamba_n_heads": 4,
        "mamba_d_state": 3,
        "num_local_experts": 0,
        "shared_intermediate_size": 10,
        "residual_multiplier": 0.3,
        "logits_scaling": 2.0,
    },
    "lfm2": {**EVEN, "layer_types": ["conv", "full_attention", "conv"], "block_multiple_of": 5},
    "bitnet": {**EVEN},
    "diffllama": {**WIDE},
    "qwen3_5_text": {**WIDE, "layer_types": TYPES},
    "qwen3_next": {**WIDE, **MIXED, "num_experts": 5, "layer_types": TYPES, "mlp_only_layers": [1]},
}
CONFIGS |= SPECIAL
EXPECTED = {
    "gpt2": ModelShape("gpt2", 3, 4, 4, 12, 3, 10, 17, 32),
    "gpt_neox": ModelShape("gpt_neox", 3, 2, 2, 12, 6, 10, 17, 32, has_resid_mid=False),
    **{
        family: ModelShape(family, 3, 4, 2, 12, 6, 10, 17, 32)
        for family, config in CONFIGS.items()
        if config.get("hidden_size") == WIDE["hidden_size"] and "num_key_value_heads" in config
    },
    **{
        family: ModelShape(
            family,
            3,
            4,
            4 if family in UNSHARED else 2,
            16,
            4,
            64 if family in FOURFOLD else 10,
            17,
            None if family == "bloom" else 32,
            has_resid_mid=family not in PARALLEL,
        )
        for family, config in CONFIGS.items()
        if EVEN["hidden_size"] in (config.get("hidden_size"), config.get("n_embd"), config.get("d_model"))
    },
    **{
        family: ModelShape(
            family,
            3,
            4,
            1 if family == "deepseek_v3" else 2,
            c["hidden_size"],
            c.get("v_head_dim", c.get("head_dim", 4)),
            c.get("intermediate_size_mlp", c["intermediate_size"]) if family in DENSE_LAYERS else 0,
            17,
            32,
            n_experts=5,
            d_expert=6 if family in ("deepseek_v3", "glm4_moe", "qwen2_moe", "qwen3_moe") else 10,
            d_shared={"qwen2_moe": 7, "deepseek_v3": 6, "glm4_moe": 6, "llama4_text": 10}.get(family, 0),
            has_shared=family in ("deepseek_v3", "qwen2_moe", "glm4_moe", "llama4_text"),
            dense_layers=frozenset(DENSE_LAYERS.get(family, ())),
            latent=LatentWidths(9, 4, 3) if family == "deepseek_v3" else None,
        )
        for family, c in WITH_EXPERTS.items()
    },
    "bitnet": ModelShape("bitnet", 3, 4, 2, 16, 4, 10, 17, 32, joint_head_norm=True),
    **{
        family: ModelShape(family, 3, 4, 2, 16, 4, 10, 17, 32, mixers=frozenset({0, 2}))
        for family in ("bamba", "granitemoehybrid", "lfm2")
    },
    "diffllama": ModelShape("diffllama", 3, 2, 1, 12, 12, 10, 17, 32, paired_heads=True),
    "qwen3_5_text": ModelShape("qwen3_5_text", 3, 4, 2, 12, 6, 10, 17, 32, query_gates=True, mixers=frozenset({0, 2})),
    "qwen3_next": ModelShape(
        "qwen3_next",
        3,
        4,
        2,
        12,
        6,
        0,
        17,
        32,
        n_experts=5,
        has_shared=True,
        dense_layers=frozenset({1}),
        query_gates=True,
        mixers=frozenset({0, 2}),
    ),
}


def test_every_entry_is_tested() -> None:
    assert {*CONFIGS, *STREAMS} == set(_TABLE)  # these: tests/engine/test_streams_against_oracle.py
    assert set(SUPPORTED) == set(_TABLE)


def build(family: str) -> torch.nn.Module:
    torch.manual_seed(1)
    config = CONFIG_MAPPING[family](**CONFIGS[family])
    config._experts_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").double().eval()
    for parameter in model.parameters():  # norms and biases too: at their initial ones and zeros they hide mistakes
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def norm(
    model: torch.nn.Module, architecture: Architecture, name: str | None, layer: int, x: torch.Tensor
) -> torch.Tensor:
    return x if name is None else submodule(model, architecture.path(name, layer))(x)


def values(
    model: torch.nn.Module, architecture: Architecture, shape: ModelShape, layer: int, x: torch.Tensor
) -> torch.Tensor:
    """v of every query head, (batch, head, position, d_head), from the normed input of the attention."""
    if isinstance(architecture.qkv, LatentQKV):
        latent = submodule(model, architecture.path(architecture.qkv.latent, layer))(x)[..., :9]
        normed = submodule(model, architecture.path(architecture.qkv.norm, layer))(latent)
        made = submodule(model, architecture.port("v", layer))(normed)
        return made.view(*x.shape[:2], shape.n_heads, -1)[..., -shape.d_head :].transpose(1, 2)
    out = submodule(model, architecture.port("v", layer))(x)
    batch, length, _ = out.shape
    d, groups = shape.d_head, shape.n_heads // shape.n_kv_heads
    match architecture.qkv:
        case FusedQKV(layout="per head"):
            heads = out.view(batch, length, shape.n_kv_heads, groups + 2, d)[..., -1, :]
        case FusedQKV():
            heads = out[..., -shape.n_kv_heads * d :].reshape(batch, length, shape.n_kv_heads, d)
        case _:
            heads = out.view(batch, length, shape.n_kv_heads, d)
    return heads.transpose(1, 2).repeat_interleave(groups, dim=1)


def differences(module: Any, shape: ModelShape, pattern: torch.Tensor, entering: torch.Tensor) -> torch.Tensor:
    """z of a DiffLlama's pairs, `[batch, position, head, d_head]`, from the attention maps of both of each."""
    v = module.v_proj(entering).view(2, 4, 2, shape.n_kv_heads, -1).permute(0, 3, 1, 2, 4).flatten(-2)
    v = v.repeat_interleave(shape.n_heads // shape.n_kv_heads, dim=1)
    one, other = pattern.chunk(2, dim=1)
    first, second = (module.lambda_q1 @ module.lambda_k1).exp(), (module.lambda_q2 @ module.lambda_k2).exp()
    z = one @ v - (first - second + module.lambda_init) * (other @ v)
    z = z / (z.square().mean(-1, keepdim=True) + module.groupnorm.eps).sqrt() * (1 - module.lambda_init)
    return z.transpose(1, 2)


def first(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_table_means_what_it_says(family: str) -> None:
    if family == "gpt_neox" and transformers.__version__.startswith("4."):
        pytest.skip("transformers 4 names its unembedding otherwise")
    shape, model = EXPECTED[family], build(family)
    architecture = architecture_of(model.config.to_dict())
    found = shape_of(model.config.to_dict())
    assert found.joint_qk_norm == architecture.joint_qk_norm
    assert dataclasses.replace(found, plain_sum=True, joint_qk_norm=False) == shape
    verify_modules(model, architecture, shape)

    seen: dict[str, torch.Tensor] = {}

    def watch(component: str) -> None:
        path, _, side = component.rpartition(".")
        module = submodule(model, path)
        if side == "input":
            module.register_forward_pre_hook(
                lambda _, args, kwargs: seen.update({component: (args or tuple(kwargs.values()))[0]}), with_kwargs=True
            )
        else:
            # Falcon adds what its attention gives to this tensor, in place
            module.register_forward_hook(lambda _, args, output: seen.update({component: first(output).clone()}))

    a = architecture
    for layer in range(shape.n_layers):
        for component in (a.resid_in(layer), a.mlp_out(layer)):
            watch(component)
        watch(a.mixer_out(layer) if layer in shape.mixers else a.z(layer))
        if a.mlp_down is not None or layer in shape.dense_layers:
            watch(a.neurons(layer))
        if (mid := a.resid_mid(layer)) is not None:
            watch(mid)
        if layer not in shape.mixers:
            watch(f"{a.path(a.attn_out, layer)}.output")
    watch(a.resid_final())
    with torch.no_grad():
        attention = model(torch.tensor([[1, 5, 2, 7], [3, 3, 9, 4]]), output_attentions=True).attentions
        seen = {name: value.unflatten(0, (2, -1)) if value.ndim == 2 else value for name, value in seen.items()}

        for layer in range(shape.n_layers):
            resid = seen[a.resid_in(layer)]
            mlp_out = seen[a.mlp_out(layer)].view(2, 4, -1)
            assert mlp_out.shape == (2, 4, shape.d_model)

            # head h is z's channels h*d_head to (h+1)*d_head: its attention pattern times its values
            if layer not in shape.mixers:
                z = seen[a.z(layer)]
                assert z.shape == (2, 4, shape.n_heads * shape.d_head)
                entering = norm(model, a, a.attn_norm, layer, resid)
                pattern = attention[shape.layers_with_heads.index(layer)]
                if a.paired_heads:
                    by_head = differences(submodule(model, a.path("self_attn", layer)), shape, pattern, entering)
                else:
                    by_head = (pattern @ a.clipped(values(model, a, shape, layer, entering))).transpose(1, 2)
                if a.query_gates:
                    both = submodule(model, a.port("q", layer))(entering).view(2, 4, shape.n_heads, 2, -1)
                    by_head = by_head * torch.sigmoid(both[..., 1, :])
                torch.testing.assert_close(z, by_head.reshape(z.shape), rtol=0, atol=1e-6 if a.paired_heads else 1e-10)

            # neurons are what the MLP's output projection reads
            if a.mlp_down is not None or layer in shape.dense_layers:
                neurons = seen[a.neurons(layer)]
                assert neurons.shape == (2, 4, shape.d_mlp)
                normed = norm(model, a, a.neuron_norm, layer, neurons)
                down = a.neurons_down
                assert down is not None
                written = submodule(model, a.path(down, layer))(normed)
                torch.testing.assert_close(written, mlp_out, rtol=0, atol=1e-10)

            # the residual stream gains the two outputs, each after its post norm where there is one, and nothing else
            given = a.mixer_out(layer) if layer in shape.mixers else f"{a.path(a.attn_out, layer)}.output"
            attn = norm(model, a, a.attn_post_norm, layer, seen[given])
            attn = attn * a.residual_multiplier
            mlp = norm(model, a, a.mlp_post_norm, layer, mlp_out) * a.residual_multiplier
            after = seen[a.resid_in(layer + 1) if layer + 1 < shape.n_layers else a.resid_final()]
            torch.testing.assert_close(after, resid + attn + mlp, rtol=0, atol=1e-10)
            if a.residual == "sequential":
                torch.testing.assert_close(seen[a.resid_mid(layer) or ""], resid + attn, rtol=0, atol=1e-10)
            read = resid if a.residual == "parallel" else resid + attn
            normed = norm(model, a, a.mlp_norm, layer, read)
            computed = normed
            for module in a.mlp_modules:
                computed = first(submodule(model, a.path(module, layer))(computed))
            computed = computed.view(mlp_out.shape)
            torch.testing.assert_close(computed, mlp_out, rtol=0, atol=1e-10)

        logits = submodule(model, a.unembedding)(submodule(model, a.final_norm)(seen[a.resid_final()]))
        softcap = getattr(model.config, "final_logit_softcapping", None)
        logits = logits if softcap is None else torch.tanh(logits / softcap) * softcap
        logits = logits * a.logit_multiplier
        torch.testing.assert_close(model(torch.tensor([[1, 5, 2, 7], [3, 3, 9, 4]])).logits, logits, rtol=0, atol=1e-10)


def test_components_as_pyvene_names_them() -> None:
    gpt2, llama = architecture_named("gpt2"), architecture_named("llama")
    assert gpt2.z(0) == "transformer.h[0].attn.c_proj.input"
    assert gpt2.mlp_out(11) == "transformer.h[11].mlp.output"
    assert gpt2.neurons(1) == "transformer.h[1].mlp.c_proj.input"
    assert gpt2.resid_in(5) == "transformer.h[5].input"
    assert gpt2.resid_mid(5) == "transformer.h[5].ln_2.input"
    assert gpt2.resid_final() == "transformer.ln_f.input"
    assert [gpt2.port(port, 2) for port in ("q", "k", "v")] == ["transformer.h[2].attn.c_attn"] * 3
    assert llama.z(3) == "model.layers[3].self_attn.o_proj.input"
    assert llama.mlp_out(3) == "model.layers[3].mlp.output"
    assert llama.neurons(3) == "model.layers[3].mlp.down_proj.input"
    assert llama.port("k", 3) == "model.layers[3].self_attn.k_proj"
    assert [_TABLE[family].plain_sum for family in ("gpt2", "llama", "gemma2", "olmo2")] == [True, True, False, False]


@pytest.mark.parametrize(
    ("family", "said"),
    [("gpt-2", "`model_type` is written gpt2"), ("stablelm", "to add one, write its Architecture")],
)
def test_unknown_family(family: str, said: str) -> None:
    with pytest.raises(CircuitspecError) as raised:
        architecture_of({"model_type": family})
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "CS304"
    assert said in diagnostic.hint
    assert "circuitspec/models/families" in diagnostic.hint
    assert "gpt2, llama" in diagnostic.hint


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("jamba", "recurrent state in place of attention"),
        ("zamba2", "recurrent state in place of attention"),
        ("nemotron_h", "recurrent state in place of attention"),
        ("recurrent_gemma", "recurrent state in place of attention"),
        ("lfm2_moe", "recurrent state in place of attention"),
        ("falcon_h1", "recurrent state in place of attention"),
        ("t5", "encoder-decoder"),
        ("bart", "encoder-decoder"),
        ("whisper", "encoder-decoder"),
        ("bert", "predicts no next token"),
        ("modernbert", "predicts no next token"),
        ("llava", "its text model is a llama, which is supported: save that one by itself"),
        ("llama4", "its text model is a llama4_text, which is supported: save that one by itself"),
        ("mllama", "its text model is a mllama_text_model, which is no supported family"),
        ("deepseek_v2", "one latent of keys and values"),
        ("dbrx", "choices among experts"),
    ],
)
def test_whole_configs_of_other_families_end_in_advice(family: str, said: str) -> None:
    """As transformers writes them, with all that they say beside the family's name."""
    config = CONFIG_MAPPING[family]().to_dict()
    with pytest.raises(CircuitspecError) as raised:
        shape_of(config)
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "CS304"
    assert said in diagnostic.message
    assert "supported: gpt2, llama" in diagnostic.hint


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("mamba", "no heads"),
        ("t5", "encoder-decoder"),
        ("bert", "no next token"),
        ("gemma3", "text model by itself"),
        ("dbrx", "experts"),
        ("gpt", ""),
        ("stablelm", ""),
        ("codegen", ""),
    ],
)
def test_other_families_are_told_apart_and_none_is_guessed(family: str, said: str) -> None:
    with pytest.raises(CircuitspecError) as raised:
        architecture_of({"model_type": family})
    (diagnostic,) = raised.value.diagnostics
    assert said in diagnostic.message
    assert diagnostic.hint.startswith("supported: ")  # no "did you mean"


@pytest.mark.parametrize("config", [{}, {"model_type": None}, {"model_type": ""}, {"model_type": 7}])
def test_config_without_family(config: dict[str, object], code_of: Any) -> None:
    assert code_of(lambda: architecture_of(config)) == "CS305"


def test_setting_that_changes_the_meaning(code_of: Any) -> None:
    assert code_of(lambda: architecture_of({"model_type": "gpt2", "add_cross_attention": True})) == "CS314"
    for maximum, code in ((8, None), (4, "CS314")):  # findings/mpt_alibi_bias_max_is_not_read.sh
        config = {"model_type": "mpt", "attn_config": {"alibi_bias_max": maximum}}
        if code is None:
            assert architecture_of(config).family == "mpt"
        else:
            assert code_of(lambda given=config: architecture_of(given)) == code
    assert architecture_of({"model_type": "gpt2", "add_cross_attention": False}).family == "gpt2"


def problems(model: torch.nn.Module, family: str, shape: ModelShape) -> list[str]:
    with pytest.raises(CircuitspecError) as raised:
        verify_modules(model, architecture_named(family), shape)
    assert {d.code for d in raised.value.diagnostics} == {"CS313"}
    return [d.message for d in raised.value.diagnostics]


def test_modules_that_are_not_there() -> None:
    shape = ModelShape("gpt2", 3, 2, 2, 8, 4, 32, 17, 16)
    model = tiny_gpt2()
    verify_modules(model, architecture_named("gpt2"), shape)
    del model.transformer.h[1].mlp.c_proj
    model.transformer.h[2].ln_2 = None
    assert problems(model, "gpt2", shape) == [
        "the model has no module transformer.h[1].mlp.c_proj",
        "the model has no module transformer.h[2].ln_2",
    ]
    assert problems(tiny_llama(), "gpt2", shape) == ["the model has no module transformer.h"]


def test_modules_of_another_width() -> None:
    shape = ModelShape("llama", 2, 4, 2, 12, 6, 10, 17, 32)
    model = tiny_llama()
    verify_modules(model, architecture_named("llama"), shape)
    model.model.layers[1].self_attn.o_proj = torch.nn.Linear(23, 12)
    model.model.layers[0].mlp.down_proj = torch.nn.Linear(10, 13)
    assert problems(model, "llama", shape) == [
        "model.layers[0].mlp.down_proj writes 13 channels, expected 12",
        "model.layers[1].self_attn.o_proj reads 23 channels, expected 24",
    ]
    assert problems(model, "llama", ModelShape("llama", 3, 4, 2, 12, 6, 10, 17, 32)) == [
        "model.layers holds 2 blocks, config.json says 3"
    ]
    model.lm_head = torch.nn.Identity()
    assert "lm_head has no weight matrix" in problems(model, "llama", shape)


def test_imports_no_torch() -> None:
    modules = (
        "families.architecture, families.modules, shapes, model_reference, storage.cache, gguf, storage.hub, "
        "storage.weight_files, tokenizers.tokenizer, storage.quiet, load"
    )
    names = ", ".join(f"circuitspec.models.{name}" for name in modules.split(", "))
    code = f"import sys; import {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
