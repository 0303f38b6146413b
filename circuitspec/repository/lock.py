"""What a lock says: everything that a result depends on, and the result. Imports no torch.

`ioi.circuit.lock` stands beside `ioi.circuit.yaml` and is committed with it. It keeps the hypothesis and the prompts
themselves, not only their digests, so that a difference can be named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field

LOCK_VERSION = 1
SUFFIX = ".circuit.yaml"
_HEX = 12  # digits of a digest in a message

Status = Literal["SUPPORTED", "REFUTED", "INCONCLUSIVE"]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class LockedHypothesis(_Part):
    """The hypothesis as it was written. `content` is the file's data as JSON: without comments and layout."""

    name: str
    digest: str
    content: str


class LockedPrompts(_Part):
    """The prompts in their order. `lines` has one line a prompt: all it says as JSON, or its digest (see `prompts`).

    `left_out` says how many rows of their file were left out, by why; None where none may be. `chat` are the texts that
    the tokenizer's chat template put before and behind every prompt; None without one.
    """

    digest: str
    count: int
    lines: str
    left_out: dict[str, int] | None = None
    chat: tuple[str, str] | None = None


class LockedReference(_Part):
    """The prompts that means are over, where those are others than the scored ones: how many, and their SHA-256."""

    count: int
    digest: str


class LockedModel(_Part):
    """The model; `revision` is a hub model's commit, `files` the SHA-256 of what it is read from, by file name.

    `files` is empty for a model that is built by code.
    """

    id: str
    revision: str | None
    dtype: str
    files: dict[str, str]


class Environment(_Part):
    """What numbers depend on besides the file, the prompts and the model: by rounding, if all is well."""

    device: str  # cpu, cuda or mps
    processor: str  # x86_64; a GPU's name
    packages: dict[str, str]


class LockedPart(_Part):
    """One of several figures that decide a claim."""

    name: str
    value: Number | None
    ci: tuple[Number, Number] | None


class LockedClaim(_Part):
    """A claim's result.

    `experiment` says in words what was run, `measure` what the value is: `recovered`, ...; `ci` is None where there is
    no interval. A claim that several figures decide has `parts` instead of a value.
    """

    claim: str
    metric: str
    experiment: str
    measure: str
    status: Status
    value: Number | None
    ci: tuple[Number, Number] | None
    n: int
    parts: tuple[LockedPart, ...] = ()

    @property
    def called(self) -> str:
        return f"{self.claim}, {self.metric}"


class Lock(_Part):
    """A lock's whole content but for its checksums.

    `directions` has the SHA-256 of every file that a metric projects along, by its name, `reference` the prompts that
    means are over; None also in locks that were written before they said it.
    """

    lock_version: Literal[1]
    hypothesis: LockedHypothesis
    prompts: LockedPrompts
    model: LockedModel
    environment: Environment
    seeds: dict[str, int]
    claims: tuple[LockedClaim, ...]
    directions: dict[str, str] | None = None
    reference: LockedReference | None = None

    def content(self) -> dict[str, Any]:
        """The lock as plain data; without what there is none of, as locks were before they had it."""
        none = {name for name in ("directions", "reference") if not getattr(self, name)}
        content = self.model_dump(mode="json", exclude=none or None)
        for name in ("left_out", "chat"):
            if getattr(self.prompts, name) is None:
                del content["prompts"][name]
        return content


def lock_path(hypothesis: Path) -> Path:
    """`ioi.circuit.yaml` -> `ioi.circuit.lock`; of any other name, the last suffix is replaced."""
    return hypothesis.with_suffix(".lock")


def checksums(content: Mapping[str, Any]) -> dict[str, str]:
    """A short checksum for every part of a lock's plain data, so that damage or a hand at work is noticed, and where.

    Claims have one each, called `claims[0]`, `claims[1]`, ...; each covers its place in the list.
    """
    parts = {key: value for key, value in content.items() if key not in ("claims", "checksums")}
    parts |= {f"claims[{i}]": claim for i, claim in enumerate(content["claims"])}
    return {name: hashlib.sha256(rfc8785.dumps([name, part])).hexdigest()[:16] for name, part in parts.items()}


def digest_change(old: str | None, new: str | None) -> str:
    """`sha256 0123456789ab... -> none`."""
    return " -> ".join("none" if side is None else f"sha256 {side[:_HEX]}..." for side in (old, new))


def as_json(value: object) -> str:
    """One line of plain ASCII, so that no YAML reader or editor breaks or changes it."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))
