"""Paths between members are patched where a model's edges can be, and are found to be patched exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.levels.residual_stream import Stream
from circuitspec.exploration.exploration_findings import ExplorationFindings, ExploreOptions
from circuitspec.exploration.output.exploration_text import render_exploration
from circuitspec.hypothesis_file.load_file import load_exploration
from circuitspec.models.load import LoadedModel
from circuitspec.pipelines import explore as pipeline
from circuitspec.runtime.progress import Silent

TOY = Path(__file__).parents[2] / "hypotheses" / "toys" / "mediation.circuit.yaml"


def explored(**options: Any) -> ExplorationFindings:
    return pipeline.explore(load_exploration(TOY), ExploreOptions(sections=0, **options), Silent(), "explore")


def test_a_model_whose_edges_are_patched_wrongly_is_refused_before_any_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """What attention reads is scaled on the way of single edges alone, as a family's norm taken for another would."""
    entering = Stream.entering_attention

    def scaled(self: Stream, layer: int, stream: Tensor) -> Tensor:
        return 1.5 * entering(self, layer, stream)

    assert explored().links.found
    monkeypatch.setattr(Stream, "entering_attention", scaled)
    with pytest.raises(CircuitspecError) as error:
        explored()
    assert [problem.code for problem in error.value.diagnostics] == ["CS503"]
    assert not explored(linked=0).links.found  # nodes are patched as before


def test_a_model_whose_edges_cannot_be_told_apart_is_searched_without_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    why = "this model's heads cannot be told apart at edge and path level: layer 1 has a Adapted for a projection"

    def no_edges(loaded: LoadedModel) -> str:
        return why

    whole = explored()
    monkeypatch.setattr(pipeline, "no_edges", no_edges)
    found = explored()
    assert not found.links.found
    assert [(one.what, one.why, one.spent) for one in found.unseen if "paths" in one.what] == [
        ("paths between members", why, False)
    ]
    assert found.sweep == whole.sweep
    assert f"paths between members: {why}" in " ".join(render_exploration(found).split())
