"""How every method's weights stand before training: their scale, the loss, its gradient and its curvature.

``python -m benchmarks.trainability FILE OUT``: FILE is an experiment that was evaluated here. OUT gets a JSON line for
each method and each of a few sizes of the first study: root mean square of the weights of each kind over all layers;
and on 512 training images the cross-entropy, the norm of its gradient, and its sharpness, which is the largest
eigenvalue of its Hessian, by power iteration (Hessian-vector products; Pearlmutter 1994).
"""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipelines import ancestor
from pipelines.cell import Cell, started
from pipelines.config import load
from pipelines.convert import prepared
from pipelines.evaluate import variants
from pipelines.grid import Grid
from pipelines.loader import MemoryBatches
from pipelines.source import pinned
from pipelines.stages import Stages
from pipelines.workspace import Workspace, absolute
from wave.family import Family
from wave.vit import linears

IMAGES, ITERATIONS, SIZES = 512, 30, 3


def main(file: str, out: str) -> None:
    experiment = pinned(load(file))
    dataset, workspace = prepared(experiment.data), Workspace(absolute(experiment.output, "output"))
    origin = workspace.record(workspace.ancestor, ancestor.key(experiment, dataset))
    if origin is None:
        sys.exit(f"{workspace.ancestor}: not there; first run python -m pipelines evaluate {file}")
    family = Family.of(ancestor.load(workspace.ancestor)[0])
    stages = Stages(variants(experiment), workspace, dataset, family, origin)
    study = experiment.evaluate.studies[0]
    grid = Grid(study, family.size, [1e-3], dataset.path.name, False)
    images, labels = dataset.arrays("train")
    batches = MemoryBatches(images, labels, dataset.mean, dataset.std, experiment.evaluate.batch_size)
    seen = MemoryBatches(images, labels, dataset.mean, dataset.std, IMAGES, seed=1).batch(0)
    with Path(out).open("w") as rows:
        for method in study.methods:
            place = stages.place(method, dataset)
            for size in [s for s in grid.sizes[: 2 * SIZES] if s in grid.reached(method)][:SIZES]:
                cell = Cell(method, size.embed_dim, size.depth, 0, 1e-3, (1,), dataset.path.name)
                model = started(experiment, place.workspace, dataset, cell, batches, 1).model
                row = {"method": method, "embed_dim": size.embed_dim, "depth": size.depth}
                row |= scales(model) | curvature(model.eval(), seen.images, seen.labels)
                print(json.dumps(row), file=rows, flush=True)


def scales(model: nn.Module) -> dict[str, float]:
    """``rms_<kind>``: root mean square over all layers."""
    squares: dict[str, list[Tensor]] = {}
    for _, kind, holder, name in linears(model):
        squares.setdefault(kind, []).append(getattr(holder, name).weight.detach().square().mean())
    return {f"rms_{kind}": float(torch.stack(some).mean().sqrt()) for kind, some in squares.items()}


def curvature(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """``loss``, ``gradient_norm`` and ``sharpness`` of the cross-entropy over the images."""
    weights = [p for p in model.parameters() if p.requires_grad]
    with sdpa_kernel(SDPBackend.MATH):  # the CPU's fused attention has no second derivative
        loss = F.cross_entropy(model(images), labels)
    gradient = torch.autograd.grad(loss, weights, create_graph=True)
    flat = torch.cat([g.flatten() for g in gradient])
    vector = torch.randn(len(flat), generator=torch.Generator().manual_seed(0))
    value = 0.0
    for _ in range(ITERATIONS):
        vector = vector / vector.norm()
        product = torch.autograd.grad(flat @ vector, weights, retain_graph=True)
        image = torch.cat([p.flatten() for p in product])
        value, vector = float(image @ vector), image
    return {"loss": float(loss.detach()), "gradient_norm": float(flat.detach().norm()), "sharpness": value}


if __name__ == "__main__":
    main(*sys.argv[1:])
