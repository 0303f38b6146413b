"""The ways of patching that sweeps compare side by side: values, corruptions and directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from circuitspec.experiments.experiment import ZEROS, Experiment, Noised, Source, Variant
from circuitspec.experiments.levels.node_level import denoising, noising
from circuitspec.exploration.setting import CLEAN, Setting
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.where import Where

VALUES = ("resample", "mean", "mean_per_template", "zero", "gaussian")


@dataclass(frozen=True)
class Series:
    """Noising the clean run with one kind of value from one corruption, or denoising that corruption's run.

    `prompts` are the corrupt ones; None for zeros, which come from no prompts and have one direction.
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
        """`noising, mean of abc`, `denoising abc`."""
        if not self.noising:
            return f"denoising {self.corruption}"
        if self.prompts is None:
            return "noising, zero"
        return f"noising, {self.value} of {self.corruption}"

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
            return Source("resample", "clean")
        if self.prompts is None:
            return ZEROS
        return Source("resample" if self.value == "gaussian" else self.value, self.prompts)  # type: ignore[arg-type]

    def patched(self, sites: Mapping[NodeComponent, Where]) -> Experiment:
        if self.noising:
            return noising(self.source, sites)
        assert self.prompts is not None
        return denoising(self.prompts, sites)

    def anchor(self, setting: Setting) -> Experiment:
        """The run whose distance to the clean one is the whole effect: on the corrupt prompts, or all ablated."""
        if self.prompts is None or self.value in ("mean", "mean_per_template"):
            return noising(self.source, dict.fromkeys(setting.claimed, Where.everywhere()))
        return Experiment(self.prompts)


def series_of(values: Iterable[str], corruptions: Iterable[Variant], noise: Noised | None) -> tuple[Series, ...]:
    """Every value from every corruption, noising, then every corruption denoised.

    `noise` stands for the prompts of `gaussian`; raises ValueError where that is among the values and there is none.
    """
    found: dict[Series, None] = {}
    prompts = tuple(corruptions)
    chosen = tuple(dict.fromkeys(values))
    for value in chosen:
        if value == "zero":
            found[Series(value, None, noising=True)] = None
        elif value == "gaussian":
            if noise is None:
                raise ValueError("no noise is given")
            found[Series(value, noise, noising=True)] = None
        else:
            found |= dict.fromkeys(Series(value, one, noising=True) for one in prompts)
    if any(value not in ("zero", "gaussian") for value in chosen):
        found |= dict.fromkeys(Series("resample", one, noising=False) for one in prompts)
    if noise is not None and "gaussian" in chosen:
        found[Series("gaussian", noise, noising=False)] = None
    return tuple(found)
