"""Sparsify of EleutherAI: a folder a module, with `cfg.json` and `sae.safetensors`."""

from __future__ import annotations

from dataclasses import replace

from circuitspec.dictionaries.dictionary import Dictionary, TopK
from circuitspec.dictionaries.dictionary_path import DictionaryPath, Tensors, whole_number
from circuitspec.dictionaries.readers.dictionary_format import StoredDictionary, fixed


def _read(source: DictionaryPath, layer: int) -> StoredDictionary:
    settings = source.settings("cfg.json")
    activation = settings.get("activation", "topk")
    if activation not in ("topk", "groupmax"):
        message = f"cfg.json says `activation: {activation}`, which is not known"
        raise source.wrong("CS375", message, "known are topk and groupmax")
    tensors = Tensors(source, source.tensors(source.weights("sae.safetensors")))
    weight = tensors.get("encoder.weight", None, settings.get("d_in"))
    n_features, d_in = weight.shape
    reads_input = bool(settings.get("transcode", False))
    bias = tensors.get("b_dec", None)
    k = whole_number(source, settings.get("k"), "k", n_features)
    dictionary = Dictionary(
        weight.T.contiguous(),
        tensors.get("W_dec", n_features, bias.shape[0]),
        tensors.get("encoder.bias", n_features),
        bias,
        activation,
        centre=None if reads_input else bias,
        reads_input=reads_input,
    )
    if activation == "topk":
        dictionary = replace(dictionary, topk=TopK(k))
    elif n_features % k:
        raise source.wrong("CS376", f"{n_features} features do not fall into {k} equal groups")
    else:
        dictionary = replace(dictionary, groups=k)
    if settings.get("skip_connection"):
        dictionary = replace(dictionary, skip=tensors.get("W_skip", bias.shape[0], d_in).T.contiguous())
    return StoredDictionary(dictionary, source.folder.name)


SPARSIFY = fixed("sparsify", "a folder with cfg.json and sae.safetensors", ("cfg.json", "sae.safetensors"), _read)
