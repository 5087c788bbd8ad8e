"""One of the two processes of test_ddp.py: DDP trainings over half of every batch; rank 0 writes
what came out."""

import sys

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from tests.wave.models import exact, images, spec_of, tiny
from wave import (
    Batch,
    Family,
    MultiSize,
    Recipe,
    SizeSampler,
    TargetSpec,
    Teacher,
    Trainer,
    condense,
)

SIZES = [TargetSpec(8, 1), TargetSpec(32, 3), TargetSpec(24, 2), TargetSpec(16, 4)]


MODES = ("one size", "many sizes", "many without the auxiliary one", "features")


def build(mode: str) -> torch.nn.Module:
    ancestor = tiny()
    model, family = condense(ancestor, spec_of(ancestor, count=8)), Family.of(ancestor)
    if mode == MODES[0]:
        return model
    always = mode == MODES[1]
    rule = exact(
        symmetry="split", depth="linear" if always else "nearest"
    )  # nearest: some layers are read by no size
    return MultiSize(model, family, family.size, rule, always=always)


def train(model: torch.nn.Module, mode: str, part: slice) -> dict[str, torch.Tensor]:
    """Three steps; the gradients of the last and the parameters after it."""
    recipe = Recipe(steps=3, log_every=1, lr=1e-3, clip_grad=0)
    sampler = None if mode == MODES[0] else SizeSampler(SIZES, 2 if mode == MODES[1] else 1, seed=1)
    teacher = Teacher(tiny(seed=7), [0.5] * 3, [0.5] * 3) if mode == MODES[3] else None
    weight = 1.0 if teacher is not None else 0.0
    trainer = Trainer(model, recipe, 3, teacher=teacher, sampler=sampler, feature_weight=weight)

    def batches(step: int):
        for i in range(step, 3):
            yield Batch(images(4, seed=i)[part], torch.arange(4)[part])

    list(trainer.run(batches))
    inner = trainer.inner
    return {f"gradient.{k}": p.grad.clone() for k, p in inner.named_parameters()} | {
        k: p.detach().clone() for k, p in inner.named_parameters()
    }


def main(rank: int, store: str, out: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        part = slice(2 * rank, 2 * rank + 2)
        result = {mode: train(DistributedDataParallel(build(mode)), mode, part) for mode in MODES}
        if rank == 0:
            torch.save(result, out)
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
