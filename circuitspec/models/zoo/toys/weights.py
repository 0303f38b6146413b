"""A blueprint as the weights of a GPT-2.

**Layer norm made linear.** The residual stream is (K, -K, f1, -f1, f2, -f2, ...) with a large constant K and one pair
of channels for each feature. Everything that is written to it keeps the pairs, so its mean is zero and, with
d channels, F = f1^2 + f2^2 + ... and layer norm's epsilon e, its standard deviation is

    sqrt((2 K^2 + 2 F) / d + e)  =  K sqrt(2 / d) * sqrt(1 + (F + e d / 2) / K^2).

The norm's gain is K sqrt(2 / d) for features and sqrt(2 / d) for the constant, so what is read behind it is f and 1,
each times 1 - t with 0 <= t <= (F + e d / 2) / (2 K^2). With K = 2^14 and F <= 128 that is less than 2.4e-7 a norm,
and there are five. A feature is read as half the difference of its pair, in which the rounding of the mean (of numbers
as large as K) cancels, so that float32 adds no more than its usual rounding. K and the gains (d = 32, so sqrt(2 / d) is
1/4) are powers of two that float16 holds.

**Attention made hard.** Scores are multiplied by `SHARPNESS` / sqrt(d_head). A match that is 1 at one position and 0 at
the others stands 724 above them. For neighbouring places on a circle of 16 positions the difference is
1 - cos(2 pi / 16) of that, 55, and exp(-55) = 1e-24 of the attention goes elsewhere.

**Relu.** Neurons are exactly linear or exactly zero.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from circuitspec.models.zoo.toys.blueprint import (
    D_HEAD,
    D_MODEL,
    N_POSITIONS,
    ONE,
    Combination,
    HardHead,
    Toy,
    ToyNeuron,
)
from circuitspec.models.zoo.word_tokenizer import word_tokenizer

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

CONSTANT = 2.0**14  # K above
SHARPNESS = 2.0**11


def build(toy: Toy) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """The model in float64 and evaluation mode, and its tokenizer. Random number generators are left as they were."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = word_tokenizer(tuple(toy.tokens), N_POSITIONS)
    with torch.random.fork_rng(devices=[]):  # its initial weights are drawn, and then replaced
        model = GPT2LMHeadModel(GPT2Config.from_dict(toy.config())).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        _embed(model, toy, tokenizer)
        for block in model.transformer.h:
            _linear_norm(block.ln_1)
            _linear_norm(block.ln_2)
        _linear_norm(model.transformer.ln_f)
        for head in toy.heads:
            _set_head(model.transformer.h[head.layer].attn, head, toy)
        for neuron in toy.neurons:
            _set_neuron(model.transformer.h[neuron.layer].mlp, neuron, toy)
        for token, read in toy.logits.items():
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(token)] = _reading(read, toy)
    return model, tokenizer


def _embed(model: GPT2LMHeadModel, toy: Toy, tokenizer: PreTrainedTokenizerFast) -> None:
    """The constant comes with the positions: the scale of the token embeddings stays that of their features."""
    words, places = model.transformer.wte.weight, model.transformer.wpe.weight
    for token, written in toy.tokens.items():
        words[tokenizer.convert_tokens_to_ids(token)] = _writing(written, toy)
    places[:, 0], places[:, 1] = CONSTANT, -CONSTANT
    for position, written in toy.positions.items():
        places[position] += _writing(written, toy)


def _linear_norm(norm: nn.LayerNorm) -> None:
    norm.weight[:] = CONSTANT * math.sqrt(2 / D_MODEL)
    norm.weight[:2] = math.sqrt(2 / D_MODEL)


def _set_head(attention: Any, head: HardHead, toy: Toy) -> None:
    first = head.head * D_HEAD
    weight: Tensor = attention.c_attn.weight  # [channel, q | k | v]
    for channel, match in enumerate(head.matches, start=first):
        weight[:, channel] = SHARPNESS * _reading(match.query, toy)
        weight[:, D_MODEL + channel] = _reading(match.key, toy)
    for channel, (feature, written) in enumerate(head.copies.items(), start=first):
        weight[:, 2 * D_MODEL + channel] = _reading({feature: 1.0}, toy)
        attention.c_proj.weight[channel] = _writing(written, toy)


def _set_neuron(mlp: Any, neuron: ToyNeuron, toy: Toy) -> None:
    mlp.c_fc.weight[:, neuron.index] = _reading(neuron.reads, toy)
    mlp.c_proj.weight[neuron.index] = _writing(neuron.writes, toy)


def _writing(combination: Combination, toy: Toy) -> Tensor:
    """What is added to the residual stream, `[channel]`."""
    return _pairs(combination, toy, 1.0)


def _reading(combination: Combination, toy: Toy) -> Tensor:
    """The vector whose product with a normed residual stream is the combination, `[channel]`."""
    return _pairs(combination, toy, 0.5)


def _pairs(combination: Combination, toy: Toy, scale: float) -> Tensor:
    import torch

    vector = torch.zeros(D_MODEL, dtype=torch.float64)
    for feature, coefficient in combination.items():
        channel = 0 if feature == ONE else 2 + 2 * toy.features.index(feature)
        vector[channel], vector[channel + 1] = scale * coefficient, -scale * coefficient
    return vector
