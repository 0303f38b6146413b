"""Experiments as plain pyvene interventions, the kind that can be written to a config file.

The engine runs its own intervention class; pyvene's stock ones are slower, but anybody can run them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.batches import Batch, where_mask
from circuitspec.engine.execution.taps import Slot, Tap, label, slots_of
from circuitspec.experiments.experiment import Experiment, Noised, Variant
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.models.families.architecture import Architecture
from circuitspec.prompts.prompt_set import TokenizedTask

# pyvene 0.1.8 loads a config only for model classes in its own table, whatever components the config names
_TABLED = frozenset({"gpt2", "gpt_neox", "llama", "mistral", "qwen2", "gemma2"})
# of those, the ones whose heads and MLP outputs were found right in it; it splits heads by d_model / n_heads
_NAMED = frozenset({"gpt2", "gpt_neox", "llama", "mistral"})

_FIELDS = 14  # of a pyvene representation; those after `max_number_of_units` are None here but for the group
_GROUP = 8


@dataclass(frozen=True)
class PlainPart:
    """One pyvene intervention: a head by pyvene's name, or a whole tensor of which slices may be chosen.

    `name` is what it patches in the words of hypothesis files; `copy` tells apart interventions on the
    same tensor, which patch different slices at different positions.
    """

    name: str
    tap: Tap
    component: str
    unit: str  # "h.pos" or "pos"
    head: int | None
    width: int  # channels that it replaces, unless slices are chosen
    copy: int = 0

    def representation(self) -> list[object]:
        """As pyvene writes it in config.json; one source run serves all interventions (group 0)."""
        fields: list[object] = [self.tap.layer, self.component, self.unit, 1]
        fields += [None] * (_FIELDS - len(fields))
        fields[_GROUP] = 0
        return fields

    def locations(self, positions: list[int]) -> list[object]:
        """Where to patch one prompt, nested as pyvene takes it for a batch of one."""
        return [positions] if self.head is None else [[[self.head]], [positions]]


@dataclass(frozen=True)
class Patch:
    """A part, where it is used in an experiment, and which channels of it (None: all)."""

    part: PlainPart
    where: Where
    channels: tuple[int, ...] | None = None


_NOT_IN_A_BUNDLE: tuple[tuple[Callable[[Experiment], bool], str, str], ...] = (
    (
        lambda e: e.patches_patterns,
        "attention patterns are not written to a bundle: pyvene by itself has no intervention for them",
        "`verify` runs them; a bundle takes heads and key-value heads",
    ),
    (
        lambda e: bool(e.beside),
        "an interchange of several variables is not written to a bundle: its runs have several sources",
        "`verify` runs it; a bundle takes claims about one variable",
    ),
    (
        lambda e: e.patches_subspaces,
        "subspaces are not written to a bundle: its interventions replace whole slices",
        "`verify` runs them; a bundle takes whole components",
    ),
)
"""What a bundle holds none of: which experiments have it, what to say, and what to write instead."""


def check_plain(experiments: Iterable[Experiment], architecture: Architecture) -> None:
    """Raises CS530 for a family that pyvene loads no config for, CS531 for noise, CS500 for edges and paths."""
    problems = []
    experiments = tuple(experiments)
    beyond = sorted({e.level for e in experiments if e.level != "node"})
    if beyond:
        problems.append(
            Diagnostic(
                "CS500",
                f"{' and '.join(beyond)} level is not written to a bundle: pyvene by itself has no intervention for it",
                hint="`verify` runs it; a bundle takes `level: node` and claims about nodes",
            )
        )
    problems += [
        Diagnostic("CS500", message, hint=hint)
        for unwritten, message, hint in _NOT_IN_A_BUNDLE
        if any(unwritten(e) for e in experiments)
    ]
    if architecture.family not in _TABLED:
        problems.append(
            Diagnostic(
                "CS530",
                f"pyvene 0.1.8 has no table of {architecture.title}'s modules, and loads a config for no other family",
                hint=f"bundles can be written for {', '.join(sorted(_TABLED))}; `verify` needs no such table",
                data={"family": architecture.family},
            )
        )
    if any(isinstance(variant, Noised) for e in experiments for variant in e.variants):
        problems.append(
            Diagnostic(
                "CS531",
                "Gaussian noise on the embeddings is not written to a bundle: pyvene's own noise is always the same, "
                "and of four positions",
                hint="ablate to a corruption, a mean or zero",
            )
        )
    unsaid = {e.source.kind for e in experiments if e.source is not None and e.source.row.bundle_form is None}
    problems += [
        Diagnostic(
            "CS531",
            f"the values of {kind} ablation are not written to a bundle: they are no run's own, no means and no zeros",
            hint="ablate to a corruption, a mean or zero",
        )
        for kind in sorted(unsaid)
    ]
    if problems:
        raise CircuitspecError(*problems)


def patches(experiment: Experiment, architecture: Architecture, shape: ModelShape) -> tuple[Patch, ...]:
    """The experiment's sites as pyvene interventions, in the order in which the model computes."""
    slots: dict[tuple[Tap, Where], set[int]] = {}
    for site in experiment.sites:
        for slot in slots_of(site.component, architecture, shape):
            slots.setdefault((slot.tap, site.where), set()).add(slot.unit)
    found: list[Patch] = []
    copies: dict[Tap, int] = {}
    for (tap, where), units in sorted(slots.items(), key=lambda item: (item[0][0], item[0][1].canonical())):
        if _by_name(tap, architecture, shape):
            found += [Patch(part, where) for part in (_named(Slot(tap, unit), shape) for unit in sorted(units))]
            continue
        copy = copies[tap] = copies.get(tap, -1) + 1
        width = tap.width(shape)
        part = PlainPart(label(tap), tap, tap.path(architecture), "pos", None, width, copy)
        size = width // tap.units(shape)
        every = len(units) == tap.units(shape)
        channels = None if every else tuple(c for unit in sorted(units) for c in range(unit * size, (unit + 1) * size))
        found.append(Patch(part, where, channels))
    return tuple(found)


def positions(task: TokenizedTask, prompt: int, where: Where, variant: Variant) -> list[int]:
    """The tokens of one unpadded prompt of a variant that `where` names."""
    length = task.lengths[prompt]
    mask = where_mask(task, Batch((prompt,), (length,), length, "right"), where, torch.device("cpu"), variant)
    return [int(p) for p in mask[0].nonzero().flatten()]


def _by_name(tap: Tap, architecture: Architecture, shape: ModelShape) -> bool:
    """Whether pyvene's own component is exactly this tap's unit."""
    if architecture.family not in _NAMED:
        return False
    return tap.kind == "mlp" or (tap.kind == "z" and shape.n_heads * shape.d_head == shape.d_model)


def _named(slot: Slot, shape: ModelShape) -> PlainPart:
    tap = slot.tap
    if tap.kind == "mlp":
        return PlainPart(label(tap), tap, "mlp_output", "pos", None, shape.d_model)
    name = f"{label(tap)}.h{slot.unit}"
    return PlainPart(name, tap, "head_attention_value_output", "h.pos", slot.unit, shape.d_head_of(tap.layer))


def config(parts: Iterable[PlainPart]) -> Mapping[str, object]:
    """What pyvene's `IntervenableModel.load` reads from config.json."""
    every = list(parts)
    return {
        "mode": "parallel",
        "representations": [part.representation() for part in every],
        "intervention_types": ["<class 'pyvene.models.interventions.VanillaIntervention'>"] * len(every),
        "intervention_dimensions": [part.width for part in every],
        "intervention_constant_sources": [False] * len(every),
        "sorted_keys": None,
    }
