"""What a chat template puts around the prompts is in the lock: some templates write the day's date."""

from __future__ import annotations

from pathlib import Path

from circuitspec.prompts.prompt_set import AroundPrompts, ChatFrame
from circuitspec.repository.lock_file import read_lock, write_lock
from circuitspec.repository.locked_prompts import chat_drift, lock_prompts
from tests.repository.support import LOCK, Run


def around(date: str) -> AroundPrompts:
    return AroundPrompts(chat=ChatFrame(f"<s>Today is {date}. ", "</s>", 6, 1))


def test_another_day_is_drift_with_both_texts(run: Run, tmp_path: Path) -> None:
    locked = lock_prompts(run.outcome.task.prompts, around("30 Nov 2026"))
    path = tmp_path / "a.circuit.lock"
    write_lock(path, LOCK.model_copy(update={"prompts": locked}), "a.circuit.yaml")
    read = read_lock(path).lock.prompts
    assert read.chat == ("<s>Today is 30 Nov 2026. ", "</s>")
    assert chat_drift(read, around("30 Nov 2026")) == ()
    (found,) = chat_drift(read, around("1 Dec 2026"))
    assert (found.code, found.severity) == ("CS553", "error")
    assert 'before it: "<s>Today is 30 Nov 2026. " -> "<s>Today is 1 Dec 2026. "' in found.message
    assert "behind" not in found.message


def test_without_a_template_a_lock_is_as_it_was(run: Run) -> None:
    prompts = lock_prompts(run.outcome.task.prompts, run.outcome.task.around)
    assert prompts.chat is None
    assert "chat" not in LOCK.model_copy(update={"prompts": prompts}).content()["prompts"]
    assert chat_drift(prompts, run.outcome.task.around) == ()
