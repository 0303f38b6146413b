"""What compared circuits were measured to do, as text."""

from __future__ import annotations

from collections.abc import Iterator

from circuitspec.analysis.statistics.wording import MISSING, briefly, number, plural
from circuitspec.comparison.measured_circuits import LEAST, CircuitFigure, MeasuredCircuits, OnPrompts, OutputsApart
from circuitspec.runtime.text_columns import aligned


def measured_blocks(found: MeasuredCircuits) -> Iterator[str]:
    """One block of lines for each table and warning."""
    for on in found.prompts:
        yield _circuits(on)
        if on.apart:
            yield _apart(on)
        if on.sets:
            yield _sets(on)
        if on.left_out:
            yield "\n".join(f"not run on these prompts: {one.what}: {one.reason}" for one in on.left_out)
    for unlike in found.unlike:
        yield f"warning[CS474]: {unlike.message}\n   {unlike.detail}"
    stored = f" ({found.stored} of them looked up)" if found.stored else ""
    cost = f"{plural(found.experiments, 'experiment')}{stored}, {found.forwards:.0f} forwards, {found.seconds:.1f} s"
    yield cost


def _circuits(on: OnPrompts) -> str:
    """Each circuit alone, on the prompts of one file."""
    of = " and ".join(on.owners)
    head = f"on the {plural(on.n, 'prompt')} of {of}, ablated as there: {on.method}"
    ends = f"{on.metric} {number(on.clean)} in the clean run, {number(on.anchor)} where nothing is recovered"
    rows = [["  circuit", f"recovered {on.metric}", on.metric, "kl from the model (nats)"]]
    rows += [_row(one, one.what) for one in on.circuits]
    return f"{head}\n({ends})\n\n{aligned(rows)}"


def _row(one: CircuitFigure, name: str) -> list[str]:
    recovered = MISSING if one.recovered is None else briefly(one.recovered)
    return [f"  {name}", f"{recovered} {one.reason}".rstrip(), number(one.mean), number(one.kl)]


def _apart(on: OnPrompts) -> str:
    rows = [["  outputs of", "kl from the other (nats)", "the other's from it", "same token first"]]
    rows += [
        [f"  {one.first}, {one.second}", briefly(one.forth), briefly(one.back), briefly(one.same_top)]
        for one in on.apart
    ]
    return "\n".join([aligned(rows), *(_farthest(one) for one in on.apart if max(one.by_prompt) >= LEAST)])


def _farthest(one: OutputsApart) -> str:
    said = "; ".join(f"{text} ({number(kl)})" for kl, text in one.farthest)
    return f"  {one.first}, {one.second} farthest apart: {said}"


def _sets(on: OnPrompts) -> str:
    rows = [["  pair", "set", f"alone: recovered {on.metric}", f"taken out of the model: {on.metric} left"]]
    pairs = dict.fromkeys((one.first, one.second) for one in on.sets)
    for first, second in pairs:
        own = [one for one in on.sets if (one.first, one.second) == (first, second)]
        for what in dict.fromkeys(one.figure.what for one in own):
            found = {one.taken_out: one.figure for one in own if one.figure.what == what}
            rows.append([f"  {first}, {second}", what, *(_recovered(found.get(out)) for out in (False, True))])
    return aligned(rows)


def _recovered(one: CircuitFigure | None) -> str:
    if one is None:
        return MISSING
    return one.reason if one.recovered is None else briefly(one.recovered)
