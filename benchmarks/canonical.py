"""What the canonical form of an ancestor is worth before anything is trained (docs/method.md).

``python -m benchmarks.canonical RUN_FOLDER DATA_FOLDER OUT.jsonl``: RUN_FOLDER holds an ancestor. OUT gets a JSON line
for the ancestor as it is and one for its canonical form, found by tokens of the training set: the largest difference of
their logits, the share of the normalised stream in the leading half of its channels, the share of each kind's squared
norm that N templates hold and the accuracy that they leave, also of templates fitted to what the matrices read
(``weighted``) and of as many numbers shared out by the kinds' spectra (``counts``); and, with all weights, the accuracy
at other widths. All with no training, on the held-out images.
"""

import copy
import datetime
import json
import math
import sys
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from pipelines.ancestors.reading import load_directory
from pipelines.data.batches import MemoryBatches, eval_batches
from pipelines.data.dataset import open_dataset
from pipelines.runtime.provenance import machine
from wave import KINDS, Family, Resampling, TargetSpec, TemplateSpec, accuracy, canonical, condense, resample
from wave.spec import Kind
from wave.typed import blocks_of
from wave.vit import PATHS, linears, materialise

WIDTHS, COUNTS, TOKENS = (48, 64, 80, 96, 112, 128, 144, 192), (7, 16, 32, 46, 64, 128), 8192
SPECTRAL: dict[Kind, int] = {"qkv": 48, "proj": 40, "fc1": 84, "fc2": 84}
"""As many as 64 a kind, more of them where fewer hold as much."""


def main(run: str, data: str, out: str) -> None:
    torch.set_num_threads(1)
    dataset = open_dataset(data)
    model, mean, std = load_directory(Path(run) / "ancestor")
    model = model.eval()
    count = math.ceil(TOKENS / model.patch_embed.num_patches)
    images = MemoryBatches(*dataset.arrays("train"), mean, std, count).batch(0).images
    seen = dataset.arrays("held_out")

    def reached(other: torch.nn.Module) -> float:
        return accuracy(other.eval(), eval_batches(*seen, mean, std, 250))

    forms = [
        ("as it is", model, Resampling(width="even", width_scale="sqrt")),
        ("canonical", canonical(model, images), Resampling()),
    ]
    for name, form, options in forms:
        row = {"form": name, "leading_half": leading_half(form, images)}
        row["largest_difference"] = float((form(images) - model(images)).abs().max().detach())
        family = Family.of(form)
        for n in COUNTS:
            spec = TemplateSpec.uniform(family.head_dim, n, mlp_ratio=family.mlp_ratio)
            condensed = condense(form, spec)
            row |= {f"templates_{n}": reached(condensed), f"norm_{n}": norms(form, condensed)}
            row[f"weighted_{n}"] = reached(weighted(form, images, spec))
        blocks = dict.fromkeys(KINDS, (family.head_dim, family.head_dim))
        row["counts"] = reached(condense(form, TemplateSpec(blocks, SPECTRAL, family.head_dim, family.mlp_ratio)))
        for width in WIDTHS:  # of dense weights, whatever the number of templates
            target = TargetSpec(width, family.size.depth)
            sized = family.create(target)
            sized.load_state_dict(resample(form.state_dict(), family.size, family.resolve(target), spec, options))
            row[f"width_{width}"] = reached(sized)
        row |= {"machine": machine(), "date": str(datetime.date.today())}
        with Path(out).open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


@torch.no_grad()
def leading_half(model: VisionTransformer, images: Tensor) -> float:
    """Share of the squared norm of what the norms of the blocks make, over all layers."""
    found: list[Tensor] = []

    def keep(_: torch.nn.Module, given: tuple[Tensor]) -> None:
        found.append(F.layer_norm(given[0], [model.embed_dim]).square().mean((0, 1)))

    norms = [norm for block in blocks_of(model) for norm in (block.norm1, block.norm2)]
    hooks = [norm.register_forward_pre_hook(keep) for norm in norms]
    model(images)
    for hook in hooks:
        hook.remove()
    energy = torch.stack(found).mean(0)
    return float(energy[: model.embed_dim // 2].sum() / energy.sum())


@torch.no_grad()
def weighted(model: VisionTransformer, images: Tensor, spec: TemplateSpec) -> VisionTransformer:
    """The condensed model whose error is weighted by the root mean square of what each column of a matrix reads: one
    factor a block of columns and one a column inside blocks, the nearest in logarithms, so that the fit stays closed.
    """
    scaled, read = copy.deepcopy(model), list[Tensor]()
    layers = list(linears(scaled))
    hooks = [
        getattr(holder, name).register_forward_pre_hook(
            lambda _, given: read.append(given[0].flatten(0, -2).square().mean(0).sqrt())
        )
        for _, _, holder, name in layers
    ]
    scaled(images)  # which reads the matrices in the order of `linears`
    for hook in hooks:
        hook.remove()
    logs = [
        r.clamp_min(1e-6).log().unflatten(0, (-1, spec.blocks[kind][1]))
        for r, (_, kind, _, _) in zip(read, layers, strict=True)
    ]
    outer = [x.mean(1).exp() for x in logs]
    inner = {
        kind: torch.cat(
            [x - x.mean(1, keepdim=True) for x, (_, own, _, _) in zip(logs, layers, strict=True) if own == kind]
        )
        .mean(0)
        .exp()
        for kind in KINDS
    }
    for rows, (_, kind, holder, name) in zip(outer, layers, strict=True):
        getattr(holder, name).weight.mul_((rows[:, None] * inner[kind]).flatten())
    condensed = condense(scaled, spec)
    for rows, (_, _, holder, name) in zip(outer, linears(condensed), strict=True):
        getattr(holder, name).scalers.div_(rows)
    for kind in KINDS:
        condensed.get_parameter(f"templates.{kind}").div_(inner[kind])
    return condensed


@torch.no_grad()
def norms(model: VisionTransformer, condensed: VisionTransformer) -> dict[str, float]:
    """Kind -> share of the squared norm of its weights over all layers that the condensed model, a projection, has."""
    held, kept = dict.fromkeys(KINDS, 0.0), materialise(condensed)
    total = dict.fromkeys(KINDS, 0.0)
    for i, kind, holder, name in linears(model):
        weight = getattr(holder, name).weight
        held[kind] += float(
            kept[f"blocks.{i}.{'.'.join(PATHS[kind])}.weight"].square().sum()
        )  # a projection: what is left out is orthogonal
        total[kind] += float(weight.square().sum())
    return {kind: round(held[kind] / total[kind], 4) for kind in KINDS}


if __name__ == "__main__":
    main(*sys.argv[1:])
