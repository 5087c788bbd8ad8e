"""Nodes of a Ray cluster die: under stage 1, which goes on with fewer workers and grows back, and under stage 2."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from tests.chaos.conftest import Tally
from tests.chaos.support import driver, finished, until, until_stage_2

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(2400)]
ENVIRONMENT = {
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15",
    "RAY_health_check_failure_threshold": "3",
}


@contextlib.contextmanager
def nodes() -> Iterator[tuple[Any, list[Any]]]:
    """A head without CPUs, where the driver runs, and two nodes of one CPU, which may come up later."""
    os.environ.update(ENVIRONMENT)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield cluster, [cluster.add_node(num_cpus=1) for _ in range(2)]
    finally:
        cluster.shutdown()
        for name in ENVIRONMENT:
            os.environ.pop(name)


def test_a_node_dies_under_stage_1(tmp_path: Path, tally: Tally) -> None:
    with nodes() as (cluster, workers):
        settings = ("distil.workers=[1,2]", "distil.recipe.steps=3000", f"cluster.address={cluster.address}")
        with driver(tmp_path, *settings) as run:
            run.wait_for(r"^stage 1: step [45]00/")  # the checkpoint of step 300 is committed then
            before = finished(tmp_path)
            assert list(before) == ["digits/ancestor"]
            cluster.remove_node(workers.pop(), allow_graceful=False)
            run.wait_for(r"^stage 1: resumed at step [1-9]\d*/3000 on 1 workers")
            workers.append(cluster.add_node(num_cpus=1, wait=False))
            run.wait_for(r"^stage 1: resumed at step [1-9]\d*/3000 on 2 workers")
            assert run.ended() == 0, run.text()
    tally("3 node killed under stage 1", tmp_path, before)


def test_a_node_dies_under_stage_2(reference: Path, tmp_path: Path, tally: Tally) -> None:
    until_stage_2(reference, tmp_path)
    with nodes() as (cluster, workers), driver(tmp_path, f"cluster.address={cluster.address}") as run:
        checkpoints = tmp_path / "runs/digits/checkpoints"
        # Of two trials, so that the node which dies has one, whichever that is.
        under_way = lambda: len(list(checkpoints.glob("*.pt"))) > 1 or run.process.poll() is not None  # noqa: E731
        until(under_way, "checkpoints of two trials")
        before = finished(tmp_path)
        cluster.remove_node(workers.pop(), allow_graceful=False)
        cluster.add_node(num_cpus=1, wait=False)
        assert run.ended() == 0, run.text()
        assert run.says("was cut off")
    tally("4 node killed under stage 2", tmp_path, before, reference=reference)
