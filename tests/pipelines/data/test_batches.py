"""Batches from memory: every image once an epoch, ranks disjoint, and the same step the same batch after any resume."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.data.image_file import MODES
from pipelines.data.transforms import Augment, crop_and_flip, train_transform
from pipelines.data.batches import MemoryBatches, eval_batches
from tests.pipelines.image_data import same, take
from wave.errors import WaveError


def numbered(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Images that hold their own index, read-only as Ray's shared memory is."""
    images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 1, 2, 2)).copy()
    labels = np.arange(n, dtype=np.int64)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


def memory(n: int, batch_size: int, seed: int = 0, rank: int = 0, world: int = 1, **kwargs: Any) -> MemoryBatches:
    images, labels = numbered(n)
    return MemoryBatches(images, labels, (0.0,), (1.0,), batch_size, seed, rank, world, **kwargs)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 50), st.integers(1, 12), st.integers(1, 3), st.integers(0, 99))
def test_every_image_once_an_epoch(n: int, per_rank: int, world: int, seed: int) -> None:
    batch_size = per_rank * world
    ranks = [memory(n, batch_size, seed, rank, world) for rank in range(world)]
    steps = 3 * ranks[0].steps_per_epoch
    labels = [[b.labels for b in take(rank, 0, steps)] for rank in ranks]
    stream = torch.stack([torch.cat(step) for step in zip(*labels, strict=True)]).flatten()
    assert all(len(part) == per_rank for rank in labels for part in rank)
    for epoch in range(len(stream) // n):
        assert sorted(stream[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))
    whole = take(memory(n, batch_size, seed), 0, steps)
    assert torch.equal(torch.cat([b.labels for b in whole]), stream)  # whatever the number of ranks


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 10), st.integers(0, 30))
def test_resume_gives_the_same_batches(n: int, batch_size: int, step: int) -> None:
    augment = Augment(hflip=0.5, random_crop=0.3)
    straight = take(memory(n, batch_size, augment=augment), 0, step + 3)
    assert same(take(memory(n, batch_size, augment=augment), step, 3), straight[step:])


def test_images_labels_and_logits_stay_together() -> None:
    images, labels = numbered(20)
    logits = np.stack([labels, -labels], 1).astype(np.float32)
    batches = MemoryBatches(images, labels, (0.5,), (0.25,), 8, teacher_logits=logits)
    for batch in take(batches, 0, 5):
        assert batch.images.dtype == torch.float32
        assert batch.labels.dtype == torch.int64
        torch.testing.assert_close(batch.images[:, 0, 0, 0], (batch.labels / 255 - 0.5) / 0.25)
        assert batch.teacher_logits is not None
        assert torch.equal(batch.teacher_logits[:, 1], -batch.labels.float())


def test_a_remembered_teacher_reads_every_image_once() -> None:
    read: list[int] = []

    def teacher(images: torch.Tensor) -> torch.Tensor:
        numbers = (images[:, 0, 0, 0] * 255).round()
        read.extend(int(number) for number in numbers)
        return torch.stack([numbers, -numbers], 1)

    batches = memory(12, 4)
    batches.remember(teacher, 2)
    for batch in take(batches, 0, 12):  # four epochs
        assert batch.teacher_logits is not None
        assert torch.equal(batch.teacher_logits, torch.stack([batch.labels, -batch.labels], 1).float())
    assert sorted(read) == list(range(12))


@pytest.mark.parametrize("start", [1, 4, 11])
def test_a_resumed_training_gets_the_bits_that_an_undisturbed_one_gets(start: int) -> None:
    """The teacher's answer depends on what it reads an image beside, as a matrix product's last bits do."""

    def teacher(images: torch.Tensor) -> torch.Tensor:
        return images[:, 0, 0, :2] + images.mean() / len(images)

    whole, resumed = memory(13, 4), memory(13, 4)  # not a whole number of batches an epoch
    for batches in (whole, resumed):
        batches.remember(teacher, 2)
    undisturbed = take(whole, 0, 16)
    for one, other in zip(undisturbed[start:], take(resumed, start, 16 - start), strict=True):
        assert one.teacher_logits is not None and other.teacher_logits is not None
        assert torch.equal(one.teacher_logits, other.teacher_logits)


def test_seed_and_epoch_change_the_order() -> None:
    orders = [
        torch.cat([b.labels for b in take(memory(40, 10, seed), start, 4)]) for seed, start in ((0, 0), (0, 4), (1, 0))
    ]
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_augmentation_does_not_depend_on_the_number_of_ranks() -> None:
    augment = Augment(hflip=0.5, random_crop=0.5)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (16, 3, 8, 8), np.uint8), np.arange(16)
    one, *two = (
        MemoryBatches(images, labels, (0.5,) * 3, (0.5,) * 3, 8, 0, rank, world, augment=augment)
        for rank, world in ((0, 1), (0, 2), (1, 2))
    )
    assert torch.equal(one.batch(5).images, torch.cat([rank.batch(5).images for rank in two]))


def test_augmentation_changes_from_step_to_step() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 8, 8), np.uint8)
    batches = MemoryBatches(image, np.zeros(1, np.int64), (0.5,), (0.5,), 2, augment=Augment(random_crop=0.5))
    seen = torch.cat([batch.images for batch in take(batches, 0, 5)])
    assert len({tuple(view.flatten().tolist()) for view in seen}) == 10


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "rand-m10-n12", "original", "v0", "3a", "augmix-m9"])
def test_policies_run_on_every_image(policy: str, channels: int) -> None:
    transform = train_transform((channels, 16, 16), (0.5,) * channels, (0.5,) * channels, Augment(policy, 0.5, 0.3))
    image = Image.new(MODES[channels], (20, 18), 99)
    random.seed(0)
    for _ in range(150):
        assert transform(image).shape == (channels, 16, 16)


def test_crop_and_flip() -> None:
    images = torch.rand(64, 3, 8, 8)
    draws = np.random.default_rng(0).random((64, 4))
    torch.testing.assert_close(crop_and_flip(images, Augment(hflip=1.0), draws), images.flip(3))
    torch.testing.assert_close(crop_and_flip(images, Augment(random_crop=1.0), draws), images)
    assert crop_and_flip(images, Augment(), draws) is images
    ramp = torch.arange(8.0).expand(64, 1, 8, 8)
    cropped = crop_and_flip(ramp, Augment(random_crop=0.25), draws)
    spans = (cropped.amax((1, 2, 3)) - cropped.amin((1, 2, 3))) / 7  # side of the crop
    assert spans.min() >= 0.49
    assert spans.max() <= 1
    assert spans.std() > 0.05
    assert cropped[:, 0, 0].diff(dim=1).min() > -1e-5  # never mirrored


def test_memory_refuses() -> None:
    images, labels = numbered(6)
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (
            (images, labels, (0.0,), (1.0,), 5, 0, 0, 2),
            {},
            "batch_size=5 is not a multiple of 2 workers; nearest: 4 and 6",
        ),
        ((images, labels, (0.0,), (1.0,), 1, 0, 0, 2), {}, "nearest: 2"),
        ((images, labels, (0.0,), (1.0,), 0), {}, "batch_size=0"),
        ((images, labels, (0.0,), (1.0,), 4, 0, 2, 2), {}, "rank=2 is not one of 2 workers"),
        ((images, labels[:5], (0.0,), (1.0,), 4), {}, "5 labels for 6 images"),
        ((images, labels, (0.0,) * 3, (1.0,) * 3, 4), {}, "the images have 1 channels"),
        ((images / 255, labels, (0.0,), (1.0,), 4), {}, "uint8 (n, C, H, W)"),
        ((images[:0], labels[:0], (0.0,), (1.0,), 4), {}, "n of at least 1"),
        ((images, labels, (0.0,), (1.0,), 4), {"teacher_logits": np.zeros((3, 2))}, "3 teacher logits for 6 images"),
        ((images, labels, (0.0,), (1.0,), 4), {"augment": Augment(policy="rand-m9")}, "data.augment has no effect"),
        (
            (images, labels, (0.0,), (1.0,), 4),
            {"teacher_logits": np.zeros((6, 2)), "augment": Augment(hflip=0.5)},
            "cached teacher logits do not fit",
        ),
    ]
    for args, kwargs, text in cases:
        with pytest.raises(WaveError) as caught:
            MemoryBatches(*args, **kwargs)
        assert text in str(caught.value)


def test_one_pass() -> None:
    images, labels = numbered(10)
    batches = list(eval_batches(images, labels, (0.0,), (1.0,), 4))
    assert [len(b.images) for b in batches] == [4, 4, 2]
    assert torch.cat([b.labels for b in batches]).tolist() == list(range(10))
