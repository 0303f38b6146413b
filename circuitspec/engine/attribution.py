"""Attribution patching: first-order effects of patching every component, from two forwards and one backward pass.

The effect of replacing a component's value v by another run's value v' is estimated by (v' - v) times the derivative of
the metric with respect to v, in the base run (Nanda 2023). With `steps` the derivative is averaged over runs whose
token embeddings lie between the two runs' (integrated gradients over the input, Hanna et al. 2024), which mends
estimates where attention is saturated in the base run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from circuitspec.engine.batches import Batch, real_columns, where_mask
from circuitspec.engine.compile import Actions
from circuitspec.engine.interventions import Edit
from circuitspec.engine.memory import in_parts
from circuitspec.engine.runner import EMBEDDINGS, Runner
from circuitspec.engine.taps import Tap
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.where import Where
from circuitspec.plan.experiment import Noised, Source, Variant


@dataclass(frozen=True)
class Attribution:
    """Estimated change of a metric's mean when one component is patched at some positions, in the metric's unit.

    `effects[component, where]`; `per_prompt[component]` is the change at all positions, `[prompt]`. `magnitudes` are
    how much a component does along all its paths, those that cancel included (empty unless asked for).
    """

    metric: str
    effects: Mapping[tuple[NodeComponent, Where], float]
    per_prompt: Mapping[NodeComponent, NDArray[np.float64]]
    magnitudes: Mapping[tuple[NodeComponent, Where], float] = field(default_factory=dict)


def draws_of(base: Variant, source: Source) -> int:
    """How many draws of noise an estimate is the mean of."""
    return max(variant.draws if isinstance(variant, Noised) else 1 for variant in (base, source.prompts))


def attribution_passes(source: Source, steps: int = 1, *, draws: int = 1, dropped_layers: int = 0) -> int:
    """Passes over all prompts that it takes: the source's, and for each step a forward and a backward (worth two).

    As many for each layer whose gradients are dropped.
    """
    return draws * ((source.kind == "resample") + 3 * (steps + dropped_layers) + (1 if steps > 1 else 0))


def attribute(
    runner: Runner,
    base: Variant,
    source: Source,
    metric: str,
    components: Iterable[NodeComponent],
    wheres: Iterable[Where],
    *,
    steps: int = 1,
    dropping: bool = False,
) -> Attribution:
    """Estimate the effect of patching each component, alone, at each of these positions and at all.

    With `dropping`, magnitudes too: the estimate is made anew for each layer, with no gradient through that layer's
    attention and MLP, and the sizes are averaged, prompt by prompt (GradDrop, Kramár et al. 2024). A direct effect that
    later layers undo has no first-order effect in all, but one as soon as those layers are left out.
    Where noise is drawn, the mean over the draws. Raises ValueError for several steps with a base or a source that is
    no run of other prompts, and for dropping in a model of one layer.
    """
    if steps > 1 and not interpolates(base, source):
        raise ValueError("embeddings can be interpolated between two runs only")
    layers = range(runner.loaded.shape.n_layers) if dropping else range(0)
    if len(layers) == 1:
        raise ValueError("with the only layer dropped, nothing is left")
    chosen, places = tuple(components), tuple(wheres)
    slots = {c: runner.slots_of(c) for c in chosen}
    taps = frozenset(slot.tap for own in slots.values() for slot in own)
    sums: dict[tuple[NodeComponent, Where], float] = {(c, w): 0.0 for c in chosen for w in places}
    magnitudes = dict.fromkeys(sums, 0.0) if dropping else {}
    per_prompt = {c: np.zeros(runner.task.n) for c in chosen}
    draws = draws_of(base, source)
    runner.expect(attribution_passes(source, steps, draws=draws, dropped_layers=len(layers)) * runner.task.n)

    def work(part: Batch) -> list[tuple[dict[Tap, Tensor], list[dict[Tap, Tensor]]]]:
        runs = [_Run(runner, part, base, source, metric, taps, draw) for draw in range(draws)]
        return [(run.effects(steps), [run.effects(1, dropped=layer) for layer in layers]) for run in runs]

    parts = ((part, found) for batch in runner.batches for part, found in in_parts(batch, runner.rows, work))
    for part, found in parts:
        rows = list(part.prompts)
        masks = {where: where_mask(runner.task, part, where, torch.device("cpu")) for where in places}
        for effects, dropped in found:  # [row, pos, unit] by tap
            summed = {tap: effect.sum(1).numpy() for tap, effect in effects.items()}
            for component in chosen:
                for slot in slots[component]:
                    per_prompt[component][rows] += summed[slot.tap][:, slot.unit] / draws
            for where, mask in masks.items():
                at = _at(effects, mask)
                for component in chosen:
                    effect = sum(float(at[s.tap][:, s.unit].sum()) for s in slots[component])
                    sums[component, where] += effect / (runner.task.n * draws)
            for where, mask in masks.items():
                for at in (_at(effects, mask) for effects in dropped):
                    for component in chosen:
                        each = np.sum([at[s.tap][:, s.unit] for s in slots[component]], axis=0)
                        size = float(np.abs(each).sum())
                        magnitudes[component, where] += size / (runner.task.n * draws * (len(layers) - 1))
    return Attribution(metric, sums, per_prompt, magnitudes)


def interpolates(base: Variant, source: Source) -> bool:
    """Whether there are inputs between the base's and the source's."""
    noised = isinstance(base, Noised) or isinstance(source.prompts, Noised)
    return source.kind == "resample" and not noised


def _at(effects: Mapping[Tap, Tensor], mask: Tensor) -> dict[Tap, NDArray[np.float64]]:
    """Summed over the positions of a mask: `[row, unit]`."""
    return {tap: (effect * mask.unsqueeze(-1)).sum(1).numpy() for tap, effect in effects.items()}


class _Run:
    """The base run of one batch, and what is patched into it."""

    def __init__(
        self,
        runner: Runner,
        batch: Batch,
        base: Variant,
        source: Source,
        metric: str,
        taps: frozenset[Tap],
        draw: int,
    ) -> None:
        self._runner, self._batch, self._base, self._source = runner, batch, base, source
        self._metric, self._taps, self._draw = metric, taps, draw
        self._other: dict[Tap, Tensor] = {}

    def effects(self, steps: int, dropped: int | None = None) -> dict[Tap, Tensor]:
        """The estimated effect of patching every slice at every position, `[row, pos, unit]`, float64 on the cpu."""
        runner, batch = self._runner, self._batch
        own: dict[Tap, Tensor] = {}
        with torch.no_grad():
            read = self._taps | {EMBEDDINGS} if steps > 1 else self._taps
            if not self._other:
                self._other = runner.source_values(batch, self._source, read, self._draw)
            if steps > 1:
                own = runner.forward(batch, self._base, Actions(record=read), self._draw)[1]
        slopes: dict[Tap, Tensor] = {}
        for step in range(steps):
            extra = {}
            if steps > 1:
                extra = {EMBEDDINGS: (self._other[EMBEDDINGS] - own[EMBEDDINGS]) * (step + 0.5) / steps}
            found, values = slopes_at(
                runner, batch, self._base, self._metric, self._taps, extra, draw=self._draw, dropped=dropped
            )
            own = own or values
            for tap, slope in found.items():
                slopes[tap] = slope / steps + slopes.get(tap, 0.0)
        real = real_columns(batch).unsqueeze(-1)
        effects = {}
        for tap, slope in slopes.items():
            change = (self._other[tap] - own[tap]) * slope
            units = tap.units(runner.loaded.shape)
            split = change.reshape(*change.shape[:2], units, -1).sum(-1)
            effects[tap] = split.detach().cpu().double() * real
        return effects


def slopes_at(
    runner: Runner,
    batch: Batch,
    base: Variant,
    metric: str,
    taps: frozenset[Tap],
    shifts: Mapping[Tap, Tensor],
    *,
    record: frozenset[Tap] = frozenset(),
    draw: int = 0,
    dropped: int | None = None,
) -> tuple[dict[Tap, Tensor], dict[Tap, Tensor]]:
    """The metric's derivative with respect to every tap's values, and those values, `[row, pos, channel]`.

    `shifts` are added to the run; no gradient passes the attention and the MLP of the layer `dropped`. The values of
    the taps in `record` are returned as well.
    """
    shape = runner.loaded.shape
    nothing = {
        tap: torch.zeros(
            len(batch.prompts), batch.width, tap.width(shape), dtype=runner.dtype, device=runner.device
        ).requires_grad_()
        for tap in taps
    }
    edits: dict[Tap, Edit] = {}
    if dropped is not None:
        edits = dict.fromkeys((Tap(dropped, "z"), Tap(dropped, "mlp"))[: 1 + shape.has_mlps], _without_gradient)
    # what pyvene writes back is the same number that was there: kept tensors may be used as they are (see `screen`)
    with torch.enable_grad(), saved_tensors_hooks(_as_it_is, _as_it_is):
        actions = Actions(record=taps | record, shifts={**shifts, **nothing}, edits=edits)
        logits, recorded = runner.forward(batch, base, actions, draw)
        total = runner.metrics(batch, logits, None)[metric].sum()
        slopes = torch.autograd.grad(total, list(nothing.values()), allow_unused=True)
    runner.count_backward(batch)
    unused = {t: torch.zeros_like(nothing[t]) if s is None else s for t, s in zip(nothing, slopes, strict=True)}
    return unused, {tap: value.detach() for tap, value in recorded.items()}


def _without_gradient(own: Tensor) -> Tensor:
    return own.detach()


def _as_it_is(saved: Tensor) -> Tensor:
    return saved.detach() if saved.requires_grad else saved
