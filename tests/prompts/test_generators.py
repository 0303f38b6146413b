"""Generated prompts."""

from __future__ import annotations

import pytest

from circuitspec.prompts.templates.generators import GENERATORS, common_words
from tests.prompts.support import build, one_error, plain


@pytest.mark.parametrize("length", [2, 3, 24])
def test_repeated_tokens(length: int) -> None:
    prompts = build(plain(generate={"repeated_tokens": {"length": length}}, prompts=50, seed=3))
    assert len(prompts.prompts) == 50
    assert prompts.corruptions == GENERATORS["repeated_tokens"].corruptions
    for prompt in prompts.prompts:
        words = {variant: text.split() for variant, text in prompt.texts.items()}
        clean = words["clean"]
        first, again = clean[:length], clean[length:]
        assert len(set(first)) == length
        assert again == first[: len(again)]
        assert 1 <= len(again) < length
        assert prompt.answers == (f" {first[len(again)]}",)
        assert prompt.wrong == (f" {words['other_next'][len(again)]}",)
        assert prompt.answers != prompt.wrong

        place = len(again) - 1
        changed = {v: [k for k, (a, b) in enumerate(zip(clean, w, strict=True)) if a != b] for v, w in words.items()}
        assert changed == {
            "clean": [],
            "other_next": [place + 1],
            "no_repeat": [place],
            "unrelated": list(range(length)),
        }
        assert again[-1] not in words["no_repeat"][:length]
        assert not set(words["unrelated"][:length]) & set(first)
        for variant, spans in prompt.slots.items():
            text = prompt.texts[variant]
            held = {role: text[a:b] for role, (a, b) in spans.items()}
            w = words[variant]
            assert held == {"A": w[place], "B": w[place + 1], "A#2": w[-1]}
            assert spans["A#2"][1] == len(text)


def test_the_seed_decides() -> None:
    def texts(**keys: object) -> list[str]:
        made = build(plain(generate={"repeated_tokens": {"length": 6}}, **keys))
        return [p.texts["clean"] for p in made.prompts]

    assert texts(prompts=5) == texts(prompts=20)[:5]
    assert texts(seed=1) != texts(seed=2)


def test_too_long() -> None:
    longest = (len(common_words()) - 2) // 2
    build(plain(generate={"repeated_tokens": {"length": longest}}, prompts=2))
    error = one_error(lambda: build(plain(generate={"repeated_tokens": {"length": longest + 1}})), "CS341")
    assert str(longest) in error.hint


def test_words_are_different_and_plain() -> None:
    words = common_words()
    assert len(set(words)) == len(words) > 100
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words)
