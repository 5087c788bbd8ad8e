"""Where a result comes from: the commit of the code, and the machine."""

import os
import platform
import subprocess
from pathlib import Path

import torch

from pipelines.config.machine import cpus
from pipelines.runtime.ray_session import ROOT


def git_commit() -> str:
    """The checkout's commit, "-dirty" behind it when files were changed since; else "unknown".

    A job's upload is no checkout and is told by WAVE_GIT_COMMIT.
    """
    if told := os.environ.get("WAVE_GIT_COMMIT"):
        return told
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        done = subprocess.run(command, cwd=Path(ROOT), capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def machine() -> str:
    """What results say of the machine that made them."""
    gpus = "".join(f", {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))
    return f"{platform.machine()}, {cpus()} CPUs{gpus}"
