"""What a person sees while a command runs, and how it is interrupted."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from circuitspec.runtime.progress import Bar, Lines, Progress, Silent, silenced

STOPPING = "stopping at the next step (Ctrl-C again: at once)"


class InterruptibleProgress:
    """Tells another progress, and asks before each word whether the run was interrupted: between forwards, that is."""

    def __init__(self, told: Progress, check: Callable[[], None]) -> None:
        self._told, self._check = told, check

    def stage(self, text: str) -> None:
        self._check()
        self._told.stage(text)

    def note(self, text: str) -> None:
        self._check()
        self._told.note(text)

    def plan(self, experiments: int, stored: int, prompts: int) -> None:
        self._check()
        self._told.plan(experiments, stored, prompts)

    def measured(self, experiments: int) -> None:
        self._check()
        self._told.measured(experiments)

    def expect(self, prompts: int) -> None:
        self._check()
        self._told.expect(prompts)

    def advance(self, prompts: int) -> None:
        self._check()
        self._told.advance(prompts)


@contextmanager
def waiting() -> Iterator[Progress]:
    """For the time of a run: a bar on stderr where that is a terminal, otherwise lines; an interruption is not lost.

    `CIRCUITSPEC_PROGRESS=off` in the environment silences both.
    """
    with interruptible() as check:
        if silenced():
            yield InterruptibleProgress(Silent(), check)
            return
        with Bar() if sys.stderr.isatty() else Lines() as told:
            yield InterruptibleProgress(told, check)


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Within, the first Ctrl-C is noted, and the function that is given raises it; so does leaving. The second raises.

    Raised wherever the program happens to be, it may be lost in a finaliser, or break an import half-way. Signals are
    only looked after in the main thread, and where Python's own handler is in place: a job whose interruptions are
    ignored goes on ignoring them, and whoever has a handler keeps it.
    """
    interrupted = threading.Event()

    def check() -> None:
        if interrupted.is_set():
            interrupted.clear()  # whoever has something to say all the same may go on with that
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield check
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()
        _say(STOPPING)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield check
    except Exception as error:
        if interrupted.is_set():  # an import that was interrupted raises ImportError
            raise KeyboardInterrupt from error
        raise
    else:
        check()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _say(text: str) -> None:
    """On stderr past its buffer, which the program may be writing to just now."""
    with suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), f"{text}\n".encode())
