"""Pictures as SVG.

In come numbers and labels; out comes text, the same for the same numbers. Matplotlib is imported when a picture is
drawn, not before.
"""

from circuitspec.reports.figures.circuit_figure import circuit_graph
from circuitspec.reports.figures.frontier import Curve, Sized, frontier
from circuitspec.reports.figures.heatmap import heatmap
from circuitspec.reports.figures.intervals import IntervalPoint, IntervalSeries, intervals
from circuitspec.reports.figures.layout import DrawnEdge, DrawnNode
from circuitspec.reports.figures.picture import Picture

__all__ = [
    "Curve",
    "DrawnEdge",
    "DrawnNode",
    "IntervalPoint",
    "IntervalSeries",
    "Picture",
    "Sized",
    "circuit_graph",
    "frontier",
    "heatmap",
    "intervals",
]
