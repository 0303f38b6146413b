"""Attribution patching: first-order effects of patching every component, from two forwards and one backward pass.

The effect of replacing a component's value v by another run's value v' is estimated by (v' - v) times the derivative of
the metric with respect to v, in the base run (Nanda 2023). With `steps` the derivative is averaged over runs whose
token embeddings lie between the two runs' (integrated gradients over the input, Hanna et al. 2024), which mends
estimates where attention is saturated in the base run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from circuitspec.engine.attribution.partial_estimates import EACH_ANEW, Pieces
from circuitspec.engine.execution.batches import Batch, by_prompt, laid_out, real_columns, where_mask
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.interventions import Edit
from circuitspec.engine.execution.taps import Slot, Tap
from circuitspec.engine.execution.worked_out.readout import LogProbabilities, Readout, parts
from circuitspec.engine.forward import EMBEDDINGS
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import EVERYWHERE, Noised, Source, Variant
from circuitspec.experiments.levels.patched_tokens import check_defined_at
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.where import Where
from circuitspec.prompts.output_metrics import METRICS


@dataclass(frozen=True)
class Attribution:
    """Estimated change of a metric's mean when one component is patched at some positions, in the metric's unit.

    `effects[component, where]`, of which `by_prompt` are the changes, `[prompt]`; `per_prompt[component]` is the change
    at all positions, `[prompt]`. `magnitudes` are how much a component does along all its paths, those that cancel
    included, of which `sizes_by_prompt` are those of each prompt (both empty unless asked for).
    """

    metric: str
    by_prompt: Mapping[tuple[NodeComponent, Where], NDArray[np.float64]]
    per_prompt: Mapping[NodeComponent, NDArray[np.float64]]
    sizes_by_prompt: Mapping[tuple[NodeComponent, Where], NDArray[np.float64]] = field(default_factory=dict)

    @cached_property
    def effects(self) -> Mapping[tuple[NodeComponent, Where], float]:
        return {spot: float(changes.mean()) for spot, changes in self.by_prompt.items()}

    @cached_property
    def magnitudes(self) -> Mapping[tuple[NodeComponent, Where], float]:
        return {spot: float(sizes.mean()) for spot, sizes in self.sizes_by_prompt.items()}


def draws_of(base: Variant, source: Source) -> int:
    """How many draws of noise an estimate is the mean of."""
    return max(variant.draws if isinstance(variant, Noised) else 1 for variant in (base, source.prompts))


def compares(metric: str) -> bool:
    """Whether a metric compares with the clean run, which then is run too. Raises ValueError if it has no gradient."""
    if METRICS[metric].discrete:
        raise ValueError(f"{metric} is discrete: it has no gradient")
    return METRICS[metric].needs_clean


def attribution_passes(
    source: Source, steps: int = 1, *, draws: int = 1, dropped_layers: int = 0, compared: bool = False
) -> int:
    """Passes over all prompts that it takes: the source's, and for each step a forward and a backward (worth two).

    As many for each layer whose gradients are dropped. Where the metric is `compared` with the clean run, that too.
    """
    between = 1 if steps > 1 else 0
    return draws * (source.is_recorded + compared + 3 * (steps + dropped_layers) + between)


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
    pieces: Pieces = EACH_ANEW,
    prompts: Sequence[int] | None = None,
) -> Attribution:
    """Estimate the effect of patching each component, alone, at each of these positions and at all.

    With `dropping`, magnitudes too: the estimate is made anew for each layer, with no gradient through that layer's
    attention and MLP, and the sizes are averaged, prompt by prompt (GradDrop, Kramár et al. 2024). A direct effect that
    later layers undo has no first-order effect in all, but one as soon as those layers are left out.
    Where noise is drawn, the mean over the draws. What a pass gave is asked of `pieces` first. Where some `prompts` are
    named, these alone are run, and all effects are theirs. Raises ValueError for
    several steps with a base or a source that is no run of other prompts, for dropping in a model of one layer, and
    for a metric without a gradient; CS366 where a token has no counterpart in the source's prompt.
    """
    if steps > 1 and not interpolates(base, source):
        raise ValueError("embeddings can be interpolated between two runs only")
    check_defined_at(runner.task, base, source.prompts, (EVERYWHERE,))
    layers = range(runner.loaded.shape.n_layers) if dropping else range(0)
    if len(layers) == 1:
        raise ValueError("with the only layer dropped, nothing is left")
    chosen, places = tuple(components), tuple(wheres)
    n, draws = runner.task.n, draws_of(base, source)
    at_places = np.zeros((len(chosen), len(places), n))
    magnitudes = np.zeros((len(chosen), len(places), n)) if dropping else at_places
    per_prompt = np.zeros((len(chosen), n))
    taken = attribution_passes(source, steps, draws=draws, dropped_layers=len(layers), compared=compares(metric))
    some = list(range(n) if prompts is None else prompts)
    runner.expect(taken * len(some))

    def work(part: Batch) -> list[_Estimated]:
        runs = (_Run(runner, part, base, source, metric, chosen, places, draw, pieces) for draw in range(draws))
        return [
            ([run.effects(step, steps) for step in range(steps)], [run.sizes(layer) for layer in layers])
            for run in runs
        ]

    for part, found in runner.in_batches(work, among=prompts):
        cases = list(part.cases)
        for effects, sizes in found:
            for there, everywhere in effects:
                at_places[..., cases] += there / draws
                per_prompt[:, cases] += everywhere / draws
            for size in sizes:
                magnitudes[..., cases] += size / (draws * (len(layers) - 1))
    at_places, magnitudes, per_prompt = at_places[..., some], magnitudes[..., some], per_prompt[:, some]
    spots = [(i, j) for i in range(len(chosen)) for j in range(len(places))]
    return Attribution(
        metric,
        {(chosen[i], places[j]): at_places[i, j] for i, j in spots},
        {component: per_prompt[i] for i, component in enumerate(chosen)},
        {(chosen[i], places[j]): magnitudes[i, j] for i, j in spots} if dropping else {},
    )


def interpolates(base: Variant, source: Source) -> bool:
    """Whether there are inputs between the base's and the source's."""
    noised = isinstance(base, Noised) or isinstance(source.prompts, Noised)
    return source.is_run and not noised


_Estimated: TypeAlias = tuple[list[tuple[NDArray[np.float64], NDArray[np.float64]]], list[NDArray[np.float64]]]
"""Effects step by step, and sizes layer by layer."""


class _Run:
    """The base run of one batch, and what is patched into it."""

    def __init__(
        self,
        runner: Runner,
        batch: Batch,
        base: Variant,
        source: Source,
        metric: str,
        components: Sequence[NodeComponent],
        places: Sequence[Where],
        draw: int,
        pieces: Pieces,
    ) -> None:
        batch = laid_out(runner.task, batch, base)
        self._runner, self._batch, self._base, self._source = runner, batch, base, source
        self._draw, self._pieces = draw, pieces
        self._slots: list[tuple[Slot, ...]] = [runner.slots_of(component) for component in components]
        self._taps = frozenset(slot.tap for own in self._slots for slot in own)
        self._firsts = np.cumsum([0, *map(len, self._slots)])[:-1]  # where each component's slots begin among all
        self._order = sorted(self._taps)
        widths = [tap.units(runner.loaded.shape) for tap in self._order]
        begins = dict(zip(self._order, np.cumsum([0, *widths]).tolist(), strict=False))
        self._columns = np.array([begins[slot.tap] + slot.unit for own in self._slots for slot in own], dtype=np.int64)
        self._places = [where_mask(runner.task, batch, where, torch.device("cpu"), base) for where in places]
        self._other: Mapping[Tap, Tensor] = {}
        self._own: dict[Tap, Tensor] = {}
        self._score = BatchMetric(runner, batch, metric)

    def effects(self, step: int, steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A step's share of the estimates: `[component, place, prompt]`, and at all tokens, `[component, prompt]`."""

        def compute() -> NDArray[np.float64]:
            effects = self._products(self._slopes(step, steps), steps)
            everywhere = {tap: effect.sum(1).numpy() for tap, effect in effects.items()}
            by_place = [self._by_component(_at(effects, mask)) for mask in self._places]
            return np.stack([*by_place, self._by_component(everywhere)]).ravel()

        found = self._by_place(self._piece(["step", step, steps], compute), len(self._places) + 1)
        return found[:, :-1], found[:, -1]

    def sizes(self, dropped: int) -> NDArray[np.float64]:
        """The sizes of the estimates with no gradient through a layer, `[component, place, prompt]`."""

        def compute() -> NDArray[np.float64]:
            effects = self._products(self._slopes(0, 1, dropped), 1)
            sizes = [np.abs(self._by_component(_at(effects, mask))).ravel() for mask in self._places]
            return np.concatenate(sizes or [np.zeros(0)])

        return self._by_place(self._piece(["dropped", dropped], compute), len(self._places))

    def _by_place(self, listed: NDArray[np.float64], places: int) -> NDArray[np.float64]:
        """`[component, place, prompt]`, from a list by place, component and prompt."""
        return listed.reshape(places, len(self._slots), len(self._batch.cases)).transpose(1, 0, 2)

    def _piece(self, piece: Sequence[object], compute: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        return self._pieces.get([*piece, self._draw, list(self._batch.cases)], compute)

    def _slopes(
        self, step: int, steps: int, dropped: int | None = None
    ) -> tuple[dict[Tap, Tensor], Mapping[Tap, Tensor]]:
        """The derivatives at one step, and the base run's values."""
        runner, batch = self._runner, self._batch
        with torch.no_grad():
            read = self._taps | {EMBEDDINGS} if steps > 1 else self._taps
            if not read <= self._other.keys():
                self._other = runner.source_values(batch, self._source, read, self._draw, base=self._base)
            if steps > 1 and not self._own:
                self._own = runner.readout(batch, self._base, Actions(record=read), self._draw)[1]
        extra = {}
        if steps > 1:
            extra = {EMBEDDINGS: (self._other[EMBEDDINGS] - self._own[EMBEDDINGS]) * (step + 0.5) / steps}
        slopes, values = slopes_at(
            runner, batch, self._base, self._score, self._taps, extra, draw=self._draw, dropped=dropped
        )
        return slopes, self._own if steps > 1 else values

    def _products(self, found: tuple[Mapping[Tap, Tensor], Mapping[Tap, Tensor]], steps: int) -> dict[Tap, Tensor]:
        """A step's share of the effect of patching every slice at every position, `[row, pos, unit]` in float64."""
        slopes, own = found
        real = real_columns(self._batch).unsqueeze(-1)
        effects = {}
        for tap, slope in slopes.items():
            change = (self._other[tap] - own[tap]) * slope / steps
            units = tap.units(self._runner.loaded.shape)
            split = change.reshape(*change.shape[:2], units, -1).sum(-1)
            effects[tap] = split.detach().cpu().double() * real
        return effects

    def _by_component(self, by_unit: Mapping[Tap, NDArray[np.float64]]) -> NDArray[np.float64]:
        """The units that each component is together, `[component, prompt]`."""
        units = np.concatenate([by_unit[tap] for tap in self._order], axis=1)[:, self._columns]
        found: NDArray[np.float64] = np.add.reduceat(np.ascontiguousarray(units.T), self._firsts, axis=0)
        return by_prompt(found, self._batch)


def _at(effects: Mapping[Tap, Tensor], mask: Tensor) -> dict[Tap, NDArray[np.float64]]:
    """Summed over the positions of a mask: `[row, unit]`."""
    return {tap: (effect * mask.unsqueeze(-1)).sum(1).numpy() for tap, effect in effects.items()}


class BatchMetric:
    """A metric of a batch's rows; what it compares with is computed when it is first asked for, and kept."""

    def __init__(self, runner: Runner, batch: Batch, metric: str) -> None:
        self._runner, self._batch, self._metric = runner, batch, metric
        self._compared = compares(metric)

    def total(self, read: Readout) -> Tensor:
        """The sum over the batch's prompts, with a gradient.

        Where logits are large they are computed for some readings at once, and again for the gradient.
        """
        if read.unembed is None:
            return self._of(self._batch, read, self._clean).sum()
        sums = []
        for part, readings in parts(self._batch, self._runner.loaded.shape.n_vocab):
            some = read.some(readings)
            clean = None if self._clean is None else self._clean.some(readings)
            summed = partial(self._summed, part, some, clean)
            sums.append(checkpoint(summed, read.values, use_reentrant=False, preserve_rng_state=False))
        return torch.stack(sums).sum()

    def _summed(self, batch: Batch, read: Readout, clean: LogProbabilities | None, values: Tensor) -> Tensor:
        return self._of(batch, replace(read, values=values), clean).sum()

    def _of(self, batch: Batch, read: Readout, clean: LogProbabilities | None) -> Tensor:
        return self._runner.metrics(batch, read, clean, names=(self._metric,))[self._metric]

    @cached_property
    def _clean(self) -> LogProbabilities | None:
        return self._runner.clean_logprobs(self._batch) if self._compared else None


def slopes_at(
    runner: Runner,
    batch: Batch,
    base: Variant,
    score: BatchMetric,
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
        read, recorded = runner.readout(batch, base, actions, draw)
        total = score.total(read)
        slopes = torch.autograd.grad(total, list(nothing.values()), allow_unused=True)
    runner.count_backward(batch)
    unused = {t: torch.zeros_like(nothing[t]) if s is None else s for t, s in zip(nothing, slopes, strict=True)}
    return unused, {tap: value.detach() for tap, value in recorded.items()}


def _without_gradient(own: Tensor) -> Tensor:
    return own.detach()


def _as_it_is(saved: Tensor) -> Tensor:
    return saved.detach() if saved.requires_grad else saved
