"""The commands: ``python -m pipelines run|data|ancestor|distil|initialise|evaluate|models|plan``."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, cast

import click
from click.decorators import FC

from pipelines.comparison import forecast
from pipelines.comparison.evaluate import evaluate as run_evaluation
from pipelines.config import proxies
from pipelines.config.experiment import load
from pipelines.data.convert.convert import Kind, Statistics, convert, prepared
from pipelines.data.dataset import SPLITS, Dataset
from pipelines.registry import query as registry
from pipelines.registry.listing import show_models
from pipelines.registry.store import existing_store
from pipelines.report import report as make_report
from pipelines.runtime.console import say
from pipelines.runtime.ray_session import interrupt
from pipelines.stages.run import run as run_experiment
from wave.errors import WaveError

FILE = click.argument("file", type=click.Path())
SET = click.option(
    "--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override one setting; may be repeated."
)
TRACKING = click.option("--tracking-uri", default="", help="MLflow store; default: mlflow.db in this folder.")
NAME = click.option("--registered-model", default=None, help="Only this registered model.")


class _Commands(click.Group):
    """Errors of ours are one line and exit code 2; an interrupt is exit code 130."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        signal.signal(signal.SIGTERM, interrupt)
        proxies.bypass(os.environ)
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except WaveError as error:
            _fail(str(error))
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "python -m pipelines"
            _fail(f"{error.format_message().rstrip('.')}; see: {command} --help")
        except click.ClickException as error:
            _fail(error.format_message())
        except OSError as error:  # a full disk, a folder removed meanwhile
            if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            where = f"{error.filename}: " if error.filename is not None else ""
            _fail(f"{where}{error.strerror}; the same command again continues")
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted; the same command again continues", err=True)
            sys.exit(130)
        sys.exit(code if isinstance(code, int) else 0)


def _fail(text: str) -> NoReturn:
    """One line whatever is in it (a file name may hold a line break), and exit code 2."""
    click.echo(f"error: {' '.join(text.split())}", err=True)
    sys.exit(2)


def _with(*options: Callable[[FC], FC]) -> Callable[[FC], FC]:
    def apply(function: FC) -> FC:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """From one trained Vision Transformer to a registry of initialised Vision Transformers of any size."""


@main.command()
@_with(FILE, SET)
def run(file: str, overrides: tuple[str, ...]) -> int:
    """Do everything that experiment FILE asks for: data, ancestor, templates, sizes, registry."""
    return run_experiment(file, overrides)


@main.command()
@_with(FILE, SET)
def ancestor(file: str, overrides: tuple[str, ...]) -> int:
    """Obtain the ancestor of experiment FILE: read it, or train it here."""
    return run_experiment(file, overrides, until="ancestor")


@main.command()
@_with(FILE, SET)
def distil(file: str, overrides: tuple[str, ...]) -> int:
    """Stage 1: distil the ancestor of experiment FILE into weight templates."""
    return run_experiment(file, overrides, until="distil")


@main.command()
@_with(FILE, SET)
def initialise(file: str, overrides: tuple[str, ...]) -> int:
    """Stage 2: initialise and register every size of experiment FILE; what is missing before it is done first."""
    return run_experiment(file, overrides)


@main.command()
@_with(FILE, SET)
def evaluate(file: str, overrides: tuple[str, ...]) -> int:
    """Compare methods by FILE's [evaluate]: every method, size and seed under one budget, resumable."""
    return run_evaluation(file, overrides)


@main.command()
@_with(FILE, SET)
def plan(file: str, overrides: tuple[str, ...]) -> int:
    """Say what experiment FILE will cost: sizes, parameters, operations, and minutes on this machine."""
    return forecast.plan(file, overrides)


@main.command()
@click.argument("kind", metavar="KIND|FILE")
@click.argument("places", nargs=-1, type=click.Path(), metavar="[SOURCE] [OUT]")
@_with(SET)
@click.option("--image-size", type=int, default=None, help="Side in pixels that models will read (not fashion-mnist).")
@click.option("--held-out", type=click.IntRange(min=0), default=0, help="Training images that nothing trains on.")
@click.option(
    "--statistics",
    type=click.Choice(["imagenet", "measured"]),
    default="imagenet",
    help="Mean and std of an imagefolder: ImageNet's, or measured on a sample.",
)
def data(
    kind: str,
    places: tuple[str, ...],
    overrides: tuple[str, ...],
    image_size: int | None,
    held_out: int,
    statistics: Statistics,
) -> None:
    """Convert images to Parquet shards: those of experiment FILE (.toml), or a data set of KIND from SOURCE to OUT.

    KIND is digits (needs no SOURCE), fashion-mnist (finds Debian's package by itself) or imagefolder (reads
    SOURCE/train/CLASS/*). FILE's own [data] says everything: no SOURCE, OUT or option but --set goes with it.
    """
    if kind.endswith(".toml"):
        if places or image_size is not None or held_out or statistics != "imagenet":
            raise click.UsageError(f"{kind} says itself what is converted and how; change it by --set data.KEY=VALUE")
        _show(prepared(load(kind, overrides).data, say))
        return
    if overrides:
        raise click.UsageError(f"--set changes an experiment FILE (.toml); {kind!r} is none")
    if not 1 <= len(places) <= 2:
        raise click.UsageError(f"{len(places)} folders given; after KIND come [SOURCE] OUT")
    *source, out = places
    dataset = convert(
        cast(Kind, kind),
        source[0] if source else "",
        Path(out),
        image_size=image_size,
        held_out=held_out,
        statistics=statistics,
        progress=say,
    )
    _show(dataset)


def _show(dataset: Dataset) -> None:
    train, test, held = (dataset.num_rows(split) for split in SPLITS)
    apart = f", {held} held out" if held else ""
    say(f"{dataset.path}: {train} training and {test} test images{apart}, {len(dataset.classes)} classes")


@main.command()
@click.argument("run", type=click.Path())
@_with(SET)
@click.option("--into", default=None, metavar="FILE.md", help="Write a comparison's tables to this file too.")
def report(run: str, overrides: tuple[str, ...], into: str | None) -> None:
    """Make pictures and an HTML page of the results in folder RUN (an experiment's output).

    Of a comparison too: RUN is the folder that `evaluate` wrote, or the experiment's FILE.toml, whose committed
    results are enough.
    """
    for page in make_report(run, overrides, into):
        say(str(page))


@main.group()
def models() -> None:
    """Look at the registry: list, show, pull."""


@models.command("list")
@_with(TRACKING, NAME)
def models_list(tracking_uri: str, registered_model: str | None) -> None:
    """Every registered size: alias, parameters, accuracies."""
    show_models(registry.list_models(existing_store(tracking_uri, Path.cwd()), registered_model))


@models.command("show")
@click.argument("model", metavar="NAME@ALIAS")
@_with(TRACKING)
def models_show(model: str, tracking_uri: str) -> None:
    """All tags and metrics of one registered model, and how to load it."""
    name, alias = _split(model)
    row = registry.show_model(existing_store(tracking_uri, Path.cwd()), name, alias)
    for key, value in {"version": row.version, **row.tags, **row.metrics}.items():
        say(f"{key}: {value}")
    say(row.description)


@models.command("pull")
@click.argument("model", metavar="NAME@ALIAS")
@click.argument("destination", type=click.Path())
@_with(TRACKING)
def models_pull(model: str, destination: str, tracking_uri: str) -> None:
    """Copy one registered model into folder DESTINATION, ready for timm.create_model("local-dir:DESTINATION")."""
    name, alias = _split(model)
    say(str(registry.pull(existing_store(tracking_uri, Path.cwd()), name, alias, Path(destination))))


def _split(model: str) -> tuple[str, str]:
    name, mark, alias = model.partition("@")
    if not mark or not name or not alias:
        raise WaveError(f"{model!r} does not name a registered model; use NAME@ALIAS, for example digits@d064-l06")
    return name, alias
