"""Small random models of families whose stream is no plain sum, as in ``builders.py``, which builds them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import Gemma3nForCausalLM, Gemma3nTextConfig, Gemma4ForCausalLM, Gemma4TextConfig

from . import builders
from .stream_families import angles

TYPES = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"]
LAYERS = len(TYPES)
"""The last two read keys and values of layers 2 and 1."""


def _numbers(layers: int) -> dict[str, Any]:
    types = TYPES if layers == LAYERS else TYPES[1 - layers :] + TYPES[-1:] if layers > 1 else TYPES[-1:]
    return {
        **builders._decoder_numbers(layers),
        "intermediate_size": 24,
        "head_dim": 8,
        "sliding_window": 3,
        "layer_types": types,
        "vocab_size_per_layer_input": builders.VOCAB,
        "hidden_size_per_layer_input": 6,
        "num_kv_shared_layers": 2 if layers == LAYERS else 0,
        "final_logit_softcapping": 3.0,
        "pad_token_id": 0,
    }


def random_gemma4(seed: int = 0, attn: str = "eager", exactly: bool = True, layers: int = LAYERS, **extra: Any) -> Any:
    """A random Gemma 4: wider heads where attention is full, wider MLPs where keys are an earlier layer's."""
    more = {"global_head_dim": 12, "use_double_wide_mlp": True}
    config = Gemma4TextConfig(**{**_numbers(layers), **more, **extra})
    model = builders.build(Gemma4ForCausalLM, config, seed, attn, exactly=False)
    generator = torch.Generator().manual_seed(seed)
    for block in model.model.layers:  # type: ignore[union-attr]
        block.layer_scalar.fill_(float(0.5 + torch.rand(1, generator=generator)))
    return exact(model) if exactly else model


def random_gemma3n(seed: int = 0, attn: str = "eager", exactly: bool = True, layers: int = LAYERS, **extra: Any) -> Any:
    """A random Gemma 3n: four streams, of which the second is computed on, and few neurons in the first layers."""
    more = {
        "laurel_rank": 3,
        "altup_active_idx": 0,
        "activation_sparsity_pattern": [0.6 if i < 2 else 0.0 for i in range(layers)],
    }
    config = Gemma3nTextConfig(**{**_numbers(layers), **more, **extra})
    model = builders.build(Gemma3nForCausalLM, config, seed, attn, exactly=False)
    return exact(model) if exactly else model


def exact(model: Any) -> Any:
    """Everything in float64, in place: as ``builders.exact``, and what these families compute in float32 beside."""
    config = model.config
    for name, module in model.named_modules():
        kind = type(module).__name__
        if kind.endswith("RMSNorm") or name.endswith(".mlp"):
            builders._without_downcast(module)
        elif kind.endswith("RotaryEmbedding"):
            for layer, one in enumerate(config.layer_types):
                d_head = model.model.layers[layer].self_attn.o_proj.weight.shape[1] // config.num_attention_heads
                setattr(module, f"{one}_inv_freq", angles(config, one, d_head))
            builders._without_downcast(module)
        elif kind.endswith("ScaledWordEmbedding"):
            module.embed_scale = torch.tensor(module.scalar_embed_scale, dtype=torch.float64)
        elif kind.endswith("AltUp"):
            module.router_input_scale = torch.tensor(1 / config.hidden_size, dtype=torch.float64)
            module.compute_router_modalities = _in_double(module.compute_router_modalities)
        elif name.endswith(".self_attn"):
            builders._without_downcast(module, softmax_only=True)
    if config.model_type == "gemma3n_text":
        model.model.per_layer_projection_scale = torch.tensor(config.hidden_size**-0.5, dtype=torch.float64)
        model.model.per_layer_input_scale = torch.tensor(math.sqrt(0.5), dtype=torch.float64)
    return model


def _in_double(own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def inner(*args: Any, **kwargs: Any) -> Any:
        with builders._NoDowncast(softmax_only=False):
            return own(*args, **kwargs)

    return inner


BUILDERS: dict[str, Callable[..., Any]] = {"gemma3n_text": random_gemma3n, "gemma4_text": random_gemma4}
