"""Every site at which a model can be patched, tested one by one on random prompts: no task is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.batches import Batch, PaddingSide
from circuitspec.engine.execution.rounding import TOLERANCE
from circuitspec.engine.execution.taps import Tap, all_taps, label
from circuitspec.engine.forward import CountsPrompts, Forward
from circuitspec.engine.validation.row_independence import mixing
from circuitspec.engine.validation.tap_propagation import handovers, past, reads
from circuitspec.engine.validation.two_runs import (
    LENGTHS,
    TwoRuns,
    in_whole,
    inexact_sites,
    largest,
    lengths_for,
    off,
    random_prompts,
    with_scalars,
)
from circuitspec.models.load import LoadedModel
from circuitspec.prompts.prompt_set import TokenizedTask

SIDES: tuple[PaddingSide, ...] = ("right", "left")
ROWS = 2 * len(LENGTHS)  # that it takes to test one tap
TOGETHER = 4  # taps a forward; more take more memory and little less time


@dataclass(frozen=True)
class SiteCheck:
    """What patching one tap alone did, and of both paddings the worst.

    `own_values` is how far the logits moved when the tap was given its own values. `handed_on` is how far
    what the tap feeds was from what another run's values there must lead to; None where the two runs do
    not tell what that is. Both are 0 but for rounding. `effect` is how far the other run's values moved
    the logits, in standard deviations of the logits; 0 is suspicious, unless `same_values`: then both
    runs have the same values there.
    """

    tap: Tap
    path: str
    own_values: float
    handed_on: float | None
    effect: float
    same_values: bool

    @property
    def name(self) -> str:
        """As in hypothesis files: `a3`, `r2.mid`, `m1.n*`, `a3.kv* (keys)`."""
        return label(self.tap)

    @property
    def silent(self) -> bool:
        """Whether other values there changed nothing."""
        return self.effect == 0 and not self.same_values


@dataclass(frozen=True)
class WholeCheck:
    """Many taps patched at once: how far the logits were from what they must be, in their standard deviations."""

    what: str
    deviation: float


@dataclass(frozen=True)
class Diagnosis:
    """What was found; `limit` is the deviation that rounding can cause in the model's dtype."""

    limit: float
    lengths: tuple[int, ...]  # of the prompts
    whole: tuple[WholeCheck, ...]
    sites: tuple[SiteCheck, ...]  # in the order in which the model computes
    untested: str = ""  # why padding on the left was not tested
    by_length: bool = False  # whether this model is run in batches of one length, without padding
    mixed: tuple[Diagnostic, ...] = ()  # what is wrong with prompts that share a batch

    def off(self, deviation: float | None) -> bool:
        """Whether it is more than rounding (a deviation that is not a number is)."""
        return deviation is not None and not deviation <= self.limit

    @property
    def problems(self) -> tuple[Diagnostic, ...]:
        """CS352, and CS503 for each check that deviates by more than rounding, with its sites; none if it is sound."""
        own = [(s.name, s.path) for s in self.sites if self.off(s.own_values)]
        handed_on = [(s.name, s.path) for s in self.sites if self.off(s.handed_on)]
        return self.mixed + inexact_sites({w.what: w.deviation for w in self.whole}, self.limit, own, handed_on)


@torch.no_grad()
def diagnose(loaded: LoadedModel, progress: CountsPrompts) -> Diagnosis:
    """Test every tap of the model with random prompts of two lengths, padded on the right and on the left.

    A model that computes NaN when it is padded on the left, with nothing patched, is tested without:
    `verify` pads on the right. Use within `borrowed(model)`. Raises CS501, CS502 and CS510 where a site
    cannot be run at all.
    """
    runner = Forward(loaded, random_task(loaded), rows=ROWS, progress=progress)
    lengths = runner.task.lengths
    sides = SIDES[:1] if runner.by_length else SIDES
    taps = sorted(all_taps(loaded.architecture, loaded.shape))
    together = [taps[i : i + TOGETHER] for i in range(0, len(taps), TOGETHER)]
    runner.expect(len(sides) * ROWS * TOGETHER * (2 + in_whole(loaded.shape) + len(together)))
    mixed = mixing(runner)
    whole: list[dict[str, float]] = []
    checks: list[list[SiteCheck]] = []
    untested = ""
    for side in sides:  # one after the other: each keeps two whole runs
        try:
            tested = _Side(runner, side)
        except CircuitspecError as error:
            if side == "right" or error.diagnostics[0].code != "CS502":
                raise
            untested = error.diagnostics[0].message
            continue
        whole.append(tested.whole())
        checks.append([check for some in together for check in tested.check(some)])
    return Diagnosis(
        TOLERANCE[runner.dtype],
        lengths,
        tuple(WholeCheck(what, largest(w[what] for w in whole)) for what in whole[0]),
        tuple(_worst(of_one) for of_one in zip(*checks, strict=True)),
        untested,
        runner.by_length,
        mixed,
    )


def random_task(loaded: LoadedModel) -> TokenizedTask:
    """Prompts of random tokens of the vocabulary (of all embeddings where there is no tokenizer).

    Those of the other run differ at every token.
    """
    every = range(loaded.shape.n_vocab)
    tokenizer = loaded.tokenizer
    known = every if tokenizer is None else sorted(i for i in set(tokenizer.get_vocab().values()) if i in every)
    return random_prompts(known, loaded.shape.max_positions, lengths_for(loaded.model))


class _Side:
    """The prompts padded on one side, run plainly both ways, to be patched.

    Each forward tests several taps, each in rows of its own: every prompt once with its own values at the
    tap, once with the other run's.
    """

    def __init__(self, runner: Forward, side: PaddingSide) -> None:
        lengths = runner.task.lengths
        prompts = tuple(range(len(lengths))) * (2 * TOGETHER)
        self._runner, self._architecture = runner, with_scalars(runner.loaded)
        self._shape = runner.loaded.shape
        self._runs = TwoRuns(runner, Batch(prompts, tuple(lengths[p] for p in prompts), max(lengths), side))

    def whole(self) -> dict[str, float]:
        return self._runs.whole()

    def check(self, taps: Sequence[Tap]) -> list[SiteCheck]:
        """Each tap alone, with its own values and with the other run's. At most `TOGETHER` taps."""
        runs, half = self._runs, ROWS // 2
        values, rows, put, others = {}, {}, dict[Tap, list[slice]](), list[tuple[Tap, slice]]()
        for i, tap in enumerate(taps):
            given, swapped = slice(ROWS * i, ROWS * i + half), slice(ROWS * i + half, ROWS * (i + 1))
            values[tap] = runs.own[tap].clone()
            values[tap][swapped] = runs.other[tap][swapped]
            rows[tap] = given, swapped
            put.setdefault(tap, []).append(slice(given.start, swapped.stop))
            if tap.kind in ("resid", "resid_mid"):
                for beside in past(tap, self._architecture, self._shape):
                    put.setdefault(beside, []).append(swapped)
                    others.append((beside, swapped))
        for beside, here in others:
            if beside not in values:
                values[beside] = runs.own[beside].clone()
            values[beside][here] = runs.other[beside][here]
        read = frozenset(t for tap in taps for t in reads(tap, self._architecture, self._shape))
        logits, seen = runs.patched(values, read, put)
        return [self._check(tap, *rows[tap], logits, {**seen, tap: values[tap]}, seen) for tap in taps]

    def _check(
        self,
        tap: Tap,
        given: slice,
        swapped: slice,
        logits: Tensor,
        used: Mapping[Tap, Tensor],
        seen: Mapping[Tap, Tensor],
    ) -> SiteCheck:
        runs = self._runs
        due = handovers(tap, used, runs.other, self._architecture, self._shape)
        handed_on = largest(runs.fed(one, seen[one.read], swapped) for one in due) if due else None
        if tap.kind in ("resid", "resid_mid"):
            handed_on = off(logits[swapped], runs.other_logits[swapped])
        real = runs.real[swapped]
        return SiteCheck(
            tap,
            tap.path(self._architecture),
            off(logits[given], runs.logits[given]),
            handed_on,
            off(logits[swapped], runs.logits[swapped]),
            torch.equal(runs.own[tap][swapped][real], runs.other[tap][swapped][real]),
        )


def _worst(checks: Iterable[SiteCheck]) -> SiteCheck:
    """The same tap with padding on either side as one."""
    both = list(checks)
    handed_on = [c.handed_on for c in both if c.handed_on is not None]
    return SiteCheck(
        both[0].tap,
        both[0].path,
        largest(c.own_values for c in both),
        largest(handed_on) if handed_on else None,
        min(c.effect for c in both),
        all(c.same_values for c in both),
    )
