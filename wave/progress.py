"""Progress: what a training reports every few steps."""

import time
from typing import TypedDict

import torch
from torch import Tensor


class Metrics(TypedDict):
    """One line of progress."""

    step: int
    """The step just done, from 1."""
    steps: int
    """All steps of the training."""
    loss: float
    """Mean loss since the last line."""
    lr: float
    """Learning rate of the step."""
    images_per_second: float
    """Images per second since the last line, of this worker."""
    seconds_left: float
    """Seconds still to go at this speed."""


class Progress:
    """Loss, images and time since the last line of progress."""

    def __init__(self, device: torch.device) -> None:
        # A tensor, since reading the loss in every step would wait for the GPU.
        self.total = torch.zeros((), device=device)
        self.steps = 0
        self.images = 0
        self.start = time.perf_counter()

    def add(self, loss: Tensor, images: int) -> None:
        """Count one step."""
        self.total = self.total + loss
        self.steps += 1
        self.images += images

    def metrics(self, step: int, steps: int, lr: float) -> Metrics:
        """Return the line of progress after ``step`` of ``steps``."""
        seconds = time.perf_counter() - self.start
        return Metrics(
            step=step,
            steps=steps,
            loss=float(self.total) / self.steps,
            lr=lr,
            images_per_second=self.images / seconds,
            seconds_left=(steps - step) * seconds / self.steps,
        )
