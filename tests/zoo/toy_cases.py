"""The toys' hypotheses as models and prompts, in the engine's types and in the oracle's, and what arithmetic says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.models.load import LoadedModel, load_model
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.prompts.tokens.tokenize import tokenize
from tests.oracle import node

HYPOTHESES = Path(__file__).parents[2] / "hypotheses" / "toys"

# How far a logit difference may be from the arithmetic: its terms come to 16 at most, each of them passes at most five
# norms, and a norm makes it smaller by at most F / (2 K^2), with F <= 128 and K = 2^14 (see toys/weights.py).
TOLERANCE = 16 * 5 * 128 / (2 * 2.0**28)  # 1.9e-5


@dataclass(frozen=True)
class Case:
    """A toy's clean prompts against one corruption: the logit differences that arithmetic gives.

    `noised` and `denoised` map what is patched, such as `a0.h0` or `input@first input@second`, to the difference.
    Every head and MLP that is not named in either has no effect in either direction.
    """

    toy: str
    corruption: str
    clean: float
    corrupt: float
    noised: dict[str, float]
    denoised: dict[str, float]

    def __str__(self) -> str:
        return f"{self.toy}-{self.corruption}"


def relu(x: float) -> float:
    return max(0.0, x)


# zoo:and   C = relu(A + B - 1),      logit difference (8 C) - 4
# zoo:or    n = relu(1 - A - B),      logit difference (8 - 8 n) - 4
# zoo:nobel n = relu(nobel + peace - 1), logit difference (8 n) - 4
# zoo:mediation and zoo:amplification C = relu(B) and C = relu(A + B - 1) with B = A, logit difference (8 C) - 4
CASES = (
    Case(
        "and",
        "both",
        clean=8 * relu(1 + 1 - 1) - 4,
        corrupt=8 * relu(0 + 0 - 1) - 4,
        noised={
            "a0.h0": 8 * relu(0 + 1 - 1) - 4,
            "a0.h1": 8 * relu(1 + 0 - 1) - 4,
            "a0.h0 a0.h1": 8 * relu(0 + 0 - 1) - 4,
            "m1.n0": 8 * 0 - 4,
            "m1": 8 * 0 - 4,
        },
        denoised={
            "a0.h0": 8 * relu(1 + 0 - 1) - 4,
            "a0.h1": 8 * relu(0 + 1 - 1) - 4,
            "a0.h0 a0.h1": 8 * relu(1 + 1 - 1) - 4,
            "m1.n0": 8 * 1 - 4,
            "m1": 8 * 1 - 4,
        },
    ),
    Case(
        "and",
        "first",
        clean=8 * relu(1 + 1 - 1) - 4,
        corrupt=8 * relu(0 + 1 - 1) - 4,
        noised={"a0.h0": 8 * relu(0 + 1 - 1) - 4, "a0.h1": 8 * relu(1 + 1 - 1) - 4, "m1.n0": -4, "m1": -4},
        denoised={"a0.h0": 8 * relu(1 + 1 - 1) - 4, "a0.h1": 8 * relu(0 + 1 - 1) - 4, "m1.n0": 4, "m1": 4},
    ),
    Case(
        "or",
        "both",
        clean=8 - 8 * relu(1 - 1 - 1) - 4,
        corrupt=8 - 8 * relu(1 - 0 - 0) - 4,
        noised={
            "a0.h0": 8 - 8 * relu(1 - 0 - 1) - 4,
            "a0.h1": 8 - 8 * relu(1 - 1 - 0) - 4,
            "a0.h0 a0.h1": 8 - 8 * relu(1 - 0 - 0) - 4,
            "m1.n0": 8 - 8 * 1 - 4,
            "m1": 8 - 8 * 1 - 4,
        },
        denoised={
            "a0.h0": 8 - 8 * relu(1 - 1 - 0) - 4,
            "a0.h1": 8 - 8 * relu(1 - 0 - 1) - 4,
            "a0.h0 a0.h1": 8 - 8 * relu(1 - 1 - 1) - 4,
            "m1.n0": 8 - 8 * 0 - 4,
            "m1": 8 - 8 * 0 - 4,
        },
    ),
    Case(
        "or",
        "second",  # the first switch still lights the lamp
        clean=8 - 8 * relu(1 - 1 - 1) - 4,
        corrupt=8 - 8 * relu(1 - 1 - 0) - 4,
        noised={"a0.h0": 4, "a0.h1": 8 - 8 * relu(1 - 1 - 0) - 4, "m1.n0": 4, "m1": 4},
        denoised={"a0.h0": 4, "a0.h1": 4, "m1.n0": 4, "m1": 4},
    ),
    Case(
        "nobel",
        "random",
        clean=8 * relu(1 + 1 - 1) - 4,
        corrupt=8 * relu(0 + 0 - 1) - 4,
        noised={
            "a0.h0": 8 * relu(0 + 1 - 1) - 4,
            "m1.n42": 8 * 0 - 4,
            "m1": 8 * 0 - 4,
            "input@first": 8 * relu(0 + 1 - 1) - 4,
            "input@second": 8 * relu(1 + 0 - 1) - 4,
        },
        denoised={
            "a0.h0": 8 * relu(1 + 0 - 1) - 4,
            "m1.n42": 8 * 1 - 4,
            "m1": 8 * 1 - 4,
            "input@first": 8 * relu(1 + 0 - 1) - 4,
            "input@second": 8 * relu(0 + 1 - 1) - 4,
            "a0.h0 input@second": 8 * relu(1 + 1 - 1) - 4,
            "input@first input@second": 8 * relu(1 + 1 - 1) - 4,
        },
    ),
    Case(
        "nobel",
        "x_peace",  # only what reads Nobel can show
        clean=8 * relu(1 + 1 - 1) - 4,
        corrupt=8 * relu(0 + 1 - 1) - 4,
        noised={"a0.h0": -4, "m1.n42": -4, "m1": -4, "input@first": -4, "input@second": 4},
        denoised={"a0.h0": 4, "m1.n42": 4, "m1": 4, "input@first": 4, "input@second": -4},
    ),
    Case(
        "nobel",
        "nobel_y",  # only what reads Peace can show
        clean=8 * relu(1 + 1 - 1) - 4,
        corrupt=8 * relu(1 + 0 - 1) - 4,
        noised={"a0.h0": 4, "m1.n42": -4, "m1": -4, "input@first": 4, "input@second": -4},
        denoised={"a0.h0": -4, "m1.n42": 4, "m1": 4, "input@first": -4, "input@second": 4},
    ),
    Case(
        "negative",
        "swap",  # (logit of the clean thing) - (logit of the corrupt one)
        clean=(6 - 2) - 0,
        corrupt=0 - (6 - 2),
        noised={
            "a0.h1": (0 - 2) - (6 - 0),
            "a1.h2": (6 - 0) - (0 - 2),
            "a0.h1 a1.h2": 0 - (6 - 2),
        },
        denoised={
            "a0.h1": (6 - 0) - (0 - 2),
            "a1.h2": (0 - 2) - (6 - 0),
            "a0.h1 a1.h2": (6 - 2) - 0,
        },
    ),
    Case(
        "backup",
        "secret",  # the backup adds 7 only where the main head's 10 is missing
        clean=10 + 0 - 5,
        corrupt=0 + 0 - 5,
        noised={
            "a0.h2": 0 + 7 - 5,
            "a1.h1": 10 + 0 - 5,
            "a0.h2 a1.h1": 0 + 0 - 5,
        },
        denoised={
            "a0.h2": 10 + 0 - 5,
            "a1.h1": 0 + 0 - 5,
            "a0.h2 a1.h1": 10 + 0 - 5,
        },
    ),
    Case(
        "mediation",
        "stopped",
        clean=8 * relu(1) - 4,
        corrupt=8 * relu(0) - 4,
        noised={
            "a0.h0": 8 * relu(0) - 4,
            "a1.h0": 8 * relu(0) - 4,
            "a0.h0 a1.h0": 8 * relu(0) - 4,
            "m1.n0": 8 * 0 - 4,
            "m1": 8 * 0 - 4,
            "a0.h0 m1": 8 * 0 - 4,
            "a1.h0 m1": 8 * 0 - 4,
            "a0.h0 a1.h0 m1": 8 * 0 - 4,
        },
        denoised={
            "a0.h0": 8 * relu(1) - 4,
            "a1.h0": 8 * relu(1) - 4,
            "a0.h0 a1.h0": 8 * relu(1) - 4,
            "m1.n0": 8 * 1 - 4,
            "m1": 8 * 1 - 4,
        },
    ),
    Case(
        "amplification",
        "stopped",
        clean=8 * relu(1 + 1 - 1) - 4,
        corrupt=8 * relu(0 + 0 - 1) - 4,
        noised={
            "a0.h0": 8 * relu(0 + 0 - 1) - 4,
            "a1.h0": 8 * relu(1 + 0 - 1) - 4,
            "a0.h0 a1.h0": 8 * relu(0 + 0 - 1) - 4,
            "m1.n0": 8 * 0 - 4,
            "m1": 8 * 0 - 4,
            "a0.h0 m1": 8 * 0 - 4,
            "a1.h0 m1": 8 * 0 - 4,
            "a0.h0 a1.h0 m1": 8 * 0 - 4,
        },
        denoised={
            "a0.h0": 8 * relu(1 + 1 - 1) - 4,
            "a1.h0": 8 * relu(0 + 1 - 1) - 4,  # A, off, reaches C directly
            "a0.h0 a1.h0": 8 * relu(1 + 1 - 1) - 4,
            "m1.n0": 8 * 1 - 4,
            "m1": 8 * 1 - 4,
        },
    ),
)


@cache
def toy(name: str) -> tuple[LoadedModel, TokenizedTask]:
    """The model of `hypotheses/toys/NAME.circuit.yaml` in float64, and its prompts."""
    document = load_hypothesis(HYPOTHESES / f"{name}.circuit.yaml")
    hypothesis = document.hypothesis
    loaded = load_model(hypothesis.model.model_copy(update={"dtype": "float64"}), HYPOTHESES)
    prompts = build_prompts(hypothesis.task, HYPOTHESES, document.source)
    return loaded, tokenize(prompts, hypothesis.task.positions, loaded.tokenizer, document.source)


def oracle_prompts(task: TokenizedTask, corruption: str, n: int) -> list[node.Prompt]:
    """The first n prompts of a task, as the oracle takes them."""
    return [
        node.Prompt(
            clean=list(task.ids["clean"][i]),
            corrupt=list(task.ids[corruption][i]),
            template=task.prompts.prompts[i].template,
            answers=list(task.answers[i]),
            wrong=list(task.wrong[i]),
            roles={role: places[i] for role, places in task.roles.items()},
        )
        for i in range(n)
    ]


def oracle_sites(patched: str, prompt: node.Prompt) -> set[node.Site]:
    """`a0.h0 input@first` as the oracle's sites; where no position is named, all of them."""
    sites: set[node.Site] = set()
    for name in patched.split():
        component, _, role = name.partition("@")
        positions = [prompt.roles[role]] if role else range(len(prompt.clean))
        sites |= {(_oracle_component(component), position) for position in positions}
    return sites


def _oracle_component(name: str) -> tuple[Any, ...]:
    numbers = tuple(int(digits) for digits in re.findall(r"\d+", name))
    kind = "input" if name == "input" else "head" if name[0] == "a" else "neuron" if ".n" in name else "mlp"
    return (kind, *numbers)


def logit_difference(logits: Any, prompt: node.Prompt) -> float:
    """At the last position, `[position, vocabulary]`; the toys' prompts have one answer on each side."""
    (answer,), (wrong,) = prompt.answers, prompt.wrong
    return float(logits[-1, answer] - logits[-1, wrong])
