"""A LoRA adapter in a directory, as peft saves it: read, checked, and added to the weights of its model.

Of every adapted layer there are two matrices, A `[rank, in]` and B `[out, rank]`; merged, its weight is
W + scale * B A, with scale alpha / rank (or alpha / sqrt(rank), where the adapter says so).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.runtime.files import read_regular

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_MAX_BYTES = 1_000_000
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])(?:\.weight)?")
# what else an adapter can have: with these it is more than matrices that are added to weights
_MORE = (
    "modules_to_save",
    "use_dora",
    "trainable_token_indices",
    "layer_replication",
    "target_parameters",
    "use_bdlora",
)


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter's directory and what its adapter_config.json says."""

    directory: Path
    config: Mapping[str, Any]

    @property
    def rank(self) -> int:
        return int(self.config["r"])

    def __str__(self) -> str:
        return f"adapter {self.directory.name} (LORA, rank {self.rank}) merged"

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.directory / CONFIG, self.directory / WEIGHTS


def find_adapter(name: str, directory: Path | None) -> AdapterFiles:
    """The adapter in a directory (None: there is none of that `name`).

    Raises CS392 where there is none, or one that is not merged by adding to weights.
    """
    if directory is None or not (directory / CONFIG).is_file():
        raise _refused(f"there is no adapter at {name}", f"name a directory that holds {CONFIG} and {WEIGHTS}")
    try:
        config = json.loads(read_regular(directory / CONFIG, _MAX_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _refused(f"{directory / CONFIG} cannot be read: {error}", "copy or download the file again") from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise _refused(f"the adapter {name} is of the kind {kind}", "only LoRA adapters are merged from files")
    more = [key for key in _MORE if config.get(key)]
    more += ["bias"] if config.get("bias", "none") != "none" or config.get("lora_bias") else []
    numbers = [config.get("r"), config.get("lora_alpha")]
    if more or not all(isinstance(n, int | float) and not isinstance(n, bool) and n > 0 for n in numbers):
        said = f"has {', '.join(more)}" if more else "does not say `r` and `lora_alpha`"
        raise _refused(f"the adapter {name} {said}", "merge it with peft (merge_and_unload) and save the model")
    if not (directory / WEIGHTS).is_file():
        raise _refused(f"there is no {WEIGHTS} in {directory}", "pickled adapters are not read: save it again")
    return AdapterFiles(directory.resolve(), config)


def merge_adapter(model: nn.Module, adapter: AdapterFiles) -> None:
    """Add the adapter to the model's weights, in place. Raises CS392 where it does not fit the model."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored = load_file(adapter.directory / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise _refused(f"{adapter.directory / WEIGHTS} cannot be read: {error}", "copy the file again") from error
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise _refused(
                f"{adapter.directory / WEIGHTS} holds {key}, which is no pair of low-rank matrices of a layer",
                "merge it with peft (merge_and_unload) and save the model",
            )
        pairs.setdefault(match["module"], {})[match["side"]] = tensor
    if not pairs:
        raise _refused(f"{adapter.directory / WEIGHTS} holds nothing", "copy the file again")
    tied = _shared(model)
    with torch.no_grad():
        for name, pair in pairs.items():
            _add(model, name, pair, adapter, tied)


def _add(model: nn.Module, name: str, pair: Mapping[str, Tensor], adapter: AdapterFiles, tied: set[int]) -> None:
    try:
        module: Any = model.get_submodule(name)
        weight: Tensor = module.weight
    except AttributeError:
        raise _refused(f"the model has no {name}, which the adapter changes", "name the adapter's own model") from None
    if pair.keys() != {"A", "B"}:
        raise _refused(f"of {name} the adapter has only {', '.join(sorted(pair))}", "copy the file again")
    if id(weight) in tied:
        raise _refused(f"{name} shares its weights with another module", "merge it with peft and save the model")
    a, b = pair["A"].double(), pair["B"].double()
    rank = a.shape[0]
    alpha = _for(name, adapter.config.get("alpha_pattern"), adapter.config["lora_alpha"])
    stated = _for(name, adapter.config.get("rank_pattern"), adapter.rank)
    transposed = type(module).__name__ == "Conv1D"
    change = b @ a * (alpha / (math.sqrt(rank) if adapter.config.get("use_rslora") else rank))
    change = change.T if transposed else change
    if rank != stated or change.shape != weight.shape:
        raise _refused(
            f"the adapter changes {name} by {tuple(change.shape)} of rank {rank}; the model's weight is "
            f"{tuple(weight.shape)}, the rank is said to be {stated}",
            "name the adapter's own model",
        )
    weight.copy_((weight.double().cpu() + change).to(weight.dtype))


def _for(module: str, patterns: Any, default: Any) -> Any:
    """What an adapter says of a module: the first pattern that ends its name has the word, as peft has it."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _shared(model: nn.Module) -> set[int]:
    seen: set[int] = set()
    twice: set[int] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            (twice if id(parameter) in seen else seen).add(id(parameter))
    return twice


def _refused(message: str, hint: str) -> CircuitspecError:
    return CircuitspecError(Diagnostic("CS392", message, hint=hint))
