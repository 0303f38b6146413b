"""Objects that cannot be verified as they are, told apart before any work, each with what to give instead."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.models.families.architecture import Architecture
from circuitspec.models.families.modules import submodule
from circuitspec.models.in_memory.adapters import adapted_modules, adapters_of

if TYPE_CHECKING:
    from torch import nn

_QUANTISERS = (
    "bitsandbytes",
    "torch.ao.nn.quantized",
    "torch.nn.quantized",
    "torchao",
    "auto_gptq",
    "gptqmodel",
    "awq",
    "hqq",
    "optimum.quanto",
    "quanto",
    "eetq",
    "aqlm",
    "transformers.integrations",
)
_GLOBAL_HOOKS = ("_global_forward_pre_hooks", "_global_forward_hooks", "_global_backward_hooks")
_WRAPPERS = {
    "OptimizedModule": "model._orig_mod",
    "DataParallel": "model.module",
    "DistributedDataParallel": "model.module",
}


def check_model(model: object) -> None:
    """Raises CS515 for an object that is no plain Hugging Face model, or that has more than plain weights."""
    import torch
    from torch import nn

    kind = type(model).__name__
    if not isinstance(model, nn.Module):
        raise _unfit(
            f"`model` is a {kind}, not a model",
            "give a Hugging Face model, such as AutoModelForCausalLM.from_pretrained(...), "
            "or name the model in the file and pass none",
        )
    if kind in _WRAPPERS:
        raise _unfit(f"`model` is wrapped in a {kind}", f"give the model inside: {_WRAPPERS[kind]}")
    _check_adapters(model)
    if not callable(getattr(getattr(model, "config", None), "to_dict", None)):
        raise _unfit(
            f"`model` is a {kind} without a Hugging Face configuration (`model.config`)",
            "give a model of the transformers library, or one converted to it",
        )
    _check_quantised(model)
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise _unfit(
            "`model` was made under torch.inference_mode(), so that no gradients can be taken through it",
            "load it outside of that block; verify itself may be called inside",
        )
    if any(getattr(torch.nn.modules.module, registry) for registry in _GLOBAL_HOOKS):
        raise _unfit(
            "hooks are registered for all modules of all models (torch.nn.modules.module.register_module_..._hook)",
            "remove them; they would take part in every run",
        )


def check_placed(model: nn.Module) -> None:
    """Raises CS393 for weights that are on several devices, or on none: a `device_map` spread or offloaded them."""
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    spread = getattr(model, "hf_device_map", None)
    if "meta" in devices or (spread is not None and len(devices) > 1):
        away = [name for name, parameter in model.named_parameters() if parameter.device.type == "meta"]
        said = f"offloaded, so that they are not in memory: {_some(away)}" if away else f"on {' and '.join(devices)}"
        raise CircuitspecError(
            Diagnostic(
                "CS393",
                f"weights of `model` are {said}",
                hint='patches are put in on one device: load the model whole on one, as device_map={"": 0} or '
                "device_map={'': 'cpu'}, or without device_map",
            )
        )


def check_causal(model: nn.Module, architecture: Architecture) -> None:
    """Raises CS515 for a model of the family that gives no next token."""
    try:
        submodule(model, architecture.unembedding)
    except AttributeError:
        raise _unfit(
            f"{type(model).__name__} is no causal language model: it has no unembedding ({architecture.unembedding})",
            "load the same weights with AutoModelForCausalLM.from_pretrained(...)",
        ) from None


def check_tokenizer(tokenizer: object) -> None:
    """Raises CS515 for what is no tokenizer of transformers."""
    if not (callable(tokenizer) and hasattr(tokenizer, "is_fast") and hasattr(tokenizer, "decode")):
        raise _unfit(
            f"`tokenizer` is a {type(tokenizer).__name__}, not a tokenizer",
            "give the model's own: AutoTokenizer.from_pretrained(...)",
        )


def check_kept(modules: tuple[str, ...], architecture: Architecture, *, bridge: bool) -> None:
    """Raises CS515 for hooks that cannot be kept: logits are read past them, or they are on a bridge's hook points."""
    if bridge and modules:
        raise _unfit(
            f"hooks on a TransformerLens bridge cannot be kept: {_some(list(modules))}",
            "put them on the modules of the Hugging Face model and give that one",
        )
    last = [name for name in modules if name in ("", architecture.final_norm, architecture.unembedding)]
    if last:
        raise _unfit(
            f"hooks on {', '.join(name or 'the model itself' for name in last)} cannot be kept",
            "put them on blocks, attention or MLPs, or let them be set aside (keep_hooks=False)",
        )


def _check_adapters(model: nn.Module) -> None:
    adapted = list(adapted_modules(model))
    if adapted or callable(getattr(model, "merge_and_unload", None)):
        named = ", ".join(map(str, adapters_of(model)))
        where = f" at {_some(adapted)}" if adapted else ""
        raise _unfit(
            f"`model` has adapters that are not merged: {named or 'unnamed ones'}{where}",
            "pass merge_adapters=True, and a copy with them merged is taken; or merge them into the weights first: "
            "model = model.merge_and_unload(); or give the base model",
        )


def _check_quantised(model: nn.Module) -> None:
    found = list(_quantised(model))
    stated = getattr(getattr(model, "config", None), "quantization_config", None)
    if not found and stated is None:
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(kind for _, kind in found).items())
    what = f"{kinds}, first {found[0][0]}" if found else "as its configuration says (`quantization_config`)"
    raise _unfit(
        f"`model` is quantised: {what}",
        "its weights are not read as numbers that can be patched: load it unquantised (float32 or bfloat16), or "
        "model.dequantize() where its quantiser can",
    )


def _quantised(model: nn.Module) -> Iterator[tuple[str, str]]:
    import torch

    for name, module in model.named_modules():
        made_in, kind = type(module).__module__, type(module).__name__
        weight = getattr(module, "weight", None)
        if (made_in.startswith(_QUANTISERS) and (weight is not None or hasattr(module, "qweight"))) or inspect.ismethod(
            weight
        ):
            yield name, kind
        elif isinstance(weight, torch.Tensor) and (
            not weight.is_floating_point() or weight.element_size() == 1 or _packed(weight)
        ):
            yield name, f"{kind} of {str(weight.dtype).removeprefix('torch.')}"


def _packed(weight: Any) -> bool:
    return type(weight).__module__.startswith(_QUANTISERS) or type(getattr(weight, "data", None)).__module__.startswith(
        _QUANTISERS
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _unfit(message: str, hint: str) -> CircuitspecError:
    return CircuitspecError(Diagnostic("CS515", message, hint=hint))
