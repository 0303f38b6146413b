"""Other circuits that do as well as the declared one, as text, a table of the page, and data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from circuitspec.analysis.circuit_effects.alternative_circuits import AlternativeCircuit
from circuitspec.analysis.statistics.plain_data import estimate_data
from circuitspec.analysis.statistics.wording import briefly, number, plural
from circuitspec.reports.views import Table
from circuitspec.runtime.text_columns import aligned

_HEAD = "another circuit that meets the bound of `sufficient`"
_NONE = "no claim of sufficiency is supported, so no other circuit was looked for"


def alternatives_text(found: Sequence[AlternativeCircuit] | None) -> tuple[str, ...]:
    """A block for each claim that was searched; none where that was not asked for."""
    if found is None:
        return ()
    return tuple("\n".join(_lines(one)) for one in found) or (_NONE,)


def _lines(one: AlternativeCircuit) -> Iterator[str]:
    rows = list(_rows(one))
    yield f"{_HEAD}: {one.metric}: {one.status}" + (f" ({one.reason})" if one.status == "not looked for" else "")
    if rows:
        yield ""
        yield aligned([[f"  {name}", value] for name, value in rows])


def _rows(one: AlternativeCircuit) -> Iterator[tuple[str, str]]:
    """What was found and what was looked at, by name."""
    if one.recovered is not None and one.declared is not None:
        closest = "closest circuit" if one.status == "none found" else "circuit"
        yield closest, ", ".join(one.nodes) or "nothing but what is free"
        yield "shared with the declared one", ", ".join(one.shared) or "nothing"
        yield f"recovered {one.metric}, on prompts that did not choose it", briefly(one.recovered)
        yield "the declared circuit on these prompts", briefly(one.declared)
        yield "kl of its outputs from the declared one's (nats)", number(one.kl)
    if one.rest is not None:
        but = ", but for what is shared" if one.shared else ""
        yield f"the model without the declared circuit{but}", f"recovers {number(one.rest)}"
    if one.status != "not looked for":
        yield "looked at", _looked_at(one)
        if one.reason:
            yield "ended early", one.reason


def _looked_at(one: AlternativeCircuit) -> str:
    allowed = f"at most {plural(one.allowed, 'declared component')} shared" if one.allowed else "none shared"
    return (
        f"{plural(one.candidates, 'component')} at positions, {one.exact} of them patched and the others estimated; "
        f"{plural(one.tried, 'circuit')} tried, {allowed}, {one.forwards:.0f} forwards. Components that do nothing "
        "unless several are kept together may be missed"
    )


def alternatives_tables(found: Sequence[AlternativeCircuit] | None) -> tuple[Table, ...]:
    """The same for the page."""
    return tuple(
        Table(f"{_HEAD}: {one.metric}: {one.status}", ("", ""), rows, prose=(0, 1))
        for one in found or ()
        if (rows := tuple(_rows(one)) or (("not looked for", one.reason),))
    )


def alternatives_data(found: Sequence[AlternativeCircuit]) -> list[dict[str, object]]:
    """The same for programs."""

    def figures(one: AlternativeCircuit) -> dict[str, object]:
        estimates = {"recovered": one.recovered, "declared": one.declared}
        return {name: None if estimate is None else estimate_data(estimate) for name, estimate in estimates.items()}

    return [{**asdict(one), **figures(one)} for one in found]
