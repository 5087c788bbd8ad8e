"""The wheel holds `wave` under a name that collides with nothing, and works away from the checkout."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str, cwd: Path, **env: str) -> str:
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | env
    done = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools writes `build/` and `*.egg-info` beside what it builds."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "setup.py", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "wave", source / "wave", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source), cwd=source)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    run(*pip, cwd=target)
    return target


def test_the_wheel_holds_the_library_and_nothing_else(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    modules = {name for name in names if name.endswith(".py")}
    expected = {
        "wave_templates/" + file.relative_to(ROOT / "wave").as_posix() for file in (ROOT / "wave").rglob("*.py")
    }
    assert modules == expected
    metadata = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    assert {name.split("/")[0] for name in names} == {"wave_templates", metadata}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_whatever_it_is_built_with_has_an_upper_bound():
    text = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = [line for lines in text["project"]["optional-dependencies"].values() for line in lines]
    assert all("<" in line for line in [*text["build-system"]["requires"], *extras])


def test_its_requirements_are_the_library_s_alone(wheel: Path):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [name for name in archive.namelist() if name.endswith("METADATA")]
    text = archive.read(metadata).decode()
    required = {
        re.split(r"[^A-Za-z0-9-]", line.removeprefix("Requires-Dist: "))[0]
        for line in text.splitlines()
        if line.startswith("Requires-Dist: ") and "extra ==" not in line
    }
    assert required == {"torch", "torchvision", "timm", "safetensors", "numpy"}
    assert all("<" in line for line in text.splitlines() if line.startswith("Requires-Dist: ")), (
        "every requirement has an upper bound"
    )


CODE = """
import wave                      # Python's audio module stays what it is
assert "wave_templates" not in wave.__file__
import torch
import wave_templates
from importlib.metadata import version
from wave_templates import kron
print(wave_templates.__file__)
assert version("wave-templates") == "0.1.0"
for name in wave_templates.__all__:
    assert hasattr(wave_templates, name), name
T, S = torch.randn(3, 2, 4), torch.randn(3, 5, 3)
dense = sum(torch.kron(s, t) for t, s in zip(T, S))
assert torch.allclose(kron.kron_sum(T, S), dense, atol=1e-5)
import timm
from wave_templates import Family, Resampling, TargetSpec, Templates, TemplateSpec, condense, initialise
args = dict(embed_dim=32, depth=2, num_heads=2, img_size=8, patch_size=2, in_chans=1, num_classes=10)
ancestor = timm.create_model("vit_tiny_patch16_224", **args)
auxiliary = condense(ancestor, TemplateSpec.uniform(head_dim=16, count=8))
templates = Templates.of(auxiliary, Family.of(ancestor), Resampling(), {})
model = initialise(templates, TargetSpec(embed_dim=64, depth=3)).eval()
assert type(model).__module__.startswith("timm.") and len(model.blocks) == 3
assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)
"""


def test_it_works_from_an_empty_folder(site: Path, tmp_path: Path):
    printed = run(sys.executable, "-c", CODE, cwd=tmp_path, PYTHONPATH=str(site))
    assert Path(printed.splitlines()[-1]) == site / "wave_templates" / "__init__.py"
