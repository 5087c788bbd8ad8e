"""What the chaos tests share: a run in a process of its own, what it has finished, and what must be there at last."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mlflow

import pipelines  # noqa: F401 (sets Ray to ask for a token, before a test imports Ray)
from cluster.local import processes
from tests.pipelines.support import ROOT, tiny

SIZES = ("d032-l02", "d048-l02", "d032-l03", "d048-l03")
LONGER = (
    *("ancestor.recipe.steps=120", "distil.recipe.steps=240", "initialise.recipe.steps=240"),
    *("initialise.recipe.log_every=20", "initialise.compare_scratch=false"),
)
"""Long enough to be hit in the middle."""
PATIENCE = 300.0
"""Seconds that any step of a run may take on a slow machine."""


def until(what: Callable[[], object], why: str, seconds: float = PATIENCE) -> None:
    """Wait until ``what()`` is true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {why}"
        time.sleep(0.05)


@dataclass
class Driver:
    """``python -m pipelines run`` in ``folder``; its whole family of processes ends with the block."""

    folder: Path
    process: "subprocess.Popen[bytes]"
    log: Path
    mark: str
    roots: dict[int, str] = field(default_factory=dict)

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, pattern: str) -> bool:
        return re.search(pattern, self.text(), re.M) is not None

    def wait_for(self, pattern: str) -> None:
        """Wait for a line; fails at once when the run ends without it."""
        until(lambda: self.says(pattern) or self.process.poll() is not None, f"{pattern!r} in {self.text()}")
        assert self.says(pattern), self.text()

    def named(self, prefix: str) -> list[int]:
        """The run's living processes whose title begins so, as ``ray::RayTrainWorker``."""
        found = []
        for process in processes.family(self.mark, self.roots):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(prefix.encode()):
                    found.append(process.pid)
        return found

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    def ended(self, seconds: float = 2 * PATIENCE) -> int:
        """The exit code; no traceback may be in what was printed."""
        code = self.process.wait(seconds)
        assert "Traceback" not in self.text(), self.text()
        return code

    def errors(self) -> list[str]:
        return [line for line in self.text().splitlines() if line.startswith("error:")]


@contextlib.contextmanager
def driver(folder: Path, *overrides: str, file: str = "", **environment: str) -> Iterator[Driver]:
    """Start a run of the small demo (with ``overrides``) in ``folder``."""
    mark = os.urandom(8).hex()
    plain = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    plain |= {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "OMP_NUM_THREADS": "1", processes.MARK: mark, **environment}
    log = folder / f"{mark}.log"
    arguments = tiny(*LONGER, *overrides)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines", "run", *([file] if file else arguments[:1]), *arguments[1:]],
            cwd=folder, env=plain, stdout=output, stderr=output, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        )  # fmt: skip
    made = Driver(folder, process, log, mark, {process.pid: processes.started(process.pid) or ""})
    try:
        yield made
    finally:
        processes.end(mark, made.roots, patience=0.2)
        process.wait()


def run(folder: Path, *overrides: str, **environment: str) -> Driver:
    """A whole run that has to end well."""
    with driver(folder, *overrides, **environment) as whole:
        assert whole.ended() == 0, whole.text()
    return whole


def finished(folder: Path) -> dict[str, int]:
    """Each part that a run has recorded as done, and when its weights were written."""
    output = folder / "runs/digits"
    found = {}
    for record in (output / "ancestor.json", output / "templates.json", *(output / "models").glob("d*.json")):
        if record.is_file():
            weights = next(record.with_suffix("").glob("*.safetensors"))
            found[f"{record.parent.name}/{record.stem}"] = weights.stat().st_mtime_ns
    return found


def until_stage_2(reference: Path, folder: Path) -> None:
    """Give ``folder`` the data, ancestor and templates of the reference, as if a run had just come so far."""
    shutil.copytree(reference / "data", folder / "data")
    for name in ("ancestor", "templates"):
        shutil.copytree(reference / "runs/digits" / name, folder / "runs/digits" / name)
        shutil.copy2(reference / f"runs/digits/{name}.json", folder / f"runs/digits/{name}.json")


@dataclass
class Row:
    """A line of the table: how often the fault was tried, what was lost, what was done twice."""

    fault: str
    tried: int
    lost: list[str]
    twice: list[str]


def compare(
    folder: Path, before: dict[str, int], uri: str = "", sizes: tuple[str, ...] = SIZES
) -> tuple[list[str], list[str]]:
    """What is lost of the planned sizes (in the registry or on disk), and what finished work was done twice.

    ``before`` is :func:`finished` at the time of the fault.
    """
    client = mlflow.MlflowClient(uri or f"sqlite:///{folder}/mlflow.db")
    aliases = client.get_registered_model("digits").aliases
    versions = client.search_model_versions("name = 'digits'")
    written = {int(v.version): v for v in versions}
    lost = [name for name in sizes if name not in aliases or int(aliases[name]) not in written]
    unplanned = sorted(set(aliases) - set(sizes))
    assert not unplanned, unplanned
    now = finished(folder)
    twice = [name for name, when in before.items() if now.get(name) != when]
    twice += [f"version {v}" for v in written if v not in {int(n) for n in aliases.values()}]
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000)
    keys = [run.data.tags["wave.key"] for run in runs if "wave.key" in run.data.tags]
    twice += sorted({f"run {key}" for key in keys if keys.count(key) > 1})
    results = json.loads((folder / "runs/digits/results.json").read_text())
    assert [row["size"] for row in results["sizes"]] == [name for name in sizes if name not in lost]
    return lost, twice


def different(folder: Path, reference: Path, sizes: tuple[str, ...] = SIZES) -> list[str]:
    """The sizes whose weights are not the reference's bit for bit, as the registry's own copy has them."""
    wrong = []
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    for name in sizes:
        wanted = (reference / f"runs/digits/models/{name}/model.safetensors").read_bytes()
        source = client.get_model_version_by_alias("digits", name).source
        assert source
        copy = client.get_logged_model(source.removeprefix("models:/")).artifact_location.removeprefix("file://")
        kept = (folder / f"runs/digits/models/{name}/model.safetensors", Path(copy) / "model.safetensors")
        if any(not path.is_file() or path.read_bytes() != wanted for path in kept):
            wrong.append(name)
    return wrong
