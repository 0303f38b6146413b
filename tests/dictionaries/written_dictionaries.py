"""Small dictionaries, written in the layouts of other tools from the same numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Numbers:
    """encoder `[d_in, n]`, decoder `[n, d_out]`, biases `[n]` and `[d_out]`, and what single kinds have beside."""

    encoder: Array
    decoder: Array
    encoder_bias: Array
    decoder_bias: Array
    threshold: Array
    r_mag: Array
    gate_bias: Array
    skip: Array  # [d_in, d_out]

    @classmethod
    def drawn(cls, d_in: int = 6, n: int = 12, seed: int = 0) -> Numbers:
        draw = np.random.default_rng(seed).standard_normal
        return cls(
            draw((d_in, n)),
            draw((n, d_in)),
            draw(n) * 0.3,
            draw(d_in) * 0.3,
            np.abs(draw(n)) * 0.5,
            draw(n) * 0.3,
            draw(n) * 0.3,
            draw((d_in, d_in)) * 0.3,
        )


def tensors(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """In float64, whole numbers as they are."""
    return {name: torch.as_tensor(np.array(value)).contiguous() for name, value in arrays.items()}


def sae_lens(folder: Path, settings: Mapping[str, Any], arrays: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    d_in, n = np.shape(arrays["W_enc"])
    told = {"d_in": d_in, "d_sae": n, "dtype": "float64", "metadata": {"hook_name": "blocks.1.hook_resid_pre"}}
    (folder / "cfg.json").write_text(json.dumps({**told, **settings}))
    save_file(tensors(arrays), folder / "sae_weights.safetensors")
    return folder


def sparsify(folder: Path, settings: Mapping[str, Any], arrays: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps({"d_in": np.shape(arrays["encoder.weight"])[1], **settings}))
    save_file(tensors(arrays), folder / "sae.safetensors")
    return folder


def dictionary_learning(folder: Path, dict_class: str, arrays: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": dict_class, "layer": 1}}))
    torch.save(tensors(arrays), folder / "ae.pt")
    return folder


def plain(numbers: Numbers, *extra: str, **other: Any) -> dict[str, Any]:
    """The tensors under the names that most tools give them, the `extra` ones of the numbers, and others."""
    own = {
        "W_enc": numbers.encoder,
        "W_dec": numbers.decoder,
        "b_enc": numbers.encoder_bias,
        "b_dec": numbers.decoder_bias,
    }
    return {**own, **{name: getattr(numbers, name) for name in extra}, **other}


def linear(numbers: Numbers, **other: Any) -> dict[str, Any]:
    """The same as torch's linear layers have them, without the decoder's bias."""
    own = {
        "encoder.weight": numbers.encoder.T,
        "encoder.bias": numbers.encoder_bias,
        "decoder.weight": numbers.decoder.T,
    }
    return {**own, **other}


Writer = Callable[[Path, Numbers], Path]
