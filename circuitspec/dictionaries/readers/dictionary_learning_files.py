"""dictionary_learning: `config.json` and `ae.pt`, a class of dictionary each with tensors of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from circuitspec.dictionaries.dictionary import Dictionary, EncoderGate, TopK
from circuitspec.dictionaries.dictionary_path import DictionaryPath, Tensors, whole_number
from circuitspec.dictionaries.readers.dictionary_format import StoredDictionary, fixed
from circuitspec.dictionaries.readers.weight_layouts import above_threshold, linear, matrices


def _autoencoder(tensors: Tensors) -> Dictionary:
    """Read as its tool reads it: directions get a norm of 1, and features what that takes."""
    found = linear(tensors, "bias")
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
    found = linear(tensors, "decoder_bias", biased=False)
    opening, r_mag, bias = (tensors.get(name, found.n_features) for name in ("gate_bias", "r_mag", "mag_bias"))
    return replace(found, centre=found.decoder_bias, gate=EncoderGate(opening, r_mag.exp(), bias))


def _topk(tensors: Tensors) -> Dictionary:
    found = linear(tensors, "b_dec")
    told = tensors.found.get("k")
    k = whole_number(tensors.source, None if told is None else told.tolist(), "k", found.n_features)
    return replace(found, centre=found.decoder_bias, activation="topk", topk=TopK(k))


def _centred_above(found: Dictionary, tensors: Tensors) -> Dictionary:
    return replace(above_threshold(found, tensors), centre=found.decoder_bias)


_CLASSES: Mapping[str, Callable[[Tensors], Dictionary]] = {
    "AutoEncoder": _autoencoder,
    "AutoEncoderNew": lambda tensors: linear(tensors, "decoder.bias"),
    "GatedAutoEncoder": _gated,
    "JumpReluAutoEncoder": lambda tensors: above_threshold(matrices(tensors), tensors),
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": lambda tensors: _centred_above(linear(tensors, "b_dec"), tensors),
    "MatryoshkaBatchTopKSAE": lambda tensors: _centred_above(matrices(tensors), tensors),
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
