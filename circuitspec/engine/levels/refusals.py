"""What a model or its prompts do not allow: edges whose ends cannot be told apart, means over unlike prompts."""

from __future__ import annotations

from collections.abc import Iterable

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.levels.residual_stream import Stream
from circuitspec.experiments.averaging import grouping
from circuitspec.experiments.experiment import Experiment, Source, texts_of
from circuitspec.models.load import LoadedModel
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask


def refused_means(experiments: Iterable[Experiment], task: TokenizedTask) -> dict[Experiment, str]:
    """Those that patch means which cannot be taken over these prompts, and why (CS521, CS522)."""
    found: dict[Source, str] = {}
    experiments = tuple(experiments)
    sources = {e.source for e in experiments if e.source is not None}
    for source in sources:
        if source.is_mean:
            try:
                grouping(task, source.kind, texts_of(source.prompts or CLEAN))
            except CircuitspecError as error:
                found[source] = error.diagnostics[0].message
    return {e: found[e.source] for e in experiments if e.source in found}


def no_edges(loaded: LoadedModel) -> str:
    """Why this model's edges cannot be patched (CS325, CS371); empty where they can."""
    try:
        Stream(loaded)
    except CircuitspecError as error:
        return error.diagnostics[0].message
    return ""
