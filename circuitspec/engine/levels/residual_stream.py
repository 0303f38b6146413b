"""What single senders add to the residual stream, and what single receivers compute from it.

Edge and path level need the model's own arithmetic for one head at a time: a head's share of the attention output, and
the query, key or value that it would compute had it read another residual stream. Both use the model's own modules and
weights; this is the one place that knows how they are laid out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.dictionaries.dictionary import Dictionary
from circuitspec.engine.execution.taps import Slot, Tap, TapKind, port_slot, read_at, written_at
from circuitspec.engine.levels.scratch import Scratch
from circuitspec.graph.edges import Receiver, Sender, no_plain_sum
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.components import Head, KvHead, Mlp
from circuitspec.models.families.architecture import Architecture
from circuitspec.models.families.modules import submodule
from circuitspec.models.load import LoadedModel

PLAIN = ("Linear", "Conv1D", "FalconLinear")  # of torch and of transformers


@dataclass(frozen=True)
class ReceiverProjection:
    """Some queries, keys or values of one layer: weight `[unit, d_model, d_head]`, bias `[unit, d_head]`."""

    weight: Tensor
    bias: Tensor | None

    def of_one(self, entering: Tensor) -> Tensor:
        """`[token, unit, d_head]`, all from one input `[token, d_model]`."""
        projected = (entering @ self.weight.transpose(0, 1).flatten(1)).view(len(entering), len(self.weight), -1)
        return projected if self.bias is None else projected + self.bias

    def of_each(self, entering: Tensor, out: Tensor | None = None) -> Tensor:
        """`[token, unit, d_head]`, each from an input of its own `[token, unit, d_model]`; put into `out`, if given."""
        projected = torch.bmm(entering.transpose(0, 1), self.weight).transpose(0, 1)
        if self.bias is not None:
            return torch.add(projected, self.bias, out=out)
        return projected if out is None else out.copy_(projected)


class Stream:
    """Senders and receivers of one model. Raises CS371 where the model does not let single heads be told apart, CS325
    where its stream is no sum of what they add."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.architecture: Architecture = loaded.architecture
        self.shape: ModelShape = loaded.shape
        self.dictionaries: Mapping[str, Dictionary] = loaded.dictionaries
        self.scratch = Scratch()
        self._model = loaded.model
        self._ports: dict[Receiver, Slot] = {}
        if self.shape.why_no_edges:
            raise CircuitspecError(no_plain_sum(self.shape))
        if loaded.foreign.runs_hooks:
            raise CircuitspecError(
                Diagnostic(
                    "CS371",
                    f"forward hooks are kept: {', '.join(loaded.foreign.hooks[:3])}; what single heads add and read is "
                    "computed beside the model's forward, where they do not run",
                    hint="write `level: node`, and claim nothing about paths; or let the hooks be set aside",
                )
            )
        self._check()

    def recorded_at(self, sender: Sender) -> Tap:
        """The tap at which a sender's value is read."""
        return written_at(sender, self.architecture)

    def kept_as(self, sender: Sender) -> Tap:
        """The name under which `with_scaled` keeps what a sender adds to the residual stream."""
        if isinstance(sender, Head) and self.post_normed:
            return Tap(sender.layer, "z_scaled")
        return self.recorded_at(sender)

    def read_tap(self, receiver: Receiver) -> Tap:
        """Where the residual stream that a receiver reads is found."""
        return read_at(receiver.component, self.shape)

    def with_scaled(self, values: Mapping[Tap, Tensor]) -> dict[Tap, Tensor]:
        """These recorded values, and every z divided by what a post norm divides the attention output by.

        With a post norm, a head's contribution is its output, times the norm's weight, over the root mean square of
        the whole attention output of its run; so scaled, contributions are linear in z, and means of them are means.
        """
        if not self.post_normed:
            return dict(values)
        scaled = {Tap(t.layer, "z_scaled"): self.scaled(t.layer, v) for t, v in values.items() if t.kind == "z"}
        return {**values, **scaled}

    def scaled(self, layer: int, z: Tensor) -> Tensor:
        """z over the post norm's divisor, which is read off the norm's own result; z itself where there is none."""
        if self.architecture.attn_post_norm is None:
            return z
        total = z @ self._output_weight(layer).reshape(-1, self.shape.d_model)
        normed = self._module(self.architecture.attn_post_norm, layer).forward(total)
        direction = total * self.gain(layer)
        size = (direction * direction).sum(-1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
        factor = (normed * direction).sum(-1, keepdim=True) / size
        off = (normed - factor * direction).abs().max()
        if not off <= 2e-2 * normed.abs().max():  # a norm that also subtracts or adds something is off by about 1
            raise CircuitspecError(_unsplit(f"the norm after the attention of layer {layer} does more than scale"))
        scaled: Tensor = z * factor
        return scaled

    def heads(self, layer: int, difference: Tensor, heads: Sequence[int], out: Tensor | None = None) -> Tensor:
        """What some heads add to the residual stream, `[head, row * pos, d_model]`; put into `out`, if given.

        `difference` is (a difference of) scaled z, `[row, pos, n_heads * d_head]`.
        """
        weight = self._output_weight(layer)
        split = difference.reshape(-1, self.shape.n_heads, self.shape.d_head)
        if len(heads) < self.shape.n_heads:
            index = torch.tensor(heads, device=weight.device)
            split, weight = split.index_select(1, index), weight.index_select(0, index)
        contributions = torch.bmm(split.transpose(0, 1), weight, out=out)
        if self.post_normed:
            contributions = torch.mul(contributions, self.gain(layer), out=out)
        return self.added(contributions, out=out)

    def added(self, computed: Tensor, out: Tensor | None = None) -> Tensor:
        """What is added to the residual stream of what an attention or an MLP computes; put into `out`, if given.

        That is all of it but where the family multiplies it on its way.
        """
        by = self.architecture.residual_multiplier
        if by == 1:
            return computed if out is None or out is computed else out.copy_(computed)
        return torch.mul(computed, by, out=out)

    def sent(self, sender: Sender, value: Tensor, out: Tensor | None = None) -> Tensor:
        """What the input or an MLP adds to the residual stream, of (a difference of) its values; into `out`, if given.

        Values are as `recorded_at` gives them.
        """
        if isinstance(sender, Mlp):
            return self.added(value, out=out)
        return value if out is None else out.copy_(value)

    def attention_biases(self, layers: int) -> Tensor:
        """What the attention of the first layers adds to the residual stream that is no head's, `[d_model]`."""
        weight = self._output_weight(0)
        total = weight.new_zeros(self.shape.d_model)
        for layer in range(layers):
            bias = getattr(self._module(self.architecture.attn_out, layer), "bias", None)
            total = total if bias is None else total + bias
        return self.added(total)

    def port(self, receiver: Receiver) -> Slot:
        """The slice of a projection's output that a query, key or value is."""
        if receiver not in self._ports:
            component, port = receiver.component, receiver.port
            assert isinstance(component, Head | KvHead)
            assert port is not None
            self._ports[receiver] = port_slot(port, component.layer, component.head, self.architecture, self.shape)
        return self._ports[receiver]

    def entering_attention(self, layer: int, read: Tensor) -> Tensor:
        """What enters the projections, from the residual stream that is read, `[.., d_model]`."""
        return self._normed(self.architecture.attn_norm, layer, read)

    def projection(self, tap: Tap, chosen: Sequence[int]) -> ReceiverProjection:
        """What computes some of a tap's queries, keys or values."""
        projection = submodule(self._model, tap.path(self.architecture).removesuffix(".output"))
        weight, bias = projection.weight, projection.bias
        assert isinstance(weight, Tensor)
        units, d_head = tap.units(self.shape), self.shape.d_head
        if self.architecture.weight_layout == "in,out":
            split = weight.view(-1, units, d_head).transpose(0, 1)
        else:
            split = weight.view(units, d_head, -1).transpose(1, 2)
        shifts = bias.view(units, d_head) if isinstance(bias, Tensor) else None
        if list(chosen) == list(range(units)):
            return ReceiverProjection(split, shifts)
        index = torch.tensor(chosen, device=weight.device)
        return ReceiverProjection(split[index], None if shifts is None else shifts[index])

    def entering_mlp(self, layer: int, read: Tensor) -> Tensor:
        """What enters the MLP, from the residual stream that it reads, `[.., d_model]`."""
        return self._normed(self.architecture.mlp_norm, layer, read)

    def mlp_output(self, layer: int, entering: Tensor) -> Tensor:
        """The MLP's output, before a post norm."""
        output = entering
        for module in self.architecture.mlp_modules:
            given = self._module(module, layer).forward(output)
            output = given[0] if isinstance(given, tuple) else given  # the router's choice beside it
        return output

    def mlp_added(self, layer: int, entering: Tensor) -> Tensor:
        """Its value as a sender (`recorded_at`): the MLP's output, after a post norm where there is one."""
        return self._normed(self.architecture.mlp_post_norm, layer, self.mlp_output(layer, entering))

    @property
    def post_normed(self) -> bool:
        """Whether a norm stands between the attention's output and the residual stream, so that heads share it."""
        return self.architecture.attn_post_norm is not None

    @property
    def heads_share_a_norm(self) -> bool:
        """Whether the queries (and the keys) of all heads of a layer are normed together."""
        return self.architecture.joint_qk_norm

    @property
    def mlp_shares_its_input(self) -> bool:
        """Whether what enters the MLP is the residual stream itself, which must not be written to."""
        return self.architecture.mlp_norm is None

    @property
    def worked_out(self) -> TapKind | None:
        """The kind of values that `with_scaled` adds for every z; None where it adds none."""
        return "z_scaled" if self.post_normed else None

    def _normed(self, norm: str | None, layer: int, read: Tensor) -> Tensor:
        if norm is None:
            return read
        normed: Tensor = self._module(norm, layer).forward(read)
        return normed

    def _module(self, relative: str, layer: int) -> nn.Module:
        return submodule(self._model, self.architecture.path(relative, layer))

    def _output_weight(self, layer: int) -> Tensor:
        """`[n_heads, d_head, d_model]`"""
        weight = self._module(self.architecture.attn_out, layer).weight
        assert isinstance(weight, Tensor)
        rows = weight if self.architecture.weight_layout == "in,out" else weight.T
        return rows.reshape(self.shape.n_heads, self.shape.d_head, self.shape.d_model)

    def gain(self, layer: int) -> Tensor:
        """The post norm's weight, up to the factor that `scaled` compensates for."""
        assert self.architecture.attn_post_norm is not None
        norm = self._module(self.architecture.attn_post_norm, layer)
        weight = self._output_weight(layer)
        gain: Tensor = norm.forward(torch.ones(1, self.shape.d_model, dtype=weight.dtype, device=weight.device))
        return gain

    def _check(self) -> None:
        problems = []
        for layer in range(self.shape.n_layers):
            out = self._module(self.architecture.attn_out, layer)
            paths = {port_slot(p, layer, 0, self.architecture, self.shape).tap.path(self.architecture) for p in "qkv"}  # type: ignore[arg-type]
            projections = [submodule(self._model, path.removesuffix(".output")) for path in sorted(paths)]
            for module in (out, *projections):
                if type(module).__name__ not in PLAIN:
                    problems.append(_unsplit(f"layer {layer} has a {type(module).__name__} for a projection"))
            bias = getattr(out, "bias", None)
            if self.architecture.attn_post_norm is not None and bias is not None and bool(bias.any()):
                problems.append(
                    _unsplit(
                        f"the attention output of layer {layer} has a bias, and a norm after it mixes it with the heads"
                    )
                )
        if problems:
            raise CircuitspecError(*problems[:3])


def _unsplit(reason: str) -> Diagnostic:
    return Diagnostic(
        "CS371",
        f"this model's heads cannot be told apart at edge and path level: {reason}",
        hint="merge adapters and undo quantisation, or write `level: node`",
    )
