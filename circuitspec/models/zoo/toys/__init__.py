"""Toys: GPT-2 models whose weights are written down, so that every answer is known on paper. Imports no torch.

`blueprint` says what such a model is made of, `weights` turns a blueprint into a GPT-2, and each other module holds
the blueprints of one concept together with their arithmetic. In comes a toy's name; out comes a GPT-2 of known weights.
"""

from __future__ import annotations

from circuitspec.models.zoo.toys.backup import BACKUP
from circuitspec.models.zoo.toys.blueprint import Toy
from circuitspec.models.zoo.toys.cancel import CANCEL
from circuitspec.models.zoo.toys.gates import AND, OR
from circuitspec.models.zoo.toys.induction import INDUCTION
from circuitspec.models.zoo.toys.mediation_toys import AMPLIFICATION, MEDIATION
from circuitspec.models.zoo.toys.negative import NEGATIVE
from circuitspec.models.zoo.toys.nobel import NOBEL
from circuitspec.models.zoo.toys.swapped import SWAPPED
from circuitspec.models.zoo.toys.weights import build

__all__ = ["TOYS", "Toy", "build"]

TOYS: tuple[Toy, ...] = (
    AND,
    OR,
    NOBEL,
    NEGATIVE,
    BACKUP,
    MEDIATION,
    AMPLIFICATION,
    CANCEL,
    SWAPPED,
    INDUCTION,
)
