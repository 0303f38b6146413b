"""Exact sweeps: every place of a kind patched by itself, or from coarse to fine, in every series side by side.

Coarse to fine as Heimersheim and Nanda advise (2024, section 2.2): the residual stream by layer and position; then the
attention layers and MLPs that write to where the stream matters; then the heads of the attention layers that matter,
and the neurons of the MLPs that do.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from circuitspec.experiments.experiment import Experiment
from circuitspec.exploration.forward_budget import Unseen
from circuitspec.exploration.request import SWEPT, spots_of_kind
from circuitspec.exploration.request import Kind as Kind
from circuitspec.exploration.search.patching_series import PatchingSeries
from circuitspec.exploration.setting import CLEAN, ExplorationSetting
from circuitspec.graph.nodes import NodeComponent, is_node, nodes_of
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.component_kinds import ATTENTION
from circuitspec.hypothesis_file.grammar.components import IN_LAYERS, Component, Resid, whole_of
from circuitspec.hypothesis_file.grammar.names import format_name

LEAST = 0.02  # share of clean - corrupt: what changes less is not looked into further


@dataclass(frozen=True)
class Spot:
    """A component, or all heads of a layer, at some positions."""

    target: Component
    where: Where

    @property
    def kind(self) -> Kind:
        return next(name for name, kind in SWEPT.items() if kind is self.target.kind)

    @property
    def name(self) -> str:
        return format_name(self.target)


@dataclass(frozen=True)
class Cell:
    """What patching one spot does in one series.

    `change` is that of the metric's mean against the unpatched run. `share` is the effect as a share of clean -
    corrupt, lost when noising and won when denoising; None where the corruption does not break the behaviour.
    `means` are all metrics' means in the patched run.
    """

    spot: Spot
    series: PatchingSeries
    change: float
    share: float | None
    means: Mapping[str, float]


@dataclass(frozen=True)
class Grid:
    """Everything that was swept, in the order in which it was looked at, and what was not.

    `wheres` are the positions in the order of the prompt, by name: a role, `other positions`, `all`. `widest` is the
    largest distance between clean and corrupt mean over all series: what changes are compared with.
    """

    cells: tuple[Cell, ...]
    series: tuple[PatchingSeries, ...]
    wheres: Mapping[Where, str]
    unseen: tuple[Unseen, ...]
    widest: float
    coarse_to_fine: bool

    def of(self, kind: Kind, series: PatchingSeries) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if cell.spot.kind == kind and cell.series == series)

    def spots(self, kind: Kind) -> tuple[Spot, ...]:
        return tuple(dict.fromkeys(cell.spot for cell in self.cells if cell.spot.kind == kind))

    @cached_property
    def sizes(self) -> Mapping[Spot, float]:
        """The largest effect in any series; where a series has no shares, as one of the widest distance."""
        found: dict[Spot, float] = {}
        for cell in self.cells:
            found[cell.spot] = max(found.get(cell.spot, 0.0), _size(cell, self.widest))
        return found


def _size(cell: Cell, widest: float) -> float:
    if cell.share is not None:
        return abs(cell.share)
    return abs(cell.change) / widest if widest else 0.0


def _patched(spot: Spot, series: PatchingSeries) -> bool:
    """Whether the spot is patched in a series: patterns with those of a run, and not with means or zeros."""
    return spot.kind != "patterns" or series.source.is_run


def positions(setting: ExplorationSetting) -> dict[Where, str]:
    """The setting's positions in the order of the prompt, and the rest of it where there is one."""
    task = setting.runner.task
    middle = {role: float(np.mean(task.roles[role])) for role in setting.roles}
    found = {Where.at(role): role for role in sorted(setting.roles, key=lambda role: (middle[role], role))}
    named = [{token for role in setting.roles for token in task.tokens_at(role, prompt)} for prompt in range(task.n)]
    if any(len(own) < length for own, length in zip(named, task.lengths, strict=True)):
        found[Where.except_at(*setting.roles)] = "other positions"
    return found


@dataclass
class ExactSweeper:
    """Patches spots and keeps what came out."""

    setting: ExplorationSetting
    series: tuple[PatchingSeries, ...]
    cells: dict[tuple[Spot, PatchingSeries], Cell] = field(default_factory=dict)
    unseen: list[Unseen] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Raises AllowanceSpent where not even the unpatched runs can be made."""
        self.gaps = {one: self.setting.gap_between(CLEAN, one.anchor(self.setting)) for one in self.series}
        self.setting.run(one.base for one in self.series)
        self.widest = max(abs(gap.clean - gap.corrupt) for gap in self.gaps.values())
        self.own = tuple(one for one in self.series if self._is_own(one))
        self.others = tuple(one for one in self.series if one not in self.own)
        self.telling = frozenset(where for where in positions(self.setting) if self._tells(where))

    def _is_own(self, one: PatchingSeries) -> bool:
        """Whether it patches what the file says, or clean values into the file's own corruption."""
        return one.source == self.setting.source if one.noising else one.prompts == self.setting.corrupt

    def _tells(self, where: Where) -> bool:
        """Whether the answer is read there, or the file's corruption changes the tokens there."""
        if self.setting.read_at(where):
            return True
        task, corrupt = self.setting.runner.task, self.setting.corrupt
        if where.inverted or not isinstance(corrupt, str):
            return not where.inverted
        clean, other = task.ids["clean"], task.ids[corrupt]
        return any(
            clean[prompt][token] != other[prompt][token]
            for role in where.roles
            for prompt in range(task.n)
            for token in task.tokens_at(role, prompt)
        )

    def patch(self, spots: Sequence[Spot], what: str, share: float = 1.0) -> None:
        """Patch spots in every series, the first ones first; what the allowance leaves out is noted as unseen.

        Spots where the answer is read or prompts differ come before the others, and all of them in the series of the
        file's own corruption and value before any in another. No more than this share of what is left is spent.
        """
        first = [spot for spot in spots if spot.where in self.telling]
        order = [*first, *(spot for spot in spots if spot.where not in self.telling)]
        pairs = [
            (spot, one) for series in (self.own, self.others) for spot in order for one in series if _patched(spot, one)
        ]
        if spots and not pairs:
            self.unseen.append(Unseen(what, len(spots), len(spots), "patterns are those of a run on other prompts"))
        runs = {(spot, one): one.patched(self._sites(spot)) for spot, one in pairs}
        allowance = self.setting.allowance
        with allowance.holding((1 - share) * allowance.left):
            left = frozenset(self.setting.run_some(runs.values()))
        for (spot, one), run in runs.items():
            if run not in left:
                self.cells[spot, one] = self._cell(spot, one, run)
        missing = {spot for (spot, _), run in runs.items() if run in left}
        partly = {spot for spot in missing if any((spot, one) in self.cells for one in self.series)}
        for count, of_what in ((len(missing - partly), what), (len(partly), f"{what} in some series")):
            if count:
                reason = self.setting.allowance.reason
                self.unseen.append(Unseen(of_what, count, len(spots), reason, spent=True))

    def size(self, spot: Spot) -> float:
        """Its largest effect in any series; not a number if it was not patched in any."""
        sizes = [_size(self.cells[spot, one], self.widest) for one in self.series if (spot, one) in self.cells]
        return max(sizes, default=math.nan)

    def grid(self, wheres: Mapping[Where, str], *, coarse_to_fine: bool) -> Grid:
        return Grid(tuple(self.cells.values()), self.series, wheres, tuple(self.unseen), self.widest, coarse_to_fine)

    def _sites(self, spot: Spot) -> dict[NodeComponent, Where]:
        """Of what stands for others those that are searched; itself of what is one."""
        nodes = nodes_of(spot.target, self.setting.runner.loaded.shape)
        if spot.target.kind.stands_for is not None:
            nodes = tuple(node for node in nodes if node in self.setting.claimed)
        return {node: spot.where for node in nodes if is_node(node)}

    def _cell(self, spot: Spot, one: PatchingSeries, run: Experiment) -> Cell:
        means = {name: float(column.mean()) for name, column in self.setting.columns(run).items()}
        metric, gap = self.setting.metric, self.gaps[one]
        change = means[metric] - float(self.setting.values(one.base).mean())
        share = (-change if one.noising else change) / (gap.clean - gap.corrupt) if gap.state == "sound" else None
        return Cell(spot, one, change, share, means)


def spots_of(setting: ExplorationSetting, kind: Kind, wheres: Iterable[Where]) -> list[Spot]:
    """Every place of a kind, layer by layer; without the components that are free."""
    counts = setting.runner.loaded.shape.counts
    targets = spots_of_kind(SWEPT[kind], setting.claimed, counts, setting.streams)
    return [Spot(target, where) for target in targets for where in wheres]


def sweep_all(setting: ExplorationSetting, series: tuple[PatchingSeries, ...], kinds: Collection[Kind]) -> Grid:
    """Every place of these kinds, the coarse ones first, at each position and at all of them."""
    sweeper = ExactSweeper(setting, series)
    wheres = {**positions(setting), Where.everywhere(): "all"}
    for kind in (kind for kind in SWEPT if kind in kinds):
        sweeper.patch(spots_of(setting, kind, wheres), f"{kind} (each, at each position)")
    return sweeper.grid(wheres, coarse_to_fine=False)


def zoom(setting: ExplorationSetting, series: tuple[PatchingSeries, ...], *, neurons: bool = False) -> Grid:
    """From the residual stream to heads, and to neurons if asked for; what matters most is looked into first.

    Each of these stages may spend an equal share of the allowance, and what those before it left.
    """
    sweeper = ExactSweeper(setting, series)
    wheres = positions(setting) | ({Where.everywhere(): "all"} if setting.unnamed else {})
    last = setting.streams - 1
    streams = [Spot(Resid(layer), where) for layer in coarse_first(setting.streams) for where in wheres]
    sweeper.patch(streams, "residual streams (layer by position)", share=1 / (3 + neurons))
    weight = {(layer, where): _stream_size(sweeper, layer + 1, where) for layer in range(last) for where in wheres}
    # what follows the last block is read where the metric is, and nowhere else
    weight |= {(last, where): float(setting.read_at(where)) for where in wheres}
    blocks = [*spots_of(setting, "attention", wheres), *spots_of(setting, "mlps", wheres)]
    into = {s: weight[_layer(s), s.where] for s in blocks}
    _look_into(sweeper, blocks, into, "attention layers and MLPs", "the stream after", share=1 / (2 + neurons))
    sizes = {spot: sweeper.size(spot) for spot in blocks}
    heads = spots_of(setting, "heads", wheres)
    into = {s: sizes[Spot(IN_LAYERS[ATTENTION](_layer(s), 0), s.where)] for s in heads}
    _look_into(sweeper, heads, into, "heads", "their attention layer", share=1 / (1 + neurons))
    if neurons:
        fine = spots_of(setting, "neurons", wheres)
        into = {s: sizes[Spot(whole_of(s.target), s.where)] for s in fine}
        _look_into(sweeper, fine, into, "neurons", "their MLP")
    return sweeper.grid(wheres, coarse_to_fine=True)


def coarse_first(layers: int) -> list[int]:
    """The layers in an order of which every beginning is spread over the model: first and last, then between them."""
    found = dict.fromkeys([0, layers - 1])
    step = 1 << layers.bit_length()
    while step > 1:
        step //= 2
        found |= dict.fromkeys(range(0, layers, step))
    return list(found)


def _stream_size(sweeper: ExactSweeper, layer: int, where: Where) -> float:
    """The effect of the stream that enters a block; where it was not patched, the larger of the nearest that were."""
    sizes = {at: sweeper.size(Spot(Resid(at), where)) for at in range(sweeper.setting.runner.loaded.shape.n_layers)}
    known = [at for at, size in sizes.items() if not math.isnan(size)]
    nearest = [at for at in known if at <= layer][-1:] + [at for at in known if at >= layer][:1]
    return max((sizes[at] for at in nearest), default=math.nan)


def _look_into(
    sweeper: ExactSweeper,
    spots: Sequence[Spot],
    weight: Mapping[Spot, float],
    what: str,
    parent: str,
    share: float = 1.0,
) -> None:
    """Patch the spots whose parent matters; note those whose parent does not, and those where nobody knows."""
    known = [spot for spot in spots if not math.isnan(weight[spot])]
    chosen = sorted((spot for spot in known if weight[spot] >= LEAST), key=lambda spot: -weight[spot])
    if len(known) > len(chosen):
        why = f"{parent} changes less than {LEAST:g} there"
        sweeper.unseen.append(Unseen(f"{what} (each, at each position)", len(known) - len(chosen), len(spots), why))
    if len(spots) > len(known):
        why = f"{parent} was not looked at"
        sweeper.unseen.append(Unseen(f"{what} (each, at each position)", len(spots) - len(known), len(spots), why))
    if chosen:
        sweeper.patch(chosen, f"{what} (each, at each position) that were to be looked at", share)


def _layer(spot: Spot) -> int:
    return spot.target.place[0]
