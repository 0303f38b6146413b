"""How far the work is: what it tells, and a bar for people who wait for it."""

from __future__ import annotations

import sys
from typing import Any, Protocol, TextIO


class Progress(Protocol):
    """Told what is going on, in prompts run and in experiments measured.

    `plan` may come before `expect`: prompts that were planned are not counted again when they are expected.
    """

    def stage(self, text: str) -> None:
        """What is done now, in words."""

    def plan(self, experiments: int, stored: int, prompts: int) -> None:
        """So many experiments are wanted, so many of them known already; the others take about so many prompts."""

    def measured(self, experiments: int) -> None:
        """So many more of the planned experiments are done."""

    def expect(self, prompts: int) -> None:
        """So many more prompts will be run."""

    def advance(self, prompts: int) -> None:
        """So many more prompts were run."""


class Silent:
    """Nobody waits."""

    def stage(self, text: str) -> None: ...
    def plan(self, experiments: int, stored: int, prompts: int) -> None: ...
    def measured(self, experiments: int) -> None: ...
    def expect(self, prompts: int) -> None: ...
    def advance(self, prompts: int) -> None: ...


class Bar:
    """A bar where `file` (by default stderr) is a terminal; otherwise silence. Use as a context manager."""

    def __init__(self, file: TextIO | None = None) -> None:
        from tqdm import tqdm

        self._stage = ""
        self._experiments = self._measured = self._stored = 0
        self._planned = 0  # prompts in the total that have not been expected yet
        self._timed = False  # whether the first batch began
        self._bar: Any = tqdm(
            total=0,
            unit=" prompts",
            unit_scale=True,
            file=sys.stderr if file is None else file,
            leave=False,
            disable=None,  # off without a terminal
            dynamic_ncols=True,
            bar_format="{desc}",
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def stage(self, text: str) -> None:
        self._stage = text
        self._show()

    def plan(self, experiments: int, stored: int, prompts: int) -> None:
        self._experiments += experiments
        self._measured += stored
        self._stored += stored
        self._planned += prompts
        self._bar.total += prompts
        self._show()

    def measured(self, experiments: int) -> None:
        self._measured += experiments
        self._show()

    def expect(self, prompts: int) -> None:
        self._start_clock()
        planned = min(prompts, self._planned)
        self._planned -= planned
        self._bar.total += prompts - planned
        self._show()

    def advance(self, prompts: int) -> None:
        self._start_clock()
        self._bar.update(prompts)

    def _start_clock(self) -> None:
        """Rates count from the first batch on, not from what was loaded before."""
        if not self._timed and not self._bar.disable:
            self._bar.start_t = self._bar.last_print_t = self._bar._time()
        self._timed = True

    def _show(self) -> None:
        done = f": {self._measured:,}/{self._experiments:,} experiments" if self._experiments else ""
        stored = f" ({self._stored:,} stored)" if self._stored else ""
        if self._bar.total:  # before, there is nothing to measure
            self._bar.bar_format = "{desc} {percentage:3.0f}%|{bar}| {rate_noinv_fmt}, {remaining} left"
        self._bar.set_description_str(f"{self._stage}{done}{stored}")
