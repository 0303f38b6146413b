"""What a set of experiments needs to know, and one batch's unpatched runs, which tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from transformers import DynamicCache

from circuitspec.engine.execution.batches import Batch
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.forward import Forward
from circuitspec.engine.levels.edge_program import EdgeProgram
from circuitspec.engine.levels.path_hops import base_taps, first_layer, value_taps
from circuitspec.engine.scheduling.batched_sweep import BatchedSweep, sweeps_of
from circuitspec.engine.scheduling.partial_forward import BaseRun, keys_values, may_cut
from circuitspec.experiments.experiment import Experiment, Noised, Source, Variant


@dataclass
class Needs:
    """The taps that are to be known of every source, and recorded of every unpatched run; edges, laid out; and which
    experiments are swept together, and which run one by one (`single`)."""

    sources: dict[Source, frozenset[Tap]]
    recorded: dict[Variant, frozenset[Tap]]
    programs: dict[Experiment, EdgeProgram]
    sweeps: tuple[BatchedSweep, ...]
    single: tuple[Experiment, ...]

    @property
    def draws(self) -> int:
        return max(e.draws for e in (*self.single, *(sweep.experiments[0] for sweep in self.sweeps)))

    @property
    def bases(self) -> tuple[Experiment, ...]:
        """The plain runs that sweeps begin from."""
        return tuple(Experiment(sweep.base) for sweep in self.sweeps if sweep.streams)

    @property
    def by_contribution(self) -> bool:
        """Whether some experiment needs to know what single heads add to the residual stream."""
        return any(e.level in ("edge", "path") for e in self.single)

    def reads(self, variant: Variant) -> bool:
        """Whether the plain run of a variant is needed itself, for what is recorded of it or to be scored."""
        scored = any(e.source is None and e.base == variant for e in self.single)
        return scored or bool(self.recorded.get(variant)) or self.keys_of(variant)

    def keys_of(self, variant: Variant) -> bool:
        """Whether some sweep may take over this run's keys and values."""
        return any(sweep.positional and sweep.base == variant for sweep in self.sweeps)

    def record(self, variant: Variant, taps: frozenset[Tap]) -> None:
        self.recorded[variant] = self.recorded.get(variant, frozenset()) | taps

    def values_from(self, source: Source, taps: frozenset[Tap]) -> None:
        """These taps of a source are patched in."""
        self.sources[source] = self.sources.get(source, frozenset()) | taps
        if source.is_recorded and source.prompts is not None:
            self.record(source.prompts, taps)


def needs_of(experiments: Sequence[Experiment], forward: Forward, *, sweeps: bool) -> Needs:
    """What these experiments need; none are swept unless `sweeps`. Raises CS371 as `Forward.stream` does."""
    found = sweeps_of(experiments, forward.units_of, forward.loaded.shape.n_layers) if sweeps else ()
    swept = frozenset(e for sweep in found for e in sweep.experiments)
    needs = Needs({}, {}, {}, found, tuple(e for e in experiments if e not in swept))
    for sweep in found:
        if sweep.streams:
            needs.record(sweep.base, sweep.streams)
    for experiment in experiments:
        if experiment.source is None:
            continue
        match experiment.level:
            case "node":
                for patch in experiment.patches[1:]:
                    needs.values_from(patch.source, forward.taps_of([replace(experiment.run, sites=patch.sites)]))
                taps = forward.taps_of([replace(experiment.run, beside=frozenset())])
            case "edge":
                program = needs.programs.setdefault(experiment, EdgeProgram(experiment, forward.stream))
                taps = frozenset(forward.stream.recorded_at(sender) for sender in program.senders)
            case "path":
                taps = value_taps(experiment, forward.stream)
                if experiment.sent_prompts and experiment.source.is_run:  # a pass may begin there
                    starts = (first_layer(reading.senders) for reading in experiment.readings)
                    taps |= {Tap(first, "resid") for first in starts}
                needs.record(experiment.base, base_taps(experiment, forward.stream))
        needs.values_from(experiment.source, taps)
    return needs


class Unpatched:
    """One batch's unpatched runs, each made once, with what is to be recorded of it."""

    def __init__(self, forward: Forward, batch: Batch, needs: Needs) -> None:
        self._forward, self._batch, self._needs = forward, batch, needs
        self._known: dict[Variant, BaseRun] = {}
        self._scaled: dict[Variant, Mapping[Tap, Tensor]] = {}
        self.draw = 0

    def next_draw(self, draw: int) -> None:
        """Noise is drawn anew; what has none stays."""
        self.draw = draw
        self._known = {v: run for v, run in self._known.items() if not isinstance(v, Noised)}
        self._scaled = {v: values for v, values in self._scaled.items() if not isinstance(v, Noised)}

    def of(self, variant: Variant) -> BaseRun:
        if variant not in self._known:
            actions = Actions(record=self._needs.recorded.get(variant, frozenset()))
            kept = self._needs.keys_of(variant) and may_cut(self._forward.loaded, self._batch)
            cache = DynamicCache() if kept else None
            readout, recorded = self._forward.readout(self._batch, variant, actions, self.draw, cache)
            self._known[variant] = BaseRun(readout, recorded, () if cache is None else keys_values(cache))
        return self._known[variant]

    def values_of(self, variant: Variant) -> Mapping[Tap, Tensor]:
        """What is recorded of a run, and for edge and path level what is worked out of it (`Stream.with_scaled`)."""
        if not self._needs.by_contribution:
            return self.of(variant).recorded
        if variant not in self._scaled:
            self._scaled[variant] = self._forward.stream.with_scaled(self.of(variant).recorded)
        return self._scaled[variant]
