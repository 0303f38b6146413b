"""Dictionaries held against a model: how well each explains its place, and what of the model's loss it recovers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from circuitspec.dictionaries.declared_dictionaries import DeclaredDictionaries, read_declared
from circuitspec.engine.forward import CountsPrompts, Forward
from circuitspec.engine.metrics.dictionary_fit import DictionaryFit, dictionary_fits
from circuitspec.engine.metrics.recovered_loss import RecoveredLoss, recovered_losses
from circuitspec.hypothesis_file.grammar.dictionary_places import DictionaryPlace
from circuitspec.hypothesis_file.load_file import Study
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.hypothesis_file.schema.dictionary_block import DictionarySpec
from circuitspec.hypothesis_file.yaml.source import parse_source
from circuitspec.hypothesis_file.yaml.yaml_writer import write_yaml
from circuitspec.models.load import LoadedModel, Ready, load_model
from circuitspec.models.storage.hub import fetch_folder
from circuitspec.pipelines.session import Loading, from_file, opened, tokens_of
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask
from circuitspec.runtime.progress import Progress
from circuitspec.runtime.visible_text import visible

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from circuitspec.dictionaries.dictionary import Dictionary
    from circuitspec.graph.shape import ModelShape


@dataclass(frozen=True)
class DictionaryCheck:
    """What was found about one dictionary, on the prompts' own tokens."""

    fit: DictionaryFit
    loss: RecoveredLoss


def declared_in(study: Study, names: Sequence[str]) -> DeclaredDictionaries:
    """A file's dictionaries of these names. Raises KeyError for one that it does not have."""
    declared = study.exploration.dictionaries
    return DeclaredDictionaries({name: declared[name] for name in names}, study.base_dir, study.source)


def dictionaries_at(
    places: Sequence[tuple[DictionaryPlace, str]], base_dir: Path, taken: Collection[str] = ()
) -> DeclaredDictionaries:
    """Dictionaries without a file that declares them: place and folder of each.

    They are named by their folders, and with a number where the name is `taken`: `res8`, `res8_2`.
    """
    blocks: dict[str, dict[str, str]] = {}
    for place, folder in places:
        own = visible((base_dir / folder).resolve().name)
        names = (own, *(f"{own}_{number}" for number in range(2, 3 + len(blocks) + len(taken))))
        name = next(one for one in names if one not in blocks and one not in taken)
        blocks[name] = {"at": str(place), "from": folder}
    specs = {name: DictionarySpec.model_validate(block) for name, block in blocks.items()}
    return DeclaredDictionaries(specs, base_dir, parse_source(write_yaml({"dictionaries": blocks}), "<--dictionary>"))


def checked_on(
    prompts: Study, loading: Loading, declared: Sequence[DeclaredDictionaries]
) -> tuple[LoadedModel, TokenizedTask]:
    """The model with the dictionaries beside it, and the clean prompts of a task, as they are without their answers.

    Dictionaries are read and held against the model before any weight of it is. Raises CircuitspecError as `verify`
    does for prompts and models, CS373 to CS377 for dictionaries.
    """
    built = build_prompts(prompts.exploration.task, prompts.base_dir, prompts.source)
    found: dict[str, Dictionary] = {}
    placed: list[ModelShape] = []

    def prepared(shape: ModelShape, tokenizer: PreTrainedTokenizerFast) -> TokenizedTask:
        whole = shape
        for one in declared:
            own, dictionaries = read_declared(one.specs, one.base_dir, shape, one.text, fetch_folder)
            whole = replace(whole, dictionaries=(*whole.dictionaries, *own.dictionaries))
            found.update(dictionaries)
        placed.append(whole)
        return tokens_of(prompts, prompts.exploration, built, shape, tokenizer, unequal=True)

    loaded, task = opened(loading, prepared)
    device = next(loaded.model.parameters()).device
    beside = {name: one.to(device) for name, one in found.items()}
    return replace(loaded, shape=placed[0], dictionaries=beside), _clean_texts(task)


def loading_of(spec: ModelSpec, file: Study | None, base_dir: Path, device: str, progress: Progress) -> Loading:
    """Loads a model: of a `file`, whose line is then named where it cannot be, or as it was called."""
    if file is not None:
        return from_file(file, file.exploration.model_copy(update={"model": spec}), device, progress)

    def loading(ready: Ready) -> LoadedModel:
        return load_model(spec, base_dir, device=device, progress=progress.stage, ready=ready)

    return loading


def check_dictionaries(
    loaded: LoadedModel, task: TokenizedTask, progress: CountsPrompts
) -> tuple[DictionaryCheck, ...]:
    """Of every dictionary beside the model. Use within `borrowed(model)`. Raises CS502 and CS547 as forwards do."""
    forward = Forward(loaded, task, progress=progress)
    pairs = zip(dictionary_fits(forward), recovered_losses(forward), strict=True)
    return tuple(DictionaryCheck(fit, loss) for fit, loss in pairs)


def _clean_texts(task: TokenizedTask) -> TokenizedTask:
    """The clean prompts alone, without answers."""
    none = ((),) * task.n
    return TokenizedTask(task.prompts, {CLEAN: task.ids[CLEAN]}, {}, none, none)
