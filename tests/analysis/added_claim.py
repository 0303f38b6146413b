"""A kind of claim that only a test knows, and the commands run on a file that makes such a claim.

    python -m tests.analysis.added_claim verify FILE

The claim: each of these nodes can be taken away, and so much of the behaviour is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from circuitspec.hypothesis_file.schema.claim_block import Bounded
from circuitspec.hypothesis_file.schema.claims.all_blocks import CLAIMS


class Dispensable(Bounded):
    """Each of these nodes can be taken away, and so much of the behaviour is left."""

    kind: Literal["dispensable"] = "dispensable"
    nodes: tuple[str, ...]

    def named_nodes(self):
        return ((("nodes", i), name) for i, name in enumerate(self.nodes))


CLAIMS["dispensable"] = Dispensable  # before what reads files is imported

from circuitspec.analysis.claims.claim_kind import ClaimKind  # noqa: E402
from circuitspec.analysis.claims.claim_result import Judgement, part_of, together  # noqa: E402
from circuitspec.analysis.claims.registry import KINDS  # noqa: E402
from circuitspec.cli import main  # noqa: E402
from circuitspec.experiments.experiment import Experiment  # noqa: E402
from circuitspec.experiments.levels import node_level  # noqa: E402
from circuitspec.experiments.planner import CLEAN, PlannedClaim  # noqa: E402


@dataclass(frozen=True)
class PlannedEach(PlannedClaim):
    """A run for each node, by its name; `patched` is the first."""

    taken: Mapping[str, Experiment] = field(kw_only=True)

    @property
    def anchored(self):
        return dict.fromkeys(self.taken.values(), (self.clean, self.corrupt))


class DispensableClaims(ClaimKind[Dispensable, PlannedEach]):
    several = True

    def plan(self, claim, planning):
        taken = {name: node_level.ablating(planning.source, planning.section((name,))) for name in claim.nodes}
        planning.name_anchor(planning.anchor)
        for name, run in taken.items():
            planning.name(run, f"without {name}")
        first = next(iter(taken.values()))
        return PlannedEach(planning.index, claim, first, CLEAN, planning.anchor, taken=taken)

    def decide(self, planned, records, between, error):
        from circuitspec.analysis.claims.means_error import recovered

        claim, ends = planned.claim, (planned.corrupt, planned.clean)
        parts = tuple(
            part_of(name, recovered(records, (run, *ends), claim.metric, error), claim.at_least, claim.at_most, "")
            for name, run in planned.taken.items()
        )
        lost = [part.name for part in parts if part.status == "REFUTED"]
        return Judgement(*together(parts, records.n_prompts), parts=parts, found=f"lost: {', '.join(lost) or 'none'}")

    def describe(self, planned):
        return f"the model without {', '.join(planned.taken)}, one at a time"


KINDS["dispensable"] = DispensableClaims()

if __name__ == "__main__":
    main()
