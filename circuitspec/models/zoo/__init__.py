"""Small models that come with the package, named `zoo:NAME` in a hypothesis. Imports no torch.

A model is either a directory of files that is shipped, or built in memory by code (a toy whose weights are written
down, not trained).
"""

from __future__ import annotations

from circuitspec.models.zoo.zoo_models import ZOO, BuiltModel, ShippedModel, ZooModel, built_model, zoo_names, zoo_path

__all__ = ["ZOO", "BuiltModel", "ShippedModel", "ZooModel", "built_model", "zoo_names", "zoo_path"]
