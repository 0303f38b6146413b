"""Numbers as people read them; the same spelling in verdicts, warnings and reports."""

from __future__ import annotations

import math
from collections.abc import Iterable

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.prompts.output_metrics import METRICS

MISSING = "-"
_DIGITS, _MOST_DIGITS = 2, 6

_METHODS = {
    "bca": "",
    "percentile": " (percentile interval)",
    "constant": " (the same for every prompt)",
    "means": "",
    "exact": "",
    "wilson": "",
    "betting": "",
    "asymptotic": "",
    "none": "",
}


def number(value: float | None, digits: int = _DIGITS) -> str:
    """Fixed-point; `-` for what is missing or not finite, and never `-0.00`."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def with_interval(estimate: Estimate, bounds: Iterable[float] = ()) -> str:
    """`0.88 [0.84, 0.91]`, with a note where the interval is no bootstrap's, and what was measured where that is
    corrected for the noise of means.

    As many digits are written as it takes for no end to be rounded onto or across one of `bounds`.
    """
    interval = estimate.interval
    if interval is None:
        return f"{number(estimate.value)} (no interval)"
    digits = _digits(interval, tuple(bounds))
    low, high = (number(end, digits) for end in interval)
    value, measured = number(estimate.value, digits), number(estimate.uncorrected, digits)
    corrected = "" if value == measured else f" ({measured} measured)"
    return f"{value} [{low}, {high}]{_METHODS[estimate.method]}{corrected}"


def briefly(estimate: Estimate, bounds: Iterable[float] = ()) -> str:
    """`0.36 [0.31, 0.40]`, or one number where it is the same for every prompt."""
    return number(estimate.value) if estimate.method == "constant" else with_interval(estimate, bounds)


def bound(at_least: float | None, at_most: float | None) -> str:
    """`0.8 .. 1.2`, `at least 0.8`, `at most 0.3`."""
    if at_least is not None and at_most is not None:
        return f"{at_least:g} .. {at_most:g}"
    if at_least is not None:
        return f"at least {at_least:g}"
    return f"at most {at_most:g}" if at_most is not None else "none"


def falls(metric: str) -> str:
    """What a share of M(clean) - M(corrupt) that is lost says of the metric: KL rises when the model gets worse."""
    return "worsens" if metric in METRICS and METRICS[metric].better == "lower" else "falls"


def rises(metric: str) -> str:
    """The same of a share that is won."""
    return "improves" if metric in METRICS and METRICS[metric].better == "lower" else "rises"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _digits(ends: tuple[float, float], bounds: tuple[float, ...]) -> int:
    for digits in range(_DIGITS, _MOST_DIGITS):
        if all(_side(round(end, digits), b) == _side(end, b) for end in ends for b in bounds):
            return digits
    return _MOST_DIGITS


def _side(value: float, limit: float) -> int:
    return (value > limit) - (value < limit)
