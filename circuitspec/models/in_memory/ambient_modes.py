"""torch as a new process has it: what a caller switched on for other work decides no figure here.

A report names the model's dtype; under `torch.autocast` most products would be computed in another one, with float32
matrix products set to TF32 or bfloat16 they would be rounded to that, and tensors made on the way would have another
default dtype or device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

AUTOCAST = ("cpu", "cuda", "mps", "xpu")
"""Where torch may compute in another dtype than that of its operands."""


@contextlib.contextmanager
def as_in_a_new_process() -> Iterator[None]:
    """No autocast, float32 as default dtype and for matrix products, tensors made on the processor; then as before."""
    import torch

    dtype = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        for device in AUTOCAST:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_whole_float32_products())
        stack.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        yield


@contextlib.contextmanager
def _whole_float32_products() -> Iterator[None]:
    """float32 matrix products in float32, whichever of torch's two interfaces was used to ask for less."""
    import torch

    found: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    settings = [(backend, backend.fp32_precision) for backend in found if hasattr(backend, "fp32_precision")]
    try:
        asked: str | None = torch.get_float32_matmul_precision()
    except RuntimeError:  # set by the newer interface
        asked = None
    shared = getattr(torch.backends, "fp32_precision", "none")
    if asked == "highest" and {shared, *(value for _, value in settings)} <= {"none", "ieee"}:
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        if asked is not None:
            torch.set_float32_matmul_precision(asked)
        for backend, value in settings:
            if backend.fp32_precision != value:
                backend.fp32_precision = value
