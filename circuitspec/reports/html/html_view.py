"""A verification -> what its page says, as plain values: the template only sets it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from importlib import metadata

from circuitspec.analysis.claims.verdict import Status
from circuitspec.analysis.statistics.stats import SEED
from circuitspec.analysis.statistics.wording import MISSING, briefly, number, plural
from circuitspec.analysis.verification_result import Verification
from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.reports.html.html_charts import charts
from circuitspec.reports.html.html_circuit import circuit_view
from circuitspec.reports.html.html_effects import effects_charts, effects_tables
from circuitspec.reports.html.html_examples import attention_charts, examples_view, headline
from circuitspec.reports.many_run_tables import claim_tables
from circuitspec.reports.reported import Reported, bound_of, choices_of, means_of, search_of, value_of
from circuitspec.reports.text.additional_tables import beside_charts, beside_tables
from circuitspec.reports.text.alternatives_table import alternatives_tables
from circuitspec.reports.text.data_frames import experiments_frame, metric_names
from circuitspec.reports.text.prompt_lines import prompt_lines
from circuitspec.reports.text.scrub_tables import scrubs_charts, scrubs_tables
from circuitspec.reports.text.sequence_table import sequence_tables
from circuitspec.reports.views import NOT_AS_LOCKED, ClaimView, Page, Remark, Table

_STATUSES: tuple[Status, ...] = ("SUPPORTED", "REFUTED", "INCONCLUSIVE")
_PACKAGES = ("circuitspec", "torch", "transformers", "pyvene")
_MOST_ROWS = 1000  # of the table of experiments


def page_of(reported: Reported) -> Page:
    """The page of a verification."""
    found, task = reported.verification, reported.task
    drawn, tables = charts(found, None if task is None else task.prompts)
    tables = (*tables, *claim_tables(found), *scrubs_tables(found.scrubs), *beside_tables(found))
    tables = (*sequence_tables(found), *tables, *alternatives_tables(found.alternatives))
    drawn = (*drawn, *scrubs_charts(found.scrubs), *beside_charts(found))
    data: Mapping[str, object] = reported.source.data if isinstance(reported.source.data, dict) else {}
    return Page(
        name=found.name,
        description=_text(data, "description"),
        origin=_text(data, "source"),
        verdict=found.verdict,
        counts=counts(reported),
        subject=subject(found),
        claims=tuple(claim_views(reported)),
        remarks=tuple(remarks(reported)),
        search=search_of(found),
        circuit=circuit_view(found, reported.source, order_of(task), task),
        effects=effects_charts(found),
        effect_tables=effects_tables(found),
        charts=drawn,
        tables=tables,
        paths=_paths(found),
        experiments=_experiments(found),
        prompts=() if task is None else prompt_lines(found, task.prompts),
        file=reported.source.file,
        lines=reported.source.lines,
        provenance=tuple(_provenance(reported)),
        headline=headline(found),
        examples=examples_view(found),
        attention=attention_charts(found),
        attention_note="" if found.shown is None or found.shown.attention else found.shown.note,
    )


def subject(found: Verification) -> str:
    """The model, and on how many prompts it was run."""
    rows = "" if found.rows is None else f"; {found.rows.described()}"
    return f"{found.model.id} ({found.model.description}), {plural(found.n_prompts, 'prompt')}{rows}"


def order_of(task: TokenizedTask | None) -> dict[str, float]:
    """Positions by the mean number of their token, from left to right."""
    return {} if task is None else {name: sum(at) / max(1, len(at)) for name, at in task.roles.items()}


def _text(data: Mapping[str, object], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""


def counts(reported: Reported) -> str:
    """`1 supported, 1 refuted, 1 warning`, and that it is not as locked, if so."""
    found = reported.verification
    statuses = [claim.status for claim in found.claims]
    told = [f"{statuses.count(status)} {status.lower()}" for status in _STATUSES if status in statuses]
    drifted = [NOT_AS_LOCKED] if reported.drifted else []
    return ", ".join([*(told or ["no claims"]), *drifted, plural(len(found.warnings), "warning")])


def claim_views(reported: Reported) -> Iterator[ClaimView]:
    """The claims in the file's order."""
    found = reported.verification
    for place, (planned, claim) in enumerate(zip(found.plan.claims, found.claims, strict=True)):
        experiment = f"{claim.experiment}: {choices_of(found, planned)}; {plural(claim.n, 'prompt')}"
        yield ClaimView(
            place + 1,
            claim.kind,
            claim.status,
            value_of(claim),
            bound_of(claim),
            claim.reason,
            experiment[:1].upper() + experiment[1:],
            means_of(found, place),
            reported.claim_span(place).line,
        )


def remarks(reported: Reported) -> Iterator[Remark]:
    """Findings about the run, then warnings about the evidence."""
    for finding in reported.findings:
        yield _remark(finding, None)
    for warning in reported.verification.warnings:
        finding = reported.warning_finding(warning)
        yield _remark(finding, None if finding.span is None else finding.span.line)


def _remark(finding: Diagnostic, line: int | None) -> Remark:
    return Remark(finding.code, finding.severity, finding.message, finding.label, finding.hint, line)


def _paths(found: Verification) -> Table | None:
    if not found.paths:
        return None
    rows = tuple(
        (effect.path, *(MISSING if one is None else briefly(one) for one in (effect.drop, effect.rise)))
        for effect in found.paths
    )
    caption = f"Path patching of each declared path: {found.paths[0].metric} as a share of clean - corrupt"
    return Table(caption, ("path", "drop when ablated", "rise when restored"), rows)


def _experiments(found: Verification) -> Table:
    """A row an experiment, with the mean and the recovered performance of every metric."""
    frame = experiments_frame(found.plan, found.records, known=found.denominators)
    metrics = metric_names(found.records, [claim.metric for claim in found.claims])
    facts = ("experiment", "run on", "patched in", "level", "components", "edges")
    rows = []
    for row in frame.head(_MOST_ROWS).to_dict("records"):
        patched = " of ".join(filter(None, (str(row["ablation"]), str(row["source"])))) or MISSING
        level = row["level"] if row["direction"] else MISSING
        counts = (str(row[key]) if row[key] else MISSING for key in ("n_sites", "n_edges"))
        values = (row[f"{kind}{metric}"] for kind in ("", "recovered_") for metric in metrics)
        numbers = (number(None if math.isnan(value) else value) for value in values)
        rows.append((str(row["experiment"]), str(row["base"]), patched, str(level), *counts, *numbers))
    caption = plural(len(frame), "experiment") + " and every metric, means over prompts"
    if len(frame) > _MOST_ROWS:
        caption += f" (the first {_MOST_ROWS}; all are in the tables of --output-dir)"
    groups = (("", len(facts)), ("mean", len(metrics)), ("recovered", len(metrics)))
    return Table(caption, (*facts, *metrics, *metrics), tuple(rows), groups, numeric=4)


def _provenance(reported: Reported) -> Iterator[tuple[str, str]]:
    found, model = reported.verification, reported.verification.model
    if reported.asked is None:
        yield "file", reported.source.file
    else:
        yield "command", shlex.join(["circuitspec", "verify", reported.source.file, *reported.asked.options])
        yield "device", reported.asked.device
    yield "hypothesis, SHA-256", found.digest
    yield "model", f"{model.id} ({model.description})"
    yield "revision", model.revision or "none given"
    yield "number format", model.dtype
    yield "prompts", str(found.n_prompts)
    if found.rows is not None:
        yield "prompts file", found.rows.described()
    yield "around the prompts", found.around.described
    if found.prompts_digest:
        yield "prompts, SHA-256", found.prompts_digest
    if seeds := _seeds(reported.source.data):
        yield "seeds", seeds
    yield "method", found.methodology.describe()
    if found.dictionaries is not None:
        yield from (("dictionary", one.described()) for one in found.dictionaries.each)
    if found.self_test is not None:
        tested = found.self_test
        yield (
            "self-test",
            f"patching own values moved the answer logits by {tested.own_values:.1g} of their standard deviation, "
            f"patching everything left them {tested.all_patched:.1g} from the source's",
        )
    cost = found.cost
    yield (
        "cost",
        f"{plural(cost.n_experiments, 'experiment')}, {plural(cost.n_forwards, 'forward')}, {cost.seconds:.1f} s",
    )
    yield "versions", ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    if found.artifacts:
        yield "tables", ", ".join(found.artifacts)


def _seeds(data: object) -> str:
    """`prompts 0, bootstrap 0`: of what the file has drawn, and of the intervals; "" where the file is not known."""
    hypothesis = data if isinstance(data, dict) else {}
    task, ablation = hypothesis.get("task"), hypothesis.get("ablation")
    if not isinstance(task, dict) or not isinstance(ablation, dict):
        return ""
    said = [] if "file" in task else [f"prompts {task.get('seed', 0)}"]
    said.append(f"bootstrap {SEED}")
    kind = ABLATIONS.get(str(ablation.get("value")))
    if kind is not None and kind.noise:
        said.append(f"noise {ablation.get('seed') or 0}")
    return ", ".join(said)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
