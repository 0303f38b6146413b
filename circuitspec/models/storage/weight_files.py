"""The weight files of a local model directory: which there are, and whether they are whole."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic

if TYPE_CHECKING:
    from torch import Tensor

SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")

# Buffers that old checkpoints store and models now compute: their absence or presence changes no number.
_BENIGN = re.compile(r"(^|\.)(attn\.(bias|masked_bias)|attention\.(bias|masked_bias)|rotary_emb\.inv_freq)$")
# Whole numbers that are no weights: masks and positions that old checkpoints store.
_COUNTS = re.compile(r"(^|\.)position_ids$")
_UNEMBEDDING = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$")
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|embed_in)\.weight$")


@dataclass(frozen=True)
class WeightFiles:
    """The files weights are read from; `pickled` says whether they are torch pickles."""

    files: tuple[Path, ...]
    pickled: bool


def find_weights(directory: Path, *, allow_pickle: bool) -> WeightFiles:
    """The weights in a model directory: safetensors before pickles, shards by their index.

    Raises CS307 where there are only pickled weights and `allow_pickle` is off, CS308 where there are none or a shard
    is missing, CS309 for an unreadable index.
    """
    for pickled, (whole, index) in ((False, SAFETENSORS), (True, PICKLED)):
        if (directory / whole).is_file():
            files: tuple[Path, ...] = (directory / whole,)
        elif (directory / index).is_file():
            files = _shards(directory / index)
        else:
            continue
        if pickled and not allow_pickle:
            raise CircuitspecError(
                Diagnostic(
                    "CS307",
                    f"{directory} holds only pickled weights ({files[0].name})",
                    label="a pickle can run code when it is read",
                    hint="prefer a copy saved as safetensors; to read these all the same, with torch's restricted "
                    "unpickler, set `allow_pickle: true` beside `id`",
                )
            )
        return WeightFiles(files, pickled)
    held = sorted(path.name for path in directory.iterdir())
    gguf = [name for name in held if name.lower().endswith(".gguf")]
    hint = f"name the GGUF file itself: {directory}/{gguf[0]}" if gguf else "expected model.safetensors"
    raise CircuitspecError(
        Diagnostic("CS308", f"{directory} holds no weights", hint=f"{hint}; the directory has {', '.join(held[:12])}")
    )


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        shards = tuple(index.parent / name for name in names)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CircuitspecError(
            Diagnostic("CS309", f"{index} is no index of weights: {error!r}", hint="copy or download the model again")
        ) from error
    missing = [shard.name for shard in shards if shard.parent != index.parent or not shard.is_file()]
    if missing or not shards:
        raise CircuitspecError(
            Diagnostic(
                "CS308",
                f"weights are missing from {index.parent}: {', '.join(missing) or 'the index names no file'}",
                hint="copy or download the model again",
            )
        )
    return shards


def check_whole(weights: WeightFiles) -> None:
    """Read each safetensors header and hold it against the file's size; CS309 for a truncated or garbled file.

    A pickle shows its damage only when it is loaded.
    """
    if weights.pickled:
        return
    from safetensors import SafetensorError, safe_open

    found = []
    for file in weights.files:
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            found.append(unreadable_weights(file, error))
    if found:
        raise CircuitspecError(*found)


def unreadable_weights(file: Path, error: BaseException) -> Diagnostic:
    """CS309 for one file of weights."""
    return Diagnostic(
        "CS309",
        f"the weights in {file} cannot be read: {error}",
        hint="the file is truncated or no weights file; copy or download it again",
    )


def check_complete(source: Path, info: Mapping[str, Iterable[object]]) -> None:
    """CS310 unless every weight of the model came from the files and every weight in the files was used.

    transformers would go on with random numbers for what is missing.
    """
    problems = []
    for key, meaning in (
        ("missing_keys", "not in the files"),
        ("unexpected_keys", "not part of the model"),
        ("mismatched_keys", "of another shape"),
    ):
        names = sorted(_say(entry) for entry in info[key] if not _BENIGN.search(str(entry)))
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            problems.append(f"{meaning}: {', '.join(names[:5])}{more}")
    if info["error_msgs"]:
        problems.append(f"errors: {info['error_msgs']}")
    if problems:
        raise CircuitspecError(
            Diagnostic(
                "CS310",
                f"the weights in {source} do not fit the model that config.json describes: {'; '.join(problems)}",
                hint="weights and config.json belong to different models, or the weights are not a causal language "
                "model's; copy or download both again",
            )
        )


def check_taken(weights: WeightFiles, *, tied: bool) -> None:
    """CS353 for weights that are whole numbers, CS354 for an unembedding that a `tied` model would not have.

    transformers takes whole numbers for floats, and goes by its version in which of two unembeddings it takes.
    """
    integers: list[str] = []
    embeddings: dict[str, Callable[[], Tensor]] = {}
    unembeddings: dict[str, Callable[[], Tensor]] = {}
    for name, kind, read in _stored(weights):
        if "f" not in kind.lower() and not (_BENIGN.search(name) or _COUNTS.search(name)):
            integers.append(f"{name} ({kind})")
        for chosen, pattern in ((embeddings, _EMBEDDING), (unembeddings, _UNEMBEDDING)):
            if pattern.search(name):
                chosen[name] = read
    if integers:
        more = f" and {len(integers) - 5} more" if len(integers) > 5 else ""
        raise CircuitspecError(
            Diagnostic(
                "CS353",
                f"weights in {weights.files[0].parent} are whole numbers: {', '.join(integers[:5])}{more}",
                hint="they are quantised, and mean something only with the scales that belong to them: use the "
                "unquantised weights, or a GGUF file, which is dequantised",
            )
        )
    if tied and len(embeddings) == len(unembeddings) == 1:
        ((embedding, first),), ((unembedding, second),) = embeddings.items(), unembeddings.items()
        one, other = first(), second()
        if one.shape != other.shape or not bool((one == other).all()):
            raise CircuitspecError(
                Diagnostic(
                    "CS354",
                    f"config.json ties the unembedding to the token embeddings, and the weights in "
                    f"{weights.files[0].parent} hold a {unembedding} that is not {embedding}",
                    hint='where it is meant, write "tie_word_embeddings": false into config.json; where not, take it '
                    "out of the file",
                )
            )


def _stored(weights: WeightFiles) -> Iterator[tuple[str, str, Callable[[], Tensor]]]:
    """Every tensor in the files: its name, its dtype as the format spells it (a float's has an f), its values."""
    if weights.pickled:
        import torch

        for file in weights.files:
            for name, tensor in torch.load(file, map_location="cpu", weights_only=True).items():
                yield name, str(tensor.dtype).removeprefix("torch."), partial(_itself, tensor)
        return
    from safetensors import safe_open

    for file in weights.files:
        with safe_open(file, framework="pt") as held:
            for name in sorted(held.keys()):
                yield name, held.get_slice(name).get_dtype(), partial(_read, file, name)


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _read(file: Path, name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as held:
        found: Tensor = held.get_tensor(name)
    return found


def _say(entry: object) -> str:
    """A key of the loading report; one of another shape comes with the shape in the file and the shape in the model."""
    match entry:
        case (name, (*held,), (*expected,)):
            return f"{name} ({', '.join(map(str, held))}) for ({', '.join(map(str, expected))})"
        case _:
            return str(entry)
