"""What reports say, as plain values: made from a verification as it runs, or read from a saved result.

Every report format is a function of one of these, so that a saved result gives the same reports as the run did.
Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from circuitspec.diagnostics.diagnostic import Diagnostic, Span
from circuitspec.reports.figures.picture import Picture

Verdict: TypeAlias = Literal["SUPPORTED", "REFUTED", "INCONCLUSIVE"]

NOT_AS_LOCKED = "not as locked"  # said beside the verdict of a result that drifted


@dataclass(frozen=True)
class Piece:
    """Some text, and the ANSI colour that it has where colours are shown; none if empty."""

    text: str
    colour: str = ""


Block: TypeAlias = tuple[Piece, ...]


@dataclass(frozen=True)
class TextView:
    """The report in the terminal: blocks, with an empty line between; `prompts` stand between the two where listed."""

    head: tuple[Block, ...]
    prompts: tuple[str, ...]
    tail: tuple[Block, ...]


@dataclass(frozen=True)
class ClaimSummary:
    """A claim in words. `figures` are its numbers, by their names; `finding` says why it is not supported."""

    kind: str
    metric: str
    status: Verdict
    result: str
    value: str
    bound: str
    reason: str
    experiment: str
    means: str
    span: Span
    figures: tuple[tuple[str, str], ...]
    finding: Diagnostic | None


@dataclass(frozen=True)
class Summary:
    """What the formats for other programs say: the claims, warnings, and findings about the run (as drift).

    `tests` says which tests of the circuit reject; empty where none were asked for.
    """

    name: str
    verdict: Verdict
    model: str
    method: str
    prompts: str
    seconds: float
    claims: tuple[ClaimSummary, ...]
    warnings: tuple[Diagnostic, ...]
    findings: tuple[Diagnostic, ...]
    tests: str

    @property
    def drifted(self) -> bool:
        """Whether it is known not to be as locked."""
        return any(finding.severity == "error" for finding in self.findings)


@dataclass(frozen=True)
class Table:
    """Rows of text under their columns' names; the first cell of a row names it.

    `groups` are headings over several columns each, with how many of them, from the left. Cells of the columns
    numbered in `prose` may be broken into lines; those from `numeric` on are numbers.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    groups: tuple[tuple[str, int], ...] = ()
    prose: tuple[int, ...] = ()
    numeric: int | None = None


@dataclass(frozen=True)
class Chart:
    """A picture and what to know about it."""

    picture: Picture
    note: str


@dataclass(frozen=True)
class CircuitView:
    """The picture (None where the circuit is too large for one), what to know about it, and the groups."""

    picture: Picture | None
    note: str
    groups: Table


@dataclass(frozen=True)
class TokenView:
    """A token of a prompt, the positions that are at it (none if empty), and whether it is unlike the clean one's."""

    text: str
    positions: str = ""
    changed: bool = False


@dataclass(frozen=True)
class SideView:
    """A prompt in one variant.

    `top` are the likeliest next tokens: text, probability, and `right`, `wrong` or empty.
    """

    name: str
    tokens: tuple[TokenView, ...]
    top: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class PromptExample:
    """One of the first prompts: clean and, where there is one, corrupt."""

    title: str
    template: str
    answers: str
    wrong: str
    sides: tuple[SideView, ...]


@dataclass(frozen=True)
class ClaimView:
    """One claim on the page: what it says, what was found, and how."""

    number: int
    kind: str
    status: Verdict
    value: str
    bound: str
    reason: str
    experiment: str
    means: str
    line: int


@dataclass(frozen=True)
class Remark:
    """A warning about the evidence, or a finding about the run; `line` of the file that it is about."""

    code: str
    severity: str
    message: str
    detail: str
    help: str
    line: int | None = None


@dataclass(frozen=True)
class Page:
    """Everything that the page for a browser shows, in its order."""

    name: str
    description: str
    origin: str
    verdict: Verdict
    counts: str
    subject: str
    claims: tuple[ClaimView, ...]
    remarks: tuple[Remark, ...]
    search: str
    circuit: CircuitView | None
    effects: tuple[Chart, ...]
    effect_tables: tuple[Table, ...]
    charts: tuple[Chart, ...]
    tables: tuple[Table, ...]
    paths: Table | None
    experiments: Table
    prompts: tuple[str, ...]
    file: str
    lines: tuple[str, ...]
    provenance: tuple[tuple[str, str], ...]
    headline: str = ""  # which parts of the circuit matter most
    examples: tuple[PromptExample, ...] = ()
    attention: tuple[Chart, ...] = ()
    attention_note: str = ""

    @property
    def title(self) -> str:
        """What a browser's tab shows."""
        drifted = any(remark.severity == "error" for remark in self.remarks)
        return f"{self.name}: {self.verdict}" + (f", {NOT_AS_LOCKED}" if drifted else "")


class Views(Protocol):
    """One result as every kind of report needs it."""

    @property
    def document(self) -> Mapping[str, object]: ...

    @property
    def summary(self) -> Summary: ...

    @property
    def text(self) -> TextView: ...

    @property
    def page(self) -> Page: ...


@dataclass(frozen=True)
class Style:
    """How the text format is written: with ANSI colours, with the prompts behind each claim."""

    color: bool = False
    list_prompts: bool = False


PLAIN = Style()
