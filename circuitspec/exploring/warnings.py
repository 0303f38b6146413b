"""What an exploration warns of: effects that estimates missed, and what was not looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from circuitspec.analysis.warnings import EvidenceWarning
from circuitspec.analysis.wording import number, plural
from circuitspec.exploring.findings import Findings
from circuitspec.exploring.sweep import MATERIAL, Effect
from circuitspec.spec.names import format_name

SHOWN = 5
_REMEDIES = (
    "--recompute-attention and --steps 10 mend estimates through saturated attention, --drop-gradients finds effects "
    "that cancel, --start resid needs no estimates"
)


def exploration_warnings(found: Findings) -> tuple[EvidenceWarning, ...]:
    return (*_short(found), *_missed(found), *_drawn(found), *_spent(found))


def _short(found: Findings) -> Iterator[EvidenceWarning]:
    """CS413: a drafted circuit misses the target, or the claims that its draft makes."""
    for circuit in found.circuits:
        if circuit.draft.misses:
            yield EvidenceWarning(
                "CS413",
                f"the circuit {circuit.kind} falls short: {'; '.join(circuit.draft.misses)}",
                "drafts claim the same whatever their circuit does, so that `verify` refutes one that does not do it",
                "raise --exact or --max-forwards; or free what the circuit cannot do without, such as --free 'm*'",
                {"circuit": circuit.kind, "recovered": circuit.recovered, "left": circuit.knocked_out},
            )


def _missed(found: Findings) -> Iterator[EvidenceWarning]:
    """CS410: the exact effect is large, and the estimate next to nothing."""
    missed = found.sweep.missed
    if missed:
        yield EvidenceWarning(
            "CS410",
            f"estimates missed {plural(len(missed), 'effect')} of those that were patched exactly: {_named(missed)}",
            "first-order estimates miss what passes saturated attention, and direct effects that later layers undo",
            f"{_REMEDIES}; or raise --exact",
            {"effects": [_data(effect) for effect in missed]},
        )


def _drawn(found: Findings) -> Iterator[EvidenceWarning]:
    """CS411: among components with small estimates, some of a random sample matter."""
    drawn = found.sweep.drawn
    if drawn is not None and drawn.mattering:
        yield EvidenceWarning(
            "CS411",
            f"of {drawn.count} components drawn at random from the {drawn.population} with the smallest estimates, "
            f"{len(drawn.mattering)} do at least {MATERIAL:g} of the whole effect: {_named(drawn.mattering)}",
            f"so up to {drawn.at_most:.0%} of those {drawn.population} may matter (95 % confidence)",
            f"raise --exact; {_REMEDIES}",
            {
                "drawn": drawn.count,
                "population": drawn.population,
                "at_most": drawn.at_most,
                "effects": [_data(effect) for effect in drawn.mattering],
            },
        )


def _spent(found: Findings) -> Iterator[EvidenceWarning]:
    """CS412: the allowance ended before everything that was asked for was looked at."""
    cut = [one for one in found.unseen if one.spent]
    if cut:
        yield EvidenceWarning(
            "CS412",
            f"{cut[0].why}; not looked at: {'; '.join(one.counted for one in cut)}",
            "what was not looked at may matter",
            "run again with a higher --max-forwards; what is in the store costs nothing",
            {"unseen": [{"what": one.what, "count": one.count, "of": one.of} for one in cut]},
        )


def _named(effects: Sequence[Effect]) -> str:
    shown = [
        f"{format_name(e.component)}@{','.join(sorted(e.where.roles))} ({number(e.drop)} noised, {number(e.rise)} "
        f"restored; estimated {number(e.drop_estimate)} and {number(e.rise_estimate)})"
        for e in effects[:SHOWN]
    ]
    return ", ".join(shown) + (f" and {len(effects) - SHOWN} more" if len(effects) > SHOWN else "")


def _data(effect: Effect) -> dict[str, object]:
    return {
        "component": format_name(effect.component),
        "position": ",".join(sorted(effect.where.roles)),
        "drop": effect.drop,
        "rise": effect.rise,
        "drop_estimate": effect.drop_estimate,
        "rise_estimate": effect.rise_estimate,
    }
