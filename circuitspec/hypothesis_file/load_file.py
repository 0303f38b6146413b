"""A `.circuit.yaml` file -> a checked document: source, schema and every check that needs no model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import rfc8785
from pydantic import ValidationError

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, in_order
from circuitspec.hypothesis_file.checks.check_all import Checked, check_parts
from circuitspec.hypothesis_file.checks.scope import MAX_FINDINGS
from circuitspec.hypothesis_file.checks.word_lists import Row
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS
from circuitspec.hypothesis_file.problems import problems_of
from circuitspec.hypothesis_file.schema.blocks import AblationSpec, Exploration, Hypothesis, Subject
from circuitspec.hypothesis_file.yaml.source import Path_, SourceText, parse_leniently, read_text

IN_MEMORY = "<in memory>"  # the id of a model that is passed in from Python, where the file names none
ONLY_CORRUPTION = "corrupt"  # the name of the one corruption of a prompts file that does not name it
S = TypeVar("S", bound=Subject)


class _Placed:
    """What came from a file."""

    source: SourceText

    @contextmanager
    def blamed_on(self, *path: str | int) -> Iterator[None]:
        """Findings within that have no place of their own get that of the part at `path`."""
        try:
            yield
        except CircuitspecError as error:
            span = self.source.span(path)
            placed = [d if d.span is not None else replace(d, span=span) for d in error.diagnostics]
            raise CircuitspecError(*placed) from error.__cause__


@dataclass(frozen=True)
class Document(_Placed):
    """A valid hypothesis, the file it came from, and its word lists."""

    hypothesis: Hypothesis
    source: SourceText
    base_dir: Path  # file names in the hypothesis are relative to it
    lists: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Study(_Placed):
    """A valid file to explore."""

    exploration: Exploration
    source: SourceText
    base_dir: Path


def load_exploration(path: str | Path, *, model_given: bool = False) -> Study:
    """Read and check a file of which nothing but model and task is needed; with `model_given` the task alone.

    Raises CircuitspecError with everything that is wrong, in order of place.
    """
    file = Path(path)
    return parse_exploration(read_text(file), str(path), file.parent, model_given=model_given)


def parse_exploration(text: str, file: str, base_dir: Path, *, model_given: bool = False) -> Study:
    """As `load_exploration`, of a text; `file` is its name in messages."""
    exploration, source, _ = _parse(Exploration, text, file, base_dir, model_given=model_given)
    return Study(exploration, source, base_dir)


def load_hypothesis(path: str | Path, *, model_given: bool = False) -> Document:
    """Read and check a hypothesis file and the list files it names.

    With `model_given` the file need not name a model: it then has the id `IN_MEMORY`.
    Raises CircuitspecError with everything that is wrong, in order of place.
    """
    file = Path(path)
    return parse_hypothesis(read_text(file), str(path), file.parent, model_given=model_given)


def parse_hypothesis(
    text: str, file: str = "<text>", base_dir: Path | None = None, *, model_given: bool = False
) -> Document:
    """Check a hypothesis given as text; `file` is its name in messages, `model_given` as in `load_hypothesis`.

    Names of list files are taken relative to `base_dir`, by default the folder of `file`.
    Raises CircuitspecError with everything that is wrong, in order of place.
    """
    folder = Path(file).parent if base_dir is None else base_dir
    hypothesis, source, lists = _parse(Hypothesis, text, file, folder, model_given=model_given)
    if hypothesis.task.templates:
        hypothesis = with_source(hypothesis, tuple(hypothesis.task.corruptions), source)
    return Document(hypothesis, source, folder, lists)


def with_source(hypothesis: Hypothesis, corruptions: Sequence[str] | None, text: SourceText) -> Hypothesis:
    """The hypothesis with `ablation: from:` filled in where it takes values from other prompts and does not say which.

    `corruptions` are those of its prompts; None where these are not at hand. Raises CS145 unless there is exactly one.
    """
    ablation = with_named_source(hypothesis.ablation, corruptions, text)
    return hypothesis if ablation is hypothesis.ablation else hypothesis.model_copy(update={"ablation": ablation})


def with_named_source(ablation: AblationSpec, corruptions: Sequence[str] | None, text: SourceText) -> AblationSpec:
    """As `with_source`, of the block alone."""
    if not ABLATIONS[ablation.value].takes_prompts or ablation.source is not None:
        return ablation
    known = (ONLY_CORRUPTION,) if corruptions is None else tuple(corruptions)
    if len(known) != 1:
        raise CircuitspecError(
            Diagnostic(
                "CS145",
                f"{ablation.value} needs to know from which prompts",
                text.span(("ablation", "value")),
                hint=f"add from: one of {', '.join(known)}" if known else "the prompts have no corruption: add one",
            )
        )
    return ablation.model_copy(update={"source": known[0]})


def _parse(
    kind: type[S], text: str, file: str, folder: Path, *, model_given: bool = False
) -> tuple[S, SourceText, Mapping[str, tuple[Row, ...]]]:
    """The file as a value of this kind, its places, and its word lists."""
    source, findings = parse_leniently(text, file)
    found, untold = list(findings), 0
    subject: S | None = None
    unusable: tuple[Path_, ...] = ()
    content = source.data
    if model_given and isinstance(content, dict) and "model" not in content:
        content = {**content, "model": {"id": IN_MEMORY}}
    try:
        subject = kind.model_validate(content, by_alias=True, by_name=False)
    except ValidationError as error:
        problems, untold = problems_of(error, source, MAX_FINDINGS)
        found.extend(problem.diagnostic for problem in problems)
        unusable = tuple(problem.path for problem in problems)
    checked = check_parts(source, folder, unusable) if not untold else Checked()
    found.extend(checked.findings)
    if found or subject is None:
        raise CircuitspecError(*_told(found, untold + checked.untold))
    return subject, source, checked.lists


def no_model(placed: Document | Study) -> Diagnostic:
    """CS516: neither the file nor the call says on which model it is to be run."""
    return Diagnostic(
        "CS516",
        "the hypothesis names no model, and none is passed",
        placed.source.span(()),
        hint="pass the model and its tokenizer, as in circuitspec.verify(hypothesis, model, tokenizer), or write "
        "model: {id: ...}",
    )


def digest(hypothesis: Hypothesis) -> str:
    """SHA-256 of the content: the same for every spelling, order of keys and comments that mean the same."""
    content = hypothesis.model_dump(mode="json", by_alias=True)
    return hashlib.sha256(rfc8785.dumps(content)).hexdigest()


def _told(findings: list[Diagnostic], untold: int) -> tuple[Diagnostic, ...]:
    """The first findings in order, and how many more there are.

    Repeats are left out: an aliased value that is wrong is found at each of its uses.
    """
    distinct = {(finding.code, finding.message, finding.span): finding for finding in reversed(findings)}
    ordered = in_order(reversed(distinct.values()))
    told = ordered[:MAX_FINDINGS]
    more = untold + len(ordered) - len(told)
    if more:
        told += (Diagnostic(told[-1].code, f"{more} more errors are not shown", severity="note"),)
    return told
