"""Options that several commands share."""

from collections.abc import Callable

import click
from click.decorators import FC

FILE = click.argument("file", type=click.Path())
SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="A.B=VALUE",
    help="Override one setting; may be repeated.",
)
TRACKING = click.option("--tracking-uri", default="", help="MLflow store; default: mlflow.db in this folder.")
NAME = click.option("--registered-model", default=None, help="Only this registered model.")


def with_options(*options: Callable[[FC], FC]) -> Callable[[FC], FC]:
    """One decorator for several options, in the order in which ``--help`` shows them."""

    def apply(function: FC) -> FC:
        for option in reversed(options):
            function = option(function)
        return function

    return apply
