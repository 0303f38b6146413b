"""What is run: experiments as values, without a model. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import rfc8785

from circuitspec.graph.circuit import NodeComponent
from circuitspec.graph.where import Where
from circuitspec.spec.names import format_name

SourceKind = Literal["resample", "mean", "mean_per_template", "zero"]
Direction = Literal["noising", "denoising"]


@dataclass(frozen=True)
class Noised:
    """The clean prompts with Gaussian noise added to their token embeddings at `where` (ROME's corruption).

    `std` is in units of the standard deviation of the model's token embeddings over its vocabulary.
    Whatever involves noise is run with `draws` draws of it, and metrics are averaged over them, prompt
    by prompt. A draw depends on `seed`, its own number and the prompt's number alone.
    """

    std: float
    where: Where
    draws: int
    seed: int

    def __str__(self) -> str:
        at = "every token" if self.where.is_everywhere else ", ".join(sorted(self.where.roles))
        return f"clean + noise of {self.std:g} std at {at} ({self.draws} draws)"


Variant: TypeAlias = str | Noised
"""Which prompts a run is on: "clean", a corruption's name, or the clean ones with noise."""


def texts_of(variant: Variant) -> str:
    """The name of the texts that a variant's prompts have: noise does not change them."""
    return "clean" if isinstance(variant, Noised) else variant


@dataclass(frozen=True)
class Source:
    """Where patched values come from: zeros, or the run on `prompts`, as it is (resample) or averaged.

    Means are taken position by position; `mean_per_template` over prompts of one template,
    `mean` over all prompts. Zeros come from no prompts.
    """

    kind: SourceKind
    prompts: Variant | None

    def __post_init__(self) -> None:
        if (self.kind == "zero") != (self.prompts is None):
            raise ValueError("patched values come from prompts exactly when they are not zeros")

    def __str__(self) -> str:
        return self.kind if self.prompts is None else f"{self.kind} of {self.prompts}"


ZEROS = Source("zero", None)


@dataclass(frozen=True)
class Site:
    """A component and the positions at which it is patched."""

    component: NodeComponent
    where: Where


@dataclass(frozen=True)
class Experiment:
    """One patched (or, with no sites, plain) run over all prompts.

    `base` says which prompts are run, `source` where the values of the patched `sites` come from.
    Two experiments with equal content are the same experiment.
    """

    base: Variant
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

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Its own prompts, then those that its patched values come from."""
        return (self.base,) if self.source is None or self.source.prompts is None else (self.base, self.source.prompts)

    @property
    def draws(self) -> int:
        """How often it is run: once, or as often as noise is drawn."""
        return max(v.draws if isinstance(v, Noised) else 1 for v in self.variants)

    @cached_property
    def digest(self) -> str:
        """Content hash, the same on every machine."""
        content = {
            "base": _content(self.base),
            "source": None if self.source is None else [self.source.kind, _content(self.source.prompts)],
            "sites": sorted([format_name(s.component), s.where.canonical()] for s in self.sites),
        }
        return hashlib.sha256(rfc8785.dumps(content)).hexdigest()


def _content(variant: Variant | None) -> Any:
    if isinstance(variant, Noised):
        return {
            "noise": {
                "std": variant.std,
                "where": variant.where.canonical(),
                "draws": variant.draws,
                "seed": variant.seed,
            }
        }
    return variant


def passes(experiments: tuple[Experiment, ...], known: frozenset[Source] = frozenset()) -> int:
    """Passes over all prompts that running these experiments together takes.

    Every mean (but the `known` ones) takes one, every variant that is run plain or recorded one, and
    every patched experiment one; what involves noise, one for each draw.
    """
    sources = {e.source for e in experiments if e.source is not None}
    means = sum(1 for s in sources if s.kind in ("mean", "mean_per_template") and s not in known)
    run: set[Variant] = {"clean", *(e.base for e in experiments if e.source is None)}
    run |= {s.prompts for s in sources if s.kind == "resample" and s.prompts is not None}
    unpatched = sum(v.draws if isinstance(v, Noised) else 1 for v in run)
    return means + unpatched + sum(e.draws for e in experiments if e.source is not None)
