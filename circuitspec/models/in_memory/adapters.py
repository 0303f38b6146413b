"""Adapters beside the weights of a model in memory, as peft puts them there: named, and merged into a copy."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Adapter:
    """An adapter by its name, as `default (LORA, rank 8)`; the rank is None where its kind has none."""

    name: str
    kind: str
    rank: int | None

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}" + (")" if self.rank is None else f", rank {self.rank})")


def adapters_of(model: Any) -> tuple[Adapter, ...]:
    """The active adapters of a model, by what it says of them (`peft_config`); none where it says nothing."""
    configs = getattr(model, "peft_config", None)
    if not isinstance(configs, dict):
        return ()
    active = _active(model)
    return tuple(
        Adapter(str(name), str(getattr(config.peft_type, "value", config.peft_type)), getattr(config, "r", None))
        for name, config in configs.items()
        if active is None or name in active
    )


def _active(model: Any) -> list[str] | None:
    """The names of those that take part; None where the model does not tell."""
    found = getattr(model, "active_adapters", None)
    try:
        found = found() if callable(found) else found
    except ValueError:  # transformers: none was loaded
        return None
    return [found] if isinstance(found, str) else None if found is None else list(found)


def adapted_modules(model: nn.Module) -> Iterator[str]:
    """The modules that are layers of peft's, or made in its manner: another layer, and low-rank matrices beside it."""
    for name, module in model.named_modules():
        made_in = type(module).__module__
        of_peft = made_in.startswith("peft.tuners") and hasattr(module, "base_layer")
        if of_peft or any(hasattr(module, f"{kind}A") and hasattr(module, f"{kind}B") for kind in _LOW_RANK):
            yield name


_LOW_RANK = ("lora_", "lora_embedding_")


def merged_copy(model: Any) -> Any:
    """A copy of the model with its active adapters in the weights, by peft's own `merge_and_unload`, or layer by layer.

    The model itself stays as it is; for a while there are two in memory. Raises CS515 where that cannot be done.
    """
    try:
        merged = copy.deepcopy(model)
        if callable(getattr(merged, "merge_and_unload", None)):
            return merged.merge_and_unload()
        for name in list(adapted_modules(merged)):
            layer = merged.get_submodule(name)
            layer.merge()
            parent, _, own = name.rpartition(".")
            setattr(merged.get_submodule(parent), own, layer.get_base_layer())
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        named = ", ".join(map(str, adapters_of(model))) or "they"
        raise CircuitspecError(
            Diagnostic(
                "CS515",
                f"the adapters of `model` cannot be merged: {named}: {type(error).__name__}: {error}",
                hint="give a model whose adapters add to weights (LoRA and its like), or the base model",
            )
        ) from error
    return merged
