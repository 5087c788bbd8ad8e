"""A mistake is one line and exit code 2; the hint how to come back works as it stands."""

import logging
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobDetails

from cluster import cli
from cluster.jobs import submit, target


@pytest.fixture(autouse=True)
def _loud() -> Iterator[None]:
    yield
    logging.disable(logging.NOTSET)  # main() turns Ray's warnings off for its own process


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["cluster", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_file = tmp_path / "x.toml"
    run_file.write_text('name = "x"')
    known = ("--address", "http://127.0.0.1:1", "--storage", "/tmp", "--mlflow", "http://127.0.0.1:1")
    latin = tmp_path / "values.toml"
    latin.write_bytes('name = "größe"\n'.encode("latin-1"))
    for words, message in (
        (("logs", "x", "--address", "http://[::1", "--state", str(tmp_path)), "not that of a Jobs server"),
        (("submit", "--root", "x" * 300, str(run_file), *known), "cannot be read: File name too long"),
        (("render", "--values", str(latin), "--out", str(tmp_path / "out")), "is not text in UTF-8"),
    ):
        assert run(monkeypatch, *words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:1"])
def test_the_hint_after_submit_names_the_cluster_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    """The commands that submit prints, read back as a person types them, find the same cluster."""
    folder = tmp_path / "my state"
    monkeypatch.setenv("WAVE_CLUSTER_STATE", str(tmp_path / "default"))
    found: list[tuple[str, Path]] = []

    def find(address: str, folder: Path) -> target.Target:
        found.append((address, folder))
        return target.Target("http://127.0.0.1:1", "")

    class Interrupted:
        def __init__(self, _: target.Target) -> None: ...

        def find(self, job: str) -> JobDetails:
            return JobDetails(type="SUBMISSION", entrypoint="x", status="RUNNING", submission_id=job)

        def follow(self, _: str) -> None:
            raise KeyboardInterrupt

    def submitted(*_: Any) -> submit.Submitted:
        return submit.Submitted("x-1a", "new", "/o", "http://m", 1, 1)

    monkeypatch.setattr(cli, "find", find)
    monkeypatch.setattr(cli, "Jobs", Interrupted)
    monkeypatch.setattr(cli.submission, "submit", submitted)
    for state in ((), ("--state", str(folder))):
        given = ["--address", address] if address else []
        assert run(monkeypatch, "submit", "x.toml", *state, *given, "--follow") == 130
        hint = capsys.readouterr().err.partition("Come back with:  python -m cluster ")[2].splitlines()[0]
        assert hint.startswith("logs x-1a")
        assert run(monkeypatch, *shlex.split(hint)) == 130
        capsys.readouterr()
        assert found[-1] == found[-2]


def test_brackets_in_a_path_are_printed_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "[data]" / "[" / "x]"
    monkeypatch.setattr("sys.argv", ["cluster", "render", "--out", str(out)])
    cli.main()
    assert f"{out}/Dockerfile" in capsys.readouterr().out.splitlines()
