"""Models of TransformerLens: the Hugging Face model inside a bridge, taken where it computes what the bridge does."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.models.in_memory.foreign_hooks import HOOKS

if TYPE_CHECKING:
    from torch import nn

_INSIDE = "_original_component"  # under which a bridge's component keeps the module that it stands for
_TOLERANCE = 1e-4  # of logits, in units of their size: the bridge may compute attention in another order
_TOKENS = 12


def inside_bridge(model: Any) -> nn.Module | None:
    """The Hugging Face model inside a TransformerLens bridge, or of which a bridge has replaced modules; without them.

    None for any other object. The modules are copies that share the weights. Raises CS515 for a HookedTransformer,
    and where bridge and model compute different logits (processed weights).
    """
    from torch import nn

    if not isinstance(model, nn.Module):
        return None
    kinds = [cls.__name__ for cls in type(model).__mro__]
    whole = getattr(model, "original_model", None)
    if "HookedTransformer" in kinds:
        raise CircuitspecError(
            Diagnostic(
                "CS515",
                "`model` is a HookedTransformer of TransformerLens, whose weights are converted and modules its own",
                hint="give the Hugging Face model that it was made from (AutoModelForCausalLM.from_pretrained), or a "
                "TransformerBridge of it",
            )
        )
    if not isinstance(whole, nn.Module):
        if not any(_is_stand_in(module) for module in model.modules()):
            return None
        whole = model
    replaced = [name for name, module in whole.named_modules() if "forward" in vars(module)]
    if replaced:
        raise CircuitspecError(
            Diagnostic(
                "CS515",
                f"modules inside the TransformerLens bridge have a forward of another's: {', '.join(replaced[:3])}",
                hint="give the Hugging Face model as it is loaded",
            )
        )
    plain = _without_stand_ins(whole)
    _check_same(model, whole, plain)
    return plain


def _is_stand_in(module: nn.Module) -> bool:
    return _INSIDE in module._modules


def _without_stand_ins(module: nn.Module) -> nn.Module:
    """The module tree with what bridges put in its place taken out, and without hooks; the weights are shared."""
    while _is_stand_in(module):
        inside = module._modules[_INSIDE]
        assert inside is not None
        module = inside
    plain = copy.copy(module)
    own = vars(plain)
    own["_parameters"], own["_buffers"] = dict(module._parameters), dict(module._buffers)
    for registry in (*HOOKS, "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs"):
        own[registry] = OrderedDict()
    own["_forward_hooks_always_called"] = OrderedDict()
    own["_modules"] = {
        name: None if child is None else _without_stand_ins(child) for name, child in module._modules.items()
    }
    return plain


def _check_same(given: nn.Module, whole: nn.Module, plain: nn.Module) -> None:
    import torch

    vocabulary = next(iter(plain.get_input_embeddings().parameters())).shape[0]  # type: ignore[operator]
    device = next(plain.parameters()).device
    ids = torch.randint(vocabulary, (2, _TOKENS), generator=torch.Generator().manual_seed(0)).to(device)
    training = [(module, module.training) for model in (given, whole, plain) for module in model.modules()]
    hooks = [(module, name, getattr(module, name)) for module in whole.modules() for name in HOOKS]
    try:
        for module, _ in training:
            module.training = False
        for module, name, _ in hooks:
            setattr(module, name, OrderedDict())
        with torch.no_grad():
            theirs, ours = _logits(given(ids)), _logits(plain(ids))
    finally:
        for module, mode in training:
            module.training = mode
        for module, name, kept in hooks:
            setattr(module, name, kept)
    difference = float((theirs - ours).abs().max() / theirs.std()) if theirs.shape == ours.shape else float("inf")
    if not difference <= _TOLERANCE:
        raise CircuitspecError(
            Diagnostic(
                "CS515",
                "the TransformerLens bridge does not compute what the Hugging Face model inside it does: logits differ "
                f"by {difference:.2g} of their standard deviation",
                hint="its weights are processed (compatibility mode, folded norms) or changed: give a bridge as "
                "boot_transformers makes it, or the Hugging Face model",
            )
        )


def _logits(output: Any) -> Any:
    return getattr(output, "logits", output)
