"""Every chart of the committed results: no text is cut off, none lies on another, every method has a name."""

import json
import shutil
from itertools import combinations

import pytest
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from pipelines.config.experiment import load
from pipelines.report.comparison import sections
from pipelines.report.drawing import NAMES, legend, new_figure, readable
from pipelines.report.evidence import Evidence
from pipelines.report.run_page import picture
from tests.pipelines.support import ROOT
from wave.baselines import BASELINES

EDGE = 1.0
"""Pixels that rounding may put outside."""


def texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """What is written, with its box in pixels; a tick outside its axis is not drawn."""
    figure.draw_without_rendering()
    hidden = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
        if not (axes.get_visible() and axes.axison and _inside(axis, tick.get_loc()))
    }
    found = [text for text in figure.findobj(Text) if id(text) not in hidden]
    return [(t.get_text(), t.get_window_extent()) for t in found if t.get_visible() and t.get_text().strip()]


def _inside(axis: Axis, at: float) -> bool:
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    return low - slack <= at <= high + slack


def clipped(figure: Figure) -> list[str]:
    """Text that reaches over the figure's edge."""
    box = figure.bbox
    return [
        text
        for text, own in texts(figure)
        if own.x0 < box.x0 - EDGE or own.y0 < box.y0 - EDGE or own.x1 > box.x1 + EDGE or own.y1 > box.y1 + EDGE
    ]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes overlap by more than a hair."""
    boxes = [(text, own.padded(-2)) for text, own in texts(figure) if own.width > 4 and own.height > 4]
    return [(a, b) for (a, one), (b, other) in combinations(boxes, 2) if one.overlaps(other)]


@pytest.fixture(scope="module")
def charts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figure]:
    """Those of the comparison on Fashion-MNIST, structure included, and of both committed runs."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(ROOT / "benchmarks/artifacts/fashion-mnist", folder, dirs_exist_ok=True)
    evidence = Evidence(load(ROOT / "pipelines/experiments/fashion_mnist_comparison.toml", [f"output={folder}"]))
    found = {name: figure for part in sections(evidence) for name, _, figure in part.figures}
    for name in ("digits_run", "fashion_mnist_run"):
        data = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
        found[name] = picture(data, data["sizes"])
    return found


def test_there_is_a_chart_of_every_sort(charts: dict[str, Figure]) -> None:
    assert charts.keys() >= {"full_steps", "share_curve", "cost", "ablations_variants", "templates", "layers"}


def test_no_text_is_cut_off(charts: dict[str, Figure]) -> None:
    assert not {name: cut for name, figure in charts.items() if (cut := clipped(figure))}


def test_no_text_lies_on_another(charts: dict[str, Figure]) -> None:
    rotated = {"full_steps", "long_steps"}  # boxes of turned labels are larger than what is in them
    found = {name: pairs for name, figure in charts.items() if name not in rotated and (pairs := overlapping(figure))}
    assert not found


def test_the_check_sees_a_legend_that_is_too_wide() -> None:
    figure, (axes,) = new_figure(1, 1, 3.0)
    for index in range(6):
        axes.plot([0, 1], [index, 1], label=f"a method with quite a long name, number {index}")
    legend(figure, [axes])
    assert not clipped(figure)
    figure.legends[0].remove()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    assert clipped(figure)


def test_every_method_has_a_name_for_readers() -> None:
    assert not BASELINES.keys() - NAMES.keys()
    assert readable("wave") == "ours (WAVE)" and readable("wave_kl_only") == "ours, kl only"
