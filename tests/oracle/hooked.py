"""Node-level patching of a Hugging Face model by plain PyTorch hooks: a cross-check of the explicit forward pass.

It knows no family, only module names. Hooks are registered for one run and removed after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .node import Component, Run, Site


@dataclass(frozen=True)
class Names:
    """Where the modules are; ``{}`` stands for the layer.

    ``out_proj`` is the attention output projection, ``down`` the MLP's output projection; ``k`` and ``v`` are the key
    and value projections where they are modules of their own. ``heads`` is the module whose input heads are, where that
    is not ``out_proj``, ``neurons`` the same of ``down``, and ``mixer`` gives what mixes tokens where no heads do.
    """

    block: str
    out_proj: str
    mlp: str
    down: str
    final_norm: str
    k: str | None = None
    v: str | None = None
    heads: str | None = None
    neurons: str | None = None
    mixer: str | None = None


GPT2 = Names(
    "transformer.h.{}",
    "transformer.h.{}.attn.c_proj",
    "transformer.h.{}.mlp",
    "transformer.h.{}.mlp.c_proj",
    "transformer.ln_f",
)
LLAMA = Names(
    "model.layers.{}",
    "model.layers.{}.self_attn.o_proj",
    "model.layers.{}.mlp",
    "model.layers.{}.mlp.down_proj",
    "model.norm",
    "model.layers.{}.self_attn.k_proj",
    "model.layers.{}.self_attn.v_proj",
)
GPT_NEOX = Names(
    "gpt_neox.layers.{}",
    "gpt_neox.layers.{}.attention.dense",
    "gpt_neox.layers.{}.mlp",
    "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    "gpt_neox.final_layer_norm",
)
PHI3 = Names(
    "model.layers.{}",
    "model.layers.{}.self_attn.o_proj",
    "model.layers.{}.mlp",
    "model.layers.{}.mlp.down_proj",
    "model.norm",
)
PERSIMMON = Names(
    "model.layers.{}",
    "model.layers.{}.self_attn.dense",
    "model.layers.{}.mlp",
    "model.layers.{}.mlp.dense_4h_to_h",
    "model.final_layernorm",
)
PHI = replace(
    LLAMA,
    out_proj="model.layers.{}.self_attn.dense",
    down="model.layers.{}.mlp.fc2",
    final_norm="model.final_layernorm",
)
BLOOM = Names(
    "transformer.h.{}",
    "transformer.h.{}.self_attention.dense",
    "transformer.h.{}.mlp.dense_4h_to_h",
    "transformer.h.{}.mlp.dense_4h_to_h",
    "transformer.ln_f",
)
GPTJ = replace(
    GPT2,
    out_proj="transformer.h.{}.attn.out_proj",
    down="transformer.h.{}.mlp.fc_out",
    k="transformer.h.{}.attn.k_proj",
    v="transformer.h.{}.attn.v_proj",
)
MPT = Names(
    "transformer.blocks.{}",
    "transformer.blocks.{}.attn.out_proj",
    "transformer.blocks.{}.ffn.down_proj",
    "transformer.blocks.{}.ffn.down_proj",
    "transformer.norm_f",
)
OPT = Names(
    "model.decoder.layers.{}",
    "model.decoder.layers.{}.self_attn.out_proj",
    "model.decoder.layers.{}.fc2",
    "model.decoder.layers.{}.fc2",
    "model.decoder.final_layer_norm",
    "model.decoder.layers.{}.self_attn.k_proj",
    "model.decoder.layers.{}.self_attn.v_proj",
)

NAMES = {
    "gpt2": GPT2,
    "gpt_neox": GPT_NEOX,
    "phi3": PHI3,
    **dict.fromkeys(
        ("arcee", "cohere", "cohere2", "gemma", "helium", "ministral", "nemotron", "olmo", "olmo3", "seed_oss"), LLAMA
    ),
    **dict.fromkeys(("glm4_moe", "gpt_oss", "mixtral", "olmoe", "phimoe", "qwen2_moe", "qwen3_moe"), LLAMA),
    "deepseek_v3": replace(LLAMA, k=None, v=None),
    "granitemoe": replace(LLAMA, mlp="model.layers.{}.block_sparse_moe"),
    "llama4_text": replace(LLAMA, mlp="model.layers.{}.feed_forward", down="model.layers.{}.feed_forward.down_proj"),
    "bitnet": replace(
        LLAMA, heads="model.layers.{}.self_attn.attn_sub_norm", neurons="model.layers.{}.mlp.ffn_sub_norm"
    ),
    "bamba": replace(
        LLAMA,
        mixer="model.layers.{}.mamba.out_proj",
        mlp="model.layers.{}.feed_forward",
        down="model.layers.{}.feed_forward.down_proj",
        final_norm="model.final_layernorm",
    ),
    "granitemoehybrid": replace(
        LLAMA,
        mixer="model.layers.{}.mamba.out_proj",
        mlp="model.layers.{}.shared_mlp",
        down="model.layers.{}.shared_mlp.output_linear",
    ),
    "lfm2": replace(
        LLAMA,
        out_proj="model.layers.{}.self_attn.out_proj",
        mixer="model.layers.{}.conv.out_proj",
        mlp="model.layers.{}.feed_forward",
        down="model.layers.{}.feed_forward.w2",
        final_norm="model.embedding_norm",
    ),
    "diffllama": replace(LLAMA, k=None, v=None),
    **dict.fromkeys(("qwen3_5_text", "qwen3_next"), replace(LLAMA, mixer="model.layers.{}.linear_attn.out_proj")),
    "smollm3": LLAMA,
    "exaone4": LLAMA,
    "glm4": LLAMA,
    "granite": LLAMA,
    "vaultgemma": LLAMA,
    "bloom": BLOOM,
    "falcon": replace(BLOOM, mlp="transformer.h.{}.mlp"),
    "gptj": GPTJ,
    "gpt_neo": replace(GPT2, out_proj="transformer.h.{}.attn.attention.out_proj"),
    "mpt": MPT,
    "opt": OPT,
    "persimmon": PERSIMMON,
    "phi": PHI,
    "starcoder2": replace(LLAMA, down="model.layers.{}.mlp.c_proj"),
    **dict.fromkeys(["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "olmo2"], LLAMA),
}
"""The names by ``config.model_type``."""

Change = Callable[[Tensor], Tensor]


def _in_rows(change: Change) -> Change:
    """For a tensor of one prompt, whose rows may have been left out: ``[pos, width]`` for ``[1, pos, width]``."""
    return lambda x: change(x[None])[0] if x.ndim == 2 else change(x)


def _before(module: nn.Module, change: Change) -> Any:
    """Change the module's first input, positional or named ``hidden_states``."""

    change = _in_rows(change)

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _after(module: nn.Module, change: Change) -> Any:
    """Change the module's output."""

    change = _in_rows(change)

    def hook(_: nn.Module, args: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    return module.register_forward_hook(hook)


@torch.no_grad()
def forward(
    model: Any,
    ids: Sequence[int],
    names: Names,
    patches: Mapping[Site, Tensor] | None = None,
    heads: int | None = None,
) -> Run:
    """Run the model itself with patches; records all it can: heads, attn, mlp, neurons, resid pre, input, kv."""
    given = dict(patches or {})
    at: dict[Component, dict[int, Tensor]] = {}
    for (component, position), new in given.items():
        at.setdefault(component, {})[position] = new
    n_layers = model.config.num_hidden_layers
    heads = heads or model.config.num_attention_heads
    sizes = [getattr(model.config, name, None) for name in ("v_head_dim", "head_dim")]
    d_head = sizes[0] or sizes[1] or model.config.hidden_size // heads
    if model.config.model_type == "diffllama":
        d_head *= 2  # two of its heads make one
    run = Run(torch.empty(0))
    handles: list[Any] = []
    seen: set[Site] = set()

    def whole(*components: Component) -> Change:
        """The components one after the other replace the whole tensor; the last to be given wins."""

        def change(given: Tensor) -> Tensor:
            x = given.clone().view(1, len(ids), -1)
            for component in components:
                for p, value in at.get(component, {}).items():
                    x[0, p] = value.to(x.dtype)
                    seen.add((component, p))
                run.values[component] = x[0].clone()
            return x.view(given.shape)

        return change

    def sliced(kind: str, layer: int, width: int, half: int | None = None) -> Change:
        """Components that are slices of the tensor. ``half`` picks the key (0) or value (1) part of a kv patch."""

        def change(given: Tensor) -> Tensor:
            x = given.clone().view(1, len(ids), -1)
            for i in range(x.shape[-1] // width):
                for p, value in at.get((kind, layer, i), {}).items():
                    part = value if half is None else value[half * width : (half + 1) * width]
                    x[0, p, i * width : (i + 1) * width] = part.to(x.dtype)
                    seen.add(((kind, layer, i), p))
            for i, piece in enumerate(x[0].clone().split(width, dim=1)):
                if half == 1:
                    piece = torch.cat([run.values[kind, layer, i], piece], dim=1)
                run.values[kind, layer, i] = piece
            return x.view(given.shape)

        return change

    module, modules = model.get_submodule, dict(model.named_modules())
    try:
        for layer in range(n_layers):
            before: list[Component] = [("input",)] if layer == 0 else []
            handles.append(_before(module(names.block.format(layer)), whole(*before, ("resid", layer, "pre"))))
            if names.out_proj.format(layer) in modules:
                entered = (names.heads or names.out_proj).format(layer)
                handles.append(_before(module(entered), sliced("head", layer, d_head)))
                handles.append(_after(module(names.out_proj.format(layer)), whole(("attn", layer))))
            elif names.mixer is not None:
                handles.append(_after(module(names.mixer.format(layer)), whole(("mixer", layer))))
            if names.down.format(layer) in modules:  # a choice of experts has none
                entered = (names.neurons or names.down).format(layer)
                handles.append(_before(module(entered), sliced("neuron", layer, 1)))
            handles.append(_after(module(names.mlp.format(layer)), whole(("mlp", layer))))
            for half, name in enumerate((names.k, names.v)):
                if name is not None and name.format(layer) in modules:
                    handles.append(_after(module(name.format(layer)), sliced("kv", layer, d_head, half)))
        handles.append(_before(module(names.final_norm), whole(("resid", n_layers, "pre"))))
        logits = model(torch.tensor([list(ids)]), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    if set(given) - seen:
        raise ValueError(f"no such place: {sorted(set(given) - seen, key=repr)}")
    return Run(logits, run.values)
