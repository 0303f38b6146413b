"""What calls from Python give: texts, findings and explorations, with the forms in which a notebook shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING

from circuitspec.diagnostics.diagnostic import Diagnostic, render
from circuitspec.hypothesis_file.load_file import Study, parse_hypothesis
from circuitspec.pipelines.interactive.hypothesis_value import Hypothesis

if TYPE_CHECKING:
    import pandas as pd

    from circuitspec.comparison.comparison_result import CircuitComparison
    from circuitspec.exploration.exploration_findings import ExplorationFindings


class ShownText(str):
    """A report as text: an ordinary string that prompts and notebooks show with its lines."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return _preformatted(str(self))


@dataclass(frozen=True, repr=False)
class CheckFindings:
    """Mistakes of a hypothesis, or the line that says that it is sound; true where there is no error."""

    problems: tuple[Diagnostic, ...]
    summary: str

    def __bool__(self) -> bool:
        return not any(one.severity == "error" for one in self.problems)

    def __iter__(self) -> Iterator[Diagnostic]:
        return iter(self.problems)

    def __repr__(self) -> str:
        return "\n".join(part.rstrip() for part in (render(self.problems), self.summary) if part)

    def _repr_html_(self) -> str:
        return _preformatted(repr(self))


@dataclass(frozen=True, repr=False)
class Explored:
    """What an exploration found. `print` gives its report; a notebook shows its pictures and the report."""

    findings: ExplorationFindings
    study: Study
    command: str

    @cached_property
    def tables(self) -> Mapping[str, pd.DataFrame]:
        """All tables that `circuitspec explore --output-dir` writes, by name: effects, frontier, links, sweeps, ..."""
        from circuitspec.exploration.output.exploration_tables import tables

        return tables(self.findings)

    @property
    def effects(self) -> pd.DataFrame:
        """A row for each component and position: estimated and exact effects, as shares of clean - corrupt."""
        return self.tables["effects"]

    @property
    def draft(self) -> Hypothesis | None:
        """The circuit with its negative components as a hypothesis, which `.save(path)` writes; None without one."""
        return self._drafted(0)

    @property
    def draft_helpful(self) -> Hypothesis | None:
        """The circuit of helpful components alone, likewise."""
        return self._drafted(1)

    def _drafted(self, number: int) -> Hypothesis | None:
        circuits = self.findings.circuits
        if number >= len(circuits) or circuits[number].is_empty:
            return None
        text = circuits[number].draft.text
        read = parse_hypothesis(text, "<draft>", self.study.base_dir, model_given=True)
        source = replace(read.source, beside=self.study.source.beside)
        return Hypothesis(read.hypothesis, source, read.base_dir, read.lists)

    def to_html(self) -> str:
        """The page that `circuitspec explore --html` writes."""
        from circuitspec.exploration.output.exploration_page import exploration_html

        return exploration_html(self.findings, self.command)

    def __str__(self) -> str:
        from circuitspec.exploration.output.exploration_text import render_exploration

        return render_exploration(self.findings)

    def __repr__(self) -> str:
        found = self.findings
        heads = ", ".join(
            f"{one.kind}: {one.heads} {found.unit}s recover {one.recovered:.2f}" for one in found.circuits
        )
        return f"<Explored {found.name!r} of {found.model}: {heads or 'no circuit'}>"

    def _repr_html_(self) -> str:
        from circuitspec.exploration.output.exploration_figures import pictures

        drawn = "".join(one.standalone().partition("\n")[2] for one in pictures(self.findings).values())
        return f"{drawn}{_preformatted(str(self))}"


@dataclass(frozen=True, repr=False)
class ComparedCircuits:
    """What circuits share, and what they do. `print` gives the report, `comparison` has the values."""

    comparison: CircuitComparison

    @property
    def overlaps(self) -> pd.DataFrame:
        """A row for every two circuits and level: how many parts each has, both have, and random circuits would."""
        import pandas as pd

        from circuitspec.comparison.comparison_document import overlap_data

        return pd.DataFrame(
            [
                {"first": pair.first, "second": pair.second, **row}
                for pair in self.comparison.pairs
                for row in (overlap_data(one) for one in pair.overlaps)
            ]
        )

    def to_json(self) -> str:
        """The object that `circuitspec compare --format json` prints."""
        from circuitspec.comparison.comparison_document import comparison_document
        from circuitspec.reports.text.printing import print_document

        return print_document(comparison_document(self.comparison))

    def to_html(self) -> str:
        """The page that `circuitspec compare --html` writes."""
        from circuitspec.comparison.comparison_page import comparison_html

        return comparison_html(self.comparison)

    def __str__(self) -> str:
        from circuitspec.comparison.comparison_text import render_comparison

        return render_comparison(self.comparison)

    def __repr__(self) -> str:
        return f"<ComparedCircuits {', '.join(one.name for one in self.comparison.circuits)}>"

    def _repr_html_(self) -> str:
        return _preformatted(str(self))


def _preformatted(text: str) -> str:
    return f'<pre style="white-space: pre; overflow-x: auto">{escape(text)}</pre>'
