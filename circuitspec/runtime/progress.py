"""How far the work is: what it tells, a bar for people who wait for it, and lines for files that they read later."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

QUIET = 10.0  # seconds in which nothing is written where there is no terminal
EVERY = 30.0  # seconds between lines there
SILENCED = "CIRCUITSPEC_PROGRESS"  # set to `off` in the environment, nothing is shown


class Interrupted(KeyboardInterrupt):
    """A person interrupted a run; `kept` of its experiments are in the store (None: there is no store).

    `of` is the word for one of what is kept. `begun`: what was measured of others by then is kept too.
    """

    def __init__(self, kept: int | None, *, begun: bool = False, of: str = "experiment") -> None:
        super().__init__()
        self.kept, self.begun, self.of = kept, begun, of


class Progress(Protocol):
    """Told what is going on, in prompts run and in experiments measured.

    `plan` may come before `expect`: prompts that were planned are not counted again when they are expected.
    """

    def stage(self, text: str) -> None:
        """What is done now, in words."""

    def note(self, text: str) -> None:
        """Something to be read once, such as what is to come."""

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
    def note(self, text: str) -> None: ...
    def plan(self, experiments: int, stored: int, prompts: int) -> None: ...
    def measured(self, experiments: int) -> None: ...
    def expect(self, prompts: int) -> None: ...
    def advance(self, prompts: int) -> None: ...


class _Counted:
    """The stage and the experiments, in words."""

    def __init__(self) -> None:
        self._stage = ""
        self._experiments = self._measured = self._stored = 0

    @property
    def _said(self) -> str:
        done = f": {self._measured:,}/{self._experiments:,} experiments" if self._experiments else ""
        return self._stage + done + (f" ({self._stored:,} stored)" if self._stored else "")


class Bar(_Counted):
    """A bar where `file` (by default stderr) is a terminal, or with `anyway`; otherwise silence.

    Use as a context manager.
    """

    def __init__(self, file: TextIO | None = None, *, anyway: bool = False) -> None:
        from tqdm import tqdm

        super().__init__()
        self._planned = 0  # prompts in the total that have not been expected yet
        self._timed = False  # whether the first batch began
        self._bar: Any = tqdm(
            total=0,
            unit=" prompts",
            unit_scale=True,
            file=sys.stderr if file is None else file,
            leave=False,
            disable=False if anyway else None,  # None: off without a terminal
            dynamic_ncols=True,
            bar_format="{desc}",
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def stage(self, text: str) -> None:
        self._stage = one_line(text)
        self._show()

    def note(self, text: str) -> None:
        if not self._bar.disable:
            self._bar.write(one_line(text), file=self._bar.fp)

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
        if self._bar.total:  # before, there is nothing to measure
            self._bar.bar_format = "{desc} {percentage:3.0f}%|{bar}| {rate_noinv_fmt}, {remaining} left"
        self._bar.set_description_str(self._said)


class Lines(_Counted):
    """For a file that is no terminal: a line for every stage, and one every 30 seconds. Use as a context manager.

    A run that takes less than `quiet` seconds writes no stages; in one that takes longer the stages so far are written
    then. Notes are written at once, after the stages so far. Where the file cannot be written, the lines end, and the
    run does not.
    """

    def __init__(
        self,
        file: TextIO | None = None,
        *,
        quiet: float = QUIET,
        every: float = EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._file: TextIO | None = sys.stderr if file is None else file
        self._quiet, self._every, self._clock = quiet, every, clock
        self._started = self._written = clock()
        self._held: list[str] = []
        self._planned = self._expected = self._done = 0  # prompts
        self._first_batch: float | None = None
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._keep_time, name="circuitspec-progress", daemon=True)

    def __enter__(self) -> Lines:
        self._watch.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._watch.join()

    def stage(self, text: str) -> None:
        with self._lock:
            if one_line(text) == self._stage:  # said again by what was started with these words
                return
            self._stage = one_line(text)
            self._hold(text)
            self.tick()

    def note(self, text: str) -> None:
        with self._lock:
            self._hold(text)
            self._write_held(self._clock())

    def _hold(self, text: str) -> None:
        self._held.append(f"[{_minutes(self._clock() - self._started)}] {one_line(text)}")

    def plan(self, experiments: int, stored: int, prompts: int) -> None:
        with self._lock:
            self._experiments += experiments
            self._measured += stored
            self._stored += stored
            self._planned += prompts
            self._expected += prompts

    def measured(self, experiments: int) -> None:
        with self._lock:
            self._measured += experiments

    def expect(self, prompts: int) -> None:
        with self._lock:
            self._first_batch = self._clock() if self._first_batch is None else self._first_batch
            planned = min(prompts, self._planned)
            self._planned -= planned
            self._expected += prompts - planned

    def advance(self, prompts: int) -> None:
        with self._lock:
            self._first_batch = self._clock() if self._first_batch is None else self._first_batch
            self._done += prompts

    def tick(self) -> None:
        """Write what is due now."""
        with self._lock:
            now = self._clock()
            if now - self._started < self._quiet:
                return
            if not self._held and now - self._written >= self._every:
                self._held.append(f"[{_minutes(now - self._started)}] {self._said}{self._pace(now)}")
            self._write_held(now)

    def _write_held(self, now: float) -> None:
        if self._held:
            self._write("".join(f"{line}\n" for line in self._held))
            self._held.clear()
            self._written = now

    def _pace(self, now: float) -> str:
        if self._first_batch is None or not self._done or now <= self._first_batch:
            return ""
        rate = self._done / (now - self._first_batch)
        left = max(0, self._expected - self._done) / rate
        share = min(1.0, self._done / self._expected) if self._expected else 0.0
        return f", {share:.0%} done, {rate:,.1f} prompts/s, {_minutes(left)} left"

    def _keep_time(self) -> None:
        while not self._over.wait(1.0):
            self.tick()

    def _write(self, text: str) -> None:
        if self._file is None:
            return
        try:
            self._file.write(text)
            self._file.flush()
        except (OSError, ValueError):  # nobody reads it any more
            self._file = None


def in_notebook() -> bool:
    """Whether this runs in a kernel of Jupyter, whose cells show what is written while they run."""
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


@contextmanager
def for_callers() -> Iterator[Progress]:
    """For those who call from Python: a bar in a notebook (as text, so that it needs no widgets) and in a terminal.

    Elsewhere lines on stderr, of calls that take longer than half a minute; silence under pytest, and where
    `CIRCUITSPEC_PROGRESS=off` asks for it.
    """
    if silenced() or ("PYTEST_CURRENT_TEST" in os.environ and not in_notebook()):
        yield Silent()
    elif in_notebook() or sys.stderr.isatty():
        with Bar(anyway=True) as bar:
            yield bar
    else:
        with Lines(quiet=EVERY) as lines:
            yield lines


def silenced() -> bool:
    """Whether the environment asks for no progress at all."""
    return os.environ.get(SILENCED, "").lower() in ("off", "0", "no", "false")


def one_line(text: str) -> str:
    """The text with line breaks and other signs that do not print spelled out."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _minutes(seconds: float) -> str:
    """`0:07`, `48:00`, `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
