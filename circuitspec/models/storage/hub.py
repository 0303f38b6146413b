"""Fetching a model, or a dictionary's folder, from the Hugging Face hub into its local cache, pinned to a commit."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.hypothesis_file.schema.dictionary_block import HubFolder
from circuitspec.models.storage.weight_files import PICKLED, SAFETENSORS

_DESCRIPTION_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
)
_SAFETENSORS_FILES = (*SAFETENSORS, "model-*-of-*.safetensors")
_WEIGHTS = (".safetensors", ".npz", ".pt", ".pth", ".bin")
_PICKLED_FILES = (*PICKLED, "pytorch_model-*-of-*.bin")


@dataclass(frozen=True)
class Snapshot:
    """A model's files as of one commit."""

    directory: Path
    commit: str


def fetch_snapshot(
    repo_id: str, revision: str | None, *, allow_pickle: bool, progress: Callable[[str], None]
) -> Snapshot:
    """Download what is missing of a hub model at `revision`, or of its default branch; the cache serves when offline.

    Only the files a load reads are fetched, pickled weights only where `allow_pickle` is set and there is nothing else.
    Raises CS308 where it has no weights of these kinds, CS316 where the hub does not have (or not give) it, CS317 where
    the hub cannot be reached and the cache does not hold it.
    """
    progress(f"fetching {repo_id}")
    directory = _download(repo_id, revision, (*_DESCRIPTION_FILES, *_SAFETENSORS_FILES))
    if not any((directory / name).is_file() for name in SAFETENSORS):
        if allow_pickle:
            directory = _download(repo_id, revision, (*_DESCRIPTION_FILES, *_PICKLED_FILES))
        else:
            raise CircuitspecError(
                Diagnostic(
                    "CS308",
                    f"{repo_id} has no safetensors weights",
                    label=f"neither {SAFETENSORS[0]} nor {SAFETENSORS[1]} in it",
                    hint="if it has pytorch_model.bin, `allow_pickle: true` beside `id` reads that",
                )
            )
    return Snapshot(directory, directory.name)


def fetch_folder(folder: HubFolder, names: Sequence[str]) -> Path:
    """Download what is missing of the files called `names` in a folder of the hub; the cache serves when offline.

    `names` are seen from the folder; where it names a file itself, they lie beside that. Returns the folder, or that
    file, on this machine. Raises CS316 where the hub does not have (or not give) the repository, CS317 where the hub
    cannot be reached and the cache does not hold it, CS373 where there is nothing at `path`.
    """
    inside = PurePosixPath(folder.path or ".")
    if inside.is_absolute() or ".." in inside.parts:
        hint = "write it as the hub shows it, such as layer_20/width_16k"
        raise CircuitspecError(Diagnostic("CS373", f"{folder.path} is no path in {folder.id}", hint=hint))
    around = inside.parent if inside.suffix in _WEIGHTS else inside
    wanted = [*(around / name for name in names), *([inside] if inside.suffix in _WEIGHTS else [])]
    patterns = tuple(glob.escape(one.as_posix()) for one in wanted)
    directory = _download(folder.id, folder.revision, patterns, dictionary=True)
    if not (directory / inside).exists():
        raise CircuitspecError(
            Diagnostic(
                "CS373",
                f"{folder.id} has none of the files of a dictionary at {folder.path or 'its top'}"
                f" (commit {directory.name})",
                hint="look at its files on the hub; without a network, what the cache holds is all there is",
            )
        )
    return directory / inside


def _download(repo_id: str, revision: str | None, patterns: tuple[str, ...], *, dictionary: bool = False) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # Which HTTP library huggingface_hub uses changes with its version; its errors are the bases of HfHubHTTPError.
    failures = cast("tuple[type[Exception], ...]", (OSError, *HfHubHTTPError.__bases__))
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(patterns)))
    except HFValidationError as error:
        hint = "write owner/name; a folder on this machine is written ./name"
        raise _refused(f"{repo_id!r} is no name that the hub has", hint) from error
    except GatedRepoError as error:
        raise _refused(
            f"{repo_id} is gated on the hub: {_first_line(error)}",
            "accept its terms on its hub page and log in (`hf auth login`), or download it and give the directory",
        ) from error
    except RepositoryNotFoundError as error:
        what = "repository" if dictionary else "model"
        raise _refused(
            f"the hub has no {what} {repo_id}, or it is private",
            f"check the spelling; a local directory is written ./name; for a private {what} log in (`hf auth login`)",
        ) from error
    except RevisionNotFoundError as error:
        raise _refused(
            f"{repo_id} has no revision {revision}",
            f"give a commit hash, branch or tag of this {'repository' if dictionary else 'model'}",
        ) from error
    except failures as error:
        raise _unreachable(repo_id, error, dictionary=dictionary) from error
    except RuntimeError as error:  # no HOME, and a user whom the system does not know
        if "home" not in str(error):
            raise
        message = f"{repo_id} has no place on this machine: {_first_line(error)}"
        hint = "set HF_HOME to a folder in which files from the hub may be kept"
        raise CircuitspecError(Diagnostic("CS317", message, hint=hint)) from error


def _refused(message: str, hint: str) -> CircuitspecError:
    return CircuitspecError(Diagnostic("CS316", message, hint=hint))


def _unreachable(repo_id: str, error: BaseException, *, dictionary: bool) -> CircuitspecError:
    elsewhere = "the folder elsewhere and name it, `from: ./name`"
    return CircuitspecError(
        Diagnostic(
            "CS317",
            f"{repo_id} is not in the local cache and cannot be fetched from the hub: {_first_line(error)}",
            hint="connect to the network, or download "
            + (elsewhere if dictionary else "the model elsewhere and give its directory as `id: ./name`"),
        )
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
