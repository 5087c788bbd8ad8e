"""``pipelines`` refuses to start where ``wave`` is Python's audio module, and says what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=600)


def test_from_the_root_it_imports():
    done = python("import pipelines", ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("code", "folder"),
    [
        pytest.param(
            "import sys; sys.path.remove(''); import wave; sys.path.insert(0, ''); import pipelines", "", id="preloaded"
        ),
        pytest.param("import sys; sys.path.append('..'); import pipelines", "tests", id="sub-folder"),
    ],
)
def test_the_wrong_wave_is_named_with_what_to_do(code: str, folder: str):
    done = python(code, ROOT / folder)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: 'wave' is "), done.stderr
    assert "wave.py" in last
    assert f"cd {ROOT} && python -m pipelines" in last
