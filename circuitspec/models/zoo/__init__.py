"""Small models that come with the package, named `zoo:NAME` in a hypothesis. Imports no torch.

A model is either a directory of files that is shipped, or built by code on request (a compiled toy whose weights
are written down, not trained). Both end as a directory that `from_pretrained` loads.
"""

from __future__ import annotations

from circuitspec.models.zoo.registry import ZOO, BuiltModel, ShippedModel, ZooModel, zoo_names, zoo_path

__all__ = ["ZOO", "BuiltModel", "ShippedModel", "ZooModel", "zoo_names", "zoo_path"]
