"""Chunks of experiments measured by other processes, shard by shard; what each gives is kept as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from circuitspec.engine.scheduling.shards import MeasuredShard, Measurement, RunsShards, Shard

if TYPE_CHECKING:
    from circuitspec.engine.records import Records
    from circuitspec.engine.runner import Runner
    from circuitspec.engine.scheduling.parts import KeepsParts
    from circuitspec.experiments.experiment import Experiment


class ShardedChunks:
    """Measures chunks on the workers of `elsewhere`, as the runner would; a shard that `parts` know is not run."""

    def __init__(self, runner: Runner, elsewhere: RunsShards, parts: KeepsParts | None) -> None:
        self._runner, self._elsewhere, self._parts = runner, elsewhere, parts
        self._settings = runner.settings

    def run(self, chunks: Sequence[Sequence[Experiment]], among: tuple[int, ...] | None = None) -> Iterator[Records]:
        """The records of each chunk in their order, once all before it are there; of prompts `among` all, if given.

        What is measured of others meanwhile is kept as one of the parts. Raises as `Runner.run` and `RunsShards.run`
        do.
        """
        runner, shards, found = self._runner, list[Shard](), dict[int, Sequence[Measurement]]()
        ends: list[int] = []
        for chunk in chunks:
            batches = (part for batch in runner.batches_of(among) for part in batch.at_most(runner.rows.whole))
            start = len(shards)
            shards += [Shard(tuple(chunk), batch) for batch in batches]
            known = {number: self._known(shards[number]) for number in range(start, len(shards))}
            found |= {number: values for number, values in known.items() if values is not None}
            if None in known.values():
                runner.announced(chunk, among)
            ends.append(len(shards))
        left = [number for number in range(len(shards)) if number not in found]
        done = self._elsewhere.run(self._settings, [shards[number] for number in left], runner.progress.advance)
        start, counts = 0, dict[int, MeasuredShard]()
        for chunk, end in zip(chunks, ends, strict=True):
            while not all(number in found for number in range(start, end)):
                which, measured = next(done)
                found[left[which]] = measured.measurements
                self._keep(shards[left[which]], measured.measurements)
                counts[left[which]] = measured
            for number in range(start, end):  # in this order, since fractions are added up
                if number in counts:
                    runner.counted_elsewhere(counts.pop(number))
            yield runner.joined(chunk, (found.pop(number) for number in range(start, end)), among)
            start = end

    def _known(self, shard: Shard) -> Sequence[Measurement] | None:
        """All of a shard, if a run that was stopped measured it."""
        if self._parts is None:
            return None
        prompts, known = tuple(shard.batch.cases), list[Measurement]()
        numbers = {experiment: number for number, experiment in enumerate(shard.experiments)}
        for draw in range(max(experiment.draws for experiment in shard.experiments)):
            drawn = [experiment for experiment in shard.experiments if draw < experiment.draws]
            found = self._parts.known(drawn, prompts, draw)
            if len(found) < len(drawn):
                return None
            known += [Measurement(numbers[one], draw, prompts, values) for one, values in found.items()]
        return known

    def _keep(self, shard: Shard, measured: Sequence[Measurement]) -> None:
        if self._parts is not None:
            for one in measured:
                self._parts.keep(shard.experiments[one.experiment], one.prompts, one.draw, one.values)
