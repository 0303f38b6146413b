"""Subspaces in parts, and distances to natural states, on points whose numbers are seen at a glance."""

from __future__ import annotations

import numpy as np
import pytest

from circuitspec.experiments.subspaces import natural_states
from circuitspec.experiments.subspaces.natural_states import NEAR, NaturalStates, patched_states
from circuitspec.experiments.subspaces.subspace_parts import ACROSS, ALONG, BOTH, mean_directions, span_of, split

E = np.eye(4)


def spans(one: np.ndarray, *directions: np.ndarray) -> None:
    """Whether the basis spans these directions: the projectors are equal."""
    other = np.linalg.qr(np.stack(directions, axis=1))[0]
    np.testing.assert_allclose(one @ one.T, other @ other.T, atol=1e-12)


def test_mean_directions() -> None:
    """Means (1, 0, 0, 0) and (3, 0, 0, 0): the first axis, whatever varies within a kind; of three kinds a plane."""
    values = np.array([[1.0, 5, 0, 0], [1, -5, 0, 0], [3, 2, 0, 0], [3, -2, 0, 0]])
    means = mean_directions(values, ["a", "a", "b", "b"])
    assert means is not None
    spans(means, E[0])
    plane = mean_directions(np.array([[0.0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]), [0, 1, 2])
    assert plane is not None
    spans(plane, E[0], E[2])
    assert mean_directions(values, ["a"] * 4) is None
    assert mean_directions(np.zeros((4, 4)), ["a", "a", "b", "b"]) is None


def test_parts_of_a_direction() -> None:
    """(3, 4, 0, 0) / 5 with means along the first axis: the first axis, the second, and both."""
    parts = split(np.array([[0.6], [0.8], [0], [0]]), E[:, :1])
    assert list(parts.bases) == [ALONG, ACROSS, BOTH]
    spans(parts.bases[ALONG], E[0])
    spans(parts.bases[ACROSS], E[1])
    spans(parts.bases[BOTH], E[0], E[1])


def test_parts_of_a_plane() -> None:
    """One of its directions lies in the span of means, the other half: the parts are a plane and a line."""
    basis = np.stack([E[0], (E[1] + E[3]) / np.sqrt(2)], axis=1)
    parts = split(basis, E[:, :2])
    assert parts.along is not None
    assert parts.across is not None
    spans(parts.along, E[0], E[1])
    spans(parts.across, E[3])
    assert parts.both.shape == (4, 3)


@pytest.mark.parametrize("basis", [E[:, :1], E[:, 2:3]])
def test_a_subspace_of_one_part_is_not_split(basis: np.ndarray) -> None:
    parts = split(basis, E[:, :2])
    assert (parts.along is None) != (parts.across is None)
    assert parts.bases == {}
    spans(parts.both, *basis.T)


def test_spans_leave_out_what_is_too_small() -> None:
    rows = np.diag([4.0, 1.0, 0.001, 0])
    found = span_of(rows, least=1e-3)
    assert found is not None
    spans(found, E[0], E[1])
    assert span_of(rows, 1).shape == (4, 1)  # type: ignore[union-attr]
    assert span_of(np.zeros((2, 4))) is None


def line(base: list[float], source: list[float]) -> NaturalStates:
    """States on a line, each of its own text."""
    columns = [np.array(one)[:, None] for one in (base, source)]
    return NaturalStates.of(
        columns[0], [columns[1]], [f"b{i}" for i in range(len(base))], [[f"s{i}" for i in range(len(source))]]
    )


def test_distances_leave_out_the_own_pair() -> None:
    """Bases at 0, 10 and 20, sources at 1, 11 and 21: of another pair, the nearest to 0 is 10, to 1 it is 10 too."""
    found = line([0, 10, 20], [1, 11, 21]).distances(np.array([[0.5], [14.0], [50.0]]), [0, 1, 2])
    assert found is not None
    np.testing.assert_allclose(found.natural, [10, 9, 9, 9, 9, 10], atol=1e-9)
    np.testing.assert_allclose(found.patched, [9.5, 6, 39], atol=1e-9)
    assert found.edge == pytest.approx(11)  # a tenth more than 95 % of 9, 9, 9, 9, 10, 10
    assert found.outside.tolist() == [False, False, True]
    assert found.ratio(np.array([True, False, True])) == pytest.approx(24.25 / 9)
    assert found.ratio(np.zeros(3, dtype=bool)) is None


def test_of_many_states_the_first_are_natural(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three texts of four: 0, 1 (of pair 0) and 10; to 20 and 21 (of pair 1, as 10 is) the nearest is then 1."""
    monkeypatch.setattr(natural_states, "REFERENCE", 3)
    found = line([0, 10], [1, 11]).distances(np.array([[0.5], [20.0]]), [0, 1])
    assert found is not None
    np.testing.assert_allclose(found.patched, [9.5, 19], atol=1e-9)
    np.testing.assert_allclose(found.natural, [10, 9, 9], atol=1e-9)


def test_a_prompt_that_is_the_source_of_another_is_one_state() -> None:
    """A permutation: every text is a base and a source. Of four in a circle, a state's own pairs are two."""
    values = np.array([[0.0], [1], [3], [7]])
    natural = NaturalStates.of(values, [np.roll(values, -1, axis=0)], list("abcd"), [list("bcda")])
    assert len(natural.values) == 4
    found = natural.distances(values, range(4))
    assert found is not None
    np.testing.assert_allclose(found.natural, [3, 6, 3, 6], atol=1e-9)  # to its one state that is no partner


def test_natural_states_that_repeat() -> None:
    """Two values alone: what is as near as a fifth of their spread is natural, and there is no ratio."""
    natural = line([-1, -1, 1, 1], [1, 1, -1, -1])  # spread 1
    found = natural.distances(np.array([[1.1], [1.3], [0], [1]]), range(4))
    assert found is not None
    assert found.edge == pytest.approx(NEAR)
    assert found.outside.tolist() == [False, True, True, False]
    assert found.ratio(np.ones(4, dtype=bool)) is None


def test_single_pairs_have_nothing_to_be_compared_with() -> None:
    assert line([0], [1]).distances(np.array([[0.5]]), [0]) is None


def test_patched_states_in_the_directions_of_the_parts() -> None:
    """Along (1, 1, 0) / sqrt 2, from (-1, 0, z) to (1, 0, z'): to (0, 1, z), a distance of sqrt 2 in the plane."""
    z = np.array([0.0, 100, 200, 300])
    base = np.stack([[-1, 0, height] for height in z]).astype(float)
    source = base * [-1, 1, 1]
    natural = NaturalStates.of(base, [source], list("abcd"), [list("efgh")])
    basis = np.array([[1], [1], [0]]) / np.sqrt(2)
    found = patched_states(natural, base, source, range(4), basis, np.eye(3)[:, :2])
    assert found is not None
    np.testing.assert_allclose(found.within.patched, np.sqrt(2), atol=1e-9)
    np.testing.assert_allclose(found.within.natural, 0, atol=1e-9)
    assert found.within.outside.all()
    np.testing.assert_allclose(found.whole.patched, np.sqrt(10_002), atol=1e-9)  # drowns in what is not patched
    assert not found.whole.outside.any()
