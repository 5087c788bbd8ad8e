"""The commands that work on an experiment: run and its stages, plan, evaluate, report.

Each imports what it needs when it runs: ``--help`` needs none of torch, Ray and MLflow.
"""

import click

from pipelines.cli.options import FILE, SET, with_options


@click.command()
@with_options(FILE, SET)
def run(file: str, overrides: tuple[str, ...]) -> int:
    """Do everything that experiment FILE asks for: data, ancestor, templates, sizes, registry."""
    return _run(file, overrides)


@click.command()
@with_options(FILE, SET)
def ancestor(file: str, overrides: tuple[str, ...]) -> int:
    """Obtain the ancestor of experiment FILE: read it, or train it here."""
    return _run(file, overrides, until="ancestor")


@click.command()
@with_options(FILE, SET)
def distil(file: str, overrides: tuple[str, ...]) -> int:
    """Stage 1: distil the ancestor of experiment FILE into weight templates."""
    return _run(file, overrides, until="distil")


@click.command()
@with_options(FILE, SET)
def initialise(file: str, overrides: tuple[str, ...]) -> int:
    """Stage 2: initialise and register every size of experiment FILE; what is missing before it is done first."""
    return _run(file, overrides)


def _run(file: str, overrides: tuple[str, ...], until: str = "initialise") -> int:
    from pipelines.stages.run import run as run_experiment

    return run_experiment(file, overrides, until=until)


@click.command()
@with_options(FILE, SET)
def evaluate(file: str, overrides: tuple[str, ...]) -> int:
    """Compare methods by FILE's [evaluate]: every method, size and seed under one budget, resumable."""
    from pipelines.comparison.evaluate import evaluate as run_evaluation

    return run_evaluation(file, overrides)


@click.command()
@with_options(FILE, SET)
def plan(file: str, overrides: tuple[str, ...]) -> int:
    """Say what experiment FILE will cost: sizes, parameters, operations, and minutes on this machine."""
    from pipelines.comparison import forecast

    return forecast.plan(file, overrides)


@click.command()
@click.argument("run", type=click.Path())
@with_options(SET)
@click.option("--into", default=None, metavar="FILE.md", help="Write a comparison's tables to this file too.")
def report(run: str, overrides: tuple[str, ...], into: str | None) -> None:
    """Make pictures and an HTML page of the results in folder RUN (an experiment's output).

    Of a comparison too: RUN is the folder that `evaluate` wrote, or the experiment's FILE.toml, whose committed
    results are enough.
    """
    from pipelines.report import report as make_report

    for page in make_report(run, overrides, into):
        click.echo(str(page))
