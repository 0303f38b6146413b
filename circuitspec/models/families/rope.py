"""Rotary embeddings whose frequencies hang on the longest row of a batch, or on what ran before.

transformers chooses the frequencies of two rope types in every forward, for all of its rows at once: `longrope` by
whether the longest row is longer than the model was first trained for, `dynamic` by the longest row itself, where it is
the longest so far. A prompt's own run is that of the prompt alone, in a model that has run nothing else.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from circuitspec.models.families.modules import computing

if TYPE_CHECKING:
    from torch import nn


def reads_longest_row(model: nn.Module) -> bool:
    """Whether what a row computes depends on how long the longest row is, so that rows must be equally long."""
    return any(_by_longest_row(kind) for module in model.modules() for kind in _types(module).values())


@contextlib.contextmanager
def memoryless(model: nn.Module) -> Iterator[None]:
    """Within it, every forward begins with the frequencies that the model was built with; given back as it came."""
    rotary = [module for module in model.modules() if any(map(_by_longest_row, _types(module).values()))]
    before = [_memory(module) for module in rotary]
    written = [{name: value.clone() for name, value in kept.items() if hasattr(value, "clone")} for kept in before]
    forwards: dict[nn.Module, Callable[..., Any]] = {
        module: functools.partial(_afresh, module, module.forward)
        for module in rotary
        if any("dynamic" in kind for kind in _types(module).values())
    }
    try:
        with computing(forwards):
            yield
    finally:
        for module, kept, values in zip(rotary, before, written, strict=True):
            for name in _memory(module).keys() - kept.keys():
                delattr(module, name)
            for name, value in kept.items():
                setattr(module, name, value)
                if name in values:
                    value.copy_(values[name])


def _by_longest_row(kind: str) -> bool:
    return kind == "longrope" or "dynamic" in kind


def _types(module: nn.Module) -> Mapping[str, str]:
    """The rope types of a rotary embedding, by the prefix of their attributes; none for any other module."""
    found = getattr(module, "rope_type", None)
    if isinstance(found, str):
        return {"": found}
    return {f"{layers}_": kind for layers, kind in found.items()} if isinstance(found, Mapping) else {}


def _memory(module: nn.Module) -> dict[str, Any]:
    """What a forward of a rotary embedding may leave behind."""
    names = [f"{prefix}{name}" for prefix in _types(module) for name in ("inv_freq", "max_seq_len_cached")]
    names += ["max_seq_len_cached", "attention_scaling"]
    return {name: getattr(module, name) for name in names if hasattr(module, name)}


def _afresh(module: nn.Module, own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The module's own forward, as if it had run nothing before."""
    for prefix in _types(module):
        setattr(module, f"{prefix}inv_freq", getattr(module, f"{prefix}original_inv_freq"))
        module.__dict__.pop(f"{prefix}max_seq_len_cached", None)
    module.max_seq_len_cached = module.original_max_seq_len
    return own(*args, **kwargs)
