"""circuit-tracer: a folder with `config.yaml` and a `layer_N.safetensors` for each layer, all of them transcoders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from circuitspec.dictionaries.dictionary import Dictionary
from circuitspec.dictionaries.dictionary_path import DictionaryPath, Tensors
from circuitspec.dictionaries.readers.dictionary_format import DictionaryFormat, StoredDictionary
from circuitspec.dictionaries.readers.weight_layouts import above_threshold

_THRESHOLD = "activation_function.threshold"


def _files(source: DictionaryPath, layer: int) -> tuple[Path, ...]:
    return source.folder / "config.yaml", source.weights(f"layer_{layer}.safetensors")


def _is_there(source: DictionaryPath, layer: int) -> bool:
    named = source.path.is_dir() or (source.path.name.startswith("layer_") and source.path.suffix == ".safetensors")
    return named and all(file.is_file() for file in _files(source, layer))


def _read(source: DictionaryPath, layer: int) -> StoredDictionary:
    settings = source.settings("config.yaml")
    kind, read = settings.get("model_kind"), settings.get("feature_input_hook")
    if kind != "transcoder_set":
        message = f"config.yaml says `model_kind: {kind}`, which is not known"
        raise source.wrong(
            "CS375", message, "known is transcoder_set: features of one layer that are written to it alone"
        )
    if read != "mlp.hook_in":
        raise source.wrong(
            "CS375",
            f"it reads {read}, and transcoders are known that read what enters the MLP (mlp.hook_in)",
            "use one that does",
        )
    tensors = Tensors(source, source.tensors(_files(source, layer)[1]))
    weight = tensors.get("W_enc", None, None)
    n_features, d_in = weight.shape
    decoder = tensors.get("W_dec", n_features, None)
    bias, constant = tensors.get("b_enc", n_features), tensors.get("b_dec", decoder.shape[1])
    found = Dictionary(weight.T.contiguous(), decoder, bias, constant, "relu", reads_input=True)
    if _THRESHOLD in tensors:
        found = above_threshold(found, tensors, _THRESHOLD)
    if "W_skip" in tensors:
        found = replace(found, skip=tensors.get("W_skip", decoder.shape[1], d_in).T.contiguous())
    return StoredDictionary(found, read)


CIRCUIT_TRACER = DictionaryFormat(
    "circuit_tracer",
    "a folder with config.yaml and layer_N.safetensors",
    lambda layer: ("config.yaml", f"layer_{layer}.safetensors"),
    _is_there,
    _files,
    _read,
)
