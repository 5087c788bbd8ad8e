"""A run's results as a picture and one self-contained HTML page: what every size can do, before and after training."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from pipelines.report.figures import png
from pipelines.runtime.files import write_bytes, write_text
from pipelines.stages.results import COLUMNS
from wave.errors import WaveError

SERIES = (
    ("accuracy_before", "initialised, no training", "o", "tab:blue"),
    ("accuracy_after", "initialised, scalers trained", "s", "tab:green"),
    ("accuracy_scratch", "random weights, same steps", "x", "tab:gray"),
)


def run_page(folder: str) -> Path:
    """Write ``report.html`` and ``report.png`` into a run's folder and return the page's path.

    Raises :class:`WaveError` when the folder holds no results.
    """
    root = Path(folder)
    try:
        data = json.loads((root / "results.json").read_text())
        rows: list[Mapping[str, Any]] = data["sizes"]
        if not rows:
            raise WaveError(f"{root}/results.json holds no sizes; run the experiment first")
        image = png(picture(data, rows), dpi=120)
        text = page(data, rows, image)
    except OSError as error:
        raise WaveError(f"{root}/results.json: {error.strerror}; give the output folder of a finished run") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else error
        raise WaveError(f"{root}/results.json: not the results of a run ({why})") from None
    write_bytes(root / "report.png", image)
    write_text(root / "report.html", text)
    return root / "report.html"


def picture(data: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy of every size against its parameters, with the ancestor as a line."""
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for column, label, marker, colour in SERIES:
        points = [(row["parameters"], row[column]) for row in rows if row.get(column) is not None]
        if points:
            axes.scatter(*zip(*points, strict=True), label=label, marker=marker, color=colour)
    ancestor, templates = data["ancestor"], data["templates"]
    axes.axhline(
        ancestor["accuracy"], color="black", linewidth=0.8, label=f"ancestor, {ancestor['parameters']:,} parameters"
    )
    axes.set(xscale="log", xlabel="parameters of the model", ylabel="test accuracy", ylim=(0, 1))
    axes.set_title(
        f"{data['name']}: {len(rows)} sizes from templates of {templates['share']:.1%} of the ancestor's parameters"
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


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
