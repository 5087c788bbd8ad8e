"""ImageFolder: train/CLASS/*.jpg and val/CLASS/*.jpg, listed once, then read image by image."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from pipelines.config.machine import cpus, memory_bytes
from pipelines.data.image_file import decode
from wave.errors import WaveError

from pipelines.data.dataset import Split, choose_held_out, stratified
from pipelines.data.transforms import eval_pixels

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_SAMPLE = 1000
_AHEAD = 64
"""Images read and checked at a time: what is in memory beside one row group."""
_IMAGE_BYTES = 1 << 30
"""What one thread may hold for the largest image; see :mod:`pipelines.data.image_file`."""


class ImageFolder:
    """The files of a folder of images. ``val`` is read as the test split, else ``test`` (ImageNet's has no labels).

    Classes are the folders in train, sorted. Training files are shuffled by a fixed seed: a shard holds all classes.
    ``held_out`` of them become a split of their own.
    """

    def __init__(self, source: Path, size: int, held_out: int = 0) -> None:
        if not source.is_dir():
            raise WaveError(f"{source}: no such folder; it should hold train/CLASS/ and val/CLASS/ with images")
        test = next((source / name for name in ("val", "test") if (source / name).is_dir()), None)
        if not (source / "train").is_dir() or test is None:
            lacks = "val/ or test/" if test is None and (source / "train").is_dir() else "train/"
            raise WaveError(f"{source}: has no {lacks}; it should hold train/CLASS/ and val/CLASS/ with images")
        self.shape = (3, size, size)
        self.classes = tuple(_folders(source / "train"))
        if not self.classes:
            raise WaveError(f"{source / 'train'}: has no folder; each class is a folder of images")
        self.files: dict[Split, list[tuple[str, int]]] = {
            "train": self._list(source / "train"),
            "test": self._list(test),
        }
        order = np.random.default_rng(0).permutation(len(self.files["train"]))
        train = [self.files["train"][i] for i in order]
        if held_out:
            held = choose_held_out(np.array([label for _, label in train]), held_out)
            self.files["held_out"] = [file for file, apart in zip(train, held, strict=True) if apart]
            train = [file for file, apart in zip(train, held, strict=True) if not apart]
        self.files["train"] = train

    def _list(self, folder: Path) -> list[tuple[str, int]]:
        files: list[tuple[str, int]] = []
        for name in _folders(folder):
            if name not in self.classes:
                raise WaveError(f"{folder / name}: class {name!r} has no folder in train")
            paths = sorted(_images(folder / name))
            if not paths and folder.name == "train":
                raise WaveError(f"{folder / name}: has no image; known endings: {' '.join(EXTENSIONS)}")
            files += [(path, self.classes.index(name)) for path in paths]
        if not files:
            raise WaveError(f"{folder}: has no image in any folder; known endings: {' '.join(EXTENSIONS)}")
        return files

    def statistics(self, kind: Literal["imagenet", "measured"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std a channel, images in 0..1: ImageNet's, or of up to 1,000 training images."""
        if kind == "imagenet":
            return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        files = self.files["train"]
        chosen = stratified(np.array([label for _, label in files]), _SAMPLE, seed=0)
        to_pixels = eval_pixels(self.shape)
        first, second = np.zeros(3), np.zeros(3)
        for index in chosen:
            path = files[index][0]
            values = to_pixels(decode(_read(path), self.shape, path)).reshape(3, -1) / 255
            first, second = first + values.mean(1), second + (values**2).mean(1)
        mean = first / len(chosen)
        std = np.sqrt(np.maximum(second / len(chosen) - mean**2, (1 / 255) ** 2))  # flat images: one level, not zero
        return tuple(mean.tolist()), tuple(std.tolist())

    def rows(self, split: Split) -> Iterator[tuple[bytes, int]]:
        """File bytes and label of every image; each is decoded, by threads, before it is handed on."""
        files = self.files[split]
        check = partial(_checked, self.shape)
        with ThreadPoolExecutor(max(1, min(cpus(), 32, memory_bytes() // _IMAGE_BYTES))) as pool:
            for start in range(0, len(files), _AHEAD):
                part = files[start : start + _AHEAD]
                yield from zip(pool.map(check, (path for path, _ in part)), (label for _, label in part), strict=True)


def _images(folder: Path) -> Iterator[str]:
    """Files with a known ending, at any depth; hidden folders are not entered."""
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(path, name) for name in names if name.lower().endswith(EXTENSIONS))


def _folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise WaveError(f"{path}: cannot be read: {error.strerror}") from None


def _checked(shape: tuple[int, int, int], path: str) -> bytes:
    data = _read(path)
    decode(data, shape, path, draft=32)  # a JPEG is read to its end, but only small pixels are computed
    return data
