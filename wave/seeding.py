"""Random numbers from a seed, without touching the caller's generator."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

SALT = 0x5EED
"""Keeps a drawn classifier from being the one that the ancestor started from, which its trained
features still fit, when both are drawn with the same seed."""


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Draw torch's random numbers on the CPU from ``seed`` inside, with the state restored after.

    >>> with seeded(1):
    ...     first = torch.rand(2)
    >>> with seeded(1):
    ...     print(torch.equal(torch.rand(2), first))
    True
    """
    with exactly_seeded(seed * 1_000_003 + SALT):
        yield


@contextmanager
def exactly_seeded(seed: int) -> Generator[None]:
    """:func:`seeded` with the numbers that ``torch.manual_seed(seed)`` gives."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)
