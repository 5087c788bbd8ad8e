"""The driver's heavy work runs in a task with one worker's resources, and its errors come back as they were."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.config.stage1 import Distil
from pipelines.runtime.remote import options
from tests.pipelines.support import PATIENCE, ROOT
from wave.recipe import Recipe


def distil(use_gpu: bool = False, **resources: float) -> Distil:
    return Distil(recipe=Recipe(steps=1, batch_size=8), use_gpu=use_gpu, resources_per_worker=resources)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (distil(CPU=1), {"num_cpus": 1, "num_gpus": 0, "resources": {}}),
        (distil(use_gpu=True), {"num_cpus": 0, "num_gpus": 1, "resources": {}}),
        (distil(True, CPU=4, GPU=0.5, memory=100, A100=1),
         {"num_cpus": 4, "num_gpus": 0.5, "memory": 100, "resources": {"A100": 1}}),
    ],
)  # fmt: skip
def test_a_task_asks_for_what_a_worker_has(settings: Distil, expected: dict[str, object]) -> None:
    assert options(settings) == expected


LOOK = """
import os

import pipelines.runtime.ray_session
import ray
from pipelines.config.cluster import Cluster
from pipelines.config.stage1 import Distil
from pipelines.runtime.remote import on_worker
from wave.errors import WaveError
from wave.recipe import Recipe


def distil(cpus):
    return Distil(recipe=Recipe(steps=1, batch_size=8), resources_per_worker={"CPU": cpus})


def look(device, number):
    return os.getpid(), device, ray.get_runtime_context().get_assigned_resources()["CPU"], number


def refuse(device):
    raise WaveError("too wide; nearest: 64")


with pipelines.runtime.ray_session.session(Cluster(num_cpus=2)):
    pid, *rest = on_worker(distil(2.0), look, 7)
    assert pid != os.getpid() and rest == ["cpu", 2, 7], rest
    try:
        on_worker(distil(1.0), refuse)
    except WaveError as error:
        assert type(error) is WaveError
        print(error)
"""


@pytest.mark.slow
def test_it_runs_in_another_process_with_these_resources(tmp_path: Path) -> None:
    """In a process of its own: Ray reads RAY_AUTH_MODE as it is imported, and other tests import it first."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["too wide; nearest: 64"]
