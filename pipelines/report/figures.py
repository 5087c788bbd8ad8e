"""Figures of a comparison: training curves, total cost, accuracy against the share of parameters, ablations."""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from pipelines.comparison.cells import OURS, is_ours
from pipelines.report.cost import DIRECT, UNITS, Cost
from pipelines.report.evidence import Evidence, Found
from wave.spec import TargetSpec

MOST_CURVES = 6
STYLES = [(f"C{colour}", line) for line in ("-", "--", ":") for colour in range(10)]
"""Colour and line of each method's curve."""
FLOOR, ENOUGH = 0.5, 0.7
"""Curves that end above the latter are drawn from the former up, where they differ."""
LOWEST = 0.8
"""Of the axis of accuracy against shares; what is lower stands on it, with its value."""


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as a PNG file; it is closed."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=dpi)
    plt.close(figure)
    return image.getvalue()


def curves(evidence: Evidence, found: Found) -> Figure | None:
    """Accuracy against steps at the sizes of a study of several methods, ours among them, unless it has more sizes than
    can be seen; direct training beside it. Each line is one schedule, read off while it ran."""
    methods, few = found.study.methods, len(found.grid.sizes) <= MOST_CURVES and len(found.steps) > 2
    if found not in evidence.plain or OURS not in methods or len(methods) < 2 or not few:
        return None
    direct = max(evidence.only(DIRECT), key=lambda f: (max(f.steps), len(f.study.seeds)), default=None)
    direct = None if DIRECT in methods else direct
    sizes = sorted(found.grid.sizes, key=lambda s: (s.embed_dim, s.depth))
    columns = min(3, len(sizes))
    lines = -(-len(sizes) // columns)
    figure, panels = plt.subplots(
        lines, columns, figsize=(4.2 * columns, 3.3 * lines + 0.6), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, size in zip(panels.flat, sizes, strict=False):
        for index, method in enumerate(found.study.methods):
            _curve(axes, found, method, size, method, *STYLES[index % len(STYLES)], 2.2 if is_ours(method) else 1.2)
        if direct is not None and size in direct.grid.sizes:
            _curve(axes, direct, DIRECT, size, f"direct, {DIRECT}", "black", "-", 1.2)
        axes.set_xscale("function", functions=(lambda x: np.abs(x) ** 0.5, lambda x: x**2))
        axes.set(title=size.title, xlabel="training steps (square root)", xlim=(0, None))
        axes.set_xticks(sorted({*found.steps, *(direct.steps if direct else [])}))
        axes.tick_params(axis="x", labelrotation=60, labelsize=8)
        axes.grid(alpha=0.3)
    if panels[0][0].get_ylim()[1] > ENOUGH:  # once, when all curves are there: the panels share this axis
        panels[0][0].set_ylim(FLOOR, None)
    for axes in list(panels.flat)[len(sizes) :]:
        axes.set_visible(False)
    panels[0][0].set_ylabel("test accuracy")
    handles = {label: h for a in panels.flat for h, label in zip(*a.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


def _curve(
    axes: Axes, found: Found, method: str, size: TargetSpec, label: str, colour: str, line: str, width: float
) -> None:
    if method not in found.study.methods:
        return
    measured = sorted({row["steps"] for row in found.of(method, size)})
    scores = [score for s in measured if (score := found.score(method, size, s))]
    if not scores:
        return
    errors = [s.spread for s in scores]
    values = [s.mean for s in scores]
    kept = [s for s in measured if found.score(method, size, s)]
    axes.errorbar(
        kept, values, errors, label=label, color=colour, linestyle=line, linewidth=width, marker=".", capsize=2
    )


def cost_figure(costs: Sequence[Cost]) -> Figure:
    """Both units side by side, with the point from which ours is cheaper."""
    figure, panels = plt.subplots(1, len(costs), figsize=(6 * len(costs), 4.4), layout="constrained", squeeze=False)
    for axes, cost in zip(panels[0], costs, strict=True):
        n = range(len(cost.sizes) + 1)
        ours, direct = ([k * sum(one) / len(cost.sizes) for k in n] for one in (cost.ours, cost.direct))
        first, second = cost.steps
        axes.plot(n, direct, color="black", label=f"direct, {second} steps a size")
        axes.plot(n, [cost.stage1 + x for x in ours], "C0", linewidth=2.2, label=f"ours: stage 1, {first} steps a size")
        axes.axhline(cost.stage1, color="C0", linestyle=":", label="ours with no training of sizes")
        if cost.ancestor is not None:
            whole = [cost.stage1 + cost.ancestor + x for x in ours]
            axes.plot(n, whole, "C0--", label="ours, and the ancestor's training")
        axes.plot(n, ours, "C1--", label=f"a rival without stage 1, {first} steps a size")
        even = cost.break_even()
        if even is not None and even <= len(cost.sizes):
            axes.axvline(even, color="grey", linewidth=0.8)
            axes.text(even + 0.1, 0.6, f"break-even at {even}", transform=axes.get_xaxis_transform(), fontsize=9)
        axes.set(
            xlabel="number of sizes of average cost",
            ylabel=UNITS[cost.unit],
            title=f"total {UNITS[cost.unit]}",
            ylim=(0, None),
        )
        axes.grid(alpha=0.3)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def share_figure(found: Found) -> Figure | None:
    """Accuracy, mean over the sizes that every method of a study reaches, against the share of the ancestor's
    parameters that is handed on; weight selection hands on all. None for fewer than two numbers of templates."""
    shares = {row["method"]: (row["share"], row["share_all"]) for row in found.rows if "share" in row}
    families = _families(shares)
    if all(len(points) < 2 for points in families.values()):
        return None
    rivals = [m for m in found.study.methods if m.startswith("weight_selection")]
    size = 6 * len(found.steps), 4.6
    figure, rows = plt.subplots(1, len(found.steps), figsize=size, layout="constrained", squeeze=False)
    panels = list(rows[0])
    for axes, steps in zip(panels, found.steps, strict=True):
        for family, points in families.items():
            known = [(x, wide, y) for m, (x, wide) in points if (y := found.mean(m, steps)) is not None]
            known.sort()
            if not known:
                continue
            label = f"templates of {family}"
            (line,) = axes.plot([100 * p[0] for p in known], [p[2] for p in known], "o-", label=label)
            whole = [100 * p[1] for p in known]
            axes.plot(whole, [p[2] for p in known], "o:", color=line.get_color(), fillstyle="none")
        for index, rival in enumerate(rivals):
            value = found.mean(rival, steps)
            if value is not None:
                mark, colour = "Dsv"[index % 3], f"C{5 + index}"
                axes.plot([100], [max(value, LOWEST)], mark, color=colour, label=f"{rival}: every parameter")
                if value < LOWEST:
                    at = (100, LOWEST + 0.008 * (index + 1))
                    axes.annotate(f"{100 * value:.1f} %", at, ha="right", color=colour, fontsize=9)
        when = f"after {steps} steps" if steps else "at step 0"
        axes.set(xscale="log", xlabel="% of the ancestor's parameters", title=f"{when}, mean of {_sizes(found)}")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xticks([0.5, 1, 2, 5, 10, 20, 50, 100])
        if max(axes.get_ylim()) > LOWEST:
            axes.set_ylim(LOWEST - 0.005, None)
        axes.grid(alpha=0.3)
    title = "filled: templates alone; hollow: with scalers and small tensors"
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, title=title)
    panels[0].set_ylabel("test accuracy")
    return figure


def _families(shares: Mapping[str, tuple[float, float]]) -> dict[str, list[tuple[str, tuple[float, float]]]]:
    """Variants that differ in the number of templates alone, by block: named ``wave_n..`` and ``wave_b.._n..``; our
    method itself, or the short one, belongs to the former. ``.._aux`` of a longer stage 1 are apart."""
    result: dict[str, list[tuple[str, tuple[float, float]]]] = {}
    for method, both in shares.items():
        named = re.fullmatch(rf"{OURS}(?:_short)?(?:_b(\d+))?(?:_n(?:\d+|all))?(_aux)?", method)
        if named is not None:
            block = f"{named[1]}x{named[1]}" if named[1] else "the default block"
            block += ", the auxiliary model in every batch" if named[2] else ""
            result.setdefault(block, []).append((method, both))
    return result


def _sizes(found: Found) -> str:
    names = [s.title for s in found.shared]
    return ", ".join(names) if len(names) <= 5 else f"{len(names)} sizes"


def ablation_figure(found: Found, changed: Mapping[str, str]) -> Figure | None:
    """A bar a variant and number of steps, mean over the study's sizes, in the file's order; ``changed`` says what a
    variant changes."""
    methods = [m for m in found.study.methods if any(found.mean(m, s) is not None for s in found.steps)]
    if not methods:
        return None
    figure, axes = plt.subplots(figsize=(11, 0.42 * len(methods) + 1.2), layout="constrained")
    height = 0.8 / len(found.steps)
    for index, steps in enumerate(found.steps):
        known = [(place, value) for place, m in enumerate(methods) if (value := found.mean(m, steps)) is not None]
        places = [place + (index - (len(found.steps) - 1) / 2) * height for place, _ in known]
        bars = axes.barh(places, [v for _, v in known], height, label=f"after {steps} steps" if steps else "at step 0")
        axes.bar_label(bars, [f"{100 * v:.1f}" for _, v in known], fontsize=8, padding=2)
    labels = [f"{m}: {short}" if (short := _short(changed.get(m, ""))) else m for m in methods]
    axes.set_yticks(range(len(methods)), labels)
    axes.set(xlabel=f"test accuracy, mean of {_sizes(found)}", xlim=(FLOOR, None), ylim=(len(methods) - 0.4, -0.6))
    axes.grid(axis="x", alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False)
    return figure


def _short(text: str) -> str:
    """Settings without the sections that they are in."""
    text = re.sub(r"\b(templates|distil|initialise|evaluate|recipe)\.", "", text)
    return text if len(text) <= 60 else f"{text[:57]}..."
