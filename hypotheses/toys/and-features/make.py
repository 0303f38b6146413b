"""The dictionary beside this file, from the blueprint of zoo:and: what enters its block 1 is a sum of five features.

python hypotheses/toys/and-features/make.py
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from circuitspec.models.zoo.toys.blueprint import D_MODEL
from circuitspec.models.zoo.toys.gates import AND
from circuitspec.models.zoo.toys.weights import CONSTANT

FEATURES = ("A", "B", "flows", "first", "second")
HERE = Path(__file__).parent


def pair(feature: str, size: float) -> torch.Tensor:
    """A feature of the blueprint is a pair of channels, after the pair of the constant."""
    channel = 2 + 2 * AND.features.index(feature)
    found = torch.zeros(D_MODEL)
    found[channel], found[channel + 1] = size, -size
    return found


def main() -> None:
    constant = torch.zeros(D_MODEL)
    constant[0], constant[1] = CONSTANT, -CONSTANT
    tensors = {
        "W_enc": torch.stack([pair(one, 0.5) for one in FEATURES], dim=1).contiguous(),
        "W_dec": torch.stack([pair(one, 1.0) for one in FEATURES]),
        "b_enc": torch.zeros(len(FEATURES)),
        "b_dec": constant,
    }
    save_file(tensors, HERE / "sae_weights.safetensors")
    settings = {
        "architecture": "standard",
        "d_in": D_MODEL,
        "d_sae": len(FEATURES),
        "dtype": "float32",
        "apply_b_dec_to_input": False,
        "metadata": {"model_name": "zoo:and", "hook_name": "blocks.1.hook_resid_pre"},
    }
    (HERE / "cfg.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
