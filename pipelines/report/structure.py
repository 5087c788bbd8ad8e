"""The structure: templates as images, and each layer's parameters after PCA against the layer's position."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer

from pipelines.ancestors.reading import load_directory
from pipelines.report.drawing import COLOURS, legend, new_figure
from pipelines.runtime.workspace import Workspace
from wave.initialisation import initialise
from wave.spec import KINDS, TargetSpec
from wave.storage import Templates
from wave.vit import PATHS

COLUMNS = 16
MARKS = "os^Dv"
TITLES = {"qkv": "attention: qkv", "proj": "attention: proj", "fc1": "MLP: fc1", "fc2": "MLP: fc2"}
Vectors = NDArray[np.floating[Any]]
Layers = dict[str, Vectors]


def template_figure(templates: Templates) -> Figure:
    """Every template of each kind, one grey scale per kind: white is positive, black negative, grey zero."""
    figure, panels = new_figure(4, 1, 9.6)
    for axes, kind in zip(panels, KINDS, strict=True):
        stack = templates.bank[kind].numpy()
        count, height, width = stack.shape
        lines = -(-count // COLUMNS)
        limit = float(np.quantile(np.abs(stack), 0.99)) or 1.0
        sheet = np.full((lines * (height + 2) - 2, COLUMNS * (width + 2) - 2), np.nan, np.float32)
        for index, template in enumerate(stack):
            top, left = (index // COLUMNS) * (height + 2), (index % COLUMNS) * (width + 2)
            sheet[top : top + height, left : left + width] = template
        axes.imshow(sheet, cmap="gray", vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set_title(f"{TITLES[kind]}, {count} templates of {height} x {width}")
        axes.set_axis_off()
    figure.supxlabel("each square is one template: white positive, black negative", fontsize=12)
    return figure


def examples(sizes: Sequence[TargetSpec], source: TargetSpec) -> list[TargetSpec]:
    """A deeper, a shallower and a narrower size than the ancestor, as far as there are."""
    deep = [s for s in sizes if s.embed_dim == source.embed_dim]
    wide = [s for s in sizes if s.depth == source.depth]
    chosen = [
        max((s for s in deep if s.depth > source.depth), key=lambda s: s.depth, default=None),
        max((s for s in deep if s.depth < source.depth), key=lambda s: s.depth, default=None),
        max((s for s in wide if s.embed_dim < source.embed_dim), key=lambda s: s.embed_dim, default=None),
    ]
    return [size for size in chosen if size is not None]


def layers_figure(workspace: Workspace, templates: Templates, sizes: list[TargetSpec]) -> Figure:
    """First principal component of each layer's weights, by kind: ancestor, auxiliary model, and untrained sizes.

    The ancestor is in the form that stage 1 started from. Models of its width are projected on its component. Those
    whose layers are vectors of another length have one of their own, its sign chosen to follow; each component's scale
    is such that the largest score is 1 or -1.
    """
    there = (workspace.canonical / "config.json").is_file()
    origin, _, _ = load_directory(workspace.canonical if there else workspace.ancestor)
    models: dict[str, Layers] = {"ancestor": layer_vectors(origin)}
    models["same size, from templates"] = layer_vectors(initialise(templates, templates.size))
    for size in sizes:
        models[f"width {size.embed_dim}, depth {size.depth}"] = layer_vectors(initialise(templates, size))
    figure, panels = new_figure(2, 2, 7.4, sharey=True, sharex=True)
    for axes, kind in zip(panels, KINDS, strict=True):
        scores = first_components({name: layers[kind] for name, layers in models.items()})
        for index, (name, values) in enumerate(scores.items()):
            at = np.linspace(0, 1, len(values))
            thick = {"color": "black", "linewidth": 6, "alpha": 0.25} if index == 0 else {}
            thin = {"color": COLOURS[index - 1], "marker": MARKS[index - 1], "fillstyle": "none", "markersize": 8}
            axes.plot(at, values, label=name, **(thick or thin))
        axes.set_title(TITLES[kind])
        for label, side in zip(axes.set_xticks([0, 1], ["first layer", "last layer"]), ("left", "right"), strict=True):
            label.label1.set_horizontalalignment(side)
    for axes in panels[::2]:
        axes.set_ylabel("first principal\ncomponent")
    legend(figure, panels)
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
