"""A comparison as a page for a browser: pictures of what is shared and recovered, and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.comparison.comparison_result import CircuitComparison
from circuitspec.comparison.comparison_text import render_comparison
from circuitspec.comparison.measured_circuits import OnPrompts
from circuitspec.comparison.shared_parts import Level, SharedParts
from circuitspec.reports.figures.intervals import IntervalPoint, IntervalSeries, intervals
from circuitspec.reports.figures.picture import Picture
from circuitspec.reports.html.html_exploration import Gallery, render_gallery
from circuitspec.reports.views import Remark

_PACKAGES = ("circuitspec", "torch", "transformers", "pyvene")


def comparison_html(found: CircuitComparison) -> str:
    """The page, ending in a newline."""
    names = [f"{one.letter} {one.name}" for one in found.circuits]
    measured = found.measured
    provenance = [(one.letter, f"{one.name}: {one.file}") for one in found.circuits]
    if measured is not None:
        provenance.append(("cost", f"{measured.forwards:.0f} forwards, {measured.seconds:.1f} s"))
    provenance.append(("versions", ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)))
    gallery = Gallery(
        " and ".join(names),
        " and ".join(dict.fromkeys(one.model for one in found.circuits)),
        "circuits compared",
        tuple(Remark("CS474", "warning", one.message, one.detail, "") for one in (measured.unlike if measured else ())),
        tuple(_pictures(found)),
        tuple(render_comparison(found).splitlines()),
        (),
        tuple(provenance),
        "comparison",
    )
    return render_gallery(gallery)


def _pictures(found: CircuitComparison) -> Iterator[Picture]:
    yield from (_shared(pair) for pair in found.pairs)
    if found.measured is not None:
        yield from (_recovered(on) for on in found.measured.prompts if on.circuits)


def _shared(pair: SharedParts) -> Picture:
    """Jaccard's index of every level, beside the mean of random circuits."""

    def series(label: str, values: Mapping[Level, float]) -> IntervalSeries:
        points = ((level, Estimate(value, None, None, 0.95, 1, "none")) for level, value in values.items())
        return IntervalSeries(label, tuple(IntervalPoint(level, estimate) for level, estimate in points))

    own = {one.level: one.jaccard for one in pair.overlaps}
    chance = {one.level: one.chance.jaccard for one in pair.overlaps}
    return intervals(
        (series(f"{pair.first} and {pair.second}", own), series("random circuits, mean", chance)),
        title=f"What {pair.first} and {pair.second} share",
        quantity="Jaccard index: shared of what is in either",
    )


def _recovered(on: OnPrompts) -> Picture:
    """Each circuit, and the sets of every two, kept with all else ablated."""
    points = [IntervalPoint(one.what, one.recovered) for one in on.circuits]
    kept = (one for one in on.sets if not one.taken_out)
    points += [IntervalPoint(f"{one.figure.what} ({one.first}, {one.second})", one.figure.recovered) for one in kept]
    return intervals(
        (IntervalSeries("recovered", tuple(points)),),
        title=f"Recovered on the prompts of {' and '.join(on.owners)}",
        quantity=f"recovered {on.metric}",
    )
