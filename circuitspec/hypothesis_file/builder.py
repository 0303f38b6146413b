"""A hypothesis from Python values: the same file, checked in the same way, as if a person had written it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from types import NoneType
from typing import Any, Self, TypeAlias, TypeVar

from circuitspec.diagnostics.diagnostic import CircuitspecError, render
from circuitspec.hypothesis_file.load_file import IN_MEMORY, Document, parse_hypothesis
from circuitspec.hypothesis_file.yaml.yaml_writer import write_yaml
from circuitspec.runtime.files import write_text_whole

FORMAT = 1  # of the file: the value of its key `circuitspec`

Settings: TypeAlias = Mapping[str, Any]
GroupLike: TypeAlias = str | Sequence[str] | Settings

_UNSAVED = "<hypothesis>"  # in messages, where there is no file


def group(*nodes: str, **settings: Any) -> dict[str, Any]:
    """Components that play one role: `group("a9.h6", "a9.h9", at="END")`. Settings are the file's: at, effect, ..."""
    return {"nodes": list(nodes), **_written(settings)}


def ablation(value: str, **settings: Any) -> dict[str, Any]:
    """How everything outside the circuit is ablated: `ablation("mean_per_template", from_="abc", level="edge")`."""
    return {"value": value, **_written(settings)}


def claim(kind: str, **settings: Any) -> dict[str, Any]:
    """What must be true: `claim("sufficient", metric="logit_diff", at_least=0.8)`, `claim("gate", is_="or", ...)`."""
    return {kind: _written(settings)}


S = TypeVar("S", bound="Spec")


@dataclass(frozen=True, repr=False)
class Spec(Document):
    """A valid hypothesis, from a file or built, with its YAML."""

    @property
    def name(self) -> str:
        return self.hypothesis.name

    @property
    def parts(self) -> dict[str, Any]:
        """The hypothesis as arguments of `hypothesis()`, as plain values."""
        data = self.source.data
        assert isinstance(data, dict)
        rest = {key: value for key, value in data.items() if key not in ("circuitspec", "circuit")}
        return {**rest, **data["circuit"]}

    def replace(self, **changes: Any) -> Self:
        """The hypothesis with some of its parts (arguments of `hypothesis()`) changed. Raises as `hypothesis()`."""
        return build(type(self), folder=self.base_dir, **{"beside": self.source.beside, **self.parts, **changes})

    def to_yaml(self) -> str:
        """The file's text; as it was read, with its comments, where it came from a file."""
        return self.source.text

    def save(self, path: str | PathLike[str]) -> Self:
        """Write the file, which may be there already, and return the hypothesis that it holds.

        Prompts that were given as rows are written beside it, as the file that it names.

        Raises CircuitspecError where it would not be valid there: names of list files are relative to its folder.
        """
        file = Path(path)
        placed = parse_hypothesis(
            self.to_yaml(), str(file), file.parent, model_given=self.hypothesis.model.id == IN_MEMORY
        )
        for name, text in self.source.beside.items():
            write_text_whole(file.parent / name, text)
        write_text_whole(file, self.to_yaml())
        return type(self)(placed.hypothesis, placed.source, placed.base_dir, placed.lists)

    def __str__(self) -> str:
        return self.to_yaml()

    def __repr__(self) -> str:
        circuit, claims = self.hypothesis.circuit, self.hypothesis.claims
        kinds = ", ".join(one.kind for one in claims)
        return f"<{type(self).__name__} {self.name!r}: {', '.join(circuit.groups)}; claims {kinds}>"


def build(
    kind: type[S],
    name: str,
    *,
    model: str | Settings | None = None,
    task: str | PathLike[str] | Settings,
    groups: Mapping[str, GroupLike],
    ablation: str | Settings,
    claims: Sequence[Settings],
    free: Sequence[str] = (),
    paths: Sequence[str] = (),
    carries: Mapping[str, Sequence[str] | str] | None = None,
    unnamed: str | None = None,
    dictionaries: Mapping[str, Settings] | None = None,
    abstraction: Settings | None = None,
    source: str | None = None,
    description: str | None = None,
    folder: str | PathLike[str] = ".",
    beside: Mapping[str, str] | None = None,
) -> S:
    """The hypothesis as a value of `kind`; see `circuitspec.hypothesis`. `beside`: files that it names, and their
    text.

    Raises TypeError for parts of another kind.
    """
    _check_kinds(
        model=(model, (str, Mapping, NoneType), "a model's id, or a mapping"),
        task=(task, (str, PathLike, Mapping), "the path of a prompts file, or a mapping"),
        groups=(groups, (Mapping,), "a mapping of names to components"),
        ablation=(ablation, (str, Mapping), "an ablation's name, or a mapping"),
        claims=(claims, (Sequence,), "a list of claims"),
    )
    said = {"source": source, "description": description}
    circuit: dict[str, Any] = {"groups": {role: _group(members) for role, members in groups.items()}}
    circuit |= {key: value for key, value in (("free", free), ("paths", paths), ("carries", carries)) if value}
    circuit |= {} if unnamed is None else {"unnamed": unnamed}
    data = {
        "circuitspec": FORMAT,
        "name": name,
        **{key: value for key, value in said.items() if value is not None},
        **({} if model is None else {"model": {"id": model} if isinstance(model, str) else model}),
        "task": {"file": fspath(task)} if isinstance(task, str | PathLike) else task,
        **({"dictionaries": dictionaries} if dictionaries else {}),
        "circuit": circuit,
        "ablation": {"value": ablation} if isinstance(ablation, str) else ablation,
        **({} if abstraction is None else {"abstraction": abstraction}),
        "claims": claims,
    }
    text = write_yaml(data)
    try:
        built = parse_hypothesis(text, _UNSAVED, Path(folder), model_given=model is None)
    except CircuitspecError as error:
        error.__notes__ = [render(error.diagnostics, {_UNSAVED: text})]
        raise
    return kind(built.hypothesis, replace(built.source, beside=beside or {}), built.base_dir, built.lists)


def _check_kinds(**parts: tuple[object, tuple[type, ...], str]) -> None:
    """Raises TypeError for parts that could be written to no file, such as a table."""
    for part, (value, kinds, wanted) in parts.items():
        if not isinstance(value, kinds) or (part == "claims" and isinstance(value, str)):
            raise TypeError(f"`{part}` is a {type(value).__name__}: give {wanted}")


def _group(members: GroupLike) -> Settings:
    match members:
        case str():
            return group(members)
        case Mapping():
            return members
        case _:
            return group(*members)


def _written(settings: Settings) -> dict[str, Any]:
    """Keys as in the file: those that are words of Python's are given with an underscore, `from_` and `is_`."""
    return {key.removesuffix("_"): value for key, value in settings.items() if value is not None}
