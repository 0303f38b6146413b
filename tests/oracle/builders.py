"""Small random models in float64 whose every weight, norms and biases included, is far from trivial.

Hugging Face models compute some steps in float32 whatever the dtype of their weights: RMS norms, the rotary angles and
(eager attention only) the softmax of most families. ``exact(model)`` makes those steps float64 too, so that a float64
model agrees with an exact reference to about 1e-13 and not to 1e-6. It changes instances only, no class or module.
"""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from . import expert_builders, scaled_rope, special_builders
from .dense_configs import DENSE, dense_numbers
from .families import inverse_frequencies, rope_parameters

VOCAB = 60
D_MODEL = 32
HEADS = 4
KV_HEADS = 2
LAYERS = 3
POSITIONS = 32


class _NoDowncast(TorchFunctionMode):
    """While active, nothing turns a float64 tensor into a float32 one, and integers turned to float become float64.

    With ``softmax_only`` just the softmax is kept from it: other code (hooks, say) may run inside an attention block.
    """

    def __init__(self, softmax_only: bool) -> None:
        super().__init__()
        self.softmax_only = softmax_only

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if self.softmax_only and getattr(func, "__name__", "") != "softmax":
            return func(*args, **kwargs)
        if func is Tensor.float:
            return args[0].double()
        if func is Tensor.type and args[1:] == (torch.float32,):
            return args[0].double()
        if func is Tensor.to:
            args = tuple(torch.float64 if a is torch.float32 else a for a in args)
        if kwargs.get("dtype") is torch.float32:
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


def _without_downcast(module: nn.Module, softmax_only: bool = False) -> None:
    """Run this instance's forward, and nothing else, under ``_NoDowncast``. Survives ``copy.deepcopy``."""

    @functools.wraps(type(module).forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with _NoDowncast(softmax_only):
            return type(self).forward(self, *args, **kwargs)

    module.forward = types.MethodType(forward, module)


def _refine_frequencies(module: nn.Module, config: Any) -> None:
    """Replace a rotary module's float32 inverse frequencies by the float64 ones they are the rounding of."""
    kinds = [None, "full_attention", "sliding_attention"]
    for name, buffer in list(module.named_buffers(recurse=False)):
        if not name.endswith("inv_freq"):
            continue
        for kind in kinds:
            try:
                theta, _ = rope_parameters(config, kind)
                said = scaled_rope.said_of(config, kind)
            except (KeyError, AttributeError, TypeError):
                continue
            refined = inverse_frequencies(theta, 2 * buffer.numel())
            if said:
                refined = scaled_rope.stretched(refined, said, scaled_rope.original_length(config, said))
            if torch.allclose(refined, buffer.double(), rtol=1e-6, atol=0.0):
                setattr(module, name, refined)
                break
        else:
            raise ValueError(f"{name}: no known rotary base gives these frequencies")


DOWNCASTING = ("OlmoLayerNorm", "CohereLayerNorm", "Cohere2LayerNorm")
"""Norms that compute in float32, beside all RMS norms."""
WHOLLY_DOWNCASTING = ("Cohere", "DiffLlama", "GPTNeo", "Mpt")
"""Whose attention turns more than its softmax into float32."""


def sines(positions: int, width: int) -> Tensor:
    """GPT-J's table of sines, then cosines, in float64: ``[positions, width]``."""
    angles = torch.outer(torch.arange(positions, dtype=torch.float64), inverse_frequencies(10000.0, width))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def exact(model: nn.Module) -> nn.Module:
    """Make a float64 model compute everything in float64, in place; returned for convenience."""
    config: Any = model.config
    for name, module in model.named_modules():
        kind = type(module).__name__
        if kind.endswith(("RMSNorm", "L2Norm", "Router", *DOWNCASTING)):
            _without_downcast(module)
        elif kind.endswith("RotaryEmbedding"):
            _refine_frequencies(module, config)
            _without_downcast(module)
        elif kind == "GPTJAttention":
            module.embed_positions = sines(config.n_positions, config.rotary_dim)
            _without_downcast(module)
        elif kind.endswith("ScaledWordEmbedding"):
            module.embed_scale = torch.tensor(math.sqrt(config.hidden_size), dtype=torch.float64)
        elif name.endswith((".attn", ".self_attn", ".attention", ".self_attention")):
            _without_downcast(module, softmax_only=not kind.startswith(WHOLLY_DOWNCASTING))
    return model


def draw(model: nn.Module, seed: int, std: float = 0.3) -> nn.Module:
    """Fill every parameter with seeded normal draws in float64 (around 1 for the norms that multiply by it), eval mode.

    The draws depend on the seed and the parameters' names and shapes alone, not on any global random state.
    """
    model = model.double().eval()
    generator = torch.Generator().manual_seed(seed)
    one_plus = any(name in str(model.config.model_type) for name in ("gemma", "nemotron"))  # type: ignore[union-attr]
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * std
            is_norm = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(1.0 + values if is_norm and not one_plus else values)
            parameter.requires_grad_(False)
    return model


def build(cls: Callable[[Any], nn.Module], config: Any, seed: int, attn: str, exactly: bool) -> nn.Module:
    """A model of a configuration with drawn weights and the given attention implementation (``eager`` or ``sdpa``)."""
    config._attn_implementation = attn
    with torch.random.fork_rng():
        model = cls(config)
    model = draw(model, seed)
    return exact(model) if exactly else model


def random_gpt2(seed: int = 0, attn: str = "eager", exactly: bool = True, layers: int = LAYERS, **extra: Any) -> Any:
    """A random GPT-2: multi-head attention, learned positions, tied unembedding."""
    numbers = {
        "vocab_size": VOCAB,
        "n_positions": POSITIONS,
        "n_embd": D_MODEL,
        "n_layer": layers,
        "n_head": HEADS,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return build(GPT2LMHeadModel, GPT2Config(**{**numbers, **extra}), seed, attn, exactly)


def _decoder_numbers(layers: int) -> dict[str, Any]:
    return {
        "vocab_size": VOCAB,
        "max_position_embeddings": POSITIONS,
        "hidden_size": D_MODEL,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "pad_token_id": None,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


def random_llama(seed: int = 0, attn: str = "eager", exactly: bool = True, layers: int = LAYERS, **extra: Any) -> Any:
    """A random Llama: grouped-query attention with two key-value heads, rotary positions, a gated MLP."""
    return build(LlamaForCausalLM, LlamaConfig(**{**_decoder_numbers(layers), **extra}), seed, attn, exactly)


def random_gpt_neox(
    seed: int = 0, attn: str = "eager", exactly: bool = True, layers: int = LAYERS, **extra: Any
) -> Any:
    """A random GPT-NeoX: parallel attention and MLP, half of each head rotated."""
    numbers = {k: v for k, v in _decoder_numbers(layers).items() if k != "num_key_value_heads"}
    config = GPTNeoXConfig(**{**numbers, "rotary_pct": 0.5, **extra})
    return build(GPTNeoXForCausalLM, config, seed, attn, exactly)


def random_mistral(seed: int = 0, attn: str = "eager", exactly: bool = True, layers: int = LAYERS, **extra: Any) -> Any:
    """A random Mistral: a sliding window of 4 in every layer."""
    config = MistralConfig(**{**_decoder_numbers(layers), "sliding_window": 4, **extra})
    return build(MistralForCausalLM, config, seed, attn, exactly)


def random_qwen2(seed: int = 0, attn: str = "eager", exactly: bool = True, layers: int = LAYERS, **extra: Any) -> Any:
    """A random Qwen 2: q, k and v biases, a sliding window of 3 in the last layer only."""
    window = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": layers - 1}
    config = Qwen2Config(**{**_decoder_numbers(layers), **window, **extra})
    return build(Qwen2ForCausalLM, config, seed, attn, exactly)


def random_qwen3(seed: int = 0, attn: str = "eager", exactly: bool = True, layers: int = LAYERS, **extra: Any) -> Any:
    """A random Qwen 3: q and k norms over each head, heads wider than ``d_model / heads``."""
    config = Qwen3Config(**{**_decoder_numbers(layers), "head_dim": 12, **extra})
    return build(Qwen3ForCausalLM, config, seed, attn, exactly)


def _gemma_numbers(layers: int) -> dict[str, Any]:
    return {
        **_decoder_numbers(layers),
        "head_dim": 12,
        "query_pre_attn_scalar": 16,
        "sliding_window": 3,
        "layer_types": ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)],
        "pad_token_id": 0,
    }


def random_gemma2(seed: int = 0, attn: str = "eager", exactly: bool = True, layers: int = LAYERS, **extra: Any) -> Any:
    """A random Gemma 2: post-norms, caps small enough to matter, a sliding window of 3 in every other layer."""
    caps = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
    config = Gemma2Config(**{**_gemma_numbers(layers), **caps, **extra})
    return build(Gemma2ForCausalLM, config, seed, attn, exactly)


def random_gemma3(seed: int = 0, attn: str = "eager", exactly: bool = True, layers: int = LAYERS, **extra: Any) -> Any:
    """A random Gemma 3 (text): post-norms, q and k norms, two rotary bases, a sliding window in every other layer."""
    config = Gemma3TextConfig(**{**_gemma_numbers(layers), **extra})
    return build(Gemma3ForCausalLM, config, seed, attn, exactly)


def random_olmo2(seed: int = 0, attn: str = "eager", exactly: bool = True, layers: int = LAYERS, **extra: Any) -> Any:
    """A random OLMo 2: post-norms only, q and k norms over all heads together."""
    config = Olmo2Config(**{**_decoder_numbers(layers), **extra})
    return build(Olmo2ForCausalLM, config, seed, attn, exactly)


def random_phi3(seed: int = 0, attn: str = "eager", exactly: bool = True, layers: int = LAYERS, **extra: Any) -> Any:
    """A random Phi 3: fused projections, half of each head rotated, a sliding window of 5."""
    numbers = {"sliding_window": 5, "partial_rotary_factor": 0.5, "pad_token_id": 0}
    config = Phi3Config(**{**_decoder_numbers(layers), **numbers, **extra})
    return build(Phi3ForCausalLM, config, seed, attn, exactly)


def random_dense(
    family: str, seed: int = 0, attn: str = "eager", exactly: bool = True, layers: int = LAYERS, **extra: Any
) -> Any:
    """A random model of one of the families of ``dense_configs.py``, with what is said of it there."""
    config = CONFIG_MAPPING[family](**dense_numbers(family, {**_decoder_numbers(layers), "pad_token_id": 0}, extra))
    return build(AutoModelForCausalLM.from_config, config, seed, attn, exactly)


BUILDERS: dict[str, Callable[..., Any]] = {
    **{family: functools.partial(random_dense, family) for family in DENSE},
    **expert_builders.BUILDERS,
    **special_builders.BUILDERS,
    "gemma2": random_gemma2,
    "gemma3_text": random_gemma3,
    "gpt2": random_gpt2,
    "gpt_neox": random_gpt_neox,
    "llama": random_llama,
    "mistral": random_mistral,
    "olmo2": random_olmo2,
    "phi3": random_phi3,
    "qwen2": random_qwen2,
    "qwen3": random_qwen3,
}
"""The builders by ``config.model_type``."""


def random_ids(seed: int, length: int, vocab: int = VOCAB) -> list[int]:
    """Seeded random token ids."""
    generator = torch.Generator().manual_seed(seed)
    return [int(t) for t in torch.randint(0, vocab, (length,), generator=generator)]
