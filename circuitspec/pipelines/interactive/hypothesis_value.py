"""A hypothesis as a value that a notebook draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from circuitspec.hypothesis_file.builder import Spec


@dataclass(frozen=True, repr=False)
class Hypothesis(Spec):
    """A valid hypothesis, from a file or built. A notebook draws it; `print` gives its YAML."""

    def replace(self, **changes: Any) -> Self:
        """The hypothesis with some of its parts changed: arguments of `circuitspec.hypothesis`. Raises as that does."""
        from circuitspec.pipelines.interactive.given_prompts import with_rows

        if "task" in changes:
            task, beside = with_rows(changes["task"])
            changes = {**changes, "task": task, "beside": beside}
        return super().replace(**changes)

    def _repr_html_(self) -> str:
        from circuitspec.pipelines.check import graph_at_hand
        from circuitspec.reports.html.notebook import hypothesis_html

        return hypothesis_html(self, graph_at_hand(self))
