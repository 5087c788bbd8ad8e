"""Progress of workers on the driver's output."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.exceptions import RayError

from pipelines.runtime.console import say

_ACTOR = "wave-progress"


@contextlib.contextmanager
def printing() -> Iterator[None]:
    actor: Any = ray.remote(num_cpus=0)(Lines).options(name=_ACTOR, get_if_exists=True).remote()
    done = threading.Event()

    def flush() -> None:
        for line in ray.get(actor.take.remote()):
            say(line)

    def loop() -> None:
        while not done.wait(0.5):
            with contextlib.suppress(RayError):
                flush()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(RayError):
            flush()
        ray.kill(actor)


def teller() -> Callable[[str], None]:
    """For a worker: a function that sends a line to the driver's output and does not wait."""
    try:
        actor = ray.get_actor(_ACTOR)
    except ValueError:
        return say
    return lambda line: actor.add.remote(line) and None


class Lines:
    """Keeps lines until the driver fetches them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        self.lines.append(line)

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines
