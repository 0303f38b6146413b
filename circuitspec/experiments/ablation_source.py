"""The ablation block as what is patched in: which prompts are corrupt, and which values come from them."""

from __future__ import annotations

from circuitspec.experiments.experiment import Noised, Source, Variant
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS
from circuitspec.hypothesis_file.schema.blocks import AblationSpec

NOISE_STD = 3.0  # ROME's
NOISE_DRAWS = 10


def corrupt_prompts(ablation: AblationSpec) -> Variant | None:
    """The prompts on which the behaviour is broken: a corruption, or the clean ones with noise. Zeros have none."""
    if ABLATIONS[ablation.value].noise:
        at = (ablation.at,) if isinstance(ablation.at, str) else (ablation.at or ())
        return Noised(
            NOISE_STD if ablation.std is None else ablation.std,
            Where.at(*at),
            NOISE_DRAWS if ablation.draws is None else ablation.draws,
            ablation.seed or 0,
        )
    return ablation.source


def ablation_source(ablation: AblationSpec) -> Source:
    """What ablation patches in."""
    kind = ABLATIONS[ablation.value]
    return Source(kind.source, corrupt_prompts(ablation) if kind.has_corrupt_run else None)
