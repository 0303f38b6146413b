"""What an exploration found, as tables: a row is an experiment, a component or a circuit."""

from __future__ import annotations

import pandas as pd

from circuitspec.exploration.exploration_findings import ExplorationFindings
from circuitspec.exploration.output.stability_output import stability_frame
from circuitspec.exploration.setting import places_of
from circuitspec.hypothesis_file.grammar.names import format_name

NAMES = ("effects", "frontier", "links", "sweeps", "gates", "cross-sections", "traces", "stability", "not-looked-at")


def tables(found: ExplorationFindings) -> dict[str, pd.DataFrame]:
    """By file name without its ending; those about what was not done are left out."""
    made = {"effects": effects_frame(found), "frontier": frontier_frame(found), "links": links_frame(found)}
    if found.grids:
        made["sweeps"] = sweeps_frame(found)
    if found.gates:
        made["gates"] = gates_frame(found)
    if found.sections:
        made["cross-sections"] = sections_frame(found)
    if found.traces is not None:
        made["traces"] = traces_frame(found)
    if found.stability is not None:
        made["stability"] = stability_frame(found.stability)
    if found.unseen:
        made["not-looked-at"] = unseen_frame(found)
    return made


def effects_frame(found: ExplorationFindings) -> pd.DataFrame:
    """One row per component and position: estimates and exact effects, as shares of clean - corrupt, and on how many
    prompts each of the exact ones was measured.
    """
    columns = ["component", "position", "drop", "rise", "drop_estimate", "rise_estimate", "magnitude"]
    columns += ["drop_prompts", "rise_prompts"]
    rows = [
        (
            format_name(e.component),
            ",".join(places_of(e.where)),
            e.drop,
            e.rise,
            e.drop_estimate,
            e.rise_estimate,
            e.magnitude,
            *(None if e.drop is None else found.n_prompts if by is None else by for by in e.prompts),
        )
        for e in found.sweep.effects
    ]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[2:], "float64"))


def frontier_frame(found: ExplorationFindings) -> pd.DataFrame:
    """One row per circuit that was tried; `pareto`: none that was tried is both smaller and closer to the model."""
    return pd.DataFrame(
        [
            {"circuit": circuit.kind, "entries": p.entries, "heads": p.heads, "recovered": p.recovered.value}
            | {"low": p.recovered.low, "high": p.recovered.high, "pareto": p.pareto}
            for circuit in found.circuits
            for p in circuit.frontier
        ]
    )


def gates_frame(found: ExplorationFindings) -> pd.DataFrame:
    """One row per two members and direction: what each does alone and both together, and their interaction with its CI.

    Shares of clean - corrupt; the interaction is what they do alone, added up, less what both do, as a share of it.
    """
    rows = []
    for pair in found.gates:
        for direction, measured in (("noising", pair.finding.noising), ("denoising", pair.finding.denoising)):
            between = measured.interaction
            rows.append(
                {
                    "first": format_name(pair.first),
                    "second": format_name(pair.second),
                    "direction": direction,
                    "first_alone": measured.first,
                    "second_alone": measured.second,
                    "both": measured.both,
                    "interaction": None if between is None else between.value,
                    "low": None if between is None else between.low,
                    "high": None if between is None else between.high,
                    "gate": pair.finding.kind,
                }
            )
    return pd.DataFrame(rows).astype(dict.fromkeys(("interaction", "low", "high"), "float64"))


def links_frame(found: ExplorationFindings) -> pd.DataFrame:
    """One row per direct path between members that was patched."""
    return pd.DataFrame(
        [
            {"sender": sender, "receiver": receiver, "drop": link.drop, "rise": link.rise}
            | {"drop_estimate": link.drop_estimate, "rise_estimate": link.rise_estimate}
            | {
                f"{name}_prompts": by or found.n_prompts
                for name, by in zip(("drop", "rise"), link.prompts, strict=True)
            }
            for link, (sender, receiver) in zip(found.links.found, found.links.names, strict=True)
        ]
    )


def sections_frame(found: ExplorationFindings) -> pd.DataFrame:
    """One row per cross-section that was restored, or per component that adds to it on top.

    `recovered` with its interval is the section's alone; `change` is what the component `missing` changes in that, both
    as shares of clean - corrupt, and `standing` whether it is a member. `tried` is how many were.
    """
    rows = []
    for sections in found.sections:
        for number, section in enumerate(sections.found, 1):
            own = {
                "circuit": sections.circuit,
                "number": number,
                "section": section.name,
                "recovered": section.recovered.value,
                "low": section.recovered.low,
                "high": section.recovered.high,
                "restores": section.restores,
                "tried": section.tried,
            }
            beside = [{"missing": one.name, "change": one.change, "standing": one.standing} for one in section.missing]
            rows += [own | one for one in beside or [{}]]
    columns = ["circuit", "number", "section", "recovered", "low", "high", "restores", "tried"]
    frame = pd.DataFrame(rows, columns=[*columns, "missing", "change", "standing"])
    return frame.astype({**dict.fromkeys(("low", "high", "change"), "float64"), "tried": "Int64"})


def sweeps_frame(found: ExplorationFindings) -> pd.DataFrame:
    """One row per experiment of a sweep: what was patched with what, and every metric's mean.

    `change` is that of the exploration's metric against the unpatched run, `share` the effect as a share of clean -
    corrupt (missing where the corruption does not break the behaviour).
    """
    return pd.DataFrame(
        [
            {
                "sweep": "coarse to fine" if grid.coarse_to_fine else "all",
                "kind": cell.spot.kind,
                "component": cell.spot.name,
                "layer": cell.spot.target.place[0],
                "position": grid.wheres[cell.spot.where],
                "direction": cell.series.direction,
                "value": cell.series.value,
                "corruption": cell.series.corruption,
                "base": str(cell.series.base.base),
                "source": str(cell.series.source),
                "change": cell.change,
                "share": float("nan") if cell.share is None else cell.share,
            }
            | dict(cell.means)
            for grid in found.grids
            for cell in grid.cells
        ]
    )


def traces_frame(found: ExplorationFindings) -> pd.DataFrame:
    """One row per component, position and corruption; shares of the largest clean - corrupt."""
    if found.traces is None:
        return pd.DataFrame()
    columns = ["component", "position", "corruption", "drop", "rise", "reacts"]
    rows = [
        (format_name(component), role, name, reaction.drop, reaction.rise, reaction.reacts)
        for (component, role), reactions in found.traces.reactions.items()
        for name, reaction in reactions.items()
    ]
    return pd.DataFrame(rows, columns=columns)


def unseen_frame(found: ExplorationFindings) -> pd.DataFrame:
    """One row per thing that was not looked at."""
    return pd.DataFrame(
        [(one.what, one.count, one.of, one.why) for one in found.unseen], columns=["what", "count", "of", "why"]
    )
