"""Rows -> the prompts that they say, by the layout that they have. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from circuitspec.hypothesis_file.schema.blocks import TaskSpec
from circuitspec.hypothesis_file.schema.prompts_block import Columns
from circuitspec.prompts.files.given_rows import GivenRow, GivenRows, columns_of
from circuitspec.prompts.files.layouts.all_layouts import AUTO_CIRCUIT, OWN, ROW_LAYOUTS, alike, recognised
from circuitspec.prompts.files.layouts.auto_circuit_prompts import read_auto_circuit
from circuitspec.prompts.files.layouts.row_layout import Layout
from circuitspec.prompts.files.named_columns import (
    check_columns,
    check_header,
    named_content,
    own_content,
    suggested,
)
from circuitspec.prompts.files.prompt_entry import (
    CORRUPT,
    Entry,
    Placed,
    contradictions,
    prompt_set,
    repeats,
    unlike_most,
    validate,
)
from circuitspec.prompts.files.row_values import Unfit
from circuitspec.prompts.prompt_set import PromptSet, PromptsFile, RowChoice
from circuitspec.prompts.task_findings import TaskFindings, counted, meant

MOST_GROUPS = 100  # values of a column by which figures are broken down


@dataclass(frozen=True)
class ReadAs:
    """How a prompts file is read; see `TaskSpec`, which has the same."""

    columns: Columns | None = None
    layout: str | None = None
    skip: tuple[str, ...] = ()
    by: tuple[str, ...] = ()

    @classmethod
    def of(cls, task: TaskSpec) -> ReadAs:
        return cls(task.columns, task.layout, task.skip, task.by_columns)


@dataclass(frozen=True)
class _Read:
    """The prompts of rows, each with its row's number; what was left out; and how they were read, in words."""

    placed: list[Placed]
    numbers: list[int]
    left_out: list[tuple[int, str]] = field(default_factory=list)
    layout: str = ""
    text_positions: bool = False


def prompts_of_rows(given: GivenRows, how: ReadAs, limit: int | None, findings: TaskFindings) -> PromptSet:
    """The prompts that rows say, the first `limit` of them.

    Raises CircuitspecError (CS330 to CS340, CS351, CS355 to CS359) with
    everything that is wrong in them. Rows that `how` leaves out are counted, those that need tokens by `tokenize`.
    """
    read = _read(given, how, findings)
    findings.check()
    left_out = list(read.left_out)
    kept = list(zip(read.numbers, read.placed, strict=True))
    if "unfit" in how.skip:
        unlike = unlike_most([placed for _, placed in kept])
        bad = {id(placed) for _, placed in kept if any(contradictions(placed.entry))} | {id(one) for one in unlike}
        left_out += [(number, "unfit") for number, placed in kept if id(placed) in bad]
        kept = [(number, placed) for number, placed in kept if id(placed) not in bad]
    pending = how.skip if set(how.skip) - {"repeats"} else ()  # of what is left then, the first that fits is kept
    if "repeats" in how.skip and not pending:
        again = {id(placed) for placed, _ in repeats([placed for _, placed in kept])}
        left_out += [(number, "repeats") for number, placed in kept if id(placed) in again]
        kept = [(number, placed) for number, placed in kept if id(placed) not in again]
    if not how.skip:
        kept = kept[:limit]
    total = len(given.rows) + given.unread
    _check_count(given, total, [placed for _, placed in kept], left_out, how, limit, findings)
    entries = [placed for _, placed in kept]
    repeated = "repeats" in pending
    made = prompt_set(entries, given.name, findings, text_positions=read.text_positions, repeated=repeated)
    _check_by(how.by, entries, findings)
    choice = None
    if how.skip:
        numbers = tuple(number for number, _ in kept)
        choice = RowChoice(numbers, tuple(sorted(left_out)), pending, limit)
        choice = choice if pending else settled(choice, numbers[:limit], total)
    file = PromptsFile(given.name, total)
    made = replace(made, file=file, layout=read.layout, by=how.by, choice=choice)
    if choice is not None and choice.settled and limit is not None:
        made = made.chosen(range(min(limit, len(made.prompts))))
    return made


def settled(choice: RowChoice, kept: Sequence[int], total: int) -> RowChoice:
    """The choice once it is known which rows are `kept` of a file with `total` rows."""
    looked_at = max(kept) + 1 if choice.wanted is not None and len(kept) == choice.wanted else total
    return replace(choice, settled=True, looked_at=looked_at)


def _check_count(
    given: GivenRows,
    total: int,
    entries: Sequence[Placed],
    left_out: Sequence[tuple[int, str]],
    how: ReadAs,
    limit: int | None,
    findings: TaskFindings,
) -> None:
    """Raises CS339 for too few prompts, CS357 where all rows are left out."""
    if not given.rows:
        findings.add("CS339", f"{given.name} holds no prompts", given.place)
    elif not entries:
        findings.add(*nothing_left(given.name, left_out), ("task", "skip"))
    elif limit is not None and len(entries) < limit:
        findings.add(*too_few(given.name, len(entries), limit, fitting=bool(how.skip)), ("task", "prompts"))
    findings.check()


def nothing_left(name: str, left_out: Sequence[tuple[int, str]]) -> tuple[str, str]:
    """CS357, and what it says."""
    whys = [why for _, why in left_out]
    said = ", ".join(f"{whys.count(why)} {why}" for why in dict.fromkeys(whys))
    return "CS357", f"every row of {name} is left out: {said}"


def too_few(name: str, found: int, wanted: int, *, fitting: bool) -> tuple[str, str]:
    """CS339, and what it says."""
    fit = " that fit" if fitting else ""
    return "CS339", f"{name} holds {counted(found, 'prompt')}{fit}, but {wanted} are asked for: write prompts: {found}"


def _read(given: GivenRows, how: ReadAs, findings: TaskFindings) -> _Read:
    if how.columns is not None:
        if how.layout not in (None, OWN):
            said = f"`layout: {how.layout}` and `columns` both say how {given.name} is read"
            findings.add("CS356", said, ("task", "layout"), hint="keep one of them")
        check_columns(how.columns, given, findings)
        findings.check()
        columns = how.columns
        return _rows(given, how, findings, lambda row: named_content(row, columns, cells=given.cells))
    if given.whole is not None and how.layout in (None, AUTO_CIRCUIT):
        whole_row = GivenRow(given.whole, "line 1", given.name, given.place)
        read = read_auto_circuit(given, whole_row, findings)
        said = "auto_circuit" if len(read) == len(given.rows) else "auto_circuit, several corruptions of one prompt"
        numbers, placed = [number for number, _ in read], [one for _, one in read]
        return _Read(placed, numbers, layout=said, text_positions=True)
    name, said = _layout(given, how, findings)
    if name == OWN:
        if not check_header(given, findings):
            findings.check()
        return _rows(given, how, findings, lambda row: own_content(row, cells=given.cells))
    return _laid_out(given, ROW_LAYOUTS[name], how, findings, said)


def _layout(given: GivenRows, how: ReadAs, findings: TaskFindings) -> tuple[str, str]:
    """The layout by name, and what reports say of it. Raises CS356 where it is not clear."""
    first = next((row.content for row in given.rows if isinstance(row.content, Mapping)), {})
    place = given.place
    if how.layout == AUTO_CIRCUIT:
        hint = 'auto-circuit writes {"prompts": [{"clean": ...}], "word_idxs": {}}'
        findings.add("CS356", f"{given.name} is no object with a list of `prompts`", place, hint=hint)
        findings.check()
    if how.layout is not None and how.layout in ROW_LAYOUTS:
        needed, has = ROW_LAYOUTS[how.layout].columns, set(columns_of(given.rows))
        if given.rows and not any(set(one) <= has for one in needed):
            ways = "; or ".join(", ".join(one) for one in needed)
            said = f"{given.name} has not the columns of the layout {how.layout}: {ways}"
            findings.add(
                "CS356", said, place, hint=f"leave `layout` out, or say which column is what: {suggested(first)}"
            )
            findings.check()
    if how.layout is not None:
        return how.layout, f"{how.layout}, as `layout` says"
    shown = recognised(given.columns, first)
    if len(shown) > 1:
        findings.add(
            "CS356",
            f"{given.name} may have more than one layout: {', '.join(shown)}",
            place,
            hint=f"say which: layout: {next(iter(shown))}; or name its columns: columns: {{clean: ...}}",
        )
        findings.check()
    if shown:
        ((name, by),) = shown.items()
        return name, f"{name}, recognised by {', '.join(by)}"
    if given.columns and not {"clean", CORRUPT} & set(given.columns):
        maybe = alike(given.columns)
        hint = f"say which layout it has: layout: {' or '.join(maybe)}; or which" if maybe else "say which"
        findings.add(
            "CS356",
            f"the columns of {given.name} are those of no layout that is known: {', '.join(given.columns[:8])}",
            place,
            hint=f"{hint} column is what: {suggested(first)}",
        )
        findings.check()
    return OWN, ""


_ContentOf: TypeAlias = Callable[[GivenRow], tuple[object, dict[str, str]]]


def _rows(given: GivenRows, how: ReadAs, findings: TaskFindings, content_of: _ContentOf) -> _Read:
    placed: list[Placed] = []
    numbers: list[int] = []
    left_out: list[tuple[int, str]] = []
    for number, row in enumerate(given.rows):
        try:
            content, metadata = content_of(row)
        except Unfit as error:
            _leave_out(row, number, str(error), how, left_out, findings)
            continue
        entry = _entry(content, row, number, how, left_out, findings)
        if entry is not None:
            placed.append(Placed(entry, row, metadata))
            numbers.append(number)
    return _Read(placed, numbers, left_out, "" if how.columns is None else "columns named in the task")


def _laid_out(given: GivenRows, layout: Layout, how: ReadAs, findings: TaskFindings, said: str) -> _Read:
    placed: list[Placed] = []
    numbers: list[int] = []
    left_out: list[tuple[int, str]] = []
    for number, row in enumerate(given.rows):
        if not isinstance(row.content, Mapping):
            validate(Entry, row.content, row, findings)
            continue
        try:
            made = layout.made(row.content)
            if how.layout is None and layout.when is not None and not layout.when(row.content):
                raise Unfit(f"the first row is of the layout {layout.name}, as its columns say, and this one is not")
        except Unfit as error:
            _leave_out(row, number, str(error), how, left_out, findings)
            continue
        for one in made:
            entry = _entry(one.content, row, number, how, left_out, findings)
            if entry is not None:
                placed.append(Placed(entry, row, one.metadata))
                numbers.append(number)
    return _Read(placed, numbers, left_out, said)


def _entry(
    content: object, row: GivenRow, number: int, how: ReadAs, left_out: list[tuple[int, str]], findings: TaskFindings
) -> Entry | None:
    """A row's content as an entry; None where it is left out, or refused (CS338): always one with an unknown key."""
    keys = set(content) if isinstance(content, Mapping) else set()
    found = TaskFindings() if "unfit" in how.skip and keys and keys <= set(Entry.model_fields) else findings
    entry = validate(Entry, content, row, found)
    if isinstance(entry, Entry):
        return entry
    if found is not findings:
        left_out.append((number, "unfit"))
    return None


def _leave_out(
    row: GivenRow, number: int, why: str, how: ReadAs, left_out: list[tuple[int, str]], findings: TaskFindings
) -> None:
    if "unfit" in how.skip:
        left_out.append((number, "unfit"))
    else:
        row.note(findings, "CS359", why, hint="mend the row, or leave such rows out: skip: [unfit]")


def _check_by(by: Sequence[str], entries: Sequence[Placed], findings: TaskFindings) -> None:
    """Note what is wrong with the columns that figures are broken down by: CS355, CS358."""
    known = tuple(dict.fromkeys(name for placed in entries for name in placed.metadata))
    for column in by:
        values = {placed.metadata.get(column, "none") for placed in entries}
        if column not in known:
            hint = meant(column, known) if known else "columns that are read as prompts or answers are none of them"
            findings.add("CS355", f"no row has a column {column} beside its prompt", ("task", "by"), hint=hint)
        elif len(values) > MOST_GROUPS:
            said = f"{column} has {len(values)} values: more than {MOST_GROUPS} are no breakdown"
            findings.add("CS358", said, ("task", "by"), hint="name a column that has few values")
    findings.check()
