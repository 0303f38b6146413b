"""The files that a model is read from, and their digests. Imports no torch, and downloads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.model_reference import local_model, resolve_reference
from circuitspec.models.storage.adapter_files import find_adapter
from circuitspec.models.storage.cache import sha256_of
from circuitspec.models.storage.weight_files import find_weights

_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
_CHAT = ("chat_template.jinja", "chat_template.json")


@dataclass(frozen=True)
class ModelFiles:
    """A model's files by name, and a hub model's commit."""

    files: Mapping[str, Path]
    revision: str | None = None

    def digests(self) -> dict[str, str]:
        """SHA-256 by file name, read anew each time: nothing remembered can be out of date."""
        return {name: sha256_of(path) for name, path in sorted(self.files.items())}


def model_files(
    model: ModelSpec, base_dir: Path, directory: Path | None = None, *, chat: bool = False
) -> ModelFiles | None:
    """Weights, their index, tokenizer and config (none for a model that is built by code), and those of an adapter.

    With `chat` the tokenizer's chat template is among them, where it has a file of its own.
    A hub model is found in the local cache, or in `directory`, where it was loaded from; None where it is in neither.
    Raises CS300 to CS309 for a reference that leads nowhere or weights that are missing.
    """
    found = _of_base(model, base_dir, directory, _CHAT if chat else ())
    if found is None or model.adapter is None:
        return found
    adapter = {
        f"adapter/{path.name}": path for path in find_adapter(model.adapter, local_model(model.adapter, base_dir)).paths
    }
    return ModelFiles({**found.files, **adapter}, found.revision)


def _of_base(model: ModelSpec, base_dir: Path, directory: Path | None, also: tuple[str, ...]) -> ModelFiles | None:
    reference = resolve_reference(model, base_dir)
    if reference.kind == "built":
        return ModelFiles({})
    if reference.kind == "gguf":
        return ModelFiles({reference.local_path.name: reference.local_path})
    if reference.kind != "hub":
        return ModelFiles(_in_directory(reference.local_path, model, also))
    snapshot = directory or _cached_snapshot(model)
    return None if snapshot is None else ModelFiles(_in_directory(snapshot, model, also), snapshot.name)


def _cached_snapshot(model: ModelSpec) -> Path | None:
    """The folder of the cached commit, if weights are in it: an interrupted download may have left its config alone."""
    from huggingface_hub import try_to_load_from_cache

    for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"):
        found = try_to_load_from_cache(model.id, name, revision=model.revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def _in_directory(directory: Path, model: ModelSpec, also: tuple[str, ...]) -> dict[str, Path]:
    weights = find_weights(directory, allow_pickle=model.allow_pickle).files
    index = [path for path in directory.glob("*.index.json") if len(weights) > 1]
    others = [directory / name for name in ("config.json", *_TOKENIZER, *also) if (directory / name).is_file()]
    return {path.name: path for path in (*weights, *index, *others)}


def kind_of(name: str) -> str:
    """`weights`, `tokenizer` or `config`: what a file of a model is, for messages."""
    if name in (*_TOKENIZER, *_CHAT):
        return "tokenizer"
    return "config" if name == "config.json" else "weights"
