"""Which model a hypothesis names, as a shape: from its config alone, without weights, network or torch."""

from __future__ import annotations

from pathlib import Path

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.model_size import ModelSize
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.model_config import read_config, shape_of
from circuitspec.models.model_reference import resolve_reference


def read_shape(model: ModelSpec, base_dir: Path) -> ModelShape | None:
    """The shape of the model a hypothesis names; None where it could only be had from the network.

    `base_dir` is the folder of the hypothesis file. Raises CS300 to CS303 for a reference that leads nowhere, CS304 for
    an unknown family, CS305 for a config that cannot be read, CS314 for one that changes what components mean, CS315
    for an unreadable GGUF file, CS386 for a model of another size than the hypothesis states.
    """
    shape = _read_shape(model, base_dir)
    if shape is not None:
        check_stated(model, shape)
    return shape


def check_stated(model: ModelSpec, shape: ModelShape) -> None:
    """CS386 if `model.size` is stated, and is not the model's."""
    if model.size is None:
        return
    has = ModelSize(shape.n_layers, shape.n_heads, shape.d_model, parallel=not shape.has_resid_mid)
    if not ModelSize.parse(model.size).agrees_with(has):
        raise CircuitspecError(
            Diagnostic(
                "CS386",
                f"{model.id} is of another size than `model.size` says: {has}, not {model.size}",
                hint="name the model in which the circuit was found; where this is the one, take `size` out",
            )
        )


def _read_shape(model: ModelSpec, base_dir: Path) -> ModelShape | None:
    reference = resolve_reference(model, base_dir)
    if reference.kind == "gguf":
        from circuitspec.models.gguf import gguf_shape

        return gguf_shape(reference.local_path)
    if reference.kind == "built":
        from circuitspec.models.zoo import built_model

        return shape_of(built_model(model.id.removeprefix("zoo:")).config)
    if reference.kind == "hub":
        config = _cached_hub_config(reference.id, model.revision)
        if config is None:
            return None
    else:
        config = reference.local_path / "config.json"
    return shape_of(read_config(config))


def _cached_hub_config(repo_id: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo_id, "config.json", revision=revision)
    return Path(found) if isinstance(found, str) else None
