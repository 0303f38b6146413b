"""What an exploration takes, before it starts: passes over all prompts by stage, at most. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from circuitspec.exploration.request import SWEPT, ExploreOptions, Kind, spots_of_kind
from circuitspec.exploration.search.estimable import inestimable
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.components import Component

GATES = 6  # members that are patched two by two
BESIDE = 5  # cross-sections beside which it is looked for what is missing
SEARCHED_ALL, SEARCHED = 500, 60  # up to so many backups are all tried; of more, so many
ROUNDS, FEW = 12, 16  # of growing a circuit; entries that are taken out one by one
TRACED = 20  # components, for each corruption
PER_PATH = 2  # passes that a path with one hop takes


@dataclass(frozen=True)
class Extent:
    """How much there is to look at: `series` are values by corruption and direction that sweeps compare."""

    components: int
    spots: Mapping[Kind, int]  # of every kind that can be swept, at one place
    layers: int
    roles: int
    unnamed: bool  # no position has a name: components are searched at the last token and at all of them
    corruptions: int
    series: int
    draws: int = 1  # of noise
    has_paths: bool = False  # whether the file declares paths

    @property
    def entries(self) -> int:
        """Components at places."""
        return self.components * (self.roles + self.unnamed)


def spots_in(searched: Collection[Component], shape: ModelShape) -> dict[Kind, int]:
    """How many components of every kind a sweep patches where these are searched."""
    return {name: len(spots_of_kind(kind, searched, shape.counts, shape.n_layers)) for name, kind in SWEPT.items()}


def foreseen(extent: Extent, options: ExploreOptions) -> Mapping[str, int]:
    """Passes over all prompts by stage: at most so many, but that an unusual circuit may take a few more."""
    stages = {"unpatched runs and self-tests": 6 + extent.corruptions}
    if options.sections_only:
        return stages | _scaled({"cross-sections": _sections(extent, options)}, extent.draws)
    estimated = not inestimable(options.metric)
    found: dict[str, int] = {}
    if estimated:
        found["estimates"] = _estimates(extent, options)
    wheres = extent.roles + 1  # and other positions
    kinds = extent.spots
    if options.sweeps:
        found["sweeps"] = sum(kinds[kind] for kind in options.sweeps) * (wheres + 1) * extent.series
    units = sum(count for kind, count in kinds.items() if SWEPT[kind].part_of is not None)
    if options.start == "resid":
        coarse = sum(count for kind, count in kinds.items() if SWEPT[kind].aspect_of is None)
        fine = coarse - (0 if options.neurons else units)
        found["from the residual stream to heads"] = fine * (wheres + extent.unnamed) * extent.series
    chosen = extent.entries if options.start == "resid" else min(options.exact, extent.entries)
    drawn = min(options.drawn, extent.entries - chosen) if estimated else 0
    found["components"] = 2 * (chosen + drawn)
    if extent.corruptions > 1:
        reacting = min(TRACED * (1 + extent.corruptions), extent.entries)
        found["corruptions"] = extent.corruptions * (8 * estimated + 2 * reacting)
    if estimated:
        found["circuits"] = _circuits(extent)
        members = min(GATES, extent.entries)
        found["gates"] = 2 * (members + members * (members - 1) // 2)
        if options.neurons:
            found["neurons"] = 2 * units
        found["paths"] = _paths(extent, options)
        found["cross-sections"] = _sections(extent, options) * (1 + extent.has_paths)
    return stages | _scaled(found, extent.draws)


def spoken(stages: Mapping[str, int], limit: float | None, seconds: float | None) -> str:
    """`about 924 forward passes at most, 3 minutes; --max-forwards bounds it`; `seconds` are those of a pass."""
    most = sum(stages.values())
    if limit is not None and limit < most:
        most, bound = round(limit), "that is --max-forwards"
    else:
        bound = "--max-forwards bounds it"
    said = f"about {most:,} forward passes at most"
    if seconds is not None:
        minutes = round(most * seconds / 60)
        said += ", less than a minute" if minutes < 1 else f", {minutes:,} minute{'s' if minutes > 1 else ''}"
    return f"{said}; {bound}, and what is in the store costs nothing"


def _scaled(stages: Mapping[str, int], draws: int) -> dict[str, int]:
    return {what: forwards * draws for what, forwards in stages.items() if forwards}


def _estimates(extent: Extent, options: ExploreOptions) -> int:
    """Two backward passes with their forwards, for every step and every layer whose gradients are dropped."""
    each = 2 + 3 * (options.steps + options.dropping * extent.layers)
    recomputed = 2 * extent.entries + 5 if options.recomputing else 0
    return 2 * (each + recomputed)


def _circuits(extent: Extent) -> int:
    """Both circuits: grown and pruned, backups behind the one, whole heads and single entries out of the other."""
    few = min(FEW, extent.entries)
    grown = 2 * (2 * few + 6 * ROUNDS)
    backups = 2 * _tried(extent)
    return grown + backups + few * (few + 1)


def _tried(extent: Extent) -> int:
    return extent.entries if extent.entries <= SEARCHED_ALL else SEARCHED


def _paths(extent: Extent, options: ExploreOptions) -> int:
    members = min(options.linked, extent.components)
    candidates = 3 * members * (members + 1) // 2 + members + 1 if members else 0
    patched = min(options.paths, candidates)
    drawn = min(options.drawn, candidates - patched)
    return 8 + 2 * PER_PATH * (patched + drawn)


def _sections(extent: Extent, options: ExploreOptions) -> int:
    if not options.sections:
        return 0
    return min(options.sections, max(1, extent.entries) ** 2) + 1 + BESIDE * (_tried(extent) + 4)
