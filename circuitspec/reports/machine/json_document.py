"""The report that a program reads: one JSON object, without NaN or infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from circuitspec.analysis.circuit_effects.negative_components import NegativeSearch
from circuitspec.analysis.circuit_effects.path_effects import PathEffect
from circuitspec.analysis.claims.verdict import ClaimPart, ClaimResult
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.scores import mean_of
from circuitspec.analysis.verification_result import Verification
from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.prompts.prompt_set import AroundPrompts
from circuitspec.reports.text.additional_tables import sweep_data, tests_data
from circuitspec.reports.text.alternatives_table import alternatives_data
from circuitspec.reports.text.breakdown_tables import breakdowns_data, rows_data
from circuitspec.reports.text.effects_table import effects_data
from circuitspec.reports.text.printing import print_document
from circuitspec.reports.text.scrub_tables import scrubs_data
from circuitspec.reports.text.sequence_table import sequence_data

FORMAT_VERSION = 1

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def to_document(
    found: Verification, findings: Sequence[Diagnostic] = (), environment: Mapping[str, object] | None = None
) -> dict[str, Json]:
    """The verification as plain JSON values; numbers that are not finite become null.

    `findings` are those about the run; errors among them say how it is not as locked. `environment` says on what
    device and with which versions it was run.
    """
    methodology, model = found.methodology, found.model
    document = {
        "format_version": FORMAT_VERSION,
        "hypothesis": {"name": found.name, "digest": found.digest},
        "model": {
            "id": model.id,
            "revision": model.revision,
            "dtype": model.dtype,
            "family": model.family,
            "n_layers": model.n_layers,
            "n_heads": model.n_heads,
        },
        "methodology": {
            "level": methodology.level,
            "noised": methodology.ablated,
            "free": methodology.free,
            "ablation": methodology.ablation,
            "source": methodology.source,
            "averaged": methodology.averaged or None,
            "positions": methodology.positions,
            "direction": methodology.direction,
            "set": methodology.set,
            "kept": methodology.kept or None,
            "through": methodology.through,
            **({"errors_left_out": methodology.left_out} if methodology.left_out else {}),
            "description": methodology.describe(),
        },
        "n_prompts": found.n_prompts,
        "prompts_digest": found.prompts_digest or None,
        "rows": rows_data(found),
        "around_prompts": _around(found.around),
        "reference": None
        if found.reference is None
        else {"count": found.reference.count, "digest": found.reference.digest},
        "verdict": found.verdict,
        "drift": [{"code": one.code, "message": one.message} for one in findings if one.severity == "error"],
        "claims": [_claim(found, place, claim) for place, claim in enumerate(found.claims)],
        "self_test": None
        if found.self_test is None
        else {"own_values": found.self_test.own_values, "all_patched": found.self_test.all_patched},
        "warnings": [
            {"code": w.code, "message": w.message, "detail": w.detail, "help": w.help, "data": w.data}
            for w in found.warnings
        ],
        "breakdowns": breakdowns_data(found),
        "paths": [_path(effect) for effect in found.paths],
        "negatives": None if found.negatives is None else _negatives(found.negatives),
        "sweep": None if found.sweep is None else sweep_data(found.sweep),
        "tests": None if found.tests is None else tests_data(found.tests),
        "scrubs": scrubs_data(found.scrubs),
        "effects": None if found.effects is None else effects_data(found.effects),
        "cost": {
            "experiments": found.cost.n_experiments,
            "stored": found.cost.n_stored,
            "forwards": found.cost.n_forwards,
            "seconds": found.cost.seconds,
        },
        "artifacts": found.artifacts,
        "environment": environment,
    }
    if found.profile:
        document["profile"] = [
            {**asdict(stage), "forwards": stage.prompts / found.n_prompts} for stage in found.profile
        ]
    if found.alternatives is not None:
        document["alternatives"] = alternatives_data(found.alternatives)
    if found.shown is not None:
        document["first_prompts"] = asdict(found.shown)
    if found.sequence is not None:
        document["sequence"] = sequence_data(found)
    if found.dictionaries is not None:
        document["dictionaries"] = asdict(found.dictionaries)
    return {key: plain(value) for key, value in document.items()}


def _around(found: AroundPrompts) -> dict[str, Json]:
    """What stands around the prompts: special tokens put in front (the fewest and the most), a chat template."""
    chat = found.chat
    return {
        "special_tokens": found.special_tokens,
        "in_front": list(found.in_front),
        "token_ids": found.given_ids,
        "answer_ids": {str(one): text for one, text in found.answers},
        "chat": None
        if chat is None
        else {
            "before": chat.before,
            "behind": chat.behind,
            "tokens_before": chat.tokens_before,
            "tokens_behind": chat.tokens_behind,
        },
    }


def _path(effect: PathEffect) -> dict[str, Json]:
    """A declared path by itself."""

    def interval(found: Estimate | None) -> Json:
        if found is None:
            return None
        return {"value": found.value, "ci": None if found.interval is None else list(found.interval)}

    return {
        "path": effect.path,
        "metric": effect.metric,
        "drop": interval(effect.drop),
        "rise": interval(effect.rise),
    }


def _negatives(search: NegativeSearch) -> dict[str, Json]:
    """What was looked for and found; the figures of what was found are in the CS401 warning."""
    finding = search.finding
    if finding is None:
        return {"search": search.search, "metric": None, "screened": None, "tested": None, "found": None}
    return {
        "search": search.search,
        "metric": finding.metric,
        "screened": finding.screened,
        "tested": finding.tested,
        "found": len(finding.components),
    }


def render_json(found: Verification) -> str:
    """The document as text, ending in a newline."""
    return print_document(to_document(found))


def _claim(found: Verification, place: int, claim: ClaimResult) -> dict[str, object]:
    estimate, planned = claim.estimate, found.plan.claims[place]
    runs = {"clean": planned.clean, "corrupt": planned.corrupt, "patched": planned.patched}
    return {
        "index": claim.index,
        "claim": claim.kind,
        "measure": claim.measure,
        "metric": claim.metric,
        "status": claim.status,
        **_figure(estimate),
        "bound": {"at_least": claim.at_least, "at_most": claim.at_most},
        "n": claim.n,
        "reason": claim.reason,
        "parts": [_part(part) for part in claim.parts],
        "found": claim.found or None,
        "notes": list(claim.notes),
        "experiment": claim.experiment,
        "direction": planned.patched.direction,
        "base": str(planned.patched.base),
        "source": None if planned.patched.source is None else str(planned.patched.source),
        "means": {name: mean_of(found.records[run][claim.metric]) for name, run in runs.items()},
        "runs": {found.plan.labels[run]: mean_of(found.records[run][claim.metric]) for run in planned.runs},
    }


def _figure(estimate: Estimate | None) -> dict[str, object]:
    return {
        "value": None if estimate is None else estimate.value,
        "ci": None if estimate is None else estimate.interval,
        "level": None if estimate is None else estimate.level,
        "ci_method": None if estimate is None else estimate.method,
        "uncorrected": None if estimate is None else estimate.uncorrected,
        "means_error": None if estimate is None else estimate.means_error,
    }


def _part(part: ClaimPart) -> dict[str, object]:
    """One of the figures of a claim that several decide."""
    return {
        "name": part.name,
        "status": part.status,
        **_figure(part.estimate),
        "bound": {"at_least": part.at_least, "at_most": part.at_most},
        "reason": part.reason,
        "note": part.note,
        "nodes": part.nodes,
        "means": part.means,
        **({"figures": {name: _figure(one) for name, one in part.figures}} if part.figures else {}),
    }


def plain(value: object) -> Json:
    """Containers and numpy scalars as JSON values. Raises TypeError for what JSON has no word for."""
    match value:
        case None | bool() | str():
            return value
        case np.bool_():
            return bool(value)
        case int() | np.integer():
            return int(value)
        case float() | np.floating():
            return float(value) if math.isfinite(value) else None
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case Sequence():
            return [plain(item) for item in value]
    raise TypeError(f"no JSON value for {type(value).__name__}")
