"""A claim that the circuit alone does the task."""

from __future__ import annotations

from typing import Literal

from circuitspec.hypothesis_file.schema.claim_block import OfCircuit


class Sufficient(OfCircuit):
    """The circuit alone does the task: everything else is ablated."""

    kind: Literal["sufficient"] = "sufficient"
