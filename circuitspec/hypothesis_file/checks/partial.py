"""What is usable of a hypothesis with errors, so that one mistake does not hide the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from circuitspec.hypothesis_file.grammar.texts import DictionaryName
from circuitspec.hypothesis_file.problems import path_of
from circuitspec.hypothesis_file.schema.abstraction.abstraction_block import AbstractionSpec
from circuitspec.hypothesis_file.schema.blocks import AblationSpec, CircuitSpec, TaskSpec
from circuitspec.hypothesis_file.schema.claims.written_claim import Claim
from circuitspec.hypothesis_file.schema.dictionary_block import DictionarySpec
from circuitspec.hypothesis_file.yaml.source import Path_, SourceText


class ValidBlocks(BaseModel):
    """The blocks that are valid once everything wrong is left out."""

    model_config = ConfigDict(frozen=True)

    task: TaskSpec | None = None
    dictionaries: dict[DictionaryName, DictionarySpec] = {}
    circuit: CircuitSpec | None = None
    ablation: AblationSpec | None = None
    abstraction: AbstractionSpec | None = None
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Usable:
    """Valid parts, and how their list indices lead back to the file."""

    parts: ValidBlocks
    kept: dict[Path_, tuple[int, ...]] = field(default_factory=dict)  # list (as in the parts) -> indices in the file

    def path(self, path: Path_) -> Path_:
        """The path in the file of a part at `path`."""
        return _original(path, self.kept)


def usable_parts(source: SourceText, unusable: tuple[Path_, ...]) -> Usable:
    """The valid parts of a file without what stands at the paths `unusable`."""
    bad = {path for path in unusable if path}
    while True:
        kept: dict[Path_, tuple[int, ...]] = {}
        data = _without(source.data, bad, (), (), kept)
        try:
            return Usable(ValidBlocks.model_validate(data, by_alias=True, by_name=False), kept)
        except ValidationError as error:
            found = {_original(path_of(one["loc"], data), kept) for one in error.errors(include_url=False)}
        if () in found or found <= bad:
            return Usable(ValidBlocks())
        bad |= found


def _without(data: Any, bad: set[Path_], path: Path_, new: Path_, kept: dict[Path_, tuple[int, ...]]) -> Any:
    """`data` without what stands at the bad paths; `path` leads to it in the file, `new` in what is left."""
    if isinstance(data, dict):
        return {
            key: _without(value, bad, (*path, key), (*new, key), kept)
            for key, value in data.items()
            if (*path, key) not in bad
        }
    if isinstance(data, list):
        indices = tuple(i for i in range(len(data)) if (*path, i) not in bad)
        kept[new] = indices
        return [_without(data[old], bad, (*path, old), (*new, i), kept) for i, old in enumerate(indices)]
    return data


def _original(path: Path_, kept: dict[Path_, tuple[int, ...]]) -> Path_:
    return tuple(kept[path[:depth]][step] if isinstance(step, int) else step for depth, step in enumerate(path))
