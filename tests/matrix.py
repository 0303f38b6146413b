"""Which cases of a test over all model families run in `make test`; the others run in `make nightly`.

Four families differ in layout from one another, and run every case: fused and per-head projections, layer norms and
root mean squares, norms before a component and after it, parallel blocks, grouped queries, joint query norms, soft
caps. The others are laid out like Llama. In each module that tests all families, every one of them runs one case, and
every test has one of them; both take turns, so that all kinds and positions meet some of them. A test that needs all
families says `@pytest.mark.every_family`.

A test is thinned if its argument `family` takes the name of every family.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LAYOUTS = ("gemma2", "gpt2", "gpt_neox", "olmo2")
LOOK_ALIKES = ("gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen3")


@dataclass(frozen=True)
class Case:
    """One case of a test: the module and the test, which family it takes, and its place among all that is collected."""

    module: str
    test: str
    family: str
    place: int


def left_to_nightly(cases: Sequence[Case]) -> frozenset[int]:
    """The places of the cases that `make test` leaves out."""
    left_out: set[int] = set()
    for module in _in_order(case.module for case in cases):
        tests: dict[str, list[Case]] = {}
        for case in cases:
            if case.module == module:
                tests.setdefault(case.test, []).append(case)
        whole = [of for of in tests.values() if {*LAYOUTS, *LOOK_ALIKES} <= {case.family for case in of}]
        left_out |= {case.place for of in whole for case in of if case.family in LOOK_ALIKES}
        for turn in range(max(len(whole), len(LOOK_ALIKES)) if whole else 0):
            family = LOOK_ALIKES[turn % len(LOOK_ALIKES)]
            alike = [case for case in whole[turn % len(whole)] if case.family == family]
            left_out.discard(alike[turn % len(alike)].place)
    return frozenset(left_out)


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
