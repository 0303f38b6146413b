"""What a drafted file says of the stability of its circuit, in comments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from circuitspec.analysis.statistics.wording import briefly
from circuitspec.exploration.stability.circuit_stability import Stability


@dataclass(frozen=True)
class Remarks:
    """Lines of a draft's header, and words `beside` its members, by component and position."""

    header: tuple[str, ...] = ()
    beside: Mapping[tuple[str, str], str] = field(default_factory=dict)


def remarks_on(found: Stability, kind: str) -> Remarks:
    """What a draft says of it: at its head what subsets recover, and beside each member how often it was chosen."""
    (own,) = (one for one in found.circuits if one.kind == kind)
    head = [f"The search was repeated on {found.halves} random halves of its {found.n_prompts} prompts: beside each"]
    head.append("member stands in how many of these its circuit has it. On " + found.judged_on + ":")
    for subset in own.subsets:
        head.append(f"{subset.what}, {len(subset.entries)} of these: recovered {briefly(subset.recovered)}")
    missing = [f"{c}@{role}" for (c, role), one in own.entries.items() if one.standing == "core" and not one.drafted]
    head += [f"Core, and not in this circuit: {', '.join(missing)}"] if missing else []
    beside = {name: f"{one.spoken} ({one.standing})" for name, one in own.entries.items() if one.drafted}
    return Remarks(tuple(head), beside)
