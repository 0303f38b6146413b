"""Every layout of dictionary files that is read, a row each; the first that is there is taken where none is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from circuitspec.diagnostics.diagnostic import CircuitspecError, Span
from circuitspec.dictionaries.dictionary_path import DictionaryPath
from circuitspec.dictionaries.readers.circuit_tracer_files import CIRCUIT_TRACER
from circuitspec.dictionaries.readers.dictionary_format import DictionaryFormat, StoredDictionary
from circuitspec.dictionaries.readers.dictionary_learning_files import DICTIONARY_LEARNING
from circuitspec.dictionaries.readers.sae_lens_files import SAE_LENS
from circuitspec.dictionaries.readers.scope_files import GEMMA_SCOPE, GEMMA_SCOPE_2, LLAMA_SCOPE
from circuitspec.dictionaries.readers.sparsify_files import SPARSIFY

FORMATS: Mapping[str, DictionaryFormat] = {
    one.name: one
    for one in (SAE_LENS, SPARSIFY, DICTIONARY_LEARNING, GEMMA_SCOPE, GEMMA_SCOPE_2, LLAMA_SCOPE, CIRCUIT_TRACER)
}


def read_dictionary(path: Path, layer: int, format_name: str = "auto", place: Span | None = None) -> StoredDictionary:
    """The dictionary in a file or folder, for a layer of the model.

    Raises CS373 where none is there, CS374 for what cannot be read, CS375 for an architecture or a setting that is not
    known, CS376 for tensors and settings that do not go together.
    """
    source = DictionaryPath(path, place)
    return _format_of(source, layer, format_name).read(source, layer)


def files_of(path: Path, layer: int, format_name: str = "auto", place: Span | None = None) -> tuple[Path, ...]:
    """The files that `read_dictionary` reads. Raises CS373."""
    source = DictionaryPath(path, place)
    return _format_of(source, layer, format_name).files(source, layer)


def names_of(layer: int, format_name: str = "auto") -> tuple[str, ...]:
    """What the files of a dictionary of this layer may be called, seen from its folder."""
    tried = [*FORMATS.values()] if format_name == "auto" else [FORMATS[format_name]]
    return tuple(dict.fromkeys(name for one in tried for name in one.names(layer)))


def _format_of(source: DictionaryPath, layer: int, name: str) -> DictionaryFormat:
    tried = [*FORMATS.values()] if name == "auto" else [FORMATS[name]]
    found = next((one for one in tried if one.is_there(source, layer)), None)
    if found is None:
        raise _not_there(source, tried)
    return found


def _not_there(source: DictionaryPath, tried: list[DictionaryFormat]) -> CircuitspecError:
    if not source.path.exists():
        return source.wrong("CS373", "there is no such file or folder", "it is looked for beside the hypothesis file")
    wanted = "; ".join(f"{one.shown} ({one.name})" for one in tried)
    return source.wrong("CS373", "no dictionary is found there", f"looked for: {wanted}")
