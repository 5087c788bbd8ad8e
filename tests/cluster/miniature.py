"""A checkout in miniature for the local cluster's tests: what its run does, the commands in it, and a bare driver."""

import contextlib
import io
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from cluster import cli
from cluster.local import processes, state

ROOT = Path(__file__).parents[2]

# A run in miniature: it counts in its output folder, and continues there when it is started again.
RUN = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
from unittest import mock
import wave
assert wave.OURS
words = sys.argv[1:]
assert words[0] == "run" and Path(words[1]).exists()
settings = dict(word.split("=", 1) for flag, word in zip(words, words[1:]) if flag == "--set")
output = Path(json.loads(settings["output"])); output.mkdir(parents=True, exist_ok=True)
assert settings["cluster.address"] == "auto" and settings["mlflow.tracking_uri"] == os.environ["MLFLOW_TRACKING_URI"]
def leave(*_):
    print("saved", flush=True); sys.exit(130)
signal.signal(signal.SIGTERM, leave)
count = output / "count"; done = int(count.read_text()) if count.exists() else 0
subprocess.Popen(["sleep", "600"], start_new_session=True)  # a child that outlives its job
for number in range(done, int(settings["steps"])):
    print("step", number, flush=True); count.write_text(str(number + 1)); time.sleep(float(settings.get("pause", "0")))
    if number == 1 and done == 0 and "fail" in settings: sys.exit(int(settings["fail"]))
"""

# What that run would use, as `python -m pipelines.config` says it.
DESCRIBED = """
import json, sys
settings = dict(word.split("=", 1) for word in sys.argv[2:])
output = settings.get("output", "runs/x")
print(json.dumps({"name": "x", "output": output, "registered_model": "x", "settings": {"name": "x", **settings}}))
"""


@dataclass
class Here:
    """A checkout in miniature and the cluster that serves it."""

    folder: Path
    state: Path
    recorded: state.State

    def command(self, *words: str) -> list[str]:
        notes = [] if "--state" in words else ["--state", str(self.state)]
        return [sys.executable, "-m", "cluster", *words, *notes]

    @property
    def environment(self) -> dict[str, str]:
        names = (
            "RAY_ADDRESS",
            "RAY_API_SERVER_ADDRESS",
            "RAY_AUTH_TOKEN",
            "RAY_AUTH_TOKEN_PATH",
            "MLFLOW_TRACKING_URI",
        )
        plain = {key: value for key, value in os.environ.items() if key not in names}
        # The commands are of this checkout, not of the miniature where they run, which has a `wave` of its own.
        return plain | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "HOME": str(self.folder)}

    def run(self, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """The command in this process: importing Ray anew for each would take most of the test's time."""
        command = self.command(*words)
        out, err, code = io.StringIO(), io.StringIO(), 0
        with (
            mock.patch.dict(os.environ, self.environment | extra, clear=True),
            mock.patch.object(sys, "argv", command[2:]),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                cli.main()
            except SystemExit as left:
                code = int(left.code or 0)
            finally:
                logging.disable(logging.NOTSET)
        return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())

    @property
    def address(self) -> str:
        return self.recorded.services["ray"].url

    @property
    def token(self) -> str:
        return state.token_file(self.state).read_text()


DRIVER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print(ray.get(ray.remote(num_cpus=0)(lambda: "it " + "ran").remote()), flush=True)
"""


def rays_own_addresses(here: Here) -> list[str]:
    """Ray's control service and its client server; whatever one asks for, the first listens on every interface."""
    roots = {service.pid: service.since for service in here.recorded.services.values()}
    found = []
    for process in processes.family(here.recorded.mark, roots):
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode().split("\0")
        for prefix, flag in (("", "--gcs_server_port="), ("ray://", "--port=")):
            if (flag == "--port=") == ("ray.util.client.server" in words):
                found += [f"{prefix}127.0.0.1:{word.removeprefix(flag)}" for word in words if word.startswith(flag)]
    return sorted(set(found))
