"""circuitspec: write down a circuit hypothesis, verify it on the real model."""

from __future__ import annotations

from circuitspec.api import Result, load, verify
from circuitspec.diagnostics import CircuitspecError

__version__ = "0.1.0"

__all__ = ["CircuitspecError", "Result", "__version__", "load", "verify"]
