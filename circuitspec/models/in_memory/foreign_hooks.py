"""What a model in memory has beyond its weights: forward hooks on its modules, forwards put in place of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

HOOKS = {
    "_forward_pre_hooks": "forward pre-hook",
    "_forward_hooks": "forward hook",
    "_backward_pre_hooks": "backward pre-hook",
    "_backward_hooks": "backward hook",
}
"""Where a module keeps its hooks, and what they are called."""

# Hooks that transformers leaves behind; they change no value: one copies outputs, the other marks for gradients.
_HARMLESS = (("transformers.utils.output_capturing", ""), ("transformers.modeling_utils", "require_grads"))


@dataclass(frozen=True)
class Foreign:
    """What others put on a model, in words such as `transformer.h.1.mlp (forward hook)`; `kept` hooks take part."""

    hooks: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()  # on which the hooks are
    replaced: tuple[str, ...] = ()  # modules whose forward is not that of their class; these always take part
    kept: bool = False

    @property
    def runs_hooks(self) -> bool:
        """Whether hooks take part in every forward."""
        return self.kept and bool(self.hooks)


def foreign_to(model: nn.Module, *, kept: bool) -> Foreign:
    """What is on the modules of a model that its class did not put there."""
    hooks: list[str] = []
    modules: list[str] = []
    replaced: list[str] = []
    for name, module in model.named_modules():
        place = name or "the model itself"
        found = list(_hooks_of(module))
        hooks += [f"{place} ({kind})" for kind in dict.fromkeys(found)]
        if found:
            modules.append(name)
        if "forward" in vars(module) and not _of_accelerate(module):
            replaced.append(place)
    return Foreign(tuple(hooks), tuple(modules), tuple(replaced), kept)


def _of_accelerate(module: nn.Module) -> bool:
    """Whether accelerate put its forward around the module's own, as `device_map` has it do: values stay the same."""
    before = vars(module).get("_old_forward")
    return hasattr(module, "_hf_hook") and getattr(before, "__func__", None) is type(module).forward


def _hooks_of(module: nn.Module) -> Iterator[str]:
    for registry, kind in HOOKS.items():
        for hook in getattr(module, registry, {}).values():
            if not _harmless(hook):
                yield kind


def _harmless(hook: Any) -> bool:
    function = getattr(hook, "func", hook)  # of a functools.partial
    made_in, name = getattr(function, "__module__", "") or "", getattr(function, "__name__", "") or ""
    return any(made_in == where and part in name for where, part in _HARMLESS)
