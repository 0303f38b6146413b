"""Which gate two parts of a circuit form, from six runs: each and both noised, each and both denoised.

After Heimersheim & Nanda (2024), section 2.4. On an AND gate noising either part breaks what noising both breaks, and
denoising neither alone restores anything; on an OR gate it is the other way round. Where effects simply add up, what
each does alone comes to what both do. Effects between these are named after the gate that they lean to: noised
sub-additive and denoised super-additive to an AND, the other way round to an OR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.scores import MATERIAL
from circuitspec.analysis.statistics.stats import Values
from circuitspec.hypothesis_file.schema.claims.gate_block import GateName

GateKind = Literal[
    "and",
    "or",
    "backup",
    "additive",
    "mediation",
    "amplification",
    "input of an AND",
    "input of an OR",
    "serial",
    "partly AND",
    "partly OR",
    "overlapping",
    "joint",
]
Band = Literal["low", "partly low", "middle", "partly high", "high"]
Part = Literal["first", "second"]
Bounds = tuple[float | None, float | None]  # at least, at most

HALF = 0.5  # of what both parts do together: beyond it, parts alone do much more, or much less, than their share
MARGIN = 0.1  # within it effects add up

# What the interactions must be, noised and denoised, for a claim of this gate to hold. A backup is an OR gate of which
# one part is silent while the other acts: alone, that one restores nothing, and the interaction is 0.
BOUNDS: Mapping[GateName, tuple[Bounds, Bounds]] = {
    "and": ((HALF, None), (None, -HALF)),
    "or": ((None, -HALF), (-MARGIN, None)),
    "additive": ((-MARGIN, MARGIN), (-MARGIN, MARGIN)),
}

_KINDS: Mapping[tuple[Band, Band], GateKind] = {
    ("high", "low"): "and",
    ("low", "high"): "or",
    ("middle", "middle"): "additive",
    ("high", "high"): "mediation",
}
_AND_LIKE: tuple[tuple[Band, ...], tuple[Band, ...]] = (
    ("middle", "partly high", "high"),
    ("middle", "partly low", "low"),
)

WORDS: Mapping[GateKind, str] = {
    "and": "both are needed, neither is enough",
    "or": "either is enough, neither is needed",
    "backup": "one takes over where the other fails",
    "additive": "effects add up",
    "mediation": "either breaks it and either restores it: one acts through the other",
    "amplification": "both are needed; the earlier drives the later, and alone restores it",
    "input of an AND": "both are needed; the later alone restores it, and the earlier alone does not",
    "input of an OR": "one is needed; restored, the other is enough too",
    "serial": "both are needed; restored, one alone is enough",
    "partly AND": "noised they do less together than one by one, restored more, or one of the two",
    "partly OR": "noised they do more together than one by one, restored less, or one of the two",
    "overlapping": "noised and restored they do less together than one by one",
    "joint": "noised and restored they do more together than one by one",
}
UNCLEAR = "unclear"


@dataclass(frozen=True)
class Trio:
    """One metric, `[prompt]` each, with the first part patched, with the second, and with both."""

    first: Values
    second: Values
    both: Values


@dataclass(frozen=True)
class Together:
    """Two parts patched alone and together, in one direction.

    `first`, `second` and `both` are what that changes, as shares of M(clean) - M(corrupt): drops where noised, rises
    where denoised. `interaction` is (first + second - both) / both: 1 where either alone does what both do, -1 where
    neither alone does anything, 0 where effects add up. None where both together change next to nothing.
    """

    first: float
    second: float
    both: float
    interaction: Estimate | None

    @property
    def band(self) -> Band | None:
        """Where the whole interval of the interaction lies; None where it lies in no one band."""
        if self.interaction is None or self.interaction.interval is None:
            return None
        low, high = self.interaction.interval
        if low >= -MARGIN and high <= MARGIN:
            return "middle"
        if high < -MARGIN:
            return "low" if high <= -HALF else "partly low"
        if low > MARGIN:
            return "high" if low >= HALF else "partly high"
        return None

    @property
    def does_all(self) -> Part | None:
        """The part that alone does all that both do, where the other alone does next to nothing of it."""
        first, second = self.first / self.both, self.second / self.both
        if abs(first - 1) <= MARGIN and abs(second) <= MARGIN:
            return "first"
        return "second" if abs(second - 1) <= MARGIN and abs(first) <= MARGIN else None


@dataclass(frozen=True)
class GateFinding:
    """Two parts of a circuit in both directions; `earlier` is the one of which the other may read, where one is known.

    `kind` is None where intervals leave it open, or both parts do next to nothing in a direction.
    """

    noising: Together
    denoising: Together
    earlier: Part | None = None

    @property
    def kind(self) -> GateKind | None:
        down, up = self.noising.band, self.denoising.band
        if down is None or up is None:
            return None
        whole = _KINDS.get((down, up))
        if whole is not None:
            return whole
        match down, up, self.noising.does_all, self.denoising.does_all:
            case "low", "middle", _, str():
                return "backup"
            case "middle", "high", str(), _:
                return "input of an OR"
            case "high", "middle", _, str() as enough:
                if self.earlier is None:
                    return "serial"
                return "amplification" if enough == self.earlier else "input of an AND"
        if down in _AND_LIKE[0] and up in _AND_LIKE[1]:
            return "partly AND"
        if down in _AND_LIKE[1] and up in _AND_LIKE[0]:
            return "partly OR"
        return "overlapping" if down in _AND_LIKE[0] else "joint"

    @property
    def label(self) -> str:
        """The kind in words; where there is none, why."""
        if self.kind is not None:
            return f"{self.kind}: {WORDS[self.kind]}"
        idle = [
            word for word, one in (("noised", self.noising), ("restored", self.denoising)) if one.interaction is None
        ]
        if idle:
            return f"{UNCLEAR}: both do next to nothing {' or '.join(idle)}"
        return f"{UNCLEAR}: an interval is too wide to tell"


def find_gate(
    noised: Trio,
    denoised: Trio,
    clean: Values,
    corrupt: Values,
    *,
    earlier: Part | None = None,
    level: float = stats.LEVEL,
    resamples: int = stats.RESAMPLES,
) -> GateFinding:
    """The gate that two parts form, from the clean run with parts noised and the corrupt run with parts denoised.

    All arrays are `[prompt]`, of the same prompts; intervals are of a bootstrap over prompts. `clean` and `corrupt`
    must differ in the mean (`scores.gap`); `earlier` is the part
    that the other may read of. Raises CS511 for values that are not finite.
    """
    whole = float(clean.mean() - corrupt.mean())
    return GateFinding(
        _together(noised, clean, -whole, level, resamples),
        _together(denoised, corrupt, whole, level, resamples),
        earlier,
    )


def _together(trio: Trio, base: Values, whole: float, level: float, resamples: int) -> Together:
    first, second, both = (float((run - base).mean()) / whole for run in (trio.first, trio.second, trio.both))
    moved = stats.mean_difference(trio.both, base, level=level, resamples=resamples)
    if abs(both) < MATERIAL or moved.may_be(0.0):
        return Together(first, second, both, None)
    found = stats.recovered(*interaction(base, trio.first, trio.second, trio.both), level=level, resamples=resamples)
    return Together(first, second, both, found)


def interaction(base: Values, first: Values, second: Values, both: Values) -> tuple[Values, Values, Values]:
    """`(base - first - second + both) / (base - both)`, a ratio of means, as recovered performance of these scores."""
    return base - first - second + 2 * both, both, base
