"""Attempts and exit codes of jobs, without a cluster."""

from typing import Any

import pytest
from ray.job_submission import JobDetails

from cluster.jobs import RUN_KEY, attempt, exit_code


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
