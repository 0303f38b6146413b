"""The kinds of claims that a file may make."""

from __future__ import annotations

from circuitspec.hypothesis_file.schema.abstraction.interchange_block import Interchange
from circuitspec.hypothesis_file.schema.abstraction.isolates_block import Isolates
from circuitspec.hypothesis_file.schema.abstraction.scrubbed_block import Scrubbed
from circuitspec.hypothesis_file.schema.claim_block import ClaimBlock
from circuitspec.hypothesis_file.schema.claims.beats_random_block import BeatsRandom
from circuitspec.hypothesis_file.schema.claims.complete_block import Complete
from circuitspec.hypothesis_file.schema.claims.cross_section_block import CrossSection
from circuitspec.hypothesis_file.schema.claims.gate_block import Gate
from circuitspec.hypothesis_file.schema.claims.mediation_block import Mediation
from circuitspec.hypothesis_file.schema.claims.minimal_block import Minimal
from circuitspec.hypothesis_file.schema.claims.necessary_block import Necessary
from circuitspec.hypothesis_file.schema.claims.path_block import PathClaim
from circuitspec.hypothesis_file.schema.claims.stable_block import Stable
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from circuitspec.hypothesis_file.schema.claims.traces_block import Traces

CLAIMS: dict[str, type[ClaimBlock]] = {
    "sufficient": Sufficient,
    "necessary": Necessary,
    "cross_section": CrossSection,
    "path": PathClaim,
    "mediation": Mediation,
    "gate": Gate,
    "traces": Traces,
    "complete": Complete,
    "minimal": Minimal,
    "beats_random": BeatsRandom,
    "stable": Stable,
    "interchange": Interchange,
    "isolates": Isolates,
    "scrubbed": Scrubbed,
}
"""By the name in the file, in the order in which documents list them. What is here when `written_claim` is imported may
stand in a file."""
