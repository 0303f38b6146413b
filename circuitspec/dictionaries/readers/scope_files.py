"""The published suites: Gemma Scope, Gemma Scope 2 and Llama Scope."""

from __future__ import annotations

from dataclasses import replace

import torch

from circuitspec.dictionaries.dictionary import Dictionary
from circuitspec.dictionaries.dictionary_path import DictionaryPath, Tensors, positive
from circuitspec.dictionaries.readers.dictionary_format import StoredDictionary, fixed
from circuitspec.dictionaries.readers.weight_layouts import above_threshold, linear, matrices


def _gemma_scope(source: DictionaryPath, layer: int) -> StoredDictionary:
    path = source.weights("params.npz")
    if "transcoder" in str(path.resolve()):
        raise source.wrong(
            "CS375",
            "transcoders of Gemma Scope read the stream after its norm but before the norm's weight, which no module "
            "computes",
            "use one that reads what enters the MLP, such as those of Gemma Scope 2",
        )
    tensors = Tensors(source, source.tensors(path))
    return StoredDictionary(above_threshold(matrices(tensors), tensors))


def _gemma_scope_2(source: DictionaryPath, layer: int) -> StoredDictionary:
    settings = source.settings("config.json")
    if settings.get("architecture") != "jump_relu":
        message = f"config.json says `architecture: {settings.get('architecture')}`, which is not known"
        raise source.wrong("CS375", message, "known is jump_relu")
    tensors = Tensors(source, source.tensors(source.weights("params.safetensors")))
    encoder = tensors.get("w_enc", None, None)
    d_in, n_features = encoder.shape
    read, written = settings.get("hf_hook_point_in"), settings.get("hf_hook_point_out")
    reads_input = written is not None and written != read
    decoder = tensors.get("w_dec", n_features, None if reads_input else d_in)
    bias, constant = tensors.get("b_enc", n_features), tensors.get("b_dec", decoder.shape[1])
    found = above_threshold(Dictionary(encoder, decoder, bias, constant, "relu", reads_input=reads_input), tensors)
    if "affine_skip_connection" in tensors:
        found = replace(found, skip=tensors.get("affine_skip_connection", d_in, decoder.shape[1]))
    return StoredDictionary(found, read if isinstance(read, str) else "")


def _llama_scope(source: DictionaryPath, layer: int) -> StoredDictionary:
    settings = source.settings("hyperparams.json")
    average = settings.get("dataset_average_activation_norm")
    norms = average if isinstance(average, dict) else {}
    weights = source.weights("checkpoints/final.safetensors")
    tensors = Tensors(source, source.tensors(weights))
    found = linear(tensors, "decoder.bias")
    scale = found.d_in**0.5 / positive(source, norms.get("in"), "dataset_average_activation_norm.in")
    _check_llama_scope(source, settings, found.decoder)
    above = positive(source, settings.get("jump_relu_threshold"), "jump_relu_threshold")
    threshold = torch.tensor(above * scale, dtype=found.dtype)  # it is told in units of what is not scaled
    hook = settings.get("hook_point_in")
    found = replace(found, activation="jumprelu", threshold=threshold, scale=scale)
    return StoredDictionary(found, hook if isinstance(hook, str) else "")


def _check_llama_scope(source: DictionaryPath, settings: dict[str, object], decoder: torch.Tensor) -> None:
    read, written = settings.get("hook_point_in"), settings.get("hook_point_out")
    if written not in (None, read):
        raise source.wrong("CS375", f"it reads {read} and writes {written}", "use one that writes what it reads")
    norms = decoder.norm(dim=-1).float()
    if settings.get("sparsity_include_decoder_norm") and not torch.allclose(norms, torch.ones_like(norms), atol=1e-2):
        raise source.wrong(
            "CS375",
            "its features are compared after they are multiplied by the norms of their directions, which are not 1",
            "use a dictionary whose directions have the norm 1",
        )


GEMMA_SCOPE = fixed("gemma_scope", "params.npz", ("params.npz",), _gemma_scope)
GEMMA_SCOPE_2 = fixed(
    "gemma_scope_2",
    "a folder with config.json and params.safetensors",
    ("config.json", "params.safetensors"),
    _gemma_scope_2,
)
LLAMA_SCOPE = fixed(
    "llama_scope",
    "a folder with hyperparams.json and checkpoints/final.safetensors",
    ("hyperparams.json", "checkpoints/final.safetensors"),
    _llama_scope,
)
