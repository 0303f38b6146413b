"""Tensors of a file that is not trusted -> arrays. Imports torch when called."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

MAX_NUMBERS = 100_000_000


def array(value: object, shape: tuple[int, ...] | None = None) -> npt.NDArray[np.float64] | None:
    """A dense real tensor (of this shape, if one is given) as numbers; None for anything else."""
    import torch

    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
        return None
    if (shape is not None and tuple(value.shape) != shape) or value.numel() > MAX_NUMBERS or value.is_complex():
        return None
    found: npt.NDArray[np.float64] = value.detach().to(torch.float64).numpy()
    return found


def saved(content: object) -> bytes:
    """What `torch.save` writes of plain data; arrays in it become tensors."""
    import torch

    def converted(value: object) -> object:
        if isinstance(value, np.ndarray):
            return torch.from_numpy(np.array(value))
        if type(value) is dict:
            return {key: converted(one) for key, one in value.items()}
        return value

    buffer = io.BytesIO()
    torch.save(converted(content), buffer)
    return buffer.getvalue()
