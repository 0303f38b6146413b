"""The ways of patching that sweeps compare side by side: values, corruptions and directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from circuitspec.experiments.experiment import CLEAN_VALUES, Experiment, Noised, Source, Variant
from circuitspec.experiments.levels.node_level import ablating, denoising
from circuitspec.exploration.setting import CLEAN, ExplorationSetting
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS


@dataclass(frozen=True)
class PatchingSeries:
    """Noising the clean run with one kind of value from one corruption, or denoising that corruption's run.

    `prompts` are the corrupt ones; None for what is made of no run (zeros), which has one direction.
    """

    value: str
    prompts: Variant | None
    noising: bool

    @property
    def corruption(self) -> str:
        """How the prompts are called; empty where there are none."""
        if self.prompts is None:
            return ""
        return "noise" if isinstance(self.prompts, Noised) else self.prompts

    @property
    def direction(self) -> str:
        return "noising" if self.noising else "denoising"

    @property
    def title(self) -> str:
        """`noising, resample of abc`, `ablating, mean of abc`, `denoising abc`."""
        if not self.noising:
            return f"denoising {self.corruption}"
        row = ABLATIONS[self.value]
        done = "ablating" if row.averages or row.is_zero else "noising"
        return f"{done}, {self.value}" + ("" if self.prompts is None else f" of {self.corruption}")

    @property
    def base(self) -> Experiment:
        """The run that is patched, as it is without."""
        if self.noising:
            return CLEAN
        assert self.prompts is not None
        return Experiment(self.prompts)

    @property
    def source(self) -> Source:
        if not self.noising:
            return CLEAN_VALUES
        return Source(ABLATIONS[self.value].source, self.prompts)

    def patched(self, sites: Mapping[NodeComponent, Where]) -> Experiment:
        if self.noising:
            return ablating(self.source, sites)
        assert self.prompts is not None
        return denoising(self.prompts, sites)

    def anchor(self, setting: ExplorationSetting) -> Experiment:
        """The run whose distance to the clean one is the whole effect: on the corrupt prompts, or all ablated."""
        if self.prompts is None or not self.source.is_run:
            return ablating(self.source, dict.fromkeys(setting.claimed, Where.everywhere()))
        return Experiment(self.prompts)


def series_of(
    values: Iterable[str], corruptions: Iterable[Variant], noise: Noised | None
) -> tuple[PatchingSeries, ...]:
    """Every value from every corruption, noising, then every corruption denoised.

    `noise` stands for the prompts of values that add it; raises ValueError where there is such a value and no noise.
    """
    found: dict[PatchingSeries, None] = {}
    prompts = tuple(corruptions)
    chosen = tuple(dict.fromkeys(values))
    for value in chosen:
        if ABLATIONS[value].noise:
            if noise is None:
                raise ValueError("no noise is given")
            found[PatchingSeries(value, noise, noising=True)] = None
        elif ABLATIONS[value].takes_prompts:
            found |= dict.fromkeys(PatchingSeries(value, one, noising=True) for one in prompts)
        else:
            found[PatchingSeries(value, None, noising=True)] = None
    if any(ABLATIONS[value].takes_prompts for value in chosen):
        found |= dict.fromkeys(PatchingSeries(CLEAN_VALUES.kind, one, noising=False) for one in prompts)
    found |= dict.fromkeys(PatchingSeries(value, noise, noising=False) for value in chosen if ABLATIONS[value].noise)
    return tuple(found)
