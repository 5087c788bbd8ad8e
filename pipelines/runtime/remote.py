"""Heavy work of the driver, done where the resources are: in a task with what one worker of stage 1 has."""

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

import ray
import torch
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from pipelines.config.stage1 import Distil
from wave.errors import WaveError

T = TypeVar("T")
_RETRIES = "RAY_task_oom_retries"  # set where pipelines is imported; Ray reads it in small letters


def on_worker(settings: Distil, function: Callable[..., T], *arguments: Any) -> T:
    """``function(device, *arguments)`` in a Ray task on a GPU if workers have one, and what it returns.

    Raises :class:`WaveError` as the function does, or when the task's machine is lost for good.
    """
    task: Any = ray.remote(_call)
    try:
        return cast(T, ray.get(task.options(**options(settings)).remote(function, *arguments)))
    except RayTaskError as error:
        if isinstance(error.cause, WaveError):
            raise error.cause from None
        raise
    except OutOfMemoryError as error:
        raise WaveError(f"{function.__name__.strip('_')}: {out_of_memory(str(error))}") from None
    except RayError as error:
        text = " ".join(str(error).split())[:300]
        raise WaveError(f"{function.__name__.strip('_')}: {text}; the same command again continues") from None


def out_of_memory(said: str) -> str:
    """What Ray's memory monitor says in tables of processes, in one line: how much there is, and what to lower."""
    full = re.search(r"was ([\d.]+GB) used / ([\d.]+GB)", said)
    own = re.search(r"Selected to kill:.*?actual memory used=([\d.]+GB)", said, re.DOTALL)
    return (
        f"Ray ended it {1 + int(os.environ[_RETRIES])} times because memory was full"
        + (f", {full[1]} of {full[2]}" if full else "")
        + (f", of which it needed {own[1]} by then" if own else "")
        + "; lower batch_size or the number of workers, set data.in_memory = false, or take a machine with more memory"
    )


def options(settings: Distil) -> dict[str, Any]:
    """Ray's options of a task that gets what Ray Train gives one worker."""
    wanted = {"GPU": float(settings.use_gpu), **settings.resources_per_worker}
    named = {"num_cpus": wanted.pop("CPU", 0.0), "num_gpus": wanted.pop("GPU")}
    if memory := wanted.pop("memory", 0.0):
        named["memory"] = memory
    return {**named, "resources": wanted}


def _call(function: Callable[..., T], *arguments: Any) -> T:
    use_assigned_cpus()
    return function(assigned_device(), *arguments)


def use_assigned_cpus() -> None:
    """For a worker: as many torch threads as Ray gave it CPUs."""
    cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
    torch.set_num_threads(max(1, int(cpus)))


def assigned_device() -> str:
    """For a worker: a GPU if Ray gave it one, whatever else the machine has."""
    return "cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu"
