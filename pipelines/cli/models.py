"""The commands that look at the registry; each imports what it needs when it runs."""

from pathlib import Path

import click

from pipelines.cli.options import NAME, TRACKING, with_options
from pipelines.runtime.printable import printable


@click.group()
def models() -> None:
    """Look at the registry: list, show, doctor, pull."""


@models.command("list")
@with_options(TRACKING, NAME)
def models_list(tracking_uri: str, registered_model: str | None) -> None:
    """Every registered size: alias, parameters, accuracies."""
    from pipelines.registry.listing import show_models
    from pipelines.registry.query import list_models
    from pipelines.registry.store import existing_store

    show_models(list_models(existing_store(tracking_uri, Path.cwd()), registered_model))


@models.command("show")
@click.argument("model", metavar="NAME@ALIAS")
@with_options(TRACKING)
def models_show(model: str, tracking_uri: str) -> None:
    """All tags and metrics of one registered model, and how to load it."""
    from pipelines.registry.query import show_model
    from pipelines.registry.store import existing_store

    name, alias = _split(model)
    row = show_model(existing_store(tracking_uri, Path.cwd()), name, alias)
    for key, value in {"version": row.version, **row.tags, **row.metrics}.items():
        click.echo(printable(f"{key}: {value}"))
    for text in row.description.split("\n"):
        click.echo(printable(text))


@models.command("doctor")
@with_options(TRACKING, NAME)
def models_doctor(tracking_uri: str, registered_model: str | None) -> None:
    """Look whether every registered file is there, and end runs that a dead process left running."""
    from pipelines.registry.query import fault, list_models
    from pipelines.registry.store import existing_store

    store = existing_store(tracking_uri, Path.cwd())
    rows = list_models(store, registered_model)
    wrong = [text for row in rows if (text := fault(store, row))]
    for text in wrong:
        click.echo(printable(text))
    click.echo(f"{len(rows)} models, {len(wrong)} of them without their files")
    if wrong:
        text = "files are missing; put them back, or run their experiments again, which uploads them"
        raise click.ClickException(text)


@models.command("pull")
@click.argument("model", metavar="NAME@ALIAS")
@click.argument("destination", type=click.Path())
@with_options(TRACKING)
def models_pull(model: str, destination: str, tracking_uri: str) -> None:
    """Copy one registered model into folder DESTINATION, ready for timm.create_model("local-dir:DESTINATION")."""
    from pipelines.registry.query import pull
    from pipelines.registry.store import existing_store

    name, alias = _split(model)
    click.echo(str(pull(existing_store(tracking_uri, Path.cwd()), name, alias, Path(destination))))


def _split(model: str) -> tuple[str, str]:
    name, mark, alias = model.partition("@")
    if not mark or not name or not alias:
        text = f"{model!r} does not name a registered model; use NAME@ALIAS, for example digits@d064-l06"
        raise click.ClickException(text)
    return name, alias
