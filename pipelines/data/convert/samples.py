"""Images that a converter has found but not read yet: where each lies, which class it is of, and how it is checked."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from pipelines.config.machine import cpus, memory_bytes
from pipelines.data.convert.listing import shown
from pipelines.data.dataset import stratified
from pipelines.data.image_file import decode
from pipelines.data.transforms import eval_pixels
from wave.errors import WaveError

Statistics = Literal["imagenet", "measured"]
Shape = tuple[int, int, int]
T = TypeVar("T")

_SAMPLE = 1000
_AHEAD = 64
"""Images read and checked at a time: what is in memory beside one row group."""
_IMAGE_BYTES = 1 << 30
"""What one thread may hold for the largest image; see :mod:`pipelines.data.image_file`."""


class Sample(NamedTuple):
    """One image: a whole file, or ``size`` bytes of it from ``offset``, which are called ``name`` there."""

    path: str
    label: int
    offset: int = 0
    size: int = -1
    name: str = ""

    @property
    def where(self) -> str:
        """The image's place, for a message."""
        return shown(f"{self.path}: {self.name}" if self.name else self.path)

    def read(self) -> bytes:
        """Its bytes; raises :class:`WaveError` that names it."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise WaveError(f"{self.where}: cannot be read: {error.strerror}") from None


@dataclass
class Found:
    """What a source holds. ``test`` is empty where it has no split to test on, ``notes`` are lines for the user."""

    classes: tuple[str, ...]
    train: list[Sample]
    test: list[Sample]
    notes: list[str] = field(default_factory=list)


def rows(samples: Sequence[Sample], shape: Shape) -> Iterator[tuple[bytes, int]]:
    """File bytes and label of every image; each is decoded, by threads, before it is handed on."""
    for sample, data in zip(samples, _in_threads(partial(_checked, shape), samples), strict=True):
        yield data, sample.label


def without_bad(samples: list[Sample], shape: Shape, bad: list[str]) -> list[Sample]:
    """Those that decode; of the others, what is wrong is appended to ``bad``."""
    kept = []
    for sample, error in zip(samples, _in_threads(partial(_error, shape), samples), strict=True):
        bad.append(error) if error else kept.append(sample)
    return kept


def measured(samples: Sequence[Sample], shape: Shape, kind: Statistics) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std a channel, images in 0..1: ImageNet's, or of up to 1,000 training images."""
    if kind == "imagenet":
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    chosen = stratified(np.array([sample.label for sample in samples]), _SAMPLE, seed=0)
    to_pixels = eval_pixels(shape)
    first, second = np.zeros(3), np.zeros(3)
    for index in chosen:
        sample = samples[index]
        values = to_pixels(decode(sample.read(), shape, sample.where)).reshape(3, -1) / 255
        first, second = first + values.mean(1), second + (values**2).mean(1)
    mean = first / len(chosen)
    std = np.sqrt(np.maximum(second / len(chosen) - mean**2, (1 / 255) ** 2))  # flat images: one level, not zero
    return tuple(mean.tolist()), tuple(std.tolist())


def _in_threads(work: Callable[[Sample], T], samples: Sequence[Sample]) -> Iterator[T]:
    with ThreadPoolExecutor(max(1, min(cpus(), 32, memory_bytes() // _IMAGE_BYTES))) as pool:
        for start in range(0, len(samples), _AHEAD):
            yield from pool.map(work, samples[start : start + _AHEAD])


def _checked(shape: Shape, sample: Sample) -> bytes:
    data = sample.read()
    decode(data, shape, sample.where, draft=32)  # a JPEG is read to its end, but only small pixels are computed
    return data


def _error(shape: Shape, sample: Sample) -> str:
    try:
        _checked(shape, sample)
    except WaveError as error:
        return str(error)
    return ""
