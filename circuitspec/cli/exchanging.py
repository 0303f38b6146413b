"""`import` and `export`: circuits of other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitspec.cli.answering import answering, say
from circuitspec.cli.options import FILE, FOLDER, check_output
from circuitspec.cli.outputs import check_outputs, files_of
from circuitspec.runtime.files import write_text_whole, write_whole

if TYPE_CHECKING:
    from circuitspec.exchange.loss import Loss

CIRCUITS = ("eap", "mib", "auto-circuit", "acdc", "interpbench", "edge-pruning")
VARIABLES, PAIRS = "mib-variables", "causal-pairs"
FEATURES = ("attribution-graph", "feature-list")
AS = click.Choice([*CIRCUITS, *FEATURES, VARIABLES, PAIRS])
AS_WRITTEN = click.Choice([*CIRCUITS, *FEATURES, VARIABLES])
FILE_OR_FOLDER = click.Path(path_type=Path)


def _size(context: click.Context, option: click.Parameter, text: str | None) -> Any:
    if text is None:
        return None
    from circuitspec.exchange.edge_lists import Size

    try:
        return Size.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


SIZE = click.option(
    "--size",
    callback=_size,
    metavar="LAYERSxHEADS[xCHANNELS][-parallel]",
    help="The model's size, where neither its configuration is on this machine nor the file says it.",
)


@click.command("import")
@click.argument("file", type=FILE_OR_FOLDER)
@click.option("--as", "as_", type=AS, required=True, help="The format of FILE.")
@click.option("-o", "--output", "out", type=FILE, required=True, help="Write the hypothesis here.")
@click.option("--model", help="The model in which the circuit was found, as in `model: id:`.")
@click.option("--prompts", type=FILE, help="A .jsonl, .csv or (auto-circuit's) .json file of prompts.")
@click.option("--threshold", type=click.FloatRange(min=0), help="Keep what has a score of this or more, in size.")
@click.option("--top", type=click.IntRange(min=1), help="Keep so many, those of the largest scores; none of score 0.")
@click.option(
    "--signed",
    is_flag=True,
    help="Rank by the scores as they stand, the most positive first, and keep none below 0.  [default: by their size]",
)
@click.option(
    "--level",
    type=click.Choice(["edge", "node", "neuron"]),
    help="What of an EAP-IG or MIB file is the circuit.  [default: what it scores or marks]",
)
@click.option(
    "--whole-nodes", is_flag=True, help="Keep nodes whole of which the file keeps some channels of what they write."
)
@click.option(
    "--entry",
    metavar="NAME",
    help="Which of several runs in FILE (auto-circuit: TASK/ALGORITHM; mib-variables: a unit).",
)
@click.option("--keep-dangling", is_flag=True, help="Keep edges that lie on no way from the input to the logits.")
@click.option(
    "--dictionaries",
    type=FOLDER,
    metavar="DIR",
    help="Features: the folder of circuit-tracer's transcoders, or one with a folder for each dictionary, by its name.",
)
@click.option(
    "--influence",
    type=click.FloatRange(min=0, max=1, min_open=True),
    help="Attribution graphs: keep the nodes that together have this share of the influence, as the viewer does.",
)
@click.option("--pinned", is_flag=True, help="Attribution graphs: keep the nodes alone that the viewer's user pinned.")
@SIZE
@click.option("--force", is_flag=True, help="Overwrite the output if it exists.")
@answering
def import_(file: Path, as_: Any, out: Path, force: bool, **options: Any) -> None:
    """Write a hypothesis from a circuit FILE of another tool.

    What the file cannot say, or a hypothesis cannot, is listed on stderr and at the top of the file. Of mib-variables
    FILE is the folder of one variable, and its subspace is written beside the hypothesis. Of causal-pairs the output is
    a file of pairs, and their bases are written beside it as prompts. Of an attribution-graph its prompt is.
    """
    if options["threshold"] is not None and options["top"] is not None:
        raise click.UsageError("give --threshold or --top, not both")
    if options["signed"] and options["threshold"] is None and options["top"] is None:
        raise click.UsageError("--signed says how scores are ranked: it goes with --top or --threshold")
    check_output(out, force)
    check_outputs([("FILE", file), ("--prompts", options["prompts"])], [("--output", out)])
    _check_options(as_, options)
    if as_ == VARIABLES:
        _import_variable(file, out, force, options)
        return
    if as_ == PAIRS:
        _import_pairs(file, out, force)
        return
    if as_ in FEATURES:
        _import_features(file, as_, out, force, options)
        return
    options = {name: value for name, value in options.items() if name not in _OF_FEATURES}
    from circuitspec.exchange.importing import ImportOptions, import_circuit
    from circuitspec.exchange.loss import loss_text

    imported = import_circuit(file, as_, out, ImportOptions(**options))
    write_text_whole(out, imported.text)
    click.echo(
        loss_text("CS380", "what the hypothesis says otherwise than the file", imported.losses), nl=False, err=True
    )
    say(f"wrote {out} ({imported.size}); next: circuitspec check {out}")


_OF_FEATURES = ("dictionaries", "influence", "pinned")
_TAKEN: dict[str, set[str]] = {
    VARIABLES: {"model", "prompts", "entry"},
    PAIRS: set(),
    "attribution-graph": {"model", "prompts", "top", *_OF_FEATURES},
    "feature-list": {"model", "prompts", "dictionaries", "top", "threshold"},
}
"""The options that go with a format; with those of circuits all go that are not about features."""


def _check_options(as_: str, options: dict[str, Any]) -> None:
    """Refuse, as a usage error, options that say nothing of the format."""
    known = _TAKEN.get(as_, {*options} - {*_OF_FEATURES})
    given = [name for name, value in options.items() if value not in (None, False) and name not in known]
    if given:
        raise click.UsageError(f"--{given[0].replace('_', '-')} does not go with --as {as_}")


def _import_features(file: Path, as_: str, out: Path, force: bool, options: dict[str, Any]) -> None:
    from circuitspec.exchange.features.feature_lists import import_list
    from circuitspec.exchange.features.importing_features import FeatureOptions, import_graph, prompts_beside

    given = {name: value for name, value in options.items() if name in FeatureOptions.__dataclass_fields__}
    found = (import_list if as_ == "feature-list" else import_graph)(file, out, FeatureOptions(**given))
    beside = prompts_beside(out)
    if found.prompts is not None:
        check_output(beside, force)
    prompts = None if found.prompts is None else found.prompts.encode()
    also = _write_imported("file", out, found.text, found.losses, beside, prompts)
    say(f"wrote {out}{also} ({found.size}); next: circuitspec check {out}")


def _import_variable(file: Path, out: Path, force: bool, options: dict[str, Any]) -> None:
    from circuitspec.experiments.subspaces.subspace_files import subspaces_beside
    from circuitspec.pipelines.abstraction.variable_submissions import import_variable

    beside = subspaces_beside(out)
    check_output(beside, force)
    found = import_variable(file, out, model=options["model"], entry=options["entry"], prompts=options["prompts"])
    also = _write_imported("folder", out, found.text, found.losses, beside, found.subspaces)
    say(f"wrote {out}{also} ({found.unit.name}); next: write its variables, then circuitspec check {out}")


def _write_imported(of: str, out: Path, text: str, losses: Sequence[Loss], beside: Path, content: bytes | None) -> str:
    """Write the hypothesis, and what goes beside it; say what it says otherwise. In words, what else was written."""
    from circuitspec.exchange.loss import loss_text

    write_text_whole(out, text)
    if content is not None:
        write_whole(beside, content)
    click.echo(loss_text("CS380", f"what the hypothesis says otherwise than the {of}", losses), nl=False, err=True)
    return "" if content is None else f" and {beside}"


def _import_pairs(file: Path, out: Path, force: bool) -> None:
    from circuitspec.exchange.loss import loss_text
    from circuitspec.exchange.variables.causal_pairs import ANSWER, PROMPT, read_causal_pairs

    found = read_causal_pairs(file)
    names = [out, *(out.with_name(f"{out.stem}.{k}{out.suffix}") for k in range(2, len(found.pairs) + 1))]
    prompts = out.with_name(f"{out.stem}.prompts.jsonl")
    for path in (*names[1:], prompts):
        check_output(path, force)
    for path, lines in zip(names, found.pairs, strict=True):
        write_text_whole(path, lines)
    write_text_whole(prompts, found.prompts)
    click.echo(loss_text("CS380", "what the files do not say", found.losses), nl=False, err=True)
    families = ", ".join(f"pairs{'' if k == 0 else k + 1}: {{file: {path.name}}}" for k, path in enumerate(names))
    say(f"wrote {', '.join(map(str, names))} and {prompts} ({found.n} bases); in a hypothesis:")
    say(f"  task: {{file: {prompts.name}, columns: {{clean: {PROMPT}, answers: {ANSWER}, add_space: true}}}}")
    say(f"  abstraction: {{pairs: {{{families}}}}}")


@click.command()
@click.argument("file", type=FILE)
@click.option("--as", "as_", type=AS_WRITTEN, required=True, help="The format to write.")
@click.option("-o", "--output", "out", type=FILE_OR_FOLDER, required=True, help="Write the circuit here.")
@SIZE
@click.option("--force", is_flag=True, help="Overwrite the output if it exists.")
@answering
def export(file: Path, as_: Any, out: Path, size: Any, force: bool) -> None:
    """Write the edges that the hypothesis in FILE keeps in a format of another tool.

    What that format cannot say is listed on stderr. As mib-variables, its aligned variables are written, each as a
    folder in the output; as attribution-graph or feature-list, the features of its circuit.
    """
    check_output(out, force)
    check_outputs([("FILE", file)], [("--output", out)])
    from circuitspec.exchange.exporting import export_circuit
    from circuitspec.exchange.loss import counted, loss_text
    from circuitspec.hypothesis_file.load_file import load_hypothesis

    document = load_hypothesis(file)
    check_outputs(files_of(document), [("--output", out)])
    if as_ == VARIABLES:
        if size is not None:
            raise click.UsageError(f"--size does not go with --as {as_}")
        _export_variables(document, out)
        return
    if as_ in FEATURES:
        if size is not None:
            raise click.UsageError(f"--size does not go with --as {as_}")
        _export_features(document, as_, out)
        return
    exported = export_circuit(document, as_, out, size)
    write_whole(out, exported.content)
    click.echo(
        loss_text("CS381", "what the file cannot say, or says beyond the hypothesis", exported.losses),
        nl=False,
        err=True,
    )
    say(f"wrote {out} ({counted(len(exported.edges), 'edge')})")


def _export_variables(document: Any, out: Path) -> None:
    from circuitspec.exchange.loss import counted, loss_text
    from circuitspec.pipelines.abstraction.variable_submissions import export_variables

    if out.exists() and not out.is_dir():
        raise click.UsageError(f"{out} is a file, and a submission is a folder of folders")
    found = export_variables(document)
    for name, content in found.files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    click.echo(loss_text("CS381", "what the folders do not say", found.losses), nl=False, err=True)
    say(f"wrote {', '.join(str(out / folder) for folder in found.folders)} ({counted(len(found.files), 'file')})")


def _export_features(document: Any, as_: str, out: Path) -> None:
    from circuitspec.exchange.features.exporting_features import export_graph, export_list
    from circuitspec.exchange.features.feature_circuit import sizes
    from circuitspec.exchange.loss import loss_text

    found = (export_list if as_ == "feature-list" else export_graph)(document)
    write_whole(out, found.content)
    heading = "what the file cannot say, or says beyond the hypothesis"
    click.echo(loss_text("CS381", heading, found.losses), nl=False, err=True)
    say(f"wrote {out} ({sizes(found.circuit.nodes)})")
