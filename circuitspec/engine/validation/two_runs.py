"""Patching on two random prompts run plainly both ways: what has to hold at every site, whatever the task.

`verify` tests all sites together (`TwoRuns.together`), `doctor` one by one; what must follow from a patch is the same
(`engine.validation.tap_propagation`), so that neither lets pass what the other refuses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.engine.execution.batches import Batch, real_columns
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.interventions import Swap
from circuitspec.engine.execution.taps import Tap, TapKind, added_by_attention, all_taps
from circuitspec.engine.forward import EMBEDDINGS, Forward
from circuitspec.engine.validation.tap_propagation import (
    Handover,
    added_by_mlp,
    beside_stream,
    handovers,
    past,
    same,
    streams,
    sums,
    terms,
)
from circuitspec.graph.shape import ModelShape
from circuitspec.models.families.architecture import Architecture
from circuitspec.models.families.modules import computing, submodule
from circuitspec.models.families.rope import reads_longest_row
from circuitspec.models.load import LoadedModel
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
    "the input, all heads and all MLPs, the other run's values": ("z", "mixer", "mlp"),
    "the input, all heads and all neurons, the other run's values": ("z", "mixer", "neurons"),
}


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
    return 2 + in_whole(shape) + 2 + len(_bits(shape))


def in_whole(shape: ModelShape) -> int:
    """Forwards that `TwoRuns.whole` takes."""
    return 2 + len(ALL_PATCHED) + (0 if shape.has_streams else 2 + shape.n_layers.bit_length())


def _bits(shape: ModelShape) -> range:
    """Of the numbers of all streams that can be patched, counted from 1."""
    return range(max(0, len(streams(shape)) - 1).bit_length())


@contextlib.contextmanager
def handing_on(blocks: Sequence[nn.Module], call: Callable[..., Any]) -> Iterator[list[Tensor]]:
    """Blocks with `call` between them and whoever calls them; what each of them returned, in their order."""
    left: list[Tensor] = []

    def forward(own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        streams, *others = args if args else (kwargs.pop("hidden_states"),)
        output = call(own, streams, *others, **kwargs)
        left.append(output[0] if isinstance(output, tuple) else output)
        return output

    with computing({block: partial(forward, block.forward) for block in blocks}):
        yield left


def _side_by_side(streams: Tensor) -> Tensor:
    """`[stream, row, pos, d_model]` -> `[row, pos, stream * d_model]`"""
    return streams.permute(1, 2, 0, 3).flatten(2)


def with_scalars(loaded: LoadedModel) -> Architecture:
    """The model's architecture, in which is said by what each layer multiplies the stream."""
    architecture, beyond = loaded.architecture, loaded.architecture.beyond
    if beyond is None or beyond.scalar is None:
        return architecture
    blocks = [submodule(loaded.model, architecture.block.format(layer=n)) for n in range(loaded.shape.n_layers)]
    scalars = tuple(float(getattr(block, beyond.scalar)) for block in blocks)
    return replace(architecture, beyond=replace(beyond, scalars=scalars))


class TwoRuns:
    """A batch of random prompts, run plainly with its own tokens and with the other run's; `also` is recorded too.

    All forwards have the same rows in the same order, so that what is compared was computed by the same kernels: only
    then are deviations 0 in half precision too.
    """

    def __init__(self, runner: Forward, batch: Batch, also: frozenset[Tap] = frozenset()) -> None:
        self.runner, self.batch = runner, batch
        self._architecture, self._shape = with_scalars(runner.loaded), runner.loaded.shape
        self.real = real_columns(batch).to(runner.device)
        self.sites = tuple(sorted(all_taps(self._architecture, self._shape)))
        layers = range(self._shape.n_layers)
        added = {
            tap for n in layers for tap in (added_by_attention(n, self._shape), added_by_mlp(n, self._architecture))
        }
        added |= {tap for n in layers for tap in terms(n, self._architecture, self._shape)}
        if self._shape.query_gates:  # which say what heads give of their values
            added |= {Tap(n, "q") for n in self._shape.layers_with_heads}
        self._begin = Tap(0, "resid") if self._shape.has_streams else EMBEDDINGS
        self._record = Actions(record=frozenset({*self.sites, *added, self._begin}) | also)
        self.logits, self.own = runner.forward(batch, CLEAN, self._record)
        self.other_logits, self.other = runner.forward(batch, OTHER, self._record)

    def whole(self) -> dict[str, float]:
        """Everything at once: every check of `CHECKS` that is one of this model's. 0 is exact.

        In standard deviations of the logits; sums and what blocks hand on in what rounding can do to each of them.
        """
        chosen = (check for check in CHECKS if check.of(self._architecture))
        return {check.what: check.deviation(self) for check in chosen}

    def own_values(self) -> float:
        """How far the logits move when all sites are given their own values: without the streams, and with them."""
        return largest(self._all_own())

    def all_patched(self, kinds: Collection[TapKind]) -> float:
        """How far the logits are from the other run's where the input and these kinds of sites are given its values."""
        beside = beside_stream(self._architecture, self._shape)
        chosen = {t: self.other[t] for t in (*(t for t in self.sites if t.kind in kinds), *beside, self._begin)}
        return off(self.patched(chosen)[0], self.other_logits)

    def sums(self) -> float:
        """How far the streams of the plain runs are from the sums of what is added to them."""
        every = slice(0, len(self.batch.prompts))
        return largest(
            self.fed(due, run[due.read], every)
            for run in (self.own, self.other)
            for layer in range(self._shape.n_layers)
            for due in sums(layer, run, self._architecture, self._shape)
        )

    def handed_on(self) -> float:
        """How far what blocks hand on is from what they do in the run of which they are given all streams."""
        return largest(self._handed_on())

    def _handed_on(self) -> Iterator[float]:
        """How far what blocks hand on is from what they do in the run whose streams, all of them, they are given.

        For any two blocks there is a forward in which they are given different ones, so that what passes between them
        beside the streams, and beside what the entry names, is seen. In this process, wherever else the model runs.
        """
        loaded = self.runner.loaded
        local = Forward(loaded, self.runner.task, progress=self.runner.progress, rows=len(self.batch.prompts))
        blocks = list(submodule(loaded.model, self._architecture.block.partition("[")[0]).children())

        def streams_of(variant: str) -> list[Tensor]:
            """What enters each block, and what leaves the last, `[stream, row, pos, d_model]`."""
            entering: list[Tensor] = []

            def call(own: Callable[..., Any], streams: Tensor, *args: Any, **kwargs: Any) -> Any:
                entering.append(streams.clone())
                return own(streams, *args, **kwargs)

            with handing_on(blocks, call) as leaving:
                local.forward(self.batch, variant, Actions())
            return [*entering, leaving[-1]]

        own, other = streams_of(CLEAN), streams_of(OTHER)
        every = slice(0, len(self.batch.prompts))
        for bit in range(len(blocks).bit_length()):
            chosen = [(number >> bit) & 1 for number in range(1, len(blocks) + 1)]
            put: dict[Tap, Tensor] = {}
            for layer, one in enumerate(chosen):
                run, source = (self.own, self.other)[one], self._shape.keys_of(layer)
                put[Tap(layer, "per_layer")] = run[Tap(layer, "per_layer")]
                if chosen[source] != one:
                    put[Tap(layer, "z")] = run[Tap(layer, "z")]
            given = iter([(own, other)[one][layer] for layer, one in enumerate(chosen)])

            def call(own_forward: Callable[..., Any], streams: Tensor, *args: Any, **kwargs: Any) -> Any:
                return own_forward(next(given).clone(), *args, **kwargs)  # noqa: B023

            swaps = {tap: self._swap(tap, value) for tap, value in put.items()}
            with handing_on(blocks, call) as leaving:
                local.forward(self.batch, CLEAN, Actions(swaps))
            for layer, one in enumerate(chosen):
                due = _side_by_side((own, other)[one][layer + 1])
                handed_on = Handover(Tap(layer + 1, "resid"), due, due.abs())
                yield self.fed(handed_on, _side_by_side(leaving[layer]), every)

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
        *given, last = streams(self._shape) or (Tap(-1, "final"),)
        for bit in _bits(self._shape):
            runs = [self.other if (number >> bit) & 1 else self.own for number in range(1, len(given) + 1)]
            put = {tap: run[tap] for tap, run in zip(given, runs, strict=True)}
            put |= self._past(dict(zip(given, runs, strict=True)))
            _, seen = self.patched(put, frozenset({*given, last}))
            for tap, after, run in zip(given, (*given[1:], last), runs, strict=True):
                found.setdefault(tap, []).append(self.fed(same(after, run), seen[after], every))
        return {tap: largest(deviations) for tap, deviations in found.items() if deviations}

    def _past(self, runs: Mapping[Tap, Mapping[Tap, Tensor]]) -> dict[Tap, Tensor]:
        """What comes past the streams that blocks are given, of the same run as these.

        What heads give of keys and values that an earlier layer computed: only where that one was given another run, so
        that else it is seen what is made of them.
        """
        put: dict[Tap, Tensor] = {}
        for stream, run in runs.items():
            for tap in past(stream, self._architecture, self._shape):
                if tap.layer != stream.layer:
                    continue
                if tap.kind == "z" and runs[Tap(self._shape.keys_of(tap.layer), "resid")] is run:
                    continue
                if tap.kind == "per_layer" and self._shape.has_resid_mid and stream.kind != "resid_mid":
                    continue  # it is added after the middle
                put[tap] = run[tap]
        return put

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
        rows: Mapping[Tap, Sequence[slice]] | None = None,
    ) -> tuple[Tensor, dict[Tap, Tensor]]:
        """The plain run with these values at every token, but not in the padding; in some rows or in all."""
        every = (slice(None),)
        swaps = {tap: self._swap(tap, value, every if rows is None else rows[tap]) for tap, value in values.items()}
        return self.runner.forward(self.batch, CLEAN, Actions(swaps, read))

    def _swap(self, tap: Tap, value: Tensor, rows: Sequence[slice] = (slice(None),)) -> Swap:
        """These values at every token of some rows, but not in the padding."""
        chosen = torch.zeros_like(self.real)
        for here in rows:
            chosen[here] = self.real[here]
        return Swap(chosen.unsqueeze(-1).expand(*chosen.shape, tap.units(self._shape)), value)

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


@dataclass(frozen=True)
class Check:
    """What of all sites together must be 0 but for rounding: `doctor` and `verify` measure the same."""

    what: str
    deviation: Callable[[TwoRuns], float]
    of: Callable[[Architecture], bool] = lambda architecture: True


CHECKS: tuple[Check, ...] = (
    Check(OWN_VALUES, TwoRuns.own_values),
    *(Check(what, partial(TwoRuns.all_patched, kinds=kinds)) for what, kinds in ALL_PATCHED.items()),
    Check("the residual stream, as the sum of what heads and MLPs add to it", TwoRuns.sums),
    Check("what blocks hand on, given all streams of a run", TwoRuns.handed_on, lambda of: of.several_streams),
)


def off(actual: Tensor, expected: Tensor) -> float:
    """The largest difference of logits, in standard deviations of the expected ones."""
    scale = float(expected.cpu().double().std())
    return float((actual - expected).abs().max()) / (scale or 1.0)


def largest(deviations: Iterable[float]) -> float:
    """As `max`, but NaN if there is one."""
    return float(np.max(list(deviations)))
