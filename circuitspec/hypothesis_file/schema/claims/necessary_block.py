"""A claim that the task is not done without the circuit."""

from __future__ import annotations

from typing import Literal

from circuitspec.hypothesis_file.schema.claim_block import OfCircuit


class Necessary(OfCircuit):
    """Without the circuit the task is not done: the circuit is ablated, everything else kept."""

    kind: Literal["necessary"] = "necessary"
