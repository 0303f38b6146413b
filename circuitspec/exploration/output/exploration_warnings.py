"""What an exploration warns of: effects that estimates missed, and what was not looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from circuitspec.analysis.statistics.wording import number, plural
from circuitspec.analysis.warnings.evidence import EvidenceWarning
from circuitspec.exploration.exploration_findings import Circuit, ExplorationFindings
from circuitspec.exploration.search.component_sweep import MATERIAL, Effect
from circuitspec.exploration.search.path_search import Link
from circuitspec.exploration.setting import places_of
from circuitspec.hypothesis_file.grammar.names import format_name

SHOWN = 5
_REMEDIES = (
    "--recompute-attention and --steps 10 mend estimates through saturated attention, --drop-gradients finds effects "
    "that cancel, --start resid needs no estimates"
)


def exploration_warnings(found: ExplorationFindings) -> tuple[EvidenceWarning, ...]:
    paths = (*_missed_paths(found), *_drawn_paths(found))
    return (*_empty(found), *_short(found), *_missed(found), *_drawn(found), *paths, *_spent(found), *found.not_done)


def nothing_in(found: ExplorationFindings, circuit: Circuit) -> str:
    """Why a circuit has no members: nothing moves the metric, or it is no worse with all that does ablated."""
    said = f"with all of it ablated {number(circuit.recovered)} is recovered"
    if all(effect.size < MATERIAL for effect in found.sweep.exact):
        return f"nothing that was swept changes {found.metric} by {MATERIAL:g} or more of clean - corrupt; {said}"
    enough = f"the target of {found.target:g} is met by nothing"
    why = enough if circuit.recovered >= found.target else "nothing was found whose return helps"
    return f"of what was swept nothing is in the circuit {circuit.kind}: {said}, and {why}"


def _empty(found: ExplorationFindings) -> Iterator[EvidenceWarning]:
    """CS414: a circuit without members, of which there is no draft; once for all that are empty for one reason."""
    empty = {nothing_in(found, circuit): circuit for circuit in reversed(found.circuits) if circuit.is_empty}
    for why, circuit in reversed(empty.items()):
        enough = circuit.recovered >= found.target
        yield EvidenceWarning(
            "CS414",
            why,
            "so there is nothing to claim, and no draft: "
            + (
                "what is free, or reads the embeddings directly, does the task"
                if enough
                else "what does the task was not found, or passes no component that was swept"
            ),
            "leave less free (--free), corrupt other slots, or take another --metric"
            if enough
            else f"raise --exact or --max-forwards, or leave less free (--free); {_REMEDIES}",
            {"circuit": circuit.kind, "recovered": circuit.recovered, "left": circuit.knocked_out},
        )


def _short(found: ExplorationFindings) -> Iterator[EvidenceWarning]:
    """CS413: a drafted circuit misses the target, or the claims that its draft makes."""
    for circuit in found.circuits:
        if circuit.draft.misses and not circuit.is_empty:
            yield EvidenceWarning(
                "CS413",
                f"the circuit {circuit.kind} falls short: {'; '.join(circuit.draft.misses)}",
                "drafts claim the same whatever their circuit does, so that `verify` refutes one that does not do it",
                "raise --exact or --max-forwards; or free what the circuit cannot do without, such as --free 'm*'",
                {"circuit": circuit.kind, "recovered": circuit.recovered, "left": circuit.knocked_out},
            )


def _missed(found: ExplorationFindings) -> Iterator[EvidenceWarning]:
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


def _drawn(found: ExplorationFindings) -> Iterator[EvidenceWarning]:
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


def _missed_paths(found: ExplorationFindings) -> Iterator[EvidenceWarning]:
    """CS410: as of components."""
    missed = found.links.missed
    if missed:
        yield EvidenceWarning(
            "CS410",
            f"estimates missed {plural(len(missed), 'path')} of those that were patched exactly: "
            f"{_named_paths(found, missed)}",
            "first-order estimates of edges miss what passes saturated attention, and see nothing that passes MLPs",
            "--recompute-attention mends estimates through saturated attention; or raise --paths",
            {"paths": [_path_data(found, link) for link in missed]},
        )


def _drawn_paths(found: ExplorationFindings) -> Iterator[EvidenceWarning]:
    """CS411: as of components."""
    drawn = found.links.drawn
    if drawn is not None and drawn.mattering:
        yield EvidenceWarning(
            "CS411",
            f"of {drawn.count} paths drawn at random from the {drawn.population} with the smallest estimates, "
            f"{len(drawn.mattering)} do at least {MATERIAL:g} of the whole effect: "
            f"{_named_paths(found, drawn.mattering)}",
            f"so up to {drawn.at_most:.0%} of those {drawn.population} may matter (95 % confidence)",
            "raise --paths; --recompute-attention mends estimates through saturated attention",
            {
                "drawn": drawn.count,
                "population": drawn.population,
                "at_most": drawn.at_most,
                "paths": [_path_data(found, link) for link in drawn.mattering],
            },
        )


def _named_paths(found: ExplorationFindings, links: Sequence[Link]) -> str:
    shown = [
        f"{found.links.name_of(one)} ({number(one.drop)} ablated, {number(one.rise)} restored; estimated "
        f"{number(one.drop_estimate)} and {number(one.rise_estimate)})"
        for one in links[:SHOWN]
    ]
    return ", ".join(shown) + (f" and {len(links) - SHOWN} more" if len(links) > SHOWN else "")


def _path_data(found: ExplorationFindings, link: Link) -> dict[str, object]:
    return {
        "path": found.links.name_of(link),
        "drop": link.drop,
        "rise": link.rise,
        "drop_estimate": link.drop_estimate,
        "rise_estimate": link.rise_estimate,
    }


def _spent(found: ExplorationFindings) -> Iterator[EvidenceWarning]:
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
        f"{format_name(e.component)}@{','.join(places_of(e.where))} ({number(e.drop)} ablated, {number(e.rise)} "
        f"restored; estimated {number(e.drop_estimate)} and {number(e.rise_estimate)})"
        for e in effects[:SHOWN]
    ]
    return ", ".join(shown) + (f" and {len(effects) - SHOWN} more" if len(effects) > SHOWN else "")


def _data(effect: Effect) -> dict[str, object]:
    return {
        "component": format_name(effect.component),
        "position": ",".join(places_of(effect.where)),
        "drop": effect.drop,
        "rise": effect.rise,
        "drop_estimate": effect.drop_estimate,
        "rise_estimate": effect.rise_estimate,
    }
