"""MLPs that are choices among experts: where their parts are, and in which layers of a model. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Config: TypeAlias = Mapping[str, object]
DenseLayers: TypeAlias = Callable[[Config, int], frozenset[int]]
"""A parsed config.json and the number of layers -> the layers that have one MLP for all tokens."""


def _none(config: Config, n_layers: int) -> frozenset[int]:
    return frozenset()


@dataclass(frozen=True)
class Experts:
    """Where a family keeps its experts, by paths from the block.

    For each token a `router` chooses a few of them, with a weight each, and `module` adds up what these compute; some
    have a `shared` one beside, which serves every token. `count` are the names that config.json may give their number,
    and `dense` says in which layers there is one MLP for all tokens, whose output projection is `dense_down`.
    `width` is what config.json calls the neurons of an expert, `shared_width` what gives those of the shared one: the
    product of these; `shared_down` is its output projection.
    """

    module: str
    router: str
    count: tuple[str, ...]
    shared: str | None = None
    dense: DenseLayers = _none
    dense_down: str | None = None
    width: str = "intermediate_size"
    shared_width: tuple[str, ...] = ()
    shared_down: str | None = None


def dense_if_listed(config: Config, n_layers: int) -> frozenset[int]:
    """Layers in `mlp_only_layers`, and those between the ones that `decoder_sparse_step` counts (Qwen)."""
    listed = config.get("mlp_only_layers") or ()
    step = _number(config, "decoder_sparse_step", 1)
    named = frozenset(listed) if isinstance(listed, list | tuple) else frozenset[int]()
    return named | {layer for layer in range(n_layers) if step < 1 or (layer + 1) % step}


def dense_below(config: Config, n_layers: int) -> frozenset[int]:
    """The first layers, as many as `first_k_dense_replace` says (DeepSeek, GLM)."""
    return frozenset(range(min(n_layers, _number(config, "first_k_dense_replace", 0))))


def dense_between(config: Config, n_layers: int) -> frozenset[int]:
    """All layers but those in `moe_layers`, or every so many as `interleave_moe_layer_step` says (Llama 4)."""
    listed = config.get("moe_layers")
    if isinstance(listed, list | tuple):
        return frozenset(range(n_layers)) - frozenset(listed)
    step = max(1, _number(config, "interleave_moe_layer_step", 1))
    return frozenset(range(n_layers)) - frozenset(range(step - 1, n_layers, step))


def _number(config: Config, key: str, otherwise: int) -> int:
    value = config.get(key)
    return value if isinstance(value, int) else otherwise
