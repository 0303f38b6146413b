"""The grammar of names and paths: every form by hand, then any form by property."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitspec.hypothesis_file.grammar.component_kinds import (
    ATTENTION,
    ATTENTION_PATTERN,
    EXPERT_NEURON,
    HEAD,
    KV_HEAD,
    MLP,
    MOST_UNITS,
    NEURON,
    RESID,
    RESID_MID,
    SHARED_NEURON,
    Counts,
)
from circuitspec.hypothesis_file.grammar.components import (
    IN_LAYERS,
    AttentionLayer,
    AttentionPattern,
    Component,
    ExpertNeuron,
    Feature,
    Head,
    Input,
    KvHead,
    Logits,
    Mlp,
    Neuron,
    Pattern,
    Range,
    Resid,
    SharedNeuron,
    sort_key,
    stage,
)
from circuitspec.hypothesis_file.grammar.names import (
    GroupRef,
    Name,
    NameSyntaxError,
    PathExpr,
    format_name,
    format_path,
    is_group_name,
    is_position_name,
    parse_name,
    parse_path,
    suggest_name,
)

WRITTEN = {
    "input": Name(Input()),
    "logits": Name(Logits()),
    "a9.h6": Name(Head(9, 6)),
    "a9": Name(AttentionLayer(9)),
    "m3": Name(Mlp(3)),
    "m1.n42": Name(Neuron(1, 42)),
    "r5": Name(Resid(5)),
    "r5.mid": Name(Resid(5, mid=True)),
    "a9.kv2": Name(KvHead(9, 2)),
    "a9.h6.pattern": Name(AttentionPattern(9, 6)),
    "a9.h6.pattern@END": Name(AttentionPattern(9, 6), (), ("END",)),
    "a9.h*.pattern": Name(Pattern(ATTENTION_PATTERN, 9, Range())),
    "sae:gpt2-small/res.8.f123": Name(Feature("gpt2-small/res.8", 123)),
    "a9.h6<q>": Name(Head(9, 6), ("q",)),
    "a9.kv2<k,v>": Name(KvHead(9, 2), ("k", "v")),
    "a9<q,k,v>": Name(AttentionLayer(9), ("q", "k", "v")),
    "m3@END": Name(Mlp(3), (), ("END",)),
    "a9.h6@{S1,S2}": Name(Head(9, 6), (), ("S1", "S2")),
    "a9.h6<q>@{S1+1,S#2}": Name(Head(9, 6), ("q",), ("S1+1", "S#2")),
    "m*": Name(Pattern(MLP, Range())),
    "a*": Name(Pattern(ATTENTION, Range())),
    "a*.h*": Name(Pattern(HEAD, Range(), Range())),
    "a[0-5].h*": Name(Pattern(HEAD, Range(0, 5), Range())),
    "a9.h*": Name(Pattern(HEAD, 9, Range())),
    "a*.h3": Name(Pattern(HEAD, Range(), 3)),
    "a9.kv[0-1]": Name(Pattern(KV_HEAD, 9, Range(0, 1))),
    "m2.n*": Name(Pattern(NEURON, 2, Range())),
    "m2.e3.n4": Name(ExpertNeuron(2, 3, 4)),
    "m2.e[0-1].n*": Name(Pattern(EXPERT_NEURON, 2, Range(0, 1), Range())),
    "m*.e3.n4": Name(Pattern(EXPERT_NEURON, Range(), 3, 4)),
    "m2.shared.n4": Name(SharedNeuron(2, 4)),
    "m2.shared.n*": Name(Pattern(SHARED_NEURON, 2, Range())),
    "r[2-4]": Name(Pattern(RESID, Range(2, 4))),
    "r*.mid": Name(Pattern(RESID_MID, Range())),
}

OTHER_SPELLINGS = {
    "L9H6": "a9.h6",
    "L1N42": "m1.n42",
    " a9.h6 ": "a9.h6",
    "L9H6<v,q>@{ S2 , S1 }": "a9.h6<q,v>@{S2,S1}",
    "m3@{END}": "m3@END",
    "a0.h0": "a0.h0",
}


@pytest.mark.parametrize("text", WRITTEN)
def test_every_form(text: str) -> None:
    assert parse_name(text) == WRITTEN[text]
    assert format_name(WRITTEN[text]) == text


@pytest.mark.parametrize("text", OTHER_SPELLINGS)
def test_other_spellings_become_canonical(text: str) -> None:
    assert format_name(parse_name(text)) == OTHER_SPELLINGS[text]


def test_components_can_be_formatted_alone() -> None:
    assert format_name(Head(9, 6)) == "a9.h6"
    assert format_name(Pattern(MLP, Range())) == "m*"


# text, where it goes wrong, how far, what the hint says
WRONG = [
    ("", 0, 1, "components are written"),
    ("A9.6", 0, 4, "did you mean a9.h6?"),
    ("9.6", 0, 3, "did you mean a9.h6?"),
    ("L9.6", 0, 4, "did you mean a9.h6?"),
    ("a9h6", 0, 4, "did you mean a9.h6?"),
    ("layer 9 head 6", 0, 14, "did you mean a9.h6?"),
    ("MLP 3", 0, 5, "did you mean m3?"),
    ("m1n42", 0, 5, "did you mean m1.n42?"),
    ("embed", 0, 5, "did you mean input?"),
    ("a09.h6", 0, 6, "did you mean a9.h6?"),
    ("a9.hh", 3, 2, "components are written"),
    ("  a9.hh", 5, 2, "components are written"),
    ("m3.h4", 3, 2, "components are written"),
    ("a9.mid", 3, 3, "components are written"),
    ("r5.h1", 3, 2, "components are written"),
    ("name_mover", 0, 10, "components are written"),
    ("a1234567890", 0, 11, "components are written"),
    ("a9.h6 x", 3, 4, "components are written"),
    ("a٣.h1", 0, 5, "components are written"),
    ("a[5-2].h*", 1, 5, "write [2-5]"),
    ("a9.h6<x>", 6, 1, "the inputs are q, k and v"),
    ("a9.h6<>", 6, 1, "the inputs are q, k and v"),
    ("a9.h6<q,q>", 8, 1, "once"),
    ("a9.h6<q", 5, 2, "add '>'"),
    ("a9.h6<q>z", 8, 1, "write a9.h6<q>@END"),
    ("m3<q>", 2, 3, "write m3"),
    ("logits<q>", 6, 3, "write logits"),
    ("a9.kv2<q>", 6, 3, "queries belong to heads"),
    ("a9.h6@", 6, 1, "write @END"),
    ("a9.h6@{S1", 6, 3, "add '}'"),
    ("a9.h6@{S1,S1}", 10, 2, "once"),
    ("a9.h6@{S1}x", 10, 1, "write @END"),
    ("a9.h6@2", 6, 1, "write @END"),
    ("a9.h6@END<k>", 9, 3, "write a9.h6<k>@END"),
    (" a9.h6@{S1,S2}<v,k>", 14, 5, "write a9.h6<k,v>@{S1,S2}"),
    ("a9.h6<q>@END<k>", 12, 3, "write a9.h6<q,k>@END"),
    ("a*.h*@END<q>", 9, 3, "write a*.h*<q>@END"),
    ("a9.h6@END<x>", 10, 1, "the inputs are q, k and v"),
    ("a9.h6@END<k", 9, 2, "add '>'"),
    ("a9.h6@2<k>", 6, 1, "write @END"),
    ("m3@END<q>", 6, 3, "write m3"),
]


@pytest.mark.parametrize(("text", "offset", "length", "hint"), WRONG)
def test_wrong_names(text: str, offset: int, length: int, hint: str) -> None:
    with pytest.raises(NameSyntaxError) as caught:
        parse_name(text)
    assert (caught.value.offset, caught.value.length) == (offset, length)
    assert hint in caught.value.hint


@pytest.mark.parametrize(("text", "meant"), [("A9.10", "a9.h10"), ("L3H2", "a3.h2"), ("xyz", None), ("mlp_7", "m7")])
def test_suggestions(text: str, meant: str | None) -> None:
    assert suggest_name(text) == meant


def test_model_order() -> None:
    ordered: list[Component] = [
        Input(),
        Resid(0),
        AttentionLayer(0),
        KvHead(0, 1),
        AttentionPattern(0, 0),
        Head(0, 0),
        Head(0, 1),
        Resid(0, mid=True),
        Mlp(0),
        Neuron(0, 3),
        Head(1, 0),
        Mlp(1),
        Head(10, 0),
        Logits(),
        Feature("a", 1),
        Feature("b", 1),
    ]
    shuffled = ordered[::-1]
    assert sorted(shuffled, key=sort_key) == ordered


def test_stages_say_who_can_reach_whom() -> None:
    def stages(*components: Component) -> list[int]:
        return [number for component in components if (number := stage(component)) is not None]

    strictly = stages(Input(), Resid(0), Head(0, 3), Resid(0, mid=True), Mlp(0), Resid(1), AttentionLayer(1), Logits())
    assert all(first < second for first, second in itertools.pairwise(strictly))
    assert stage(Head(2, 0)) == stage(Head(2, 7)) == stage(KvHead(2, 1)) == stage(AttentionLayer(2))
    assert stage(Mlp(2)) == stage(Neuron(2, 5))
    assert stage(Feature("x", 0)) is None


def test_patterns_expand_in_model_order() -> None:
    def expand(text: str) -> list[str]:
        pattern = parse_name(text).target
        assert isinstance(pattern, Pattern)
        return [format_name(one) for one in pattern.expand(Counts(3, 2, n_kv_heads=1, n_neurons=2))]

    assert expand("m*") == ["m0", "m1", "m2"]
    assert expand("a[1-2].h*") == ["a1.h0", "a1.h1", "a2.h0", "a2.h1"]
    assert expand("a*.h1") == ["a0.h1", "a1.h1", "a2.h1"]
    assert expand("a2.kv*") == ["a2.kv0"]
    assert expand("m0.n*") == ["m0.n0", "m0.n1"]
    assert expand("r[0-1].mid") == ["r0.mid", "r1.mid"]


def test_patterns_beyond_the_model_are_refused() -> None:
    with pytest.raises(ValueError, match="index 3 is beyond the model's 3 layers"):
        Pattern(MLP, Range(1, 3)).expand(Counts(3, 2))
    with pytest.raises(ValueError, match="beyond"):
        Pattern(HEAD, Range(), 2).expand(Counts(3, 2))
    with pytest.raises(ValueError, match="not given"):
        Pattern(NEURON, 0, Range()).expand(Counts(3, 2))


KINDS = tuple(kind for kind in IN_LAYERS if kind.in_place_of is None)
INDICES = st.one_of(
    st.integers(0, 10**9 - 1),
    st.just(Range()),
    st.tuples(st.integers(0, 500), st.integers(0, 500)).map(lambda pair: Range(min(pair), max(pair))),
)
NUMBERS = st.integers(0, 10**9 - 1)
UNITS = INDICES.map(lambda units: units % MOST_UNITS if isinstance(units, int) else units)  # no member has more
COMPONENTS: st.SearchStrategy[Component] = st.one_of(
    st.just(Input()),
    st.just(Logits()),
    st.builds(Head, NUMBERS, NUMBERS),
    st.builds(AttentionLayer, NUMBERS),
    st.builds(AttentionPattern, NUMBERS, NUMBERS),
    st.builds(Mlp, NUMBERS),
    st.builds(Neuron, NUMBERS, NUMBERS),
    st.builds(ExpertNeuron, NUMBERS, NUMBERS, st.integers(0, MOST_UNITS - 1)),
    st.builds(SharedNeuron, NUMBERS, NUMBERS),
    st.builds(Resid, NUMBERS, st.booleans()),
    st.builds(KvHead, NUMBERS, NUMBERS),
    st.builds(Feature, st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_./-]*", fullmatch=True), NUMBERS),
)


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    kind = draw(st.sampled_from(KINDS))
    layers = draw(INDICES)
    members = draw(INDICES) if kind.has_members else None
    units = draw(UNITS) if kind.per_member is not None else None
    if not any(isinstance(one, Range) for one in (layers, members, units)):
        layers = Range(layers, layers) if isinstance(layers, int) else layers
    return Pattern(kind, layers, members, units)


POSITIONS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*(#[1-9])?([+-][0-9]{1,3})?", fullmatch=True)


@st.composite
def names(draw: st.DrawFn, receiver: bool = True) -> Name:
    target = draw(st.one_of(COMPONENTS, patterns()))
    allowed = "kv" if target.kind is KV_HEAD else "qkv" if target.kind in (HEAD, ATTENTION) else ""
    ports = draw(st.sets(st.sampled_from(allowed))) if allowed and receiver else set()
    positions = draw(st.lists(POSITIONS, max_size=3, unique=True))
    return Name(target, tuple(port for port in ("q", "k", "v") if port in ports), tuple(positions))


@given(names())
def test_round_trip(name: Name) -> None:
    assert parse_name(format_name(name)) == name


@given(patterns(), COMPONENTS)
def test_a_pattern_matches_what_it_expands_to(pattern: Pattern, other: Component) -> None:
    counts = Counts(4, 4, 4, 4, n_experts=4, has_shared=True, n_expert_neurons=4, n_shared_neurons=4)
    members, units = (None if one is None else _shrunk(one) for one in (pattern.members, pattern.units))
    small = Pattern(pattern.kind, _shrunk(pattern.layers), members, units)
    expanded = small.expand(counts)
    assert all(small.matches(component) for component in expanded)
    every = [
        one for kind in KINDS for one in Pattern(kind, Range(), Range() if kind.has_members else None).expand(counts)
    ]
    assert [one for one in every if small.matches(one)] == list(expanded)
    assert not small.matches(Input())
    assert not small.matches(Logits())


def _shrunk(index: int | Range) -> int | Range:
    if isinstance(index, int):
        return index % 4
    if index.first is None or index.last is None:
        return index
    return Range(min(index.first % 4, index.last % 4), max(index.first % 4, index.last % 4))


def _error(parse: Callable[[str], object], text: str) -> NameSyntaxError | None:
    try:
        parse(text)
    except NameSyntaxError as error:
        return error
    return None


NEARLY_NAMES = st.text(alphabet="amrhkvnLHN0123456789.*[]-<>,@{}qkvS+# sae:f", max_size=16)
NEARLY_PATHS = st.text(alphabet="aAmB.h0<>,-kv{}@ SE=", max_size=24)


@given(st.one_of(st.text(max_size=40), NEARLY_NAMES))
def test_any_text_is_a_name_or_an_error_inside_it(text: str) -> None:
    error = _error(parse_name, text)
    if error is None:
        assert parse_name(format_name(parse_name(text))) == parse_name(text)
    else:
        assert 0 <= error.offset <= len(text)
        assert error.message


GROUPS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*(-[A-Za-z0-9_]+)*", fullmatch=True).filter(is_group_name)


@st.composite
def paths(draw: st.DrawFn) -> PathExpr:
    def hop(receiver: bool) -> tuple[Name | GroupRef, ...]:
        ports = st.sets(st.sampled_from("qkv")) if receiver else st.just(set())
        groups = st.builds(
            lambda group, some: GroupRef(group, tuple(port for port in ("q", "k", "v") if port in some)), GROUPS, ports
        )
        return tuple(draw(st.lists(st.one_of(groups, names(receiver)), min_size=1, max_size=3)))

    return PathExpr((hop(False), *(hop(True) for _ in range(draw(st.integers(1, 3))))))


@given(paths())
def test_paths_round_trip(path: PathExpr) -> None:
    assert parse_path(format_path(path)) == path


@given(st.one_of(st.text(max_size=40), NEARLY_PATHS))
def test_any_text_is_a_path_or_an_error_inside_it(text: str) -> None:
    error = _error(parse_path, text)
    if error is None:
        assert parse_path(format_path(parse_path(text))) == parse_path(text)
    else:
        assert 0 <= error.offset <= len(text)
        assert error.message


def test_path_of_groups_and_components() -> None:
    path = parse_path("A, a1.h2 -> B<k,v> -> a9.h6<q>@{S1,S2}, logits")
    assert path == PathExpr(
        (
            (GroupRef("A"), Name(Head(1, 2))),
            (GroupRef("B", ("k", "v")),),
            (Name(Head(9, 6), ("q",), ("S1", "S2")), Name(Logits())),
        )
    )
    assert [(_said(a), _said(b)) for a, b in path.edges()] == [
        ("A", "B"),
        ("a1.h2", "B"),
        ("B", "a9.h6"),
        ("B", "logits"),
    ]


def _said(item: Name | GroupRef) -> str:
    return item.group if isinstance(item, GroupRef) else format_name(item.target)


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("A", 0, "at least one arrow"),
        ("A ->", 4, "is missing here"),
        ("-> A", 0, "is missing here"),
        ("A,, B -> C", 2, "is missing here"),
        ("A => B", 2, "not the arrow"),
        ("A → B", 2, "not the arrow"),
        ("A<q> -> B", 0, "first hop"),
        ("A -> B<z>", 7, "not an input"),
        ("A -> B<q", 6, "not closed"),
        ("A -> a9.hh", 8, "not a component"),
        ("A@END -> B", 1, "does not belong"),
        ("A -> a1.h2@END<k> -> logits", 14, "inputs come before positions"),
        ("A -> B<q>x", 9, "does not belong"),
        ("a b -> C", 1, "does not belong"),
    ],
)
def test_wrong_paths(text: str, offset: int, message: str) -> None:
    with pytest.raises(NameSyntaxError, match=message) as caught:
        parse_path(text)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("text", "fits"),
    [("name_mover", True), ("s-inhibition", True), ("a9h6", True), ("a9", False), ("m3", False), ("input", False),
     ("logits", False), ("a b", False), ("-a", False), ("a-", False), ("9a", False), ("", False), ("L9H6", False)],
)  # fmt: skip
def test_group_names(text: str, fits: bool) -> None:
    assert is_group_name(text) is fits


@pytest.mark.parametrize(
    ("text", "fits"),
    [("END", True), ("S1+1", True), ("S#2", True), ("S#2-1", True), ("S#0", False), ("1", False), ("E ND", False),
     ("@END", False), ("", False), ("S1 + 1", False)],
)  # fmt: skip
def test_position_names(text: str, fits: bool) -> None:
    assert is_position_name(text) is fits
