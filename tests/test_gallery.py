"""The gallery shows each hypothesis, and no verdict of another version of a file."""

from __future__ import annotations

from circuitspec.models.storage.cache import sha256_of
from tests.gallery_page import HYPOTHESES, PAGE, at_hand, files, page, stored


def test_it_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "make docs writes it anew"


def test_every_hypothesis_is_in_it_once() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for path in files():
        assert text.count(f"](../hypotheses/{path.relative_to(HYPOTHESES).as_posix()})") == 1, path


def test_verdicts_are_of_the_files_as_they_are_and_of_models_at_hand() -> None:
    assert len(stored()) > 10
    for name, verdict in stored().items():
        assert verdict["sha256"] == sha256_of(HYPOTHESES / name), f"python -m tests.gallery_page hypotheses/{name}"
        assert at_hand(HYPOTHESES / name)
        assert verdict["claims"]
