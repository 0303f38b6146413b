"""What a file asks to be explored: which values are patched in, what is left free, and whether it can be explored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic_core import PydanticCustomError

from circuitspec.analysis.claims.claim_result import MIN_PROMPTS
from circuitspec.analysis.statistics.wording import plural
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.ablation_source import NOISE_DRAWS, NOISE_STD, ablation_source, corrupt_prompts
from circuitspec.experiments.experiment import CLEAN_VALUES, Noised, Source, Variant
from circuitspec.experiments.internal_metric_plans import positions_of, readable
from circuitspec.experiments.requirements import check_spans
from circuitspec.exploration.draft import plain
from circuitspec.exploration.preview import no_corruption
from circuitspec.exploration.search.patching_series import PatchingSeries, series_of
from circuitspec.exploration.setting import ExplorationSetting
from circuitspec.graph.circuit_graph import CircuitGraph, lay_out
from circuitspec.graph.edges import is_writer
from circuitspec.graph.nodes import Ablatable, expand
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS, MEAN_PER_TEMPLATE, RESAMPLE
from circuitspec.hypothesis_file.grammar.internal_metric_names import (
    Internal,
    from_mapping,
    is_internal,
    parse_internal,
)
from circuitspec.hypothesis_file.grammar.names import NameSyntaxError, format_name, parse_name
from circuitspec.hypothesis_file.load_file import Study, with_named_source
from circuitspec.hypothesis_file.schema.blocks import AblationSpec, ReferenceFile
from circuitspec.hypothesis_file.yaml.source import parse_leniently
from circuitspec.prompts.output_metrics import METRICS
from circuitspec.prompts.prompt_set import TokenizedTask


@dataclass(frozen=True)
class Patching:
    """What ablation patches in, the prompts that denoising starts from, and how a draft writes that down."""

    value: str
    source: Source
    corrupt: Variant
    written: str


def patching_of(study: Study, corruptions: Sequence[str]) -> Patching:
    """As the file's `ablation` says; means of the first corruption where it says nothing.

    Raises CS541 where there is no corruption to compare with.
    """
    ablation = study.exploration.ablation
    if ablation is not None and ABLATIONS[ablation.value].noise:
        noise = corrupt_prompts(ablation)
        assert isinstance(noise, Noised)
        roles = ", ".join(f'"{role}"' for role in sorted(noise.where.roles))
        how = f"at: [{roles}], std: {noise.std:g}, draws: {noise.draws}, seed: {noise.seed}"
        written = f"{{value: {ablation.value}, {how}, level: node, positions: declared}}"
        return Patching(ablation.value, ablation_source(ablation), noise, written)
    if not corruptions:
        raise CircuitspecError(no_corruption(study))
    if ablation is None:
        value = (MEAN_PER_TEMPLATE if study.exploration.task.templates else RESAMPLE).name
        named = corruptions[0]
    else:
        ablation = with_named_source(ablation, corruptions, study.source)
        value, named = ablation.value, ablation.source or corruptions[0]
    source = ABLATIONS[value].source
    if not ABLATIONS[value].takes_prompts:
        return Patching(value, Source(source, None), named, f"{{value: {value}, level: node, positions: declared}}")
    over = "" if ablation is None else _reference(ablation)
    written = f"{{value: {value}, from: {plain(named)}, {over}level: node, positions: declared}}"
    return Patching(value, Source(source, named), named, written)


def _reference(ablation: AblationSpec) -> str:
    """`reference: 2000, ` as the file has it; empty where it says nothing."""
    match ablation.reference:
        case None:
            return ""
        case ReferenceFile(file=name):
            return f"reference: {{file: {plain(name)}}}, "
        case given:
            return f"reference: {given}, "


def metric_inside(text: str) -> Internal | None:
    """The metric inside the model that a text names, as claims write it; None for a score of the output.

    Raises CS168 for what is neither.
    """
    if text in METRICS:
        return None
    try:
        if text.lstrip().startswith("{"):
            source, findings = parse_leniently(text, "--metric")
            if findings:
                raise CircuitspecError(*findings)
            assert isinstance(source.data, dict)  # it starts like one, and nothing was found wrong with it
            return parse_internal(from_mapping(source.data))
        if is_internal(text):
            return parse_internal(text)
    except PydanticCustomError as error:
        said = error.context or {}
        raise CircuitspecError(Diagnostic("CS168", f"--metric: {said['message']}", hint=said["hint"])) from None
    raise CircuitspecError(
        Diagnostic(
            "CS168",
            f"--metric: {text} is no metric",
            hint=f"write {', '.join(METRICS)}, or {{attention: a9.h9, from: END, to: IO}} and the like",
        )
    )


def check_inside(metric: Internal, shape: ModelShape, task: TokenizedTask, study: Study) -> None:
    """Whether the metric can be read from this model and these prompts. Raises CS220, CS225, CS507."""
    problems = readable(metric, shape, study.source, ("model", "id"))
    problems += [_nowhere("--metric", role, task) for role in positions_of(metric) if role not in task.roles]
    if problems:
        raise CircuitspecError(*problems)
    check_spans(positions_of(metric), task)


def _nowhere(option: str, role: str, task: TokenizedTask) -> Diagnostic:
    return Diagnostic(
        "CS507",
        f"{option}: position `{role}` is not in every prompt",
        hint=f"positions that every prompt has: {', '.join(sorted(task.roles))}",
    )


def declared_circuit(study: Study, shape: ModelShape, task: TokenizedTask) -> CircuitGraph | None:
    """The circuit that the file declares, if it does. Raises what `lay_out` does, and CS507."""
    if study.exploration.circuit is None:
        return None
    graph = lay_out(study.exploration.circuit, shape, study.source)
    named = {role for where in graph.circuit.values() for role in where.roles}
    named |= {role for path in graph.paths for hop in path.hops for stop in hop for role in stop.where.roles}
    lost = sorted(named - set(task.roles))
    if lost:
        with study.blamed_on("circuit", "groups"):
            raise CircuitspecError(*(_nowhere("circuit", role, task) for role in lost))
    return graph


def swept_noise(patching: Patching, at: Sequence[str], task: TokenizedTask) -> Noised | None:
    """The noise that sweeps add to embeddings: the file's own, or at these positions as ROME does it. Raises CS507."""
    if not at:
        return patching.corrupt if isinstance(patching.corrupt, Noised) else None
    lost = [role for role in at if role not in task.roles]
    if lost:
        raise CircuitspecError(*(_nowhere("--noise-at", role, task) for role in lost))
    return Noised(NOISE_STD, Where.at(*at), NOISE_DRAWS, 0)


def swept_series(
    patching: Patching, values: Sequence[str], corruptions: Sequence[str], study: Study, noise: Noised | None = None
) -> tuple[PatchingSeries, ...]:
    """What sweeps compare: every value that is asked for (the file's own where none is) from every corruption.

    The file's own come first. Raises CS541 for noise of which the file does not say where it is added.
    """
    noisy = next((value for value in values if ABLATIONS[value].noise), None)
    if noisy is not None and noise is None:
        raise CircuitspecError(
            Diagnostic(
                "CS541",
                f"--value {noisy}: the file does not say where noise is added",
                study.source.span(("ablation",) if study.exploration.ablation is not None else ("task",)),
                hint=f"add --noise-at SLOT, or write ablation: {{value: {noisy}, at: SLOT}}",
            )
        )
    own = patching.corrupt
    prompts = sorted(corruptions, key=lambda name: (name != own, corruptions.index(name)))
    chosen = sorted(values or (patching.value,), key=lambda value: value != patching.value)
    if not any(ABLATIONS[value].has_corrupt_run for value in chosen) and prompts:  # denoise the corruptions'
        denoised = [one for one in series_of((CLEAN_VALUES.kind,), prompts, None) if not one.noising]
        return (*series_of(chosen, prompts, None), *denoised)
    return series_of(chosen, prompts, noise)


_FREED = "write a head (a9.h6), an attention layer (a9), an MLP (m3), or many of them, such as m*"


def free_components(names: Sequence[str], study: Study, shape: ModelShape) -> frozenset[Ablatable]:
    """Heads and MLPs that are never patched.

    Raises CS541 for what names none, or not them whole; CS220 for what the model lacks.
    """
    found: set[Ablatable] = set()
    problems: list[Diagnostic] = []
    for text in names:
        try:
            name = parse_name(text)
        except NameSyntaxError as error:
            problems.append(Diagnostic("CS541", f"--free {text}: {error.message}", hint=error.hint))
            continue
        own: list[Diagnostic] = []
        components = expand(name, shape, study.source, ("model", "id"), own)
        problems += own
        whole = {c for c in components if is_writer(c)}
        if len(whole) < len(components):
            said = "explore searches heads and MLPs, and leaves nothing else free"
            problems.append(Diagnostic("CS541", f"--free {text}: {said}", hint=_FREED))
        elif name.ports or name.positions:
            said = "what is free is so with all of its inputs and at every position"
            problems.append(Diagnostic("CS541", f"--free {text}: {said}", hint=f"write {format_name(name.target)}"))
        found |= whole
    if problems:
        raise CircuitspecError(*problems)
    return frozenset(found)


def check_broken(setting: ExplorationSetting, study: Study) -> None:
    """CS541 unless the corruption is seen to break the behaviour: there would be nothing to share out."""
    for what, measured in (("ablating everything", setting.gap), ("the corruption", setting.prompt_gap)):
        if measured.state == "sound":
            continue
        broke, breaks = ("breaks", "break") if setting.inside is None else ("changes", "change")
        of = "the behaviour" if setting.inside is None else "the metric"
        n = setting.runner.task.n
        hint = "corrupt the slots that the answer depends on, or check that the model does the task"
        said = f"{what} does not {breaks} {of}"
        if measured.state == "zero" and measured.difference.value and n < MIN_PROMPTS:
            said = f"{plural(n, 'prompt')} cannot tell whether {what} {broke} {of}"
            hint = f"take {MIN_PROMPTS} prompts or more"
        numbers = f"{measured.clean:.2f} on the clean prompts and {measured.corrupt:.2f} then"
        raise CircuitspecError(
            Diagnostic("CS541", f"{said}: {setting.metric} is {numbers}", study.source.span(("task",)), hint=hint)
        )
