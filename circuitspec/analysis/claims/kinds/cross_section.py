"""Claims that some components, or paths, alone bring the behaviour back."""

from __future__ import annotations

from typing import Any

from circuitspec.analysis.claims.claim_kind import ClaimKind
from circuitspec.experiments.experiment import CLEAN_VALUES, Experiment, Variant
from circuitspec.experiments.levels import edge_level, node_level, path_level
from circuitspec.experiments.planner import CLEAN, PlannedClaim, Planning, sources_in_words
from circuitspec.graph.paths import DeclaredPath
from circuitspec.hypothesis_file.schema.claims.cross_section_block import CrossSection


class CrossSectionClaims(ClaimKind[CrossSection, PlannedClaim]):
    """Clean values are restored in the corrupt run, at these components or along these paths alone."""

    def plan(self, claim: CrossSection, planning: Planning) -> PlannedClaim:
        corrupt = planning.corrupt()
        paths: list[DeclaredPath] = []
        if claim.paths is not None:
            travel = claim.sources is not None  # otherwise edges are restored
            listed = [((*planning.place, "paths", i), text) for i, text in enumerate(claim.paths)]
            paths = [planning.read(text, place, features=travel) for place, text in listed]
            patched = self._restored(claim, paths, corrupt, planning)
        else:
            patched = node_level.denoising(corrupt, planning.section(claim.nodes or ()))
        planning.name(Experiment(corrupt), "corrupt")
        sourced = "" if claim.sources is None else f", {sources_in_words(claim.sources)}"
        planning.name(patched, f"{self.patched_set(claim)} restored{sourced}")
        return PlannedClaim(planning.index, claim, patched, CLEAN, Experiment(corrupt), paths=tuple(paths))

    def _restored(
        self, claim: CrossSection, paths: list[DeclaredPath], corrupt: Variant, planning: Planning
    ) -> Experiment:
        """The clean run's values at all edges along the paths; or, travelling along each path, those of its source."""
        if claim.sources is None:
            return edge_level.restoring(paths, corrupt, planning.graph.shape)
        readings = path_level.along(paths, planning.graph.shape, planning.text)
        readings = planning.with_sources(readings, claim.sources)
        return path_level.travelling(corrupt, CLEAN_VALUES, readings, paths, through=planning.ablation.through)

    def patched_set(self, claim: CrossSection) -> str:
        return ", ".join(claim.nodes or claim.paths or ())

    def distinction(self, planned: PlannedClaim) -> str:
        return f"{self.patched_set(planned.claim)} restored"  # type: ignore[arg-type]

    def subject(self, claim: Any) -> str:
        return f"{claim.kind}: {self.patched_set(claim)}"
