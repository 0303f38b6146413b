"""Declared paths and edges that do nothing, or that the model does not have."""

from __future__ import annotations

from circuitspec.analysis.statistics.plain_data import estimate_data
from circuitspec.analysis.statistics.scores import MATERIAL
from circuitspec.analysis.statistics.wording import falls, rises, with_interval
from circuitspec.analysis.warnings.evidence import Evidence, EvidenceWarning, WarningKind

_NAMED = 8  # components named in a message; all of them are in the data


def idle_paths(evidence: Evidence) -> list[EvidenceWarning]:
    """CS406: declared paths that by themselves neither break the clean run nor restore anything in the corrupt one."""
    return [
        EvidenceWarning(
            "CS406",
            f"the path {effect.path} has no effect by itself",
            "; ".join(
                f"{done}, {effect.metric} {verb} by {with_interval(found, bounds=(-MATERIAL, MATERIAL))}"
                for done, verb, found in (
                    ("ablated", falls(effect.metric), effect.drop),
                    ("restored in the corrupt run", rises(effect.metric), effect.rise),
                )
                if found is not None
            ),
            "take it out, or say what compensates for it: paths in parallel (OR, backup) hide each other's effect",
            {
                "path": effect.path,
                "metric": effect.metric,
                "drop": None if effect.drop is None else estimate_data(effect.drop),
                "rise": None if effect.rise is None else estimate_data(effect.rise),
            },
        )
        for effect in evidence.paths
        if effect.is_idle(MATERIAL)
    ]


IDLE_PATHS = WarningKind(
    "CS406",
    ("circuit", "paths"),
    "a declared path without effect",
    "Ablated by itself in the clean run, the path does not lower the score, and restored by itself in the corrupt "
    "run it does not raise it (both surely within 0.01 of the difference between the two runs). Either it is no "
    "part of the circuit, or something compensates for it: of two paths in parallel (OR, backup) neither shows when "
    "patched alone. Take it out, or show with a `path` claim over both that together they matter.",
    idle_paths,
)


def unfed_senders(evidence: Evidence) -> list[EvidenceWarning]:
    """CS407: components of the circuit into which no edge is kept give the source's values, declared or not."""
    unfed = evidence.unfed
    if not unfed:
        return []
    named = ", ".join(unfed[:_NAMED]) + (f" and {len(unfed) - _NAMED} more" if len(unfed) > _NAMED else "")
    return [
        EvidenceWarning(
            "CS407",
            f"no kept edge leads into {named}",
            "at edge level a component computes from the edges that are kept; from none it computes what it does in "
            "the source's run, so that the edges that leave it carry nothing",
            "declare what feeds it, down to the embeddings: `input -> NAME<q,k,v>`",
            {"components": list(unfed)},
        )
    ]


UNFED_SENDERS = WarningKind(
    "CS407",
    ("circuit", "paths"),
    "a component of the circuit that nothing feeds",
    "At edge level exactly the declared edges carry the clean run's values. A head or MLP into which none is "
    "declared computes from the source's values alone, so its own edges bring nothing, whatever the component "
    "does in the model. Declare its inputs too, down to `input -> NAME<q,k,v>`.",
    unfed_senders,
)


def edges_that_are_none(evidence: Evidence) -> list[EvidenceWarning]:
    """CS408: neighbours on a path, declared or claimed, that share no position.

    Pairs against the order of layers are no news: a group that leads to a group names all their pairs, and means
    those that the order allows.
    """
    apart = [pair for pair in evidence.plan.impossible if not pair.out_of_order]
    if not apart:
        return []
    named = list(dict.fromkeys(f"{pair.sender} -> {pair.receiver}" for pair in apart))
    claimed = any(pair.place[:1] == ("claims",) for pair in apart)
    frozen = "; at the end of a claim's path what nothing reaches reads what it does in the base run" if claimed else ""
    shown = ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")
    return [
        EvidenceWarning(
            "CS408",
            f"paths name what is no edge: {shown}",
            f"{apart[0].sender} {apart[0].reason}, so that nothing is kept between the two{frozen}",
            "give both ends a common position, or name only those that share one; `circuitspec plan` lists all",
            {"pairs": named},
        )
    ]


EDGES_THAT_ARE_NONE = WarningKind(
    "CS408",
    ("circuit", "paths"),
    "a declared pair that is no edge",
    "An edge lies where its sender writes and its receiver reads. These two share no position in any prompt, so "
    "that nothing goes from the one to the other: a query or an MLP reads at other positions, a head's keys and "
    "values come after it, or the logits are read at another token. On a claim's own path a receiver that nothing "
    "reaches reads what it does in the base run, while the others read what arrives. Positions are compared by "
    "name: two names are two positions, also in prompts in which they fall on one token, and the message says so. "
    "Give both ends a common position, or split the groups so that a path names only those that share one.",
    edges_that_are_none,
)


def overruled_paths(evidence: Evidence) -> list[EvidenceWarning]:
    """CS409: paths through a component from which another path starts, so that it has its whole value anyway."""
    plan = evidence.plan
    if not plan.overruled:
        return []
    named = ", ".join(plan.overruled[:_NAMED])
    named += f" and {len(plan.overruled) - _NAMED} more" if len(plan.overruled) > _NAMED else ""
    return [
        EvidenceWarning(
            "CS409",
            f"paths into {named} add nothing",
            "another path starts there and goes on in the same way; a start has the component's whole value, whatever "
            "else leads to it",
            "take out the path that starts there, or those that lead into it",
            {"components": list(plan.overruled)},
        )
    ]


OVERRULED_PATHS = WarningKind(
    "CS409",
    ("circuit", "paths"),
    "a declared path that adds nothing",
    "At path level a component has its whole kept value where a path starts, and what the paths into it bring "
    "where it stands in the middle of one. Here it does both before the same rest of a path: with `A -> B -> "
    "logits` and `B -> logits`, B sends all of its own value to the logits, and the path from A changes nothing. "
    "To say that A acts through B keep the first; to say that B acts by whatever feeds it keep the second.",
    overruled_paths,
)


PATH_WARNINGS = (IDLE_PATHS, UNFED_SENDERS, EDGES_THAT_ARE_NONE, OVERRULED_PATHS)
