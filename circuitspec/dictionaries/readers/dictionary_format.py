"""What is known of a layout of dictionary files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from circuitspec.dictionaries.dictionary import Dictionary
from circuitspec.dictionaries.dictionary_path import DictionaryPath


@dataclass(frozen=True)
class StoredDictionary:
    """A dictionary as its files hold it.

    hook: the place in a model that the files name, in their tool's words; empty where they name none.
    """

    dictionary: Dictionary
    hook: str = ""


@dataclass(frozen=True)
class DictionaryFormat:
    """One tool's layout.

    `names` are what its files are called, seen from their folder. `files` are those that a dictionary is read from: the
    last one holds the weights. Both are given the layer that it is for.
    `shown` says what is looked for, in words.
    """

    name: str
    shown: str
    names: Callable[[int], tuple[str, ...]]
    is_there: Callable[[DictionaryPath, int], bool]
    files: Callable[[DictionaryPath, int], tuple[Path, ...]]
    read: Callable[[DictionaryPath, int], StoredDictionary]


def fixed(
    name: str, shown: str, names: tuple[str, ...], read: Callable[[DictionaryPath, int], StoredDictionary]
) -> DictionaryFormat:
    """A layout of files that are always called the same."""

    def files(source: DictionaryPath, layer: int) -> tuple[Path, ...]:
        return (*(source.folder / one for one in names[:-1]), source.weights(names[-1]))

    return DictionaryFormat(name, shown, lambda layer: names, lambda source, layer: source.has(*names), files, read)
