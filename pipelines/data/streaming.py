"""Batches of a set larger than memory: row groups dealt to ranks and loader processes, decoded in a seeded order.

Rows go through a shuffle buffer while still encoded. Where a step begins is arithmetic (:mod:`pipelines.data.read_order`), so that
nothing before it is decoded.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipelines.data.image_file import decode
from wave.errors import WaveError
from wave.recipe import Batch

from pipelines.data.dataset import Dataset, Split
from pipelines.data.transforms import Augment, crop_and_flip, eval_pixels, normalise, train_transform
from pipelines.data.read_order import Rows, part_rows, plan, pools
from pipelines.runtime.resources import check_world
from pipelines.data.shard import raw_pixels

_Tensors = tuple[Tensor, Tensor]


class StreamBatches(IterableDataset[_Tensors | str]):
    """Training batches read from shards; the same arguments and step give the same batch.

    ``workers`` processes decode (0: the caller's own). ``buffer`` rows at least are shuffled together, still encoded.
    The order depends on ``world`` and ``workers``. An image that does not decode raises :class:`WaveError` naming shard
    and row.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        augment: Augment | None = None,
        split: Split = "train",
        buffer: int = 1024,
    ) -> None:
        check_world(batch_size, rank, world)
        self.split: Split = split
        self.dataset, self.seed, self.rank, self.world = dataset, seed, rank, world
        self.mean, self.std = tuple(mean or dataset.mean), tuple(std or dataset.std)
        self.augment, self.buffer, self.workers = augment or Augment(), buffer, workers
        self.local, self.lanes = batch_size // world, max(workers, 1)
        rows, parts = dataset.num_rows(split), world * self.lanes
        if parts > rows:
            raise WaveError(
                f"{dataset.path}: {rows} {split} images are too few for {world} workers with {self.lanes} readers each"
            )
        self.steps_per_epoch = -(-rows // batch_size)
        self.start = 0

    def __call__(self, start_step: int = 0) -> Iterator[Batch]:
        """This rank's batches from ``start_step`` on, without end."""
        if not self.workers:
            for item in self._lane(0, start_step):
                yield Batch(*item)
        self.start = start_step
        # `fork`, torch's default here: files are opened, and Arrow read without its threads, after the fork
        for item in DataLoader(self, batch_size=None, num_workers=self.workers):
            if isinstance(item, str):
                raise WaveError(item)  # as text: torch would put a traceback into the message of an exception
            yield Batch(*item)

    def __iter__(self) -> Iterator[_Tensors | str]:
        """In a loader process: every ``workers``-th batch."""
        info = get_worker_info()
        own = info.id if info else 0
        try:
            yield from self._lane((self.start + own) % self.lanes, self.start + own)
        except WaveError as error:
            yield str(error)

    def _lane(self, lane: int, step: int) -> Iterator[_Tensors]:
        """Batches ``step``, ``step + lanes``, ... of one lane."""
        rows = self._rows(lane, step // self.lanes * self.local)
        to_tensor = None
        if self.dataset.encoding == "encoded":
            to_tensor = train_transform(self.dataset.shape, self.mean, self.std, self.augment)
        while True:
            with _seeded(self.seed, step, self.rank):
                found: list[Tensor] = []
                labels: list[int] = []
                for _ in range(self.local):
                    data, label, where = next(rows)
                    labels.append(label)
                    if to_tensor is not None:
                        found.append(to_tensor(decode(data, self.dataset.shape, where)))
                    else:
                        found.append(torch.frombuffer(bytearray(data), dtype=torch.uint8).view(self.dataset.shape))
                images = torch.stack(found)
                if to_tensor is None:
                    draws = np.random.default_rng([self.seed, step, self.rank, 1]).random((self.local, 4))
                    images = crop_and_flip(normalise(images, self.mean, self.std), self.augment, draws)
            yield images, torch.tensor(labels)
            step += self.lanes

    def _rows(self, lane: int, position: int) -> Iterator[tuple[bytes, int, str]]:
        """The endless sequence of a lane's rows, from ``position``."""
        part, parts = self.rank * self.lanes + lane, self.world * self.lanes
        epoch, skip = divmod(position, part_rows(self.dataset, self.split, part, parts))
        while True:
            pieces = plan(self.dataset, self.split, part, parts, self.seed, epoch)
            for number, pool in enumerate(pools(pieces, self.buffer)):
                places = [(p, row) for p, piece in enumerate(pool) for row in range(piece.start, piece.stop)]
                if skip >= len(places):
                    skip -= len(places)
                    continue
                order = np.random.default_rng([self.seed, epoch, part, number]).permutation(len(places))
                loaded = [piece.shard.group(piece.group, self.dataset.meta) for piece in pool]
                for at in order[skip:]:
                    piece, row = places[at]
                    images, labels = loaded[piece]
                    yield images[row].as_py(), int(labels[row]), pool[piece].where(row)
                skip = 0
            epoch += 1


@contextmanager
def _seeded(seed: int, step: int, rank: int) -> Iterator[None]:
    """timm's transforms draw from three global generators: set all three for one batch, then put them back."""
    number = int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
    before = random.getstate(), np.random.get_state()  # noqa: NPY002 (the generator timm draws from)
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(number)
            np.random.seed(number)  # noqa: NPY002
            torch.manual_seed(number)
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002


class _Pass(IterableDataset[_Tensors | str]):
    """One pass in order; each loader process takes every ``workers``-th batch."""

    def __init__(
        self, dataset: Dataset, split: Split, batch_size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.split: Split = split
        self.dataset, self.batch_size, self.mean, self.std = dataset, batch_size, mean, std
        self.pieces, self.to_pixels = plan(dataset, split, 0, 1, None, 0), eval_pixels(dataset.shape)
        self.read: tuple[Rows, pa.ChunkedArray, NDArray[np.int64]] | None = None  # the last row group

    def __iter__(self) -> Iterator[_Tensors | str]:
        info = get_worker_info()
        own, workers = (info.id, info.num_workers) if info else (0, 1)
        try:
            for start in range(own * self.batch_size, self.dataset.num_rows(self.split), workers * self.batch_size):
                images, labels = self._rows(start)
                yield normalise(torch.from_numpy(images), self.mean, self.std), torch.from_numpy(labels)
        except WaveError as error:
            yield str(error)

    def _rows(self, start: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        stop = min(start + self.batch_size, self.dataset.num_rows(self.split))
        images: list[NDArray[np.uint8]] = []
        labels: list[NDArray[np.int64]] = []
        at = 0
        for piece in self.pieces:
            low, high = max(start - at, 0), min(stop - at, piece.stop)
            at += piece.stop
            if low >= high:
                continue
            if self.read is None or self.read[0] is not piece:
                self.read = piece, *piece.shard.group(piece.group, self.dataset.meta)
            _, found, numbers = self.read
            labels.append(numbers[low:high])
            if self.dataset.encoding == "raw":
                images.append(raw_pixels(found, self.dataset.shape)[low:high])
            else:
                shape = self.dataset.shape
                decoded = (decode(found[row].as_py(), shape, piece.where(row)) for row in range(low, high))
                images.append(np.stack([self.to_pixels(image) for image in decoded]))
        return np.concatenate(images), np.concatenate(labels)


def stream_eval_batches(
    dataset: Dataset, split: Split, batch_size: int, workers: int = 0, *, mean: Sequence[float], std: Sequence[float]
) -> Iterator[Batch]:
    """One pass over a split in order, as evaluation sees it; the last batch may be smaller."""
    for item in DataLoader(_Pass(dataset, split, batch_size, mean, std), batch_size=None, num_workers=workers):
        if isinstance(item, str):
            raise WaveError(item)
        yield Batch(*item)
