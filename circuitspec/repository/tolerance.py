"""When two measurements of the same thing agree.

Between a lock and a new run nothing is drawn again: the prompts are the same (their digest says so), and so is the
bootstrap's seed. What is left to differ is rounding, whose size depends on how alike the two runs were.

*The same versions and the same kind of device.* Values and both ends of their intervals must be equal up to rounding:
sums are added up in another order by another batch size, number of threads or processor, and nothing else may happen.
On SmolLM2-135M such runs differed by 4e-7 in float32, 7e-4 in float16 and 5e-3 in bfloat16, on a GPT-2 of four layers
by 5e-8 in float32 and 2e-15 in float64. `ROUNDING` leaves room above these for larger models, in units of the value
(a share of what the clean run is ahead by, so of the order of 1). In float32 it lies far below what a verdict or a
printed figure depends on, and a change of method or data moves values by more.

*Other versions, or another device.* A new kernel, a fused attention or another order of operations changes every
activation in its last digits, and with many layers there is no honest bound on what this does to a ratio. The
yardstick is then the uncertainty that the claim is published with: each value must lie within the other's confidence
interval, both ways, so that a wide interval on one side cannot hide a precise result elsewhere on the other. Prompts
are the same on both sides, so two sound runs differ by far less than two samples of prompts would: a value outside
the interval is never bad luck. The intervals themselves may move with their values. Where there is none, rounding
decides.

*Discrete metrics* (accuracy, rank) are always held to the second rule: where two logits tie but for rounding, one
prompt's score jumps by a whole step.

Whatever the numbers: a status (SUPPORTED, REFUTED, INCONCLUSIVE) that changed is a difference, and so is a value that
exists on one side only.
"""

from __future__ import annotations

from dataclasses import dataclass

from circuitspec.analysis.statistics.wording import number
from circuitspec.prompts.output_metrics import METRICS

ROUNDING = {"float64": 1e-9, "float32": 1e-4, "float16": 5e-3, "bfloat16": 4e-2}
_COARSEST = max(ROUNDING.values())
_DIGITS = (4, 9)  # shown: at least, at most


@dataclass(frozen=True)
class Measured:
    """A value and its interval; the latter may be missing."""

    value: float
    ci: tuple[float, float] | None

    def shown(self, digits: int) -> str:
        value = number(self.value, digits)
        if self.ci is None:
            return f"{value} (no interval)"
        return f"{value} [{number(self.ci[0], digits)}, {number(self.ci[1], digits)}]"


def rounding_of(dtype: str) -> float:
    """How much rounding may move a value; of a number format that is not known as much as in the coarsest that is."""
    return ROUNDING.get(dtype, _COARSEST)


def disagreement(old: Measured | None, new: Measured | None, *, metric: str, dtype: str, alike: bool) -> str:
    """How two measurements disagree, `old -> new`, in words; empty if they agree.

    `alike`: made with the same versions on the same kind of device; `dtype` is the model's.
    """
    if old is None or new is None:
        return "" if old is new else change(old, new)
    rounding = rounding_of(dtype)
    if alike and not (metric in METRICS and METRICS[metric].discrete):
        if close(old.value, new.value, rounding):
            ends_agree = old.ci == new.ci or (
                old.ci is not None
                and new.ci is not None
                and all(close(a, b, rounding) for a, b in zip(old.ci, new.ci, strict=True))
            )
            return "" if ends_agree else f"{change(old, new)}: the interval is another"
        return f"{change(old, new)}, which is more than rounding ({rounding:g})"
    for value, other, whose in ((new.value, old, "old"), (old.value, new, "new")):
        low, high = other.ci or (other.value, other.value)
        spare = rounding * max(1.0, abs(other.value))
        if not low - spare <= value <= high + spare:
            return f"{change(old, new)}: {number(value, _DIGITS[0])} lies outside the {whose} interval"
    return ""


def change(old: Measured | None, new: Measured | None) -> str:
    """`0.8800 [0.84, 0.91] -> 0.9100 [...]`, with as many digits as it takes to tell the two apart."""
    least, most = _DIGITS
    for digits in range(least, most + 1):
        before, after = ("no value" if side is None else side.shown(digits) for side in (old, new))
        if before != after:
            break
    return f"{before} -> {after}"


def close(a: float, b: float, rounding: float) -> bool:
    """Equal but for `rounding`: relative to values above 1, absolute below."""
    return abs(a - b) <= rounding * max(1.0, abs(a), abs(b))
