"""Attempts and exit codes of jobs, without a cluster."""

import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from ray.job_submission import JobDetails

from cluster.doctor import checks as doctor
from cluster.doctor import probe
from cluster.errors import ClusterError
from cluster.jobs.client import RUN_KEY, Jobs, attempt, exit_code, reason
from cluster.jobs.target import Target


def job(**fields: Any) -> JobDetails:
    return JobDetails(**{"type": "SUBMISSION", "entrypoint": "x", "status": "SUCCEEDED"} | fields)


@pytest.mark.parametrize(("name", "number"), [("x-1a", 1), ("x-1a-2", 2), ("x-1a-17", 17), ("x-1a-b", 1)])
def test_the_attempt_stands_in_the_submission_id(name: str, number: int) -> None:
    assert attempt(job(submission_id=name, metadata={RUN_KEY: "x-1a"})) == number


@pytest.mark.parametrize(
    ("status", "driver", "code"),
    [("SUCCEEDED", 0, 0), ("FAILED", 7, 7), ("FAILED", -9, 137), ("FAILED", None, 1), ("STOPPED", None, 143)],
)
def test_exit_codes(status: str, driver: int | None, code: int) -> None:
    assert exit_code(job(status=status, driver_exit_code=driver)) == code


@pytest.mark.parametrize(
    ("driver", "message", "line"),
    [
        (
            None,
            "runtime_env setup failed: Failed.\nERROR: no matching distribution for x==9\n",
            "ERROR: no match",
        ),
        (
            2,
            "Job entrypoint failed with exit code 2, last available logs (truncated):\nerror: lr",
            "Job entrypoint",
        ),
        (2, None, ""),
    ],
)
def test_why_a_job_failed_is_one_line(driver: int | None, message: str | None, line: str) -> None:
    text = reason(job(status="FAILED", driver_exit_code=driver, message=message))
    assert text.startswith(line) and "last available logs" not in text and "\n" not in text


@pytest.fixture
def impostor() -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives the bytes in the list to whoever asks, and its address."""
    answer: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    caller, _ = door.accept()
                    with caller:
                        caller.recv(65536)
                        caller.sendall(answer[0])

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{door.getsockname()[1]}", answer
        door.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "says",
    [
        b"{}",
        b"[]",
        b"null",
        b'{"ray_version": "2.60.0"}',
        b"<html>hi</html>",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
def test_who_is_no_ray_cluster_is_one_line(impostor: tuple[str, list[bytes]], says: bytes) -> None:
    address, answer = impostor
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    answer.append(says if says.startswith(b"SSH") else head + says)
    with pytest.raises(ClusterError, match="does not answer as a Ray cluster") as caught:
        Jobs(Target(address, "token"))
    assert "\n" not in str(caught.value)
    if says.startswith(b"SSH"):
        closed = doctor.closed(Target(address, "token"))
        assert "does not answer (SSH" in str(closed) and not closed.answers
    assert probe.mlflow(address)[1] in ("SSH-2.0-OpenSSH_9.2", "what answers there is no MLflow server")


def test_a_closed_pipe_ends_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    async def tail(_: str) -> None:
        raise BrokenPipeError

    jobs = Jobs.__new__(Jobs)
    monkeypatch.setattr(jobs, "_tail", tail, raising=False)
    with pytest.raises(BrokenPipeError):
        jobs.follow("x")


class Kept:
    """A client that keeps what was submitted as running jobs."""

    def __init__(self) -> None:
        self.jobs: list[JobDetails] = []

    def list_jobs(self) -> list[JobDetails]:
        return self.jobs

    def submit_job(self, **fields: Any) -> None:
        self.jobs.append(job(status="RUNNING", submission_id=fields["submission_id"], metadata=fields["metadata"]))


def test_two_runs_that_register_under_one_name_are_refused_whatever_they_are_called() -> None:
    jobs = Jobs.__new__(Jobs)
    jobs.target, jobs._client = Target("http://127.0.0.1:8265", ""), Kept()  # pyright: ignore
    assert jobs.submit("a-1", "a", "/out/a", "x", {}, models="shared") == ("a-1", "new", "")
    with pytest.raises(ClusterError, match="registers models of the name shared now"):
        jobs.submit("b-1", "b", "/out/b", "x", {}, models="shared")
    with pytest.raises(ClusterError, match="writes to /out/a now"):
        jobs.submit("c-1", "c", "/out/a", "x", {})
    assert jobs.submit("a-1", "a", "/out/a", "x", {}, models="shared") == ("a-1", "attached", "")
    assert jobs.submit("c-1", "c", "/out/c", "x", {}) == ("c-1", "new", "")


class Breaking:
    """A client whose first connection to a log of three lines breaks after the second, as a forwarded port does."""

    lines = ("step 0\n", "step 1\n", "step 2\n")
    connections = 0

    async def tail_job_logs(self, submission: str) -> AsyncIterator[str]:
        self.connections += 1
        for number, line in enumerate(self.lines):
            if self.connections == 1 and number == 2:
                raise RuntimeError("closed with 1006")
            yield line

    def get_job_info(self, submission: str) -> JobDetails:
        return job(submission_id=submission, status="SUCCEEDED" if self.connections == 2 else "RUNNING")

    def get_job_logs(self, submission: str) -> str:
        return "".join(self.lines)


def test_a_lost_connection_prints_no_line_twice(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = Jobs.__new__(Jobs)
    jobs.target, jobs._client = Target("http://127.0.0.1:8265", ""), Breaking()  # pyright: ignore
    jobs.follow("x-1a")
    assert capsys.readouterr().out == "".join(Breaking.lines)
