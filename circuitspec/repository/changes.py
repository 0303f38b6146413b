"""Two plain data structures -> what is different, each at its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from circuitspec.hypothesis_file.yaml.source import Path_

_LONGEST = 120


class Absent:
    """Stands for what is not there: null is a value."""

    def __repr__(self) -> str:
        return "nothing"


NOTHING = Absent()


@dataclass(frozen=True)
class Change:
    """What was at `path` in the old data is not what is there in the new; a path leads through the new data."""

    path: Path_
    old: object
    new: object

    def __str__(self) -> str:
        return f"{_shown(self.old)} -> {_shown(self.new)}"


def changes(old: object, new: object, path: Path_ = ()) -> Iterator[Change]:
    """The smallest parts that differ. Lists are aligned first, so that an entry taken out is one change."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in (*new, *(key for key in old if key not in new)):
            yield from changes(old.get(key, NOTHING), new.get(key, NOTHING), (*path, key))
    elif isinstance(old, list) and isinstance(new, list):
        yield from _in_lists(old, new, path)
    elif old != new:
        yield Change(path, old, new)


def _in_lists(old: list[object], new: list[object], path: Path_) -> Iterator[Change]:
    matcher = SequenceMatcher(None, [_key(item) for item in old], [_key(item) for item in new], autojunk=False)
    tag: Literal["replace", "delete", "insert", "equal"]
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            continue
        both = min(i_end - i, j_end - j)
        for k in range(both):
            yield from changes(old[i + k], new[j + k], (*path, j + k))
        for k in range(i + both, i_end):
            yield Change((*path, j + both), old[k], NOTHING)
        for k in range(j + both, j_end):
            yield Change((*path, k), NOTHING, new[k])


def _key(item: object) -> str:
    return json.dumps(item, sort_keys=True)


def _shown(value: object) -> str:
    if isinstance(value, (Absent, str)) and value != "":
        return str(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
