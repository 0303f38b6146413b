"""A model that is in memory already, taken as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.models.families.family_table import architecture_of
from circuitspec.models.families.modules import verify_modules
from circuitspec.models.in_memory.adapters import adapted_modules, adapters_of, merged_copy
from circuitspec.models.in_memory.bridge import inside_bridge
from circuitspec.models.in_memory.foreign_hooks import foreign_to
from circuitspec.models.in_memory.unfit import check_causal, check_kept, check_model, check_placed, check_tokenizer
from circuitspec.models.load import LoadedModel, Provenance
from circuitspec.models.model_config import shape_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def adopt_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    *,
    keep_hooks: bool = False,
    merge_adapters: bool = False,
) -> LoadedModel:
    """A Hugging Face model of the caller's, with what is needed to name and reach its parts.

    Of a TransformerLens bridge it is the model inside. Nothing of it is changed: its dtype and device stay, whatever a
    hypothesis says. With `keep_hooks` the hooks on its modules take part. With `merge_adapters` it is a copy of a model
    of peft with its active adapters in the weights; the given one stays as it is.

    Raises CS515 for what is no plain causal language model (adapters, quantised weights, a wrapper), or where hooks
    cannot be kept, CS393 for a model that is spread over devices or offloaded (`device_map`), CS304 for an unknown
    family, CS313 where its modules are not those of its family, CS370 where its parameters have several dtypes.
    """
    from torch import nn

    check_tokenizer(tokenizer)
    adapters = adapters_of(model) if merge_adapters else ()
    if adapters or (merge_adapters and isinstance(model, nn.Module) and any(adapted_modules(model))):
        model = merged_copy(model)
    given = model
    inside = inside_bridge(model)
    if inside is not None:
        model = cast("PreTrainedModel", inside)
    check_model(model)
    check_placed(model)
    config = model.config.to_dict()
    architecture, shape = architecture_of(config), shape_of(config)
    check_causal(model, architecture)
    verify_modules(model, architecture, shape)
    parameters = list(model.parameters())
    kinds = {str(p.dtype).removeprefix("torch.") for p in parameters}
    devices = {str(p.device) for p in parameters}
    if len(kinds) > 1 or len(devices) > 1:
        raise CircuitspecError(
            Diagnostic(
                "CS370",
                f"the model's parameters are {' and '.join(sorted(kinds))} on {' and '.join(sorted(devices))}",
                hint="give a model of one dtype on one device, e.g. model.float().to('cpu')",
            )
        )
    foreign = foreign_to(getattr(given, "original_model", given), kept=keep_hooks)
    if keep_hooks:
        check_kept(foreign.modules, architecture, bridge=inside is not None)
    name = getattr(model.config, "name_or_path", "") or type(model).__name__
    provenance = Provenance(
        id=name,
        revision=None,
        dtype=kinds.pop(),
        family=architecture.family,
        description="in memory"
        + ("" if inside is None else ", out of a TransformerLens bridge")
        + (", with its forward hooks" if foreign.runs_hooks else "")
        + (f", adapters merged: {', '.join(map(str, adapters))}" if adapters else ""),
        n_parameters=sum(p.numel() for p in parameters),
        path=None,
    )
    return LoadedModel(model, tokenizer, architecture, shape, provenance, foreign)
