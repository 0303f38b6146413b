"""Layer, head and vocabulary counts of a model, from its config alone: no weights read, no network, no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.graph.shape import LatentWidths, ModelShape
from circuitspec.hypothesis_file.grammar.component_kinds import Lacking
from circuitspec.models.families.architecture import Architecture, BeyondStream, LatentQKV
from circuitspec.models.families.family_table import architecture_of
from circuitspec.models.families.text_models import own_config
from circuitspec.runtime.files import read_regular

MAX_CONFIG_BYTES = 16_000_000
# far above any model there is; beyond it a damaged config would keep every command busy for minutes
MAX_LAYERS = 1_000
MAX_HEADS = 1_024
MAX_HEADS_IN_ALL = 100_000
MAX_WIDTH = 1_000_000
MAX_VOCAB = 10_000_000
MAX_POSITIONS = 1_000_000_000


def read_config(path: Path) -> Mapping[str, object]:
    """A parsed config.json, of the text model where it is one of a checkpoint of images and text.

    CS305 where it is missing, not JSON, or no object.
    """
    return own_config(read_checkpoint_config(path))


def read_checkpoint_config(path: Path) -> Mapping[str, object]:
    """A parsed config.json as it is in the file; CS305 as for `read_config`."""
    try:
        config = json.loads(read_regular(path, MAX_CONFIG_BYTES).decode("utf-8"))
    except FileNotFoundError as error:
        raise _bad_config(
            f"there is no config.json in {path.parent}",
            "`model.id` should lead to a model as `save_pretrained` writes it: config.json, model.safetensors, "
            "tokenizer.json",
        ) from error
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no JSON, no UTF-8, a number of 5000 digits
        raise _bad_config(
            f"{path} cannot be read as JSON: {_reason(error)}", "copy or download the file again"
        ) from error
    if not isinstance(config, dict):
        raise _bad_config(f"{path} holds no JSON object", "copy or download the file again")
    return config


def shape_of(config: Mapping[str, object]) -> ModelShape:
    """The shape a parsed config.json describes, of any supported family; CS304, CS305, CS314 as in `read_shape`."""
    architecture = architecture_of(config)
    keys = architecture.keys
    standard = type(keys)()

    def size(key: str, also: str, least: int = 1) -> int | None:
        name = key if config.get(key) is not None else also
        value = config.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise _bad_config(
                f"config.json gives {name} as {value!r}", f"it should be a whole number of at least {least}"
            )
        return value

    def required(key: str, also: str) -> int:
        value = size(key, also)
        if value is None:
            raise _bad_config(f"config.json of a {architecture.title} model does not give {key}", f"add `{key}`")
        return value

    d_model = required(keys.d_model, standard.d_model)
    n_heads = required(keys.n_heads, standard.n_heads)
    n_kv_heads = size(keys.n_kv_heads, keys.n_kv_heads) if isinstance(keys.n_kv_heads, str) else keys.n_kv_heads
    n_layers, experts, beyond = required(keys.n_layers, standard.n_layers), architecture.experts, architecture.beyond
    varied = _VariedLayers()
    if beyond is not None:
        _check_size(n_layers, MAX_LAYERS, "layers")
        varied = _varied(beyond, config, n_layers)
        config = {**config, keys.d_mlp: varied.d_mlps[0]}  # which may be written layer by layer
    dense_layers = frozenset[int]() if experts is None else experts.dense(config, n_layers)
    without = experts is not None and not dense_layers
    d_mlp = 0 if without else size(keys.d_mlp, standard.d_mlp, least=0)  # 0: attention only
    if d_mlp is None and keys.d_mlp_over_d_model is not None:
        d_mlp = keys.d_mlp_over_d_model * d_model
    if d_mlp is not None and keys.d_mlp_of is not None:
        d_mlp = keys.d_mlp_of(config, d_mlp)
    mixers = architecture.mixers
    named = () if experts is None else [key for key in experts.count if config.get(key) is not None] or experts.count
    shape = checked_shape(
        architecture,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_model=d_model,
        d_head=None if keys.d_head is None else size(keys.d_head, keys.d_head),
        d_mlp=d_mlp if d_mlp is not None else required(keys.d_mlp, standard.d_mlp),
        n_vocab=required(keys.n_vocab, standard.n_vocab),
        max_positions=size(keys.max_positions, standard.max_positions),
        n_experts=required(named[0], named[0]) if named else 0,
        dense_layers=dense_layers,
        mixers=frozenset() if mixers is None else mixers.layers(config, n_layers),
        d_expert=0 if experts is None else required(experts.width, experts.width),
        d_shared=0 if experts is None else prod(required(key, key) for key in experts.shared_width),
        latent=LatentWidths(*(required(key, key) for key in architecture.qkv.widths))
        if isinstance(architecture.qkv, LatentQKV)
        else None,
    )
    return shape if beyond is None else _with_varied_layers(shape, architecture, beyond, varied)


@dataclass(frozen=True)
class _VariedLayers:
    """What differs from layer to layer."""

    d_heads: tuple[int, ...] = ()
    d_mlps: tuple[int, ...] = ()
    keys_from: tuple[int, ...] = ()


def _varied(beyond: BeyondStream, config: Mapping[str, object], n_layers: int) -> _VariedLayers:
    """CS305 for widths that are none, or for keys and values from nowhere."""
    try:
        widths = beyond.head_widths(config, n_layers), beyond.mlp_widths(config, n_layers)
        found = _VariedLayers(*widths, beyond.keys_from(config, n_layers))
    except ValueError as error:
        raise _bad_config(f"config.json cannot be right: {error}", "copy or download the file again") from error
    for width in (*found.d_heads, *found.d_mlps):
        _check_size(width, MAX_WIDTH, "channels a head, or neurons a layer")
    return found


def lacking(architecture: Architecture) -> tuple[Lacking, ...]:
    """What no layer of a family has, and layers of others have."""
    beyond, absent = architecture.beyond, list[Lacking]()
    if beyond is not None and beyond.values_normed:
        said = "values are normed, so that weights cannot be read from what heads give"
        absent.append(Lacking("pattern", said, "write the head, a{layer}.h0, or its key-value head"))
    if beyond is not None and beyond.several:
        said = "blocks hand on several residual streams, none of which is the one"
        absent += [Lacking(kind, said, "write heads and MLPs") for kind in ("input", "resid", "resid_mid")]
    return tuple(absent)


def _with_varied_layers(
    shape: ModelShape, architecture: Architecture, beyond: BeyondStream, varied: _VariedLayers
) -> ModelShape:
    """The shape of a model whose layers differ, and what of its components others have and it lacks."""
    layers = range(shape.n_layers)
    sharing = frozenset(layer for layer in layers if varied.keys_from[layer] != layer)
    others = frozenset(layer for layer in layers if varied.d_mlps[layer] != shape.d_mlp)
    absent = []
    if sharing:
        sources = ", ".join(f"a{source}.kv0" for source in sorted({varied.keys_from[layer] for layer in sharing}))
        said = "layer {layer} reads keys and values of an earlier one"
        absent.append(Lacking("kv", said, f"write those that it reads, such as {sources}", sharing))
    if others:
        said = "MLP of layer {layer} is of another width than those whose neurons have names"
        absent.append(Lacking("neuron", said, "write m{layer}", others))
    return replace(
        shape,
        d_heads=varied.d_heads if len({*varied.d_heads, shape.d_head}) > 1 else (),
        d_mlps=varied.d_mlps if others else (),
        keys_from=varied.keys_from if sharing else (),
        absent=(*absent, *lacking(architecture)),
        why_no_edges=beyond.why_no_edges,
    )


def checked_shape(
    architecture: Architecture,
    *,
    n_layers: int,
    n_heads: int,
    n_kv_heads: int | None,
    d_model: int,
    d_head: int | None,
    d_mlp: int,
    n_vocab: int,
    max_positions: int | None,
    n_experts: int = 0,
    dense_layers: frozenset[int] = frozenset(),
    d_expert: int = 0,
    d_shared: int = 0,
    latent: LatentWidths | None = None,
    mixers: frozenset[int] = frozenset(),
) -> ModelShape:
    """A shape whose heads add up; heads are their own key-value heads, and share d_model, unless told otherwise.

    CS305 where counts do not divide or are absurdly large.
    """
    _check_size(n_layers, MAX_LAYERS, "layers")
    _check_size(n_heads, MAX_HEADS, "attention heads")
    _check_size(n_layers * n_heads, MAX_HEADS_IN_ALL, "attention heads in all")
    _check_size(n_kv_heads, MAX_HEADS, "key-value heads")
    _check_size(d_model, MAX_WIDTH, "channels")
    _check_size(d_head, MAX_WIDTH, "channels a head")
    _check_size(d_mlp, MAX_WIDTH, "neurons a layer")
    for width in () if latent is None else (latent.latent, latent.rotated, latent.unrotated):
        _check_size(width, MAX_WIDTH, "channels of a latent or a key")
    _check_size(d_expert, MAX_WIDTH, "neurons an expert")
    _check_size(d_shared, MAX_WIDTH, "neurons of the shared expert")
    _check_size(n_experts, MAX_WIDTH, "experts a layer")
    _check_size(n_vocab, MAX_VOCAB, "tokens in the vocabulary")
    _check_size(max_positions, MAX_POSITIONS, "positions")
    n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
    if n_heads % n_kv_heads:
        raise _bad_config(
            f"{n_heads} attention heads cannot share {n_kv_heads} key-value heads evenly", "correct the head counts"
        )
    if d_head is None:
        if d_model % n_heads:
            raise _bad_config(f"{d_model} channels cannot be split into {n_heads} heads", "correct the head count")
        d_head = d_model // n_heads
    if architecture.paired_heads:
        if n_heads % 2 or n_kv_heads % 2:
            raise _bad_config(
                f"{n_heads} attention heads and {n_kv_heads} key-value heads cannot be taken in pairs",
                "correct the head counts",
            )
        n_heads, n_kv_heads, d_head = n_heads // 2, n_kv_heads // 2, 2 * d_head
    return ModelShape(
        architecture.family,
        n_layers,
        n_heads,
        n_kv_heads,
        d_model,
        d_head,
        d_mlp,
        n_vocab,
        max_positions,
        has_resid_mid=architecture.residual == "sequential",
        plain_sum=architecture.plain_sum,
        joint_qk_norm=architecture.joint_qk_norm,
        n_experts=n_experts,
        has_shared=architecture.experts is not None and architecture.experts.shared is not None,
        dense_layers=dense_layers,
        d_expert=d_expert,
        d_shared=d_shared if architecture.experts is not None and architecture.experts.shared is not None else 0,
        latent=latent,
        mixers=mixers,
        query_gates=architecture.query_gates,
        paired_heads=architecture.paired_heads,
        joint_head_norm=architecture.head_norm is not None,
    )


def _check_size(value: int | None, at_most: int, what: str) -> None:
    if value is not None and value > at_most:
        said = str(value) if value < 10**15 else f"{str(value)[0]}e{len(str(value)) - 1}"
        raise _bad_config(
            f"the configuration gives the model {said} {what}; more than {at_most} cannot be right",
            "correct the number, or copy or download the configuration again",
        )


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _bad_config(message: str, hint: str) -> CircuitspecError:
    return CircuitspecError(Diagnostic("CS305", message, hint=hint))
