"""Fetching a model from the Hugging Face hub into its local cache, pinned to a commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
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


def _download(repo_id: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # Which HTTP library huggingface_hub uses changes with its version; its errors are the bases of HfHubHTTPError.
    failures = cast("tuple[type[Exception], ...]", (OSError, *HfHubHTTPError.__bases__))
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(patterns)))
    except GatedRepoError as error:
        raise _refused(
            f"{repo_id} is gated on the hub: {_first_line(error)}",
            "accept its terms on its hub page and log in (`hf auth login`), or download it and give the directory",
        ) from error
    except RepositoryNotFoundError as error:
        raise _refused(
            f"the hub has no model {repo_id}, or it is private",
            "check the spelling; a local directory is written ./name; for a private model log in (`hf auth login`)",
        ) from error
    except RevisionNotFoundError as error:
        raise _refused(
            f"{repo_id} has no revision {revision}", "give a commit hash, branch or tag of this model"
        ) from error
    except failures as error:
        raise _unreachable(repo_id, error) from error
    except RuntimeError as error:  # no HOME, and a user whom the system does not know
        if "home" not in str(error):
            raise
        message = f"{repo_id} has no place on this machine: {_first_line(error)}"
        hint = "set HF_HOME to a folder in which files from the hub may be kept"
        raise CircuitspecError(Diagnostic("CS317", message, hint=hint)) from error


def _refused(message: str, hint: str) -> CircuitspecError:
    return CircuitspecError(Diagnostic("CS316", message, hint=hint))


def _unreachable(repo_id: str, error: BaseException) -> CircuitspecError:
    return CircuitspecError(
        Diagnostic(
            "CS317",
            f"{repo_id} is not in the local cache and cannot be fetched from the hub: {_first_line(error)}",
            hint="connect to the network, or download the model elsewhere and give its directory as `id: ./name`",
        )
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
