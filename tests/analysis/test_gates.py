"""Gates from six runs: the toys' numbers as arithmetic gives them, and what noise makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from circuitspec.analysis.claims.verdict import place
from circuitspec.analysis.statistics.gate_statistics import BOUNDS, WORDS, GateFinding, Part, Trio, find_gate
from circuitspec.analysis.statistics.stats import Values
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.grammar.components import stage
from circuitspec.hypothesis_file.grammar.names import parse_name
from circuitspec.hypothesis_file.schema.claims.gate_block import GateName
from tests.zoo.toy_cases import CASES

BY_NAME = {str(case): case for case in CASES}


def spread(mean: float, n: int = 40, scale: float = 0.0, seed: int = 0) -> Values:
    """`n` values around a mean, which they have exactly."""
    draws = np.random.default_rng(seed).normal(0, scale, n) if scale else np.zeros(n)
    return np.asarray(mean + draws - draws.mean())


def trio(first: float, second: float, both: float, scale: float = 0.0) -> Trio:
    return Trio(*(spread(mean, scale=scale, seed=i) for i, mean in enumerate((first, second, both), 1)))


def gate(case: str, first: str, second: str, scale: float = 0.0) -> GateFinding:
    """The gate of two components of a toy, from what arithmetic gives for its runs."""
    known = BY_NAME[case]
    runs = [trio(d[first], d[second], d[f"{first} {second}"], scale) for d in (known.noised, known.denoised)]
    ends = spread(known.clean, scale=scale, seed=8), spread(known.corrupt, scale=scale, seed=9)
    one, other = (stage(parse_name(name).target) or 0 for name in (first, second))
    earlier: Part | None = None if one == other else "first" if one < other else "second"
    return find_gate(*runs, *ends, earlier=earlier)


# drops of 8 (or 10) by noising the first, the second and both; rises by denoising them
TOYS = [
    ("and-both", "a0.h0", "a0.h1", "and", (8 + 8 - 8) / 8, (0 + 0 - 8) / 8),
    ("or-both", "a0.h0", "a0.h1", "or", (0 + 0 - 8) / 8, (8 + 8 - 8) / 8),
    ("backup-secret", "a0.h2", "a1.h1", "backup", (3 + 0 - 10) / 10, (10 + 0 - 10) / 10),
    ("negative-swap", "a0.h1", "a1.h2", "additive", (12 - 4 - 8) / 8, (12 - 4 - 8) / 8),
    ("mediation-stopped", "a0.h0", "a1.h0", "mediation", (8 + 8 - 8) / 8, (8 + 8 - 8) / 8),
    ("amplification-stopped", "a0.h0", "a1.h0", "amplification", (8 + 8 - 8) / 8, (8 + 0 - 8) / 8),
]


@pytest.mark.parametrize("scale", [0.0, 1.0])
@pytest.mark.parametrize(("case", "first", "second", "kind", "noised", "denoised"), TOYS)
def test_the_toys_are_what_they_were_built_to_be(
    case: str, first: str, second: str, kind: str, noised: float, denoised: float, scale: float
) -> None:
    found = gate(case, first, second, scale)
    assert found.noising.interaction is not None
    assert found.denoising.interaction is not None
    assert found.noising.interaction.value == pytest.approx(noised, abs=1e-12)
    assert found.denoising.interaction.value == pytest.approx(denoised, abs=1e-12)
    assert found.kind == kind


def test_which_claims_the_toys_support() -> None:
    """`or` takes in the backup; mediation and amplification are neither gate, nor do their effects add up."""

    def holds(claimed: GateName, found: GateFinding) -> bool:
        both = zip((found.noising, found.denoising), BOUNDS[claimed], strict=True)
        statuses = {place(t.interaction.interval, *b) for t, b in both if t.interaction and t.interaction.interval}
        return statuses == {"SUPPORTED"}

    names: tuple[GateName, ...] = ("and", "or", "additive")
    supported = {kind: [name for name in names if holds(name, gate(case, a, b))] for case, a, b, kind, *_ in TOYS}
    assert supported == {
        "and": ["and"],
        "or": ["or"],
        "backup": ["or"],
        "additive": ["additive"],
        "mediation": [],
        "amplification": [],
    }


def test_the_order_of_the_parts_does_not_matter() -> None:
    one, other = gate("backup-secret", "a0.h2", "a1.h1", 1.0), BY_NAME["backup-secret"]
    noised, denoised = (
        Trio(spread(d["a1.h1"], scale=1.0, seed=2), spread(d["a0.h2"], scale=1.0, seed=1), spread(d["a0.h2 a1.h1"]))
        for d in (other.noised, other.denoised)
    )
    two = find_gate(noised, denoised, spread(other.clean), spread(other.corrupt))
    shares = (two.noising.first, two.noising.second, two.denoising.first, two.denoising.second)
    assert two.kind == "backup"
    assert shares == pytest.approx(
        (one.noising.second, one.noising.first, one.denoising.second, one.denoising.first), abs=1e-12
    )


def test_shares_are_of_the_difference_between_the_anchors() -> None:
    found = gate("backup-secret", "a0.h2", "a1.h1")
    assert (found.noising.first, found.noising.second, found.noising.both) == (0.3, 0, 1)  # of 10
    assert (found.denoising.first, found.denoising.second, found.denoising.both) == (1, 0, 1)


@pytest.mark.parametrize("factor", [-1.0, 0.25])
def test_a_metric_that_falls_instead_gives_the_same_gate(factor: float) -> None:
    known = BY_NAME["and-both"]
    runs = [trio(*(factor * d[k] for k in ("a0.h0", "a0.h1", "a0.h0 a0.h1"))) for d in (known.noised, known.denoised)]
    assert find_gate(*runs, spread(factor * known.clean), spread(factor * known.corrupt)).kind == "and"


def test_an_interval_in_two_bands_is_no_gate_yet() -> None:
    clean, corrupt = spread(8), spread(0)
    noised = trio(4, 3.9, 2, scale=3.0)  # (4 + 4.1 - 6) / 6 is 0.35, of 40 prompts that spread by 3
    found = find_gate(noised, trio(2, 2, 4), clean, corrupt)
    assert found.noising.interaction is not None
    assert found.noising.interaction.value == pytest.approx(0.35)
    assert found.noising.band is None
    assert (found.denoising.band, found.kind) == ("middle", None)
    assert found.label == "unclear: an interval is too wide to tell"


@pytest.mark.parametrize(
    ("noised", "denoised", "kind"),
    [
        ((6, 6, 4), (8, 8, 8), "partly OR"),  # noised they cost 2, 2 and 4: nothing does all; denoised either does it
        ((5, 5, 4), (1, 1, 4), "and"),  # (3 + 3 - 4) / 4 = 0.5 and (1 + 1 - 4) / 4 = -0.5
        ((6, 6, 4), (2, 1.28, 4), "partly AND"),  # 0 and (2 + 1.28 - 4) / 4 = -0.18
        ((6.4, 6.4, 4), (2.4, 2.4, 4), "partly OR"),  # (1.6 + 1.6 - 4) / 4 = -0.2 and (2.4 + 2.4 - 4) / 4 = 0.2
        ((5.6, 5.6, 4), (2.4, 2.4, 4), "overlapping"),  # 0.2 and 0.2
        ((6.4, 6.4, 4), (1.6, 1.6, 4), "joint"),  # -0.2 and -0.2
        ((4, 8, 4), (3, 1, 4), "additive"),  # (4 + 0 - 4) / 4 and (3 + 1 - 4) / 4
    ],
)
def test_what_lies_between_gates_is_named_after_the_one_it_leans_to(
    noised: tuple[float, float, float], denoised: tuple[float, float, float], kind: str
) -> None:
    found = find_gate(trio(*noised), trio(*denoised), spread(8), spread(0))
    assert found.kind == kind
    assert found.label == f"{kind}: {WORDS[found.kind]}"


def test_an_interaction_of_some_size_is_not_said_to_add_up() -> None:
    """0.51 and 0.02 restored alone, 0.91 together: (0.53 - 0.91) / 0.91 = -0.42."""
    found = find_gate(trio(8, 8, 4), trio(4.08, 0.16, 7.28, scale=0.2), spread(8), spread(0))
    assert found.denoising.interaction is not None
    assert found.denoising.interaction.value == pytest.approx(-0.38 / 0.91)
    assert found.denoising.band == "partly low"
    assert found.kind != "additive"


def test_half_of_an_and_is_not_said_to_drive_it() -> None:
    """On AND either head and the gate: noised each costs all; restored the gate, which is later, does all alone."""
    for earlier, kind in (("first", "input of an AND"), ("second", "amplification"), (None, "serial")):
        found = find_gate(trio(0, 0, 0), trio(0, 8, 8), spread(8), spread(0), earlier=earlier)  # type: ignore[arg-type]
        assert found.kind == kind
    dual = find_gate(trio(8, 0, 0), trio(8, 8, 8), spread(8), spread(0), earlier="first")
    assert dual.kind == "input of an OR"


def test_a_claim_that_effects_add_up_needs_an_interaction_near_nothing() -> None:
    """Between -0.3 and -0.2 lies no gate that may be claimed, noised or denoised."""
    for bounds in BOUNDS.values():
        for low, high in bounds:
            assert place((-0.3, -0.2), low, high) == "REFUTED"


def test_parts_that_do_next_to_nothing_together_have_no_interaction() -> None:
    clean, corrupt = spread(8), spread(0)
    idle = trio(7.99, 8.0, 7.93)  # less than 0.01 of 8
    found = find_gate(idle, trio(8, 8, 8), clean, corrupt)
    assert (found.noising.interaction, found.noising.band, found.kind) == (None, None, None)
    assert found.label == "unclear: both do next to nothing noised"
    lost = find_gate(trio(7, 7, 7.8, scale=3.0), trio(8, 8, 8), clean, corrupt)  # 0.2 of 40 values that spread by 3
    assert lost.noising.interaction is None


def test_values_that_are_not_finite_are_refused() -> None:
    bad = Trio(spread(0), spread(0), np.where(np.arange(40) == 3, np.nan, 0.0))
    with pytest.raises(CircuitspecError, match="CS511"):
        find_gate(bad, trio(8, 8, 8), spread(8), spread(0))
