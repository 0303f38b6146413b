"""What can be patched in a model of a family, and in which tensor. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from circuitspec.engine.execution.taps import TAPS, Tap
from circuitspec.graph.shape import LatentWidths, ModelShape
from circuitspec.hypothesis_file.grammar.component_kinds import MIXER
from circuitspec.hypothesis_file.grammar.components import IN_LAYERS, WHOLE, Mixer
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.models.families.architecture import Architecture, LatentQKV
from circuitspec.models.model_config import lacking


@dataclass(frozen=True)
class Granularity:
    """One size of component: what it is called, how one is written, and the pyvene components it is a part of.

    `tensors` are those of layer `layer`; they are empty where the family has none, and `why_not` says why. `rare` ones
    are there in few families.
    """

    name: str
    example: str
    tensors: tuple[str, ...]
    why_not: str = ""
    rare: bool = False


def granularities(architecture: Architecture, layer: int = 0) -> tuple[Granularity, ...]:
    """Every size of component of a layer with heads, those that the family does not have among them."""
    sequential = architecture.residual == "sequential"
    smallest = ModelShape(architecture.family, layer + 1, 1, 1, 1, 1, 1, 1, has_resid_mid=sequential)
    if architecture.experts is not None:
        shared = architecture.experts.shared is not None
        smallest = replace(smallest, d_mlp=0, n_experts=1, d_expert=1, has_shared=shared, d_shared=int(shared))
    smallest = replace(smallest, query_gates=architecture.query_gates, paired_heads=architecture.paired_heads)
    if isinstance(architecture.qkv, LatentQKV):
        smallest = replace(smallest, latent=LatentWidths(1, 1, 1))
    smallest = replace(smallest, absent=lacking(architecture))
    in_layers = [make(layer, 0) for kind, make in IN_LAYERS.items() if not kind.in_place_of]
    components = [*in_layers, *WHOLE.values()]
    found = []
    for component in components:
        kind = component.kind
        slots = TAPS[kind.stands_for or kind].slots if kind.stands_for or kind.is_patched else None
        if slots is None:
            continue
        absent = kind.why_absent(smallest.counts, layer)
        given = [slot.tap for slot in slots(layer, 0, architecture, smallest)] if absent is None else []
        taps = [tap for one in given for tap in one.acts_at(architecture)]
        tensors = tuple(dict.fromkeys(tap.path(architecture) for tap in taps))
        why_not = "" if absent is None else absent[0]
        found.append(Granularity(kind.title, format_name(component), tensors, why_not, kind.in_some_models))
    return tuple(found)


def worth_saying(architecture: Architecture) -> tuple[Granularity, ...]:
    """The same without rare ones that the family does not have; and mixers, where some layers have them."""
    found = [one for one in granularities(architecture) if one.tensors or not one.rare]
    if architecture.mixers is not None:
        tensors = (Tap(0, "mixer").path(architecture),)
        found.append(Granularity(MIXER.title, format_name(Mixer(0)), tensors, rare=True))
    return tuple(found)
