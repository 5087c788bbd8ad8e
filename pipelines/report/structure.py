"""The structure: templates as images, and each layer's parameters after PCA against the layer's position."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer

from pipelines.ancestors.reading import load_directory
from pipelines.runtime.workspace import Workspace
from wave.initialisation import initialise
from wave.spec import KINDS, TargetSpec
from wave.storage import Templates
from wave.vit import PATHS

COLUMNS = 16
Vectors = NDArray[np.floating[Any]]
Layers = dict[str, Vectors]


def template_figure(templates: Templates) -> Figure:
    """Every template of each kind, one grey scale a kind: white is positive, black negative, grey zero."""
    figure, panels = plt.subplots(2, 2, figsize=(13, 3.9), layout="constrained")
    for axes, kind in zip(panels.flat, KINDS, strict=True):
        stack = templates.bank[kind].numpy()
        count, height, width = stack.shape
        lines = -(-count // COLUMNS)
        limit = float(np.quantile(np.abs(stack), 0.99)) or 1.0
        sheet = np.full((lines * (height + 1) - 1, COLUMNS * (width + 1) - 1), np.nan, np.float32)
        for index, template in enumerate(stack):
            top, left = (index // COLUMNS) * (height + 1), (index % COLUMNS) * (width + 1)
            sheet[top : top + height, left : left + width] = template
        axes.imshow(sheet, cmap="gray", vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set_title(f"{kind}: {count} templates of {height} x {width}", fontsize=10)
        axes.set_axis_off()
    return figure


def layers_figure(workspace: Workspace, templates: Templates, sizes: list[TargetSpec]) -> Figure:
    """First principal component of each layer's weights, by kind: of the ancestor, in the form that stage 1 started
    from, of the auxiliary size, and of sizes as they come.

    Models of the ancestor's width are projected on its component. Those whose layers are vectors of another length have
    one of their own, its sign chosen to follow; each component's scale is such that the largest score is 1 or -1.
    """
    there = (workspace.canonical / "config.json").is_file()
    origin, _, _ = load_directory(workspace.canonical if there else workspace.ancestor)
    models: dict[str, Layers] = {"ancestor": layer_vectors(origin)}
    models["auxiliary"] = layer_vectors(initialise(templates, templates.size))
    for size in sizes:
        models[size.title] = layer_vectors(initialise(templates, size))
    figure, panels = plt.subplots(1, 4, figsize=(14, 3.8), sharey=True, layout="constrained")
    for axes, kind in zip(panels, KINDS, strict=True):
        for index, (name, scores) in enumerate(first_components({n: m[kind] for n, m in models.items()}).items()):
            at = np.linspace(0, 1, len(scores))
            style = {"color": "black", "linewidth": 2.4} if index == 0 else {"color": f"C{index - 1}"}
            axes.plot(at, scores, marker="o", markersize=4, label=name, **style)
        axes.set(title=kind, xlabel="position of the layer")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("first principal component")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    return figure


def layer_vectors(model: VisionTransformer) -> Layers:
    """Kind -> (L, entries): the weights of each layer, flat."""
    found: Layers = {}
    for kind in KINDS:
        holder, name = PATHS[kind]
        layers = [model.get_parameter(f"blocks.{i}.{holder}.{name}.weight") for i in range(len(model.blocks))]
        found[kind] = np.stack([layer.detach().numpy().ravel() for layer in layers])
    return found


def first_components(layers: dict[str, Vectors]) -> dict[str, Vectors]:
    """A score a layer and model; the first model's component is everybody's of its width. See :func:`layers_figure`."""
    first = next(iter(layers.values()))
    centre = first.mean(0)
    base = _component(first - centre)
    reference = (first - centre) @ base
    scale = _largest(reference)
    scores: dict[str, Vectors] = {}
    for name, matrix in layers.items():
        if matrix.shape[1] == len(base):
            scores[name] = (matrix - centre) @ base / scale
            continue
        own = matrix - matrix.mean(0)
        found = own @ _component(own)
        follows = np.interp(np.linspace(0, 1, len(found)), np.linspace(0, 1, len(reference)), reference)
        scores[name] = found * (np.sign(found @ follows) or 1.0) / _largest(found)
    return scores


def _component(centred: Vectors) -> Vectors:
    return np.linalg.svd(centred, full_matrices=False)[2][0]


def _largest(scores: Vectors) -> float:
    return max(float(np.abs(scores).max()), 1e-12)
