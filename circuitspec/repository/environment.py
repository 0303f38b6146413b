"""What numbers depend on besides the file, the prompts and the model."""

from __future__ import annotations

import platform
import re
from importlib.metadata import version

from circuitspec import __version__
from circuitspec.repository.lock import Environment

# what computes activations, tokens and intervals
PACKAGES = ("torch", "transformers", "tokenizers", "pyvene", "numpy", "scipy")


def environment(device: str) -> Environment:
    """This machine and these versions. Imports torch only to name a GPU."""
    packages = {"circuitspec": __version__, **{name: version(name) for name in PACKAGES}}
    kind = device.partition(":")[0]
    return Environment(device=kind, processor=_processor(device), packages=packages)


def _processor(device: str) -> str:
    if not re.fullmatch(r"cuda(:[0-9]+)?", device):
        return platform.machine()
    import torch

    index = int(device.partition(":")[2] or 0)
    return torch.cuda.get_device_name(index) if index < torch.cuda.device_count() else "none"  # then it is not loaded
