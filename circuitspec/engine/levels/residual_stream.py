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
from circuitspec.engine.execution.taps import Slot, Tap, TapKind, port_slots, read_at, written_at
from circuitspec.engine.levels.scratch import Scratch
from circuitspec.graph.edges import Receiver, Sender, no_plain_sum
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.component_kinds import PORTS
from circuitspec.hypothesis_file.grammar.components import Head, KvHead, Mixer, Mlp
from circuitspec.models.families.architecture import Architecture, LatentQKV
from circuitspec.models.families.modules import submodule
from circuitspec.models.load import LoadedModel

PLAIN = ("Linear", "Conv1D", "FalconLinear")  # of torch and of transformers


@dataclass(frozen=True)
class ReceiverProjection:
    """Some queries, keys or values of one layer: weight `[unit, d_model, width]`, bias `[unit, width]`.

    The width is that of a head, or what a slice of its projection has (`Tap.units`).
    """

    weight: Tensor
    bias: Tensor | None

    def of_one(self, entering: Tensor) -> Tensor:
        """`[token, unit, width]`, all from one input `[token, d_model]`."""
        projected = (entering @ self.weight.transpose(0, 1).flatten(1)).view(len(entering), len(self.weight), -1)
        return projected if self.bias is None else projected + self.bias

    def of_each(self, entering: Tensor, out: Tensor | None = None) -> Tensor:
        """`[token, unit, width]`, each from an input of its own `[token, unit, d_model]`; put into `out`, if given."""
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
        self._ports: dict[Receiver, tuple[Slot, ...]] = {}
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
        if isinstance(sender, Head) and self.heads_normed:
            return Tap(sender.layer, "z_scaled")
        return self.recorded_at(sender)

    def read_tap(self, receiver: Receiver) -> Tap:
        """Where the residual stream that a receiver reads is found."""
        return read_at(receiver.component, self.shape)

    def with_scaled(self, values: Mapping[Tap, Tensor]) -> dict[Tap, Tensor]:
        """These recorded values, and every z divided by what a norm divides the attention output by.

        With a post norm, a head's contribution is its output, times the norm's weight, over the root mean square of
        the whole attention output of its run; with a norm over all heads before they are projected, its z times that
        norm's weight over the root mean square of all z. So scaled, contributions are linear in z, and means of them
        are means.
        """
        if not self.heads_normed:
            return dict(values)
        scaled = {Tap(t.layer, "z_scaled"): self.scaled(t.layer, v) for t, v in values.items() if t.kind == "z"}
        return {**values, **scaled}

    def scaled(self, layer: int, z: Tensor) -> Tensor:
        """z over the norm's divisor, which is read off the norm's own result; z itself where there is none."""
        if not self.heads_normed:
            return z
        total = z
        if self.post_normed:
            total = z @ self._output_weight(layer).reshape(-1, self.shape.d_model)
        normed = self._module(self._norm_of_heads, layer).forward(total)
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
        if self.architecture.head_norm is not None:
            difference = difference * self.gain(layer)
        split = difference.reshape(-1, self.shape.n_heads, self.shape.d_head)
        if len(heads) < self.shape.n_heads:
            index = torch.tensor(heads, device=weight.device)
            split, weight = split.index_select(1, index), weight.index_select(0, index)
        contributions = torch.bmm(split.transpose(0, 1), weight, out=out)
        if self.post_normed:
            contributions = torch.mul(contributions, self.gain(layer), out=out)
        return self.added(contributions, out=out)

    def attention(self, layer: int, scaled: Tensor) -> Tensor:
        """What the attention of a layer adds to the stream, of scaled z of all its heads; `[row * pos, d_model]`."""
        total = self.heads(layer, scaled, range(self.shape.n_heads)).sum(0)
        bias = getattr(self._module(self.architecture.attn_out, layer), "bias", None)
        return total if bias is None else total + self.added(bias)

    def added(self, computed: Tensor, out: Tensor | None = None) -> Tensor:
        """What is added to the residual stream of what an attention or an MLP computes; put into `out`, if given.

        That is all of it but where the family multiplies it on its way.
        """
        by = self.architecture.residual_multiplier
        if by == 1:
            return computed if out is None or out is computed else out.copy_(computed)
        return torch.mul(computed, by, out=out)

    def sent(self, sender: Sender, value: Tensor, out: Tensor | None = None) -> Tensor:
        """What the input, a mixer or an MLP adds to the stream, of (a difference of) its values; into `out`, if given.

        Values are as `recorded_at` gives them.
        """
        if isinstance(sender, Mixer | Mlp):
            return self.added(value, out=out)
        return value if out is None else out.copy_(value)

    def attention_biases(self, layers: int) -> Tensor:
        """What the attention of the first layers adds to the residual stream that is no head's, `[d_model]`.

        What mixers add is all theirs.
        """
        unembedding = submodule(self._model, self.architecture.unembedding).weight
        assert isinstance(unembedding, Tensor)
        total = unembedding.new_zeros(self.shape.d_model)
        for layer in (one for one in self.shape.layers_with_heads if one < layers):
            bias = getattr(self._module(self.architecture.attn_out, layer), "bias", None)
            total = total if bias is None else total + bias
        return self.added(total)

    def ports(self, receiver: Receiver) -> tuple[Slot, ...]:
        """The slices of a projection's output that a query, key or value is: one, but for heads that are pairs, and
        where it comes of a latent."""
        if receiver not in self._ports:
            component, port = receiver.component, receiver.port
            assert isinstance(component, Head | KvHead)
            assert port is not None
            self._ports[receiver] = port_slots(port, component.layer, component.head, self.architecture, self.shape)
        return self._ports[receiver]

    def entering_attention(self, layer: int, read: Tensor) -> Tensor:
        """What enters a layer's attention, or its mixer, from the residual stream that is read, `[.., d_model]`."""
        return self._normed(self.architecture.attn_norm, layer, read)

    def entering(self, tap: Tap, read: Tensor) -> Tensor:
        """What enters the projection whose output a tap is, from the residual stream that is read, `[.., d_model]`."""
        normed = self.entering_attention(tap.layer, read)
        qkv = self.architecture.qkv
        if not isinstance(qkv, LatentQKV):
            return normed
        if tap.kind == "q":
            for module in qkv.before_q:
                normed = self._module(module, tap.layer).forward(normed)
        elif tap.kind == "kv_up":
            widths = self.shape.latent
            assert widths is not None
            latent = self._module(qkv.latent, tap.layer).forward(normed)[..., : widths.latent]
            normed = self._module(qkv.norm, tap.layer).forward(latent)
        return normed

    def projection(self, tap: Tap, chosen: Sequence[int]) -> ReceiverProjection:
        """What computes some of a tap's queries, keys or values."""
        projection = submodule(self._model, tap.path(self.architecture).removesuffix(".output"))
        weight, bias = projection.weight, projection.bias
        assert isinstance(weight, Tensor)
        units = tap.units(self.shape)
        d_head = tap.width(self.shape) // units
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
    def heads_normed(self) -> bool:
        """Whether the heads of a layer are normed together, before or after they are projected."""
        return self.post_normed or self.architecture.head_norm is not None

    @property
    def _norm_of_heads(self) -> str:
        norm = self.architecture.attn_post_norm or self.architecture.head_norm
        assert norm is not None
        return norm

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
        return "z_scaled" if self.heads_normed else None

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
        """The weight of the norm of heads, up to the factor that `scaled` compensates for.

        `[1, d_model]` of a norm after the projection, `[1, n_heads * d_head]` of one before it.
        """
        norm = self._module(self._norm_of_heads, layer)
        weight = self._output_weight(layer)
        width = self.shape.d_model if self.post_normed else self.shape.n_heads * self.shape.d_head
        gain: Tensor = norm.forward(torch.ones(1, width, dtype=weight.dtype, device=weight.device))
        return gain

    def _check(self) -> None:
        problems = []
        if self.architecture.attn_post_norm is not None and self.architecture.head_norm is not None:
            problems.append(_unsplit("norms stand before and after the projection of its heads"))
        for layer in self.shape.layers_with_heads:
            out = self._module(self.architecture.attn_out, layer)
            taps = {slot.tap for p in PORTS for slot in port_slots(p, layer, 0, self.architecture, self.shape)}
            paths = sorted(tap.path(self.architecture) for tap in taps)
            projections = [submodule(self._model, path.removesuffix(".output")) for path in paths]
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
