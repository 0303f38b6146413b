"""Rotary embeddings that are stretched to longer prompts, written from the papers' formulas.

Position interpolation ("linear": Chen et al. 2023), NTK by length ("dynamic"), "yarn" (Peng et al. 2023), "llama3"
(Grattafiori et al. 2024), "longrope" (Ding et al. 2024). Prompts are taken to be within the original length, where
"dynamic" changes nothing and "longrope" has its short factors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def stretched(plain: Tensor, said: Mapping[str, Any], original: int) -> Tensor:
    """Inverse frequencies, from the plain ones, `[pair]`. `original` is the length that the model was first trained to.

    Raises NotImplementedError for a type that is not known.
    """
    kind = said.get("rope_type", "default")
    if kind in ("default", "dynamic"):
        return plain
    if kind == "linear":
        return plain / said["factor"]
    if kind == "longrope":
        return plain / torch.tensor(said["short_factor"], dtype=plain.dtype)
    if kind == "llama3":
        turns = original * plain / (2 * math.pi)  # within the original length
        low, high = said["low_freq_factor"], said["high_freq_factor"]
        share = ((turns - low) / (high - low)).clamp(0, 1)  # of the plain frequency
        return share * plain + (1 - share) * plain / said["factor"]
    if kind == "yarn":
        fast, slow = said.get("beta_fast") or 32, said.get("beta_slow") or 1
        dims = 2 * len(plain)

        def pair_that_turns(times: float) -> float:
            return dims * math.log(original / (times * 2 * math.pi)) / (2 * math.log(said["rope_theta"]))

        first, last = max(math.floor(pair_that_turns(fast)), 0), min(math.ceil(pair_that_turns(slow)), dims - 1)
        ramp = (torch.arange(len(plain), dtype=plain.dtype) - first) / max(last - first, 0.001)
        share = 1 - ramp.clamp(0, 1)
        return share * plain + (1 - share) * plain / said["factor"]
    raise NotImplementedError(f"rope type {kind!r}")


def multiplier(said: Mapping[str, Any], original: int, longest: int) -> float:
    """By what rotated queries and keys are multiplied."""
    kind = said.get("rope_type", "default")
    if said.get("attention_factor") is not None:
        return float(said["attention_factor"])
    if kind == "yarn":
        return 1.0 if said["factor"] <= 1 else 0.1 * math.log(said["factor"]) + 1
    if kind == "longrope":
        factor = said.get("factor") or longest / original
        return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    return 1.0


def said_of(config: Any, layer_type: str | None = None) -> Mapping[str, Any]:
    """What a configuration says of its rotary embedding, for one layer type where they differ; nothing: plain."""
    said = getattr(config, "rope_parameters", None)
    if isinstance(said, dict) and layer_type in said:
        said = said[layer_type]
    return said if isinstance(said, dict) and "rope_type" in said else {}


def original_length(config: Any, said: Mapping[str, Any]) -> int:
    """The length that the model was first trained to."""
    return int(said.get("original_max_position_embeddings") or config.max_position_embeddings)
