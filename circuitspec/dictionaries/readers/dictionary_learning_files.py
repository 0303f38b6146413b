"""dictionary_learning: `config.json` and `ae.pt`, a class of dictionary each with tensors of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from circuitspec.dictionaries.dictionary import Dictionary, EncoderGate, TopK
from circuitspec.dictionaries.dictionary_path import DictionaryPath, Tensors, whole_number
from circuitspec.dictionaries.readers.dictionary_format import StoredDictionary, fixed


def _linear(tensors: Tensors, decoder_bias: str, *, biased: bool = True) -> Dictionary:
    """With an encoder and a decoder that are torch's linear layers, `[out, in]`."""
    weight = tensors.get("encoder.weight", None, None)
    n_features, d_in = weight.shape
    return Dictionary(
        weight.T.contiguous(),
        tensors.get("decoder.weight", d_in, n_features).T.contiguous(),
        tensors.get("encoder.bias", n_features) if biased else None,
        tensors.get(decoder_bias, d_in),
        "relu",
    )


def _matrices(tensors: Tensors) -> Dictionary:
    """With an encoder `[in, out]` and a decoder alike."""
    encoder = tensors.get("W_enc", None, None)
    d_in, n_features = encoder.shape
    decoder, bias = tensors.get("W_dec", n_features, d_in), tensors.get("b_enc", n_features)
    return Dictionary(encoder, decoder, bias, tensors.get("b_dec", d_in), "relu")


def _autoencoder(tensors: Tensors) -> Dictionary:
    """Read as its tool reads it: directions get a norm of 1, and features what that takes."""
    found = _linear(tensors, "bias")
    assert found.encoder_bias is not None
    norms = found.decoder.norm(dim=-1)
    if torch.allclose(norms, torch.ones_like(norms)):
        return replace(found, centre=found.decoder_bias)
    return replace(
        found,
        decoder=found.decoder / norms[:, None],
        encoder=found.encoder * norms,
        encoder_bias=found.encoder_bias * norms,
        centre=found.decoder_bias,
    )


def _gated(tensors: Tensors) -> Dictionary:
    found = _linear(tensors, "decoder_bias", biased=False)
    opening, r_mag, bias = (tensors.get(name, found.n_features) for name in ("gate_bias", "r_mag", "mag_bias"))
    return replace(found, centre=found.decoder_bias, gate=EncoderGate(opening, r_mag.exp(), bias))


def _topk(tensors: Tensors) -> Dictionary:
    found = _linear(tensors, "b_dec")
    k = whole_number(tensors.source, int(tensors.found["k"]) if "k" in tensors else None, "k", found.n_features)
    return replace(found, centre=found.decoder_bias, activation="topk", topk=TopK(k))


def _above(found: Dictionary, tensors: Tensors) -> Dictionary:
    threshold = tensors.threshold("threshold", found.n_features)
    return replace(found, activation="jumprelu", threshold=threshold)


def _centred_above(found: Dictionary, tensors: Tensors) -> Dictionary:
    return replace(_above(found, tensors), centre=found.decoder_bias)


_CLASSES: Mapping[str, Callable[[Tensors], Dictionary]] = {
    "AutoEncoder": _autoencoder,
    "AutoEncoderNew": lambda tensors: _linear(tensors, "decoder.bias"),
    "GatedAutoEncoder": _gated,
    "JumpReluAutoEncoder": lambda tensors: _above(_matrices(tensors), tensors),
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": lambda tensors: _centred_above(_linear(tensors, "b_dec"), tensors),
    "MatryoshkaBatchTopKSAE": lambda tensors: _centred_above(_matrices(tensors), tensors),
}


def _read(source: DictionaryPath, layer: int) -> StoredDictionary:
    trainer = source.settings("config.json").get("trainer")
    told = trainer if isinstance(trainer, dict) else {}
    name = told.get("dict_class")
    make = _CLASSES.get(name) if isinstance(name, str) else None
    if make is None:
        message = f"config.json says `dict_class: {name}`, which is not known"
        raise source.wrong("CS375", message, f"known are {', '.join(_CLASSES)}")
    found = source.tensors(source.weights("ae.pt"))
    whole = {one: value for one, value in found.items() if not value.dtype.is_floating_point}
    tensors = Tensors(source, {one: value.to(torch.float32) for one, value in found.items()} | whole)
    hook = told.get("submodule_name")
    return StoredDictionary(make(tensors), hook if isinstance(hook, str) else "")


DICTIONARY_LEARNING = fixed(
    "dictionary_learning", "a folder with config.json and ae.pt", ("config.json", "ae.pt"), _read
)
