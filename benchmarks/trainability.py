"""How every method's weights stand before training: their scale, the loss, its gradient and its curvature.

``python -m benchmarks.trainability FILE OUT``: FILE is an experiment that was run here; what its methods start from is
made first where it is missing. OUT gets a JSON line for each method and each of a few sizes of the first study: root
mean square of the weights of each kind over all layers; and on 256 training images the cross-entropy, the norm of its
gradient, and its sharpness: the eigenvalue of its Hessian of largest size, by power iteration (Hessian-vector products;
Pearlmutter 1994). The same command again does only what is missing, and prints all as a Markdown table.
"""

import datetime
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipelines.ancestors.reading import load_directory
from pipelines.ancestors.record import ancestor_key
from pipelines.ancestors.source import pinned
from pipelines.comparison.cell_start import start_cell
from pipelines.comparison.cells import Cell
from pipelines.comparison.starting_points import StartingPoints
from pipelines.comparison.study_cells import StudyCells
from pipelines.comparison.variants import variants
from pipelines.config.experiment import load
from pipelines.data.batches import MemoryBatches
from pipelines.data.convert.convert import prepared
from pipelines.runtime.files import absolute
from pipelines.runtime.provenance import machine
from pipelines.runtime.ray_session import session
from pipelines.runtime.workspace import Workspace
from wave.family import Family
from wave.spec import KINDS, TargetSpec
from wave.vit import linears

IMAGES, ITERATIONS = 256, 20
SIZES = [TargetSpec(96, 4), TargetSpec(64, 6), TargetSpec(128, 6)]


def main(file: str, out: str) -> None:
    experiment = pinned(load(file))
    dataset, workspace = prepared(experiment.data), Workspace(absolute(experiment.output, "output"))
    origin = workspace.record(workspace.ancestor, ancestor_key(experiment, dataset))
    if origin is None:
        sys.exit(f"{workspace.ancestor}: not there; first run python -m pipelines evaluate {file}")
    family = Family.of(load_directory(workspace.ancestor)[0])
    points = StartingPoints(variants(experiment), workspace, dataset=dataset, family=family, origin=origin)
    study = experiment.evaluate.studies[0]
    cells = StudyCells(study, family.size, rates=[1e-3], dataset=dataset.path.name, transfer=False)
    images, labels = dataset.arrays("train")
    batches = MemoryBatches(images, labels, dataset.mean, dataset.std, experiment.evaluate.batch_size)
    seen = MemoryBatches(images, labels, dataset.mean, dataset.std, IMAGES, seed=1).batch(0)
    with session(experiment.cluster):
        points.prepare(set(study.methods))
    lines = Path(out).read_text().splitlines() if Path(out).is_file() else []
    done = {(row["method"], row["embed_dim"], row["depth"]): row for row in map(json.loads, lines)}
    for method in study.methods:
        place = points.place(method, dataset)
        for size in [s for s in cells.sizes if s in SIZES and s in cells.reached(method)]:
            if (method, size.embed_dim, size.depth) in done:
                continue
            cell = Cell(method, size.embed_dim, size.depth, 0, 1e-3, (1,), dataset.path.name)
            own = points.experiments.get(method, experiment)
            model = start_cell(own, place.workspace, dataset=dataset, cell=cell, batches=batches, total=1).model
            row = {"method": method, "embed_dim": size.embed_dim, "depth": size.depth}
            row |= scales(model) | curvature(model.eval(), seen.images, seen.labels)
            done[method, size.embed_dim, size.depth] = row | {"machine": machine(), "date": str(datetime.date.today())}
            with Path(out).open("a") as file:
                file.write(json.dumps(done[method, size.embed_dim, size.depth]) + "\n")
    print(table(list(done.values())))


def table(rows: list[dict[str, Any]]) -> str:
    """A line a method and size."""
    names = [*(f"rms_{kind}" for kind in KINDS), "loss", "gradient_norm", "sharpness"]
    lines = [f"| {' | '.join(['method', 'size', *names])} |", f"| --- | --- |{' ---: |' * len(names)}"]
    for row in rows:
        numbers = " | ".join(f"{row[name]:.3g}" for name in names)
        lines.append(f"| {row['method']} | {row['embed_dim']} x {row['depth']} | {numbers} |")
    return "\n".join(lines)


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
