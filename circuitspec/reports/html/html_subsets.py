"""Completeness and minimality as pictures: circuit against model for every subset tried, and what each node adds."""

from __future__ import annotations

from collections.abc import Iterator

from circuitspec.analysis.claims.claim_result import ClaimPart, ClaimResult
from circuitspec.analysis.statistics.wording import number, plural
from circuitspec.analysis.verification_result import Verification
from circuitspec.reports.figures import Point, Series, intervals
from circuitspec.reports.figures.scatter import Dots, Named, scatter
from circuitspec.reports.views import Chart

_MOST_NODES = 40  # of a picture; all are in the table
_KINDS = ("group, all, nothing", "random", "greedy")


def subset_charts(found: Verification) -> Iterator[Chart]:
    """One picture for every claim of completeness or minimality that has figures."""
    for claim in found.claims:
        if claim.measure == "incompleteness" and claim.parts:
            yield _complete(claim)
        elif claim.measure == "effect" and any(part.estimate is not None for part in claim.parts):
            yield _minimal(claim)


def _complete(claim: ClaimResult) -> Chart:
    """F(C without K) over F(M without K); the first part is the worst."""
    kinds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in _KINDS}
    for part in claim.parts:
        model, circuit = part.means
        kinds[_kind(part)].append((model, circuit))
    worst = claim.parts[0]
    model, circuit = worst.means
    said = f"the worst, {worst.name}, has {number(model)} in the model and {number(circuit)} in the circuit"
    title = f"Claim {claim.index + 1}, complete: circuit and model without K"
    picture = scatter(
        [Dots(kind, tuple(places)) for kind, places in kinds.items() if places],
        title=title,
        across=f"{claim.metric}: model without K",
        upward=f"{claim.metric}: circuit without K",
        alt=f"{claim.metric} of the circuit without K over that of the model without K, for "
        f"{plural(len(claim.parts), 'subset')} K; {said}. Complete is what lies on the diagonal.",
        line_label="circuit = model",
        named=[Named(f"worst: {worst.name}", worst.means[:2])],  # type: ignore[arg-type]
    )
    note = "A mark is a subset K of the circuit, taken out of both; on the diagonal the circuit does as the model does."
    return Chart(picture, f"{note} Ringed: {said}.")


def _kind(part: ClaimPart) -> str:
    if part.name.startswith("random "):
        return "random"
    return "greedy" if part.name == "greedy" else _KINDS[0]


def _minimal(claim: ClaimResult) -> Chart:
    known = sorted(
        (part for part in claim.parts if part.estimate is not None),
        key=lambda part: part.estimate.value if part.estimate is not None else 0.0,
    )
    shown = known[:_MOST_NODES]
    points = tuple(Point(part.name, part.estimate, part.at_least, part.at_most) for part in shown)
    picture = intervals(
        [Series("nodes", points)],
        title=f"Claim {claim.index + 1}, minimal: what each node adds",
        quantity=f"effect on {claim.metric} (share of clean - corrupt)",
    )
    note = "Without the K that shows most of it; the weakest first, shaded what the claim asks of every node."
    if len(shown) < len(claim.parts):
        note += f" {len(shown)} of {plural(len(claim.parts), 'node')}; all are in the table."
    return Chart(picture, note)
