"""The pipeline from data to registry; importing it checks that ``wave`` is this project's not Python's audio module."""

import os
import pwd
import sys
from collections.abc import MutableMapping
from importlib.util import find_spec
from pathlib import Path

# MLflow reads these when it is first imported: a run must not report home, and its bars are no progress of ours.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it prints the password in the store's address

_ROOT = Path(__file__).resolve().parent.parent


def _check_wave() -> None:
    """Raise ImportError where ``import wave`` would give, or has given, anything but the folder beside this one."""
    spec = find_spec("wave")  # what sys.modules holds, if it was imported; otherwise what the path would give
    origin = spec.origin if spec else None
    if origin is None or Path(origin).resolve() != _ROOT / "wave" / "__init__.py":
        raise ImportError(
            f"'wave' is {origin or 'not found'} here, not this project's {_ROOT / 'wave'}: Python's own audio module "
            f"has the same name and came first. Run from the checkout's root: cd {_ROOT} && python -m pipelines ...",
            name="wave",
        )


_check_wave()


def _check_interpreter() -> None:
    """End with one line where Ray and PyTorch would raise as they are imported: they format their own docstrings."""
    if sys.flags.optimize > 1:
        print(
            "error: PYTHONOPTIMIZE=2 (python -OO) takes away docstrings that Ray needs; unset it, or set it to 1",
            file=sys.stderr,
        )
        sys.exit(2)


def _name_user(environment: MutableMapping[str, str]) -> None:
    """Give a user without an entry in passwd (a container's) the name and the home that libraries ask for on import."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        environment.setdefault("HOME", "/nonexistent")
        if not any(environment.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
            environment["USER"] = f"uid{os.getuid()}"


_check_interpreter()
_name_user(os.environ)

# Ray reads this when it is imported, not when it starts; any Ray that we start asks for a token.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_task_oom_retries", "2")  # of a task that its memory monitor ends; by default without end
