"""circuitspec: write down a circuit hypothesis, verify it on the real model."""

__version__ = "0.1.0"
