"""Which variables take their values in which sources, and the names that pairs go by among a task's variants.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from circuitspec.hypothesis_file.schema.abstraction.abstraction_block import AbstractionSpec
from circuitspec.hypothesis_file.schema.abstraction.interchange_block import AboutVariables, Interchange
from circuitspec.hypothesis_file.schema.claims.written_claim import Claim

Setting: TypeAlias = tuple[tuple[str, str], ...]
"""Variables, each with the family of pairs whose source it takes its value from."""

_PREFIX = "pairs:"  # no corruption has a colon in its name


def settings_of(claim: AboutVariables, spec: AbstractionSpec) -> tuple[Setting, ...]:
    """The interventions that a claim is judged by, one for each family or, of several variables, a single one."""
    if isinstance(claim, Interchange) and claim.variables is not None:
        return (tuple(claim.variables.items()),)
    families = tuple(spec.pairs) if claim.pairs is None else claim.pairs
    return tuple(tuple((name, family) for name, _ in claim.set_together) for family in families)


def all_settings(claims: Iterable[Claim], spec: AbstractionSpec | None) -> tuple[Setting, ...]:
    """Those of all claims, each once."""
    if spec is None:
        return ()
    found = [one for claim in claims if isinstance(claim, AboutVariables) for one in settings_of(claim, spec)]
    return tuple(dict.fromkeys(found))


def families_of(setting: Setting) -> tuple[str, ...]:
    """The families that it takes values from, each once."""
    return tuple(dict.fromkeys(family for _, family in setting))


def source_variant(family: str) -> str:
    """The variant of the prompts that are the family's sources, scored by their own answers."""
    return f"{_PREFIX}{family}"


def is_of_pairs(variant: str) -> bool:
    """Whether it is a family's sources, or the base prompts scored by what an intervention asks for."""
    return variant.startswith(_PREFIX)


def scored_as(setting: Setting) -> str:
    """The variant whose answers are those of the high-level model under this intervention on the base prompts."""
    if len(setting) == 1:
        ((variable, family),) = setting
        return f"{_PREFIX}{family}={variable}"
    return _PREFIX + ",".join(f"{family}={variable}" for variable, family in setting)


def scored_as_base(setting: Setting) -> str:
    """The variant whose answers are those to the base prompts themselves, among the same candidates."""
    if len(setting) == 1:
        return f"{source_variant(setting[0][1])}=base prompt"
    return f"{scored_as(setting)}=base prompt"


def in_words(setting: Setting) -> str:
    """`position from reversed, answer from other_names`."""
    return ", ".join(f"{variable} from {family}" for variable, family in setting)
