"""The report that a person reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from circuitspec.analysis.claims.registry import kind_of
from circuitspec.analysis.claims.verdict import ClaimResult, Status
from circuitspec.analysis.statistics.scores import Anchors, Gap, mean_of, score
from circuitspec.analysis.statistics.wording import MISSING, briefly, number, plural, with_interval
from circuitspec.analysis.verification_result import Verification
from circuitspec.analysis.warnings.evidence import EvidenceWarning
from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.engine.records import SelfTest
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.notes import plan_notes
from circuitspec.experiments.planner import Measure
from circuitspec.prompts.output_metrics import METRICS
from circuitspec.prompts.prompt_set import PromptSet
from circuitspec.reports.reported import choices_of, result_of, search_of
from circuitspec.reports.text.additional_tables import beside_text, tests_said
from circuitspec.reports.text.alternatives_table import alternatives_text
from circuitspec.reports.text.breakdown_tables import breakdown_text
from circuitspec.reports.text.data_frames import metric_names
from circuitspec.reports.text.effects_table import effects_text
from circuitspec.reports.text.printing import print_text
from circuitspec.reports.text.prompt_lines import prompt_lines
from circuitspec.reports.text.scrub_tables import scrubs_text
from circuitspec.reports.text.sequence_table import sequence_text
from circuitspec.reports.views import NOT_AS_LOCKED, Block, Piece, Style, TextView
from circuitspec.runtime.text_columns import aligned
from circuitspec.runtime.visible_text import visible

_COLOURS: dict[Status, str] = {"SUPPORTED": "green", "REFUTED": "red", "INCONCLUSIVE": "yellow"}
_STATUSES: tuple[Status, ...] = ("SUPPORTED", "REFUTED", "INCONCLUSIVE")

_HALF = ("bfloat16", "float16")


def render_text(
    found: Verification,
    *,
    color: bool = False,
    prompts: PromptSet | None = None,
    findings: Sequence[Diagnostic] = (),
) -> str:
    """The whole report, ending in a newline: what was run, what it measured, claims, warnings, counts.

    Plain text; with `color`, ANSI colours for statuses and warnings alone. With `prompts` (those of the verification),
    the prompts behind each claim are listed too. Errors among `findings` say how the result is not as locked.
    """
    return print_text(text_view(found, prompts, findings), Style(color, list_prompts=True))


def text_view(found: Verification, prompts: PromptSet | None = None, findings: Sequence[Diagnostic] = ()) -> TextView:
    """The report in blocks. With `prompts` (those of the verification) the prompts behind each claim are there too.

    Errors among `findings` say how the result is not as locked: they stand below the claims.
    """
    drift = [finding for finding in findings if finding.severity == "error"]
    parts = [_heading(found)]
    blocks = _blocks(found)
    tables = [block.table or _table(found, block, found.denominators[block.between]) for block in blocks]
    # the model and the first choices belong together, as do each further run's heading and table
    parts[0] += "\n" + blocks[0].heading + "\n\n" + tables[0]
    parts += [f"{block.heading}\n\n{table}" for block, table in zip(blocks[1:], tables[1:], strict=True)]
    head = [_plain(part) for part in parts]
    if found.claims:
        head.append(_claims(found))
    head += [_plain(block) for block in (*sequence_text(found), *breakdown_text(found))]
    head += [_drift(finding) for finding in drift]
    if found.paths:
        head.append(_plain(_paths(found)))
    head += [_plain(block) for block in (*scrubs_text(found.scrubs), *effects_text(found), *beside_text(found))]
    head += [_plain(block) for block in alternatives_text(found.alternatives)]
    tail = [_warning(warning) for warning in found.warnings]
    rest = [visible(search_of(found))]
    if found.dictionaries is not None:
        rest.append("\n".join(visible(line) for line in found.dictionaries.described().splitlines()))
    if found.around.told:
        rest.append(f"prompts: {visible(found.around.described)}")
    if found.graph is not None:
        rest.append("\n".join(f"note: {visible(note)}" for note in plan_notes(found.plan, found.graph)))
    if found.self_test is not None and found.model.dtype in _HALF:
        rest.append(_self_test(found.self_test, found.model.dtype))
    if found.artifacts:
        rest.append("written: " + ", ".join(map(visible, found.artifacts)))
    rest.append(_profile(found))
    rest.append(tests_said(found.tests))
    rest.append(_summary(found, drifted=bool(drift)))
    tail += [_plain(part) for part in rest if part]
    return TextView(tuple(head), () if prompts is None else prompt_lines(found, prompts), tuple(tail))


def _profile(found: Verification) -> str:
    """Where the time went; empty where that was not asked for. Forwards are passes over all prompts."""
    if not found.profile:
        return ""
    rows = [["where the time went", "seconds", "forwards", "memory by then"]]
    for one in found.profile:
        memory = MISSING if one.peak_bytes is None else f"{one.peak_bytes / 1e6:,.0f} MB"
        rows.append([f"  {one.stage}", f"{one.seconds:.2f}", f"{one.prompts / found.n_prompts:.1f}", memory])
    return aligned(rows)


@dataclass(frozen=True)
class _Block:
    """One patched run between its anchors, and the claims that it decides."""

    heading: str
    patched: Experiment
    between: Anchors
    measure: Measure = "recovered"
    falls: bool = False  # whether that is counted from the clean anchor down
    brief: bool = False  # whether the claimed metrics alone are shown: a file may have dozens of path claims
    claims: dict[str, ClaimResult] = field(default_factory=dict)  # by metric
    table: str = ""  # of a claim that several figures decide


def _blocks(found: Verification) -> list[_Block]:
    blocks: dict[tuple[str, Experiment, Anchors], _Block] = {}
    for planned, claim in zip(found.plan.claims, found.claims, strict=True):
        between = Anchors(planned.clean, planned.corrupt)
        heading = visible(f"{claim.experiment}: {choices_of(found, planned)}")
        key = (heading, planned.patched, between)
        if not claim.parts or claim.estimate is not None:
            brief = kind_of(planned).claimed_metrics_only
            block = blocks.setdefault(key, _Block(heading, *key[1:], planned.measure, planned.falls, brief))
            block.claims.setdefault(claim.metric, claim)
        if claim.parts:
            head, *rows = kind_of(planned).rows(planned, claim, found.records)
            table = _aligned([[f"  {row[0]}", *row[1:]] for row in (head, *rows)])
            table += "".join(f"\n  note: {visible(note)}" for note in claim.notes)
            title = heading if claim.estimate is None else f"{claim.kind} under other methods"
            blocks[f"{claim.index}: {title}", *key[1:]] = _Block(title, *key[1:], planned.measure, table=table)
    if not blocks:
        plan = found.plan
        return [_Block(visible(found.methodology.describe()), plan.circuit, Anchors(plan.clean, plan.corrupt))]
    return list(blocks.values())


def _heading(found: Verification) -> str:
    model = f"{visible(found.model.id)} ({visible(found.model.description)})"
    rows = "" if found.rows is None else f"\n{visible(found.rows.described())}"
    return f"{visible(found.name)}   {model}   {plural(found.n_prompts, 'prompt')}{rows}"


def _table(found: Verification, block: _Block, denominators: dict[str, Gap]) -> str:
    """Means per metric under both anchors and the patched run, and recovered performance."""
    records, labels = found.records, found.plan.labels
    runs = (block.between.clean, block.between.corrupt, block.patched)
    levels = {c.estimate.level for c in block.claims.values() if c.estimate is not None and c.estimate.interval}
    head = ["", *(labels[run] for run in runs), block.measure + "".join(f" [{level:.0%} CI]" for level in levels)]
    rows = [head]
    measured = metric_names(records, [claim.metric for claim in found.claims])
    claimed = [metric for metric in block.claims if metric in measured]
    others = () if block.brief else measured
    for metric in dict.fromkeys((*claimed, *others)):
        in_nats = metric in METRICS and METRICS[metric].unit == "nats"  # the other names say their unit
        name = f"  {metric} (nats)" if in_nats else f"  {metric}"
        means = [number(mean_of(records[run][metric])) if metric in records[run] else MISSING for run in runs]
        claim = block.claims.get(metric)
        if claim is not None:
            limits = [end for end in (claim.at_least, claim.at_most) if end is not None]
            recovered = with_interval(claim.estimate, limits) if claim.estimate is not None else MISSING
        elif metric in records[block.patched]:
            placed = score(records, block.patched, metric, denominators.get(metric)).recovered
            recovered = number(1 - placed if block.falls and placed is not None else placed)
        else:
            recovered = MISSING
        rows.append([name, *means, recovered])
    return _aligned(rows)


def _aligned(rows: list[list[str]]) -> str:
    """Columns three spaces apart; the first and last flush left, those between flush right."""
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:-1], widths[1:-1], strict=True)), row[-1]]
        lines.append("   ".join(cells).rstrip())
    return "\n".join(lines)


def _claims(found: Verification) -> Block:
    claims = found.claims
    status_width = max(len(claim.status) for claim in claims)
    kind_width = max(len(claim.kind) for claim in claims)
    pieces = []
    for planned, claim in zip(found.plan.claims, claims, strict=True):
        which = kind_of(planned).distinction(planned)
        line = f"{which}: {result_of(claim)}" if which else result_of(claim)
        pieces.append(Piece(claim.status.ljust(status_width), _COLOURS[claim.status]))
        pieces.append(Piece(f"  {claim.kind.ljust(kind_width)}   {visible(line)}\n"))
    return (*pieces[:-1], Piece(pieces[-1].text.removesuffix("\n")))


def _paths(found: Verification) -> str:
    """The declared paths one by one."""
    metric = found.paths[0].metric
    rows = [["  path", "drop when ablated", "rise when restored"]]
    for effect in found.paths:
        shown = [briefly(one) if one is not None else MISSING for one in (effect.drop, effect.rise)]
        rows.append([f"  {effect.path}", *shown])
    head = f"path patching of each declared path, {metric} as a share of the clean - corrupt difference"
    return f"{head}:\n\n{aligned(rows)}"


def _warning(warning: EvidenceWarning) -> Block:
    lines = [f": {visible(warning.message)}"]
    lines += [f"   {visible(warning.detail)}"] if warning.detail else []
    lines += [f"   help: {visible(warning.help)}"] if warning.help else []
    return Piece(f"warning[{warning.code}]", "yellow"), Piece("\n".join(lines))


def _drift(finding: Diagnostic) -> Block:
    return Piece(f"{NOT_AS_LOCKED}[{finding.code}]", "red"), Piece(f": {visible(finding.message)}")


def _self_test(tested: SelfTest, dtype: str) -> str:
    """How far patching itself is off in half precision, where rounding is no longer negligible."""
    return (
        f"{dtype}: in the self-tests, patching own values moved the logits by {tested.own_values:.1g} of their "
        f"standard deviation, patching everything by {tested.all_patched:.1g}"
    )


def _summary(found: Verification, *, drifted: bool) -> str:
    statuses = [claim.status for claim in found.claims]
    counts = [f"{statuses.count(status)} {status.lower()}" for status in _STATUSES if status in statuses]
    counts = [*(counts or ["no claims"]), *([NOT_AS_LOCKED] if drifted else [])]
    if found.warnings:
        counts.append(plural(len(found.warnings), "warning"))
    cost = found.cost
    stored = f" ({cost.n_stored} stored)" if cost.n_stored else ""
    spent = f"{plural(cost.n_experiments, 'experiment')}{stored}, {plural(cost.n_forwards, 'forward')}"
    spent += f", {cost.seconds:.1f} s"
    return f"{', '.join(counts)}   ({spent})"


def _plain(text: str) -> Block:
    return (Piece(text),)
