"""Direct logit attribution: what every component adds to a metric by itself, through the frozen final norm.

The final residual stream is the sum of what the embeddings, heads, MLPs and biases add, and the logits are a linear
function of it but for the divisor of the final norm. With the divisor kept at the clean run's, a component's *direct
effect* on a metric that is linear in the logits is its contribution times one direction: the unembedding of the answers
less that of the wrong ones, seen through the norm (Heimersheim & Nanda 2024, section 4.1). In patched runs the same
direction is used, so that a change of a direct effect is a change of what the component writes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.attribution.direct_contributions import DirectRun, Part
from circuitspec.engine.execution.batches import Batch
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.interventions import Swap
from circuitspec.engine.execution.rounding import TOLERANCE
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Source
from circuitspec.experiments.levels.patched_tokens import check_counterparts
from circuitspec.graph.edges import senders
from circuitspec.hypothesis_file.grammar.components import Head, Input, Mixer, Mlp, Neuron
from circuitspec.models.families.modules import submodule
from circuitspec.prompts.output_metrics import METRICS, targets
from circuitspec.prompts.prompt_set import CLEAN

PLAIN = Experiment(CLEAN)


def direct_passes(experiments: Collection[Experiment]) -> int:
    """Passes over all prompts that it takes: the clean run, every patched run, and those that values come from.

    A mean that the runner does not know yet takes one more.
    """
    patched = [e for e in experiments if e.source is not None]
    sources = {e.source: e.draws for e in patched if e.source is not None and e.source.is_recorded}
    return 1 + sum(e.draws for e in patched) + sum(sources.values())


@torch.no_grad()
def direct_effects(
    runner: Runner, experiments: Sequence[Experiment], metric: str, neurons: Collection[Neuron] = ()
) -> dict[Experiment, DirectRun]:
    """Every sender's direct effect on `metric` in the clean run and in these patched runs of the clean prompts.

    `neurons` are told apart from their MLPs. Where noise is drawn, means over the draws. Raises ValueError for a metric
    that is not linear in the logits, for a base other than the clean prompts, and for a patched residual stream (which
    replaces what all earlier components add); CS326 where that stream is no such sum, CS368
    where answers have several tokens, CS371 as `Stream` does, and
    CS503 where the parts do not add up.
    """
    if runner.task.sequences is not None:
        raise CircuitspecError(
            Diagnostic(
                "CS368",
                "direct effects are on logits at one token, and the answers are scored over several",
                hint="with `score: first_token` or answers of one token, direct effects are defined",
            )
        )
    if (shape := runner.loaded.shape).why_no_edges:
        raise CircuitspecError(
            Diagnostic(
                "CS326",
                f"the last stream of a {shape.family} is no sum of what heads and MLPs add: {shape.why_no_edges}",
                hint="patch them at node level and see how the metric moves",
            )
        )
    if not METRICS[metric].linear:
        raise ValueError(f"{metric} is not linear in the logits")
    wanted = tuple(dict.fromkeys((PLAIN, *experiments)))
    for experiment in wanted:
        if experiment.base != CLEAN or experiment.level != "node":
            raise ValueError("direct effects are of node-level runs on the clean prompts")
        if any(site.component.kind.is_stream for site in experiment.sites):
            raise ValueError("a patched residual stream has no parts")
    check_counterparts(wanted, runner.task)
    runner.expect(direct_passes(wanted) * runner.task.n)
    parts = DirectParts(runner, metric, neurons)
    found = {experiment: _Columns(runner.task.n) for experiment in wanted}

    def work(batch: Batch) -> list[tuple[Experiment, _BatchRun]]:
        """The clean run taken apart, and every draw of every patched one."""
        clean, direction = parts.run(batch, {}, 0)
        runs = [(PLAIN, clean)]
        for draw in range(max(e.draws for e in wanted)):
            values: dict[Source, Mapping[Tap, Tensor]] = {}
            for experiment in wanted:
                source = experiment.source
                if source is None or draw >= experiment.draws:
                    continue
                if source not in values:
                    taps = runner.taps_of([e for e in wanted if e.source == source])
                    before = runner.forwards
                    values[source] = runner.source_values(batch, source, taps, draw)
                    if not source.is_recorded:  # it may have been learned just now
                        runner.expect(round((runner.forwards - before) * runner.task.n))
                swaps = runner.swaps(batch, experiment, values[source])
                patched, _ = parts.run(batch, swaps, draw, direction)
                runs.append((experiment, patched))
        return runs

    for batch, runs in runner.in_batches(work):
        for experiment, run in runs:
            found[experiment].add(batch, run, experiment.draws)
    return {experiment: columns.result() for experiment, columns in found.items()}


@dataclass(frozen=True)
class AnswerDirection:
    """What a contribution to the final stream is multiplied by, `[row, d_model]`; and what biases add, `[row]`."""

    vector: Tensor
    in_stream: Tensor  # the biases of attention outputs, which belong to no head
    behind: Tensor  # those of the final norm and of the unembedding
    unembedding: (
        Tensor  # the same direction behind the final norm, `[row, d_model]`, and what its own bias adds, `[row]`
    )
    unembedding_bias: Tensor


class _Columns:
    """One experiment's figures, prompt by prompt."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._effects: dict[Part, NDArray[np.float64]] = {}
        self._patched: dict[Part, NDArray[np.bool_]] = {}
        self._constant, self._metric = np.zeros(n), np.zeros(n)

    def add(self, batch: Batch, run: _BatchRun, draws: int) -> None:
        rows = list(batch.prompts)
        for part, values in run.effects.items():
            self._effects.setdefault(part, np.zeros(self._n))[rows] += values.numpy() / draws
        for part, where in run.patched.items():
            self._patched.setdefault(part, np.zeros(self._n, dtype=np.bool_))[rows] = where.numpy()
        self._constant[rows] += run.constant.numpy() / draws
        self._metric[rows] += run.metric.numpy() / draws

    def result(self) -> DirectRun:
        return DirectRun(self._effects, self._constant, self._patched, self._metric)


@dataclass(frozen=True)
class _BatchRun:
    """As `DirectRun`, for one batch: `[row]` each."""

    effects: Mapping[Part, Tensor]
    constant: Tensor
    patched: Mapping[Part, Tensor]
    metric: Tensor


class DirectParts:
    """The model's parts, as one batch's runs show them at the answers."""

    def __init__(self, runner: Runner, metric: str, neurons: Collection[Neuron]) -> None:
        self._runner, self._metric, self._stream = runner, metric, runner.stream
        self._model, self._shape = runner.loaded.model, runner.loaded.shape
        self._architecture = runner.loaded.architecture
        self._senders = senders(self._shape)
        self._neurons: dict[int, list[int]] = {}
        for neuron in sorted(set(neurons), key=lambda n: (n.layer, n.index)):
            self._neurons.setdefault(neuron.layer, []).append(neuron.index)
        self._final = Tap(self._shape.n_layers, "final")
        taps = {self._stream.recorded_at(sender) for sender in self._senders} | {self._final}
        taps |= {tap for layer in self._neurons for tap in (Tap(layer, "neurons"), Tap(layer, "mlp"))}
        self._taps = frozenset(taps)

    @property
    def final(self) -> Tap:
        """The stream that the final norm reads."""
        return self._final

    def run(
        self, batch: Batch, swaps: Mapping[Tap, Swap], draw: int, direction: AnswerDirection | None = None
    ) -> tuple[_BatchRun, AnswerDirection]:
        """One forward taken apart along a direction; without one, along its own."""
        logits, recorded = self._runner.forward(batch, CLEAN, Actions(swaps, self._taps), draw)
        rows = torch.arange(len(batch.prompts), device=logits.device)
        columns = torch.tensor(batch.answer_columns, device=logits.device)
        used = {tap: _as_used(tensor, swaps.get(tap), rows, columns) for tap, tensor in recorded.items()}
        own = direction is None
        direction = direction or self.direction(batch, used[self._final])
        if self._capped:
            normed = submodule(self._model, self._architecture.final_norm).forward(used[self._final])
            metric = (normed.cpu().double() * direction.unembedding).sum(-1) + direction.unembedding_bias
        else:
            metric = self._runner.metrics(batch, logits, None)[self._metric].cpu().double()
        effects = self._effects(used, direction)
        self._check(effects, used[self._final], direction, metric if own else None, logits.dtype)
        at_answers = {tap: swap.mask[rows, columns].cpu() for tap, swap in swaps.items()}
        return _BatchRun(effects, direction.in_stream + direction.behind, self._patched(at_answers), metric), direction

    @property
    def _capped(self) -> bool:
        """Whether logits are capped after the unembedding, as Gemma 2's are."""
        return getattr(self._model.config, "final_logit_softcapping", None) is not None

    def direction(self, batch: Batch, final: Tensor) -> AnswerDirection:
        """The metric's direction in the stream that the final norm reads, with the divisor that `final` gives."""
        unembedding = submodule(self._model, self._architecture.unembedding)
        weight, bias = unembedding.weight, getattr(unembedding, "bias", None)
        assert isinstance(weight, Tensor)
        vector = torch.zeros(len(batch.prompts), weight.shape[1], dtype=torch.float64)
        tokens_bias = torch.zeros(len(batch.prompts), dtype=torch.float64)
        task = self._runner.task
        sides = ((task.answers, 1), (task.wrong, -1)) if METRICS[self._metric].needs_wrong else ((task.answers, 1),)
        for tokens, sign in sides:
            side = targets([tokens[p] for p in batch.prompts], weight.device)
            assert side is not None
            share = sign * (side.mask / side.mask.sum(-1, keepdim=True)).cpu().double()
            vector += (weight[side.ids].cpu().double() * share.unsqueeze(-1)).sum(1)
            if isinstance(bias, Tensor):
                tokens_bias += (bias[side.ids].cpu().double() * share).sum(-1)
        by = self._architecture.logit_multiplier
        vector, tokens_bias = vector * by, tokens_bias * by
        norm = _frozen(submodule(self._model, self._architecture.final_norm), final)
        seen = norm.backwards(vector)
        in_stream = seen @ self._stream.attention_biases(self._shape.n_layers).cpu().double()
        return AnswerDirection(seen, in_stream, tokens_bias + vector @ norm.bias, vector, tokens_bias)

    def _effects(self, values: Mapping[Tap, Tensor], direction: AnswerDirection) -> dict[Part, Tensor]:
        found: dict[Part, Tensor] = {}
        for sender in self._senders:
            tap = self._stream.recorded_at(sender)
            if not isinstance(sender, Head):
                found[sender] = (self._stream.sent(sender, values[tap]).cpu().double() * direction.vector).sum(-1)
            elif sender.head == 0:  # a layer's heads together
                z = self._stream.scaled(sender.layer, values[tap])
                added = self._stream.heads(sender.layer, z, range(self._shape.n_heads)).cpu().double()
                each = torch.einsum("hrd,rd->rh", added, direction.vector)
                found |= {Head(sender.layer, head): each[:, head] for head in range(self._shape.n_heads)}
        for layer, indices in self._neurons.items():
            each = self._of_neurons(layer, indices, values, direction.vector)
            found[Mlp(layer)] = found[Mlp(layer)] - each.sum(-1)
            found |= {Neuron(layer, index): each[:, i] for i, index in enumerate(indices)}
        return found

    def _of_neurons(self, layer: int, indices: list[int], values: Mapping[Tap, Tensor], vector: Tensor) -> Tensor:
        """The direct effects of some neurons of an MLP, `[row, neuron]`."""
        assert self._architecture.neurons_down is not None
        down = self._module(self._architecture.neurons_down, layer).weight
        assert isinstance(down, Tensor)
        written = (down if self._architecture.weight_layout == "in,out" else down.T)[indices].cpu().double()
        if self._architecture.mlp_post_norm is not None:
            norm = self._module(self._architecture.mlp_post_norm, layer)
            vector = _frozen(norm, values[Tap(layer, "mlp")]).backwards(vector)
        by = self._architecture.residual_multiplier
        neurons = values[Tap(layer, "neurons")]
        if self._architecture.neuron_norm is not None:  # what each adds is as the norm of that run leaves it
            neurons = self._module(self._architecture.neuron_norm, layer).forward(neurons)
        return neurons[:, indices].cpu().double() * (vector @ written.T) * by

    def _patched(self, masks: Mapping[Tap, Tensor]) -> dict[Part, Tensor]:
        """On which rows a part's value is patched in, from masks `[row, unit]`; only parts of which it is on some."""
        found: dict[Part, Tensor] = {}
        for tap, mask in masks.items():
            neurons = self._neurons.get(tap.layer, ())
            match tap.kind:
                case "resid":
                    found[Input()] = mask[:, 0]
                case "z":
                    found |= {Head(tap.layer, head): mask[:, head] for head in range(mask.shape[1])}
                case "mixer":
                    found[Mixer(tap.layer)] = mask[:, 0]
                case "mlp":
                    found[Mlp(tap.layer)] = mask[:, 0]
                    found |= {Neuron(tap.layer, index): mask[:, 0] for index in neurons}
                case "neurons":
                    found |= {Neuron(tap.layer, index): mask[:, index] for index in neurons}
        return {part: where for part, where in found.items() if bool(where.any())}

    def _check(
        self,
        effects: Mapping[Part, Tensor],
        final: Tensor,
        direction: AnswerDirection,
        metric: Tensor | None,
        dtype: torch.dtype,
    ) -> None:
        """Raises CS503 where the parts do not add up to the final stream, and that not to the metric."""
        whole = (final.cpu().double() * direction.vector).sum(-1)
        terms = torch.stack([*effects.values(), direction.in_stream])
        scale = terms.abs().sum(0).mean() + direction.behind.abs().mean()
        off = (terms.sum(0) - whole).abs().max()
        if metric is not None:
            off = torch.maximum(off, (whole + direction.behind - metric).abs().max())
        if not off <= TOLERANCE[dtype] * scale:
            raise CircuitspecError(
                Diagnostic(
                    "CS503",
                    f"direct effects do not add up to {self._metric}: they are off by {float(off):.2g}, and come to "
                    f"{float(scale):.2g} in all",
                    hint="this model's family is not taken apart rightly; no result of it can be trusted",
                )
            )

    def _module(self, relative: str, layer: int) -> nn.Module:
        return submodule(self._model, self._architecture.path(relative, layer))


@dataclass(frozen=True)
class _Frozen:
    """A norm as the linear map that it is with its divisor held at one run's: `x -> factor * gain * (x - mean) + bias`.

    `factor` is `[row, 1]`, `gain` and `bias` `[d_model]`; an RMS norm takes no mean off.
    """

    factor: Tensor
    gain: Tensor
    bias: Tensor
    centred: bool

    def backwards(self, vector: Tensor) -> Tensor:
        """The direction before the norm that a direction behind it is, `[row, d_model]`."""
        seen = vector * self.gain
        return self.factor * (seen - seen.mean(-1, keepdim=True) if self.centred else seen)


def _frozen(norm: nn.Module, read: Tensor) -> _Frozen:
    """The norm with the divisor that it has for `read`, `[row, d_model]`; read off the norm's own result."""
    zeros = torch.zeros_like(read[:1])
    bias = norm.forward(zeros)[0].cpu().double()
    even, uneven = torch.ones_like(zeros), _adding_up_to_zero(zeros)
    of_even, of_uneven = (norm.forward(one)[0].cpu().double() - bias for one in (even, uneven))
    centred = bool(of_even.abs().max() < 1e-2 * of_uneven.abs().max())  # what all channels share is taken off
    gain = of_uneven / uneven[0].cpu().double() if centred else of_even
    stream = read.cpu().double()
    direction = gain * (stream - stream.mean(-1, keepdim=True) if centred else stream)
    normed = norm.forward(read).cpu().double() - bias
    size = (direction * direction).sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return _Frozen((normed * direction).sum(-1, keepdim=True) / size, gain, bias, centred)


def _adding_up_to_zero(like: Tensor) -> Tensor:
    """`[1, d_model]`: numbers that add up to zero, none of them zero."""
    uneven = torch.ones_like(like)
    uneven[:, 1::2] = -1
    if like.shape[-1] % 2:
        uneven[:, -1] = -2
        uneven[:, -2] = 1
    return uneven


def _as_used(tensor: Tensor, swap: Swap | None, rows: Tensor, columns: Tensor) -> Tensor:
    """A tap's values at the answers, `[row, channel]`, with what is patched in there."""
    own = tensor[rows, columns]
    if swap is None:
        return own
    mask = swap.mask[rows, columns]
    source = swap.source.expand(*tensor.shape)[rows, columns]
    split = (len(own), mask.shape[-1], -1)
    return torch.where(mask.unsqueeze(-1), source.reshape(split), own.reshape(split)).flatten(1)
