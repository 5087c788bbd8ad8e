"""What is uploaded, and what is not."""

from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.jobs import package as pack


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    for name in (
        "wave/kron.py",
        "wave/__pycache__/kron.pyc",
        "wave/baselines/x.py",
        "pipelines/data.py",
        "pipelines/data/inside.py",
        "pipelines/experiments/digits.toml",
        "pipelines/.secret",
        "pyproject.toml",
        "tests/test_x.py",
        "runs/digits/model.bin",
        "data/digits/train.parquet",
        "mlflow.db",
        ".venv/bin/python",
        ".git/HEAD",
        "cluster/cli.py",
        "notes/a.txt",
    ):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return root


def names(packed: pack.Pack) -> list[str]:
    return [name for name, _, _ in packed.files]


def test_only_what_the_job_needs(checkout: Path, tmp_path: Path) -> None:
    packed, inside = pack.collect(checkout, checkout / "pipelines/experiments/digits.toml")
    assert inside == "pipelines/experiments/digits.toml"
    assert names(packed) == [
        "pipelines/data.py",
        "pipelines/data/inside.py",
        "pipelines/experiments/digits.toml",
        "pyproject.toml",
        "wave/baselines/x.py",
        "wave/kron.py",
    ]
    assert packed.size == sum(len(name) for name in names(packed))
    packed.copy(tmp_path / "job")
    assert sorted(p.relative_to(tmp_path / "job").as_posix() for p in (tmp_path / "job").rglob("*.*")) == names(packed)


def test_a_file_from_elsewhere_and_more_to_include(checkout: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "mine.toml"
    elsewhere.write_text("name = 'x'")
    packed, inside = pack.collect(checkout, elsewhere, include=["notes"])
    assert inside == "submitted/mine.toml"
    assert {"submitted/mine.toml", "notes/a.txt"} <= set(names(packed))


def test_too_much_is_refused_with_the_largest_files(checkout: Path) -> None:
    (checkout / "wave/weights.bin").write_bytes(b"0" * 3 * 2**20)
    (checkout / "pipelines/dump.npy").write_bytes(b"0" * 2**20)
    with pytest.raises(
        ClusterError, match=r"4\.0 MiB, over the limit of 2 MiB; the largest are wave/weights\.bin \(3\.0 MiB\), pip"
    ):
        pack.collect(checkout, checkout / "pyproject.toml", limit_mib=2)


def test_what_cannot_be_packed(checkout: Path, tmp_path: Path) -> None:
    file = checkout / "pyproject.toml"
    with pytest.raises(ClusterError, match="run this from the root of a checkout"):
        pack.collect(tmp_path, file)
    with pytest.raises(ClusterError, match="lies outside"):
        pack.collect(checkout, file, include=["../else"])
    with pytest.raises(ClusterError, match="no such file"):
        pack.collect(checkout, file, include=["none"])
    (tmp_path / "private").write_text("key")
    (checkout / "wave/link").symlink_to(tmp_path / "private")
    with pytest.raises(ClusterError, match="links to a file outside"):
        pack.collect(checkout, file)


def test_requirements_must_be_pinned(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("# ours\ntimm==1.0.31\n\npolars[all]==1.0 ; python_version > '3' # why\n")
    assert pack.requirements(file) == ["timm==1.0.31", "polars[all]==1.0 ; python_version > '3'"]
    wrong = ("timm", "timm>=1", "-r other.txt", "x ; python_version == '3.11'", "torch==2.*", "a @ https://x/y#==1")
    for line in (*wrong, "timm==1.0,!=1.1"):
        file.write_text(line)
        with pytest.raises(ClusterError, match="is not pinned"):
            pack.requirements(file)
    for content, message in ((b"\xff\xfe", "cannot be read"), (b"# nothing\n", "names no package")):
        file.write_bytes(content)
        with pytest.raises(ClusterError, match=message):
            pack.requirements(file)


def test_a_file_takes_the_one_that_it_extends_along(checkout: Path, tmp_path: Path) -> None:
    """The job finds it by the same relative name, wherever the two lie."""
    own = checkout / "pipelines/experiments/top.toml"
    own.write_text('extends = "digits.toml"')
    packed, inside = pack.collect(checkout, own)
    assert inside == "pipelines/experiments/top.toml" and "pipelines/experiments/digits.toml" in names(packed)
    for folder, extends in (("mine", "../base.toml"), ("", "base.toml"), ("", "deep/base.toml")):
        own, base = tmp_path / folder / "top.toml", tmp_path / folder / extends
        for file, text in ((own, f'extends = "{extends}"'), (base, "seed = 3")):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        packed, inside = pack.collect(checkout, own)
        job = tmp_path / f"job-{folder}-{len(extends)}"
        packed.copy(job)
        assert (job / inside).read_text() == f'extends = "{extends}"'
        assert ((job / inside).parent / extends).resolve().read_text() == "seed = 3"
        assert (job / inside).resolve().is_relative_to(job / "submitted")


@pytest.mark.parametrize("text", ["extends = 3", 'extends = "none.toml"', 'extends = "a\\u0000b"', "="])
def test_a_name_that_is_no_file_is_left_to_the_run(text: str, checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "top.toml").write_text(text)
    packed, inside = pack.collect(checkout, tmp_path / "top.toml")
    assert inside == "submitted/top.toml" and inside in names(packed)
