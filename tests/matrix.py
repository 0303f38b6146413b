"""Which tests are in which tier: `make quick`, `make test`, `make nightly`.

**Families.** Four families differ in layout from one another, and `make test` runs every case of them: fused and
per-head projections, layer norms and root mean squares, norms before a component and after it, parallel blocks, grouped
queries, joint query norms, soft caps. The others are laid out like Llama. Each test runs one case of one of them; they
take turns, so that a folder's tests at every level, on either side and of each kind meet all of them. Their other cases
are left to `make nightly`. A test is thinned if its argument `family` takes the names of families of both kinds; a test
that `make test` needs on all of them says `@pytest.mark.every_family`. Of further families (`FURTHER`) every case is
left to `make nightly`; where one of them has a layout that none of the four has, one of
`tests/engine/test_further_layouts.py`, `test_expert_families.py` and `test_special_heads.py` runs a small case.

**Quick.** What needs no model, but for text that is made up at random; and one case of each test that compares the
engine with the oracle, of a layout each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.oracle.dense_configs import DENSE

LAYOUTS = ("gemma2", "gpt2", "gpt_neox", "olmo2")
LOOK_ALIKES = ("gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen3")
WITH_EXPERTS = (
    "deepseek_v3",
    "glm4_moe",
    "gpt_oss",
    "granitemoe",
    "llama4_text",
    "mixtral",
    "olmoe",
    "phimoe",
    "qwen2_moe",
    "qwen3_moe",
)
STREAMS = ("gemma3n_text", "gemma4_text")  # at node level alone: tests/engine/test_streams_against_oracle.py
SPECIAL = (
    "bamba",
    "bitnet",
    "diffllama",
    "granitemoehybrid",
    "lfm2",
    "qwen3_5_text",
    "qwen3_next",
)  # gated, normed or paired heads, and mixers
FURTHER = tuple(sorted((*DENSE, *WITH_EXPERTS, *SPECIAL)))

WITHOUT_A_MODEL = ("tests.hypothesis_file.", "tests.graph.", "tests.experiments.", "tests.prompts.")
MADE_UP = "tests.hypothesis_file.test_hostile"
AGAINST_THE_ORACLE = "_against_oracle"


@dataclass(frozen=True)
class Case:
    """One case of a test: its module, its function, the family it takes if it does, its place in what is collected."""

    module: str
    test: str
    family: str | None
    place: int


def left_to_nightly(cases: Sequence[Case]) -> frozenset[int]:
    """The places of the cases that `make test` leaves out."""
    left_out: set[int] = set()
    for tests in _by(lambda case: case.module.rpartition(".")[0], cases):
        mixed = [of for of in tests if {case.family for case in of} & {*LAYOUTS}]
        mixed = [of for of in mixed if {case.family for case in of} & {*LOOK_ALIKES}]
        left_out |= {case.place for of in mixed for case in of if case.family in LOOK_ALIKES}
        for turn in range(max(len(mixed), len(LOOK_ALIKES)) if mixed else 0):
            of = mixed[turn % len(mixed)]
            ahead = (LOOK_ALIKES[(turn + i) % len(LOOK_ALIKES)] for i in range(len(LOOK_ALIKES)))
            family = next(family for family in ahead if family in {case.family for case in of})
            alike = [case for case in of if case.family == family]
            left_out.discard(alike[turn % len(alike)].place)
    return frozenset(left_out)


def of_further_families(cases: Sequence[Case]) -> frozenset[int]:
    """The places of all cases of further families."""
    return frozenset(case.place for case in cases if case.family in FURTHER)


def of_quick(cases: Sequence[Case]) -> frozenset[int]:
    """The places of the cases that `make quick` runs."""
    chosen = {case.place for case in cases if case.module.startswith(WITHOUT_A_MODEL) and case.module != MADE_UP}
    against = [case for case in cases if case.module.endswith(AGAINST_THE_ORACLE)]
    for tests in _by(lambda case: case.module, against):
        for turn, of in enumerate(tests):
            family = LAYOUTS[turn % len(LAYOUTS)]
            alike = [case for case in of if case.family == family] or [c for c in of if c.family not in FURTHER]
            chosen.add(alike[turn % len(alike)].place)
    return frozenset(chosen)


def _by(place: Callable[[Case], str], cases: Iterable[Case]) -> list[list[list[Case]]]:
    """For each folder or module its tests, for each test its cases, all in the order in which they are collected."""
    places: dict[str, dict[tuple[str, str], list[Case]]] = {}
    for case in cases:
        places.setdefault(place(case), {}).setdefault((case.module, case.test), []).append(case)
    return [list(tests.values()) for tests in places.values()]
