"""Charts of a comparison: training curves, total cost, accuracy against the share of parameters, variants."""

import json
import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, ScalarFormatter

from pipelines.comparison.cells import OURS, is_ours
from pipelines.config.experiment import Experiment
from pipelines.report.cost import DIRECT, UNITS, Cost
from pipelines.report.drawing import COLOURS, PER_CENT, legend, new_figure, per_cent, readable
from pipelines.report.evidence import Evidence, StudyEvidence
from pipelines.runtime.console import scaled
from wave.spec import TargetSpec

MOST_CURVES = 6
STYLES = [(colour, line) for line in ("-", "--", ":") for colour in COLOURS]
"""Colour and line of each method's curve."""
FLOOR, ENOUGH = 0.5, 0.7
"""Curves that end above the latter are drawn from the former up, where they differ."""
MOST_ALONE = 2
SHARES = (1, 2, 5, 10, 20, 50, 100)


def curves(evidence: Evidence, found: StudyEvidence) -> Figure | None:
    """Accuracy against steps at the sizes of a study of several methods, ours among them, unless it has too many sizes.

    Direct training is drawn beside it. Each line is one schedule, read off while it ran.
    """
    methods, few = found.study.methods, len(found.cells.sizes) <= MOST_CURVES and len(found.steps) > 2
    if found not in evidence.plain or OURS not in methods or len(methods) < 2 or not few:
        return None
    direct = max(evidence.only(DIRECT), key=lambda f: (max(f.steps), len(f.study.seeds)), default=None)
    direct = None if DIRECT in methods else direct
    sizes = sorted(found.cells.sizes, key=lambda s: (s.embed_dim, s.depth))
    columns = min(2, len(sizes))
    lines = -(-len(sizes) // columns)
    figure, panels = new_figure(lines, columns, 2.7 * lines + 1.2, sharey=True, sharex=True)
    for axes, size in zip(panels, sizes, strict=False):
        for index, method in enumerate(methods):
            width = 3.0 if is_ours(method) else 1.5
            _curve(axes, found, method, size, readable(method), *STYLES[index % len(STYLES)], width)
        if direct is not None and size in direct.cells.sizes:
            _curve(axes, direct, DIRECT, size, f"from scratch, {readable(DIRECT)}", "black", "-", 1.5)
        axes.set_xscale("function", functions=(lambda x: np.abs(x) ** 0.5, lambda x: x**2))
        axes.set_title(_named(size))
        axes.set_xlim(left=0)
        ticks: list[int] = sorted({*found.steps, *(direct.steps if direct else [])})
        axes.set_xticks(ticks)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(axis="x", labelrotation=60, labelsize=10)
    if panels[0].get_ylim()[1] > ENOUGH:  # once, when all curves are there: the panels share this axis
        panels[0].set_ylim(FLOOR, None)
    for axes in panels[len(sizes) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        per_cent(axes)
    for axes in panels[len(sizes) - columns : len(sizes)]:  # the lowest of each column
        axes.set_xlabel("training steps, spaced by square root")
        axes.tick_params(axis="x", labelbottom=True)
    legend(figure, panels)
    return figure


def _named(size: TargetSpec) -> str:
    _, comma, rest = size.title.partition(",")
    return f"width {size.embed_dim}, depth {size.depth}{comma}{rest}"


def _curve(
    axes: Axes, found: StudyEvidence, method: str, size: TargetSpec, label: str, colour: str, line: str, width: float
) -> None:
    if method not in found.study.methods:
        return
    measured = sorted({row["steps"] for row in found.of(method, size)})
    scores = [found.score(method, size, steps) for steps in measured]
    values = [score.mean for score in scores if score is not None]
    errors = [score.spread for score in scores if score is not None]
    if not values:
        return
    axes.errorbar(
        measured, values, errors, label=label, color=colour, linestyle=line, linewidth=width, marker=".", capsize=2
    )


def cost_figure(costs: Sequence[Cost]) -> Figure:
    """Both units side by side, with the point from which ours is cheaper."""
    figure, panels = new_figure(1, len(costs), 5.0)
    for axes, cost in zip(panels, costs, strict=True):
        n = range(len(cost.sizes) + 1)
        ours, direct = ([k * sum(one) / len(cost.sizes) for k in n] for one in (cost.ours, cost.direct))
        first, second = cost.steps
        axes.plot(n, direct, color="black", label=f"from scratch, {second} steps per size")
        whole = [cost.stage1 + x for x in ours]
        axes.plot(n, whole, "tab:blue", linewidth=3, label=f"ours: stage 1, {first} steps per size")
        axes.axhline(cost.stage1, color="tab:blue", linestyle=":", label="ours: stage 1 alone")
        if cost.ancestor is not None:
            also = [cost.ancestor + x for x in whole]
            axes.plot(n, also, color="tab:blue", linestyle="--", label="ours, with the ancestor's training")
        axes.plot(n, ours, color="tab:orange", linestyle="--", label=f"no stage 1, {first} steps per size")
        even = cost.break_even()
        if even is not None and even <= len(cost.sizes):
            axes.axvline(even, color="grey", linewidth=0.8)
            axes.text(even + 0.2, 0.9, f"cheaper from {even} sizes on", transform=axes.get_xaxis_transform())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: "{:g} {}".format(*scaled(value)).strip()))
        axes.set(xlabel="number of average sizes", title=UNITS[cost.unit], ylim=(0, None), xlim=(0, None))
    panels[0].set_ylabel("total for all sizes")
    legend(figure, panels)
    return figure


def share_figure(found: StudyEvidence, experiments: Mapping[str, Experiment]) -> Figure | None:
    """Accuracy, mean over the sizes that every method reaches, against the share of the ancestor's parameters.

    Weight selection uses all of them. Scores far below ours are written at the lower edge. None for fewer than two
    numbers of templates.
    """
    shares = {row["method"]: (row["share"], row["share_all"]) for row in found.rows if "share" in row}
    families = _families([m for m in found.study.methods if m in shares], experiments)
    if all(len(methods) < 2 for methods in families):
        return None
    baselines = [m for m in found.study.methods if m.startswith("weight_selection")]
    figure, panels = new_figure(len(found.steps), 1, 3.1 * len(found.steps) + 1.4, sharex=True)
    for axes, steps in zip(panels, found.steps, strict=True):
        lowest = 1.0
        for index, methods in enumerate(families):
            means = {m: found.mean(m, steps) for m in methods}
            known = sorted((*shares[m], mean) for m, mean in means.items() if mean is not None)
            if not known:
                continue
            alone, stored_too, heights = ([point[i] for point in known] for i in range(3))
            lowest = min(lowest, *heights)
            colour, mark = COLOURS[index], "o^"[index % 2]
            label = "ours" if index == 0 else _distilled(methods[0], experiments)
            stored = "the same, with scalers and small tensors" if index == 0 else None
            axes.plot(
                [100 * share for share in alone],
                heights,
                f"{mark}-",
                color=colour,
                label=f"{label}: templates alone",
            )
            axes.plot(
                [100 * share for share in stored_too],
                heights,
                f"{mark}:",
                color=colour,
                fillstyle="none",
                markersize=10,
                label=stored,
            )
        reached = {m: found.mean(m, steps) for m in baselines}
        _baselines(axes, {m: mean for m, mean in reached.items() if mean is not None}, lowest)
        when = f"after {steps} steps" if steps else "without training"
        axes.set(xscale="log", title=f"{when}, mean of {_sizes(found)}")
        axes.set_xticks(SHARES)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        per_cent(axes)
    panels[-1].set_xlabel("parameters, in per cent of the ancestor's")
    legend(figure, panels)
    return figure


def _distilled(method: str, experiments: Mapping[str, Experiment]) -> str:
    """A family by how many images its stage 1 reads, where that differs from the default's."""
    runs = [experiments[name].distil for name in (method, "")]
    own, default = (run.passes * run.recipe.batch_size * (run.recipe.steps or 0) for run in runs)
    if not default or round(own / default) < 2:
        return readable(method)
    return f"ours, {round(own / default)} times the distillation"


def _baselines(axes: Axes, scores: Mapping[str, float], lowest: float) -> None:
    """Points at 100 %; what is far below ours is written at the lower edge instead, so that ours is not flattened."""
    near = {m: y for m, y in scores.items() if y > lowest - 0.05}
    for index, (method, y) in enumerate(near.items()):
        axes.plot([100], [y], "Ds"[index % 2], color=COLOURS[5 + index], label=readable(method))
    far = [f"{readable(m)}: {100 * y:.1f} %" for m, y in scores.items() if m not in near]
    if far:
        axes.text(0.99, 0.04, "below this chart\n" + "\n".join(far), transform=axes.transAxes, ha="right", fontsize=11)


def _families(methods: Sequence[str], experiments: Mapping[str, Experiment]) -> list[list[str]]:
    """Variants that differ in the number of templates alone, the largest family first; a few that stand alone last."""
    found: dict[str, list[str]] = {}
    for method in methods:
        own = experiments[method if method in experiments else ""]
        templates = own.templates.model_dump(mode="json", exclude={"count"})
        training = own.distil.model_dump(mode="json")
        found.setdefault(json.dumps([templates, training], sort_keys=True), []).append(method)
    alone = [methods for methods in found.values() if len(methods) == 1]
    several = sorted((methods for methods in found.values() if len(methods) > 1), key=len, reverse=True)
    return several + (alone if len(alone) <= MOST_ALONE else [])


def _sizes(found: StudyEvidence) -> str:
    names = [s.title for s in found.shared]
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} sizes"


def ablation_figure(found: StudyEvidence, changed: Mapping[str, str]) -> Figure | None:
    """One bar per variant and number of steps, mean over the study's sizes, in the file's order."""
    methods = [m for m in found.study.methods if any(found.mean(m, s) is not None for s in found.steps)]
    if not methods:
        return None
    figure, (axes,) = new_figure(1, 1, 0.55 * len(methods) + 1.6)
    height = 0.8 / len(found.steps)
    lowest = 1.0
    for index, steps in enumerate(found.steps):
        shift = (index - (len(found.steps) - 1) / 2) * height
        means = [found.mean(method, steps) for method in methods]
        values = [mean for mean in means if mean is not None]
        places = [place + shift for place, mean in enumerate(means) if mean is not None]
        lowest = min([lowest, *values])
        label = f"after {steps} steps" if steps else "without training"
        colour = COLOURS[index % len(COLOURS)]
        bars = axes.barh(places, values, height, label=label, color=colour)
        axes.bar_label(bars, [f"{100 * value:.1f}" for value in values], fontsize=9, padding=2)
    names = [_described(m, changed.get(m, "")) for m in methods]
    axes.set_yticks(range(len(methods)), names, fontsize=10)
    axes.set(xlim=(max(lowest - 0.02, FLOOR), None), ylim=(len(methods) - 0.4, -0.6))
    axes.margins(x=0.08)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(PER_CENT)
    axes.set_xlabel(f"test accuracy, mean of {_sizes(found)}")
    legend(figure, [axes])
    return figure


def _described(method: str, settings: str) -> str:
    """Its name, and below it what it sets, without the sections."""
    text = re.sub(r"\b(templates|distil|initialise|evaluate|recipe)\.", "", settings)
    text = text if len(text) <= 44 else f"{text[:41]}..."
    return f"{readable(method)}\n{text}" if text else readable(method)
