"""Where paths end before the logits: single heads and MLPs that read what the paths brought, and all that follows.

A head at the end of a path computes by itself, as in the middle of one: at its positions it reads what arrived, while
the other heads of its layer have their queries, keys and values as they are without, those included that share its keys
and values or are normed together with its own. From its z on everything is recomputed.

Heads whose inputs do not interfere compute in one run. In the first layer that a path ends in, this is the run that
gives the logits, with everybody else's z held as it is in the base run; in later layers, where others have changed by
then, it is a run of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.interventions import Edit, Swap
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.execution.worked_out.readout import Readout
from circuitspec.engine.levels.receiver_reads import Reads, edits_of, single
from circuitspec.engine.levels.residual_stream import Stream
from circuitspec.experiments.experiment import Reading
from circuitspec.graph.edges import Receiver, inputs_of, owners
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Feature, Head, Logits, sort_key

Run = Callable[[Actions], tuple[Readout, dict[Tap, Tensor]]]
"""One forward of the base prompts: what is read of it, and recorded taps."""


@dataclass(frozen=True)
class _Job:
    """A head at some places (bool `[row, pos]`) where it computes from one reading of each of its inputs.

    reads: for its query, key and value what it reads of each; empty where that is as it is.
    everywhere: whether it reads so of keys and values at every token.
    """

    head: Head
    places: Tensor
    reads: Mapping[Receiver, frozenset[Reading]]
    everywhere: bool

    def beside(self, other: _Job, *, normed_together: bool) -> bool:
        """Whether both can compute in one run, in which neither reads what only the other is to read."""
        if normed_together and any(job.reads[r] for job in (self, other) for r in job.reads if r.port != "v"):
            return False
        return all(self.reads[r] == other.reads[r] for r in self.reads.keys() & other.reads.keys())


@dataclass(frozen=True)
class Ends:
    """What happens after the ends of one experiment's open paths, on one batch.

    run: a forward of the base prompts. arrived: the stream at a tap in the pass that brought a reading. columns: bool
    `[row, pos]` for a Where. base: the base run's values, every z among them. extra: told of each run beside the last.
    """

    stream: Stream
    run: Run
    arrived: Callable[[Reading, Tap], Tensor]
    columns: Callable[[Where], Tensor]
    base: Mapping[Tap, Tensor]
    extra: Callable[[], None]

    def readout(self, readings: Iterable[Reading]) -> Readout:
        """What is read, `[reading, vocabulary]`, of the run in which the ends read what arrived."""
        ordered = sorted(readings, key=lambda r: r.where.canonical())
        others = [r for r in ordered if r.head is None]
        reading = list(others)  # MLPs and the logits read by themselves
        swaps: dict[Tap, Swap] = {}
        for layer in sorted({r.head.layer for r in ordered if r.head is not None}):
            jobs = [job for head in _heads(ordered, layer) for job in self._jobs(head, ordered)]
            runs = self._together(jobs)
            before = [r for r in reading if self._layer(r) < layer]
            if len(runs) == 1 and self._alone(runs[0]):
                reading += _readings(runs[0])
            elif before or swaps:
                swaps[Tap(layer, "z")] = self._put(layer, runs, before, swaps)
            else:
                swaps[Tap(layer, "z")] = self._held(layer, runs[0], self._put(layer, runs[1:], before, swaps))
                reading += _readings(runs[0])
        return self.run(Actions({**swaps, **self._features(reading)}, edits=self._edits(reading)))[0]

    def _jobs(self, head: Head, readings: Sequence[Reading]) -> Iterator[_Job]:
        """Where a head computes anew: its places by the keys and values that it reads there."""
        own = [r for r in readings if r.head == head]
        queries = frozenset(_unplaced(r) for r in own if r.receiver.port == "q")
        shared = [r for r in own if r.receiver.port != "q"]
        rows = self.base[Tap(head.layer, "z")]
        asked = torch.zeros(*rows.shape[:2], dtype=torch.bool, device=rows.device)
        for reading in own:
            if reading.receiver.port == "q":
                asked = asked | self.columns(reading.where)
        acting = [self.columns(r.acting) for r in shared]
        kinds = torch.stack(acting, -1) if acting else asked.new_zeros(*asked.shape, 0)  # [row, pos, reading]
        for kind in torch.unique(kinds.flatten(0, 1), dim=0) if acting else [asked.new_zeros(0)]:
            places = (kinds == kind).all(-1)
            places = places if bool(kind.any()) else places & asked
            if not bool(places.any()):
                continue
            here = [_unplaced(r) for r, acts in zip(shared, kind.tolist(), strict=True) if acts]
            inputs = inputs_of(head, (), self.stream.shape)
            reads = {i: queries if i.port == "q" else frozenset(r for r in here if r.receiver == i) for i in inputs}
            yield _Job(head, places, reads, all(r.acting.is_everywhere for r in shared))

    def _together(self, jobs: Sequence[_Job]) -> list[list[_Job]]:
        """The jobs by runs that can do them at once."""
        runs: list[list[_Job]] = []
        joint = self.stream.heads_share_a_norm
        for job in jobs:
            for run in runs:
                if all(job.beside(other, normed_together=joint) for other in run):
                    run.append(job)
                    break
            else:
                runs.append([job])
        return runs

    def _alone(self, jobs: Sequence[_Job]) -> bool:
        """Whether these may compute in a run without changing any z but their own."""
        if self.stream.heads_share_a_norm:
            return False
        everywhere = {job.head for job in jobs if job.everywhere}
        touched = {r for job in jobs for r, reads in job.reads.items() if reads and r.port != "q"}
        return all(head in everywhere for r in touched for head in owners(r, self.stream.shape))

    def _put(
        self, layer: int, runs: Sequence[Sequence[_Job]], before: Sequence[Reading], swaps: Mapping[Tap, Swap]
    ) -> Swap:
        """The z of heads, each as its run gives it, put in at its places; runs have what ended in earlier layers."""
        tap = Tap(layer, "z")
        z = self._by_head(self.base[tap])
        mask = torch.zeros(z.shape[:3], dtype=torch.bool, device=z.device)
        for jobs in runs:
            self.extra()
            edits, put_in = self._edits([*before, *_readings(jobs)]), {**swaps, **self._features(before)}
            found = self._by_head(self.run(Actions(put_in, frozenset({tap}), edits=edits))[1][tap])
            for job in jobs:
                mask[:, :, job.head.head] |= job.places
                here = torch.zeros_like(mask)
                here[:, :, job.head.head] = job.places
                z = torch.where(here.unsqueeze(-1), found, z)
        return Swap(mask, z.flatten(-2))

    def _held(self, layer: int, jobs: Sequence[_Job], put: Swap) -> Swap:
        """What is put in, and all z as in the base run but those of the heads that compute in the run itself."""
        mask = torch.ones_like(put.mask)
        for job in jobs:
            mask[:, :, job.head.head] &= ~job.places
        return Swap(mask, put.source)

    def _edits(self, readings: Iterable[Reading]) -> dict[Tap, Edit]:
        """The edits by which receivers read what passes brought."""
        reads: dict[Tap, list[Reads]] = {}
        for reading in dict.fromkeys(r for r in readings if not isinstance(r.receiver.component, Feature)):
            tap = self.stream.read_tap(reading.receiver)
            at = None if reading.where.is_everywhere else self.columns(reading.where)
            reads.setdefault(tap, []).append(single(self.stream, (reading.receiver,), self.arrived(reading, tap), at))
        return edits_of(self.stream, reads)

    def _features(self, readings: Iterable[Reading]) -> dict[Tap, Swap]:
        """The swaps by which features have the weights that they had where the paths ended."""
        swaps: dict[Tap, Swap] = {}
        for reading in readings:
            feature = reading.receiver.component
            if not isinstance(feature, Feature):
                continue
            tap, arrived = (
                self.stream.read_tap(reading.receiver),
                self.arrived(reading, self.stream.read_tap(reading.receiver)),
            )
            if tap not in swaps:
                swaps[tap] = Swap(torch.zeros_like(arrived, dtype=torch.bool), torch.zeros_like(arrived))
            at, number = self.columns(reading.where), feature.index
            swaps[tap].mask[..., number] |= at
            source = swaps[tap].source
            source[..., number] = torch.where(at, arrived[..., number], source[..., number])
        return swaps

    def _layer(self, reading: Reading) -> float:
        """Its layer; a feature of the stream that enters a block comes before the heads there."""
        component = reading.receiver.component
        if isinstance(component, Logits):
            return math.inf
        site = self.stream.shape.dictionary(component.dictionary) if isinstance(component, Feature) else None
        return component.layer - 0.5 if site is not None and site.place.kind == "resid" else component.layer

    def _by_head(self, z: Tensor) -> Tensor:
        """`[row, pos, head, d_head]`"""
        return z.reshape(*z.shape[:2], self.stream.shape.n_heads, -1)


def _heads(readings: Iterable[Reading], layer: int) -> list[Head]:
    found = {r.head for r in readings if r.head is not None and r.head.layer == layer}
    return sorted(found, key=lambda head: head.head)


def _unplaced(reading: Reading) -> Reading:
    """What is read, whoever acts on it."""
    return Reading(reading.receiver, reading.senders, reading.where)


def _readings(jobs: Iterable[_Job]) -> list[Reading]:
    """What the heads of a run read, each once."""
    found = {reading for job in jobs for reads in job.reads.values() for reading in reads}
    return sorted(found, key=lambda r: (sort_key(r.receiver.component), str(r.receiver.port), r.where.canonical()))
