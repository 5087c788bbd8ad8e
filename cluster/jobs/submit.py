"""From a file on a laptop to a job on a cluster: pack, pin, name, send."""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cluster.constants import STOP_SECONDS
from cluster.jobs import package as pack
from cluster.jobs import run_spec as run
from cluster.jobs.client import Jobs
from cluster.jobs.target import Target


@dataclass(frozen=True)
class Request:
    """What a person asks for. `storage` and `mlflow` are empty for the local cluster's own."""

    file: Path
    overrides: tuple[str, ...] = ()
    storage: str = ""
    mlflow: str = ""
    root: Path = Path()
    include: tuple[str, ...] = ()
    limit_mib: float = pack.LIMIT_MIB
    requirements: Path | None = None


@dataclass(frozen=True)
class Submitted:
    """A job that runs: its id, how it came to be ("new", "again", "attached"), what it uses and what was uploaded."""

    id: str
    how: str
    output: str
    mlflow: str
    size: int
    files: int


def environment(tracking_uri: str, root: Path = Path()) -> dict[str, str]:
    """The variables that every process of a job gets, whatever its machine has. No secret is among them."""
    git = ["git", "-C", str(root), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False) if shutil.which("git") else None
    return {
        "WAVE_GIT_COMMIT": commit.stdout.strip() if commit and commit.returncode == 0 else "unknown",
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
        "MLFLOW_TRACKING_URI": tracking_uri,
        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
    }


def submit(request: Request, target: Target) -> Submitted:
    """Send the run to `target`, or attach to its job there. Raises ClusterError, before the upload where it can."""
    storage = run.check_storage(request.storage or (str(Path.cwd()) if target.local else ""))
    packed, name = pack.collect(request.root, request.file, request.include, request.limit_mib)
    wanted = run.load(request.file, request.overrides, request.root)
    tracking = run.tracking(wanted, request.mlflow, target.mlflow)
    # exec: the signal of `stop` reaches the run itself, not a shell before it.
    command = "exec " + run.command(name, wanted, storage, tracking)
    output = run.output(wanted, storage)
    with tempfile.TemporaryDirectory(prefix="wave-job-") as folder:
        packed.copy(Path(folder))
        runtime_env: dict[str, object] = {"working_dir": folder, "env_vars": environment(tracking, request.root)}
        if request.requirements:
            runtime_env["pip"] = pack.requirements(request.requirements)
        job, how, server = Jobs(target).submit(
            wanted.id(output),
            wanted.name,
            output,
            command,
            runtime_env,
            models=wanted.model,
            mlflow=tracking,
        )
    return Submitted(job, how, output, server, packed.size, len(packed.files))
