"""A run's results as a picture and one self-contained HTML page: what every size can do, before and after training."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from pipelines.report.drawing import legend, new_figure, per_cent, png
from pipelines.runtime.files import write_bytes, write_text
from pipelines.stages.results import COLUMNS
from wave.errors import WaveError
from wave.json_file import JsonError, read_json

SERIES = (
    ("accuracy_before", "ours, no training", {"s": 90, "color": "tab:blue"}),
    ("accuracy_after", "ours, scalers trained", {"s": 22, "color": "tab:orange", "marker": "D"}),
    ("accuracy_scratch", "random weights, as many steps", {"s": 70, "color": "tab:red", "marker": "x"}),
)
"""Column, label, marker. A later one is smaller, and hides nothing of what it is drawn on."""


def run_page(folder: str) -> Path:
    """Write ``report.html`` and ``report.png`` into a run's folder and return the page's path.

    Raises :class:`WaveError` when the folder holds no results.
    """
    root = Path(folder)
    try:
        data = read_json(root / "results.json")
        rows: list[Mapping[str, Any]] = data["sizes"]
        if not rows:
            raise WaveError(f"{root}/results.json holds no sizes; run the experiment first")
        image = png(picture(data, rows))
        text = page(data, rows, image)
    except OSError as error:
        raise WaveError(f"{root}/results.json: {error.strerror}; give the output folder of a finished run") from None
    except JsonError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else error
        raise WaveError(f"{root}/results.json: not the results of a run ({why})") from None
    write_bytes(root / "report.png", image)
    write_text(root / "report.html", text)
    return root / "report.html"


def picture(data: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy of every size against its parameters, with the ancestor as a line."""
    figure, (axes,) = new_figure(1, 1, 5.4)
    ancestor, templates = data["ancestor"], data["templates"]
    known = f"ancestor: {ancestor['accuracy']:.1%}"
    axes.axhline(ancestor["accuracy"], color="black", linewidth=1.2, linestyle="--", label=known)
    for layer, (column, label, marker) in enumerate(SERIES, 3):
        points = [(row["parameters"], row[column]) for row in rows if row.get(column) is not None]
        if points:
            heights = [y for _, y in points]
            span = f"{label}: {min(heights):.1%} to {max(heights):.1%}"
            axes.scatter(*zip(*points, strict=True), label=span, zorder=layer, **marker)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(_count))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(0.06, 0.08)
    per_cent(axes)
    axes.set_xlabel("parameters of the size")
    axes.set_title(f"{data['name']}: {len(rows)} sizes from templates of {templates['share']:.1%} of the ancestor")
    legend(figure, [axes])
    return figure


def _count(value: float, _: object = None) -> str:
    """100 k, 1 M."""
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k"


def page(data: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], image: bytes) -> str:
    """The HTML page, nothing loaded from elsewhere."""
    columns = [c for c in COLUMNS if any(row.get(c) is not None for row in rows)]
    head = "".join(f"<th>{html.escape(c.replace('_', ' '))}</th>" for c in columns)
    body = "".join("<tr>" + "".join(f"<td>{_cell(c, row.get(c))}</td>" for c in columns) + "</tr>" for row in rows)
    title = html.escape(f"{data['name']}: {len(rows)} initialised sizes")
    style = "body{font:15px sans-serif;margin:2em;max-width:75em}img{max-width:100%}"
    style += "td,th{padding:.2em .7em;text-align:right}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{style}</style><h1>{title}</h1>"
        f'<img alt="accuracy against parameters" src="data:image/png;base64,{base64.b64encode(image).decode()}">'
        f"<table><tr>{head}</tr>{body}</table></html>\n"
    )


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if column.startswith("accuracy"):
        return f"{value:.1%}"
    return f"{value:,}" if isinstance(value, int) else html.escape(str(value))
