"""What the checks of a hypothesis share: its usable parts, the names it declares, and the list of findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.hypothesis_file.checks.partial import Usable, ValidBlocks
from circuitspec.hypothesis_file.grammar.fields import TemplateField, template_fields
from circuitspec.hypothesis_file.grammar.texts import did_you_mean
from circuitspec.hypothesis_file.schema.blocks import TaskSpec
from circuitspec.hypothesis_file.yaml.source import Path_, SourceText

MAX_FINDINGS = 200
PROMPT_SOURCES = ("templates", "file", "generate")


@dataclass
class Scope:
    """One file under check.

    Names count as declared wherever the file declares them, also where that declaration is itself
    wrong: it is told there, not again at every use.
    """

    source: SourceText
    usable: Usable
    findings: list[Diagnostic] = field(default_factory=list)
    untold: int = 0

    @property
    def parts(self) -> ValidBlocks:
        return self.usable.parts

    @property
    def task(self) -> TaskSpec:
        """The task; an empty one where the file has none that is usable."""
        return self.parts.task or TaskSpec()

    def declared(self, *path: str) -> tuple[str, ...]:
        """The keys of the mapping at `path` of the file."""
        found = self.at(*path)
        return tuple(found) if isinstance(found, dict) else ()

    def at(self, *path: str) -> object:
        """The data at `path` of the file as written, or None."""
        data: Any = self.source.data
        for step in path:
            data = data.get(step) if isinstance(data, dict) else None
        return data

    @cached_property
    def templates(self) -> tuple[tuple[TemplateField, ...], ...]:
        """The fields of each usable template."""
        return tuple(template_fields(text) for text in self.task.templates)

    @property
    def is_templated(self) -> bool:
        """Whether the prompts come from templates, so that positions and corruptions are all declared here."""
        given = [key for key in PROMPT_SOURCES if self.at("task", key) is not None]
        return given == ["templates"]

    def add(
        self,
        code: str,
        message: str,
        path: Path_,
        *,
        label: str = "",
        hint: str = "",
        key: bool = False,
        within: tuple[int, int] | None = None,
    ) -> None:
        """Note an error at a path of the parts; `within` is (offset, length) inside the text there.

        Beyond MAX_FINDINGS errors are only counted.
        """
        if len(self.findings) >= MAX_FINDINGS:
            self.untold += 1
            return
        place = self.usable.path(path)
        span = self.source.span(place, key) if within is None else self.source.inner_span(place, *within)
        self.findings.append(Diagnostic(code, message, span, label, hint))


def meant(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint for a name that is none of `known`."""
    names = list(known)
    return did_you_mean(name, names) or (f"there is {', '.join(names)}" if names else otherwise)


def counts(fields: Iterable[TemplateField]) -> Mapping[str, int]:
    """How often each slot occurs."""
    found: dict[str, int] = {}
    for one in fields:
        found[one.slot] = found.get(one.slot, 0) + 1
    return found
