"""What a model or its prompts do not allow: edges whose ends cannot be told apart, means over unlike prompts."""

from __future__ import annotations

from collections.abc import Iterable

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.levels.residual_stream import Stream
from circuitspec.experiments.averaging import grouping
from circuitspec.experiments.experiment import Experiment, Source
from circuitspec.models.load import LoadedModel
from circuitspec.prompts.prompt_set import TokenizedTask


def refused_means(experiments: Iterable[Experiment], task: TokenizedTask) -> dict[Source, str]:
    """The means among the experiments' sources that cannot be taken over these prompts, and why (CS521, CS522)."""
    found: dict[Source, str] = {}
    sources = {e.source for e in experiments if e.source is not None}
    for source in sources:
        if source.is_mean:
            try:
                grouping(task, source.kind)
            except CircuitspecError as error:
                found[source] = error.diagnostics[0].message
    return found


def no_edges(loaded: LoadedModel) -> str:
    """Why this model's edges cannot be patched (CS371); empty where they can."""
    try:
        Stream(loaded)
    except CircuitspecError as error:
        return error.diagnostics[0].message
    return ""
