"""The driver's heavy work runs in a task with one worker's resources, and its errors come back as they were."""

import os

import pytest
import ray

from pipelines.config import Cluster, Distil
from pipelines.remote import on_worker, options
from pipelines.session import session
from wave.errors import WaveError
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


@pytest.mark.slow
def test_it_runs_in_another_process_with_these_resources() -> None:
    def look(device: str, number: int) -> tuple[int, str, float, int]:
        cpus = ray.get_runtime_context().get_assigned_resources()["CPU"]
        return os.getpid(), device, cpus, number

    def refuse(device: str) -> None:
        raise WaveError("too wide; nearest: 64")

    with session(Cluster(num_cpus=2)):
        pid, *rest = on_worker(distil(CPU=2), look, 7)
        assert pid != os.getpid() and rest == ["cpu", 2, 7]
        with pytest.raises(WaveError) as raised:
            on_worker(distil(CPU=1), refuse)
    assert type(raised.value) is WaveError and str(raised.value) == "too wide; nearest: 64"
