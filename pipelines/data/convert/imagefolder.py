"""ImageFolder: train/CLASS/*.jpg and val/CLASS/*.jpg, listed once."""

import os
from collections.abc import Mapping
from pathlib import Path

from pipelines.data.convert.listing import EXTENSIONS, LeftOut, class_folders, images_in, is_junk, shown, told
from pipelines.data.natural_order import natural_order
from pipelines.data.convert.samples import Found, Sample
from pipelines.data.split_names import find_splits
from wave.errors import WaveError

def read_image_folder(source: Path) -> Found:
    """The images of a folder of classes: the folders in train, in natural order.

    A folder of classes without train/ is all training images. Raises :class:`WaveError`.
    """
    if not source.is_dir():
        raise WaveError(f"{shown(source)}: no such folder; it should hold train/CLASS/ and val/CLASS/ with images")
    inside = {path.name: path for path in source.iterdir() if path.is_dir() and not is_junk(path.name)}
    places, other = find_splits(inside)
    notes = [f"{shown(source)}: {note}" for note in other]
    if "train" not in places and ("test" in places or not inside):
        raise WaveError(f"{shown(source)}: has no train/; it should hold train/CLASS/ and val/CLASS/ with images")
    train, test = places.get("train", source), places.get("test")
    if test is not None and os.path.samefile(train, test):
        raise WaveError(f"{shown(test)}: is the same folder as {train.name}; a model is tested on other images")
    left_out = LeftOut()
    folders = class_folders(train, left_out)
    classes = natural_order(folders)
    if not classes and test is not None:
        raise WaveError(f"{shown(train)}: has no folder; each class is a folder of images")
    label_of = {name: label for label, name in enumerate(classes)}
    found = Found(classes, [], [], notes)
    for name in classes:
        found.train += (own := _images(folders[name], label_of[name], left_out))
        if not own:
            raise WaveError(f"{shown(folders[name][0])}: has no image; known endings: {' '.join(EXTENSIONS)}")
    if test is not None:
        found.test = _tested(test, label_of, left_out)
    if line := told(left_out):
        notes.append(f"{shown(source)}: {line}")
    return found


def _images(folders: list[Path], label: int, left_out: LeftOut) -> list[Sample]:
    return [Sample(path, label) for path in images_in(folders, left_out)]


def _tested(split: Path, label_of: Mapping[str, int], left_out: LeftOut) -> list[Sample]:
    folders = class_folders(split, left_out)
    for name, places in folders.items():
        if name not in label_of:
            raise WaveError(f"{shown(places[0])}: class {name!r} has no folder in train")
    names = natural_order(folders)
    samples = [sample for name in names for sample in _images(folders[name], label_of[name], left_out)]
    if not samples:
        raise WaveError(f"{shown(split)}: has no image in any folder; known endings: {' '.join(EXTENSIONS)}")
    return samples
