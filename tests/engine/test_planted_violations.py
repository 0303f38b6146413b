"""Models that are not what their family's entry says: whatever `doctor` refuses, `verify` refuses, and both see it.

In every family the same three violations, planted at the modules that its entry names; and every check by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.validation import self_test as by_verify_module
from circuitspec.engine.validation import site_tests, two_runs
from circuitspec.engine.validation.self_test import self_test
from circuitspec.engine.validation.site_tests import diagnose
from circuitspec.engine.validation.tap_propagation import Handover, handovers
from circuitspec.engine.validation.two_runs import CHECKS, Check
from circuitspec.models.families.family_table import architecture_named
from circuitspec.models.families.modules import submodule
from tests.engine.support import FAMILIES, Silent, loaded, random_prompts, runner, task_of
from tests.engine.support import model as random_model
from tests.engine.test_sites import around, by_doctor, by_verify, times
from tests.matrix import STREAMS
from tests.oracle import builders

LENGTHS = [5, 8, 6]
REFUSALS = (lambda model: by_verify(model, LENGTHS), by_doctor)


def leaking(model: Any) -> None:
    """A later layer's attention gets something of what the first layer's heads give, past the stream."""
    of, kept = loaded(model).architecture, list[torch.Tensor]()

    def keep(own: Any, z: torch.Tensor) -> Any:
        kept[:] = [z]
        return own(z)

    around(submodule(model, of.path(of.attn_out, 0)), keep)
    around(submodule(model, of.path(of.attn_out, 2)), lambda own, z: own(z + 0.3 * kept[0]))


def coupled(model: Any) -> None:
    """What heads give is moved by the mean over all rows of the batch."""
    of = loaded(model).architecture
    around(submodule(model, of.path(of.attn_out, 1)), lambda own, z: own(z + z.flatten(0, -2).mean(0)))


def multiplied(model: Any) -> None:
    """What an MLP adds is multiplied on its way into the stream, behind a norm after it where there is one.

    Of several streams what the attention adds: of what follows the MLP the entry names no sum.
    """
    of = loaded(model).architecture
    added = of.attn_post_norm if of.several_streams else of.mlp_post_norm
    around(submodule(model, of.path(added or of.mlp_modules[-1], 1)), times(1.1))


PLANTED = {leaking: "CS503", coupled: "CS352", multiplied: "CS503"}


@pytest.mark.parametrize(
    ("family", "planted"),
    [
        *((family, leaking) for family in STREAMS),
        *(pytest.param(f, p, marks=pytest.mark.nightly) for f in (*FAMILIES, *STREAMS) for p in PLANTED),
    ],
)
def test_doctor_and_verify_find_what_is_planted(family: str, planted: Callable[[Any], None]) -> None:
    sound = random_model(family, exactly=False)
    for refusals in REFUSALS:
        model = copy.deepcopy(sound)
        planted(model)
        assert PLANTED[planted] in refusals(model)


@pytest.mark.nightly
@pytest.mark.parametrize("family", [*FAMILIES, *STREAMS])
def test_nothing_is_found_where_nothing_is_planted(family: str) -> None:
    for refusals in REFUSALS:
        assert refusals(random_model(family, exactly=False)) == set()


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("olmo", {"clip_qkv": 0.02}),
        ("olmoe", {"clip_qkv": 0.02}),
        ("mpt", {"attn_config": {"clip_qkv": 0.02}}),
        ("gpt_oss", {"sinks": 6.0}),
        ("gpt_oss", {"sinks": -6.0}),
    ],
)
def test_no_false_alarm_on_sinks_and_clipped_values(family: str, changes: dict[str, Any]) -> None:
    """Nearly every value clipped; heads that attend to nearly nothing, or hardly to the sink."""
    sinks = changes.get("sinks")
    attention = architecture_named(family).attention or "sdpa"
    settings = {key: value for key, value in changes.items() if key != "sinks"}
    model = builders.BUILDERS[family](seed=3, attn=attention, exactly=False, **settings)
    if sinks is not None:
        for layer in model.model.layers:
            layer.self_attn.sinks.data.fill_(sinks)
    for refusals in REFUSALS:
        assert refusals(model) == set()


# -------------------------------------------------------------------------------------------- every check by itself


def refused_by_both(model: Any) -> list[set[str]]:
    return [refusals(model) for refusals in REFUSALS]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.what)
def test_a_check_of_all_sites_that_deviates_is_refused_by_both(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    family = next(f for f in ("gpt2", *STREAMS) if check.of(loaded(random_model(f)).architecture))
    model = random_model(family, exactly=False)
    deviating = tuple(replace(one, deviation=lambda runs: 1.0) if one is check else one for one in CHECKS)
    monkeypatch.setattr(two_runs, "CHECKS", deviating)
    assert refused_by_both(model) == [{"CS503"}, {"CS503"}]


@pytest.mark.parametrize("kind", ["qkv", "v", "z", "neurons", "mlp"])
def test_a_site_that_hands_on_something_else_is_refused_by_both(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def others(tap: Any, *args: Any) -> tuple[Handover, ...]:
        due = handovers(tap, *args)
        return tuple(replace(one, expected=one.expected + 1) for one in due) if tap.kind == kind else due

    model = random_model("gpt2" if kind == "qkv" else "llama", exactly=False, layers=2)
    for module in (two_runs, site_tests):
        monkeypatch.setattr(module, "handovers", others)
    assert refused_by_both(model) == [{"CS503"}, {"CS503"}]


def test_rows_that_hang_together_are_refused_by_both(monkeypatch: pytest.MonkeyPatch) -> None:
    found = (Diagnostic("CS352", "the rows"),)
    for module in (by_verify_module, site_tests):
        monkeypatch.setattr(module, "mixing", lambda runner: found)
    assert refused_by_both(random_model("gpt2", exactly=False, layers=2)) == [{"CS352"}, {"CS352"}]


def test_verify_measures_what_doctor_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """All checks of a model, by the same functions: none is one command's alone."""
    problems: list[Diagnostic] = []
    for family in ("gpt2", "gemma3n_text"):
        measured: list[list[str]] = [[], []]
        model = random_model(family, exactly=False)
        for seen, run in zip(
            measured,
            (
                lambda m=model: self_test(runner(m, task_of(random_prompts(0, LENGTHS)))),
                lambda m=model: problems.extend(diagnose(loaded(m), Silent()).problems),
            ),
            strict=True,
        ):

            def watched(check: Check, seen: list[str] = seen) -> Check:
                def deviation(runs: Any) -> float:
                    seen.append(check.what)
                    return check.deviation(runs)

                return replace(check, deviation=deviation)

            monkeypatch.setattr(two_runs, "CHECKS", tuple(map(watched, CHECKS)))
            with borrowed(model):
                run()
        of = loaded(model).architecture
        assert not problems
        assert set(measured[0]) == set(measured[1]) == {check.what for check in CHECKS if check.of(of)}
