"""What a hypothesis' `model` block sets of the model beside its weights: attention, rotary scaling, an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.hypothesis_file.schema.blocks import ModelSpec, RopeScaling
from circuitspec.models.families.architecture import Architecture
from circuitspec.models.families.text_models import TextModel
from circuitspec.models.model_config import read_checkpoint_config
from circuitspec.models.model_reference import local_model
from circuitspec.models.storage.adapter_files import AdapterFiles, find_adapter

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class WrittenSettings:
    """What is set, checked as far as the family and the files tell; `attention` is what transformers is asked for."""

    attention: str | None
    rope: RopeScaling | None
    adapter: AdapterFiles | None
    text: TextModel | None
    said: tuple[str, ...]

    def describe(self, description: str) -> str:
        """What reports call the model."""
        return ", ".join((description, *self.said))


def written_settings(
    spec: ModelSpec, architecture: Architecture, base_dir: Path, text: TextModel | None = None
) -> WrittenSettings:
    """The settings of a model of this family. Raises CS392 for an adapter that cannot be merged, CS395 for attention
    that is not the family's own."""
    own = architecture.attention
    if spec.attention is not None and own is not None and spec.attention != own:
        raise CircuitspecError(
            Diagnostic(
                "CS395",
                f"`attention: {spec.attention}` leaves out a part of what {architecture.title} computes, or is none "
                "that transformers has for it",
                hint=f"write attention: {own}, or take it out",
            )
        )
    adapter = None if spec.adapter is None else find_adapter(spec.adapter, local_model(spec.adapter, base_dir))
    said = [] if text is None else ["the text model of a checkpoint of images and text"]
    said += [] if adapter is None else [str(adapter)]
    said += [] if spec.attention is None else [f"attention {spec.attention}"]
    said += [] if spec.rope_scaling is None else [str(spec.rope_scaling)]
    return WrittenSettings(spec.attention or own, spec.rope_scaling, adapter, text, tuple(said))


def config_to_load(directory: Path, settings: WrittenSettings) -> PretrainedConfig | None:
    """The config that weights are loaded into, where it is not the one in the directory. Raises CS396."""
    if settings.rope is None and settings.text is None:
        return None
    from transformers import AutoConfig

    config: Any
    if settings.text is None:
        config = AutoConfig.from_pretrained(str(directory), trust_remote_code=False, local_files_only=True)
    else:
        config = config_of_text(directory, settings.text)
    if settings.rope is not None:
        _scale_rope(config, settings.rope)
    return config


def config_of_text(directory: Path, text: TextModel) -> PretrainedConfig:
    """The text model's config alone: for the whole checkpoint's, transformers may ask for what only images need."""
    from transformers import AutoConfig

    written = read_checkpoint_config(directory / "config.json").get("text_config")
    own = dict(written) if isinstance(written, Mapping) else {}
    config: PretrainedConfig = AutoConfig.for_model(text.family, **{k: v for k, v in own.items() if k != "model_type"})
    return config


def refuse_rope(settings: WrittenSettings, title: str) -> None:
    """CS396 for a model that has no config of its own to be scaled."""
    if settings.rope is not None:
        raise _no_rope(f"{title} has no rotary positions to be scaled")


def _scale_rope(config: Any, scaling: RopeScaling) -> None:
    name = "rope_parameters" if hasattr(config, "rope_parameters") else "rope_scaling"
    known = getattr(config, name, None)
    if known is None and not hasattr(config, "rope_theta"):
        raise _no_rope(f"a {config.model_type} has no rotary positions to be scaled")
    known = dict(known or {})
    if getattr(config, "alibi", False):
        raise _no_rope(f"this {config.model_type} has scores that fall with distance, and no rotary positions")
    if any(isinstance(value, dict) for value in known.values()):
        raise _no_rope(f"this {config.model_type} has rotary positions of several kinds, layer by layer")
    kept = {key: value for key, value in known.items() if key in ("rope_theta", "partial_rotary_factor")}
    put = {**kept, "rope_type": scaling.type, "factor": float(scaling.factor)}
    if scaling.original_positions is not None:
        put["original_max_position_embeddings"] = scaling.original_positions
    setattr(config, name, put)


def _no_rope(message: str) -> CircuitspecError:
    return CircuitspecError(Diagnostic("CS396", message, hint="take `rope_scaling` out"))
