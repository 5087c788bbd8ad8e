"""Batches streamed from shards: parts disjoint and whole, resumed at any step, and the factory that chooses them."""

import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.data.convert.convert import convert
from pipelines.data.dataset import Dataset, open_dataset
from pipelines.data.transforms import Augment, normalise
from pipelines.data.batches import MemoryBatches, eval_batches, evaluation_batches, training_batches
from pipelines.data.read_order import part_rows, plan
from pipelines.config.data import Data
from pipelines.data.shard import Metadata, Shard
from pipelines.data.streaming import StreamBatches, stream_eval_batches
from tests.pipelines.image_data import same, take
from wave.errors import WaveError

STATS = {"mean": (0.0,), "std": (1.0,)}


def write(
    root: Path, sizes: list[int], encoding: str, group: int = 4, bad: int | None = None, side: int = 8
) -> Dataset:
    """Shards of images that hold their own index."""
    meta = Metadata(
        "raw" if encoding == "raw" else "encoded", tuple(map(str, range(200))), (0.0,), (1.0,), (1, side, side)
    )
    first = 0
    root.mkdir(parents=True)
    for index, size in enumerate(sizes):
        rows = []
        for i in range(first, first + size):
            pixels = np.full((side, side), i, np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            rows.append(pixels.tobytes() if encoding == "raw" else b"bad" if i == bad else buffer.getvalue())
        labels = pa.array(range(first, first + size), pa.int64())
        table = pa.table([pa.array(rows, pa.binary()), labels], schema=meta.schema())
        pq.write_table(table, root / f"train-{index:05d}-of-{len(sizes):05d}.parquet", row_group_size=group)
        if index == 0:
            pq.write_table(table, root / "test-00000-of-00001.parquet", row_group_size=group)
        first += size
    return open_dataset(root)


@pytest.fixture(scope="module", params=["raw", "encoded"])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write(tmp_path_factory.mktemp("stream") / "data", [10, 7, 13], request.param)


def rank_streams(dataset: Dataset, world: int, workers: int, epochs: int = 2) -> Iterator[list[int]]:
    """Labels of each part, in order, for some epochs: parts are lanes of ranks."""
    lanes = max(workers, 1)
    for rank in range(world):
        batches = StreamBatches(dataset, world, 5, rank, world, buffer=6)
        batches.lanes = lanes
        for lane in range(lanes):
            rows = epochs * part_rows(dataset, "train", rank * lanes + lane, world * lanes)
            yield [label for _, label, _ in islice(batches._rows(lane, 0), rows)]


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (2, 0), (3, 2), (7, 1)])
def test_parts_are_disjoint_and_whole(dataset: Dataset, world: int, workers: int) -> None:
    parts = list(rank_streams(dataset, world, workers))
    for epoch in range(2):
        seen = [label for part in parts for label in part[epoch * len(part) // 2 : (epoch + 1) * len(part) // 2]]
        assert sorted(seen) == list(range(30))
    assert any(part[: len(part) // 2] != sorted(part[: len(part) // 2]) for part in parts)
    assert any(part[: len(part) // 2] != part[len(part) // 2 :] for part in parts)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(0, 5), st.none() | st.integers(0, 9))
def test_plan_covers_every_row_once(parts: int, epoch: int, seed: int | None) -> None:
    shards = tuple(Shard(Path(f"{i}"), groups) for i, groups in enumerate([(3, 3, 1), (5,), (2, 4)]))
    dataset = Dataset(Path(), Metadata("raw", ("a",), (0.0,), (1.0,), (1, 1, 1)), {"train": shards, "test": shards})
    rows = [
        (p.shard.path, p.group, i)
        for k in range(parts)
        for p in plan(dataset, "train", k, parts, seed, epoch)
        for i in range(p.start, p.stop)
    ]
    assert len(rows) == len(set(rows)) == 18
    counts = [part_rows(dataset, "train", k, parts) for k in range(parts)]
    assert sum(counts) == 18
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_resumes_at_a_step(dataset: Dataset, workers: int) -> None:
    augment = Augment(hflip=0.5, random_crop=0.3)
    if dataset.encoding == "encoded":
        augment = Augment("rand-m5-mstd0.5", 0.5, 0.3, 0.0, 0.5)
    batches = StreamBatches(dataset, 4, 1, 0, 2, workers, augment=augment, buffer=6)
    assert batches.steps_per_epoch == 8
    straight = take(batches, 0, 20)
    assert all(b.images.shape == (2, 1, 8, 8) and b.images.dtype == torch.float32 for b in straight)
    for step in (1, 8, 17):
        assert same(take(batches, step, 3), straight[step : step + 3])


def test_stream_leaves_the_generators_of_the_caller_alone(dataset: Dataset) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    take(StreamBatches(dataset, 4, augment=Augment(hflip=0.5)), 0, 2)
    assert torch.equal(torch.rand(2), wanted)


def test_images_and_labels_of_a_stream_belong_together(dataset: Dataset) -> None:
    for batch in take(StreamBatches(dataset, 6), 0, 10):
        torch.testing.assert_close(batch.images[:, 0, 3, 3] * 255, batch.labels.float())


@pytest.mark.parametrize("workers", [0, 2])
def test_one_streamed_pass(dataset: Dataset, workers: int) -> None:
    batches = list(stream_eval_batches(dataset, "train", 7, workers, **STATS))
    assert [len(b.images) for b in batches] == [7, 7, 7, 7, 2]
    assert torch.cat([b.labels for b in batches]).tolist() == list(range(30))
    images, labels = dataset.arrays("train")
    held = list(eval_batches(images, labels, (0.0,), (1.0,), 7))
    assert same(batches, held)


@pytest.mark.parametrize("workers", [0, 2])
def test_image_that_does_not_decode(tmp_path: Path, workers: int) -> None:
    dataset = write(tmp_path / "data", [10, 10], "encoded", bad=16)
    where = f"{tmp_path / 'data' / 'train-00001-of-00002.parquet'}: row 6: the image does not decode"
    for run in (
        lambda: take(StreamBatches(dataset, 4, workers=workers), 0, 20),
        lambda: list(stream_eval_batches(dataset, "train", 4, workers, **STATS)),
    ):
        with pytest.raises(WaveError) as caught:
            run()
        assert str(caught.value).startswith(where)
        assert "\n" not in str(caught.value)


def test_nothing_before_the_start_is_decoded(tmp_path: Path) -> None:
    dataset = write(tmp_path / "data", [12], "encoded", bad=0)
    batches = StreamBatches(dataset, 1, seed=0, buffer=4)
    order = [label for _, label, _ in islice(batches._rows(0, 0), 12)]
    assert len(take(batches, order.index(0) + 1, 11 - order.index(0))) == 11 - order.index(0)


def test_stream_refuses(dataset: Dataset) -> None:
    with pytest.raises(WaveError, match="30 train images are too few for 31 workers"):
        StreamBatches(dataset, 31, 0, 0, 31)
    with pytest.raises(WaveError, match="nearest: 4 and 6"):
        StreamBatches(dataset, 5, 0, 0, 2)


# --- the choice ------------------------------------------------------------------------------------------------------


def test_factory_follows_the_configuration(dataset: Dataset) -> None:
    def chosen(**kwargs: Any) -> type:
        return type(training_batches(dataset, Data(path="x", **kwargs), 6))

    raw = dataset.encoding == "raw"
    assert chosen() is (MemoryBatches if raw else StreamBatches)
    assert chosen(in_memory=True) is MemoryBatches
    assert chosen(in_memory=False) is StreamBatches
    passes = [evaluation_batches(dataset, Data(path="x", in_memory=held), 7) for held in (True, False)]
    assert same(list(passes[0]()), list(passes[1]()))
    assert same(list(passes[0]()), list(passes[0]()))
    if raw:
        with pytest.raises(WaveError, match=r"data.reprob has no effect on .*, whose images are raw"):
            chosen(reprob=0.5)


def test_statistics_of_the_ancestor_may_differ(tmp_path: Path) -> None:
    digits = convert("digits", "", tmp_path / "digits")
    own, other = (
        training_batches(digits, Data(path="x"), 64, mean=mean, std=std)
        for mean, std in ((None, None), ((0.5,), (0.5,)))
    )
    a, b = take(own, 0, 1)[0], take(other, 0, 1)[0]
    torch.testing.assert_close(a.images * digits.std[0] + digits.mean[0], b.images * 0.5 + 0.5)
    images, _ = digits.arrays("train")
    everything = normalise(torch.from_numpy(images), digits.mean, digits.std)
    assert float(everything.mean()) == pytest.approx(0, abs=1e-4)
    assert float(everything.std()) == pytest.approx(1, abs=1e-3)
