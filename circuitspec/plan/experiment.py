"""What is run: experiments as values, without a model. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import rfc8785

from circuitspec.graph.circuit import NodeComponent
from circuitspec.graph.where import Where
from circuitspec.spec.names import format_name

SourceKind = Literal["resample", "mean", "mean_per_template"]
Direction = Literal["noising", "denoising"]


@dataclass(frozen=True)
class Source:
    """Where patched values come from: the run on `prompts`, as it is (resample) or averaged.

    Means are taken position by position; `mean_per_template` over prompts of one template,
    `mean` over all prompts.
    """

    kind: SourceKind
    prompts: str  # "clean" or a corruption's name


@dataclass(frozen=True)
class Site:
    """A component and the positions at which it is patched."""

    component: NodeComponent
    where: Where


@dataclass(frozen=True)
class Experiment:
    """One patched (or, with no sites, plain) run over all prompts.

    `base` names the prompts that are run ("clean" or a corruption), `source` where the values of the
    patched `sites` come from. Two experiments with equal content are the same experiment.
    """

    base: str
    source: Source | None = None
    sites: frozenset[Site] = frozenset()

    def __post_init__(self) -> None:
        if bool(self.sites) != (self.source is not None):
            raise ValueError("an experiment has a source exactly when it patches sites")

    @property
    def direction(self) -> Direction | None:
        """Noising patches the clean run, denoising a corrupt one (seed, section 2.3)."""
        if self.source is None:
            return None
        return "noising" if self.base == "clean" else "denoising"

    @cached_property
    def digest(self) -> str:
        """Content hash, the same on every machine."""
        content = {
            "base": self.base,
            "source": None if self.source is None else [self.source.kind, self.source.prompts],
            "sites": sorted([format_name(s.component), s.where.canonical()] for s in self.sites),
        }
        return hashlib.sha256(rfc8785.dumps(content)).hexdigest()
