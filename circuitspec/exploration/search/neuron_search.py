"""MLPs of a circuit as the few neurons of them that do what the MLP does, where a few do."""

from __future__ import annotations

from dataclasses import dataclass, field

from circuitspec.exploration.search.circuit_selection import Choice, Entry
from circuitspec.exploration.search.component_sweep import MATERIAL
from circuitspec.exploration.setting import where_of
from circuitspec.hypothesis_file.grammar.component_kinds import NEURON
from circuitspec.hypothesis_file.grammar.components import Mlp, Neuron, all_of, sort_key

MOST = 16  # neurons at a position that stand for an MLP


@dataclass
class Refined:
    """A circuit with neurons in place of MLPs: which of each MLP, and what each does by itself (drop, rise)."""

    choice: Choice
    neurons: dict[Mlp, tuple[Neuron, ...]] = field(default_factory=dict)
    sizes: dict[Entry, tuple[float, float]] = field(default_factory=dict)


def refine(choice: Choice) -> Refined:
    """Every MLP of the circuit as its strongest neurons, as few as do what it does; one of which 16 do not stays whole.

    All its neurons are patched one by one at its positions, noising and denoising. Some do what the MLP does where
    neither what the circuit recovers nor what is left without it is more than 0.05 off. Raises AllowanceSpent.
    """
    found = Refined(choice)
    for mlp in sorted({c for c, _ in choice.entries if isinstance(c, Mlp)}, key=sort_key):
        _refine_one(found, mlp)
    return found


def _refine_one(found: Refined, mlp: Mlp) -> None:
    choice, setting = found.choice, found.choice.setting
    roles = {role: kind for (component, role), kind in choice.entries.items() if component == mlp}
    every = all_of(NEURON, mlp.layer, setting.runner.loaded.shape.counts)
    neurons = [neuron for neuron in every if isinstance(neuron, Neuron)]
    wheres = {role: where_of(role) for role in roles}
    setting.run(
        run
        for n in neurons
        for where in wheres.values()
        for run in (setting.ablated(n, where), setting.denoised(n, where))
    )
    sizes: dict[Entry, tuple[float, float]] = {
        (n, role): (setting.drop(n, where), setting.rise(n, where)) for n in neurons for role, where in wheres.items()
    }
    ranked = {role: sorted(neurons, key=lambda n: (-max(map(abs, sizes[n, role])), n.index)) for role in roles}
    recovered, left = setting.share(setting.sufficiency(choice.kept)), choice.knocked_out()
    for count in range(1, min(MOST, len(neurons)) + 1):
        chosen = {(n, role): kind for role, kind in roles.items() for n in ranked[role][:count]}
        entries: dict[Entry, str] = {}
        for entry, kind in choice.entries.items():
            if entry[0] != mlp:
                entries[entry] = kind
            else:
                entries |= {one: kind for one, kind in chosen.items() if one[1] == entry[1]}
        smaller = Choice(setting, entries)
        off = abs(setting.share(setting.sufficiency(smaller.kept)) - recovered)
        if off <= MATERIAL and abs(smaller.knocked_out() - left) <= MATERIAL:
            refined = Choice(setting, entries, choice.tried, choice.spared, choice.unproven, choice.stopped)
            refined.settle()
            found.choice = refined
            found.neurons[mlp] = tuple(sorted({n for n, _ in chosen}, key=sort_key))
            found.sizes |= {entry: sizes[entry] for entry in chosen}
            return
