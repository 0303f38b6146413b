"""`doctor` and `compile`: the patching itself, tested on a model or written down for pyvene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from circuitspec.cli.answering import answering, say
from circuitspec.cli.options import DEVICE, FILE
from circuitspec.cli.waiting import waiting
from circuitspec.diagnostics.diagnostic import CircuitspecError


@click.command()
@click.argument("model")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
)
@DEVICE
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@answering
def doctor(model: str, dtype: Any, device: str, format_: str) -> None:
    """Test every site at which MODEL can be patched: exit code 0 if patching is exact, 5 if not.

    MODEL is what `model: id:` may be in a file: a hub id, a directory, zoo:NAME, package:MODULE/FILE.gguf.
    """
    if not model:
        raise click.UsageError("MODEL is empty")
    try:
        model.encode()
    except UnicodeEncodeError as error:
        raise click.UsageError("MODEL is a path that is not UTF-8: rename the folder") from error
    from circuitspec.hypothesis_file.schema.blocks import ModelSpec

    with waiting() as progress:
        progress.stage("starting torch and pyvene")
        from circuitspec.engine.execution.compiler import borrowed
        from circuitspec.engine.validation.site_tests import diagnose
        from circuitspec.models.load import load_model

        loaded = load_model(ModelSpec(id=model, dtype=dtype), Path.cwd(), device=device, progress=progress.stage)
        progress.stage("testing every site")
        with borrowed(loaded.model):
            diagnosis = diagnose(loaded, progress)
    from circuitspec.reports.text.doctor_text import ExaminedModel, render_json, render_text

    examined = ExaminedModel(loaded.provenance, loaded.architecture, loaded.shape, device, diagnosis)
    click.echo(render_json(examined) if format_ == "json" else render_text(examined), nl=False)
    if diagnosis.problems:
        raise CircuitspecError(*diagnosis.problems)


@click.command("compile")
@click.argument("file", type=FILE)
@click.option("--emit", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Write the bundle here.")
@click.option("--force", is_flag=True, help="Replace a bundle that is in DIR.")
@DEVICE
@answering
def compile_(file: Path, emit: Path, force: bool, device: str) -> None:
    """Write the experiments of FILE as a bundle that pyvene runs by itself.

    DIR gets config.json (which pyvene loads), unit_locations.json, the tokenised prompts, the means that
    are patched in, and run.py, which needs only torch, transformers, pyvene and safetensors.
    """
    from circuitspec.hypothesis_file.load_file import load_hypothesis

    document = load_hypothesis(file)
    with waiting() as progress:
        progress.stage("starting torch and pyvene")
        from circuitspec.reports.machine.bundle_files import refusal, write_bundle

        refused = refusal(emit, force=force)
        if refused:
            raise click.UsageError(refused)
        from circuitspec.pipelines.bundle import compile_bundle

        bundle = compile_bundle(document, device, progress)
    write_bundle(emit, bundle)
    say(f"wrote {emit} ({len(bundle.names)} experiments); how to run it is in {emit / 'README.md'}")
