"""Ray's Jobs API, with our attempts: one run is one id, each try of it one submission `ID`, `ID-2`, `ID-3`...

Ray refuses a submission id that it has seen (HTTP 500, "already exists"), and deleting the ended job loses its log.
So a further try of the same run gets a suffix; the run itself continues from its output folder.
"""

import asyncio
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import requests
import urllib3
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from cluster.errors import ClusterError
from cluster.jobs.target import Target
from cluster.local.state import VARIABLES
from pipelines.config import proxies

RUN_KEY, NAME_KEY, OUTPUT_KEY = "wave_run", "wave_name", "wave_output"
MODELS_KEY, MLFLOW_KEY = "wave_models", "wave_mlflow"
# What Ray's client raises when nobody answers, and when somebody does who is no Ray: it reads his words as if he were.
_NOBODY = (ConnectionError, requests.exceptions.RequestException, aiohttp.ClientError, urllib3.exceptions.HTTPError)
_SOMEBODY_ELSE = (KeyError, TypeError, AttributeError, ValueError)
START_SECONDS = 120.0  # how long a head that answers may take to be able to start a job
DOCTOR = "wave-doctor-"  # the jobs of `doctor`; not listed. A deleted job would still be: Ray keeps its driver.


def attempt(job: JobDetails) -> int:
    """Which try of its run a job is, from 1."""
    run, name = (job.metadata or {}).get(RUN_KEY, ""), job.submission_id or ""
    suffix = re.fullmatch(r"-(\d+)", name.removeprefix(run))
    return int(suffix[1]) if suffix else 1


def exit_code(job: JobDetails) -> int:
    """The exit code of the job's own process as a shell would give it; 143 for a job that was stopped."""
    if job.status == JobStatus.SUCCEEDED:
        return 0
    if job.status == JobStatus.STOPPED:
        return 143
    code = job.driver_exit_code
    return 1 if not code else code if code > 0 else 128 - code


def reason(job: JobDetails) -> str:
    """One line that says why a job failed: of a job that never ran the last of Ray's message, which holds pip's own
    words; else the first, since the tail of the log follows it."""
    lines = [line.strip() for line in (job.message or "").splitlines() if line.strip()]
    if not lines:
        return ""
    if job.driver_exit_code is None:
        return lines[-1][:500]
    return lines[0].partition(", last available logs")[0].partition("; last available logs")[0]


@contextmanager
def _unset(names: tuple[str, ...]) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


class Jobs:
    """The jobs of one cluster. Every method raises ClusterError when the cluster refuses or cannot be reached."""

    def __init__(self, target: Target):
        self.target = target
        with self._border(_SOMEBODY_ELSE):
            # The token goes as a header: RAY_AUTH_MODE and its file are read once a process, by Ray's C++ part.
            with _unset(VARIABLES):  # Ray would ask there instead, with this token
                self._client = JobSubmissionClient(target.address, headers=dict(target.headers))
            self._client.list_jobs()  # the version request needs no token; this one does

    @contextmanager
    def _border(self, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        address = self.target.address
        try:
            yield
        except ClusterError:
            raise
        except AuthenticationError as error:
            what = "its token is wrong" if self.target.token else "it wants a token"
            raise ClusterError(
                f"{address} refuses: {what}; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token"
            ) from error
        except (*_NOBODY, *also) as error:
            if way := proxies.through(address):
                raise ClusterError(
                    f"{address} does not answer through {way}; correct that, or name the host in no_proxy"
                ) from error
            raise ClusterError(
                f"{address} does not answer as a Ray cluster; is it up, and is the address its dashboard's?"
            ) from error
        except RuntimeError as error:
            lines = str(error).strip().splitlines() or ["no reason given"]
            raise ClusterError(
                f"{address}: {lines[0][:200]} {lines[-1][:200] if len(lines) > 1 else ''}".strip()
            ) from error

    def list(self) -> list[JobDetails]:
        """Submitted jobs, oldest first."""
        with self._border(_SOMEBODY_ELSE):
            jobs = self._client.list_jobs()
        ours = [job for job in jobs if job.submission_id and not job.submission_id.startswith(DOCTOR)]
        return sorted(ours, key=lambda job: job.start_time or 0)

    def find(self, name: str) -> JobDetails:
        """The latest try of the run `name`, else the submission, else the latest run of that name; "" means any."""
        jobs = self.list()
        tries = [job for job in jobs if (job.metadata or {}).get(RUN_KEY) == name]
        exact = [job for job in jobs if job.submission_id == name]
        called = [job for job in jobs if (job.metadata or {}).get(NAME_KEY) == name]
        found = tries or exact or called or ([] if name else jobs)
        if not found:
            known = ", ".join(str(job.submission_id) for job in jobs[-3:]) or "none"
            raise ClusterError(
                f"no job {name or ''} on {self.target.address}; the latest are: {known}".replace("job  ", "job ")
            )
        return max(found, key=attempt) if tries else found[-1]

    def info(self, submission: str) -> JobDetails:
        """One job by its submission id."""
        with self._border():
            return self._client.get_job_info(submission)

    def submit(
        self,
        run: str,
        name: str,
        output: str,
        entrypoint: str,
        runtime_env: dict[str, Any],
        cpus: float = 0.0,
        models: str = "",
        mlflow: str = "",
    ) -> tuple[str, str, str]:
        """Start `run`, or attach to its job under way: the submission id, how ("new", "again", "attached"), and the
        MLflow address that the job was given.

        Raises ClusterError when another run now writes to the same `output` or registers models under the same name
        (`models`, by default `name`).
        """
        models = models or name
        about = {RUN_KEY: run, NAME_KEY: name, OUTPUT_KEY: output, MODELS_KEY: models, MLFLOW_KEY: mlflow}
        deadline, collisions = time.monotonic() + START_SECONDS, 0
        while collisions < 5:
            jobs = [job for job in self.list() if job.metadata]
            tries = [job for job in jobs if job.metadata and job.metadata.get(RUN_KEY) == run]
            for job in jobs:
                if not job.metadata or job.status.is_terminal():
                    continue
                if job in tries:
                    return str(job.submission_id), "attached", job.metadata.get(MLFLOW_KEY, mlflow)
                if job.metadata.get(OUTPUT_KEY) == output:
                    raise ClusterError(
                        f"job {job.submission_id} with other settings writes to {output} now; stop it, "
                        "or give this run another name or output"
                    )
                if job.metadata.get(MODELS_KEY) == models:
                    raise ClusterError(
                        f"job {job.submission_id} with other settings registers models of the name {models} now; "
                        "stop it, or give this run another name"
                    )
            number = max(map(attempt, tries), default=0) + 1
            submission = run if number == 1 else f"{run}-{number}"
            try:
                with self._border():
                    self._client.submit_job(
                        entrypoint=entrypoint,
                        submission_id=submission,
                        runtime_env=runtime_env,
                        metadata=about,
                        entrypoint_num_cpus=cpus or None,
                    )
                return submission, "new" if number == 1 else "again", mlflow
            except ClusterError as error:
                # Somebody submitted the same run just now, or the head is so new that its agent has not come up: again.
                waiting = "No available agent" in str(error) and time.monotonic() < deadline
                collisions += not waiting
                if not waiting and "already exists" not in str(error):
                    raise
            time.sleep(1.0)
        raise ClusterError(
            f"{run} could not be submitted: others keep submitting the same run; see `python -m cluster list`"
        )

    def logs(self, submission: str) -> str:
        """What the job has printed up to now."""
        with self._border():
            return self._client.get_job_logs(submission)

    def follow(self, submission: str) -> JobDetails:
        """Print the job's log as it grows and return the ended job; a lost connection is taken up again."""
        self._printed, failures = 0, 0
        while True:
            before = self._printed
            try:
                asyncio.run(self._tail(submission))
            except BrokenPipeError:
                raise  # nobody reads any more; other connection errors are the cluster's
            except (RuntimeError, aiohttp.ClientError, ConnectionError):
                failures += 1
            failures = 0 if self._printed > before else failures
            if (job := self._still(submission, failures)) and job.status.is_terminal():
                _show(self.logs(submission)[self._printed :])
                return job
            time.sleep(min(5.0, 0.5 + failures))

    def _still(self, submission: str, failures: int) -> JobDetails | None:
        try:
            return self.info(submission)
        except ClusterError:
            if failures > 20:
                raise
            return None

    async def _tail(self, submission: str) -> None:
        """Print what has not been printed yet; a new connection begins at the log's first line again."""
        seen = 0
        async for chunk in self._client.tail_job_logs(submission):
            seen += len(chunk)
            if seen > self._printed:
                _show(chunk[self._printed - seen :])
                self._printed = seen

    def stop(self, submission: str, seconds: float = 90.0) -> JobDetails:
        """Ask the job to end and wait for it, at most `seconds`; a job that has ended stays as it is."""
        with self._border():
            self._client.stop_job(submission)
        return self.wait(submission, seconds)

    def wait(self, submission: str, seconds: float) -> JobDetails:
        """The job once it has ended. Raises ClusterError when it has not after `seconds`."""
        deadline = time.monotonic() + seconds
        while not (job := self.info(submission)).status.is_terminal():
            if time.monotonic() > deadline:
                raise ClusterError(f"{submission} has not ended within {seconds:.0f} s; see its log")
            time.sleep(0.3)
        return job


def _show(text: str) -> None:
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()
