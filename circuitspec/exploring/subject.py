"""What a file asks to be explored: which values are patched in, what is left free, and whether it can be explored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.exploring.series import Series, series_of
from circuitspec.exploring.setting import Setting
from circuitspec.graph.nodes import Ablatable, expand
from circuitspec.graph.shape import ModelShape
from circuitspec.plan.experiment import Noised, Source, Variant
from circuitspec.plan.sources import ablation_source, corrupt_prompts
from circuitspec.spec.components import Head, Mlp
from circuitspec.spec.load import Study
from circuitspec.spec.names import NameSyntaxError, parse_name


@dataclass(frozen=True)
class Patching:
    """What noising patches in, the prompts that denoising starts from, and how a draft writes that down."""

    value: str
    source: Source
    corrupt: Variant
    written: str


def patching_of(study: Study, corruptions: Sequence[str]) -> Patching:
    """As the file's `ablation` says; means of the first corruption where it says nothing.

    Raises CS541 where there is no corruption to compare with.
    """
    ablation = study.exploration.ablation
    if ablation is not None and ablation.value == "gaussian":
        noise = corrupt_prompts(ablation)
        assert isinstance(noise, Noised)
        roles = ", ".join(f'"{role}"' for role in sorted(noise.where.roles))
        how = f"at: [{roles}], std: {noise.std:g}, draws: {noise.draws}, seed: {noise.seed}"
        written = f"{{value: gaussian, {how}, level: node, positions: declared}}"
        return Patching("gaussian", ablation_source(ablation), noise, written)
    if not corruptions:
        raise CircuitspecError(
            Diagnostic(
                "CS541",
                "the prompts have no corruption, and there is nothing to compare the clean ones with",
                study.source.span(("task",)),
                hint="add task: corruptions: {abc: {SLOT: $list}}",
            )
        )
    if ablation is None:
        value = "mean_per_template" if study.exploration.task.templates else "resample"
        named = corruptions[0]
    else:
        value, named = ablation.value, ablation.source or corruptions[0]
    if value == "zero":
        return Patching(value, Source("zero", None), named, "{value: zero, level: node, positions: declared}")
    written = f"{{value: {value}, from: {named}, level: node, positions: declared}}"
    return Patching(value, Source(value, named), named, written)  # type: ignore[arg-type]


def swept_series(
    patching: Patching, values: Sequence[str], corruptions: Sequence[str], study: Study
) -> tuple[Series, ...]:
    """What sweeps compare: every value that is asked for (the file's own where none is) from every corruption.

    The file's own come first. Raises CS541 for noise of which the file does not say where it is added.
    """
    noise = patching.corrupt if isinstance(patching.corrupt, Noised) else None
    if "gaussian" in values and noise is None:
        raise CircuitspecError(
            Diagnostic(
                "CS541",
                "--value gaussian: the file does not say where noise is added",
                study.source.span(("ablation",) if study.exploration.ablation is not None else ("task",)),
                hint="write ablation: {value: gaussian, at: SLOT}; other values can be swept beside it",
            )
        )
    own = patching.corrupt
    prompts = sorted(corruptions, key=lambda name: (name != own, corruptions.index(name)))
    chosen = sorted(values or (patching.value,), key=lambda value: value != patching.value)
    if chosen == ["zero"] and prompts:  # it has no corrupt run of its own: denoise the corruptions'
        denoised = [one for one in series_of(("resample",), prompts, None) if not one.noising]
        return (*series_of(chosen, prompts, None), *denoised)
    return series_of(chosen, prompts, noise)


def free_components(names: Sequence[str], study: Study, shape: ModelShape) -> frozenset[Ablatable]:
    """Heads and MLPs that are never patched. Raises CS541 for what is no name, CS220 for what the model lacks."""
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
        found |= {c for c in components if isinstance(c, Head | Mlp)}
    if problems:
        raise CircuitspecError(*problems)
    return frozenset(found)


def check_broken(setting: Setting, study: Study) -> None:
    """CS541 unless the corruption breaks the behaviour: there would be nothing to share out."""
    for what, measured in (("ablating everything", setting.gap), ("the corruption", setting.prompt_gap)):
        if measured.state != "sound":
            raise CircuitspecError(
                Diagnostic(
                    "CS541",
                    f"{what} does not break the behaviour: {setting.metric} is {measured.clean:.2f} on the clean "
                    f"prompts and {measured.corrupt:.2f} then",
                    study.source.span(("task",)),
                    hint="corrupt the slots that the answer depends on, or check that the model does the task",
                )
            )
