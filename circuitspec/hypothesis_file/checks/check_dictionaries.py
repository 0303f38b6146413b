"""Checks of dictionaries: each of a place of its own, and every feature of one that is declared."""

from __future__ import annotations

from collections.abc import Iterator

from circuitspec.hypothesis_file.checks.scope import Scope, meant
from circuitspec.hypothesis_file.grammar.components import OF_DICTIONARY, DictionaryError, FeaturePattern
from circuitspec.hypothesis_file.grammar.names import is_group_name, parse_name
from circuitspec.hypothesis_file.yaml.source import Path_


def check_dictionaries(scope: Scope) -> None:
    """Note two dictionaries of one place, features of none, errors that are left out, and features where edges or paths
    are cut."""
    places: dict[str, str] = {}
    for name, spec in scope.parts.dictionaries.items():
        place = spec.at.replace("z", "a")  # both are of a layer's heads
        if place in places:
            message = f"{name} takes apart {spec.at}, as {places[place]} does"
            scope.add("CS182", message, ("dictionaries", name, "at"), hint="declare one dictionary for each place")
        places.setdefault(place, name)
    known = scope.declared("dictionaries")
    left_out = {name for name, spec in scope.parts.dictionaries.items() if spec.error == "remove"}
    level = None if scope.parts.ablation is None else scope.parts.ablation.level
    for path, text in _nodes(scope):
        target = parse_name(text).target
        if not isinstance(target, (*OF_DICTIONARY, FeaturePattern)):
            continue
        if target.dictionary not in known:
            name = target.dictionary
            hint = meant(name, known, f"declare it: dictionaries: {{{name}: {{at: r8, from: DIR}}}}")
            scope.add("CS183", f"there is no dictionary {name}", path, hint=hint)
        elif isinstance(target, DictionaryError) and target.dictionary in left_out:
            said = f"{text} is named, and dictionaries.{target.dictionary} says `error: remove`: there is none"
            scope.add("CS199", said, path, hint="write error: ablate, so that the circuit may have it inside")
        elif level in ("edge", "path"):
            said = f"at {level} level heads and MLPs are cut apart, and no features"
            scope.add("CS180", said, path, hint="write level: node")


def _nodes(scope: Scope) -> Iterator[tuple[Path_, str]]:
    """Every node that groups, `free` and claims name, and where."""
    circuit = scope.parts.circuit
    if circuit is not None:
        for group, block in circuit.groups.items():
            yield from ((("circuit", "groups", group, "nodes", i), text) for i, text in enumerate(block.nodes))
        yield from ((("circuit", "free", i), text) for i, text in enumerate(circuit.free))
    for i, claim in enumerate(scope.parts.claims):
        for place, text in claim.named_nodes():
            if not is_group_name(text):
                yield ("claims", i, claim.kind, *place), text
