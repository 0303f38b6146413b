"""Causal scrubbing of the toys: references, trees and random prompts, in the oracle's types.

Draws are not random here: they run through all that a hypothesis allows, each as often as it is drawn, so that means
are exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from circuitspec.models.zoo import built_model
from tests.oracle import families, node
from tests.oracle.scrubbing import Ids, Input, Node

FINAL, IN = ("final",), ("input",)
TEMPLATES = {
    "nobel": "{name} won the {first} {second}",
    "and": "Hall lamp: one switch {A}, one switch {B}, so it is",
    "or": "Hall lamp: one switch {A}, one switch {B}, so it is",
    "mediation": "Hall lamp: its switch is {flow}, so it is",
    "amplification": "Hall lamp: its switch is {flow}, so it is",
    "cancel": "Hall lamp: switch {flow}, sky {sky}, so it is",
    "swapped": "Hall lamp: switch {flow}, bulb {bulb}, fog {fog}, so it is",
}
INDUCTION = ("Again: {A} {B} {C} {D} {A}", "Again: {C} {A} {B} {D} {A}", "Again: {C} {D} {A} {B} {A}")
WORDS = ("ring", "coin", "key", "map", "pearl", "letter", "book", "lamp")


@dataclass(frozen=True)
class Scrub:
    """What `scrubbing.experiment` takes of a hypothesis."""

    net: families.Net
    prompts: list[node.Prompt]
    trees: list[list[Node]]
    randoms: list[list[Ids]]


@cache
def network(toy: str) -> tuple[families.Net, Any]:
    """The weights of a toy and its tokenizer."""
    model, tokenizer = built_model(toy).build()
    return families.read(model), tokenizer


def ids(toy: str, text: str) -> Ids:
    return tuple(network(toy)[1](text)["input_ids"])


def prompt(toy: str, text: str, answers: Iterable[str], wrong: Iterable[str]) -> node.Prompt:
    convert = network(toy)[1].convert_tokens_to_ids
    clean = list(ids(toy, text))
    return node.Prompt(clean, clean, 0, [convert(f" {x}") for x in answers], [convert(f" {x}") for x in wrong], {})


def lamp(toy: str, lit: bool, **slots: str) -> node.Prompt:
    """A prompt about a lamp, with the answer that is right for it."""
    return prompt(toy, TEMPLATES[toy].format(**slots), *((["lit"], ["dark"]) if lit else (["dark"], ["lit"])))


def text_ids(toy: str, **slots: str) -> Ids:
    return ids(toy, TEMPLATES[toy].format(**slots))


def at(sender: Node, *positions: int, ports: str | None = None) -> Input:
    """Ports by their letters; `None`: all."""
    return Input(sender, None if ports is None else frozenset(ports), frozenset(positions) if positions else None)


# ---------------------------------------------------------------------------------------------------- nobel

FIRST, SECOND = 3, 4
OTHERS = ("World", "Winter", "Grand", "Silver")


def nobel(for_head: str | None, for_neuron: str | None) -> Scrub:
    """The head's input from a prompt that ends in `for_head`, the neuron's own from one that ends in `for_neuron`.

    Without one that input is a random prompt's, as all else is. Random words are neither Nobel nor Peace.
    """
    toy = "nobel"
    reference = prompt(toy, "Mary won the Nobel Peace", ["Prize"], ["Treaty"])
    randoms = [text_ids(toy, name="John", first=x, second=y) for x, y in itertools.permutations(OTHERS, 2)]

    def source(end: str) -> Ids:
        return ids(toy, f"Paul won the {end}")

    trees = []
    for one, two, three in zip(randoms, randoms[1:], randoms[2:], strict=False):
        inputs = []
        if for_head is not None:
            head = Node(("head", 0, 0), three, (at(Node(IN, source(for_head)), FIRST, ports="v"),))
            inputs.append(at(head, SECOND))
        if for_neuron is not None:
            inputs.append(at(Node(IN, source(for_neuron)), SECOND))
        trees.append(Node(FINAL, one, (at(Node(("mlp", 1), two, tuple(inputs)), SECOND),)))
    return Scrub(network(toy)[0], [reference], [trees], [randoms])


# -------------------------------------------------------------------------------------------------- and, or

FLOW = {True: "on", False: "off"}


def gate(toy: str, first: Sequence[str], second: Sequence[str]) -> Scrub:
    """Head a0.h0 carries the switches in `first`, a0.h1 those in `second`; the neuron reads both heads.

    Over all references, and for each over all prompts that agree with it on what each head carries.
    """
    both = list(itertools.product((True, False), repeat=2))
    texts = {state: text_ids(toy, A=FLOW[state[0]], B=FLOW[state[1]]) for state in both}

    def agree(reference: tuple[bool, bool], carried: Sequence[str]) -> list[Ids]:
        return [
            texts[state]
            for state in both
            if all(state["AB".index(switch)] == reference["AB".index(switch)] for switch in carried)
        ]

    prompts, trees = [], []
    for a, b in both:
        prompts.append(lamp(toy, (a and b) if toy == "and" else (a or b), A=FLOW[a], B=FLOW[b]))
        draws = []
        for x, y in itertools.product(agree((a, b), first), agree((a, b), second)):
            heads = (at(Node(("head", 0, 0), x)), at(Node(("head", 0, 1), y)))
            draws.append(Node(FINAL, texts[False, True], (at(Node(("mlp", 1), texts[True, False], heads)),)))
        trees.append(draws)
    return Scrub(network(toy)[0], prompts, trees, [list(texts.values())] * 4)


# ------------------------------------------------------------------------------------ mediation, amplification

SWITCH, END = 6, 10


def relay(toy: str, through: bool, direct: bool) -> Scrub:
    """The switch's state on the path through the relay to the lamp, on the path past it, or on both."""
    texts = {state: text_ids(toy, flow=FLOW[state]) for state in (True, False)}
    prompts, trees = [], []
    for state in (True, False):
        prompts.append(lamp(toy, state, flow=FLOW[state]))
        draws = []
        for one, two, three in itertools.product(texts.values(), repeat=3):
            inputs = []
            if through:
                switch = Node(("head", 0, 0), one, (at(Node(IN, texts[state]), SWITCH, ports="v"),))
                inputs.append(at(Node(("head", 1, 0), three, (at(switch, END, ports="v"),)), END))
            if direct:
                inputs.append(at(Node(("head", 0, 0), texts[state]), END))
            draws.append(Node(FINAL, two, (at(Node(("mlp", 1), three, tuple(inputs)), END),)))
        trees.append(draws)
    return Scrub(network(toy)[0], prompts, trees, [list(texts.values())] * 2)


# ------------------------------------------------------------------------------------------- cancel, swapped

SKIES = ("clear", "grey")
BULBS = {-3: "weak", -1: "dim", 1: "bright", 3: "strong"}
FOGS = {1: "thin", -1: "thick"}


def cancelling(together: bool) -> Scrub:
    """Both heads carry the switch and nothing else: each taken from a prompt of its own, or both from one."""
    toy = "cancel"
    everything = [text_ids(toy, flow=flow, sky=sky) for flow in FLOW.values() for sky in SKIES]
    prompts, trees = [], []
    for state, sky in itertools.product((True, False), SKIES):
        prompts.append(lamp(toy, state, flow=FLOW[state], sky=sky))
        agreeing = [text_ids(toy, flow=FLOW[state], sky=other) for other in SKIES]
        pairs = [(x, x) for x in agreeing] if together else list(itertools.product(agreeing, repeat=2))
        trees.append(
            [Node(FINAL, everything[-1], (at(Node(("head", 0, 0), x)), at(Node(("head", 0, 1), y)))) for x, y in pairs]
        )
    return Scrub(network(toy)[0], prompts, trees, [everything] * 4)


def exchanged(swapped: bool) -> Scrub:
    """Head a0.h0 carries b + g and a0.h1 b - g, or `swapped` the other way round; a0.h2 carries the switch."""
    toy = "swapped"
    levels = list(itertools.product(BULBS, FOGS))
    texts = {
        (state, b, g): text_ids(toy, flow=FLOW[state], bulb=BULBS[b], fog=FOGS[g])
        for state, (b, g) in itertools.product((True, False), levels)
    }

    def agree(carried: int, reference: tuple[int, int]) -> list[tuple[int, int]]:
        """Levels with the reference's b + g (1) or b - g (-1), two of them: the one alone counts twice."""
        found = [(b, g) for b, g in levels if b + carried * g == reference[0] + carried * reference[1]]
        return found * (2 // len(found))

    first, second = (-1, 1) if swapped else (1, -1)
    prompts, trees = [], []
    for state, (b, g) in itertools.product((True, False), levels):
        prompts.append(lamp(toy, state, flow=FLOW[state], bulb=BULBS[b], fog=FOGS[g]))
        draws = []
        for x, y in itertools.product(agree(first, (b, g)), agree(second, (b, g))):
            heads = [
                Node(("head", 0, 0), texts[not state, *x]),
                Node(("head", 0, 1), texts[not state, *y]),
                Node(("head", 0, 2), texts[state, -b, -g]),
            ]
            draws.append(Node(FINAL, texts[not state, b, -g], tuple(at(head) for head in heads)))
        trees.append(draws)
    return Scrub(network(toy)[0], prompts, trees, [list(texts.values())] * len(prompts))


# ------------------------------------------------------------------------------------------------- induction


@dataclass(frozen=True)
class Draw:
    """What one output of `induction` hangs on besides its reference: words, by their numbers.

    `stands` is the word at the place of the answer in the random prompt of the induction head, `last` the last word of
    the random prompt of the logits.
    """

    stands: int
    last: int


def induction(copy: bool, every: int = 1) -> tuple[Scrub, list[dict[str, int]], list[list[Draw]]]:
    """The induction head's query and value from the embeddings and its key by a0.h0, all of the reference; all else is
    of random prompts. With `copy` the value is by a0.h1 as well.

    References have all ordered pairs of words for A and C, and D with each A as often as C; B is one word. Random
    prompts come in two, the second with opposite directions. `every`: only so many-th reference.
    """
    toy, n = "induction", len(WORDS)

    def numbered(template: str, slots: Mapping[str, int]) -> Ids:
        return ids(toy, template.format(**{slot: WORDS[i] for slot, i in slots.items()}))

    def place(template: str) -> int:
        """Of the answer: two tokens, and the words before it."""
        return 2 + template.split()[1:].index("{B}")

    references = []
    for a in range(1, n):
        others = [i for i in range(1, n) if i != a]
        references += [{"A": a, "B": 0, "C": c, "D": d} for c, d in zip(others, others[1:] + others[:1], strict=True)]
    references = references[::every]
    every_position = range(2, 7)
    prompts, trees, randoms, drawn = [], [], [], []
    for index, slots in enumerate(references):
        template = INDUCTION[index % 3]
        text = numbered(template, slots)
        words = template.format(**{slot: WORDS[i] for slot, i in slots.items()})
        prompts.append(prompt(toy, words, [WORDS[slots["B"]]], [WORDS[slots[slot]] for slot in "ACD"]))
        draws, anchors, kept = [], [], []
        for turn in (0, n // 2):
            one = {slot: (i + index + turn) % n for slot, i in zip("ABCD", (0, 3, 5, 6), strict=True)}
            two = {slot: (2 * index + i + turn) % n for slot, i in zip("ABCD", (1, 2, 7, 4), strict=True)}
            own, other = numbered(INDUCTION[(index + 1) % 3], one), numbered(INDUCTION[(index + 2) % 3], two)
            previous = Node(("head", 0, 0), other, (at(Node(IN, text), *every_position, ports="v"),))
            inputs = [
                at(Node(IN, text), ports="qv"),
                at(previous, *every_position, ports="k"),
            ]
            if copy:
                same = Node(("head", 0, 1), other, (at(Node(IN, text), *every_position, ports="v"),))
                inputs.append(at(same, *every_position, ports="v"))
            draws.append(Node(FINAL, other, (at(Node(("head", 1, 0), own, tuple(inputs)), 6),)))
            anchors += [own, other]
            stands = WORDS.index(network(toy)[1].convert_ids_to_tokens(own[place(template)]).strip())
            kept.append(Draw(stands, two["A"]))
        trees.append(draws)
        randoms.append(anchors)
        drawn.append(kept)
    return Scrub(network(toy)[0], prompts, trees, randoms), references, drawn
