"""How often warnings about a circuit's parts are right: random toys in which it is known what they should say.

    python benchmarks/warning_rates.py [--circuits 200] [--seed 0] [--show]

Every toy is a GPT-2 with hand-set weights (as the zoo's): main heads at random places and of random strengths that name
the thing in the box, heads that write next to nothing, and heads that help on some prompts and hurt as much on others.
Planted at random, each in some of the toys: a negative head, a backup that acts when a main head
is silent, two heads in parallel behind a saturating MLP (either does for the other), and a declared head that does
nothing. A negative head may be left out, or be in the circuit and not called negative. A property
that hypotheses can declare is declared in some of the toys, and left out or not called by its name in the others. The
table says how often the warning was given, and named just the components planted, where it should be, and where not.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from circuitspec.analysis.verification_result import Verification
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.models.adopt import adopt_model
from circuitspec.models.zoo.toys import Toy, build
from circuitspec.models.zoo.toys.blueprint import D_MLP, N_HEADS, ONE, HardHead, Match, ToyNeuron
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.runtime.progress import Silent

Property = Literal["negative", "negative inside", "backup", "redundant", "idle"]
PROPERTIES: tuple[Property, ...] = ("negative", "negative inside", "backup", "redundant", "idle")
State = Literal["absent", "declared", "planted"]  # declared as what it is: then there is nothing to warn of

THINGS = ("ring", "coin", "key", "map")
SECRETS = ("secret", "surprise", "mystery", "riddle")
KINDS = (
    *("red", "blue", "green", "black", "white", "small", "large"),
    *("heavy", "light", "wooden", "iron", "old", "new", "strange", "plain"),
)
_WORDS = ("The", " box", " holds", " a", ".", " Inside", " is", " the", " nothing")
_SENTENCE = "The kind box holds a thing . Inside is the"  # a word for each token
_WEAK = 0.003  # of all that is said: what heads that do nothing may write


@dataclass
class _Builder:
    """What a toy and its hypothesis are made of, as far as it has got."""

    dice: np.random.Generator
    places: list[tuple[int, int]]  # heads that are free yet, layer 0 first
    heads: list[HardHead] = field(default_factory=list)
    neurons: list[ToyNeuron] = field(default_factory=list)
    groups: dict[str, tuple[list[str], str]] = field(default_factory=dict)  # name -> nodes and effect
    claims: list[str] = field(default_factory=list)
    said: float = 0.0  # the logit of the thing

    def place(self, layer: int | None = None) -> tuple[int, int]:
        able = [place for place in self.places if layer in (None, place[0])]
        chosen = able[int(self.dice.integers(len(able)))]
        self.places.remove(chosen)
        return chosen

    def varied(self, amount: float, feature: str = "say") -> dict[str, dict[str, float]]:
        """About the amount for every thing: prompts differ."""
        own = amount * (1 + 0.1 * self.dice.standard_normal(len(THINGS)))
        return {f"is.{thing}": {f"{feature}.{thing}": float(one)} for thing, one in zip(THINGS, own, strict=True)}

    def declare(self, group: str, nodes: Iterable[str], effect: str = "positive") -> None:
        self.groups.setdefault(group, ([], effect))[0].extend(nodes)


def _a_thing(query: Mapping[str, float]) -> Match:
    return Match(query, {f"is.{thing}": 1.0 for thing in THINGS})


def _name(place: tuple[int, int]) -> str:
    return f"a{place[0]}.h{place[1]}"


@dataclass(frozen=True)
class Planted:
    """A toy, its hypothesis, and what its warnings should name: by code, the components."""

    toy: Toy
    text: str
    states: Mapping[Property, State]
    expected: Mapping[Property, frozenset[str]]


def random_circuit(seed: int) -> Planted:
    """A toy in which every property is absent, declared or planted at random."""
    dice = np.random.default_rng(seed)
    work = _Builder(dice, [(layer, head) for layer in range(2) for head in range(N_HEADS)])
    states: dict[Property, State] = {}
    for one in PROPERTIES:
        if one == "negative inside":  # the same head, in the circuit and not called negative
            continue
        shares = (0.5, 0.0, 0.5) if one == "idle" else (0.4, 0.2, 0.4)
        states[one] = ("absent", "declared", "planted")[int(dice.choice(3, p=shares))]  # type: ignore[assignment]
    expected: dict[Property, frozenset[str]] = {one: frozenset() for one in PROPERTIES}
    main = _main_heads(work, speaks=states["backup"] != "absent")
    if states["backup"] != "absent":
        expected["backup"] = _backup(work, states["backup"], main)
    states["negative inside"] = "absent"
    if states["negative"] == "planted" and dice.random() < 0.5:
        states |= {"negative": "absent", "negative inside": "planted"}
    for one in ("negative", "negative inside"):
        if states[one] != "absent":
            expected[one] = _negative(work, states[one], inside=one == "negative inside")
    if states["redundant"] != "absent":
        expected["redundant"] = _redundant(work, states["redundant"])
    if states["idle"] == "planted":
        expected["idle"] = _idle(work)
    for _ in range(int(dice.integers(0, len(work.places) + 1))):
        (_moody if dice.random() < 0.5 else _distractor)(work)
    return Planted(_toy(work, seed), _text(work), states, expected)


def _main_heads(work: _Builder, *, speaks: bool) -> tuple[str, float]:
    """One to three heads that name the thing; the first, in layer 0, says so where a backup listens."""
    first: tuple[str, float] | None = None
    for number in range(int(work.dice.integers(1, 4))):
        place = work.place(layer=0 if number == 0 else None)
        strength = float(work.dice.uniform(4, 10))
        copies = work.varied(strength)
        if number == 0 and speaks:
            copies = {seen: {**written, "spoke": 1.0} for seen, written in copies.items()}
        work.heads.append(HardHead(*place, (_a_thing({ONE: 1}),), copies))
        together = "naming" if work.dice.random() < 0.5 else f"naming_{number}"
        work.declare(together, [_name(place)])
        work.said += strength
        first = first or (_name(place), strength)
    assert first is not None
    return first


def _backup(work: _Builder, state: State, main: tuple[str, float]) -> frozenset[str]:
    place = work.place(layer=1)
    share = float(work.dice.uniform(0.35, 0.95))
    silent = (Match({"spoke": 1.0}, {"start": 1.0}), _a_thing({ONE: 1.0, "spoke": -1.0}))
    work.heads.append(HardHead(*place, silent, work.varied(share * main[1])))
    if state == "declared":
        work.declare("stand_in", [_name(place)], "backup")
    elif work.dice.random() < 0.5:  # in the circuit, as if it were one of many
        work.declare("naming" if work.dice.random() < 0.5 else "others", [_name(place)])
    return frozenset({_name(place)})


def _negative(work: _Builder, state: State, *, inside: bool) -> frozenset[str]:
    place = work.place()
    strength = float(work.dice.uniform(0.1, 0.45)) * work.said
    work.heads.append(HardHead(*place, (_a_thing({ONE: 1}),), work.varied(-strength)))
    work.said -= strength
    if state == "declared":
        work.declare("against", [_name(place)], "negative")
    elif inside:
        work.declare("naming" if work.dice.random() < 0.5 else "others", [_name(place)])
    return frozenset({_name(place)})


def _redundant(work: _Builder, state: State) -> frozenset[str]:
    """Two heads that carry the thing to an MLP of layer 1, which adds no more for both than for one."""
    places = [work.place(), work.place()]
    strength = float(work.dice.uniform(3, 8))
    for place in places:
        copies = {f"is.{thing}": {f"carried.{thing}": 1.0} for thing in THINGS}
        work.heads.append(HardHead(*place, (_a_thing({ONE: 1}),), copies))
    indices = iter(work.dice.permutation(D_MLP).tolist())
    for thing in THINGS:
        writes = {f"say.{thing}": strength}
        against = {f"say.{thing}": -strength}
        work.neurons.append(ToyNeuron(1, next(indices), {f"carried.{thing}": 1.0}, writes))
        work.neurons.append(ToyNeuron(1, next(indices), {f"carried.{thing}": 1.0, ONE: -1.0}, against))
    work.said += strength
    work.declare("memory", ["m1"])
    names = [_name(place) for place in places]
    if state == "declared":
        for number, name in enumerate(names):
            work.declare(f"carrier_{number}", [name])
        work.claims.append("  - gate: {nodes: [carrier_0, carrier_1], is: or, metric: logit_diff}")
        return frozenset(names)
    known = names if work.dice.random() < 0.6 else names[:1]  # or the other one is outside
    work.declare("carriers", known)
    return frozenset(known)


def _idle(work: _Builder) -> frozenset[str]:
    place = _distractor(work)
    work.declare("naming" if work.dice.random() < 0.5 else "idlers", [_name(place)])
    return frozenset({_name(place)})


def _distractor(work: _Builder) -> tuple[int, int]:
    """A head that looks at the thing, or at all words, and writes next to nothing."""
    place = work.place()
    matches = (_a_thing({ONE: 1}),) if work.dice.random() < 0.7 else ()
    size = _WEAK * work.said * float(work.dice.random()) if work.dice.random() < 0.5 else 0.0
    signs = work.dice.choice([-1.0, 1.0], len(THINGS))
    copies = {f"is.{thing}": {f"say.{thing}": float(size * sign)} for thing, sign in zip(THINGS, signs, strict=True)}
    work.heads.append(HardHead(*place, matches, copies))
    return place


def _moody(work: _Builder) -> None:
    """A head that goes by the kind of box: it helps as much as it hurts, by a tenth of all that is said or so."""
    size = work.said * float(work.dice.uniform(0.02, 0.15)) * len(_SENTENCE.split())  # read as an average of all words
    writes = {f"say.{thing}": size for thing in THINGS}
    work.heads.append(HardHead(*work.place(), (), {"mood": writes}))


def _toy(work: _Builder, seed: int) -> Toy:
    moods = work.dice.permutation(np.linspace(-1.5, 1.5, len(KINDS)))
    return Toy(
        name=f"random-{seed}",
        description="",
        features=(
            "start",
            "spoke",
            "mood",
            *(f"{kind}.{thing}" for kind in ("is", "say", "carried") for thing in THINGS),
        ),
        tokens={
            **{f" {thing}": {f"is.{thing}": 1.0} for thing in THINGS},
            **{f" {kind}": {"mood": float(mood)} for kind, mood in zip(KINDS, moods, strict=True)},
            **{word: {} for word in (*(f" {word}" for word in SECRETS), *_WORDS)},
        },
        positions={0: {"start": 1.0}},
        heads=tuple(work.heads),
        neurons=tuple(work.neurons),
        logits={**{f" {thing}": {f"say.{thing}": 1.0} for thing in THINGS}, " nothing": {ONE: work.said / 2}},
    )


def _text(work: _Builder) -> str:
    groups = "".join(
        f"    {name}: {{nodes: [{', '.join(nodes)}], at: END, effect: {effect}}}\n"
        for name, (nodes, effect) in work.groups.items()
    )
    value = str(work.dice.choice(["{value: resample, from: secret", "{value: mean, from: secret", "{value: zero"]))
    gates = work.claims if "resample" in value or "mean" in value else []
    if work.claims and not gates:
        value, gates = "{value: resample, from: secret", work.claims  # a gate is noised and denoised
    return f"""circuitspec: 1
name: random
model: {{id: "zoo:backup"}}
task:
  templates: ["The {{kind}} box holds a {{thing}}. Inside is the"]
  slots: {{kind: $kinds, thing: $things}}
  lists:
    kinds: [{", ".join(KINDS)}]
    things: [{", ".join(THINGS)}]
    secrets: [{", ".join(SECRETS)}]
  answer: " {{thing}}"
  wrong: " nothing"
  corruptions: {{secret: {{thing: $secrets}}}}
  positions: {{END: last}}
  prompts: {int(work.dice.integers(20, 60))}
  seed: {int(work.dice.integers(1000))}
circuit:
  groups:
{groups}
ablation: {value}, level: node, positions: declared}}
claims:
  - sufficient: {{metric: logit_diff, at_least: 0.5}}
{chr(10).join(gates)}
"""


def examined(planted: Planted) -> Verification:
    model, tokenizer = build(planted.toy)
    document = parse_hypothesis(planted.text, "random.circuit.yaml")
    return verify(document, VerifyOptions(), Silent(), loaded=adopt_model(model.float(), tokenizer)).verification


def named(found: Verification) -> dict[Property, frozenset[str]]:
    """The components that warnings name, by the property that they are warned of for."""
    said: dict[Property, set[str]] = {one: set() for one in PROPERTIES}
    for warning in found.warnings:
        components = [one.get("component", one.get("name")) for one in warning.data.get("components", [])]  # type: ignore[attr-defined]
        match warning.code:
            case "CS401":
                said["negative"] |= set(components)
            case "CS433":
                said["negative inside"] |= {one["name"] for one in warning.data["parts"]}  # type: ignore[attr-defined]
            case "CS415":
                said["idle"] |= set(components)
            case "CS426" | "CS427":
                said["backup" if "knocked_out" in warning.data else "redundant"] |= set(components)
    return {one: frozenset(names) for one, names in said.items()}


EXPLAINED = {"CS401", "CS415", "CS426", "CS427", "CS433"}
OF_NEGATIVES = {
    "CS402",
    "CS419",
}  # more than all is recovered, and by KL less: what comes of leaving negative heads out


@dataclass
class Rates:
    """Of the toys with a property planted, how many were warned of it, with just its components; of the others, how
    many were warned all the same (or, of the former, with other components too)."""

    planted: int = 0
    found: int = 0
    others: int = 0
    false: int = 0

    @property
    def share_found(self) -> float:
        return self.found / self.planted if self.planted else 1.0

    @property
    def share_false(self) -> float:
        return self.false / (self.planted + self.others) if self.planted + self.others else 0.0


def measure(seeds: Iterable[int], *, show: bool = False) -> dict[str, Rates]:
    """Rates by property; `any other` are warnings of codes that nothing here explains."""
    rates: dict[str, Rates] = {one: Rates() for one in (*PROPERTIES, "any other")}
    for seed in seeds:
        planted = random_circuit(seed)
        found = examined(planted)
        said = named(found)
        for one in PROPERTIES:
            is_planted = planted.states[one] == "planted"
            due = planted.expected[one] if is_planted else frozenset()
            rate = rates[one]
            rate.planted += is_planted
            rate.others += not is_planted
            rate.found += is_planted and due <= said[one]
            rate.false += not said[one] <= due
            if show and said[one] != due:
                print(f"seed {seed}: {one} is {planted.states[one]}: named {sorted(said[one])}, due {sorted(due)}")
        other = {warning.code for warning in found.warnings} - EXPLAINED
        other -= OF_NEGATIVES if planted.states["negative"] == "planted" else set()
        rates["any other"].others += 1
        rates["any other"].false += bool(other)
        if show and other:
            print(f"seed {seed}: {sorted(other)}")
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description="Rates of right and false warnings on random toy circuits.")
    parser.add_argument("--circuits", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="tell every wrong one")
    options = parser.parse_args()
    rates = measure(range(options.seed, options.seed + options.circuits), show=options.show)
    print("| property | planted in | found | of all | false |")
    print("|---|---|---|---|---|")
    for name, rate in rates.items():
        found = f"{rate.found} ({rate.share_found:.1%})" if rate.planted else "-"
        total = rate.planted + rate.others
        print(f"| {name} | {rate.planted or '-'} | {found} | {total} | {rate.false} ({rate.share_false:.1%}) |")


if __name__ == "__main__":
    main()
