"""What `make test` leaves to `make nightly`: cases of families laid out like Llama, and never a layout or a test."""

from __future__ import annotations

from dataclasses import replace

from circuitspec.models.families.architecture import Architecture, SeparateQKV
from circuitspec.models.families.family_table import SUPPORTED, architecture_named
from tests.matrix import FURTHER, LAYOUTS, LOOK_ALIKES, STREAMS, Case, left_to_nightly, of_further_families, of_quick

FAMILIES = sorted(LAYOUTS + LOOK_ALIKES)


def layout(of: Architecture) -> dict[str, object]:
    return {
        "qkv": "separate" if isinstance(of.qkv, SeparateQKV) else of.qkv.layout,
        "norms before": (of.attn_norm is not None, of.mlp_norm is not None),
        "norms after": (of.attn_post_norm is not None, of.mlp_post_norm is not None),
        "position embedding": of.position_embedding is not None,
        "residual": of.residual,
        "joint norm": of.joint_qk_norm,
        "weights": of.weight_layout,
        "attention": of.attention,
        "key-value heads": of.keys.n_kv_heads is not None,
    }


def test_every_family_is_one_or_the_other() -> None:
    assert sorted(SUPPORTED) == sorted([*FAMILIES, *FURTHER, *STREAMS])


def test_all_that_a_table_can_say_is_among_the_layouts() -> None:
    in_full = [layout(architecture_named(family)) for family in LAYOUTS]
    for family in LOOK_ALIKES:
        for what, value in layout(architecture_named(family)).items():
            assert value in [one[what] for one in in_full], f"{family} ({what}): a layout that no family in full has"


def cases(module: str = "tests.engine.test_module", /, **tests: tuple[str, ...]) -> list[Case]:
    """The cases of tests of a module, one for each kind and family."""
    drawn = [(test, kind, family) for test, kinds in tests.items() for kind in kinds for family in FAMILIES]
    return [Case(module, test, family, place) for place, (test, _, family) in enumerate(drawn)]


def kept(given: list[Case]) -> list[Case]:
    left_out = left_to_nightly(given)
    return [case for case in given if case.place not in left_out]


def test_layouts_run_every_case_and_every_test_one_look_alike() -> None:
    for tests in ({"a": ("x", "y")}, {"a": ("",), "b": ("x", "y", "z")}, dict.fromkeys("abcdefgh", ("x", "y"))):
        given = cases(**tests)
        remain = kept(given)
        assert [c for c in remain if c.family in LAYOUTS] == [c for c in given if c.family in LAYOUTS]
        alike = [c for c in remain if c.family in LOOK_ALIKES]
        assert {c.family for c in alike} == set(LOOK_ALIKES)
        assert {c.test for c in alike} == set(tests)
        assert len(alike) == max(len(tests), len(LOOK_ALIKES))


def test_look_alikes_take_turns_over_the_modules_of_a_folder() -> None:
    first = cases("tests.engine.test_first", a=("",), b=("",))
    second = [replace(c, place=c.place + len(first)) for c in cases("tests.engine.test_second", a=("",), b=("",))]
    third = [replace(c, place=c.place + 2 * len(first)) for c in cases("tests.engine.test_third", a=("",), b=("",))]
    alike = [c for c in kept([*first, *second, *third]) if c.family in LOOK_ALIKES]
    assert [c.family for c in alike] == list(LOOK_ALIKES)


def test_look_alikes_take_turns_at_the_kinds() -> None:
    given = cases(a=("x", "y", "z"))
    alike = [c for c in kept(given) if c.family in LOOK_ALIKES]
    assert {c.place // len(FAMILIES) for c in alike} == {0, 1, 2}


def test_of_a_single_test_without_other_arguments_every_family_stays() -> None:
    given = cases(a=("",))
    assert kept(given) == given


def test_of_a_test_over_some_families_one_look_alike_stays() -> None:
    given = [case for case in cases(a=("x", "y")) if case.family in ("gpt2", "olmo2", "llama", "qwen3")]
    remain = kept(given)
    assert [c for c in remain if c.family in LAYOUTS] == [c for c in given if c.family in LAYOUTS]
    assert {c.family for c in remain if c.family in LOOK_ALIKES} <= {"llama", "qwen3"}
    assert any(c.family in LOOK_ALIKES for c in remain)


def test_what_takes_families_of_one_kind_is_left_alone() -> None:
    for some in (LAYOUTS, LOOK_ALIKES):
        given = [case for case in cases(a=("x", "y")) if case.family in some]
        assert kept(given) == given


def test_every_case_of_a_further_family_is_left_to_nightly() -> None:
    given = [Case("tests.engine.test_module", "a", family, place) for place, family in enumerate((*FURTHER, "gpt2"))]
    assert of_further_families(given) == frozenset(range(len(FURTHER)))


def test_quick_runs_what_needs_no_model_and_one_case_of_each_comparison_with_the_oracle() -> None:
    given = cases("tests.hypothesis_file.test_names", a=("x", "y"))
    assert of_quick(given) == {case.place for case in given}
    assert not of_quick(cases("tests.engine.test_store", a=("x", "y")))
    assert not of_quick(cases("tests.hypothesis_file.test_hostile", a=("x", "y")))
    given = cases("tests.engine.test_edges_against_oracle", a=("x",), b=("x", "y"), c=("x",), d=("x",), e=("x",))
    chosen = of_quick(given)
    assert [case.test for case in given if case.place in chosen] == ["a", "b", "c", "d", "e"]
    assert {case.family for case in given if case.place in chosen} == set(LAYOUTS)
    assert not chosen & left_to_nightly(given)


def test_quick_also_takes_what_goes_over_no_family() -> None:
    given = [Case("tests.engine.test_against_oracle", "a", None, 0), Case("tests.engine.test_store", "b", None, 1)]
    assert of_quick(given) == {0}
