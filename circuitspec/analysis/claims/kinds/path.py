"""Claims that breaking a path lowers the score, or that restoring it raises it."""

from __future__ import annotations

from dataclasses import dataclass

from circuitspec.analysis.claims.claim_result import ClaimResult
from circuitspec.analysis.claims.kinds.bases.path_claims import PathPatching
from circuitspec.analysis.statistics.wording import falls, rises
from circuitspec.experiments.experiment import CLEAN_VALUES, Experiment
from circuitspec.experiments.levels import path_level
from circuitspec.experiments.planner import CLEAN, PlannedClaim, Planning, passing_label, sources_in_words
from circuitspec.hypothesis_file.schema.claims.path_block import PathClaim
from circuitspec.hypothesis_file.yaml.source import Path_


@dataclass(frozen=True)
class PlannedPath(PlannedClaim):
    """A path patched by itself: the drop that it brings in the clean run, or the rise in the corrupt one."""

    @property
    def falls(self) -> bool:
        return self.measure == "drop"


class PathClaims(PathPatching[PathClaim, PlannedPath]):
    """The share of what the corruption takes away that goes, or comes back, with the path."""

    def plan(self, claim: PathClaim, planning: Planning) -> PlannedPath:
        path = planning.read(claim.of, (*planning.place, "of"))
        readings = path_level.along([path], planning.graph.shape, planning.text)
        if claim.sources is not None:
            readings = planning.with_sources(readings, claim.sources)
        through = self.through(claim, planning)
        if claim.direction == "noising":
            anchor = planning.anchor
            patched = path_level.travelling("clean", planning.source, readings, [path], through=through)
            planning.name_anchor(anchor)
            planning.name(patched, f"{claim.of} noised{passing_label(through)}{_sourced(claim)}")
            return PlannedPath(planning.index, claim, patched, CLEAN, anchor, "drop", paths=(path,))
        corrupt = planning.corrupt()
        patched = path_level.travelling(corrupt, CLEAN_VALUES, readings, [path], through=through)
        planning.name(Experiment(corrupt), "corrupt")
        planning.name(patched, f"{claim.of} denoised{passing_label(through)}{_sourced(claim)}")
        return PlannedPath(planning.index, claim, patched, CLEAN, Experiment(corrupt), "rise", paths=(path,))

    def patched_set(self, claim: PathClaim) -> str:
        return claim.of

    def measured(self, claim: ClaimResult) -> str:
        """`logit_diff falls by`, `kl worsens by`."""
        verb = falls if claim.measure == "drop" else rises
        return f"{claim.metric} {verb(claim.metric)} by"

    def own_path(self, planned: PlannedPath) -> tuple[str, Path_]:
        return self.of(planned), ("claims", planned.index, planned.claim.kind, "of")


def _sourced(claim: PathClaim) -> str:
    return "" if claim.sources is None else f", {sources_in_words(claim.sources)}"
