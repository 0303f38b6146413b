"""First-order effects of restoring every patched component, or of patching more: one backward pass each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from circuitspec.engine.attribution.edge_attribution import attribute_edges
from circuitspec.engine.attribution.node_attribution import BatchMetric, compares
from circuitspec.engine.attribution.partial_estimates import EACH_ANEW, Pieces
from circuitspec.engine.execution.batches import Batch, by_prompt, laid_out
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Source, texts_of
from circuitspec.experiments.levels.patched_tokens import check_counterparts
from circuitspec.graph.edges import Edge
from circuitspec.graph.nodes import NodeComponent
from circuitspec.prompts.prompt_set import TokenizedVariant


@dataclass(frozen=True)
class Screen:
    """Estimated change of a metric when one component alone is restored (or patched as well), by component.

    `effects[component]` is `[prompt]`, in the metric's unit; `at_role[component][role]` is the part of
    it that falls on the tokens of that role, `[prompt]` too, and `by_role` the mean of that part.
    """

    metric: str
    effects: Mapping[NodeComponent, NDArray[np.float64]]
    at_role: Mapping[NodeComponent, Mapping[str, NDArray[np.float64]]]

    @cached_property
    def by_role(self) -> Mapping[NodeComponent, Mapping[str, float]]:
        return {
            component: {role: float(effect.mean()) for role, effect in own.items()}
            for component, own in self.at_role.items()
        }


def screen_passes(experiment: Experiment, *, compared: bool = False) -> int:
    """Passes over all prompts that a screen takes: a patched run and its backward pass (worth two), and its source.

    The clean run too where the metric is `compared` with it.
    """
    recorded = experiment.source is not None and experiment.source.is_recorded
    return experiment.draws * (3 + recorded + compared)


def screen_restorations(
    runner: Runner,
    experiment: Experiment,
    metric: str,
    pieces: Pieces = EACH_ANEW,
    *,
    among: Collection[NodeComponent] = (),
    prompts: Sequence[int] | None = None,
) -> Screen:
    """Attribution of every patched component of `experiment` (Nanda 2023, at the patched run).

    With patched value = own + gate * (source - own) and every gate at 1, restoring a component moves its
    gate to 0, so to first order the metric changes by minus the derivative with respect to that gate.
    Where noise is drawn, the mean over the draws. What a pass gave is asked of `pieces` first. It is of those `among`
    what the experiment patches, parts of its components too; of all of them where none are given. Where some `prompts`
    are named, these alone are run, and effects are theirs.
    """
    return _screens(runner, experiment, experiment, metric, pieces, among, prompts)[0]


def screen_edge_restorations(runner: Runner, source: Source, metric: str, edges: Sequence[Edge]) -> Screen:
    """Estimated change of a metric when one component gets its ablated edges back, from the clean run.

    That is minus what ablating them is estimated to do there: the derivative is taken where all else is as it is,
    and not in the circuit alone. `effects` are means over prompts, `[1]`; no roles. Raises CS371 as
    `attribute_edges` does.
    """
    estimated = attribute_edges(runner, "clean", source, metric, edges)
    effects: dict[NodeComponent, NDArray[np.float64]] = {edge.sender: np.zeros(1) for edge in edges}
    for edge in edges:
        effects[edge.sender] -= estimated.effects[edge]
    return Screen(metric, effects, {component: {} for component in effects})


def screen_noising(
    runner: Runner, experiment: Experiment, wider: Experiment, metric: str, pieces: Pieces = EACH_ANEW
) -> Screen:
    """Estimated change of a metric when a component that `wider` patches and `experiment` does not is patched as well.

    The same derivative as in `screen_restorations`, of gates at 0. Both patch the same source into the same base.
    """
    return _screens(runner, experiment, wider, metric, pieces)[1]


def screen_both(
    runner: Runner, experiment: Experiment, wider: Experiment, metric: str, *, among: Collection[NodeComponent] = ()
) -> tuple[Screen, Screen]:
    """What `screen_restorations` and `screen_noising` give, from one pass forward and one back."""
    return _screens(runner, experiment, wider, metric, EACH_ANEW, among)


def _screens(
    runner: Runner,
    experiment: Experiment,
    wider: Experiment,
    metric: str,
    pieces: Pieces,
    among: Collection[NodeComponent] = (),
    prompts: Sequence[int] | None = None,
) -> tuple[Screen, Screen]:
    """What moving a gate changes: from 1 to 0 what the experiment patches, from 0 to 1 what only `wider` does."""
    if experiment.source is None:
        raise ValueError("only a patched experiment can be screened")
    if (wider.base, wider.source) != (experiment.base, experiment.source):
        raise ValueError("both experiments must patch the same values into the same run")
    check_counterparts((experiment, wider), runner.task)
    patched = tuple(among) or tuple(site.component for site in experiment.sites)
    every = dict.fromkeys((*patched, *(site.component for site in wider.sites)))
    components = [component for component in every if runner.slots_of(component)]
    units = _Units.of(components, runner)
    own = runner.task.of(texts_of(experiment.base))
    roles = tuple(own.roles)
    found = np.zeros((2, len(components), 1 + len(roles), runner.task.n))
    some = list(range(runner.task.n) if prompts is None else prompts)
    runner.expect(screen_passes(experiment, compared=compares(metric)) * len(some))

    def changes(part: Batch, draw: int) -> NDArray[np.float64]:
        both = _changes(runner, experiment, wider, part, metric, draw)
        there = laid_out(runner.task, part, experiment.base)
        return np.stack([_summed(there, one, units, own) for one in both]).ravel()

    def work(part: Batch) -> list[NDArray[np.float64]]:
        """`[draw][moving, component, at all tokens and then at each role, prompt]`"""
        shape = (2, len(components), 1 + len(roles), len(part.cases))
        draws = range(experiment.draws)
        return [pieces.get([list(part.cases), draw], partial(changes, part, draw)).reshape(shape) for draw in draws]

    for part, each in runner.in_batches(work, among=prompts):
        for changed in each:
            found[..., list(part.cases)] += changed / experiment.draws
    found = found[..., some]

    def screen(number: int, moving: Collection[NodeComponent]) -> Screen:
        members = frozenset(moving)
        of = [(i, c) for i, c in enumerate(components) if c in members]
        shares = {c: dict(zip(roles, found[number, i, 1:], strict=True)) for i, c in of}
        return Screen(metric, {c: found[number, i, 0] for i, c in of}, shares)

    return screen(0, patched), screen(1, [site.component for site in wider.sites])


@dataclass(frozen=True)
class _Units:
    """Which slices of taps each component is together: `columns` of all units side by side, from its `first` on."""

    columns: NDArray[np.int64]
    firsts: NDArray[np.int64]
    taps: tuple[Tap, ...]

    @classmethod
    def of(cls, components: Sequence[NodeComponent], runner: Runner) -> _Units:
        slots = [runner.slots_of(component) for component in components]
        taps = sorted({slot.tap for own in slots for slot in own})
        begins = np.cumsum([0, *(tap.units(runner.loaded.shape) for tap in taps)]).tolist()
        at = dict(zip(taps, begins, strict=False))
        columns = np.array([at[slot.tap] + slot.unit for own in slots for slot in own], dtype=np.int64)
        return cls(columns, np.cumsum([0, *map(len, slots)])[:-1], tuple(taps))

    def by_component(self, by_unit: Mapping[Tap, NDArray[np.float64]]) -> NDArray[np.float64]:
        """`[.., unit]` by tap -> `[component, ..]`"""
        units = np.concatenate([by_unit[tap] for tap in self.taps], axis=-1)[..., self.columns]
        found: NDArray[np.float64] = np.add.reduceat(np.ascontiguousarray(units.T), self.firsts, axis=0)
        return found


def _summed(batch: Batch, changes: Mapping[Tap, Tensor], units: _Units, own: TokenizedVariant) -> NDArray[np.float64]:
    """The changes of each prompt at all tokens, and then at those of each role: `[component, 1 + role, prompt]`."""
    rows = list(batch.prompts)
    everywhere = units.by_component({tap: change.sum(1).numpy() for tap, change in changes.items()})
    at_role = [
        units.by_component(
            {tap: _at(change, batch, [own.tokens_at(role, p) for p in rows]) for tap, change in changes.items()}
        )
        for role in own.roles
    ]
    return by_prompt(np.stack([everywhere, *at_role], axis=1), batch)


def _changes(
    runner: Runner, experiment: Experiment, wider: Experiment, batch: Batch, metric: str, draw: int
) -> tuple[dict[Tap, Tensor], dict[Tap, Tensor]]:
    """The estimated changes by every gate at 1 that moves to 0, and by every one at 0 that moves to 1.

    `[row, pos, unit]` in float64.
    """
    assert experiment.source is not None
    with torch.no_grad():
        values = runner.source_values(batch, experiment.source, runner.taps_of([wider]), draw, base=experiment.base)
        swaps = runner.swaps(batch, wider, values)
        none = {tap: torch.zeros_like(swap.mask) for tap, swap in swaps.items()}
        closed = none | {tap: swap.mask for tap, swap in runner.swaps(batch, experiment, values).items()}
    gates = {tap: closed[tap].to(swap.source.dtype).requires_grad_() for tap, swap in swaps.items()}
    gated = {tap: replace(swap, gate=gates[tap]) for tap, swap in swaps.items()}
    # pyvene writes patched values into the module's own tensor, which some kernels (ReLU, fused attention) keep
    # for their backward pass. autograd refuses that unless the tensor is kept by a hook. It is harmless here: what
    # was overwritten has its gate at 1, so that no gradient flows back to it, and all else was written unchanged
    with torch.enable_grad(), saved_tensors_hooks(_as_it_is, _as_it_is):
        read, _ = runner.readout(batch, experiment.base, Actions(gated), draw)
        total = BatchMetric(runner, batch, metric).total(read)
        slopes = dict(zip(gates, torch.autograd.grad(total, list(gates.values())), strict=True))
    runner.count_backward(batch)
    restored = {tap: (-slope * closed[tap]).cpu().double() for tap, slope in slopes.items()}
    added = {tap: (slope * (swaps[tap].mask & ~closed[tap])).cpu().double() for tap, slope in slopes.items()}
    return restored, added


def _as_it_is(saved: Tensor) -> Tensor:
    return saved.detach() if saved.requires_grad else saved


def _at(slope: Tensor, batch: Batch, places: list[tuple[int, ...]]) -> NDArray[np.float64]:
    """The slopes at the tokens of a position of each row, summed over these: `[row, unit]`.

    What follows a prompt's last token belongs to it.
    """
    at = [(row, batch.offsets[row] + token) for row, tokens in enumerate(places) for token in tokens]
    ends = list(zip(batch.answer_columns, batch.continued, strict=True))
    at += [(row, ends[row][0] + 1 + k) for row, column in at if column == ends[row][0] for k in range(ends[row][1])]
    rows, columns = torch.tensor(at).T
    summed = torch.zeros(len(places), slope.shape[-1], dtype=slope.dtype).index_add_(0, rows, slope[rows, columns])
    found: NDArray[np.float64] = summed.numpy()
    return found
