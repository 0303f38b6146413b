"""GGUF files: their shape from the metadata, and their weights dequantised once into an ordinary model directory."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.graph.shape import ModelShape
from circuitspec.models.families.family_table import architecture_named
from circuitspec.models.model_config import checked_shape, read_config, shape_of
from circuitspec.models.storage.cache import cache_root, cached_directory, is_whole, sha256_of
from circuitspec.models.tokenizers.gguf_tokenizer import Field, NotStated, as_stated
from circuitspec.runtime.visible_text import visible

if TYPE_CHECKING:
    from gguf import GGUFReader

_KIND = "gguf"
_FORMAT = "2"  # of what is cached; raised when this module writes something else
_FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3")  # which are among GGUF's own names
_UNQUANTISED = ("F32", "F16", "BF16", "F64")
# What the reader raises on a file that is cut short or no GGUF at all: it trusts every count and offset it finds.
_READ_ERRORS = (OSError, ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError, MemoryError)


@dataclass(frozen=True)
class Dequantised:
    """A directory with the float32 weights and tokenizer of one GGUF file."""

    directory: Path
    sha256: str  # of the GGUF file
    description: str  # "SmolLM2-135M-Instruct, Q4_1 dequantised"


def gguf_shape(file: Path) -> ModelShape:
    """The shape of a GGUF model, from its cached conversion if there is one, otherwise from its metadata.

    Raises CS304 for an unknown family, CS315 for a file that cannot be read.
    """
    cached = converted_directory(file, only="config.json")
    if cached is not None:
        return shape_of(read_config(cached / "config.json"))
    return _metadata_shape(_open(file), file)


def converted_directory(file: Path, *, only: str) -> Path | None:
    """The cached conversion of a GGUF file, with the file `only` whole in it; None where there is none yet."""
    cached = cache_root() / _KIND / _cache_key(_digest(file))
    return cached if is_whole(cached, only=only) else None


def dequantised(file: Path, *, progress: Callable[[str], None]) -> Dequantised:
    """The GGUF file as a model directory, made on first use and cached under the file's digest.

    The numbers are those of transformers' own dequantisation, in float32. Raises CS304 for an unknown family, CS315 for
    a file that cannot be read or not be converted faithfully, CS319 where the cache cannot be written.
    """
    digest = _digest(file)
    key = _cache_key(digest)
    directory = cached_directory(_KIND, key, lambda building: _convert(file, building, progress))
    return Dequantised(directory, digest, _description(file, (directory / "quantisation").read_text(encoding="utf-8")))


def _metadata_shape(reader: GGUFReader, file: Path) -> ModelShape:
    """The shape that the metadata gives; none of it is left to a library's default."""
    family = _text(reader, "general.architecture", file)
    architecture = architecture_named(family)
    if family not in _FAMILIES:
        raise _unreadable(
            file,
            f"GGUF files of {architecture.title} are not read, since nothing says what conversion makes of their "
            f"weights (of these families they are: {', '.join(_FAMILIES)})",
        )

    def size(key: str) -> int | None:
        field = reader.get_field(f"{family}.{key}")
        value = None if field is None else field.contents()
        if value is not None and (not isinstance(value, int) or value < 1):
            raise _unreadable(file, f"{family}.{key} is {value!r}, expected a whole number")
        return value

    def required(key: str) -> int:
        value = size(key)
        if value is None:
            raise _unreadable(file, f"its metadata does not give {family}.{key}")
        return value

    n_vocab = size("vocab_size")
    if n_vocab is None:
        tokens = reader.get_field("tokenizer.ggml.tokens")
        if tokens is None:
            raise _unreadable(file, "its metadata holds no vocabulary")
        n_vocab = len(tokens.data)
    return checked_shape(
        architecture,
        n_layers=required("block_count"),
        n_heads=required("attention.head_count"),
        n_kv_heads=size("attention.head_count_kv"),
        d_model=required("embedding_length"),
        d_head=size("attention.key_length"),
        d_mlp=required("feed_forward_length"),
        n_vocab=n_vocab,
        max_positions=size("context_length"),
    )


def _digest(file: Path) -> str:
    try:
        return sha256_of(file)
    except OSError as error:
        raise _unreadable(file, error) from error


def _cache_key(digest: str) -> str:
    """Names the file and everything else that its conversion depends on."""
    made_by = [_FORMAT, *(f"{name}={version(name)}" for name in ("transformers", "tokenizers", "gguf"))]
    return f"{digest[:16]}-{hashlib.sha256(' '.join([digest, *made_by]).encode()).hexdigest()[:16]}"


def _convert(file: Path, directory: Path, progress: Callable[[str], None]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from circuitspec.models.families.modules import verify_modules
    from circuitspec.models.storage.quiet import quiet_transformers
    from circuitspec.models.storage.weight_files import check_complete

    reader = _open(file)
    shape = _metadata_shape(reader, file)
    if not any(
        reader.get_field(f"{shape.family}.attention.{key}") for key in ("layer_norm_rms_epsilon", "layer_norm_epsilon")
    ):
        raise _unreadable(file, "its metadata does not give the epsilon of its norms")
    _refuse_rope_scaling(reader, shape.family, file)
    progress(f"dequantising {visible(file.name)} (once)")
    try:
        with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):  # its tensor-by-tensor progress bar
            tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
            as_stated(tokenizer, _values(reader), shape.family)
            model, info = AutoModelForCausalLM.from_pretrained(
                str(file.parent),
                gguf_file=file.name,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # they come back in `info`, and are refused with their shapes
                output_loading_info=True,
            )
            check_complete(file, info)
            _refuse_unused_tensors(reader, model, file)
            verify_modules(model, architecture_named(shape.family), shape)
            tokenizer.save_pretrained(directory)
            _save(model, directory)
    except torch.OutOfMemoryError:
        raise
    except NotStated as error:
        raise _unreadable(file, error) from error
    except (*_READ_ERRORS, RuntimeError, ImportError, NotImplementedError) as error:
        raise _unreadable(file, f"{type(error).__name__}: {error}") from error
    (directory / "quantisation").write_text(_quantisation(reader), encoding="utf-8")


def _save(model: Any, directory: Path) -> None:
    """Save the weights as an ordinary model: transformers refuses to save one that it knows came from GGUF."""
    import torch

    config = model.config.to_dict()
    config.pop("quantization_config", None)
    with torch.device("meta"):
        plain = type(model)(type(model.config)(**config))
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(directory)


def _refuse_rope_scaling(reader: GGUFReader, family: str, file: Path) -> None:
    field = reader.get_field(f"{family}.rope.scaling.type")
    if field is not None and field.contents() != "none":
        raise _unreadable(
            file, f"its rotary embeddings are scaled ({field.contents()}), which the conversion would silently drop"
        )


def _refuse_unused_tensors(reader: GGUFReader, model: Any, file: Path) -> None:
    """transformers skips tensors that it has no name for; each one must have become a parameter of the model."""
    made, held = sum(1 for _ in model.named_parameters()), len(reader.tensors)
    if made != held:
        odd = [tensor.name for tensor in reader.tensors if not re.match(r"(blk\.\d+|token_embd|output)", tensor.name)]
        raise _unreadable(
            file,
            f"it holds {held} tensors, of which the conversion uses {made}" + (f" ({', '.join(odd)})" if odd else ""),
        )


def _quantisation(reader: GGUFReader) -> str:
    """The file type as llama.cpp names it, without its "mostly": Q4_1, F16."""
    from gguf import LlamaFileType

    field = reader.get_field("general.file_type")
    if field is None:
        return "unnamed quantisation"
    try:
        name = LlamaFileType(field.contents()).name
    except ValueError:  # a file type newer than the installed gguf
        return f"file type {field.contents()}"
    return re.sub("^(MOSTLY|ALL)_", "", name)


def _description(file: Path, quantisation: str) -> str:
    name = re.sub(rf"[.\-_]{re.escape(quantisation)}$", "", file.stem, flags=re.IGNORECASE)
    return f"{name}, {quantisation}" + ("" if quantisation in _UNQUANTISED else " dequantised")


def _open(file: Path) -> GGUFReader:
    from gguf import GGUFReader

    try:
        return GGUFReader(file)  # maps the file into memory: tensors are not read
    except _READ_ERRORS as error:
        raise _unreadable(file, error) from error


def _values(reader: GGUFReader) -> Field:
    def value(key: str) -> object:
        field = reader.get_field(key)
        found: object = None if field is None else field.contents()
        return found

    return value


def _text(reader: GGUFReader, key: str, file: Path) -> str:
    field = reader.get_field(key)
    value = None if field is None else field.contents()
    if not isinstance(value, str):
        raise _unreadable(file, f"its metadata does not give {key}")
    return value


def _unreadable(file: Path, why: object) -> CircuitspecError:
    return CircuitspecError(
        Diagnostic(
            "CS315", f"{file} cannot be used: {why}", hint="copy or download the GGUF file again, or use another one"
        )
    )
