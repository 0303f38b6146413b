"""The modules an architecture names, in a loaded model. Imports no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.graph.shape import ModelShape
from circuitspec.models.families.architecture import Architecture, FusedQKV, LatentQKV

if TYPE_CHECKING:
    from torch import nn


def submodule(model: nn.Module, path: str) -> nn.Module:
    """The module at a path such as `model.layers[3].mlp`; AttributeError where there is none."""
    return model.get_submodule(path.replace("[", ".").replace("]", ""))


@contextlib.contextmanager
def computing(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """These modules with another forward each, and afterwards, whatever happens, as they were."""
    before = {module: vars(module).get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module, own in before.items():
            if own is not None:
                module.forward = own
            else:
                vars(module).pop("forward", None)


def verify_modules(model: nn.Module, architecture: Architecture, shape: ModelShape) -> None:
    """Check that every module the table names is in the loaded model, as wide as its shape says.

    Raises CS313 for each one that is not.
    """
    found = [
        Diagnostic(
            "CS313",
            problem,
            hint=f"this is no plain {architecture.title} as circuitspec knows it; what it expects is in "
            "circuitspec/models/families",
        )
        for problem in _module_problems(model, architecture, shape)
    ]
    if found:
        raise CircuitspecError(*found)


def _module_problems(model: nn.Module, architecture: Architecture, shape: ModelShape) -> Iterator[str]:
    blocks = architecture.block.partition("[")[0]
    try:
        count = len(list(submodule(model, blocks).children()))
    except AttributeError:
        yield f"the model has no module {blocks}"
        return
    if count != shape.n_layers:
        yield f"{blocks} holds {count} blocks, config.json says {shape.n_layers}"
        return
    computed = getattr(getattr(model, "config", None), "_attn_implementation", None)
    if architecture.attention is not None and computed != architecture.attention:
        yield (
            f"its attention is computed by {computed}, which leaves out a part of what {architecture.title} does: "
            f"load it with attn_implementation={architecture.attention!r}"
        )
    yield from _experts_of_other_sizes(model, architecture, shape)
    for path, width_in, width_out in _expected_widths(architecture, shape):
        try:
            module = submodule(model, path)
        except AttributeError:
            yield f"the model has no module {path}"
            continue
        if width_in is None and width_out is None:
            continue
        weight = getattr(module, "weight", None)
        if weight is None or weight.ndim != 2:
            yield f"{path} has no weight matrix"
            continue
        in_out = architecture.weight_layout == "in,out" and path.startswith(blocks)
        actual_in, actual_out = weight.shape if in_out else reversed(weight.shape)
        if width_in is not None and actual_in != width_in:
            yield f"{path} reads {actual_in} channels, expected {width_in}"
        if width_out is not None and actual_out != width_out:
            yield f"{path} writes {actual_out} channels, expected {width_out}"


def _expected_widths(architecture: Architecture, shape: ModelShape) -> Iterator[tuple[str, int | None, int | None]]:
    """(path, channels read, channels written) of every module; None where it has no weight matrix to measure."""
    yield architecture.token_embedding, shape.d_model, shape.n_vocab
    if architecture.position_embedding is not None:
        rows = None if shape.max_positions is None else shape.max_positions + architecture.position_offset
        yield architecture.position_embedding, shape.d_model, rows
    for layer in range(shape.n_layers):
        block = (architecture.attn_norm, architecture.attn_post_norm, architecture.mlp_norm, architecture.mlp_post_norm)
        for norm in block:
            if norm is not None:
                yield architecture.path(norm, layer), None, None
        if architecture.mixers is not None and layer in shape.mixers:
            yield architecture.path(architecture.mixers.out, layer), None, shape.d_model
        else:
            yield from _attention_widths(architecture, shape, layer)
        for module in architecture.mlp_modules:
            yield architecture.path(module, layer), None, None
        if architecture.neuron_norm is not None:
            yield architecture.path(architecture.neuron_norm, layer), None, None
        if architecture.mlp_down is not None:
            d_mlp = shape.d_mlps[layer] if shape.d_mlps else shape.d_mlp
            yield architecture.path(architecture.mlp_down, layer), d_mlp, shape.d_model
        experts = architecture.experts
        if experts is not None and layer in shape.dense_layers and experts.dense_down is not None:
            yield architecture.path(experts.dense_down, layer), shape.d_mlp, shape.d_model
        if experts is not None and layer not in shape.dense_layers:
            for part in filter(None, (experts.module, experts.router, experts.shared)):
                yield architecture.path(part, layer), None, None
            if experts.shared_down is not None:
                yield architecture.path(experts.shared_down, layer), shape.d_shared, shape.d_model
        if architecture.beyond is not None:
            for part in filter(None, (architecture.beyond.per_layer, architecture.beyond.beside)):
                yield architecture.path(part, layer), None, None
    yield architecture.final_norm, None, None
    yield architecture.unembedding, shape.d_model, shape.n_vocab


def _attention_widths(
    architecture: Architecture, shape: ModelShape, layer: int
) -> Iterator[tuple[str, int | None, int | None]]:
    """The same of what a layer's heads are computed by."""
    d_head = shape.d_head_of(layer)
    d_z, d_kv = shape.n_heads * d_head, shape.n_kv_heads * d_head
    d_q = 2 * d_z if architecture.query_gates else d_z
    match architecture.qkv:
        case FusedQKV(module):
            yield architecture.path(module, layer), shape.d_model, d_q + 2 * d_kv
        case LatentQKV() as latent:
            yield from _latent_widths(architecture, latent, layer, shape)
        case separate:
            for path, width in ((separate.q, d_q), (separate.k, d_kv), (separate.v, d_kv)):
                if path == separate.q or shape.keys_of(layer) == layer:
                    yield architecture.path(path, layer), shape.d_model, width
    if architecture.head_norm is not None:
        yield architecture.path(architecture.head_norm, layer), None, None
    yield architecture.path(architecture.attn_out, layer), d_z, shape.d_model


def _latent_widths(
    architecture: Architecture, qkv: LatentQKV, layer: int, shape: ModelShape
) -> Iterator[tuple[str, int | None, int | None]]:
    widths = shape.latent
    assert widths is not None, "the shape was made without its latent"
    for between in (*qkv.before_q, qkv.norm):
        yield architecture.path(between, layer), None, None
    if not qkv.before_q:
        yield architecture.path(qkv.q, layer), shape.d_model, shape.n_heads * shape.d_query
    yield architecture.path(qkv.latent, layer), shape.d_model, widths.latent + widths.rotated
    yield architecture.path(qkv.up, layer), widths.latent, shape.n_heads * (widths.unrotated + shape.d_head)


def _experts_of_other_sizes(model: nn.Module, architecture: Architecture, shape: ModelShape) -> Iterator[str]:
    if architecture.experts is None:
        return
    expected = shape.n_experts * shape.d_expert * shape.d_model
    for layer in sorted(set(range(shape.n_layers)) - shape.dense_layers):
        path = architecture.path(architecture.experts.module, layer)
        try:
            found = sum(one.numel() for name, one in submodule(model, path).named_parameters() if name == "down_proj")
        except AttributeError:
            continue  # said where its path is looked up
        if found != expected:
            yield f"{path} has {found} weights behind its neurons, expected {expected}"
            return
