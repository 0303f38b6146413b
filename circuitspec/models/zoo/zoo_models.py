"""Which models the zoo holds, and where each one's files are or what builds it. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from circuitspec.models.zoo.toys import TOYS, build
from circuitspec.models.zoo.word_tokenizer import plain_word_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

HERE = Path(__file__).parent


@dataclass(frozen=True)
class ShippedModel:
    """A trained model whose files are part of the package."""

    name: str
    description: str
    path: Path


@dataclass(frozen=True)
class BuiltModel:
    """A model made by code, in memory; `config` is what its config.json would say; only `build` imports torch."""

    name: str
    description: str
    config: Mapping[str, object]
    build: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerFast]]
    tokenizer: Callable[[], Tokenizer]  # what the tokenizer is made of


ZooModel = ShippedModel | BuiltModel

_MODELS: tuple[ZooModel, ...] = (
    ShippedModel(
        name="ioi-tiny",
        description="GPT-2, 4 layers of 4 heads, trained on templated text to do indirect object identification",
        path=HERE / "ioi-tiny",
    ),
    *(
        BuiltModel(
            toy.name,
            toy.description,
            toy.config(),
            partial(build, toy),
            partial(plain_word_tokenizer, tuple(toy.tokens)),
        )
        for toy in TOYS
    ),
)

ZOO: Mapping[str, ZooModel] = MappingProxyType({model.name: model for model in _MODELS})


def zoo_names() -> tuple[str, ...]:
    """Every NAME that `zoo:NAME` may say, sorted."""
    return tuple(sorted(ZOO))


def zoo_path(name: str) -> Path | None:
    """A directory with the model's files, ready for `from_pretrained`; None for a model that is built by code.

    Raises KeyError for a name that is not in the zoo.
    """
    model = ZOO[name]
    return model.path if isinstance(model, ShippedModel) else None


def built_model(name: str) -> BuiltModel:
    """The entry of a model that is built by code. Raises KeyError for any other name."""
    model = ZOO[name]
    if not isinstance(model, BuiltModel):
        raise KeyError(name)
    return model
