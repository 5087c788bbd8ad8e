"""The command that converts images to Parquet shards; it imports what it needs when it runs."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from pipelines.cli.options import SET, with_options

if TYPE_CHECKING:
    from pipelines.data.dataset import Dataset


@click.command()
@click.argument("kind", metavar="KIND|FILE")
@click.argument("places", nargs=-1, type=click.Path(), metavar="[SOURCE] [OUT]")
@with_options(SET)
@click.option("--image-size", type=int, default=None, help="Side in pixels that models will read (not fashion-mnist).")
@click.option("--held-out", type=click.IntRange(min=0), default=0, help="Training images that nothing trains on.")
@click.option(
    "--test-fraction",
    type=click.FloatRange(min=0, max=1, max_open=True),
    default=0.0,
    help="Share of the training images to test on, where SOURCE has no test split.",
)
@click.option("--skip-bad", type=click.IntRange(min=0), default=0, help="Images that may fail to decode.")
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
    test_fraction: float,
    skip_bad: int,
    statistics: str,
) -> None:
    """Convert images to Parquet shards: those of experiment FILE (.toml), or a data set of KIND from SOURCE to OUT.

    KIND is digits (needs no SOURCE), fashion-mnist (finds Debian's package by itself), imagefolder (reads
    SOURCE/train/CLASS/*), list (SOURCE is a CSV or JSON list of files and labels) or webdataset (SOURCE/train-*.tar).
    FILE's own [data] says everything: no SOURCE, OUT or option but --set goes with it.
    """
    from pipelines.config.experiment import load
    from pipelines.data.convert.convert import Kind, Statistics, convert, prepared

    if kind.endswith(".toml"):
        if places or image_size is not None or held_out or test_fraction or skip_bad or statistics != "imagenet":
            raise click.UsageError(f"{kind} says itself what is converted and how; change it by --set data.KEY=VALUE")
        _show(prepared(load(kind, overrides).data, click.echo))
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
        test_fraction=test_fraction,
        skip_bad=skip_bad,
        statistics=cast(Statistics, statistics),
        progress=click.echo,
    )
    _show(dataset)


def _show(dataset: "Dataset") -> None:
    from pipelines.data.dataset import SPLITS

    train, test, held = (dataset.num_rows(split) for split in SPLITS)
    apart = f", {held} held out" if held else ""
    click.echo(f"{dataset.path}: {train} training and {test} test images{apart}, {len(dataset.classes)} classes")
