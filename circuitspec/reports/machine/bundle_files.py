"""A bundle on disk: all of it, or what was there before."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.pyvene_export.bundle_content import Bundle
from circuitspec.experiments.experiment import Experiment
from circuitspec.runtime.visible_text import visible

_OWN = ("config.json", "unit_locations.json", "sources", "run.py", "README.md")
_MADE_BY_RUNNING = ("logits.safetensors", "__pycache__")

_README = """\
# {name}, as plain pyvene interventions

What circuitspec {version} runs for the hypothesis `{name}` on {model},
written for pyvene 0.1.8 (the hypothesis's digest: {digest}).
Nothing of circuitspec is needed to run it:

```sh
pip install pyvene==0.1.8 transformers safetensors torch
python run.py{argument}
```

`logits.safetensors` then holds, under each experiment's name, the logits after the last token of every prompt.
{where}
| experiment | run on | patched in | interventions |
|---|---|---|---|
{experiments}

| file | |
|---|---|
| `config.json` | one `VanillaIntervention` a head or tensor; `pyvene.IntervenableModel.load` reads it |
| `unit_locations.json` | by experiment and prompt: which of them are used (their numbers) and at which tokens |
| | (nested as pyvene takes it for one prompt); `channels` are pyvene's subspaces, `interventions` say what is patched |
| `sources/prompts.json` | token ids of every prompt, and where each experiment's values come from |
| `sources/means-*.safetensors` | means that are patched in, by intervention: group of prompts, token, channel |
| `run.py` | runs it all, one prompt at a time |

pyvene imports whatever class a `config.json` names: run bundles only if you trust where they come from.
"""


def readme(
    bundle_of: Mapping[Experiment, str], interventions: Mapping[str, int], facts: Mapping[str, str], hub: str | None
) -> str:
    """The bundle's README.md. `facts`: name, digest, model and version; `interventions` are counted by experiment."""
    rows = []
    for experiment, name in bundle_of.items():
        source = "nothing" if experiment.source is None else str(experiment.source)
        rows.append(visible(f"| {name} | {experiment.base} | {source} | {interventions[name]} |"))
    where = ""
    if hub is None:
        where = (
            "\nThe model is none of the hub's: MODEL is a directory with its files, as `save_pretrained` writes them.\n"
        )
    argument = " --model MODEL" if hub is None else ""
    shown = {name: visible(fact) for name, fact in facts.items()}
    return _README.format(**shown, argument=argument, where=where, experiments="\n".join(rows))


def refusal(directory: Path, *, force: bool) -> str:
    """Why a bundle must not be written there; empty if it may.

    A directory that holds anything is replaced only with `force`, and only if nothing but a bundle is in it.
    """
    if not directory.exists():
        return ""
    if not directory.is_dir():
        return f"{directory} is not a directory"
    if Path.cwd().is_relative_to(directory.resolve()):
        return f"{directory} is the current directory, or above it"
    held = {path.name for path in directory.iterdir()}
    if held and not force:
        return f"{directory} is not empty; name another directory, or --force to replace the bundle in it"
    foreign = sorted(held.difference(_OWN, _MADE_BY_RUNNING))
    return f"{directory} holds what is no part of a bundle: {', '.join(foreign[:5])}" if foreign else ""


def write_bundle(directory: Path, bundle: Bundle) -> None:
    """Write the bundle aside, then put it in place of what is there. Raises CS532 where that fails."""
    directory = directory.absolute()
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.") as aside:
            new, old = Path(aside) / "new", Path(aside) / "old"
            _fill(new, bundle)
            if directory.exists():
                new.chmod(directory.stat().st_mode & 0o7777)
                os.replace(directory, old)
            try:
                os.replace(new, directory)
            except OSError:
                if old.exists():
                    os.replace(old, directory)
                raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise CircuitspecError(
            Diagnostic("CS532", f"the bundle cannot be written to {directory}: {reason}", hint="name another directory")
        ) from error


def _fill(directory: Path, bundle: Bundle) -> None:
    from safetensors.torch import save

    for name in (*bundle.documents, *bundle.tensors, *bundle.texts):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
    for name, document in bundle.documents.items():
        (directory / name).write_text(json.dumps(document) + "\n", encoding="utf-8")
    for name, tensors in bundle.tensors.items():
        (directory / name).write_bytes(save(dict(tensors)))
    for name, text in bundle.texts.items():
        (directory / name).write_text(text, encoding="utf-8")
