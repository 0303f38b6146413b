"""A verification as the formats for other programs tell it: claims, warnings and findings in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from circuitspec.analysis.claims.verdict import ClaimResult
from circuitspec.analysis.statistics.wording import plural
from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.reports.reported import Reported, bound_of, means_of, result_of, value_of
from circuitspec.reports.text.additional_tables import tests_said
from circuitspec.reports.views import ClaimSummary, Summary


def summary_of(reported: Reported) -> Summary:
    """The summary of a verification, with the places of its file."""
    found = reported.verification
    return Summary(
        found.name,
        found.verdict,
        f"{found.model.id} ({found.model.description})",
        found.methodology.choices(),
        plural(found.n_prompts, "prompt") if found.rows is None else found.rows.described(),
        found.cost.seconds,
        tuple(_claim(reported, place, claim) for place, claim in enumerate(found.claims)),
        tuple(reported.warning_finding(warning) for warning in found.warnings),
        tuple(_told(finding) for finding in reported.findings),
        tests_said(found.tests),
    )


def _claim(reported: Reported, place: int, claim: ClaimResult) -> ClaimSummary:
    return ClaimSummary(
        claim.kind,
        claim.metric,
        claim.status,
        result_of(claim),
        value_of(claim),
        bound_of(claim),
        claim.reason,
        claim.experiment,
        means_of(reported.verification, place),
        reported.claim_span(place),
        tuple(_figures(claim)),
        reported.claim_finding(place),
    )


def _figures(claim: ClaimResult) -> Iterator[tuple[str, str]]:
    estimate = claim.estimate
    if estimate is not None:
        yield "measure", claim.measure
        for name, value in (("value", estimate.value), ("ci_low", estimate.low), ("ci_high", estimate.high)):
            if value is not None:
                yield name, str(value)
        yield "n", str(claim.n)
    for part in claim.parts:
        if part.estimate is not None:
            yield f"{claim.measure} {part.name}", str(part.estimate.value)


def _told(finding: Diagnostic) -> Diagnostic:
    """The finding without its data, which reports do not show."""
    return replace(finding, data={})
