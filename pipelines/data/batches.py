"""Batches for training and evaluation: the same (seed, step) gives the same batch, whoever asks and whenever.

A set is one endless sequence: a permutation of all images, then another, ...; step ``s`` takes the next ``batch_size``
of them. So every batch is full, every image comes once an epoch, and resuming at a step reads nothing before it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wave.errors import WaveError
from wave.recipe import Batch, Recipe

from pipelines.data.dataset import Dataset, Split
from pipelines.data.transforms import Augment, crop_and_flip, normalise
from pipelines.runtime.resources import check_world
from pipelines.config.data import Data
from pipelines.data.streaming import StreamBatches, stream_eval_batches

_IN_MEMORY_BYTES = 1 << 30

Arrays = dict[str, NDArray[Any]]
"""What trials share without copies: images, labels, the teacher's logits, templates."""


class TrainingBatches(Protocol):
    """``batches(step)`` iterates, without end, over this rank's batches from that step on."""

    steps_per_epoch: int

    def __call__(self, start_step: int = 0) -> Iterator[Batch]: ...


class MemoryBatches:
    """Training batches of a set in memory; the arrays may be read-only and shared, only batches are copied.

    ``images`` uint8 (n, C, H, W), ``labels`` int64 (n,), ``teacher_logits`` float32 (n, K). ``batch_size`` is over all
    ``world`` ranks: rank r takes its r-th part of each batch, so the batches do not depend on ``world``. ``augment``
    allows hflip and random_crop. Raises :class:`WaveError` for arrays or sizes that do not go together.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        teacher_logits: NDArray[np.float32] | None = None,
        augment: Augment | None = None,
    ) -> None:
        self.images, self.labels, self.teacher_logits = images, labels, teacher_logits
        self.mean, self.std, self.augment = tuple(mean), tuple(std), augment or Augment()
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        _check_arrays(images, labels, self.mean, self.std, teacher_logits)
        check_world(batch_size, rank, world)
        if self.augment.encoded_only:
            raise WaveError(f"data.{self.augment.encoded_only[0]} has no effect on images held in memory; leave it out")
        if teacher_logits is not None and (self.augment.hflip or self.augment.random_crop):
            raise WaveError(
                "cached teacher logits do not fit images changed by data.hflip or random_crop; switch one off"
            )
        self.steps_per_epoch = -(-len(images) // batch_size)
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self._teacher: Callable[[Tensor], Tensor] | None = None
        self._asked = 0  # steps whose images the teacher has read

    def remember(self, teacher: Callable[[Tensor], Tensor], classes: int) -> None:
        """Let batches carry ``teacher``'s logits (B, ``classes``); it reads each image once, when it first comes.

        For images that nothing changes, here or later. A training that starts at a later step first lets the teacher
        read what came before it, step by step: read beside other images, one would have logits of other last bits.
        """
        self._teacher = teacher
        self.teacher_logits = np.full((len(self.images), classes), np.nan, np.float32)

    @property
    def taught(self) -> int:
        """Images whose logits are known."""
        return 0 if self.teacher_logits is None else int((~np.isnan(self.teacher_logits[:, 0])).sum())

    def __call__(self, start_step: int = 0) -> Iterator[Batch]:
        """Batches from ``start_step`` on."""
        step = start_step
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> Batch:
        """This rank's part of one step."""
        for asked in range(self._asked, step + 1) if self._teacher is not None else ():
            self._ask(self._mine(asked))
            self._asked = asked + 1
        index = self._mine(step)
        images = self._normalised(index)
        if self.augment.hflip or self.augment.random_crop:
            draws = np.random.default_rng([self.seed, step, 1]).random((self.batch_size, 4))
            part = len(index)
            images = crop_and_flip(images, self.augment, draws[self.rank * part : (self.rank + 1) * part])
        logits = torch.from_numpy(self.teacher_logits[index]) if self.teacher_logits is not None else None
        return Batch(images, torch.from_numpy(self.labels[index]), logits)

    def _ask(self, index: NDArray[np.int64]) -> None:
        assert self._teacher is not None and self.teacher_logits is not None
        new = index[np.isnan(self.teacher_logits[index, 0])]
        if len(new):
            self.teacher_logits[new] = self._teacher(self._normalised(new)).float().cpu().numpy()

    def _normalised(self, index: NDArray[np.int64]) -> Tensor:
        return normalise(torch.from_numpy(self.images[index]), self.mean, self.std)

    def _mine(self, step: int) -> NDArray[np.int64]:
        """The images of this rank's part of one step."""
        part = self.batch_size // self.world
        return self._indices(step * self.batch_size + self.rank * part, part)

    def _indices(self, start: int, count: int) -> NDArray[np.int64]:
        """``count`` entries of the endless sequence, from ``start``."""
        parts: list[NDArray[np.int64]] = []
        while count:
            epoch, offset = divmod(start, len(self.images))
            if self._order is None or self._order[0] != epoch:
                self._order = (epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.images)))
            part = self._order[1][offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts)


def eval_batches(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
) -> Iterator[Batch]:
    """One pass in order, unchanged images; the last batch may be smaller."""
    _check_arrays(images, labels, tuple(mean), tuple(std), None)
    check_world(batch_size, 0, 1)
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        yield Batch(normalise(torch.tensor(images[part]), mean, std), torch.tensor(labels[part]))


def _check_arrays(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    logits: NDArray[np.float32] | None,
) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise WaveError(f"images are {images.dtype} {images.shape}; uint8 (n, C, H, W) with n of at least 1 is needed")
    for name, array in (("labels", labels), ("teacher logits", logits)):
        if array is not None and len(array) != len(images):
            raise WaveError(f"{len(array)} {name} for {len(images)} images")
    if {len(mean), len(std)} != {images.shape[1]}:
        raise WaveError(
            f"mean and std have {len(mean)} and {len(std)} numbers; the images have {images.shape[1]} channels"
        )


def held_in_memory(dataset: Dataset, settings: Data, split: Split = "train") -> bool:
    """Whether the configuration keeps a split in memory: ``auto`` does for raw images of less than 1 GiB in all."""
    if settings.in_memory == "auto":
        return dataset.encoding == "raw" and dataset.num_bytes(split) < _IN_MEMORY_BYTES
    return settings.in_memory


def remembers(dataset: Dataset, settings: Data, recipe: Recipe) -> bool:
    """Whether a training reads its images unchanged and from memory, so that its teacher need read each only once."""
    changed = settings.changes_images or recipe.mixup or recipe.cutmix
    fits = dataset.num_rows("train") * len(dataset.classes) * 4 < _IN_MEMORY_BYTES
    return held_in_memory(dataset, settings) and fits and not changed


def augment_of(settings: Data) -> Augment:
    """The part of the configuration that changes images."""
    return Augment(settings.augment, settings.hflip, settings.random_crop, settings.color_jitter, settings.reprob)


def training_batches(
    dataset: Dataset,
    settings: Data,
    batch_size: int,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> TrainingBatches:
    """Batches of the training split, from memory or streamed as ``data.in_memory`` says.

    ``mean`` and ``std`` default to the data set's. Raises :class:`WaveError` for settings that do not fit the data set.
    """
    augment = augment_of(settings)
    mean, std = mean or dataset.mean, std or dataset.std
    if dataset.encoding == "raw" and augment.encoded_only:
        raise WaveError(
            f"data.{augment.encoded_only[0]} has no effect on {dataset.path}, whose images are raw; leave it out"
        )
    if held_in_memory(dataset, settings):
        images, labels = dataset.arrays("train")
        return MemoryBatches(images, labels, mean, std, batch_size, seed, rank, world, augment=augment)
    return StreamBatches(dataset, batch_size, seed, rank, world, settings.workers, mean=mean, std=std, augment=augment)


def evaluation_batches(
    dataset: Dataset,
    settings: Data,
    batch_size: int,
    split: Split = "test",
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Callable[[], Iterator[Batch]]:
    """A function that begins a pass over a split, in order and unchanged; in memory the split is read once."""
    mean, std = mean or dataset.mean, std or dataset.std
    if held_in_memory(dataset, settings, split):
        images, labels = dataset.arrays(split)
        return lambda: eval_batches(images, labels, mean, std, batch_size)
    return lambda: stream_eval_batches(dataset, split, batch_size, settings.workers, mean=mean, std=std)
