"""The image installs everything that the pipelines need, each at one version."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cluster.deploy import image, render, values

ROOT = Path(__file__).parents[3]
LOADED = values.load(render.VALUES)
TEXT = image.dockerfile(LOADED)


def installed() -> list[Requirement]:
    """What the line of the Dockerfile itself prints, run as the builder's shell does."""
    line = re.search(r"^RUN (python -c .*?) > /tmp/requirements.txt", TEXT, re.MULTILINE | re.DOTALL)
    assert line
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = subprocess.run(
        ["sh", "-c", line[1]], cwd=ROOT, env={"PATH": path}, capture_output=True, text=True, check=True
    )
    return [Requirement(requirement) for requirement in found.stdout.splitlines()]


def pins() -> dict[str, str]:
    """Package -> version in constraints.txt."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines if line)}


def everything(asked: list[Requirement]) -> set[str]:
    """The packages that `asked` brings with it, as far down as it goes."""
    seen: set[tuple[str, str]] = set()
    todo = list(asked)
    while todo:
        requirement = todo.pop()
        for extra in {"", *requirement.extras}:
            key = (canonicalize_name(requirement.name), extra)
            if key not in seen:
                seen.add(key)
                below = [Requirement(line) for line in metadata.requires(requirement.name) or []]
                todo += [r for r in below if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def test_what_the_project_declares_for_the_pipelines_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = project["optional-dependencies"]
    declared = {Requirement(line) for line in (*project["dependencies"], *groups["pipelines"], *groups["server"])}
    assert {*installed()} == declared
    assert "pip install --no-cache-dir -c constraints.txt -r /tmp/requirements.txt" in TEXT
    assert f"FROM rayproject/ray:{LOADED.versions.ray}-py311" in TEXT


def test_all_of_it_is_pinned_at_a_version_that_the_project_allows() -> None:
    known, asked = pins(), installed()
    for requirement in asked:
        assert known[canonicalize_name(requirement.name)] in requirement.specifier, requirement
    assert known["ray"] == LOADED.versions.ray
    # CUDA and Triton come with torch's wheel, which names them exactly.
    loose = {name for name in everything(asked) - {*known} if not re.match(r"nvidia-|cuda-|triton$", name)}
    assert not loose


def test_what_is_copied_is_there_and_is_not_ignored() -> None:
    sources = [word for line in TEXT.splitlines() if line.startswith("COPY") for word in line.split()[2:-1]]
    assert {*sources} == {"pyproject.toml", "constraints.txt", "wave", "pipelines"}
    assert all((ROOT / source).exists() for source in sources)
    ignored, *kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored == "*"
    assert {line[1:] for line in kept if line.startswith("!")} == {*sources}
