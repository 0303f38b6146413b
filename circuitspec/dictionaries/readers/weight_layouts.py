"""How the weights of autoencoders are named and laid out by more than one tool."""

from __future__ import annotations

from dataclasses import replace

from circuitspec.dictionaries.dictionary import Dictionary
from circuitspec.dictionaries.dictionary_path import Tensors


def linear(tensors: Tensors, decoder_bias: str, *, biased: bool = True) -> Dictionary:
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


def matrices(tensors: Tensors) -> Dictionary:
    """With an encoder `[in, out]` and a decoder alike."""
    encoder = tensors.get("W_enc", None, None)
    d_in, n_features = encoder.shape
    decoder, bias = tensors.get("W_dec", n_features, d_in), tensors.get("b_enc", n_features)
    return Dictionary(encoder, decoder, bias, tensors.get("b_dec", d_in), "relu")


def above_threshold(found: Dictionary, tensors: Tensors, name: str = "threshold") -> Dictionary:
    """A jumprelu of the same weights, with the thresholds in the tensor of this name."""
    return replace(found, activation="jumprelu", threshold=tensors.threshold(name, found.n_features))
