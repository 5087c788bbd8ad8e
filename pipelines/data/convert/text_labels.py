"""Labels as lists and tar shards have them, numbers or names, to the numbers of classes."""

from collections.abc import Sequence
from typing import NamedTuple

from pipelines.data.convert.listing import class_name
from pipelines.data.convert.samples import Found, Sample
from pipelines.data.natural_order import natural_order
from wave.errors import WaveError

_MOST_CLASSES = 1_000_000


class Labelled(NamedTuple):
    """An image and what its label says."""

    sample: Sample
    label: str | int


def numbered(train: Sequence[Labelled], test: Sequence[Labelled], source: str) -> Found:
    """Whole numbers are labels as they are, classes 0 to the largest; anything else are names, in natural order."""
    if not train:
        raise WaveError(f"{source}: has no image to train on")
    texts = [str(item.label).strip() for item in (*train, *test)]
    if all(text.isascii() and text.isdecimal() for text in texts):
        most = max(map(int, texts))
        if most >= _MOST_CLASSES:
            raise WaveError(f"{source}: has a label of {most}; labels number the classes from 0, or name them")
        classes = tuple(map(str, range(most + 1)))
        numbers = {text: int(text) for text in texts}
        return Found(classes, _with(train, numbers), _with(test, numbers))
    names = {text: class_name(text, source) for text in set(texts)}
    classes = natural_order({names[str(item.label).strip()] for item in train})
    label_of = {name: label for label, name in enumerate(classes)}
    for item in test:
        if (name := names[str(item.label).strip()]) not in label_of:
            raise WaveError(f"{item.sample.where}: class {name!r} has no image in train")
    numbers = {text: label_of.get(name, -1) for text, name in names.items()}
    return Found(classes, _with(train, numbers), _with(test, numbers))


def _with(items: Sequence[Labelled], numbers: dict[str, int]) -> list[Sample]:
    return [item.sample._replace(label=numbers[str(item.label).strip()]) for item in items]
