"""Causal scrubbing of the toys: what the oracle finds is what arithmetic says, in the mean and prompt by prompt."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from circuitspec.models.zoo.toys.cancel import CANCEL
from circuitspec.models.zoo.toys.swapped import SWAPPED
from tests.oracle import scrubbing, tree
from tests.oracle.scrubbing import Ids
from tests.zoo import scrub_cases
from tests.zoo.scrub_cases import FINAL, FOGS, IN, SKIES, WORDS, Scrub
from tests.zoo.toy_cases import TOLERANCE, relu

STATES = (1, 0)
OUT: tree.Hop = (FINAL, None, None)


def scored(case: Scrub) -> scrubbing.Scores:
    return scrubbing.experiment(case.net, case.prompts, case.trees, case.randoms)


def kl(clean: float, scrubbed: float, toy_tokens: int) -> float:
    """From one logit of ` lit` to another, in nats: ` dark` has the logit 4 and all other tokens 0."""
    p, q = (np.array([lit, 4.0, *[0.0] * (toy_tokens - 2)]) for lit in (clean, scrubbed))
    p, q = p - math.log(np.exp(p).sum()), q - math.log(np.exp(q).sum())
    return float((np.exp(p) * (p - q)).sum())


# ----------------------------------------------------------------------------------------------------- two paths


@pytest.mark.parametrize(
    ("for_head", "for_neuron", "before", "here"),
    [
        ("Nobel Silver", "Winter Peace", 1, 1),
        ("Winter Peace", "Nobel Silver", 0, 0),  # swapped
        ("Nobel Silver", None, 1, 0),
        (None, "Winter Peace", 0, 1),
        ("Nobel Peace", "Nobel Peace", 1, 1),
    ],
)
def test_nobel(for_head: str | None, for_neuron: str | None, before: int, here: int) -> None:
    """By what m1 reads of the head and of the input: 8 relu(before + here - 1) - 4, and of random prompts -4."""
    scores = scored(scrub_cases.nobel(for_head, for_neuron))
    expected = 8 * relu(before + here - 1) - 4
    np.testing.assert_allclose(scores.scrubbed, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(scores.random, -4, rtol=0, atol=TOLERANCE)
    assert scores.recovered == pytest.approx((expected + 4) / 8, abs=TOLERANCE)
    assert scores.flips.mean() == (expected < 0)


# Signed logit difference: s (8 C - 4), with s = 1 for references that are lit and -1 for dark ones. Clean it is 4. Of
# random prompts a quarter is lit with AND, three quarters with OR: the mean is ((-2) 1 + 2 * 3) / 4 = 1 for both.
@pytest.mark.parametrize("toy", ["and", "or"])
@pytest.mark.parametrize(
    ("first", "second", "recovered"),
    [
        ("A", "B", 1),
        ("AB", "AB", 1),
        ("B", "A", 0),  # swapped: neither head has what it reads
        # AND: (1, 1) and (1, 0) are 0 on average, (0, 1) and (0, 0) are 4; OR: (1, 1) and (1, 0) are 4, the others 0
        ("A", "", ((0 + 0 + 4 + 4) / 4 - 1) / 3),
        ("", "B", ((0 + 0 + 4 + 4) / 4 - 1) / 3),
        ("", "", 0),
    ],
)
def test_gates(toy: str, first: str, second: str, recovered: float) -> None:
    scores = scored(scrub_cases.gate(toy, first, second))
    assert scores.random.mean() == pytest.approx(1, abs=TOLERANCE)
    assert scores.recovered == pytest.approx(recovered, abs=TOLERANCE)
    np.testing.assert_allclose(np.abs(scores.scrubbed), 4, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(scores.flips, scores.scrubbed < 0)


@pytest.mark.parametrize(
    ("toy", "through", "direct", "recovered"),
    [
        ("mediation", True, False, 1),
        ("mediation", False, True, 0),  # the relay is a random prompt's, and it alone decides
        ("mediation", True, True, 1),
        # the AND of both: on, with one of them random, is 0 on average, and off is 4
        ("amplification", True, False, ((0 + 4) / 2 - 0) / 4),
        ("amplification", False, True, ((0 + 4) / 2 - 0) / 4),
        ("amplification", True, True, 1),
    ],
)
def test_relays(toy: str, through: bool, direct: bool, recovered: float) -> None:
    scores = scored(scrub_cases.relay(toy, through, direct))
    assert scores.random.mean() == pytest.approx(0, abs=TOLERANCE)
    assert scores.recovered == pytest.approx(recovered, abs=TOLERANCE)


# ------------------------------------------------------------------------------------------ what a mean does not show


def test_what_cancels_in_one_prompt_does_not_in_two() -> None:
    """8 f - 4 + 4 (z - z'): recovered in the mean, and of single outputs half."""
    scores = scored(scrub_cases.cancelling(together=False))
    expected, divergence = [], []
    for f, _ in itertools.product(STATES, SKIES):
        lit = [8 * f + 4 * (z - other) for z, other in itertools.product((1, -1), repeat=2)]
        expected.append([(x - 4) * (1 if f else -1) for x in lit])
        divergence.append([kl(8 * f, x, len(CANCEL.tokens) + 2) for x in lit])
    np.testing.assert_allclose(scores.scrubbed, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(scores.kl, divergence, rtol=0, atol=1e-4)
    assert scores.recovered == pytest.approx(1, abs=TOLERANCE)
    assert scores.flips.mean(1).tolist() == [1 / 4] * 4
    assert (scores.kl.mean(1) > 0.8).all()  # of every reference


def test_from_one_prompt_it_cancels() -> None:
    scores = scored(scrub_cases.cancelling(together=True))
    assert scores.recovered == pytest.approx(1, abs=TOLERANCE)
    assert scores.flips.sum() == 0
    assert scores.kl.max() < 1e-9


def test_two_heads_taken_for_each_other() -> None:
    """8 f - 4 + 3 g, and -9 g in place of 3 g where both heads come from another prompt, -3 g where one does."""
    scores = scored(scrub_cases.exchanged(swapped=True))
    expected, divergence = [], []
    for f, b, g in itertools.product(STATES, scrub_cases.BULBS, FOGS):
        drawn = [
            8 * f + 1.5 * (other + fog) + 1.5 * (haze - another)
            for other, fog in ((b, g), (b - 2 * g, -g) if b - 2 * g in scrub_cases.BULBS else (b, g))
            for another, haze in ((b, g), (b + 2 * g, -g) if b + 2 * g in scrub_cases.BULBS else (b, g))
        ]
        expected.append(sorted((x - 4) * (1 if f else -1) for x in drawn))
        divergence.append(sorted(kl(8 * f + 3 * g, x, len(SWAPPED.tokens) + 2) for x in drawn))
    np.testing.assert_allclose(np.sort(scores.scrubbed), expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(np.sort(scores.kl), divergence, rtol=0, atol=1e-4)
    assert scores.recovered == pytest.approx(1, abs=TOLERANCE)
    assert scores.flips.mean() == 1 / 16
    assert np.mean(np.isclose(scores.scrubbed, scores.clean[:, None])) == 3 / 8
    assert (scores.kl.mean(1) > 0.01).all()


def test_the_right_way_round() -> None:
    scores = scored(scrub_cases.exchanged(swapped=False))
    assert scores.recovered == pytest.approx(1, abs=TOLERANCE)
    assert scores.kl.max() < 1e-9


# ----------------------------------------------------------------------------------------------------- induction


def cosine(a: int, b: int) -> float:
    return math.cos(2 * math.pi * (a - b) / len(WORDS))


def said(word: int, slots: dict[str, int]) -> float:
    """What one u of a word adds to the logit of the answer, less the mean of what it adds to the others'."""
    return cosine(word, slots["B"]) - sum(cosine(word, slots[slot]) for slot in "ACD") / 3


@pytest.mark.parametrize(
    ("copy", "every"),
    [
        *((copy, 7) for copy in (False, True)),
        *(pytest.param(copy, 1, marks=pytest.mark.nightly) for copy in (False, True)),
    ],
)
def test_induction(copy: bool, every: int) -> None:
    """Naive: 3 u of the answer, 5 u of what stands in its place in a random prompt, -3 u of a random last word. With
    the copy: 8 u of the answer, and the same last word. Over all references a third is recovered, and eight ninths."""
    case, references, drawn = scrub_cases.induction(copy, every)
    scores = scored(case)
    expected, clean = [], []
    for slots, draws in zip(references, drawn, strict=True):
        clean.append(8 * said(slots["B"], slots) - 3 * said(slots["A"], slots))
        answer, rest = (8, 0) if copy else (3, 5)
        expected.append(
            [
                answer * said(slots["B"], slots) + rest * said(draw.stands, slots) - 3 * said(draw.last, slots)
                for draw in draws
            ]
        )
    np.testing.assert_allclose(scores.clean, clean, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(scores.scrubbed, expected, rtol=0, atol=TOLERANCE)
    assert scores.random.mean() == pytest.approx(0, abs=TOLERANCE)
    if every == 1:
        assert scores.clean.mean() == pytest.approx(64 / 7 + 8 / 7, abs=TOLERANCE)
        assert scores.recovered == pytest.approx(8 / 9 if copy else 1 / 3, abs=TOLERANCE)


@pytest.mark.parametrize("copy", [False, True])
def test_what_the_induction_head_says_is_one_word(copy: bool) -> None:
    """It carries B, its query A, its value B and its key all words: each of its inputs agrees with a prompt that has
    the reference's B and is drawn anew otherwise."""
    net = scrub_cases.network("induction")[0]
    rng = random.Random(5)
    template = scrub_cases.INDUCTION[1]  # Again: C A B D A
    head, before, here = ("head", 1, 0), ("head", 0, 0), ("head", 0, 1)
    answer, end = 4, 6
    paths: list[list[tree.Hop]] = [
        [(IN, None, None), (before, ["v"], None), (head, ["k"], [end]), OUT],
        [(IN, None, None), (head, ["q"], [end]), OUT],
        [(IN, None, [answer]), (head, ["v"], [end]), OUT],
    ]
    if copy:
        paths.append([(IN, None, [answer]), (here, ["v"], [answer]), (head, ["v"], [end]), OUT])
    use = scrubbing.treeified(net, paths, end + 1)
    carried = {
        (head,): "B",
        (IN, before, head): "ABCD",
        (before, head): "ABCD",
        (IN, head): "B",
        (IN, here, head): "B",
        (here, head): "B",
    }

    def carries(use: scrubbing.Use) -> frozenset[str]:
        entered = use.rest[0][1] if use.rest else frozenset()
        return frozenset("A" if entered == {"q"} else carried[use.way])

    def redraw(prompt: scrubbing.Slots, kept: frozenset[str]) -> scrubbing.Slots:
        others = [word for word in WORDS if word not in {prompt[slot] for slot in kept}]
        drawn = iter(rng.sample(others, 4 - len(kept)))
        return {slot: word if slot in kept else next(drawn) for slot, word in prompt.items()}

    def read(prompt: scrubbing.Slots) -> Ids:
        return scrub_cases.ids("induction", template.format(**prompt))

    reference = {"A": "key", "B": "pearl", "C": "lamp", "D": "coin"}
    slots = {slot: WORDS.index(word) for slot, word in reference.items()}
    (first,) = scrub_cases.ids("induction", f" {WORDS[0]}")  # ids of words are in their order
    outputs = set()
    for _ in range(3):
        root = scrubbing.agreeing(use, carries, reference, redraw, read)
        (induction,) = (x.sender for x in root.inputs)
        stands, last = induction.prompt[answer] - first, root.prompt[end] - first
        logits = scrubbing.scrub(net, root)[-1]
        found = logits[first + slots["B"]] - sum(logits[first + slots[slot]] for slot in "ACD") / 3
        part, rest = (8, 0) if copy else (3, 5)
        expected = part * said(slots["B"], slots) + rest * said(stands, slots) - 3 * said(last, slots)
        assert float(found) == pytest.approx(expected, rel=0, abs=TOLERANCE)
        outputs.add(round(expected, 6))
    assert len(outputs) > 1
