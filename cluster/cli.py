"""The commands of `python -m cluster`.

Exit codes: the job's own, 1 for a failed check, 2 for a mistake (one line says which), 130 for Ctrl-C.
"""

import logging
import os
import shlex
import sys
import time
from pathlib import Path

import click
from ray.job_submission import JobDetails
from rich.console import Console

from cluster.deploy import render
from cluster.doctor import checks
from cluster.errors import ClusterError
from cluster.jobs import package as pack
from cluster.jobs import submit as submission
from cluster.jobs.client import NAME_KEY, RUN_KEY, Jobs, attempt, exit_code, reason
from cluster.jobs.run_spec import check_server, check_storage
from cluster.jobs.target import Target, find, shown
from cluster.local import head as local
from cluster.local import state
from pipelines.config import local_login
from pipelines.config.local_login import state_folder

_console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)  # paths may hold [ and :
_address = click.option(
    "--address", default="", help="The cluster's dashboard, http://HOST:8265; default: the one of `up --local`."
)
_state = click.option(
    "--state",
    "folder",
    type=click.Path(path_type=Path),
    default=state_folder,
    help="Where `up --local` keeps its notes.",
)
_local = click.option(
    "--local", "here", is_flag=True, help="On this machine (the only place that this command manages)."
)
_storage = click.option(
    "--storage",
    default="",
    help="Absolute folder that every node sees, for relative paths; default for a local cluster: here.",
)
_mlflow = click.option("--mlflow", default="", help="MLflow's address as the nodes see it.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run experiments on a Ray cluster."""


def main() -> None:
    """Run the command; a person's mistake is one line and exit code 2."""
    logging.disable(logging.WARNING)  # Ray's uploads and closed connections are not news here
    try:
        cli(prog_name="python -m cluster", standalone_mode=False)
    except ClusterError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        help_ = f"; see: {context.command_path} --help" if context else ""
        click.echo(f"error: {error.format_message().rstrip('.')}{help_}", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:  # the reader has gone, as in `logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value of FILE; may be repeated."
)
@_address
@_state
@_storage
@_mlflow
@click.option("--follow", is_flag=True, help="Print the log as it grows; exit with the job's exit code.")
@click.option("--root", type=click.Path(path_type=Path), default=Path(), help="The checkout to upload; default: here.")
@click.option("--include", multiple=True, metavar="PATH", help="Upload this too (below --root); may be repeated.")
@click.option("--limit-mib", default=pack.LIMIT_MIB, show_default=True, help="Refuse to upload more.")
@click.option(
    "--requirements", type=click.Path(path_type=Path), help="Pinned packages to install; default: the nodes have all."
)
def submit(
    file: Path,
    overrides: tuple[str, ...],
    address: str,
    folder: Path,
    storage: str,
    mlflow: str,
    follow: bool,
    root: Path,
    include: tuple[str, ...],
    limit_mib: float,
    requirements: Path | None,
) -> None:
    """Run FILE as a job; the same run again attaches to it or continues it."""
    target = find(address, folder)
    request = submission.Request(file, overrides, storage, mlflow, root, include, limit_mib, requirements)
    job = submission.submit(request, target)
    how = "submitted; it continues the run" if job.how == "again" else "submitted"
    how = "runs already; nothing was submitted" if job.how == "attached" else how
    _console.print(f"cluster    {shown(target.address)} ({target.why})\njob        {job.id} ({how})")
    if job.how != "attached":
        _console.print(f"upload     {pack.megabytes(job.size)} in {job.files} files")
    _console.print(f"output     {job.output}\ndashboard  {target.address}/#/jobs/{job.id}\nMLflow     {job.mlflow}")
    if follow:
        _follow(Jobs(target), job.id, address, folder)
    else:
        _console.print(f"follow     {_again('logs', job.id, address, folder)} --follow")


def _find(address: str, folder: Path) -> Target:
    """The cluster that is meant; where the environment had a say in it, one line on stderr says what was decided."""
    target = find(address, folder)
    if "$" in target.why or "=" in target.why:
        click.echo(f"cluster: {shown(target.address)} ({target.why})", err=True)
    return target


def _again(command: str, job: str, address: str, folder: Path) -> str:
    given = ["--address", address] if address else []
    given += ["--state", str(folder.absolute())] if folder != state_folder() else []
    return f"python -m cluster {shlex.join([command, job, *given])}"


def _follow(jobs: Jobs, job: str, address: str, folder: Path) -> None:
    try:
        ended = jobs.follow(job)
    except KeyboardInterrupt:
        click.echo(f"\n{job} goes on. Come back with:  {_again('logs', job, address, folder)} --follow", err=True)
        click.echo(f"Stop it with:  {_again('stop', job, address, folder)}", err=True)
        sys.exit(130)
    _console.print(_line(ended))
    if exit_code(ended) and ended.driver_exit_code is None and (why := reason(ended)):  # it never ran: no log says why
        _console.print(why)
    sys.exit(exit_code(ended))


def _line(job: JobDetails) -> str:
    begun = (job.start_time or 0) / 1000
    seconds = ((job.end_time / 1000) if job.end_time else time.time()) - begun if begun else 0.0
    code = f" (exit code {exit_code(job)})" if job.status.is_terminal() and exit_code(job) else ""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(begun)) if begun else "not started"
    number = f" try {attempt(job)}" if RUN_KEY in (job.metadata or {}) else ""
    return f"{job.submission_id}  {job.status.value}{code}  {since}  {seconds:.0f} s{number}"


@cli.command()
@click.argument("job", default="")
@_address
@_state
def status(job: str, address: str, folder: Path) -> None:
    """How JOB (a submission, a run or its name; by default the latest job) stands."""
    found = Jobs(_find(address, folder)).find(job)
    _console.print(_line(found))
    if found.status.is_terminal() and exit_code(found) and (why := reason(found)):
        _console.print(why)


@cli.command()
@click.argument("job", default="")
@click.option("--follow", is_flag=True, help="Go on until the job ends; exit with its exit code.")
@_address
@_state
def logs(job: str, follow: bool, address: str, folder: Path) -> None:
    """Print the log of JOB (a submission, a run or its name; by default the latest job)."""
    jobs = Jobs(_find(address, folder))
    name = str(jobs.find(job).submission_id)
    if follow:
        _follow(jobs, name, address, folder)
    click.echo(jobs.logs(name), nl=False)


@cli.command()
@click.argument("job")
@_address
@_state
def stop(job: str, address: str, folder: Path) -> None:
    """End JOB; the run saves its state and continues when it is submitted again."""
    jobs = Jobs(_find(address, folder))
    _console.print(_line(jobs.stop(str(jobs.find(job).submission_id))))


@cli.command("list")
@_address
@_state
def list_(address: str, folder: Path) -> None:
    """The jobs of the cluster, oldest first."""
    jobs = Jobs(_find(address, folder)).list()
    for job in jobs:
        name = (job.metadata or {}).get(NAME_KEY, "-")
        _console.print(f"{_line(job)}  {name}")
    if not jobs:
        _console.print("no jobs")


@cli.command()
@_local
@_state
@click.option("--num-cpus", type=click.IntRange(0), help="CPUs that Ray may use; default: all.")
def up(here: bool, folder: Path, num_cpus: int | None) -> None:
    """Start a Ray head with a token and an MLflow server on this machine."""
    _only_local(here, "up")
    began = local.up(folder, num_cpus)
    _console.print(f"dashboard  {began.services['ray'].url}\nMLflow     {began.services['mlflow'].url}")
    login = folder.absolute() / local_login.FILE
    _console.print(f"login      for MLflow in a browser: user {local_login.USER}, the password is in {login}")
    _console.print(f"token      in {state.token_file(folder)} (the commands here find it)")


@cli.command()
@_local
@_state
def down(here: bool, folder: Path) -> None:
    """End exactly the processes that `up --local` and its jobs started."""
    _only_local(here, "down")
    _console.print(f"ended {count} processes" if (count := local.down(folder)) else "nothing was up")


def _only_local(here: bool, command: str) -> None:
    if not here:
        raise ClusterError(f"say `{command} --local`; for Kubernetes and rented machines see docs/guides/cluster.md")


@cli.command()
@_address
@_state
@_storage
@_mlflow
def doctor(address: str, folder: Path, storage: str, mlflow: str) -> None:
    """Check the cluster, one line a check; exit code 1 when one fails."""
    target = _find(address, folder)
    server = mlflow or target.mlflow or os.environ.get("MLFLOW_TRACKING_URI", "")
    place = check_storage(storage or (str(Path.cwd()) if target.local else ""))
    failed = 0
    for check in checks.examine(target, place, server and check_server(server)):
        _console.print(str(check))
        failed += bool(check.fix)
    sys.exit(1 if failed else 0)


@cli.command("render")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("deploy"), show_default=True, help="Folder to write to."
)
@click.option(
    "--values", type=click.Path(path_type=Path), default=render.VALUES, help="Default: cluster/deploy/values.toml."
)
@click.option(
    "--root", type=click.Path(path_type=Path), default=Path(), help="The checkout that is run; default: here."
)
def render_(out: Path, values: Path, root: Path) -> None:
    """Write the files for Kubernetes and rented machines from one file of values."""
    for file in render.write(values, out, root):
        _console.print(str(file))
