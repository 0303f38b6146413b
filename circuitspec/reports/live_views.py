"""The views of a verification that was just run, each made when it is asked for, and then kept."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from circuitspec.reports.machine.json_document import to_document
from circuitspec.reports.reported import Reported
from circuitspec.reports.views import Page, Summary, TextView


class LiveViews:
    """What reports say of a verification; the text has the prompts behind each claim where `list_prompts` says so."""

    def __init__(self, reported: Reported, *, list_prompts: bool = False) -> None:
        self._reported = reported
        self._list_prompts = list_prompts

    @cached_property
    def document(self) -> Mapping[str, object]:
        told = self._reported
        return to_document(told.verification, told.findings, told.environment)

    @cached_property
    def summary(self) -> Summary:
        from circuitspec.reports.machine.summary import summary_of

        return summary_of(self._reported)

    @cached_property
    def text(self) -> TextView:
        from circuitspec.reports.text.text_report import text_view

        told = self._reported
        task = told.task if self._list_prompts else None
        return text_view(told.verification, None if task is None else task.prompts, told.findings)

    @cached_property
    def page(self) -> Page:
        from circuitspec.reports.html.html_view import page_of

        return page_of(self._reported)
