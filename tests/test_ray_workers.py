"""`--ray`: actors on the nodes of a cluster give what one process gives. Skipped where Ray is not installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.runtime.progress import Silent
from circuitspec.workers.ray_actors import RayActors
from tests.test_workers import TINY, TOY, equal


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("circuitspec.workers.ray_actors.find_spec", lambda name: None)
    with pytest.raises(CircuitspecError, match="CS592") as raised, RayActors():
        pass
    assert "circuitspec[ray]" in str(raised.value.diagnostics[0].hint)


def test_where_no_cluster_begins_it_is_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Ray says, also without an address. A stand-in, so that it needs no Ray."""
    ray, exceptions = ModuleType("ray"), ModuleType("ray.exceptions")

    def init(**asked: object) -> None:
        raise ConnectionError(f"no node answers ({asked['address']})")

    vars(ray).update(is_initialized=lambda: False, init=init)
    vars(exceptions).update(RayError=KeyError)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", exceptions)
    monkeypatch.setattr("circuitspec.workers.ray_actors.find_spec", lambda name: ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(CircuitspecError, match=r"CS593: .* on this machine: no node answers \(None\)"), RayActors():
        pass


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes on this machine, of one processor each."""
    utils = pytest.importorskip("ray.cluster_utils")
    made = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield str(made.address)
    made.shutdown()


@pytest.mark.nightly
@pytest.mark.parametrize("file", [TOY, TINY], ids=["toy", "ioi-tiny"])
def test_two_nodes_give_what_one_process_gives(file: Path, cluster: str) -> None:
    document = load_hypothesis(file)
    with RayActors(cluster, 2) as workers:
        found = verify(document, VerifyOptions(workers=workers), Silent()).verification
    here = verify(document, VerifyOptions(), Silent()).verification
    equal(found.records, here.records)
    assert found.claims == here.claims


@pytest.mark.nightly
def test_an_actor_that_is_killed_is_replaced_once(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from circuitspec.workers import ray_actors

    left, give = [1], ray_actors._Actors.give

    def then_kill(self: Any, worker: Any, *given: Any) -> None:
        give(self, worker, *given)
        if left[0]:
            left[0] -= 1
            ray.kill(worker)

    monkeypatch.setattr(ray_actors._Actors, "give", then_kill)
    document = load_hypothesis(TOY)
    with RayActors(cluster) as workers:
        found = verify(document, VerifyOptions(workers=workers), Silent()).verification
        assert left == [0]
        left[0] = 10
        with pytest.raises(CircuitspecError, match="CS590"):
            verify(document, VerifyOptions(workers=workers), Silent())
        assert left == [8] or left == [7]  # the other actor was given a shard too
    equal(found.records, verify(document, VerifyOptions(), Silent()).verification.records)


@pytest.mark.nightly
@pytest.mark.parametrize(("workers", "threads"), [(3, 1), (1, 9)])
def test_workers_for_which_there_is_no_room_are_refused(workers: int, threads: int, cluster: str) -> None:
    """Instead of waiting for them without end."""
    with RayActors(cluster, workers, threads) as begun, pytest.raises(CircuitspecError, match="CS593"):
        verify(load_hypothesis(TOY), VerifyOptions(workers=begun), Silent())


@pytest.mark.nightly
def test_an_address_without_a_cluster_is_refused() -> None:
    pytest.importorskip("ray")
    with pytest.raises(CircuitspecError, match="CS593"), RayActors("127.0.0.1:1"):
        pass
