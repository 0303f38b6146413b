"""The prompts behind each claim, as lines of text: distribution, templates, and the prompts that speak against it."""

from __future__ import annotations

from circuitspec.analysis.claims.verdict import ClaimResult
from circuitspec.analysis.prompt_scores import QUANTILES, WORST, Against, PromptView, prompt_view
from circuitspec.analysis.statistics.prompt_groups import GroupScore
from circuitspec.analysis.statistics.wording import MISSING, number, with_interval
from circuitspec.analysis.verification_result import Verification
from circuitspec.experiments.experiment import texts_of
from circuitspec.experiments.planner import PlannedClaim
from circuitspec.prompts.prompt_set import PromptSet
from circuitspec.reports.reported import value_of
from circuitspec.runtime.visible_text import visible

_WIDTH = 100  # characters of a prompt or template; the rest is in the per-prompt table (--out)
_NAME = 20  # characters of a run's label at the head of a column
_REASONS: dict[Against, str] = {
    "short": "prompts that fall furthest short",
    "too much": "prompts that keep the most",
    "off": "prompts that are furthest off",
}


def prompt_lines(found: Verification, prompts: PromptSet, *, worst: int = WORST) -> tuple[str, ...]:
    """A block of lines for every claim that has a figure, one a run and metric, with an empty line between blocks.

    Raises ValueError when `prompts` are not those of the verification.
    """
    if len(prompts.prompts) != found.n_prompts:
        raise ValueError(f"{len(prompts.prompts)} prompts, but a verification of {found.n_prompts}")
    lines: list[str] = []
    seen = set()
    for planned, claim in zip(found.plan.claims, found.claims, strict=True):
        key = (planned.patched, planned.clean, planned.corrupt, claim.metric)
        view = None if key in seen else prompt_view(planned, claim, found.records, prompts, worst=worst)
        if view is not None:
            seen.add(key)
            lines += [""] if lines else []
            lines += _block(found, planned, claim, view, prompts)
    return tuple(lines)


def _block(
    found: Verification, planned: PlannedClaim, claim: ClaimResult, view: PromptView, prompts: PromptSet
) -> list[str]:
    label = found.plan.labels.get(planned.patched, planned.patched.digest[:8])
    quantiles = "   ".join(
        f"{'median' if q == 0.5 else f'{q:.0%}'} {number(value)}"
        for q, value in zip(QUANTILES, view.quantiles, strict=True)
    )
    lines = [visible(f"prompts behind {claim.kind} ({label}), {value_of(claim)}")]
    lines.append(f"  each adds: {quantiles}" if view.worst else "  each adds the same")
    if view.worst:
        for name, scores in view.groups:
            lines += ["", *_group_table(name, claim, scores)]
        lines += ["", *_worst_table(found, planned, claim, view, prompts)]
    return lines


def _group_table(name: str, claim: ClaimResult, scores: tuple[GroupScore, ...]) -> list[str]:
    rows = [[name, "prompts", claim.measure]]
    for score in scores:
        value = MISSING if score.recovered is None else with_interval(score.recovered)
        rows.append([_short(score.label), str(score.n), value])
    return _table(rows, right=(1,))


def _worst_table(
    found: Verification, planned: PlannedClaim, claim: ClaimResult, view: PromptView, prompts: PromptSet
) -> list[str]:
    labels = found.plan.labels
    ends = (labels.get(e, e.digest[:8]) for e in (planned.corrupt, planned.clean))
    low, high = (name if len(name) <= _NAME else "anchor" for name in ends)
    rows = [["prompt", high, low, "patched", "adds", "text"]]
    for score in view.worst:
        prompt = prompts.prompts[score.prompt]
        clean, corrupt = (score.zero, score.one) if planned.falls else (score.one, score.zero)
        values = [number(value) for value in (clean, corrupt, score.patched, score.contribution)]
        rows.append([str(prompt.index), *values, _short(prompt.texts[texts_of(planned.patched.base)])])
    return [f"  {_REASONS[view.reason]}, {view.metric}:", *_table(rows, right=(0, 1, 2, 3, 4))]


def _table(rows: list[list[str]], right: tuple[int, ...]) -> list[str]:
    """Columns three spaces apart, indented by two; those in `right` flush right."""
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  "
        + "   ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 3].rstrip() + "..."
