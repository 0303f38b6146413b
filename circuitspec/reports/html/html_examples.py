"""The first prompts on the page, clean and corrupt side by side, and what heads attend to on the first of them."""

from __future__ import annotations

import numpy as np

from circuitspec.analysis.statistics.wording import number
from circuitspec.analysis.verification_result import Verification
from circuitspec.engine.metrics.shown_prompts import ShownPrompt, ShownVariant
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.reports.figures import heatmap
from circuitspec.reports.figures.canvas import FULL
from circuitspec.reports.views import Chart, PromptExample, SideView, TokenView

_STRONGEST = 3  # components that the headline names


def examples_view(found: Verification) -> tuple[PromptExample, ...]:
    """The prompts that were recorded; none where none were."""
    return () if found.shown is None else tuple(map(_example, found.shown.prompts))


def _example(shown: ShownPrompt) -> PromptExample:
    clean = shown.variants[0]
    sides = tuple(_side(one, clean, shown) for one in shown.variants)
    answers, wrong = (", ".join(repr(one) for one in side) for side in (shown.answers, shown.wrong))
    return PromptExample(f"Prompt {shown.number}", shown.template, answers, wrong, sides)


def _side(one: ShownVariant, clean: ShownVariant, shown: ShownPrompt) -> SideView:
    at: dict[int, list[str]] = {}
    for name, places in one.positions:
        for place in places:
            at.setdefault(place, []).append(name)
    alike = len(one.tokens) == len(clean.tokens)
    tokens = tuple(
        TokenView(text, ", ".join(at.get(place, ())), alike and text != clean.tokens[place])
        for place, text in enumerate(one.tokens)
    )
    top = tuple(
        (
            likely.text,
            f"{likely.probability:.3f}",
            "right" if likely.text in shown.answers else "wrong" if likely.text in shown.wrong else "",
        )
        for likely in one.top
    )
    return SideView(one.variant, tokens, top)


def attention_charts(found: Verification) -> tuple[Chart, ...]:
    """A map of heads and tokens; none where no attention was recorded."""
    if found.shown is None or not found.shown.attention:
        return ()
    tokens = found.shown.prompts[0].variants[0].tokens
    rows = found.shown.attention[::-1]  # the first at the top
    picture = heatmap(
        np.array([one.weights for one in rows]),
        rows=[f"{one.head}@{one.position}" for one in rows],
        columns=[token.strip() or repr(token) for token in tokens],
        title="Attention of the circuit's heads, first prompt",
        row_axis="head, from its position",
        column_axis="token attended to",
        quantity="attention weight (each row sums to 1)",
        width=FULL,
    )
    note = f"From the token at each head's position in the file, in the clean run. {found.shown.note}".strip()
    return (Chart(picture, note),)


def headline(found: Verification) -> str:
    """Which components matter most by themselves, in a sentence; empty where none was ablated alone."""
    effects = found.effects
    if effects is None:
        return ""
    exact = effects.components
    strongest = sorted(exact or effects.estimated, key=lambda one: -abs(one.drop.value))[:_STRONGEST]
    if not strongest:
        return ""
    named = [f"{one.part.name} ({_groups(one.part.name, found)}{number(one.drop.value)})" for one in strongest]
    said = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    how = "ablated alone in the clean run" if exact else "ablated alone, by first-order estimate"
    share = f"The figure is the {effects.metric} lost when it is {how}, as a share of clean - corrupt."
    return f"What matters most: {said}. {share}"


def _groups(name: str, found: Verification) -> str:
    assert found.graph is not None
    own = dict.fromkeys(m.group for m in found.graph.members if m.group and format_name(m.component) == name)
    return f"{', '.join(own)}: " if own else ""
