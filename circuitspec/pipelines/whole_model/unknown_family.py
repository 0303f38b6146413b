"""Which entries of the table fit a model of a family that is not in it, and how: `doctor --new`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.forward import Forward
from circuitspec.engine.levels.refusals import no_edges
from circuitspec.engine.validation.self_test import self_test
from circuitspec.engine.validation.site_tests import diagnose, random_task
from circuitspec.graph.shape import ModelShape
from circuitspec.models.families.architecture import Architecture, ConfigKeys
from circuitspec.models.families.family_table import SUPPORTED, architecture_of
from circuitspec.models.families.modules import computing, submodule, verify_modules
from circuitspec.models.families.registered_families import GROUP
from circuitspec.models.families.unsupported_families import said_of
from circuitspec.models.load import LoadedModel, Provenance
from circuitspec.models.model_config import read_config, shape_of
from circuitspec.models.storage.quiet import quiet_transformers
from circuitspec.runtime.progress import Progress
from circuitspec.runtime.visible_text import visible

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

QUERY_NORMS = ("q_norm", "query_norm", "q_layernorm", "query_layernorm")
SHOWN = 3  # of what is wrong with an entry


@dataclass(frozen=True)
class TriedEntry:
    """One entry of the table, taken for the model's: `problems` are none where every test of doctor holds, and where
    edges can be patched those of `verify` as well.

    `fits` says whether the modules that it names are there, as wide as config.json says; only then was it run.
    `changes` are fields for which modules of other names were found, `node_alone` why edges cannot be patched.
    """

    family: str
    fits: bool
    problems: tuple[Diagnostic, ...]
    changes: Mapping[str, str] = field(default_factory=dict)
    node_alone: str = ""
    blocks: bool = True  # whether the model has its blocks where the entry says

    @property
    def sound(self) -> bool:
        return not self.problems

    @property
    def unread(self) -> bool:
        """Whether config.json does not even give what the entry asks of it."""
        return {problem.code for problem in self.problems} == {"CS305"}


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
    tried: list[TriedEntry] = []
    alike: dict[object, TriedEntry] = {}  # many entries say the same of one model
    for known in SUPPORTED:
        progress.stage(f"trying the entry of {known}")
        tried.append(_tried(model, {**config, "model_type": known}, known, progress, alike))
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


def _tried(
    model: PreTrainedModel, config: Mapping[str, Any], known: str, progress: Progress, alike: dict[object, TriedEntry]
) -> TriedEntry:
    fits, blocks, changes = False, True, dict[str, str]()
    try:
        architecture, shape = architecture_of(config), shape_of(config)
        blocks = _has(model, architecture.block.partition("[")[0])
        changes = renamed_modules(model, architecture, shape)
        architecture = replace(architecture, **changes)  # type: ignore[arg-type]
        verify_modules(model, architecture, shape)
        fits = True
        no_name = {"family": "", "title": "", "numbers": (), "variants": (), "refused": (), "keys": ConfigKeys()}
        key = replace(architecture, **no_name), replace(shape, family="")  # type: ignore[arg-type]
        if key not in alike:
            alike[key] = _tested(model, architecture, shape, config, known, changes, progress)
        return replace(alike[key], family=known, changes=changes)
    except CircuitspecError as error:
        return TriedEntry(known, fits, tuple(error.diagnostics), changes, blocks=blocks)


def _tested(
    model: PreTrainedModel,
    architecture: Architecture,
    shape: ModelShape,
    config: Mapping[str, Any],
    known: str,
    changes: Mapping[str, str],
    progress: Progress,
) -> TriedEntry:
    """An entry that names modules of the model, run."""
    try:
        if said := _not_said(model, architecture, shape, config):
            return TriedEntry(known, True, (said,), changes)
        loaded = LoadedModel(
            model,
            None,  # random tokens are run
            architecture,
            shape,
            Provenance(str(config["model_type"]), None, "float32", known, "", 0, None),
        )
        pathless = no_edges(loaded)
        with borrowed(model):
            problems = diagnose(loaded, progress).problems
            if not problems and not pathless:
                self_test(Forward(loaded, random_task(loaded), rows=2, progress=progress), edges=True)
        return TriedEntry(known, True, problems, changes, pathless)
    except CircuitspecError as error:
        return TriedEntry(known, True, tuple(error.diagnostics), changes)


def _has(model: PreTrainedModel, path: str) -> bool:
    try:
        submodule(model, path)
    except AttributeError:
        return False
    return True


def renamed_modules(model: PreTrainedModel, architecture: Architecture, shape: ModelShape) -> dict[str, str]:
    """Fields of an entry whose modules the model does not have, with the one module that could be meant by each.

    The projection out of an MLP or an attention is the one in the same module that reads and writes as many channels;
    norms before attention and MLP are those of the block that no other field names, in the block's order.
    """
    if not _has(model, architecture.block.partition("[")[0]):
        return {}
    block, found = submodule(model, architecture.block.format(layer=0)), dict[str, str]()
    inside = dict(block.named_modules())
    widths = {"mlp_down": (shape.d_model, shape.d_mlp), "attn_out": (shape.d_model, shape.n_heads * shape.d_head)}
    for name, wide in widths.items():
        path = getattr(architecture, name)
        if path is None or path in inside:
            continue
        parent = path.rpartition(".")[0]
        could = [one for one, module in inside.items() if one.startswith(f"{parent}.") and _shape(module) == wide]
        if len(could) == 1:
            found[name] = could[0]
    fields = ("attn_norm", "attn_post_norm", "mlp_norm", "mlp_post_norm")
    missing = [f for f in fields if getattr(architecture, f) is not None and getattr(architecture, f) not in inside]
    named = {getattr(architecture, one) for one in fields}
    others = [one for one, _ in block.named_children() if "norm" in one.lower() and one not in named]
    if missing and len(missing) == len(others):
        found |= dict(zip(missing, others, strict=True))
    root = architecture.block.partition("[")[0].rpartition(".")[0]
    if not _has(model, architecture.final_norm):
        could = [f"{root}.{one}" for one, _ in submodule(model, root).named_children() if "norm" in one.lower()]
        found |= {"final_norm": could[0]} if len(could) == 1 else {}
    return found


def _shape(module: nn.Module) -> tuple[int, ...]:
    return tuple(getattr(getattr(module, "weight", None), "shape", ()))


def _not_said(
    model: PreTrainedModel, architecture: Architecture, shape: ModelShape, config: Mapping[str, Any]
) -> Diagnostic | None:
    """What the model does and the entry does not say, where patches of single sites would not show it."""
    if not architecture.joint_qk_norm and (joint := _joint_norms(model, shape)):
        said = f"{joint} norms the queries of all heads of a layer together, which this entry does not say"
        return Diagnostic("CS313", said, hint="an entry with joint_qk_norm=True")
    factor = _logit_factor(model, architecture, config)
    if factor is not None:
        by = architecture.logit_multiplier
        said = f"logits are the unembedding's output times {factor:.4g}, and this entry says {by:.4g}"
        return Diagnostic("CS313", said, hint="an entry with another logit_multiplier")
    return None


def _logit_factor(model: PreTrainedModel, architecture: Architecture, config: Mapping[str, Any]) -> float | None:
    """By what the model multiplies its logits, where the entry says otherwise; None too where they are capped."""
    import torch

    if any("softcap" in key and config[key] for key in config):
        return None
    seen: list[torch.Tensor] = []
    unembedding = submodule(model, architecture.unembedding)
    own = unembedding.forward

    def watched(*args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(own(*args, **kwargs))
        return seen[-1]

    with borrowed(model), torch.no_grad(), computing({unembedding: watched}):
        logits = model(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False).logits
    factor = float((logits * seen[-1]).sum() / (seen[-1] * seen[-1]).sum())
    return None if abs(factor - architecture.logit_multiplier) <= 1e-4 * abs(factor) else factor


def _joint_norms(model: PreTrainedModel, shape: ModelShape) -> str:
    """The first norm as wide as the queries of all heads, which patches of single sites do not show; empty if none."""
    together = (shape.n_heads * shape.d_head,)
    for path, module in model.named_modules():
        wide = tuple(getattr(getattr(module, "weight", None), "shape", ()))
        if path.rpartition(".")[2] in QUERY_NORMS and wide == together != (shape.d_head,):
            return str(path)
    return ""


def nearest(found: TriedFamily) -> tuple[TriedEntry, ...]:
    """The entries that come nearest: whose modules are there, or else that have the fewest of them missing.

    Of entries of which the same does not hold the first.
    """
    near = [one for one in found.entries if one.fits]
    if not near:
        near = sorted(found.entries, key=lambda one: (one.unread, not one.blocks, len(one.problems)))
    by_problems: dict[tuple[str, ...], TriedEntry] = {}
    for one in near:
        by_problems.setdefault(tuple(problem.message for problem in one.problems), one)
    return tuple(by_problems.values())


def render_tried(found: TriedFamily) -> str:
    """Which entries are sound, and the one to add; or which come nearest, and what of them does not hold."""
    lines = [f"{visible(found.family)}: {len(found.entries)} entries tried", ""]
    if found.sound:
        for one in found.sound:
            other = f", with {_written(one.changes)}" if one.changes else ""
            level = f"; at node level alone: {one.node_alone}" if one.node_alone else ""
            said = "sound, every site is patched exactly and what is added sums to the stream"
            lines.append(visible(f"  {one.family}{other}: {said}{level}"))
        best = min(found.sound, key=lambda one: (bool(one.node_alone), len(one.changes)))
        lines += ["", *_to_add(found.family, best)]
    else:
        for one in nearest(found)[:SHOWN]:
            said = "its modules are there, but" if one.fits else "its modules are not those:"
            other = f", with {_written(one.changes)}" if one.changes else ""
            lines.append(visible(f"  {one.family}{other}: {said}"))
            lines += [f"    {visible(problem.message)}" for problem in one.problems[:SHOWN]]
        if against := said_of(found.family):
            lines += ["", f"of {visible(found.family)} it is known: {against}"]
        lines += ["", "none is sound: what does not hold above is what an entry of its own would have to say otherwise"]
    return "\n".join(lines) + "\n"


def _written(changes: Mapping[str, str]) -> str:
    return ", ".join(f'{name}="{path}"' for name, path in changes.items())


def _to_add(family: str, like: TriedEntry) -> list[str]:
    name = "".join(c if c.isalnum() else "_" for c in family).upper()
    return [
        "to use it, put this into a package of yours:",
        "",
        "  # mypackage/families.py",
        "  from dataclasses import replace",
        "  from circuitspec.models.families.family_table import architecture_named",
        "",
        f'  {name} = replace(architecture_named("{like.family}"), family="{visible(family)}", title="{visible(family)}"'
        + (f", {visible(_written(like.changes))})" if like.changes else ")"),
        "",
        "  # pyproject.toml",
        f'  [project.entry-points."{GROUP}"]',
        f'  {visible(family)} = "mypackage.families:{name}"',
        "",
        "it is then not held against an independent program, as the families of the table are: docs/families.md",
    ]
