"""What every report of a verification is made from: the results, and the places of the file that they are about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from circuitspec.analysis.claims.registry import kind_of
from circuitspec.analysis.claims.verdict import ClaimResult
from circuitspec.analysis.statistics.scores import mean_of
from circuitspec.analysis.statistics.wording import MISSING, number
from circuitspec.analysis.verification_result import Verification
from circuitspec.analysis.warnings.evidence import EvidenceWarning
from circuitspec.diagnostics.diagnostic import Diagnostic, Span
from circuitspec.experiments.planner import PlannedClaim
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.prompts.prompt_set import TokenizedTask

_CLAIM_CODES = {"REFUTED": "CS560", "INCONCLUSIVE": "CS561"}


@dataclass(frozen=True)
class Asked:
    """What `circuitspec verify` was asked for beyond the file: its options that matter to the result."""

    options: tuple[str, ...]  # as they are typed, without those that are left at their defaults
    device: str


@dataclass(frozen=True)
class Reported:
    """A verification with the text of its file, and findings about the run, such as drift from a lock.

    `task` has the prompts, for the formats that show any; `asked` is None where that is not known, or no command ran.
    `environment` has the device and the versions that it was run with, for those who compare its numbers.
    """

    verification: Verification
    source: SourceText
    findings: tuple[Diagnostic, ...] = ()
    task: TokenizedTask | None = None
    asked: Asked | None = None
    environment: Mapping[str, object] | None = None

    @property
    def drifted(self) -> bool:
        """Whether it is known not to be as locked."""
        return any(finding.severity == "error" for finding in self.findings)

    def claim_span(self, place: int) -> Span:
        """Where the claim at `place` of the file's list stands: its kind."""
        return self.source.span(("claims", place, self.verification.claims[place].kind), key=True)

    def warning_span(self, warning: EvidenceWarning) -> Span:
        """The claim that a warning is about, or the part of the file that its remedy changes."""
        claim = warning.data.get("claim")
        if isinstance(claim, int):
            return self.claim_span(claim)
        return self.source.span(warning.place, key=True)

    def claim_finding(self, place: int) -> Diagnostic | None:
        """CS560 or CS561 for a claim that is not supported: its numbers, its line, and the means behind them."""
        claim = self.verification.claims[place]
        if claim.status == "SUPPORTED":
            return None
        return Diagnostic(
            _CLAIM_CODES[claim.status],
            f"{claim.kind} is {claim.status.lower()}: {result_of(claim)}",
            self.claim_span(place),
            f"{claim.experiment}, {claim.n} prompts: {means_of(self.verification, place)}",
        )

    def warning_finding(self, warning: EvidenceWarning) -> Diagnostic:
        """A warning at its place in the file."""
        return Diagnostic(
            warning.code, warning.message, self.warning_span(warning), warning.detail, warning.help, "warning"
        )


def result_of(claim: ClaimResult) -> str:
    """`recovered logit_diff 0.52 [0.47, 0.58], bound at most 0.3`, and the reason where it is inconclusive."""
    reason = f"; {claim.reason}" if claim.reason else ""
    limits = bound_of(claim)
    return value_of(claim) + (f", bound {limits}" if limits != MISSING else "") + reason


def value_of(claim: ClaimResult) -> str:
    """`recovered logit_diff 0.52 [0.47, 0.58]`, `logit_diff falls by 0.36 [0.31, 0.40]`; or that there is no value.

    Of a claim with several parts all figures, and what they say together.
    """
    return kind_of(claim).value(claim)


def bound_of(claim: ClaimResult) -> str:
    """`at least 0.8`; of a claim with several parts that of each, and a dash where it came to none of them."""
    return kind_of(claim).bound_words(claim)


def means_of(found: Verification, place: int) -> str:
    """The claim's metric in the runs that decide it: `clean 10.84, all ablated -0.28, circuit ablated -0.79`."""
    planned, metric = found.plan.claims[place], found.claims[place].metric
    several = kind_of(planned).alike(found.claims[place])  # whose own means are in its table
    runs = dict.fromkeys((planned.clean, planned.corrupt, planned.patched)) if several else planned.runs
    return ", ".join(f"{found.plan.labels[run]} {number(mean_of(found.records[run][metric]))}" for run in runs)


def choices_of(found: Verification, planned: PlannedClaim) -> str:
    """How a claim's run was made: what of the file's choices applies to it."""
    methodology = replace(found.methodology, written=bool(planned.patched.roles))
    return kind_of(planned).choices(planned, methodology)


def search_of(found: Verification) -> str:
    """What the search for negative components did where it found none; CS401 speaks where it did."""
    if found.negatives is None:
        return ""
    finding = found.negatives.finding
    if found.negatives.search == "off":
        return "negative components outside the circuit were not looked for (--negatives off)"
    if found.negatives.search == "not along paths":
        return (
            "negative components were not looked for: at path level no component is ablated as a whole, which could be "
            "restored; verify the circuit at edge level, too"
        )
    if finding is None or finding.components:
        return ""
    return (
        f"no negative components outside the circuit: {finding.tested} of {finding.screened} ablated ones "
        f"were restored one by one, none made {finding.metric} worse"
        + (f" ({finding.by_few} on the first prompts alone)" if finding.by_few else "")
    )
