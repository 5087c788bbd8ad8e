"""Random numbers from a seed, without touching the global generator of the caller."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

SALT = 0x5EED
"""Without it a classifier drawn with the seed of the ancestor's training would be the one that the ancestor started
from, which its trained features still fit."""


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """torch's random numbers on the CPU depend on ``seed`` alone inside, and go on outside as if nothing happened."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed * 1_000_003 + SALT)
    try:
        yield
    finally:
        torch.set_rng_state(before)
