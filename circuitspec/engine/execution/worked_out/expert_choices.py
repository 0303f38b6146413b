"""Single experts and what routers choose, read and patched in the model's own forward.

No module gives what one expert adds: the module that holds them adds them up. So its forward, and the router's, are
others for one run (`models.families.experts`), by the same arithmetic: the router gives what is patched in, what each
expert added is seen, and where experts are patched the MLP's output is changed by what theirs are changed by. What a
shared expert adds is what the output has beside the others. What the output projection of an expert reads, no module
gives either: that is what the family's own arithmetic gives where channels are handed on in place of being projected.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.interventions import Edit, Swap
from circuitspec.engine.execution.taps import Tap
from circuitspec.graph.shape import ModelShape
from circuitspec.models.families.architecture import Architecture
from circuitspec.models.families.experts import ExpertOutputs, rerouted, routing, watched
from circuitspec.models.families.modules import submodule


def choices_in(taps: Collection[Tap]) -> frozenset[Tap]:
    """Those that are of experts, their neurons or of what a router chose, and so no tensors of a module."""
    return frozenset(tap for tap in taps if tap.kind in ("routing", "expert_neurons", "experts"))


@dataclass
class _Layer:
    """One layer's mixture in one forward."""

    layer: int
    n_experts: int
    has_shared: bool
    rows: int
    swaps: Mapping[Tap, Swap]
    shifts: Mapping[Tap, Tensor]
    record: Collection[Tap]
    recorded: dict[Tap, Tensor]
    given: list[ExpertOutputs] = field(default_factory=list)
    routed: int = 0

    def route(self, own: Callable[..., Any], entering: Tensor) -> Any:
        """What the router gives, as patched."""
        output = own(entering)
        self.routed += 1
        tap = Tap(self.layer, "routing")
        weights = routing(output, self.n_experts)
        by_row = weights.view(self.rows, -1, self.n_experts)
        if tap in self.record:
            self.recorded[tap] = by_row
        swap = self.swaps.get(tap)
        if swap is None:
            return output
        if swap.gate is not None or swap.projected:
            raise ValueError("a routing is replaced as a whole, or it is not")
        replaced = swap.put_into(by_row).view_as(weights)
        return rerouted(output, swap.mask.reshape(-1, 1), replaced)

    def change(self, output: Tensor) -> Tensor:
        """The MLP's output `[row, pos, d_model]`, changed by what its experts are."""
        if len(self.given) != 1:
            raise _not_once(self.layer, "experts", len(self.given))
        given = self.given.pop()
        by_expert = given.added.view(*output.shape[:2], self.n_experts, output.shape[-1])
        if self.has_shared:
            beside = output - by_expert.sum(2).to(output.dtype)
            by_expert = torch.cat([by_expert.to(output.dtype), beside.unsqueeze(2)], 2)
        own = by_expert.flatten(2)
        moved = self._by_neurons(given, by_expert)
        tap = Tap(self.layer, "experts")
        shifted = moved + self.shifts[tap] if tap in self.shifts else moved
        if tap in self.record:
            self.recorded[tap] = shifted
        swap = self.swaps.get(tap)
        patched = shifted if swap is None else swap.put_into(shifted)
        if patched is own:
            return output
        changed = (patched - own).view(by_expert.shape).sum(2)
        return output + changed.to(output.dtype)

    def _by_neurons(self, given: ExpertOutputs, by_expert: Tensor) -> Tensor:
        """What experts add `[row, pos, expert * d_model]`, changed by what their neurons are."""
        own = by_expert.flatten(2)
        if given.neurons is None:
            return own
        tap, neurons = Tap(self.layer, "expert_neurons"), given.neurons.reshape(*own.shape[:2], -1)
        shifted = neurons + self.shifts[tap] if tap in self.shifts else neurons
        if tap in self.record:
            self.recorded[tap] = shifted
        swap = self.swaps.get(tap)
        patched = shifted if swap is None else swap.put_into(shifted)
        if patched is neurons:
            return own
        change = (patched - neurons).view(*own.shape[:2], self.n_experts, -1)
        added = torch.einsum("rpen,end->rped", change, given.down.to(change.dtype))
        some = by_expert.clone()
        some[:, :, : self.n_experts] += added.to(some.dtype)
        return some.flatten(2)


def _not_once(layer: int, what: str, times: int) -> CircuitspecError:
    return CircuitspecError(
        Diagnostic(
            "CS501",
            f"the {what} of layer {layer} ran {times} times in this forward, so nothing was patched there",
            hint="patching needs every site to run exactly once a forward",
        )
    )


class ExpertChoices:
    """What experts and routers of some layers do in one forward: other `forwards` of modules, `edits` at MLPs.

    `recorded` are the values before any patch: of routing `[row, pos, expert]`, of experts `[row, pos, expert *
    d_model]`, the shared one last, of their neurons `[row, pos, expert * d_expert]`.
    """

    def __init__(
        self,
        model: nn.Module,
        rows: int,
        swaps: Mapping[Tap, Swap],
        shifts: Mapping[Tap, Tensor],
        record: Collection[Tap],
        architecture: Architecture,
        shape: ModelShape,
    ) -> None:
        self.forwards: dict[nn.Module, Callable[..., Any]] = {}
        self.edits: dict[Tap, Edit] = {}
        self.recorded: dict[Tap, Tensor] = {}
        self._layers: list[_Layer] = []
        experts = architecture.experts
        assert experts is not None, f"{architecture.title} has no experts"
        named = {*swaps, *shifts, *record}
        if any(tap.kind == "routing" for tap in shifts):
            raise ValueError("nothing is added to what a router chooses")
        for number in sorted({tap.layer for tap in choices_in(named)}):
            layer = _Layer(number, shape.n_experts, shape.has_shared, rows, swaps, shifts, record, self.recorded)
            self._layers.append(layer)
            router = submodule(model, architecture.path(experts.router, number))
            self.forwards[router] = partial(layer.route, router.forward)
            neurons = Tap(number, "expert_neurons") in named
            if neurons or Tap(number, "experts") in named:
                module = submodule(model, architecture.path(experts.module, number))
                self.forwards[module] = watched(module, shape.n_experts, layer.given.append, neurons=neurons)
                self.edits[Tap(number, "mlp")] = layer.change

    def check(self) -> None:
        """CS501 where a router did not run exactly once; of experts that is seen where they are patched."""
        for layer in self._layers:
            if layer.routed != 1:
                raise _not_once(layer.layer, "router", layer.routed)
