"""``python -m pipelines``: the group of all commands, and how their errors end."""

import errno
import os
import sys
from typing import Any, NoReturn

import click

from pipelines.cli.data import data
from pipelines.cli.experiment import ancestor, distil, evaluate, initialise, plan, report, run
from pipelines.cli.models import models
from pipelines.config import proxies
from pipelines.runtime import signals
from pipelines.runtime.printable import printable


class _Commands(click.Group):
    """Errors of ours are one line and exit code 2; an interrupt is exit code 130."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        signals.catch()
        proxies.bypass(os.environ)
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "python -m pipelines"
            _fail(f"{error.format_message().rstrip('.')}; see: {command} --help")
        except click.ClickException as error:
            _fail(error.format_message())
        except OSError as error:  # a full disk, a folder removed meanwhile
            if error.filename is None and error.errno in (errno.EPIPE, errno.EIO):  # nobody reads what is printed
                signals.print_nowhere()
                sys.exit(130 if signals.hung_up() else 1)
            if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            where = f"{error.filename}: " if error.filename is not None else ""
            _fail(f"{where}{error.strerror}; the same command again continues")
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted; the same command again continues", err=True)
            sys.exit(130)
        except ValueError as error:
            if not _ours(error):
                raise
            _fail(str(error))
        sys.exit(code if isinstance(code, int) else 0)


def _ours(error: ValueError) -> bool:
    """Whether the error is one of ours, whose module is loaded then: importing it loads torch."""
    errors = sys.modules.get("wave.errors")
    return errors is not None and isinstance(error, errors.WaveError)


def _fail(text: str) -> NoReturn:
    """One line whatever is in it (a file name may hold a line break), and exit code 2."""
    click.echo(f"error: {printable(' '.join(text.split()))}", err=True)
    sys.exit(2)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """From one trained Vision Transformer to a registry of initialised Vision Transformers of any size."""


for command in (run, ancestor, distil, initialise, evaluate, plan, data, report, models):
    main.add_command(command)
