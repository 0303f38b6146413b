"""What a dictionary computes: features of a vector, and a vector of features, as the tool that trained it does."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

Activation = Literal["relu", "jumprelu", "topk", "groupmax"]
Norm = Literal["layer_norm", "constant_norm"]
SPARSE = 16  # adding up single directions is faster than a product of matrices where one weight in so many is not 0
LAYER_NORM_EPS = 1e-5  # added to the standard deviation, outside the root


@dataclass(frozen=True, eq=False)
class EncoderGate:
    """A gated encoder: whether a feature is active is one affine map of the input, and how much is another.

    open_bias, scale, bias: `[n_features]`; a feature is active where `p + open_bias > 0`, and is then
    `relu(p * scale + bias)`, with p the input times the encoder.
    """

    open_bias: Tensor
    scale: Tensor
    bias: Tensor


@dataclass(frozen=True, eq=False)
class TopK:
    """The k largest pre-activations alone.

    rectified: negative ones among them are 0 (one tool leaves them).
    norms: `[n_features]`, what pre-activations are multiplied by before they are compared, and features divided by when
        they are decoded.
    """

    k: int
    rectified: bool = True
    norms: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A sparse autoencoder or (with `reads_input`) a transcoder of one place of a model.

    encoder: `[d_in, n_features]`; decoder: `[n_features, d_out]`.
    encoder_bias: `[n_features]`, none for a gated one; decoder_bias: `[d_out]`.
    centre: `[d_in]`, subtracted from what is encoded; none where the tool subtracts nothing.
    threshold: `[n_features]` or one number, for jumprelu: features are what lies strictly above it.
    skip: `[d_in, d_out]`, what a transcoder adds that is linear in its raw input.
    norm: how the tool normalises what it encodes; undone by `decode`.
    scale: what the tool multiplies vectors by before it encodes them; undone by `decode`.
    centred: the mean over channels is subtracted first, and is no part of what is decoded.

    `encode` and `decode` take vectors `[..., d_in]` and features `[..., n_features]`, and compute in the dtype of the
    weights.
    """

    encoder: Tensor
    decoder: Tensor
    encoder_bias: Tensor | None
    decoder_bias: Tensor
    activation: Activation
    centre: Tensor | None = None
    threshold: Tensor | None = None
    topk: TopK | None = None
    groups: int | None = None  # of groupmax
    gate: EncoderGate | None = None
    skip: Tensor | None = None
    norm: Norm | None = None
    scale: float = 1.0
    centred: bool = False
    reads_input: bool = False

    @property
    def d_in(self) -> int:
        return int(self.encoder.shape[0])

    @property
    def d_out(self) -> int:
        return int(self.decoder.shape[1])

    @property
    def n_features(self) -> int:
        return int(self.encoder.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        return self.encoder.dtype

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides what it computes."""
        found = hashlib.sha256()
        for one in fields(self):
            _add(found, one.name, getattr(self, one.name))
        return found.hexdigest()

    # ---------------------------------------------------------------------------------------------- as the tool has it

    def encode(self, vectors: Tensor) -> Tensor:
        """`[..., d_in]` -> features `[..., n_features]`, as the tool that wrote the file computes them."""
        inner = self._entering(vectors)
        if self.centre is not None:
            inner = inner - self.centre
        plain = inner @ self.encoder
        if self.gate is not None:
            active = plain + self.gate.open_bias > 0
            return active.to(plain.dtype) * torch.relu(plain * self.gate.scale + self.gate.bias)
        before = plain if self.encoder_bias is None else plain + self.encoder_bias
        match self.activation:
            case "relu":
                return torch.relu(before)
            case "jumprelu":
                assert self.threshold is not None
                return torch.relu(before) * (before > self.threshold)
            case "topk":
                assert self.topk is not None
                return _largest(before, self.topk)
            case "groupmax":
                assert self.groups is not None
                return _largest_of_groups(torch.relu(before), self.groups)

    def decode(self, features: Tensor, vectors: Tensor) -> Tensor:
        """Features `[..., n_features]` of these vectors `[..., d_in]` -> what they stand for, `[..., d_out]`.

        The vectors are needed for what the tool undoes (its normalisation) and adds (a transcoder's skip).
        """
        return self.combined(self.weights_of(features, vectors), vectors)

    def reconstruct(self, vectors: Tensor) -> Tensor:
        """`[..., d_in]` -> `[..., d_out]`: all that the dictionary says of them."""
        return self.decode(self.encode(vectors), vectors)

    # ------------------------------------------------------------------------------------------------ as parts of a sum

    def weights(self, vectors: Tensor) -> Tensor:
        """`[..., n_features]`: by what each feature's direction is multiplied in the sum that `combined` is."""
        return self.weights_of(self.encode(vectors), vectors)

    def weights_of(self, features: Tensor, vectors: Tensor) -> Tensor:
        """The same of features that are known; features, unless the tool scales what it decodes."""
        if self.topk is not None and self.topk.norms is not None:
            features = features / self.topk.norms
        undone = self._undone(vectors)
        return features if undone is None else features * undone

    def of_features(self, numbers: Tensor) -> Dictionary | None:
        """Some features alone, in this order; None where whether one is active hangs on the others."""
        if self.activation in ("topk", "groupmax"):
            return None

        def own(tensor: Tensor | None) -> Tensor | None:
            return tensor if tensor is None or tensor.ndim == 0 else tensor[numbers]

        gate = self.gate
        return replace(
            self,
            encoder=self.encoder[:, numbers],
            decoder=self.decoder[numbers],
            encoder_bias=own(self.encoder_bias),
            threshold=own(self.threshold),
            gate=gate and EncoderGate(gate.open_bias[numbers], gate.scale[numbers], gate.bias[numbers]),
        )

    def combined(self, weights: Tensor, vectors: Tensor) -> Tensor:
        """Weights `[..., n_features]` -> `[..., d_out]`: their sum of directions, and what no feature says."""
        return self.summed(weights) + self.constant(vectors)

    def summed(self, weights: Tensor, numbers: Tensor | None = None) -> Tensor:
        """Weights `[..., n_features]`, or of the features of these `numbers` alone -> their sum of directions,
        `[..., d_out]`, in the weights' dtype. Of weights that are nearly all 0, only the others are added up."""
        directions = self.decoder if numbers is None else self.decoder[numbers]
        directions = directions.to(weights.dtype)
        if weights.requires_grad or weights.dtype not in (torch.float32, torch.float64) or not weights.numel():
            return weights @ directions
        flat = weights.reshape(-1, weights.shape[-1])
        at = flat.nonzero()
        if len(at) * SPARSE > flat.numel():
            return weights @ directions
        rows, units = at.unbind(1)
        counts = torch.bincount(rows, minlength=len(flat))
        found = torch.nn.functional.embedding_bag(
            units, directions, counts.cumsum(0) - counts, mode="sum", per_sample_weights=flat[rows, units]
        )
        return found.reshape(*weights.shape[:-1], self.d_out)

    def constant(self, vectors: Tensor) -> Tensor:
        """What is decoded where no feature is active, `[..., d_out]` or broadcastable to it."""
        constant, undone = self.decoder_bias, self._undone(vectors)
        if undone is not None:
            constant = constant * undone
        if self.norm == "layer_norm" and not self.reads_input:
            constant = constant + self._before_norm(vectors).mean(-1, keepdim=True) / self.scale
        if self.skip is not None:
            constant = constant + self._before_norm(vectors) @ self.skip
        return constant

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Dictionary:
        """The same with its tensors there, and of another dtype where one is given."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device=device, dtype=dtype)

        def moved_if(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else moved(tensor)

        gate, topk = self.gate, self.topk
        return replace(
            self,
            encoder=moved(self.encoder),
            decoder=moved(self.decoder),
            encoder_bias=moved_if(self.encoder_bias),
            decoder_bias=moved(self.decoder_bias),
            centre=moved_if(self.centre),
            threshold=moved_if(self.threshold),
            skip=moved_if(self.skip),
            gate=None if gate is None else EncoderGate(moved(gate.open_bias), moved(gate.scale), moved(gate.bias)),
            topk=None if topk is None else TopK(topk.k, topk.rectified, moved_if(topk.norms)),
        )

    def _before_norm(self, vectors: Tensor) -> Tensor:
        inner = vectors.to(self.dtype)
        if self.centred:
            inner = inner - inner.mean(-1, keepdim=True)
        return inner if self.scale == 1.0 else inner * self.scale

    def _entering(self, vectors: Tensor) -> Tensor:
        inner = self._before_norm(vectors)
        match self.norm:
            case None:
                return inner
            case "layer_norm":
                inner = inner - inner.mean(-1, keepdim=True)
                return inner / (inner.std(-1, keepdim=True) + LAYER_NORM_EPS)
            case "constant_norm":
                return inner * self._to_constant(inner)

    def _to_constant(self, inner: Tensor) -> Tensor:
        factor: Tensor = inner.shape[-1] ** 0.5 / inner.norm(dim=-1, keepdim=True)
        return factor

    def _undone(self, vectors: Tensor) -> Tensor | None:
        """What is multiplied with what is decoded, `[..., 1]`; None where nothing is. Transcoders undo nothing."""
        if self.reads_input or (self.norm is None and self.scale == 1.0):
            return None
        inner = self._before_norm(vectors)
        back = torch.full_like(inner[..., :1], 1 / self.scale)
        match self.norm:
            case None:
                return back
            case "layer_norm":
                return back * inner.std(-1, keepdim=True)
            case "constant_norm":
                return back / self._to_constant(inner)


def _add(digest: hashlib._Hash, name: str, value: object) -> None:
    if isinstance(value, Tensor):
        raw = value.detach().cpu().contiguous()
        digest.update(f"{name}: {raw.dtype} {tuple(raw.shape)}".encode())
        digest.update(raw.reshape(-1).view(torch.uint8).numpy().data)
    elif is_dataclass(value):
        for one in fields(value):
            _add(digest, f"{name}.{one.name}", getattr(value, one.name))
    else:
        digest.update(f"{name}: {value!r}".encode())


def _largest(before: Tensor, topk: TopK) -> Tensor:
    compared = before if topk.norms is None else before * topk.norms
    found = compared.topk(topk.k, dim=-1)
    values = torch.relu(found.values) if topk.rectified else found.values
    return torch.zeros_like(compared).scatter(-1, found.indices, values)


def _largest_of_groups(features: Tensor, groups: int) -> Tensor:
    """The largest of each of so many equal groups of neighbours, the first of those that are equal."""
    apart = features.reshape(*features.shape[:-1], groups, -1)
    found = apart.max(-1, keepdim=True)
    return torch.zeros_like(apart).scatter(-1, found.indices, found.values).flatten(-2)
