"""Columns by name -> what a prompt says: those of circuitspec's own form, or those that a task's `columns` names."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from circuitspec.hypothesis_file.schema.prompts_block import Columns
from circuitspec.prompts.files.given_rows import GivenRow, GivenRows, as_label
from circuitspec.prompts.files.prompt_entry import CORRUPT, USUAL_NAMES
from circuitspec.prompts.files.row_values import (
    answer_texts,
    place_of,
    spaced,
    token_ids,
    value_at,
    without_nulls,
)
from circuitspec.prompts.task_findings import TaskFindings, meant

OWN = ("clean", CORRUPT, "answers", "wrong", "positions", "template")
_CELLS = ("clean", CORRUPT, "answers", "wrong", "template")
_PREFIXES = ("corrupt:", "position:")
_LIKE = 0.75  # how alike a column's name is to one that is known, where that one is meant


def is_own_column(name: str) -> bool:
    """Whether circuitspec's own form has a column of this name."""
    return name in OWN or any(name.startswith(p) and len(name) > len(p) for p in _PREFIXES)


def check_header(given: GivenRows, findings: TaskFindings) -> bool:
    """Note (CS338) what is wrong with the columns of a table in circuitspec's own form."""
    if not given.cells or not given.columns:
        return True
    place = given.place
    counts, good = Counter(given.columns), True
    for name in counts:
        other = mistaken(name, counts)
        if other is not None and not is_own_column(name):
            hint = f"did you mean {other}? or say which column is what: {suggested(dict.fromkeys(counts, ''))}"
            findings.add("CS338", f"there is no column {name!r}", place, hint=hint)
            good = False
    if CORRUPT in counts and f"corrupt:{CORRUPT}" in counts:
        findings.add("CS338", f"the columns {CORRUPT} and corrupt:{CORRUPT} name one corruption", place)
        good = False
    if "clean" not in counts:
        hint = "name the columns on the first line, or say in the task which is which: columns: {clean: NAME, ...}"
        findings.add("CS338", "there is no column clean", place, hint=hint)
        good = False
    return good


def mistaken(name: str, there: Iterable[str]) -> str | None:
    """The column that a name is meant for: one that is known and not there itself."""
    known = [one for one in OWN if one not in set(there)]
    if name in USUAL_NAMES:
        return USUAL_NAMES[name] if USUAL_NAMES[name] in known else None
    close = difflib.get_close_matches(name, known, n=1, cutoff=_LIKE)
    return close[0] if close else None


def suggested(row: Mapping[str, object]) -> str:
    """What a task may say of a file with this row, by what its columns are usually called: `columns: {...}`."""
    texts = {name: value for name, value in row.items() if isinstance(value, str)}
    clean = _called(row, _PROMPTS) or max(texts, key=lambda name: len(texts[name]), default=next(iter(row), "..."))
    said = {"clean": clean}
    for key, names in (("corrupt", _CORRUPTIONS), ("answers", _ANSWERS), ("wrong", _WRONG)):
        found = _called({name: value for name, value in row.items() if name not in said.values()}, names)
        value = row.get(found) if found is not None else None
        if found is not None and (key != "corrupt" or not isinstance(value, Mapping)):
            said[key] = found
        elif isinstance(value, Mapping) and clean in value:
            said[key] = f"{found}.{clean}"
    said.setdefault("corrupt", "...")
    said.setdefault("answers", "...")
    return f"columns: {{{', '.join(f'{key}: {name}' for key, name in said.items())}}}"


_PROMPTS = ("clean", "prompt", "question", "text", "sentence", "input", "src")
_CORRUPTIONS = ("corrupt", "counterfactual", "patch", "swapped")
_ANSWERS = ("answer", "correct", "label", "target", "object", "good")
_WRONG = ("wrong", "incorrect", "other", "bad", "alt")


def _called(names: Iterable[str], words: Sequence[str]) -> str | None:
    """The first name that is one of the words, begins with one, or holds one."""
    listed = [name for name in names if name]
    for is_so in (str.__eq__, str.startswith, str.__contains__):
        for word in words:
            for name in listed:
                if is_so(name.lower(), word):
                    return name
    return None


def own_content(row: GivenRow, *, cells: bool) -> tuple[object, dict[str, str]]:
    """A row of circuitspec's own form as an entry, and what its other columns say.

    What is wrong with it is left for validation to say: also a column whose name is like one that is known.
    """
    content = row.content
    if not isinstance(content, Mapping):
        return content, {}
    if row.by_number:  # in a frame's or parquet file's column of texts each is one answer
        listed = ("answers", "wrong")
        content = {
            key: [value] if key in listed and isinstance(value, str) else value
            for key, value in content.items()
            if value is not None
        }
    other = {
        key: as_label(value)
        for key, value in content.items()
        if not is_own_column(key) and (cells or mistaken(key, content) is None)
    }
    own = {key: value for key, value in content.items() if key not in other}
    if not cells and not (row.by_number and any(key.startswith(_PREFIXES) for key in own)):
        return without_nulls(own) if row.by_number else own, other
    made: dict[str, object] = {"clean": own["clean"]} if "clean" in own else {}
    corrupt = {name.removeprefix("corrupt:"): text for name, text in own.items() if name.startswith("corrupt:")}
    if CORRUPT in own:
        corrupt[CORRUPT] = own[CORRUPT]
    if corrupt:
        made["corrupt"] = corrupt
    for key in ("answers", "wrong"):
        if own.get(key):
            made[key] = answer_texts(own[key], cells=cells)
    if "template" in own:
        made["template"] = own["template"]
    roles = {name.removeprefix("position:"): value for name, value in own.items() if name.startswith("position:")}
    if roles:
        made["positions"] = {role: place_of(value) for role, value in roles.items()}
    if cells and "positions" in own:
        other["positions"] = as_label(own["positions"])
    return made, other


def column_names(columns: Columns) -> tuple[str, ...]:
    """Every column that `columns` names."""
    corrupt = columns.corrupt
    lists = [columns.answers, columns.wrong, columns.answer_ids, columns.wrong_ids]
    return (
        columns.clean,
        *(() if corrupt is None else (corrupt,) if isinstance(corrupt, str) else corrupt.values()),
        *(name for one in lists for name in _listed(one)),
        *columns.positions.values(),
        *(() if columns.template is None else (columns.template,)),
    )


def _listed(names: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if names is None else (names,) if isinstance(names, str) else names


def check_columns(columns: Columns, given: GivenRows, findings: TaskFindings) -> None:
    """Note (CS355) every column that `columns` names and no row has."""
    contents = [row.content for row in given.rows if isinstance(row.content, Mapping)]
    for name in dict.fromkeys(column_names(columns)):
        if name in given.columns or any(value_at(content, name) is not None for content in contents):
            continue
        said = f"{given.name} has no column {name}"
        findings.add("CS355", said, ("task", "columns"), hint=meant(name, given.columns))


def named_content(row: GivenRow, columns: Columns, *, cells: bool) -> tuple[object, dict[str, str]]:
    """A row as an entry, by the columns that `columns` names, and what its other columns say. Raises Unfit."""
    content = row.content
    if not isinstance(content, Mapping):
        return content, {}
    made: dict[str, object] = {"clean": value_at(content, columns.clean)}
    if isinstance(columns.corrupt, str):
        made["corrupt"] = value_at(content, columns.corrupt)
    elif columns.corrupt is not None:
        made["corrupt"] = {name: value_at(content, column) for name, column in columns.corrupt.items()}
    for key, names, ids in (
        ("answers", columns.answers, columns.answer_ids),
        ("wrong", columns.wrong, columns.wrong_ids),
    ):
        texts = [one for name in _listed(names) for one in _texts(value_at(content, name), columns, made, cells=cells)]
        numbers = [one for name in _listed(ids) for one in token_ids(value_at(content, name), name)]
        if names is not None or ids is not None:
            made[key] = [*texts, *numbers]
    if columns.positions:
        made["positions"] = {role: _place(value_at(content, name)) for role, name in columns.positions.items()}
    if columns.template is not None:
        made["template"] = as_label(value_at(content, columns.template))
    used = set(column_names(columns)) - {columns.template}
    return made, {key: as_label(value) for key, value in content.items() if key not in used}


def _texts(value: object, columns: Columns, made: Mapping[str, object], *, cells: bool) -> list[object]:
    found = answer_texts(value, cells=cells)
    listed = found if isinstance(found, list) else [found]
    clean = made["clean"]
    if not columns.add_space or not isinstance(clean, str):
        return listed
    return [spaced(one, clean) if isinstance(one, str) else one for one in listed]


def _place(value: object) -> object:
    """As in circuitspec's own form; a text that is no number stands for itself."""
    found = place_of(value)
    return {"text": found} if isinstance(found, str) else found
