"""Count: a line for each trial that ends, with how many are done, failed and left, and for how long."""

import time
from collections.abc import Callable
from typing import Any

from ray.tune import Callback

from pipelines.runtime.console import say
from wave.errors import WaveError


class Count(Callback):
    """Tune's events as plain lines: ``stage 2: d064-l06 done; 3 of 12 done, 0 failed, 9 left, 40 s left``.

    ``keep`` is called with a trial's configuration and each of its results, in the driver.
    """

    def __init__(
        self,
        what: str,
        total: int,
        name: Callable[[dict[str, Any]], str],
        keep: Callable[[dict[str, Any], dict[str, Any]], None] | None = None,
    ) -> None:
        self.what, self.total, self.name, self.keep = what, total, name, keep
        self.done, self.failed, self.start = 0, 0, time.perf_counter()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if self.keep is not None:
            self.keep(trial.config, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.done += 1
        self._say(trial, "done")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.failed += 1
        self._say(trial, "failed")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        say(f"{self.what}: {self.name(trial.config)} was cut off; it goes on from its last checkpoint")

    def _say(self, trial: Any, outcome: str) -> None:
        ended = self.done + self.failed
        seconds = (time.perf_counter() - self.start) / ended * (self.total - ended)
        counts = f"{self.done} of {self.total} done, {self.failed} failed, {self.total - ended} left"
        say(f"{self.what}: {self.name(trial.config)} {outcome}; {counts}, {seconds:.0f} s left")


def reason(error: BaseException) -> str:
    """The last line that says why: a trial's own message without Ray's traceback."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, WaveError):
        return str(cause)
    lines = [text.strip() for text in str(error).splitlines() if text.strip()]
    return (lines or [type(error).__name__])[-1][:300]
