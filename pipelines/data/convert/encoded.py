"""Image files that were found, into shards: split, checked, shuffled, kept as they are."""

from pathlib import Path

import numpy as np

from pipelines.data.convert.samples import Found, Sample, Shape, Statistics, measured, rows, without_bad
from pipelines.data.convert.shard_writer import Progress, ShardWriter
from pipelines.data.dataset import Split, choose_held_out, stratified
from pipelines.data.shard import Metadata
from wave.errors import WaveError


def write_encoded(
    folder: Path,
    found: Found,
    *,
    source: str | Path,
    shape: Shape,
    statistics: Statistics,
    held_out: int,
    test_fraction: float,
    skip_bad: int,
    rows_per_shard: int,
    progress: Progress,
) -> None:
    """Write the shards of all splits. Raises :class:`WaveError` for an image that does not decode.

    Training files are shuffled by a fixed seed, so that a shard holds all classes.
    """
    for note in found.notes:
        progress(note)
    _check_test(source, found, test_fraction)
    skipped = _skip(found, shape, skip_bad, source, progress) if skip_bad else 0
    splits = _splits(found, test_fraction, held_out)
    mean, std = measured(splits["train"], shape, statistics)
    meta = Metadata("encoded", found.classes, mean, std, shape, skipped, test_fraction)
    for split, samples in splits.items():
        ShardWriter(folder, split, len(samples), rows_per_shard, 128, meta, progress).write(rows(samples, shape))


def _check_test(source: str | Path, found: Found, fraction: float) -> None:
    if found.test and fraction:
        raise WaveError(
            f"{source}: has images to test on; data.test_fraction={fraction} makes some where there are none: leave it out"
        )
    if not found.test and not fraction:
        raise WaveError(
            f"{source}: has no val/ or test/ (nor validation/, valid/, eval/); "
            "data.test_fraction=0.1 (--test-fraction 0.1) tests on a tenth of the training images"
        )


def _skip(found: Found, shape: Shape, allowed: int, source: str | Path, progress: Progress) -> int:
    """Leave out what does not decode; how many images that is."""
    bad: list[str] = []
    found.train = without_bad(found.train, shape, bad)
    found.test = without_bad(found.test, shape, bad)
    if len(bad) > allowed:
        raise WaveError(f"{source}: {len(bad)} images do not decode, data.skip_bad={allowed} allows fewer; {bad[0]}")
    for error in bad:
        progress(f"left out: {error}")
    if bad:
        progress(f"{source}: {len(bad)} images left out that do not decode; data.skip_bad={allowed}")
    lost = set(range(len(found.classes))) - {sample.label for sample in found.train}
    if lost:
        raise WaveError(f"{source}: no training image of class {found.classes[min(lost)]!r} decodes; {bad[0]}")
    return len(bad)


def _splits(found: Found, test_fraction: float, held_out: int) -> dict[Split, list[Sample]]:
    train, test = found.train, found.test
    if test_fraction:
        count = round(len(train) * test_fraction)
        if not 0 < count < len(train):
            raise WaveError(f"data.test_fraction={test_fraction} of {len(train)} images leaves {count} to test on")
        apart = np.zeros(len(train), bool)
        apart[stratified(_labels(train), count, seed=0)] = True
        test = [sample for sample, tested in zip(train, apart, strict=True) if tested]
        train = [sample for sample, tested in zip(train, apart, strict=True) if not tested]
    train = [train[i] for i in np.random.default_rng(0).permutation(len(train))]
    if not held_out:
        return {"train": train, "test": test}
    held = choose_held_out(_labels(train), held_out)
    return {
        "train": [sample for sample, chosen in zip(train, held, strict=True) if not chosen],
        "test": test,
        "held_out": [sample for sample, chosen in zip(train, held, strict=True) if chosen],
    }


def _labels(samples: list[Sample]) -> np.ndarray:
    return np.array([sample.label for sample in samples])
