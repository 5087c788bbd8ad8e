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


LOCK = (ROOT / "requirements.lock").read_text()


def declared() -> list[Requirement]:
    """What pyproject.toml asks for on a node."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = project["optional-dependencies"]
    extras = (*groups["pipelines"], *groups["server"], *groups["cluster"])
    return [Requirement(line) for line in (*project["dependencies"], *extras)]


def locked() -> dict[str, tuple[str, list[str]]]:
    """Package -> version and hashes of the lock; fails where a line is anything else."""
    found = {}
    body = [line for line in LOCK.splitlines() if not line.startswith("#")]
    for entry in "\n".join(body).replace(" \\\n", " ").splitlines():
        pin, *hashes = entry.split()
        name, version = pin.split("==")
        assert hashes, entry
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", text) for text in hashes), entry
        assert canonicalize_name(name) not in found
        found[canonicalize_name(name)] = version, hashes
    return found


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


def test_the_lock_has_all_that_the_project_declares_each_at_the_tested_version() -> None:
    lock, known, asked = locked(), pins(), declared()
    for requirement in asked:
        assert lock[canonicalize_name(requirement.name)][0] in requirement.specifier, requirement
    assert not everything(asked) - {*lock}, "write requirements.lock again: its first lines say how"
    # CUDA and Triton come with torch's wheel, which names them exactly; constraints.txt leaves them out.
    loose = {name for name in lock if not re.match(r"nvidia-|cuda-|triton$", name)}
    assert {name: lock[name][0] for name in loose} == {name: known[name] for name in loose}


def test_the_lock_is_for_the_python_of_the_image_and_names_no_registry() -> None:
    assert "://" not in LOCK
    assert not re.search(r"^--|index-url|find-links", LOCK, re.MULTILINE)
    command = next(line for line in LOCK.splitlines() if "uv pip compile" in line)
    assert f"--python-version {LOADED.versions.python} " in command
    assert all(f"--extra {extra} " in command for extra in ("pipelines", "server", "cluster"))
    assert "--generate-hashes" in command
    assert "-c constraints.txt" in command


def test_pip_reads_the_lock_and_takes_nothing_with_another_hash(tmp_path: Path) -> None:
    wheel = tmp_path / "Flask-3.1.3-py3-none-any.whl"
    wheel.write_bytes(b"somebody else's")
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--find-links", str(tmp_path)]
    where = ["--no-deps", "--ignore-installed", "--require-hashes", "-r", "requirements.lock"]
    lines = LOCK.split("\n")
    start = next(n for n, line in enumerate(lines) if line.startswith("flask=="))
    end = next(n for n in range(start + 1, len(lines)) if not lines[n].startswith(" "))
    (tmp_path / "requirements.lock").write_text("\n".join(lines[start:end]) + "\n")
    refused = subprocess.run(
        [*pip, *where], cwd=tmp_path, capture_output=True, text=True, check=False, env=_environment()
    )
    assert refused.returncode
    assert "HASHES" in refused.stderr, refused.stderr


def _environment() -> dict[str, str]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    return plain | {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def _build(folder: Path, lock: str) -> subprocess.CompletedProcess[str]:
    """The Dockerfile's own line, with a pip that says how it was called."""
    line = re.search(r"^RUN (grep .*?)\nCOPY", TEXT, re.MULTILINE | re.DOTALL)
    assert line
    (folder / "requirements.lock").write_text(lock)
    (folder / "pip").write_text('#!/bin/sh\necho pip "$@"\n')
    (folder / "pip").chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    command = ["sh", "-c", line[1]]
    return subprocess.run(command, cwd=folder, env={"PATH": path}, capture_output=True, text=True, check=False)


def test_the_image_installs_by_hash_and_refuses_another_ray(tmp_path: Path) -> None:
    built = _build(tmp_path, LOCK)
    assert built.stdout == "pip install --no-cache-dir --require-hashes -r requirements.lock\n"
    refused = _build(tmp_path, LOCK.replace(f"ray=={LOADED.versions.ray} ", "ray==2.59.0 "))
    assert refused.returncode == 1
    assert not refused.stdout
    assert "pins another Ray than versions.ray, 2.60.0" in refused.stderr


def test_the_base_is_pinned_by_digest_or_the_build_asks_for_one(tmp_path: Path) -> None:
    base = f"rayproject/ray:{LOADED.versions.ray}-py311"
    assert re.findall(r"^(?:FROM|ARG) .*", TEXT, re.MULTILINE) == ["ARG DIGEST", f"FROM {base}@${{DIGEST}}"]
    assert f"docker buildx imagetools inspect {base}" in TEXT
    file, digest = tmp_path / "values.toml", "sha256:" + "0a" * 32
    file.write_text(render.VALUES.read_text().replace('digest = ""', f'digest = "{digest}"'))
    pinned = image.dockerfile(values.load(file))
    assert re.findall(r"^(?:FROM|ARG) .*", pinned, re.MULTILINE) == [f"FROM {base}@{digest}"]


def test_what_is_copied_is_there_and_is_not_ignored() -> None:
    sources = [word for line in TEXT.splitlines() if line.startswith("COPY") for word in line.split()[2:-1]]
    assert {*sources} == {"requirements.lock", "wave", "pipelines"}
    assert all((ROOT / source).exists() for source in sources)
    ignored, *kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored == "*"
    assert {line[1:] for line in kept if line.startswith("!")} == {*sources}
