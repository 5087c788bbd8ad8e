"""Tables and numbers on the console: plain text unless it is a terminal."""

import click
from rich import box
from rich.console import Console
from rich.table import Table

from wave.progress import Metrics


def plain_table(*names: str) -> tuple[Console, Table]:
    """A console and a table that are plain text, without colours or boxes, when not on a terminal."""
    console = Console(width=None if Console().is_terminal else 130, highlight=False, markup=False, emoji=False)
    table = Table(box=box.HEAVY_HEAD if console.is_terminal else None)
    for name in names:
        table.add_column(
            name, justify="left" if name in ("size", "stage", "method", "model", "registry alias") else "right"
        )
    return console, table


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def scaled(value: float) -> tuple[float, str]:
    """A number below 1,000 and the letter of what it counts, "" for ones."""
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return value / limit, letter
    return value, ""


def short_number(value: float) -> str:
    number, letter = scaled(value)
    return f"{number:.1f}{letter}" if letter else str(value)


def say(line: str) -> None:
    """Print one line of progress at once."""
    click.echo(line)


def line(what: str, metrics: Metrics) -> str:
    """``stage 1: step 200/600, loss 0.402, 310 images/s, 85 s left``."""
    return (
        f"{what}: step {metrics['step']}/{metrics['steps']}, loss {metrics['loss']:.3f}, "
        f"{metrics['images_per_second']:.0f} images/s, {metrics['seconds_left']:.0f} s left"
    )
