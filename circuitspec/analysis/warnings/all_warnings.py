"""Every kind of evidence warning, and what all of them find."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from circuitspec.analysis.warnings.abstraction.scrubbing_warnings import SCRUBBING_WARNINGS
from circuitspec.analysis.warnings.abstraction_warnings import ABSTRACTION_WARNINGS
from circuitspec.analysis.warnings.as_given_warnings import AS_GIVEN_WARNINGS
from circuitspec.analysis.warnings.effect_warnings import EFFECT_WARNINGS
from circuitspec.analysis.warnings.evidence import Evidence, EvidenceWarning, WarningKind
from circuitspec.analysis.warnings.means_warnings import MEANS_WARNINGS
from circuitspec.analysis.warnings.metric_warnings import METRIC_WARNINGS
from circuitspec.analysis.warnings.negative_warnings import NEGATIVE_WARNINGS
from circuitspec.analysis.warnings.path_warnings import PATH_WARNINGS
from circuitspec.analysis.warnings.prompt_warnings import PROMPT_WARNINGS
from circuitspec.analysis.warnings.score_warnings import SCORE_WARNINGS
from circuitspec.analysis.warnings.tasks.answer_warnings import ANSWER_WARNINGS
from circuitspec.analysis.warnings.tasks.length_warnings import LENGTH_WARNINGS
from circuitspec.analysis.warnings.tasks.sequence_warnings import SEQUENCE_WARNINGS
from circuitspec.analysis.warnings.tasks.task_warnings import TASK_WARNINGS

WARNINGS: tuple[WarningKind, ...] = (
    *NEGATIVE_WARNINGS,
    *SCORE_WARNINGS,
    *PATH_WARNINGS,
    *MEANS_WARNINGS,
    *EFFECT_WARNINGS,
    *METRIC_WARNINGS,
    *PROMPT_WARNINGS,
    *ANSWER_WARNINGS,
    *LENGTH_WARNINGS,
    *AS_GIVEN_WARNINGS,
    *TASK_WARNINGS,
    *SEQUENCE_WARNINGS,
    *ABSTRACTION_WARNINGS,
    *SCRUBBING_WARNINGS,
)


def find_warnings(evidence: Evidence, kinds: Iterable[WarningKind] | None = None) -> tuple[EvidenceWarning, ...]:
    """All warnings about this evidence, in order of code; with `kinds`, of these alone."""
    found = []
    for kind in WARNINGS if kinds is None else kinds:
        for warning in kind.find(evidence):
            assert warning.code == kind.code, f"what finds {kind.code} found {warning.code}"
            found.append(replace(warning, place=kind.place))
    return tuple(sorted(found, key=lambda warning: warning.code))
