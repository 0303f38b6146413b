"""Distributed alignment search (Geiger et al. 2023): a subspace that carries a variable, learned by gradient descent.

The basis R is the orthonormal factor of a free matrix (QR), which Adam moves so that the model, patched along R,
answers as the high-level model asks. States are kept: a run begins at the patched layer and the first patched token,
from the residual stream, keys and values of the base (`engine.scheduling.partial_forward`), with the source's values
read once. The model's own weights take no gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.ablation.other_lengths import on_columns_of
from circuitspec.engine.execution.batches import Batch, model_inputs, some_inputs, where_mask
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.interventions import Projected, Swap
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.forward import Forward
from circuitspec.engine.metrics.site_values import mean_at
from circuitspec.engine.scheduling.partial_forward import (
    BaseRun,
    Beginning,
    Shortcut,
    Start,
    broken,
    check_exact,
    first_column,
    inexact,
    keys_values,
    may_cut,
)
from circuitspec.experiments.experiment import Site
from circuitspec.prompts.output_metrics import upcast
from circuitspec.prompts.pairs.settings import Setting, families_of, scored_as, scored_as_base, source_variant
from circuitspec.prompts.prompt_set import CLEAN


@dataclass(frozen=True)
class TrainingSettings:
    """How a basis is learned: Adam with a learning rate that falls to 0, on one batch of pairs a step.

    With `vocabulary` the loss is the cross-entropy among all tokens, not among the pair's candidates alone.
    """

    steps: int = 200
    lr: float = 1e-2
    vocabulary: bool = False
    evaluations: int = 10  # on validation pairs


@dataclass(frozen=True)
class PairBatch:
    """Pairs of one family that run together, as far as no basis changes it.

    A run `begins` where the base's left off, with `inputs` from there on. `source` is the site's tensor in the sources'
    runs, `own` in the base's, both `[row, pos, channel]`; `mask` is bool `[row, pos, unit]`: all three from the column
    on at which a run begins. `candidates` are token ids `[row, candidate]`, the answer asked for first; `real` says
    which of them are any. `kept` pairs are those of which the model answers base and source right, `changed` those
    whose answer must change, and `nothing` those of which the base run itself has the answer asked for, `[row]`.
    """

    batch: Batch
    inputs: Mapping[str, Any]
    begins: Beginning
    own: Tensor
    source: Tensor
    mask: Tensor
    candidates: Tensor
    real: Tensor
    kept: Tensor
    changed: Tensor
    family: str
    nothing: Tensor

    @property
    def stream(self) -> Tensor:
        """The base's residual stream where a run begins, `[row, pos, d_model]`."""
        return self.begins.stream

    def labelled(self, answers: Sequence[int]) -> PairBatch:
        """The same pairs with other answers asked for, each beside the candidates that there were."""
        first = torch.tensor(answers, device=self.candidates.device).unsqueeze(-1)
        others = self.real & (self.candidates != first)
        return replace(
            self,
            candidates=torch.cat([first, self.candidates], dim=1),
            real=torch.cat([torch.ones_like(first, dtype=torch.bool), others], dim=1),
        )


@dataclass(frozen=True)
class PairHits:
    """On which pairs the answer was the one asked for, all `[pair]`; `top` of those over the whole vocabulary.

    `loss` is the cross-entropy of that answer, over the pairs that are kept.
    """

    hit: NDArray[np.bool_]
    top: NDArray[np.bool_]
    nothing: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    changed: NDArray[np.bool_]
    loss: float

    @property
    def score(self) -> float:
        """The mean of the shares on pairs that must change and on those that must stay, where there are both."""
        parts = [self.kept & self.changed, self.kept & ~self.changed]
        shares = [float(self.hit[part].mean()) for part in parts if part.any()]
        return sum(shares) / len(shares) if shares else 0.0


class SitePairs:
    """The pairs of one split at one site, with what their unpatched runs have there."""

    def __init__(
        self,
        forward: Forward,
        site: Site,
        settings: Sequence[Setting],
        changed: Sequence[Sequence[bool]],
        *,
        every: bool = False,
    ) -> None:
        """`changed` says for each setting of which pairs the answer must change. With `every`, all pairs are kept.

        Raises CS503 where the model gives something else from the middle on than from the beginning.
        """
        self._shortcut = Shortcut(forward)
        self._forward, self.site = forward, site
        (self._slot,) = forward.slots_of(site.component)
        self._stream = Tap(self._slot.tap.layer, "resid")
        self.width = self._slot.tap.width(forward.loaded.shape) // self._slot.tap.units(forward.loaded.shape)
        runs = len(settings) + 1
        forward.expect(runs * forward.task.n)
        found: list[PairBatch] = []
        with torch.no_grad():
            for _, made in forward.in_batches(lambda part: self._made(part, settings, changed, every)):
                found += made
        self.batches: tuple[PairBatch, ...] = tuple(found)
        self._check()

    def _made(
        self, batch: Batch, settings: Sequence[Setting], changed: Sequence[Sequence[bool]], every: bool
    ) -> list[PairBatch]:
        forward, slot = self._forward, self._slot
        task, device = forward.task, forward.device
        at = where_mask(task, batch, self.site.where, device)
        cache = DynamicCache() if may_cut(forward.loaded, batch) else None
        record = Actions(record=frozenset({self._stream, slot.tap}))
        read, own = forward.readout(batch, CLEAN, record, cache=cache)
        column = 0 if cache is None else first_column(at, min(batch.answer_columns))
        run = BaseRun(read, own, () if cache is None else keys_values(cache))
        begins = Beginning.of(run, Start(self._stream.layer, column)).alone()
        inputs = some_inputs(model_inputs(task, batch, CLEAN, device), batch, start=column)
        at = at[:, column:]
        mask = torch.zeros(*at.shape, slot.tap.units(forward.loaded.shape), dtype=torch.bool, device=device)
        mask[:, :, slot.unit] = at
        found = []
        for setting, must in zip(settings, changed, strict=True):
            (family,) = families_of(setting)
            there, values = forward.readout(batch, source_variant(family), Actions(record=frozenset({slot.tap})))
            given = on_columns_of(task, batch, CLEAN, source_variant(family), values, 0.0)
            base, source, asked = scored_as_base(setting), source_variant(family), scored_as(setting)
            right = forward.metrics(batch, read, None, base, ("accuracy",))["accuracy"] == 1
            right &= forward.metrics(batch, there, None, source, ("accuracy",))["accuracy"] == 1
            told = task.of(asked)
            ids = [[told.answers[p][0], *told.wrong[p]] for p in batch.prompts]
            wide = max(map(len, ids))
            found.append(
                PairBatch(
                    batch,
                    inputs,
                    begins,
                    own[slot.tap][:, column:].clone(),
                    given[slot.tap][:, column:].clone(),
                    mask,
                    torch.tensor([[*row, *[0] * (wide - len(row))] for row in ids], device=device),
                    torch.tensor([[True] * len(row) + [False] * (wide - len(row)) for row in ids], device=device),
                    torch.ones_like(right) if every else right,
                    torch.tensor([must[p] for p in batch.prompts], dtype=torch.bool, device=device),
                    family,
                    forward.metrics(batch, read, None, asked, ("accuracy",))["accuracy"] == 1,
                )
            )
        return found

    def logits(self, pairs: PairBatch, basis: Tensor | None) -> Tensor:
        """Logits at the answers `[row, vocabulary]`, patched along a basis `[width, rank]` or, without one, whole."""
        self._forward.expect(len(pairs.batch.cases))
        given = Actions({self._slot.tap: _swap(pairs.mask, pairs.source, basis)})
        logits = self._shortcut.answers(pairs.batch, pairs.inputs, given, pairs.begins)
        if bool(broken(logits).any()):
            self._whole(pairs, basis)  # which says where
            raise CircuitspecError(inexact("gave NaN or infinity where a whole forward does not"))
        return logits

    def _whole(self, pairs: PairBatch, basis: Tensor | None) -> Tensor:
        """As `logits`, by a forward from the beginning. Raises CS502 where these are not finite."""
        before = (0, 0, pairs.begins.start.column, 0)  # no channels, and the columns that are kept of no run
        mask, source = (torch.nn.functional.pad(one, before) for one in (pairs.mask, pairs.source))
        self._forward.expect(len(pairs.batch.cases))
        with torch.no_grad():
            return self._forward.forward(pairs.batch, CLEAN, Actions({self._slot.tap: _swap(mask, source, basis)}))[0]

    @torch.no_grad()
    def _check(self) -> None:
        """Once: the run that leaves out the most tokens, of those of which the logits tell something."""
        latest = sorted(self.batches, key=lambda pairs: -pairs.begins.start.column)
        for pairs in latest:
            start = pairs.begins.start
            if start == Start() or check_exact(self.logits(pairs, None), self._whole(pairs, None), start):
                return

    def hits(self, basis: Tensor | None, *, vocabulary: bool = False) -> PairHits:
        """On which pairs the patched model answers as the high-level model asks; the loss as it is trained on."""
        hit, top, losses = [], [], []
        with torch.no_grad():
            for pairs in self.batches:
                logits = upcast(self.logits(pairs, basis))
                own = logits.gather(1, pairs.candidates).masked_fill(~pairs.real, -torch.inf)
                hit.append((own[:, :1] > own[:, 1:]).all(-1))
                losses += _losses(logits, pairs, vocabulary)[pairs.kept].tolist()
                top.append(hit[-1] & (logits.max(-1).values <= own[:, 0]))
        return PairHits(
            _joined(hit),
            _joined(top),
            _joined([pairs.nothing for pairs in self.batches]),
            _joined([pairs.kept for pairs in self.batches]),
            _joined([pairs.changed for pairs in self.batches]),
            float(np.mean(losses)) if losses else 0.0,
        )

    def values(self) -> list[tuple[Batch, str, NDArray[np.float64], NDArray[np.float64]]]:
        """For each batch its family, and the site's values `[row, width]` in base and source: means over positions."""
        there = slice(self._slot.unit * self.width, (self._slot.unit + 1) * self.width)
        found = []
        for pairs in self.batches:
            at = pairs.mask[:, :, self._slot.unit]
            base, source = (mean_at(at, value[..., there]).cpu().numpy() for value in (pairs.own, pairs.source))
            found.append((pairs.batch, pairs.family, base, source))
        return found

    def permuted(self, seed: int) -> SitePairs:
        """The same pairs with the answers asked for dealt out anew among those that are kept, family by family."""
        order = np.random.default_rng([seed, len(self.batches)])
        answers = {family: list[int]() for family in dict.fromkeys(pairs.family for pairs in self.batches)}
        for pairs in self.batches:
            answers[pairs.family] += pairs.candidates[pairs.kept][:, 0].tolist()
        dealt = {family: iter(order.permutation(own).tolist()) for family, own in answers.items()}
        other = copy.copy(self)
        other.batches = tuple(
            pairs.labelled(
                [
                    next(dealt[pairs.family]) if keep else int(answer)
                    for keep, answer in zip(pairs.kept.tolist(), pairs.candidates[:, 0].tolist(), strict=True)
                ]
            )
            for pairs in self.batches
        )
        return other


@dataclass(frozen=True)
class LearnedBasis:
    """A basis `[width, rank]` with its score on validation pairs, and the step that it was chosen at."""

    basis: NDArray[np.float64]
    validation: PairHits
    step: int


def learn_basis(
    training: SitePairs,
    validation: SitePairs,
    rank: int,
    seed: int,
    settings: TrainingSettings,
) -> LearnedBasis | None:
    """The basis of the step that scores best on validation pairs (of equals, with the least loss); None without pairs.

    The start and the order of batches depend on the seed alone; torch's own generators are left as they are.
    """
    usable = [pairs for pairs in training.batches if bool(pairs.kept.any())]
    if not usable or not any(bool(pairs.kept.any()) for pairs in validation.batches):
        return None
    rng = np.random.default_rng([seed, rank])
    dtype = torch.float64 if usable[0].stream.dtype == torch.float64 else torch.float32
    start = torch.tensor(rng.standard_normal((training.width, rank)), dtype=dtype, device=usable[0].stream.device)
    free = torch.linalg.qr(start).Q.clone().requires_grad_()
    adam = torch.optim.Adam([free], lr=settings.lr)
    every = max(1, settings.steps // settings.evaluations)
    order: list[int] = []
    best: LearnedBasis | None = None
    for step in range(1, settings.steps + 1):
        if not order:
            order = rng.permutation(len(usable)).tolist()
        pairs = usable[order.pop()]
        for group in adam.param_groups:
            group["lr"] = settings.lr * (1 - (step - 1) / settings.steps)
        adam.zero_grad()
        with torch.enable_grad():
            logits = training.logits(pairs, torch.linalg.qr(free).Q)
            loss = _losses(upcast(logits), pairs, settings.vocabulary)[pairs.kept].mean()
            loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        if step % every == 0 or step == settings.steps:
            basis = torch.linalg.qr(free.detach()).Q
            hits = validation.hits(basis, vocabulary=settings.vocabulary)
            if best is None or (hits.score, -hits.loss) > (best.validation.score, -best.validation.loss):
                wide = np.linalg.qr(basis.double().cpu().numpy())[0]
                best = LearnedBasis(wide, hits, step)
    return best


def _swap(mask: Tensor, source: Tensor, basis: Tensor | None) -> Swap:
    """The source's values where the mask says so, or their part along a basis alone."""
    if basis is None:
        return Swap(mask, source)
    return Swap(torch.zeros_like(mask), source, projected=(Projected(mask, basis),))


def _losses(logits: Tensor, pairs: PairBatch, vocabulary: bool) -> Tensor:
    """The cross-entropy of the answer asked for, `[row]`."""
    if vocabulary:
        return torch.nn.functional.cross_entropy(logits, pairs.candidates[:, 0], reduction="none")
    among = logits.gather(1, pairs.candidates).masked_fill(~pairs.real, -torch.inf)
    return among.logsumexp(-1) - among[:, 0]


def _joined(flags: Sequence[Tensor]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = torch.cat(list(flags)).cpu().numpy()
    return found
