"""Families of pairs of prompts from a file: sources are other rows of it, or rows of a file of pairs. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from circuitspec.hypothesis_file.schema.abstraction.abstraction_block import PairFamily
from circuitspec.hypothesis_file.schema.blocks import TaskSpec
from circuitspec.hypothesis_file.schema.prompts_block import Columns
from circuitspec.prompts.files.filled_prompts import SOURCE
from circuitspec.prompts.files.given_rows import GivenRow, GivenRows
from circuitspec.prompts.files.named_columns import named_content, own_content
from circuitspec.prompts.files.prompt_entry import Entry, Placed, prompt_set, validate
from circuitspec.prompts.files.prompt_files import read_rows
from circuitspec.prompts.files.row_values import Unfit
from circuitspec.prompts.pairs.pair_files import EXPLAINED, check_all_have_one, note_base, take
from circuitspec.prompts.pairs.pair_set import SourcePrompt
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet
from circuitspec.prompts.task_findings import TaskFindings


def source_of(prompt: Prompt) -> SourcePrompt:
    """A prompt as the source of a pair, with its answers."""
    named = tuple(text for text in (*prompt.answers, *prompt.wrong) if isinstance(text, str))
    ids = {CLEAN: prompt.ids[CLEAN]} if CLEAN in prompt.ids else {}
    return SourcePrompt(prompt.values, prompt.texts[CLEAN], {}, named, prompt.positions, ids)


def listed_sources(
    name: str,
    family: PairFamily,
    partners: Mapping[int, int],
    task: TaskSpec,
    prompts: PromptSet,
    base_dir: Path,
    findings: TaskFindings,
) -> tuple[SourcePrompt, ...]:
    """The sources of a family in the order of the prompts: those of its file, or each prompt's partner.

    Notes CS232 for a prompt without a partner, and raises as reading files does, and CS379, CS378.
    """
    if family.file is not None:
        rows = read_rows(base_dir / family.file, findings, None, ("abstraction", "pairs", name, "file"))
        found = _from_rows(rows, prompts, name, task.columns, findings, some="prompts" in task.model_fields_set)
        findings.check()
        return tuple(found[prompt.index] for prompt in prompts.prompts)
    alone = [prompt for prompt in prompts.prompts if prompt.index not in partners]
    if alone:
        findings.add(
            "CS232",
            f"the family {name} leaves {alone[0].described()} as it is",
            ("abstraction", "pairs", name),
            label=f"{alone[0].texts[CLEAN]!r}",
            hint="permuted are prompts of one `template`, of which there must be two at least",
        )
        findings.check()
    return tuple(source_of(prompts.prompts[partners[prompt.index]]) for prompt in prompts.prompts)


def _from_rows(
    given: GivenRows,
    prompts: PromptSet,
    family: str,
    columns: Columns | None,
    findings: TaskFindings,
    *,
    some: bool,
) -> dict[int, SourcePrompt]:
    """By prompt the source that a row gives it."""
    by_text = {prompt.texts[CLEAN]: prompt for prompt in prompts.prompts}
    in_order = not any(isinstance(row.content, Mapping) and "base" in row.content for row in given.rows)
    taken: dict[int, tuple[SourcePrompt | int, GivenRow]] = {}
    entries: list[Placed] = []
    for number, row in enumerate(given.rows):
        try:
            base = _base(row, number, prompts, by_text, in_order=in_order)
            source = _source(row, by_text, columns, cells=given.cells, findings=findings)
        except Unfit as error:
            row.note(findings, "CS379", str(error), hint=EXPLAINED)
            continue
        if base is None and not some:
            note_base(row, None, findings)
        if base is None or source is None:
            continue
        if (source.entry.clean if isinstance(source, Placed) else source.text) == base.texts[CLEAN]:
            row.note(findings, "CS232", f"the source is {base.described()} itself, which is the base")
        if isinstance(source, Placed):
            entries.append(source)
        take(taken, base, len(entries) - 1 if isinstance(source, Placed) else source, row, findings)
    check_all_have_one(taken, prompts, given, family, findings)
    findings.check()
    made = prompt_set(entries, given.name, findings, repeated=True).prompts if entries else ()
    found = {base: made[one] if isinstance(one, int) else one for base, (one, _) in taken.items()}
    return {base: source_of(one) if isinstance(one, Prompt) else one for base, one in found.items()}


def _base(
    row: GivenRow, number: int, prompts: PromptSet, by_text: Mapping[str, Prompt], *, in_order: bool
) -> Prompt | None:
    """The prompt that a row is of: the one that it names, or where no row names one, the one of its number."""
    content = _mapping(row)
    if in_order:
        return prompts.prompts[number] if number < len(prompts.prompts) else None
    said = content.get("base")
    if not isinstance(said, str):
        raise Unfit("`base` is no clean prompt of the task")
    return by_text.get(said)


def _source(
    row: GivenRow, by_text: Mapping[str, Prompt], columns: Columns | None, *, cells: bool, findings: TaskFindings
) -> SourcePrompt | Placed | None:
    """Another prompt of the task, or a row as its prompts file has them; None where that is noted to be wrong."""
    content = _mapping(row)
    said = content.get("source")
    if isinstance(said, str):
        if said not in by_text:
            raise Unfit(
                f"the source {said!r} is no clean prompt of the task: give it as source.clean, with its columns"
            )
        return source_of(by_text[said])
    own = {key.removeprefix(SOURCE): value for key, value in content.items() if key.startswith(SOURCE)}
    own = {**said, **own} if isinstance(said, Mapping) else own
    if not own:
        raise Unfit(f"the row has no `source` and no `{SOURCE}clean`")
    placed = replace(row, content=own)
    if columns is None:
        entry, metadata = own_content(placed, cells=cells)
    else:
        entry, metadata = named_content(placed, columns, cells=cells)
    found = validate(Entry, entry, placed, findings)
    return Placed(found, placed, metadata) if isinstance(found, Entry) else None


def _mapping(row: GivenRow) -> Mapping[str, object]:
    if not isinstance(row.content, Mapping):
        raise Unfit("this is no object with a key for each column")
    return row.content
