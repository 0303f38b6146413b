"""The dictionaries that a hypothesis declares: read, held against the model's shape, and as places in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span
from circuitspec.dictionaries.told_places import place_told, read_otherwise
from circuitspec.graph.shape import DictionarySite, ModelShape
from circuitspec.hypothesis_file.schema.dictionary_block import DictionarySpec, HubFolder
from circuitspec.hypothesis_file.yaml.source import SourceText

if TYPE_CHECKING:
    from circuitspec.dictionaries.dictionary import Dictionary

Specs: TypeAlias = Mapping[str, DictionarySpec]


@dataclass(frozen=True)
class DeclaredDictionaries:
    """Dictionaries by name, the folder that their files are named from, and the text in which mistakes are shown."""

    specs: Specs
    base_dir: Path
    text: SourceText


class Fetches(Protocol):
    """Gives the folder or file on this machine of one on the hub; `models.storage.hub.fetch_folder` does."""

    def __call__(self, folder: HubFolder, names: Sequence[str]) -> Path: ...


def sites_declared(specs: Specs, shape: ModelShape, text: SourceText) -> ModelShape:
    """The shape with the places of dictionaries, of which nothing was read: how many features they have is not known.

    Raises CS377 for a place that the model does not have.
    """
    problems = [found for name, spec in specs.items() if (found := _misplaced(name, spec, shape, text)) is not None]
    if problems:
        raise CircuitspecError(*problems)
    return replace(shape, dictionaries=tuple(_site(name, spec) for name, spec in specs.items()))


def read_declared(
    specs: Specs, base_dir: Path, shape: ModelShape, text: SourceText, fetch: Fetches
) -> tuple[ModelShape, dict[str, Dictionary]]:
    """The shape with the places of dictionaries, and these by name, on the CPU.

    Raises, for all of them at once: CS377 for one that does not fit its place, and CS373 to CS376 as reading does; what
    `fetch` raises for those on the hub.
    """
    from circuitspec.dictionaries.readers.all_formats import read_dictionary

    placed = sites_declared(specs, shape, text)
    found: dict[str, Dictionary] = {}
    problems: list[Diagnostic] = []
    for name, spec in specs.items():
        try:
            path, span = _located(name, spec, base_dir, text, fetch), _span(name, text)
            file = read_dictionary(path, spec.place.layer, spec.format, span)
        except CircuitspecError as error:
            problems += error.diagnostics
            continue
        stored = file.dictionary
        problems += _told_otherwise(name, spec, file.hook, text)
        scale = stored.scale if spec.scale is None else spec.scale * stored.scale
        found[name] = replace(stored, centred=spec.centred, scale=scale)
        problems += _misfits(name, spec, found[name], shape, text)
    if problems:
        raise CircuitspecError(*problems)
    sites = tuple(
        replace(one, n_features=found[one.name].n_features, reads_input=found[one.name].reads_input)
        for one in placed.dictionaries
    )
    return replace(placed, dictionaries=sites), found


def dictionary_files(specs: Specs, base_dir: Path, text: SourceText, fetch: Fetches) -> dict[str, tuple[Path, ...]]:
    """The files that each dictionary is read from, by its name. Raises CS373, and what `fetch` raises."""
    from circuitspec.dictionaries.readers.all_formats import files_of

    return {
        name: files_of(_located(name, spec, base_dir, text, fetch), spec.place.layer, spec.format, _span(name, text))
        for name, spec in specs.items()
    }


def _located(name: str, spec: DictionarySpec, base_dir: Path, text: SourceText, fetch: Fetches) -> Path:
    """Where its files lie on this machine."""
    from circuitspec.dictionaries.readers.all_formats import names_of

    if isinstance(spec.source, str):
        return base_dir / spec.source
    try:
        return fetch(spec.source, names_of(spec.place.layer, spec.format))
    except CircuitspecError as error:
        span = _span(name, text)
        raise CircuitspecError(*(replace(one, span=one.span or span) for one in error.diagnostics)) from error


def _site(name: str, spec: DictionarySpec) -> DictionarySite:
    return DictionarySite(
        name,
        spec.place,
        error_stays=spec.error == "keep",
        error_left_out=spec.error == "remove",
        skips_first=spec.skip_first,
    )


def _span(name: str, text: SourceText) -> Span:
    return text.span(("dictionaries", name, "from"))


def _misplaced(name: str, spec: DictionarySpec, shape: ModelShape, text: SourceText) -> Diagnostic | None:
    place, span = spec.place, text.span(("dictionaries", name, "at"))
    if place.layer >= shape.n_layers and not (place.kind == "resid" and place.layer == shape.n_layers):
        said = f"the model has no {spec.at}: its layers are 0 to {shape.n_layers - 1}"
        hint = f"what others call blocks.7.hook_resid_post is r8; the stream after the last block is r{shape.n_layers}"
        return Diagnostic("CS377", said, span, hint=hint)
    if place.kind == "resid_mid" and not shape.has_resid_mid:
        said = f"the model has no {spec.at}: attention and MLP both read the block's input"
        return Diagnostic(
            "CS377", said, span, hint=f"write r{place.layer}, or r{place.layer + 1} for what enters the next"
        )
    if place.kind == "mlp" and not shape.has_mlps:
        return Diagnostic("CS377", f"the model has no {spec.at}: it has attention only", span)
    return None


def _told_otherwise(name: str, spec: DictionarySpec, hook: str, text: SourceText) -> list[Diagnostic]:
    """CS375 for what reads another value than can be read here, CS377 where the files name another place."""
    at, told = text.span(("dictionaries", name, "at")), place_told(hook)
    if what := read_otherwise(hook):
        said = f"{name} reads {hook}: {what}"
        return [
            Diagnostic("CS375", said, _span(name, text), hint="use one that reads what enters the MLP, mlp.hook_in")
        ]
    if told is None or str(told) == spec.at:
        return []
    said = f"{name} is not of {spec.at}: its files say {hook}, which is {told}"
    return [Diagnostic("CS377", said, at, hint=f"write at: {told}; or correct its files, if they are wrong")]


def _misfits(
    name: str, spec: DictionarySpec, dictionary: Dictionary, shape: ModelShape, text: SourceText
) -> list[Diagnostic]:
    place, at = spec.place, text.span(("dictionaries", name, "at"))
    if dictionary.reads_input and place.kind != "mlp":
        said = f"{name} is a transcoder, and {spec.at} is no MLP"
        return [Diagnostic("CS377", said, at, hint=f"write at: m{place.layer}")]
    width = shape.n_heads * shape.d_head_of(place.layer) if place.kind == "z" else shape.d_model
    wrong = [size for size in (dictionary.d_in, dictionary.d_out) if size != width]
    if not wrong:
        return []
    said = f"the vectors of {name} have {wrong[0]} numbers, and those at {spec.at} have {width}"
    return [Diagnostic("CS377", said, _span(name, text), hint="name a dictionary that was trained on this model")]
