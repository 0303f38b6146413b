"""Patching on two random prompts run plainly both ways: what has to hold at every site, whatever the task.

`verify` tests all sites together (`TwoRuns.together`), `doctor` one by one; what must follow from a patch is the same
(`engine.validation.tap_propagation`), so that neither lets pass what the other refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.engine.execution.batches import Batch, real_columns
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.interventions import Swap
from circuitspec.engine.execution.taps import Tap, TapKind, all_taps
from circuitspec.engine.forward import Forward
from circuitspec.engine.validation.tap_propagation import Handover, added_by_mlp, handovers, same, streams, sums
from circuitspec.graph.shape import ModelShape
from circuitspec.models.families.rope import reads_longest_row
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet, TokenizedTask

OTHER = "other"
LENGTHS = (8, 5)  # of the prompts
SEED = 0

_STREAMS: tuple[TapKind, ...] = ("resid", "resid_mid")
_WITHIN: tuple[TapKind, ...] = (
    "neurons",
    "shared_neurons",
    "qkv",
    "q",
    "k",
    "v",
    "latent",
    "kv_up",
)  # what heads and MLPs compute from
OWN_VALUES = "every site, its own values"
ALL_PATCHED: Mapping[str, tuple[TapKind, ...]] = {
    "the input, all heads and all MLPs, the other run's values": ("z", "mlp"),
    "the input, all heads and all neurons, the other run's values": ("z", "neurons"),
}
WHOLE = 2 + len(ALL_PATCHED)  # forwards that `TwoRuns.whole` takes
_SUMS = "the residual stream, as the sum of what heads and MLPs add to it"


def random_prompts(known: Sequence[int], longest: int | None, lengths: Sequence[int] = LENGTHS) -> TokenizedTask:
    """Prompts of random tokens among these; those of the other run differ at every token. None longer than `longest`.

    The same for the same tokens.
    """
    lengths = [length if longest is None else min(length, longest) for length in lengths]
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


def lengths_for(model: nn.Module) -> tuple[int, ...]:
    """Of the prompts: two, so that there is padding, unless the model is never padded."""
    return (max(LENGTHS),) * len(LENGTHS) if reads_longest_row(model) else LENGTHS


Site = tuple[str, str]  # a tap's name as in hypothesis files, and its path


def inexact_sites(
    whole: Mapping[str, float], limit: float, own: Sequence[Site], handed_on: Sequence[Site]
) -> tuple[Diagnostic, ...]:
    """CS503 for every check of all sites that deviates by more than `limit`, and for the sites where patches fail.

    `own` are those whose own values change the logits, `handed_on` those whose other values do not lead to what
    follows.
    """

    def listed(sites: Iterable[Site]) -> str:
        return ", ".join(f"{name} ({path})" for name, path in sites)

    said = [f"{what}: deviates by {found:.2g}" for what, found in whole.items() if not found <= limit]
    if own:
        said.append(f"giving {listed(own)} its own values changes the logits")
    if handed_on:
        said.append(f"giving {listed(handed_on)} another run's values does not lead to what follows from them")
    return tuple(
        Diagnostic(
            "CS503",
            what,
            hint=f"deviations up to {limit:g} are rounding; this model is not patched rightly there, "
            "see its family's entry in circuitspec/models/families",
            data={"sites": list(dict.fromkeys(name for name, _ in (*own, *handed_on)))},
        )
        for what in said
    )


def forwards(shape: ModelShape) -> int:
    """Those that `TwoRuns` takes for everything but single sites: plain ones, `whole` and `together`."""
    return 2 + WHOLE + 2 + len(_bits(shape))


def _bits(shape: ModelShape) -> range:
    """Of the numbers of all streams that can be patched, counted from 1."""
    return range((len(streams(shape)) - 1).bit_length())


class TwoRuns:
    """A batch of random prompts, run plainly with its own tokens and with the other run's; `also` is recorded too.

    All forwards have the same rows in the same order, so that what is compared was computed by the same kernels: only
    then are deviations 0 in half precision too.
    """

    def __init__(self, runner: Forward, batch: Batch, also: frozenset[Tap] = frozenset()) -> None:
        self.runner, self.batch = runner, batch
        self._architecture, self._shape = runner.loaded.architecture, runner.loaded.shape
        self.real = real_columns(batch).to(runner.device)
        self.sites = tuple(sorted(all_taps(self._architecture, self._shape)))
        layers = range(self._shape.n_layers)
        added = {tap for n in layers for tap in (Tap(n, "attn_added"), added_by_mlp(n, self._architecture))}
        self._record = Actions(record=frozenset({*self.sites, *added, streams(self._shape)[-1]}) | also)
        self.logits, self.own = runner.forward(batch, CLEAN, self._record)
        self.other_logits, self.other = runner.forward(batch, OTHER, self._record)

    def whole(self) -> dict[str, float]:
        """Everything at once: own values, the other run's, and the sums of the plain runs. 0 is exact.

        In standard deviations of the logits; the sums in what rounding can do to each of them.
        """
        found = {OWN_VALUES: largest(self._all_own())}
        for what, kinds in ALL_PATCHED.items():
            chosen = {t: self.other[t] for t in self.sites if t.kind in kinds or t == Tap(0, "resid")}
            found[what] = off(self.patched(chosen)[0], self.other_logits)
        every = slice(0, len(self.batch.prompts))
        found[_SUMS] = largest(
            self.fed(due, run[due.read], every)
            for run in (self.own, self.other)
            for layer in range(self._shape.n_layers)
            for due in sums(layer, run, self._architecture, self._shape)
        )
        return found

    def together(self) -> dict[Tap, float]:
        """How far what each site feeds is from what the other run's values there lead to: of all sites together.

        Once all heads and MLPs are given the other run's values, once what these compute from, but not the streams
        between them. Then each of those is given one run's or the other's, by the digits of its number, so that for
        any two there is a forward in which they are given different ones: what a block hands on must be what it hands
        on in the run that it was given.
        """
        every = slice(0, len(self.batch.prompts))
        found: dict[Tap, list[float]] = {}
        for within in (False, True):
            put = {t: self.other[t] for t in self.sites if t.kind not in _STREAMS and (t.kind in _WITHIN) == within}
            _, seen = self.patched(put, self._record.record)
            used = {**seen, **put}
            for tap in put:
                due = handovers(tap, used, self.other, self._architecture, self._shape)
                found[tap] = [self.fed(one, seen[one.read], every) for one in due]
        *given, last = streams(self._shape)
        for bit in _bits(self._shape):
            runs = [self.other if (number >> bit) & 1 else self.own for number in range(1, len(given) + 1)]
            put = {tap: run[tap] for tap, run in zip(given, runs, strict=True)}
            _, seen = self.patched(put, frozenset({*given, last}))
            for tap, after, run in zip(given, (*given[1:], last), runs, strict=True):
                found.setdefault(tap, []).append(self.fed(same(after, run), seen[after], every))
        return {tap: largest(deviations) for tap, deviations in found.items() if deviations}

    def _all_own(self) -> list[float]:
        """Of all components, and of all streams: the streams would cover up what went wrong before them."""
        deviations = []
        for chosen in (
            {t: self.own[t] for t in self.sites if t.kind not in _STREAMS or t == Tap(0, "resid")},
            {t: self.own[t] for t in self.sites},
        ):
            deviations.append(off(self.patched(chosen)[0], self.logits))
        return deviations

    def patched(
        self,
        values: Mapping[Tap, Tensor],
        read: frozenset[Tap] = frozenset(),
        rows: Mapping[Tap, slice] | None = None,
    ) -> tuple[Tensor, dict[Tap, Tensor]]:
        """The plain run with these values at every token, but not in the padding; in some rows or in all."""
        swaps = {}
        for tap, value in values.items():
            chosen = torch.zeros_like(self.real)
            here = slice(None) if rows is None else rows[tap]
            chosen[here] = self.real[here]
            swaps[tap] = Swap(chosen.unsqueeze(-1).expand(*chosen.shape, tap.units(self._shape)), value)
        return self.runner.forward(self.batch, CLEAN, Actions(swaps, read))

    def fed(self, due: Handover, actual: Tensor, rows: slice) -> float:
        """The largest difference, in what rounding can do to each value: its terms' size, at least the average one."""
        tokens = torch.zeros_like(self.real)
        if due.columns == "first":
            tokens[range(len(self.batch.offsets)), self.batch.offsets] = True
        else:
            tokens |= self.real
        tokens[: rows.start] = tokens[rows.stop :] = False
        difference = (actual[tokens] - due.reached(actual)[tokens]).abs().cpu().double()
        magnitude = due.magnitude[tokens].cpu().double()
        scale = magnitude + magnitude.mean()
        return float((difference / scale.clamp_min(torch.finfo(torch.float64).tiny)).max())


def off(actual: Tensor, expected: Tensor) -> float:
    """The largest difference of logits, in standard deviations of the expected ones."""
    scale = float(expected.cpu().double().std())
    return float((actual - expected).abs().max()) / (scale or 1.0)


def largest(deviations: Iterable[float]) -> float:
    """As `max`, but NaN if there is one."""
    return float(np.max(list(deviations)))
