"""The little language that `ioi-tiny` is trained on: words, sentences, and which names never meet. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from random import Random
from typing import Literal


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    "Mary John Paul Anna Peter Laura David Emma James Sarah Thomas Alice Robert Julia Henry Clara "
    "Daniel Ruth Edward Nora George Helen Martin Irene Simon Grace Oliver Diana Victor Jane Arthur Lucy "
    "Frank Rose Walter Ellen Hugo Megan Oscar Paula Felix Tina Leo Vera Max Zoe Ivan Kate"
)
PLACES = _words(
    "store park school garden station beach library museum market hospital office restaurant bakery zoo church castle"
)
OBJECTS = _words("ring book ball snack drink necklace letter key cake coin hat map pen flower gift lamp")

HELD_OUT_SHARE = 0.1
SPLIT_SEED = 0

LEADS = ("Then,", "One day,", "Later that morning,", "Last week,", "Afterwards,")
WHENS = ("When", "After", "While")
TOGETHER = ("went to", "walked through", "met at", "were sitting in", "had lunch at")
GIVING = (
    "gave a {object} to",
    "handed a {object} to",
    "passed a {object} over to",
    "decided to give a {object} to",
    "wanted to show the {object} to",
    "brought a small {object} to",
)
WATCHING = ("watched while", "laughed when", "was happy because")
TELLING = ("said hello to", "told a story to", "sang a song for")

Order = Literal["ABBA", "BABA"]  # which name comes first: the receiver (A) or the giver (B)
ORDERS: tuple[Order, ...] = ("ABBA", "BABA")

# Four members of the training distribution; `{first}` and `{second}` are filled in one order or the other.
TEST_TEMPLATES = (
    "Then, {first} and {second} went to the {place}. {giver} gave a {object} to",
    "When {first} and {second} met at the {place}, {giver} handed a {object} to",
    "One day, {first} and {second} had lunch at the {place}. {giver} decided to give a {object} to",
    "After {first} and {second} walked through the {place}, {giver} passed a {object} over to",
)


@dataclass(frozen=True)
class IoiPrompt:
    """An unfinished sentence whose next word is ` {receiver}` and not ` {giver}`."""

    text: str
    receiver: str
    giver: str


@cache
def held_out_pairs() -> frozenset[frozenset[str]]:
    """The unordered pairs of names that no training document contains together: a fixed random tenth of all pairs."""
    pairs = list(combinations(NAMES, 2))
    Random(SPLIT_SEED).shuffle(pairs)
    return frozenset(frozenset(pair) for pair in pairs[: round(HELD_OUT_SHARE * len(pairs))])


def ioi_prompt(template: str, order: Order, receiver: str, giver: str, place: str, thing: str) -> IoiPrompt:
    """One of `TEST_TEMPLATES` filled in."""
    first, second = (receiver, giver) if order == "ABBA" else (giver, receiver)
    text = template.format(first=first, second=second, giver=giver, place=place, object=thing)
    return IoiPrompt(text, receiver, giver)


def held_out_prompts(template: str, order: Order, count: int, rng: Random) -> tuple[IoiPrompt, ...]:
    """`count` prompts over held-out pairs, each pair in a random direction."""
    pairs = sorted(sorted(pair) for pair in held_out_pairs())
    prompts = []
    for _ in range(count):
        receiver, giver = rng.sample(rng.choice(pairs), 2)
        prompts.append(ioi_prompt(template, order, receiver, giver, rng.choice(PLACES), rng.choice(OBJECTS)))
    return tuple(prompts)


class Writer:
    """Writes one document; a name joins it only if it is new and no held-out pair comes about."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self._present: list[str] = []

    def names(self, count: int) -> list[str]:
        apart = held_out_pairs()
        for _ in range(count):
            free = [n for n in NAMES if n not in self._present and all({n, met} not in apart for met in self._present)]
            self._present.append(self.rng.choice(free))
        return self._present[-count:]

    def pick(self, options: tuple[str, ...]) -> str:
        return self.rng.choice(options)

    def giving(self) -> str:
        return self.pick(GIVING).format(object=self.pick(OBJECTS))

    def together(self, who: str) -> str:
        """The first half of a story and the join to its second half, such as `Then, A and B met at the zoo. `"""
        where = f"{self.pick(TOGETHER)} the {self.pick(PLACES)}"
        style = self.rng.random()
        if style < 0.1:
            return f"{who} {where}. "
        if style < 0.5:
            return f"{self.pick(LEADS)} {who} {where}. "
        return f"{self.pick(WHENS)} {who} {where}, "

    def shuffled(self, *names: str) -> list[str]:
        return self.rng.sample(names, len(names))


def gift(w: Writer) -> str:
    """Indirect object identification itself."""
    receiver, giver = w.names(2)
    first, second = w.shuffled(receiver, giver)
    return f"{w.together(f'{first} and {second}')}{giver} {w.giving()} {receiver}."


def watched_gift(w: Writer) -> str:
    """The same with an onlooker: neither the latest name nor every other name will do."""
    receiver, giver, onlooker = w.names(3)
    first, second = w.shuffled(receiver, giver)
    start = w.together(f"{first} and {second}")
    return f"{start}{onlooker} {w.pick(WATCHING)} {giver} {w.giving()} {receiver}."


def two_pairs(w: Writer) -> str:
    """Two pairs of people: the gift goes to the giver's own partner, so leaving out the giver's name is not enough."""
    one, two, three, four = w.names(4)
    giver, receiver = w.shuffled(*w.rng.choice(((one, two), (three, four))))
    start = f"{w.together(f'{one} and {two}')}{three} and {four} {w.pick(TOGETHER)} the {w.pick(PLACES)}."
    return f"{start} {giver} {w.giving()} {receiver}."


def gift_to_both(w: Writer) -> str:
    """A giver who was not there gives to `them`: whether the giver's name came before decides the answer."""
    first, second, giver = w.names(3)
    return f"{w.together(f'{first} and {second}')}{giver} {w.giving()} them."


def meeting(w: Writer) -> str:
    one, other = w.names(2)
    speaker, listener = w.shuffled(one, other)
    start = f"{w.pick(LEADS)} {one} met {other} at the {w.pick(PLACES)}."
    return f"{start} {speaker} {w.pick(TELLING)} {listener}."


def belongings(w: Writer) -> str:
    """Who has what, said twice: the second time the thing follows from the name."""
    owners = w.names(w.rng.choice((2, 3)))
    things = w.rng.sample(OBJECTS, len(owners))
    have = [f"{owner} has the {thing}." for owner, thing in zip(owners, things, strict=True)]
    again = w.rng.sample(have, len(have) - 1)
    return f"{w.pick(LEADS)} " + " ".join(have + again)


def roll_call(w: Writer) -> str:
    """A list of names, read out twice in the same order."""
    called = ", ".join(w.names(3))
    return f"{w.pick(LEADS)} {called}. Again, {called}."


FAMILIES: tuple[tuple[Callable[[Writer], str], float], ...] = (
    (gift, 0.30),
    (two_pairs, 0.35),
    (watched_gift, 0.07),
    (gift_to_both, 0.08),
    (meeting, 0.06),
    (belongings, 0.08),
    (roll_call, 0.06),
)


def document(rng: Random, sentences: int = 2) -> str:
    """A few stories one after the other, all of them over one company of names."""
    writer = Writer(rng)
    families, weights = zip(*FAMILIES, strict=True)
    return " ".join(family(writer) for family in rng.choices(families, weights, k=sentences))


def vocabulary() -> tuple[str, ...]:
    """Every token of the language: words with their leading space, capitalised ones also without it, and marks."""
    phrases = (*NAMES, *PLACES, *OBJECTS, *LEADS, *WHENS, *TOGETHER, *GIVING, *WATCHING, *TELLING)
    glue = "and the. a to them met at has Again"
    text = " ".join((*phrases, glue)).replace("{object}", "")
    words = sorted(set(re.findall(r"[A-Za-z]+", text)))
    return (",", ".", *(word for word in words if word[0].isupper()), *(f" {word}" for word in words))
