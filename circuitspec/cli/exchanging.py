"""`import` and `export`: circuits of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from circuitspec.cli.answering import answering, say
from circuitspec.cli.options import FILE, check_output
from circuitspec.cli.outputs import check_outputs, files_of
from circuitspec.runtime.files import write_text_whole, write_whole

AS = click.Choice(["eap", "mib", "auto-circuit", "acdc", "interpbench", "edge-pruning"])


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
@click.argument("file", type=FILE)
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
@click.option("--entry", metavar="TASK/ALGORITHM", help="Which of several runs in FILE (auto-circuit).")
@click.option("--keep-dangling", is_flag=True, help="Keep edges that lie on no way from the input to the logits.")
@SIZE
@click.option("--force", is_flag=True, help="Overwrite the output if it exists.")
@answering
def import_(file: Path, as_: Any, out: Path, force: bool, **options: Any) -> None:
    """Write a hypothesis from a circuit FILE of another tool.

    What the file cannot say, or a hypothesis cannot, is listed on stderr and at the top of the file.
    """
    if options["threshold"] is not None and options["top"] is not None:
        raise click.UsageError("give --threshold or --top, not both")
    if options["signed"] and options["threshold"] is None and options["top"] is None:
        raise click.UsageError("--signed says how scores are ranked: it goes with --top or --threshold")
    check_output(out, force)
    check_outputs([("FILE", file), ("--prompts", options["prompts"])], [("--output", out)])
    from circuitspec.exchange.importing import ImportOptions, import_circuit
    from circuitspec.exchange.loss import loss_text

    imported = import_circuit(file, as_, out, ImportOptions(**options))
    write_text_whole(out, imported.text)
    click.echo(
        loss_text("CS380", "what the hypothesis says otherwise than the file", imported.losses), nl=False, err=True
    )
    say(f"wrote {out} ({imported.size}); next: circuitspec check {out}")


@click.command()
@click.argument("file", type=FILE)
@click.option("--as", "as_", type=AS, required=True, help="The format to write.")
@click.option("-o", "--output", "out", type=FILE, required=True, help="Write the circuit here.")
@SIZE
@click.option("--force", is_flag=True, help="Overwrite the output if it exists.")
@answering
def export(file: Path, as_: Any, out: Path, size: Any, force: bool) -> None:
    """Write the edges that the hypothesis in FILE keeps in a format of another tool.

    What that format cannot say is listed on stderr.
    """
    check_output(out, force)
    check_outputs([("FILE", file)], [("--output", out)])
    from circuitspec.exchange.exporting import export_circuit
    from circuitspec.exchange.loss import counted, loss_text
    from circuitspec.hypothesis_file.load_file import load_hypothesis

    document = load_hypothesis(file)
    check_outputs(files_of(document), [("--output", out)])
    exported = export_circuit(document, as_, out, size)
    write_whole(out, exported.content)
    click.echo(
        loss_text("CS381", "what the file cannot say, or says beyond the hypothesis", exported.losses),
        nl=False,
        err=True,
    )
    say(f"wrote {out} ({counted(len(exported.edges), 'edge')})")
