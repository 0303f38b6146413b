"""Which models the zoo holds, and where each one's files are. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

HERE = Path(__file__).parent


@dataclass(frozen=True)
class ShippedModel:
    """A trained model whose files are part of the package."""

    name: str
    description: str
    path: Path


@dataclass(frozen=True)
class BuiltModel:
    """A model made by code; `build(directory)` writes all its files and may import torch only when called."""

    name: str
    description: str
    build: Callable[[Path], None]


ZooModel = ShippedModel | BuiltModel

_MODELS: tuple[ZooModel, ...] = (
    ShippedModel(
        name="ioi-tiny",
        description="GPT-2, 4 layers of 4 heads, trained on templated text to do indirect object identification",
        path=HERE / "ioi-tiny",
    ),
)

ZOO: Mapping[str, ZooModel] = MappingProxyType({model.name: model for model in _MODELS})


def zoo_names() -> tuple[str, ...]:
    """Every NAME that `zoo:NAME` may say, sorted."""
    return tuple(sorted(ZOO))


def zoo_path(name: str, build_in: Path | None = None) -> Path:
    """A directory with the model's files, ready for `from_pretrained`.

    A built model is written to `build_in / name` unless it is already there. Raises KeyError for a name that is
    not in the zoo, and ValueError if a built model is asked for without saying where it may be written.
    """
    model = ZOO[name]
    if isinstance(model, ShippedModel):
        return model.path
    if build_in is None:
        raise ValueError(f"zoo:{name} is built by code: say where with build_in")
    target = build_in / name
    if not target.is_dir():
        build_in.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=build_in, prefix=f".{name}-") as scratch:
            model.build(Path(scratch) / name)
            (Path(scratch) / name).rename(target)  # all at once: a build that fails leaves nothing behind
    return target
