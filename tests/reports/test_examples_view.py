"""The first prompts on the page: both sides, their marked positions, the likeliest tokens, and what matters most."""

from __future__ import annotations

import dataclasses

from circuitspec.engine.metrics.shown_prompts import HeadAttention, LikelyToken, ShownPrompt, ShownPrompts, ShownVariant
from tests.reports.support import shown
from tests.reports.test_html import parsed, reported, verification

CLEAN_SIDE = ShownVariant(
    "clean",
    ("Mary", " and", " John"),
    (("S1", (2,)), ("END", (2,))),
    (LikelyToken(" Mary", 0.9), LikelyToken(" John", 0.05), LikelyToken("<b>", 0.001)),
)
CORRUPT_SIDE = ShownVariant("abc", ("Paul", " and", " Anna"), (("S1", (2,)),), (LikelyToken(" Emma", 0.5),))
PROMPT = ShownPrompt(0, "{IO} and {S1}", (" Mary",), (" John",), (CLEAN_SIDE, CORRUPT_SIDE))
SHOWN = ShownPrompts((PROMPT,), (HeadAttention("a2.h0", "END", (0.25, 0.0, 0.75)),))


def test_both_sides_with_positions_and_what_is_likely() -> None:
    html = shown("html", reported(found=dataclasses.replace(verification(), shown=SHOWN)))
    page = parsed(html)
    assert "What the model sees" in page.texts("h2")
    (article,) = (one for one in page.named("article") if one.attributes["class"] == "example")
    assert "{IO} and {S1} answer: ' Mary', wrong answer: ' John'" in " ".join(article.text.split())
    marked = [tag for tag in page.named("span") if str(tag.attributes.get("class", "")).startswith("token")]
    assert [tag.text for tag in marked] == ["Mary", " and", " JohnS1, END", "Paul", " and", " AnnaS1"]
    assert [tag.attributes["class"] for tag in marked] == [
        "token", "token", "token at", "token changed", "token", "token at changed",
    ]  # fmt: skip
    rows = page.texts("tr")
    assert {"Mary 0.900 right", "John 0.050 wrong", "<b> 0.001", "Emma 0.500"} <= set(rows)


def test_attention_is_a_picture_that_says_its_numbers() -> None:
    html = shown("html", reported(found=dataclasses.replace(verification(), shown=SHOWN)))
    described = [tag.text for tag in parsed(html).named("desc") if "attention weight" in tag.text]
    assert len(described) == 1
    assert "0.75" in described[0]
    assert "John" in described[0]


def test_a_saved_page_without_prompts_is_read_as_before() -> None:
    page = parsed(shown("html", reported()))
    assert "What the model sees" not in page.texts("h2")
