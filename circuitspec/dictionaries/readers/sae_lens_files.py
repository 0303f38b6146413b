"""SAELens: `cfg.json` and `sae_weights.safetensors`, of version 6 and of those before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from circuitspec.dictionaries.dictionary import Activation, Dictionary, EncoderGate, Norm, TopK
from circuitspec.dictionaries.dictionary_path import DictionaryPath, Tensors, whole_number
from circuitspec.dictionaries.readers.dictionary_format import StoredDictionary, fixed
from circuitspec.dictionaries.readers.weight_layouts import above_threshold

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
_NORMS: Mapping[str, Norm | None] = {
    "none": None,
    "expected_average_only_in": None,  # its factor is folded into the weights before they are saved
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "constant_norm",
}
_ACTIVATIONS: Mapping[str, Activation] = {
    "standard": "relu",
    "gated": "relu",
    "jumprelu": "jumprelu",
    "topk": "topk",
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
_TRAINING = ("batchtopk", "matryoshka_batchtopk")


def _read(source: DictionaryPath, layer: int) -> StoredDictionary:
    settings = _of_version_6(source.settings("cfg.json"))
    architecture = settings.get("architecture", "standard")
    activation = _ACTIVATIONS.get(architecture) if isinstance(architecture, str) else None
    if activation is None:
        training = "; save it for inference first, which makes it a jumprelu" if architecture in _TRAINING else ""
        known = f"known are {', '.join(_ACTIVATIONS)}{training}"
        raise source.wrong("CS375", f"cfg.json says `architecture: {architecture}`, which is not known", known)
    reads_input = architecture.endswith("transcoder")
    dtype = _DTYPES.get(str(settings.get("dtype", "float32")).removeprefix("torch."))
    if dtype is None:
        raise source.wrong("CS375", f"cfg.json says `dtype: {settings['dtype']}`", f"known are {', '.join(_DTYPES)}")
    found = source.tensors(source.weights("sae_weights.safetensors"))
    tensors = Tensors(source, {name: value.to(dtype) for name, value in found.items()})
    _check_scaling(source, tensors)
    encoder = tensors.get("W_enc", settings.get("d_in"), settings.get("d_sae"))
    d_in, n_features = encoder.shape
    decoder = tensors.get("W_dec", n_features, settings.get("d_out") if reads_input else d_in)
    dictionary = Dictionary(
        encoder,
        decoder,
        None if architecture == "gated" else tensors.get("b_enc", n_features),
        tensors.get("b_dec", decoder.shape[1]),
        activation,
        norm=_norm(source, settings),
        reads_input=reads_input,
    )
    if not reads_input and settings.get("apply_b_dec_to_input", True):
        dictionary = replace(dictionary, centre=dictionary.decoder_bias)
    if architecture == "gated":
        bias, gate, r_mag = (tensors.get(name, n_features) for name in ("b_mag", "b_gate", "r_mag"))
        dictionary = replace(dictionary, gate=EncoderGate(gate, r_mag.exp(), bias))
    if activation == "jumprelu":
        dictionary = above_threshold(dictionary, tensors)
    if activation == "topk":
        k = whole_number(source, settings.get("k"), "k", n_features)
        norms = decoder.norm(dim=-1) if settings.get("rescale_acts_by_decoder_norm") else None
        dictionary = replace(dictionary, topk=TopK(k, norms=norms))
    if "skip" in architecture:
        dictionary = replace(dictionary, skip=tensors.get("W_skip", decoder.shape[1], d_in).T.contiguous())
    hook = settings.get("metadata", {}).get("hook_name")
    return StoredDictionary(dictionary, hook if isinstance(hook, str) else "")


SAE_LENS = fixed(
    "sae_lens", "a folder with cfg.json and sae_weights.safetensors", ("cfg.json", "sae_weights.safetensors"), _read
)


def _of_version_6(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings under the names that version 6 gives them; what older files leave out is as it was then."""
    if isinstance(settings.get("metadata"), dict):
        return settings
    renamed = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}
    found = {renamed.get(name, name): value for name, value in settings.items()}
    given = found.get("activation_fn_kwargs")
    if found.get("activation_fn") == "topk" and isinstance(given, dict) and given.get("k") is not None:
        found |= {"architecture": "topk", "k": given["k"]}
    elif found.get("activation_fn", "relu") not in ("relu", None):
        found["architecture"] = f"{found.get('architecture', 'standard')} with {found['activation_fn']}"
    if isinstance(found.get("normalize_activations"), bool):
        found["normalize_activations"] = "expected_average_only_in" if found["normalize_activations"] else "none"
    return {**found, "metadata": {"hook_name": found.get("hook_name")}}


def _norm(source: DictionaryPath, settings: Mapping[str, Any]) -> Norm | None:
    named = settings.get("normalize_activations") or "none"
    if named not in _NORMS:
        hint = f"known are {', '.join(_NORMS)}"
        raise source.wrong("CS375", f"cfg.json says `normalize_activations: {named}`, which is not known", hint)
    return _NORMS[named]


def _check_scaling(source: DictionaryPath, tensors: Tensors) -> None:
    scaling = tensors.found.get("scaling_factor")
    if scaling is not None and not torch.allclose(scaling, torch.ones_like(scaling)):
        raise source.wrong(
            "CS375",
            "its features are scaled after training (`scaling_factor`), which is not known here",
            "multiply the rows of W_dec by scaling_factor, and leave the tensor out",
        )
