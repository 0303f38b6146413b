"""A dictionary's files on disk -> tensors and settings. Nothing in them is run; what cannot be read is an error."""

from __future__ import annotations

import json
import math
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span
from circuitspec.runtime.files import TooLarge, read_regular

if TYPE_CHECKING:
    from torch import Tensor

MAX_CONFIG_BYTES = 10_000_000
MAX_WEIGHT_BYTES = 50_000_000_000


@dataclass(frozen=True)
class DictionaryPath:
    """The file or folder that a hypothesis names, and the place in the hypothesis where it does."""

    path: Path
    place: Span | None = None

    @property
    def folder(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent

    def has(self, *names: str) -> bool:
        """Whether it is a folder with these files, or the last of these files in one with the others."""
        if not self.path.is_dir() and self.path.name != Path(names[-1]).name:
            return False
        return all((self.folder / name).is_file() for name in names[:-1]) and self.weights(names[-1]).is_file()

    def weights(self, name: str) -> Path:
        """The file of weights: the path itself, where it names one."""
        return self.path / name if self.path.is_dir() else self.path

    def wrong(self, code: str, message: str, hint: str = "") -> CircuitspecError:
        return CircuitspecError(Diagnostic(code, f"{self.path}: {message}", self.place, hint=hint))

    def unreadable(self, path: Path, reason: str) -> CircuitspecError:
        """CS374."""
        message = f"{path} cannot be read: {reason}"
        return CircuitspecError(Diagnostic("CS374", message, self.place, hint="copy or download it again"))

    def settings(self, name: str) -> dict[str, Any]:
        """The object in a JSON file, or the mapping in a YAML file. Raises CS374."""
        path = self.folder / name
        try:
            text = read_regular(path, MAX_CONFIG_BYTES).decode("utf-8")
            found = _yaml(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise self.unreadable(path, str(error)) from None
        if not isinstance(found, dict):
            raise self.unreadable(path, "it holds no settings by name")
        return found

    def tensors(self, path: Path) -> dict[str, Tensor]:
        """The tensors in a safetensors, npz or torch file, by name and on the CPU. Raises CS374."""
        try:
            if path.stat().st_size > MAX_WEIGHT_BYTES:
                raise TooLarge(0, f"it is larger than {MAX_WEIGHT_BYTES // 1_000_000} MB")
            match path.suffix:
                case ".safetensors":
                    return _safetensors(path)
                case ".npz":
                    return _npz(path)
                case _:
                    return _torch(path)
        except (OSError, ValueError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            if isinstance(error, pickle.UnpicklingError):  # its own message recommends to load without protection
                reason = "it holds something else than tensors and plain data"
            raise self.unreadable(path, reason) from None


@dataclass(frozen=True)
class Tensors:
    """The tensors of one file, which must be there and have the shapes that they should."""

    source: DictionaryPath
    found: Mapping[str, Tensor]

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def get(self, name: str, *shape: int | None) -> Tensor:
        """A tensor of this shape (None: of any size there). Raises CS376."""
        tensor = self.found.get(name)
        if tensor is None:
            known = ", ".join(sorted(self.found)) or "nothing"
            raise self.source.wrong("CS376", f"there is no tensor {name}; it holds {known}", _OTHER_FORMAT)
        fits = len(tensor.shape) == len(shape) and all(
            s is None or s == n for s, n in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            wanted = " x ".join("any" if size is None else str(size) for size in shape) or "one number"
            is_now = " x ".join(map(str, tensor.shape)) or "one number"
            raise self.source.wrong("CS376", f"{name} is {is_now}, and should be {wanted}", _OTHER_FORMAT)
        if not tensor.dtype.is_floating_point or not bool(tensor.isfinite().all()):
            raise self.source.wrong("CS376", f"{name} holds other things than finite numbers", "copy it again")
        return tensor

    def threshold(self, name: str, n_features: int) -> Tensor:
        """One number for all features, or one for each."""
        tensor = self.found.get(name)
        return self.get(name) if tensor is not None and tensor.ndim == 0 else self.get(name, n_features)


_OTHER_FORMAT = "see that the file is whole, and that `format` is the tool's that wrote it"


def whole_number(source: DictionaryPath, value: object, name: str, most: int) -> int:
    """A setting between 1 and `most`. Raises CS376."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise source.wrong("CS376", f"{name} is {value!r}, and should be a whole number from 1 to {most}")
    return value


def positive(source: DictionaryPath, value: object, name: str) -> float:
    """A setting above 0. Raises CS376."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise source.wrong("CS376", f"{name} is {value!r}, and should be a number above 0")
    return float(value)


def _yaml(text: str) -> object:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ValueError(f"this is not YAML: {error}") from None


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"this is no safetensors file ({error})") from None


def _npz(path: Path) -> dict[str, Tensor]:
    import numpy as np
    import torch

    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in arrays.files}
    except (zipfile.BadZipFile, TypeError) as error:
        raise ValueError(f"this is no npz file of numbers ({error})") from None


def _torch(path: Path) -> dict[str, Tensor]:
    import torch

    with zipfile.ZipFile(path) if zipfile.is_zipfile(path) else _not_torch() as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_WEIGHT_BYTES:
            raise ValueError("it unpacks to more than it may")
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, dict):
        raise ValueError("it holds no tensors by name")
    return {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, torch.Tensor)}


def _not_torch() -> zipfile.ZipFile:
    raise ValueError("this is no file that torch.save wrote")
