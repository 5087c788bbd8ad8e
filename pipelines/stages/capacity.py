"""What this machine is too small for: processors of a stage, memory of a size."""

from collections.abc import Mapping

import torch

from pipelines.config.experiment import Experiment
from pipelines.config.machine import cpus, memory_bytes
from pipelines.runtime.ray_address import address
from wave.errors import WaveError
from wave.family import Family
from wave.measure import num_parameters


def check_sizes(experiment: Experiment, family: Family) -> None:
    """Raise :class:`WaveError` for what a Ray session of this machine alone would wait for without end."""
    check_workers(experiment)
    have = _have(experiment)
    if have is None:
        return
    for target in experiment.target_specs():
        full = family.resolve(target)
        size = 4 * full.depth * full.embed_dim**2 * (4 + 2 * (full.mlp_ratio or family.mlp_ratio))
        if size <= memory_bytes():  # small enough to be counted
            size = 4 * num_parameters(family.create(full, device="meta"))
        if size > memory_bytes():
            have_gb = memory_bytes() / 1e9
            raise WaveError(
                f"targets: {target.name} takes {size / 1e9:.0f} GB, this machine has {have_gb:.0f}; leave it out"
            )
        parameters = int(size / 4)
        rule = experiment.initialise.resources_for(parameters)
        _fits(f"initialise.resources for {target.name}", {"CPU": rule["cpu"], "GPU": rule["gpu"]}, have)


def check_workers(experiment: Experiment) -> None:
    """The same for the workers of stage 1."""
    have = _have(experiment)
    if have is not None:
        least, stage1 = experiment.distil.worker_range[0], experiment.distil.resources_per_worker
        need = {"GPU": float(experiment.distil.use_gpu), **stage1}
        _fits("distil.workers", {name: least * amount for name, amount in need.items()}, have)


def check_cells(experiment: Experiment) -> None:
    """The same for the cells of a comparison."""
    have = _have(experiment)
    if have is not None:
        rules = experiment.evaluate
        _fits("evaluate.cpus, evaluate.gpus", {"CPU": rules.cpus, "GPU": rules.gpus}, have)


def _have(experiment: Experiment) -> dict[str, float] | None:
    """What Ray finds on this machine; None when a cluster is joined."""
    if address(experiment.cluster)[0]:
        return None
    return {"CPU": float(experiment.cluster.num_cpus or cpus()), "GPU": float(torch.cuda.device_count())}


def _fits(what: str, need: Mapping[str, float], have: Mapping[str, float]) -> None:
    for name, amount in need.items():
        if amount > have.get(name, 0.0):
            raise WaveError(
                f"{what}: {amount:g} {name} needed, this machine has {have.get(name, 0.0):g}; "
                "ask for at most that, or join a larger machine with cluster.address"
            )
