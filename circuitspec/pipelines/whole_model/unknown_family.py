"""Which entries of the table fit a model of a family that is not in it, and how: `doctor --new`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.validation.site_tests import diagnose
from circuitspec.graph.shape import ModelShape
from circuitspec.models.families.family_table import SUPPORTED, architecture_of
from circuitspec.models.families.modules import verify_modules
from circuitspec.models.families.registered_families import GROUP
from circuitspec.models.load import LoadedModel, Provenance
from circuitspec.models.model_config import read_config, shape_of
from circuitspec.models.storage.quiet import quiet_transformers
from circuitspec.runtime.progress import Progress
from circuitspec.runtime.visible_text import visible

if TYPE_CHECKING:
    from transformers import PreTrainedModel

QUERY_NORMS = ("q_norm", "query_norm", "q_layernorm", "query_layernorm")
SHOWN = 3  # of what is wrong with an entry


@dataclass(frozen=True)
class TriedEntry:
    """One entry of the table, taken for the model's: `problems` are none where every test of doctor holds.

    `fits` says whether the modules that it names are there, as wide as config.json says; only then was it run.
    """

    family: str
    fits: bool
    problems: tuple[Diagnostic, ...]

    @property
    def sound(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class TriedFamily:
    """All entries, tried on one model."""

    family: str
    entries: tuple[TriedEntry, ...]

    @property
    def sound(self) -> tuple[TriedEntry, ...]:
        return tuple(one for one in self.entries if one.sound)


def try_entries(directory: Path, progress: Progress) -> TriedFamily:
    """Every entry of the table as if it were that of the model in `directory`, which is loaded in float32.

    Raises CS305 for a config that cannot be read, CS309 for a model that transformers cannot load.
    """
    config = read_config(directory / "config.json")
    family = str(config.get("model_type"))
    progress.stage(f"loading {directory.name}")
    model = _load(directory)
    tried = []
    for known in SUPPORTED:
        progress.stage(f"trying the entry of {known}")
        tried.append(_tried(model, {**config, "model_type": known}, known, progress))
    return TriedFamily(family, tuple(tried))


def _load(directory: Path) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with quiet_transformers():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                str(directory),
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise CircuitspecError(
            Diagnostic(
                "CS309",
                f"transformers cannot load {directory}: {type(error).__name__}: {error}",
                hint="check that `AutoModelForCausalLM.from_pretrained` loads this directory, from safetensors",
            )
        ) from error
    return model.eval()


def _tried(model: PreTrainedModel, config: Mapping[str, Any], known: str, progress: Progress) -> TriedEntry:
    fits = False
    try:
        architecture, shape = architecture_of(config), shape_of(config)
        verify_modules(model, architecture, shape)
        fits = True
        if not architecture.joint_qk_norm and (joint := _joint_norms(model, shape)):
            said = f"{joint} norms the queries of all heads of a layer together, which this entry does not say"
            return TriedEntry(known, fits, (Diagnostic("CS313", said, hint="an entry with joint_qk_norm=True"),))
        loaded = LoadedModel(
            model,
            None,  # random tokens are run
            architecture,
            shape,
            Provenance(str(config["model_type"]), None, "float32", known, "", 0, None),
        )
        with borrowed(model):
            return TriedEntry(known, fits, diagnose(loaded, progress).problems)
    except CircuitspecError as error:
        return TriedEntry(known, fits, tuple(error.diagnostics))


def _joint_norms(model: PreTrainedModel, shape: ModelShape) -> str:
    """The first norm as wide as the queries of all heads, which patches of single sites do not show; empty if none."""
    together = (shape.n_heads * shape.d_head,)
    for path, module in model.named_modules():
        wide = tuple(getattr(getattr(module, "weight", None), "shape", ()))
        if path.rpartition(".")[2] in QUERY_NORMS and wide == together != (shape.d_head,):
            return str(path)
    return ""


def render_tried(found: TriedFamily) -> str:
    """Which entries are sound, and the one to add; or which come nearest, and what of them does not hold."""
    lines = [f"{visible(found.family)}: {len(found.entries)} entries tried", ""]
    if found.sound:
        for one in found.sound:
            lines.append(f"  {one.family}: sound, every site is patched exactly and what is added sums to the stream")
        lines += ["", *_to_add(found.family, found.sound[0].family)]
    else:
        near = [one for one in found.entries if one.fits] or sorted(found.entries, key=lambda one: len(one.problems))
        for one in near[:SHOWN]:
            said = "its modules are there, but" if one.fits else "its modules are not those:"
            lines.append(f"  {one.family}: {said}")
            lines += [f"    {visible(problem.message)}" for problem in one.problems[:SHOWN]]
        lines += ["", "none is sound: what does not hold above is what an entry of its own would have to say otherwise"]
    return "\n".join(lines) + "\n"


def _to_add(family: str, like: str) -> list[str]:
    name = "".join(c if c.isalnum() else "_" for c in family).upper()
    return [
        "to use it, put this into a package of yours:",
        "",
        "  # mypackage/families.py",
        "  from dataclasses import replace",
        "  from circuitspec.models.families.family_table import architecture_named",
        "",
        f'  {name} = replace(architecture_named("{like}"), family="{visible(family)}", title="{visible(family)}")',
        "",
        "  # pyproject.toml",
        f'  [project.entry-points."{GROUP}"]',
        f'  {visible(family)} = "mypackage.families:{name}"',
        "",
        "it is then not held against an independent program, as the families of the table are: docs/families.md",
    ]
