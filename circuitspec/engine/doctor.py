"""Every site at which a model can be patched, tested one by one on random prompts: no task is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.engine.batches import Batch, PaddingSide, real_columns
from circuitspec.engine.compile import Actions
from circuitspec.engine.handover import Handover, handover, reads
from circuitspec.engine.interventions import Swap
from circuitspec.engine.labels import label
from circuitspec.engine.runner import Progress, Runner
from circuitspec.engine.selftest import TOLERANCE
from circuitspec.engine.taps import Tap, TapKind, all_taps
from circuitspec.models.load import LoadedModel
from circuitspec.tasks.prompts import CLEAN, Prompt, PromptSet, TokenizedTask

OTHER = "other"
SIDES: tuple[PaddingSide, ...] = ("right", "left")
LENGTHS = (8, 5)  # of the prompts; two, so that there is padding
ROWS = 2 * len(LENGTHS)  # that it takes to test one tap
TOGETHER = 4  # taps a forward; more take more memory and little less time
SEED = 0


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

    def off(self, deviation: float | None) -> bool:
        """Whether it is more than rounding (a deviation that is not a number is)."""
        return deviation is not None and not deviation <= self.limit

    @property
    def problems(self) -> tuple[Diagnostic, ...]:
        """CS503 for each kind of check that deviates by more than rounding, with its sites; none for a sound model."""
        own = [s for s in self.sites if self.off(s.own_values)]
        handed_on = [s for s in self.sites if self.off(s.handed_on)]
        said = [f"{w.what}: deviates by {w.deviation:.2g}" for w in self.whole if self.off(w.deviation)]
        if own:
            said.append(f"giving {_listed(own)} its own values changes the logits")
        if handed_on:
            said.append(f"giving {_listed(handed_on)} another run's values does not lead to what follows from them")
        return tuple(
            Diagnostic(
                "CS503",
                what,
                hint=f"deviations up to {self.limit:g} are rounding; this model is not patched rightly there, "
                "see its family's entry in circuitspec/models/architecture.py",
                data={"sites": list(dict.fromkeys(s.name for s in (*own, *handed_on)))},
            )
            for what in said
        )


@torch.no_grad()
def diagnose(loaded: LoadedModel, progress: Progress) -> Diagnosis:
    """Test every tap of the model with random prompts of two lengths, padded on the right and on the left.

    A model that computes NaN when it is padded on the left, with nothing patched, is tested without:
    `verify` pads on the right. Use within `borrowed(model)`. Raises CS501, CS502 and CS510 where a site
    cannot be run at all.
    """
    task = random_task(loaded)
    runner = Runner(loaded, task, rows=task.n, progress=progress)
    taps = sorted(all_taps(loaded.architecture, loaded.shape))
    together = [taps[i : i + TOGETHER] for i in range(0, len(taps), TOGETHER)]
    runner.expect(len(SIDES) * ROWS * TOGETHER * (2 + 3 + len(together)))
    whole: list[dict[str, float]] = []
    checks: list[list[SiteCheck]] = []
    untested = ""
    for side in SIDES:  # one after the other: each keeps two whole runs
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
        task.lengths,
        tuple(WholeCheck(what, _largest(w[what] for w in whole)) for what in whole[0]),
        tuple(_worst(of_one) for of_one in zip(*checks, strict=True)),
        untested,
    )


def random_task(loaded: LoadedModel) -> TokenizedTask:
    """Prompts of random tokens of the vocabulary; those of the other run differ at every token."""
    known = sorted(i for i in set(loaded.tokenizer.get_vocab().values()) if i < loaded.shape.n_vocab)
    longest = min(max(LENGTHS), loaded.shape.max_positions or max(LENGTHS))
    lengths = [min(length, longest) for length in LENGTHS]
    random = np.random.default_rng(SEED)
    clean, other = [], []
    for length in lengths:
        chosen = random.integers(0, len(known), length)
        shifted = (chosen + random.integers(1, max(2, len(known)), length)) % len(known)
        clean.append(tuple(known[i] for i in chosen))
        other.append(tuple(known[i] for i in shifted))
    texts = [{CLEAN: str(a), OTHER: str(b)} for a, b in zip(clean, other, strict=True)]
    prompts = tuple(Prompt(i, 0, text, (), ()) for i, text in enumerate(texts))
    none = ((),) * len(prompts)
    return TokenizedTask(
        PromptSet(prompts, (OTHER,), ("random tokens",)), {CLEAN: tuple(clean), OTHER: tuple(other)}, {}, none, none
    )


class _Side:
    """The prompts padded on one side, run plainly both ways, to be patched.

    Each forward tests several taps, each in rows of its own: every prompt once with its own values at the
    tap, once with the other run's. All forwards have the same rows in the same order, so that what is
    compared was computed by the same kernels: only then are deviations 0 in half precision too.
    """

    def __init__(self, runner: Runner, side: PaddingSide) -> None:
        lengths = runner.task.lengths
        prompts = tuple(range(len(lengths))) * (2 * TOGETHER)
        self._runner = runner
        self._shape = runner.loaded.shape
        self._batch = Batch(prompts, tuple(lengths[p] for p in prompts), max(lengths), side)
        self._real = real_columns(self._batch).to(runner.device)
        every = all_taps(runner.loaded.architecture, self._shape)
        record = Actions(record=every | {Tap(self._shape.n_layers, "final")})
        self._logits, self._own = runner.forward(self._batch, CLEAN, record)
        self._other_logits, self._other = runner.forward(self._batch, OTHER, record)

    def whole(self) -> dict[str, float]:
        """The two self-tests of all taps together."""
        own, other = self._own, self._other
        every = all_taps(self._runner.loaded.architecture, self._shape)
        parts: dict[str, tuple[TapKind, ...]] = {
            "the input, all heads and all MLPs, the other run's values": ("z", "mlp"),
            "the input, all heads and all neurons, the other run's values": ("z", "neurons"),
        }
        found = {"every site, its own values": _off(self._patched({t: own[t] for t in every})[0], self._logits)}
        for what, kinds in parts.items():
            chosen = {t: other[t] for t in every if t.kind in kinds or t == Tap(0, "resid")}
            found[what] = _off(self._patched(chosen)[0], self._other_logits)
        return found

    def check(self, taps: Sequence[Tap]) -> list[SiteCheck]:
        """Each tap alone, with its own values and with the other run's. At most `TOGETHER` taps."""
        half = ROWS // 2
        values, rows = {}, {}
        for i, tap in enumerate(taps):
            given, swapped = slice(ROWS * i, ROWS * i + half), slice(ROWS * i + half, ROWS * (i + 1))
            values[tap] = self._own[tap].clone()
            values[tap][swapped] = self._other[tap][swapped]
            rows[tap] = given, swapped
        read = frozenset(t for tap in taps for t in reads(tap, self._shape))
        logits, seen = self._patched(values, read, {tap: slice(a.start, b.stop) for tap, (a, b) in rows.items()})
        return [self._check(tap, *rows[tap], logits, seen) for tap in taps]

    def _check(self, tap: Tap, given: slice, swapped: slice, logits: Tensor, seen: Mapping[Tap, Tensor]) -> SiteCheck:
        due = handover(tap, self._own, self._other, self._shape)
        handed_on: float | None = None
        if tap.kind in ("resid", "resid_mid"):
            handed_on = _off(logits[swapped], self._other_logits[swapped])
        elif due is not None:
            handed_on = self._fed(due, seen[due.read], swapped)
        real = self._real[swapped]
        return SiteCheck(
            tap,
            tap.path(self._runner.loaded.architecture),
            _off(logits[given], self._logits[given]),
            handed_on,
            _off(logits[swapped], self._logits[swapped]),
            torch.equal(self._own[tap][swapped][real], self._other[tap][swapped][real]),
        )

    def _patched(
        self,
        values: Mapping[Tap, Tensor],
        read: frozenset[Tap] = frozenset(),
        rows: Mapping[Tap, slice] | None = None,
    ) -> tuple[Tensor, dict[Tap, Tensor]]:
        """The plain run with these values at every token, but not in the padding; in some rows or in all."""
        swaps = {}
        for tap, value in values.items():
            chosen = torch.zeros_like(self._real)
            here = slice(None) if rows is None else rows[tap]
            chosen[here] = self._real[here]
            swaps[tap] = Swap(chosen.unsqueeze(-1).expand(*chosen.shape, tap.units(self._shape)), value)
        return self._runner.forward(self._batch, CLEAN, Actions(swaps, read))

    def _fed(self, due: Handover, actual: Tensor, rows: slice) -> float:
        """The largest difference, in what rounding can do to each value: its terms' size, at least the average one."""
        tokens = torch.zeros_like(self._real)
        if due.columns == "first":
            tokens[range(len(self._batch.offsets)), self._batch.offsets] = True
        else:
            tokens |= self._real
        tokens[: rows.start] = tokens[rows.stop :] = False
        difference = (actual[tokens] - due.expected[tokens]).abs().cpu().double()
        magnitude = due.magnitude[tokens].cpu().double()
        scale = magnitude + magnitude.mean()
        return float((difference / scale.clamp_min(torch.finfo(torch.float64).tiny)).max())


def _off(actual: Tensor, expected: Tensor) -> float:
    """The largest difference of logits, in standard deviations of the expected ones."""
    scale = float(expected.cpu().double().std())
    return float((actual - expected).abs().max()) / (scale or 1.0)


def _largest(deviations: Iterable[float]) -> float:
    """As `max`, but NaN if there is one."""
    return float(np.max(list(deviations)))


def _worst(checks: Iterable[SiteCheck]) -> SiteCheck:
    """The same tap with padding on either side as one."""
    both = list(checks)
    handed_on = [c.handed_on for c in both if c.handed_on is not None]
    return SiteCheck(
        both[0].tap,
        both[0].path,
        _largest(c.own_values for c in both),
        _largest(handed_on) if handed_on else None,
        min(c.effect for c in both),
        all(c.same_values for c in both),
    )


def _listed(sites: list[SiteCheck]) -> str:
    return ", ".join(f"{s.name} ({s.path})" for s in sites)
