"""How often what was chosen: as text, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.wording import briefly, number
from circuitspec.exploration.stability.circuit_stability import CircuitStability, Stability
from circuitspec.exploration.stability.selection_frequencies import CORE, NOISE, Chosen
from circuitspec.exploration.stability.subsamples import FIRST_SEED
from circuitspec.reports.figures.intervals import IntervalPoint, IntervalSeries, intervals
from circuitspec.reports.figures.picture import Picture

COLUMNS = ("circuit", "level", "name", "position", "frequency", "low", "high", "searches")
STANDING = ("standing", "drafted", "effect")
SHOWN = 30  # rows of a table of text, points of a picture


def stability_lines(found: Stability) -> list[str]:
    """What is said at the top: how the search was repeated, and what the figures are of."""
    last = FIRST_SEED + found.halves - 1
    return [
        f"the search repeated on {found.halves} random halves of its {found.n_prompts} prompts ({found.counted} each, "
        f"without replacement, evenly by template, seeds {FIRST_SEED} to {last}; {found.forwards:.0f} forwards)",
        "chosen: in how many of them [95 % interval, Wilson]. Halves share prompts: the interval says how near that is "
        "to all halves of these prompts, not what other prompts would give",
        f"core: at least {CORE:g}; noise: less than {NOISE:g}; contingent: between",
    ]


def circuit_rows(one: CircuitStability) -> list[list[str]]:
    """A row for each member and for everything that is not noise: how often it was chosen, and its standing."""
    templates = len(one.templates)
    head = ["member", "chosen", "", "in the draft", *(["templates held out"] if templates else [])]
    rows = []
    for entry, chosen in one.entries.items():
        if chosen.drafted or chosen.standing != "noise":
            by_template = [f"{one.by_template[entry]} of {templates}"] if templates else []
            rows.append(["@".join(entry), _interval(chosen.frequency), chosen.standing, _said(chosen), *by_template])
    return [head, *rows[:SHOWN]]


def circuit_lines(one: CircuitStability) -> list[str]:
    """What is said below the table: sizes, agreement of halves, and what subsets and unseen halves give."""
    noise = sum(chosen.standing == "noise" and not chosen.drafted for chosen in one.entries.values())
    lines = [
        f"entries a half: {min(one.sizes)} to {max(one.sizes)}; two halves share {one.overlap:.0%} of what either "
        f"chose; {noise} others were chosen now and then (noise)",
        f"on the half that it was not chosen on a circuit recovers {number(float(np.mean(one.unseen)))} "
        f"({number(min(one.unseen))} to {number(max(one.unseen))})",
    ]
    if one.by_template_unseen:
        said = ", ".join(
            f"{number(value)} ({name})" for name, value in zip(one.templates, one.by_template_unseen, strict=True)
        )
        lines.append(f"on a template that it was not chosen on: {said}")
    lines += [
        f"{subset.what} ({len(subset.entries)}): recovered {briefly(subset.recovered)}, {briefly(subset.left)} is left "
        "without"
        for subset in one.subsets
    ]
    lines.append(
        f"of those called core at most {one.false:.1f} are expected to be there by chance (if what does nothing is "
        "chosen no more often than at random)"
    )
    return lines


def edge_rows(one: CircuitStability) -> list[list[str]]:
    """A row for each direct path of the draft."""
    rows = [[name, _interval(chosen.frequency), chosen.standing] for name, chosen in one.edges.items()]
    return [["direct path", "chosen", ""], *rows[:SHOWN]] if rows else []


def stability_frame(found: Stability) -> pd.DataFrame:
    """One row for each component at a position, component, and direct path that was chosen once or is drafted."""
    rows = [
        (one.kind, level, *name, f.value, f.low, f.high, f.n, chosen.standing, chosen.drafted, chosen.effect)
        for one in found.circuits
        for level, name, chosen in _all(one)
        for f in (chosen.frequency,)
    ]
    return pd.DataFrame(rows, columns=[*COLUMNS, *STANDING])


def stability_json(found: Stability) -> str:
    """All of it, as JSON text that ends in a newline."""
    circuits = [
        {
            "circuit": one.kind,
            "chosen": [
                {"level": level, "name": name[0], "position": name[1], "standing": chosen.standing}
                | {"drafted": chosen.drafted, "effect": chosen.effect, "frequency": _plain(chosen.frequency)}
                for level, name, chosen in _all(one)
            ],
            "templates": [
                {"held_out": name, "recovered": value}
                for name, value in zip(one.templates, one.by_template_unseen, strict=True)
            ],
            "entries": list(one.sizes),
            "overlap": one.overlap,
            "recovered_unseen": list(one.unseen),
            "false_core_at_most": one.false,
            "subsets": [
                {"what": subset.what, "members": ["@".join(entry) for entry in subset.entries]}
                | {"recovered": _plain(subset.recovered), "left": _plain(subset.left)}
                for subset in one.subsets
            ],
        }
        for one in found.circuits
    ]
    whole: dict[str, Any] = {
        "searches": found.halves,
        "first_seed": FIRST_SEED,
        "prompts": found.n_prompts,
        "prompts_a_half": found.counted,
        "core_at_least": CORE,
        "noise_below": NOISE,
        "judged_on": found.judged_on,
        "forwards": found.forwards,
        "circuits": circuits,
    }
    return json.dumps(whole, indent=2) + "\n"


def stability_picture(found: Stability) -> Picture:
    """How often members were chosen, and what else is not noise, of both circuits side by side."""
    series = []
    for one in found.circuits:
        shown = {entry: c for entry, c in one.entries.items() if c.drafted or c.standing != "noise"}
        points = [IntervalPoint("@".join(entry), chosen.frequency, CORE) for entry, chosen in shown.items()]
        if points:
            series.append(IntervalSeries(one.kind, tuple(points[:SHOWN])))
    title = f"How often {found.halves} searches on halves of the prompts chose what"
    return intervals(series, title=title, quantity="share of the searches")


def has_picture(found: Stability) -> bool:
    """Whether anything was chosen often, or is drafted."""
    return any(c.drafted or c.standing != "noise" for one in found.circuits for c in one.entries.values())


def _all(one: CircuitStability) -> Iterator[tuple[str, tuple[str, str], Chosen]]:
    for entry, chosen in one.entries.items():
        yield "component at a position", entry, chosen
    for name, chosen in one.components.items():
        yield "component", (name, ""), chosen
    for name, chosen in one.edges.items():
        yield "edge", (name, ""), chosen


def _said(chosen: Chosen) -> str:
    return (chosen.effect if chosen.effect != "positive" else "yes") if chosen.drafted else "no"


def _interval(estimate: Estimate) -> str:
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def _plain(estimate: Estimate) -> dict[str, float | int | None]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
