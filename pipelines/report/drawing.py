"""What every chart shares: size and type, readable names, a legend that fits, per cent, PNG."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, cast

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pipelines.comparison.cells import OURS, is_ours

WIDTH, DPI = 8.0, 160
"""Inches and pixels per inch: 1,280 pixels, on which 12-point type is still legible when shown at 400."""
MARGIN = 0.97
"""Share of a figure's width that a legend may take."""
NAMES: Mapping[str, str] = {
    OURS: "ours (WAVE)",
    "timm_default": "random weights (timm)",
    "kaiming": "random weights (Kaiming)",
    "mimetic": "random weights (mimetic)",
    "weight_selection": "weight selection",
    "weight_selection_classifier": "weight selection with classifier",
    "weight_selection_heads": "weight selection by heads",
    "ligo": "LiGO",
    "tleg": "TLEG",
    "sws": "SWS",
    "heur_lg": "Heur-LG",
    "shared_block": "one shared block",
    "dct": "DCT resizing",
    "dct_scaled": "DCT resizing, scaled",
    "wavelet": "wavelet resizing",
}
STYLE: Mapping[str, Any] = {
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:olive")


PER_CENT = FuncFormatter(lambda value, _: f"{round(100 * value, 6):g} %")


def readable(method: str) -> str:
    """A method's name for readers; a variant of ours keeps what the file calls it, without underscores."""
    if is_ours(method) and method != OURS:
        return f"ours, {method.removeprefix(f'{OURS}_').replace('_', ' ')}"
    return NAMES.get(method, method.replace("_", " "))


def new_figure(lines: int, columns: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of the usual width and its panels, row by row."""
    with matplotlib.rc_context(cast(Any, dict(STYLE))):
        figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(lines, columns, squeeze=False, **options)
    return figure, list(panels.flat)


def legend(figure: Figure, panels: Sequence[Axes], title: str | None = None) -> None:
    """Every label once, below the panels, in as many columns as the figure's width holds."""
    found = {label: h for axes in panels for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    for columns in range(len(found), 0, -1):
        made = figure.legend(
            list(found.values()), list(found), loc="outside lower center", ncols=columns, title=title, frameon=False
        )
        if columns == 1 or made.get_window_extent().width <= MARGIN * figure.bbox.width:
            return
        made.remove()


def per_cent(axes: Axes, label: str | None = "test accuracy") -> None:
    """Shares of 1 on the vertical axis are written in per cent."""
    axes.yaxis.set_major_formatter(PER_CENT)
    if label is not None:
        axes.set_ylabel(label)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=figure.dpi)
    return image.getvalue()
