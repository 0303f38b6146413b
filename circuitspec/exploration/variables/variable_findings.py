"""What a sweep for a variable found, and the entry of `align` that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.wording import with_interval
from circuitspec.exploration.request import Kind
from circuitspec.exploration.variables.place_trials import AlignedPlace, PlaceFigures
from circuitspec.hypothesis_file.yaml.yaml_writer import write_yaml


@dataclass(frozen=True)
class Lowest:
    """A place with its IIA in the family of pairs in which that is lowest.

    `agreement` is the lowest share of all, whether answers must change or stay: a whole vector at the answer changes
    every answer to the source's, and so carries more than one variable; `on` says on which pairs that is.
    """

    place: AlignedPlace
    family: str
    iia: Estimate
    agreement: Estimate
    on: str


@dataclass(frozen=True)
class LearnedThere:
    """A subspace that was learned at a place, on held-out pairs of all families together, and the whole vector on them.

    IIA on pairs whose answer must change, by the likeliest of the candidates (`top` of those over the whole
    vocabulary), and the share of those whose answer must stay; `kept` of the `pairs` count, as the unpatched model
    answers their base and source right.
    """

    place: AlignedPlace
    rank: int
    iia: Estimate | None
    top: Estimate | None
    unchanged: Estimate | None
    whole_iia: Estimate | None
    whole_top: Estimate | None
    whole_unchanged: Estimate | None
    kept: int
    pairs: int


@dataclass(frozen=True)
class VariableFindings:
    """IIA of one variable at every place that was swept, by family of pairs.

    `misplaced` are positions that were not swept, as some source has not as many tokens there, each with the family.
    `learned` are subspaces at drafted places, where they were asked for; `split` says on which words.
    """

    name: str
    model: str
    variable: str
    n_prompts: int
    n_layers: int
    positions: tuple[str, ...]
    families: tuple[str, ...]
    figures: tuple[PlaceFigures, ...]
    misplaced: Mapping[str, str]
    forwards: float
    saved: float  # of these, what was not computed, as it is as in the base run
    seconds: float
    learned: tuple[LearnedThere, ...] = ()
    split: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that were swept."""
        return tuple(dict.fromkeys(one.place.kind for one in self.figures))

    @cached_property
    def lowest(self) -> tuple[Lowest, ...]:
        """Each place with the family in which its IIA is lowest: one family alone may take something else for the
        variable. Places without pairs that must change are left out."""
        by_place: dict[AlignedPlace, list[PlaceFigures]] = {}
        for one in self.figures:
            by_place.setdefault(one.place, []).append(one)
        found = []
        for place, own in by_place.items():
            changed = [(one.iia, one.family, "must change") for one in own if one.iia is not None]
            stays = [(one.unchanged, one.family, "must stay") for one in own if one.unchanged is not None]
            if not changed:
                continue
            iia, family, _ = min(changed, key=lambda told: told[0].value)
            agreement, of, what = min((*changed, *stays), key=lambda told: told[0].value)
            found.append(Lowest(place, family, iia, agreement, f"the pairs of {of} whose answer {what}"))
        return tuple(found)

    @cached_property
    def drafted(self) -> tuple[Lowest, ...]:
        """The places that a draft proposes, of the kind that was swept first: the position nearest to the answer first.

        Places are judged by their lowest agreement. At each position it is the earliest layer whose interval includes
        the best there; positions are left out whose own best is surely below the best of all. None where no place
        agrees on any of the pairs.
        """
        own = [one for one in self.lowest if one.place.kind == self.kinds[0]]
        best = max((one.agreement.value for one in own), default=0.0)
        if best == 0:
            return ()
        found = [earliest(own, position, best) for position in self.positions]
        return tuple(one for one in reversed(found) if one is not None)

    @property
    def draft(self) -> str:
        """The entry as YAML, with what else is as good as comments; empty where there is nothing to propose."""
        if not self.drafted:
            return ""
        first, *others = self.drafted
        lines = ["abstraction:", "  align:"]
        lines += ["    # chosen on these very pairs, by the family it does worst in; verify it on other prompts"]
        lines += [f"    # {line}" for line in self._figures_at(first.place)]
        ranks = {one.place: one.rank for one in self.learned}
        lines += [f"    # {line}" for line in self._learned_at(first.place)]
        lines += [f"    {self.variable}: {_entry(first.place, ranks.get(first.place))}"]
        lines += [
            f"    # or {_entry(one.place, ranks.get(one.place))}: {with_interval(one.agreement)} of {one.on}"
            for one in others
        ]
        return "\n".join(lines)

    def _learned_at(self, place: AlignedPlace) -> list[str]:
        """What the subspace there scores, of which alone the entry is; the figures above are of the whole vector."""
        told = []
        for one in self.learned:
            if one.place == place:
                told.append("these are figures of the whole vector; those of the subspace, on held-out pairs:")
                shares = (("IIA", one.iia), ("answers that must stay do so in", one.unchanged))
                told += [f"{what} {with_interval(share)}" for what, share in shares if share is not None]
        return told

    def _figures_at(self, place: AlignedPlace) -> list[str]:
        """The shares at a place, family by family."""
        own = [one for one in self.figures if one.place == place]
        told = [f"IIA {with_interval(one.iia)} on pairs of {one.family}" for one in own if one.iia is not None]
        stays = [(one.unchanged, one.family) for one in own]
        return told + [
            f"answers that must stay do so in {with_interval(share)} of {family}"
            for share, family in stays
            if share is not None
        ]


def earliest(own: Sequence[Lowest], position: str, best: float) -> Lowest | None:
    """The first at a position, by layer, whose interval includes the best there; None where that is surely below the
    `best` of all."""
    here = [one for one in own if one.place.position == position]
    top = max((one.agreement.value for one in here), default=0.0)
    if not any(_reaches(one, best) for one in here if one.agreement.value == top > 0):
        return None
    first = min(one.place.layer for one in here if _reaches(one, top))
    return max((one for one in here if one.place.layer == first), key=lambda one: one.agreement.value)


def _reaches(one: Lowest, value: float) -> bool:
    return one.agreement.high is not None and one.agreement.high >= value


def _entry(place: AlignedPlace, rank: int | None) -> str:
    entry: dict[str, object] = {"nodes": [place.name], "at": place.position}
    if rank is not None:
        entry["subspace"] = {"rank": rank}
    return write_yaml({"x": entry}).strip().removeprefix("x:").strip()
