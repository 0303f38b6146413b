"""Families that a user's own packages register, by entry points of the group `circuitspec.families`.

    [project.entry-points."circuitspec.families"]
    newmodel = "mypackage.families:NEWMODEL"

The name is the family's `model_type`, the value an `Architecture`. They are looked up where the table of this package
has no such family, and reports name the package that they are from. Imports no torch.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, TypeVar

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

GROUP = "circuitspec.families"

Entry = TypeVar("Entry", bound="DataclassInstance")
"""An `Architecture`, whose module reads this one."""


def registered(family: str, kind: type[Entry]) -> Entry | None:
    """What a package registers for this family; None where none does.

    Raises CS397 where several do, or where it is no `Architecture` of this family.
    """
    found = {point.value: point for point in entry_points(group=GROUP, name=family)}
    if not found:
        return None
    if len(found) > 1:
        raise _unfit(family, f"{len(found)} packages register it: {', '.join(sorted(map(_package, found.values())))}")
    (point,) = found.values()
    try:
        entry = point.load()
    except Exception as error:  # whatever importing another's package raises
        said = f"{_package(point)} registers {point.value}, which cannot be loaded: {type(error).__name__}: {error}"
        raise _unfit(family, said) from error
    if not isinstance(entry, kind):
        raise _unfit(family, f"{_package(point)} registers {point.value}, which is no Architecture")
    own = getattr(entry, "family", None)
    if own != family:
        raise _unfit(family, f"{_package(point)} registers {point.value}, whose `family` is {own!r}")
    title = getattr(entry, "title", family)
    return replace(entry, title=f"{title} (an entry of {_package(point)})")


def _package(point: EntryPoint) -> str:
    """`mypackage 1.0`"""
    return "a package" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _unfit(family: str, said: str) -> CircuitspecError:
    return CircuitspecError(
        Diagnostic(
            "CS397",
            f"the family {family!r} is registered by an entry point that cannot be used: {said}",
            hint=f"one entry point of the group {GROUP} names it, and leads to an Architecture with family={family!r}",
        )
    )
