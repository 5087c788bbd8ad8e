"""The commands that look at the registry; each imports what it needs when it runs."""

from pathlib import Path

import click

from pipelines.cli.options import NAME, TRACKING, with_options


@click.group()
def models() -> None:
    """Look at the registry: list, show, pull."""


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
        click.echo(f"{key}: {value}")
    click.echo(row.description)


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
