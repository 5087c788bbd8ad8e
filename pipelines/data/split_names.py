"""Which split is meant by a name: data sets call the same thing by different names."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")
TRAIN = ("train", "training")
TEST = ("val", "validation", "valid", "eval", "test", "testing")
"""Names of the split to test on; the first there is read (ImageNet's test images have no labels)."""


def find_splits(places: Mapping[str, T]) -> tuple[dict[str, T], list[str]]:
    """Those of ``places``, by their names, that are train and test, and a line on each that is not read."""
    by_name = {name.lower(): path for name, path in sorted(places.items(), reverse=True)}
    chosen: dict[str, T] = {}
    notes: list[str] = []
    for split, known in (("train", TRAIN), ("test", TEST)):
        names = [name for name in known if name in by_name]
        chosen |= {split: by_name[name] for name in names[:1]}
        notes += [f"{name} is not read; the {split} split is {names[0]}" for name in names[1:]]
    return chosen, notes
