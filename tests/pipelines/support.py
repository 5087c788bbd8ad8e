"""What several pipeline tests share: a tiny experiment on real digits, and the real command line in a process."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600.0
"""Seconds for what takes ten on an idle machine: to import torch, timm and MLflow from a cold and busy disk."""
SILENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "HF_HUB_OFFLINE": "1", "GIT_TERMINAL_PROMPT": "0"}
"""Environment of a process that has no reason to ask the network or a person."""
TINY = (
    *("ancestor.model_args.embed_dim=32", "ancestor.model_args.depth=2", "ancestor.model_args.num_heads=2"),
    *("ancestor.recipe.steps=80", "ancestor.recipe.warmup_steps=10"),
    *("templates.count=8", "distil.workers=2", "distil.sizes={embed_dim=[32, 48], depth=[2, 3]}"),
    *("distil.recipe.steps=80", "initialise.recipe.steps=24", "initialise.recipe.log_every=6"),
    "targets.grid={embed_dim=[32, 48], depth=[2, 3]}",
)


def command(folder: Path, *arguments: str, timeout: float = 880) -> "subprocess.CompletedProcess[str]":
    """``python -m pipelines ...`` run in ``folder``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def python(folder: Path, code: str) -> str:
    """The last line that ``code`` prints in a process that imports nothing from the checkout."""
    done = subprocess.run(
        [sys.executable, "-I", "-X", "faulthandler", "-c", textwrap.dedent(code)],
        cwd=folder,
        env=os.environ | SILENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def tiny(*overrides: str) -> list[str]:
    """Arguments of a run of the demo's own file at a size that takes seconds."""
    return [str(ROOT / "pipelines/experiments/digits.toml"), *(f"--set={o}" for o in (*TINY, *overrides))]
