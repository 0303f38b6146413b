"""From a hypothesis' `model` block to a model in memory that is exactly what the block says, or an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.families.architecture import Architecture
from circuitspec.models.families.family_table import architecture_of
from circuitspec.models.families.modules import verify_modules
from circuitspec.models.families.text_models import TextModel, text_model_in
from circuitspec.models.in_memory.ambient_modes import as_in_a_new_process
from circuitspec.models.in_memory.foreign_hooks import Foreign
from circuitspec.models.model_config import read_checkpoint_config, read_config, shape_of
from circuitspec.models.model_reference import ModelReference, resolve_reference
from circuitspec.models.shapes import check_stated
from circuitspec.models.storage.adapter_files import merge_adapter
from circuitspec.models.storage.quiet import quiet_transformers
from circuitspec.models.storage.weight_files import (
    WeightFiles,
    check_complete,
    check_taken,
    check_whole,
    find_weights,
    unreadable_weights,
)
from circuitspec.models.tokenizers.tokenizer import load_tokenizer, remote_code
from circuitspec.models.written_settings import (
    WrittenSettings,
    config_of_text,
    config_to_load,
    refuse_rope,
    written_settings,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from circuitspec.dictionaries.dictionary import Dictionary

Progress = Callable[[str], None]
Ready = Callable[[ModelShape, "PreTrainedTokenizerFast"], None]
"""Told the model's shape and tokenizer before any weight is read; what it raises ends the loading."""


@dataclass(frozen=True)
class Provenance:
    """What was loaded, for every report that shows a number made with it."""

    id: str  # `model.id` as written
    revision: str | None  # commit of a hub model, `sha256:...` of a GGUF file; None for other local files
    dtype: str
    family: str
    description: str  # "SmolLM2-135M-Instruct, Q4_1 dequantised"
    n_parameters: int
    path: Path | None  # directory the weights were read from; None for a model built by code


@dataclass(frozen=True)
class LoadedModel:
    """A model in eval mode on its device, with what is needed to name and reach its parts."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    architecture: Architecture
    shape: ModelShape
    provenance: Provenance
    foreign: Foreign = field(default_factory=Foreign)  # what others put on it, where it was in memory
    dictionaries: Mapping[str, Dictionary] = field(default_factory=dict)  # by name; the shape says of which places
    frozen_routing: bool = False  # whether patched runs have the experts of the run that is patched


@dataclass(frozen=True)
class _Source:
    """A local directory to load from, and how to speak of it."""

    directory: Path
    revision: str | None
    description: str


def load_model(
    spec: ModelSpec,
    base_dir: Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    ready: Ready | None = None,
) -> LoadedModel:
    """Load the model that `spec` names: eval mode, `spec.dtype`, on `device`, every weight from its files (a
    toy of the zoo has none, and is built).

    `base_dir` is the folder of the hypothesis file; `progress` is told each stage in words, `ready` that weights are
    next. The hub is asked only where `spec.id` is a hub id; code that comes with a model is never run. Raises
    CircuitspecError with one of CS300 to CS319, CS392, CS395 or CS396 for what else `spec` sets, CS353 or CS354 for
    weights that would be taken for others, or CS386 for a model of another size than `spec.size`.
    """
    with as_in_a_new_process():
        return _load(spec, base_dir, _device(device, spec.dtype), progress or (lambda stage: None), ready)


def _load(spec: ModelSpec, base_dir: Path, target: torch.device, say: Progress, ready: Ready | None) -> LoadedModel:
    reference = resolve_reference(spec, base_dir)
    if reference.kind == "built":
        return _build(spec, base_dir, target, say, ready)
    source = _locate(spec, reference, say)
    text = text_model_in(read_checkpoint_config(source.directory / "config.json"))
    config = read_config(source.directory / "config.json")
    if "auto_map" in config:
        raise remote_code(source.directory / "config.json")
    _refuse_quantised(config)
    shape = shape_of(config)
    check_stated(spec, shape)
    settings = written_settings(spec, architecture_of(config), base_dir, text)
    weights = find_weights(source.directory, allow_pickle=spec.allow_pickle)
    check_whole(weights)
    say(f"loading {spec.id}")
    with quiet_transformers():
        _check_buildable(source.directory, text)
        tokenizer = load_tokenizer(source.directory, shape.n_vocab)
        if ready is not None:
            ready(shape, tokenizer)
        model = _read_weights(source.directory, weights, spec.dtype, settings)
    check_taken(weights, tied=bool(getattr(model.config, "tie_word_embeddings", False)))
    if settings.adapter is not None:
        merge_adapter(model, settings.adapter)
    return _checked(
        spec,
        model,
        tokenizer,
        config,
        target,
        description=settings.describe(source.description),
        revision=source.revision,
        path=source.directory,
    )


def _build(spec: ModelSpec, base_dir: Path, target: torch.device, say: Progress, ready: Ready | None) -> LoadedModel:
    """A zoo model that code makes."""
    import torch

    from circuitspec.models.zoo import built_model

    entry = built_model(spec.id.removeprefix("zoo:"))
    check_stated(spec, shape_of(entry.config))
    settings = written_settings(spec, architecture_of(entry.config), base_dir)
    refuse_rope(settings, spec.id)
    say(f"building {spec.id}")
    model, tokenizer = entry.build()
    if ready is not None:
        ready(shape_of(entry.config), tokenizer)
    model = model.to(getattr(torch, spec.dtype)).eval()
    if spec.attention is not None:
        model.set_attn_implementation(spec.attention)
    if settings.adapter is not None:
        merge_adapter(model, settings.adapter)
    return _checked(spec, model, tokenizer, entry.config, target, description=settings.describe("built by code"))


def _checked(
    spec: ModelSpec,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    config: Mapping[str, object],
    target: torch.device,
    *,
    description: str,
    revision: str | None = None,
    path: Path | None = None,
) -> LoadedModel:
    """The model on its device, once its modules are as its config says and its weights are finite."""
    architecture, shape = architecture_of(config), shape_of(config)
    verify_modules(model, architecture, shape)
    if not shape.has_mlps:
        _let_run_without_neurons(model)
    _check_finite(model, spec.dtype)
    model = _place(model, target)
    provenance = Provenance(
        id=spec.id,
        revision=revision,
        dtype=spec.dtype,
        family=architecture.family,
        description=description,
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        path=path,
    )
    return LoadedModel(model, tokenizer, architecture, shape, provenance)


def _let_run_without_neurons(model: PreTrainedModel) -> None:
    """GPT-2's MLP computes its output by a Conv1D, which fails where there are no neurons; what it adds is its bias."""
    import torch
    from torch import Tensor, nn
    from transformers.pytorch_utils import Conv1D

    class Bias(nn.Module):
        def __init__(self, bias: nn.Parameter) -> None:
            super().__init__()
            self.bias = bias

        def forward(self, nothing: Tensor) -> Tensor:
            return self.bias + torch.zeros(*nothing.shape[:-1], 1, dtype=self.bias.dtype, device=self.bias.device)

    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Conv1D) and child.weight.shape[0] == 0:
                setattr(module, name, Bias(child.bias).eval())


def _locate(spec: ModelSpec, reference: ModelReference, say: Progress) -> _Source:
    if reference.kind == "hub":
        from circuitspec.models.storage.hub import fetch_snapshot

        snapshot = fetch_snapshot(spec.id, spec.revision, allow_pickle=spec.allow_pickle, progress=say)
        return _Source(snapshot.directory, snapshot.commit, spec.id)
    if reference.kind == "gguf":
        from circuitspec.models.gguf import dequantised

        converted = dequantised(reference.local_path, progress=say)
        return _Source(converted.directory, f"sha256:{converted.sha256}", converted.description)
    description = spec.id if reference.kind == "zoo" else reference.local_path.name
    return _Source(reference.local_path, None, description)


def _refuse_quantised(config: Mapping[str, object]) -> None:
    if config.get("quantization_config") is not None:
        raise CircuitspecError(
            Diagnostic(
                "CS314",
                "config.json says that the weights are quantised (`quantization_config`)",
                hint="`dtype` could not be honoured; use the model's unquantised weights, or a GGUF file, which is "
                "dequantised and reported as such",
            )
        )


def _check_buildable(directory: Path, text: TextModel | None) -> None:
    """Build the model without weights first: what fails later is then not the fault of config.json (CS305)."""
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        if text is None:
            config = AutoConfig.from_pretrained(str(directory), trust_remote_code=False, local_files_only=True)
        else:
            config = config_of_text(directory, text)
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, OSError) as error:
        raise CircuitspecError(
            Diagnostic(
                "CS305",
                f"transformers cannot build the model that {directory / 'config.json'} describes: {error}",
                hint="correct the value it names, or copy or download the file again",
            )
        ) from error


def _read_weights(directory: Path, weights: WeightFiles, dtype: str, settings: WrittenSettings) -> PreTrainedModel:
    import pickle

    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    config, text = config_to_load(directory, settings), settings.text
    chosen: dict[str, Any] = {} if config is None else {"config": config}
    chosen |= {} if text is None else {"key_mapping": dict(text.renamed)}
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            str(directory),
            **chosen,
            dtype=getattr(torch, dtype),
            attn_implementation=settings.attention,
            use_safetensors=not weights.pickled,
            weights_only=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # they come back in `info`, and are refused with their shapes
            output_loading_info=True,
        )
    except (SafetensorError, pickle.UnpicklingError, EOFError) as error:
        raise CircuitspecError(unreadable_weights(weights.files[0], error)) from error
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise out_of_memory(error) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise CircuitspecError(_failed_load(directory, weights, error)) from error
    if text is not None:  # the rest of the checkpoint
        info["unexpected_keys"] = [key for key in info["unexpected_keys"] if not str(key).startswith(text.others)]
    check_complete(directory, info)
    return model.eval()


def _failed_load(directory: Path, weights: WeightFiles, error: BaseException) -> Diagnostic:
    if "allocate memory" in str(error):  # torch raises a bare RuntimeError where main memory is short
        return out_of_memory(error).diagnostics[0]
    if weights.pickled:
        return unreadable_weights(weights.files[0], error)
    return Diagnostic(
        "CS309",
        f"transformers cannot load {directory}: {type(error).__name__}: {error}",
        hint="check that `AutoModelForCausalLM.from_pretrained` loads this directory; copy or download it again",
    )


def _check_finite(model: PreTrainedModel, dtype: str) -> None:
    import torch

    # The extremes of a tensor are finite only if all of it is: NaN propagates. One pass, no copies, unlike isfinite().
    broken = [
        name
        for name, parameter in model.named_parameters()
        if parameter.numel() and not all(extreme.isfinite() for extreme in torch.aminmax(parameter.detach()))
    ]
    if broken:
        raise CircuitspecError(
            Diagnostic(
                "CS311",
                f"weights are NaN or infinite in {dtype}: {', '.join(broken[:5])}",
                hint="the weights are damaged"
                + (", or too large for float16: use float32 or bfloat16" if dtype == "float16" else ""),
            )
        )


def _device(name: str, dtype: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise _no_device(f"{name!r} names no device", "write cpu, cuda, cuda:0 or mps") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= (device.index or 0):
            raise _no_device(f"device {name} is not there: torch sees {count} CUDA devices", "use cpu")
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise _no_device(f"device {name} is not there", "use cpu")
        if dtype == "float64":
            raise _no_device(f"device {name} has no float64", "use float32, or cpu")
    elif device.type != "cpu":
        raise _no_device(f"device {name} is not supported", "write cpu, cuda, cuda:0 or mps")
    return device


def _place(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    import torch

    try:
        return model.to(device)
    except torch.OutOfMemoryError as error:
        raise out_of_memory(error) from error


def out_of_memory(error: BaseException) -> CircuitspecError:
    """CS318: the model itself does not fit."""
    return _no_device(f"the model does not fit in memory: {error}", "use a smaller model or dtype, or another device")


def _no_device(message: str, hint: str) -> CircuitspecError:
    return CircuitspecError(Diagnostic("CS318", message, hint=hint))
