"""Whether an ancestor that was given knows the data at all, and what is the matter where it does not."""

import numpy as np

from pipelines.ancestors.source import Source
from pipelines.data.dataset import Dataset

NEAR = 0.15
"""The part of the way from chance to a perfect accuracy below which labels or pixels are likely not the model's."""


def near_chance(accuracy: float, dataset: Dataset, source: Source) -> str | None:
    """What is likely wrong with an ancestor that scores near chance, ``None`` for one that scores above it.

    Chance is the share of the most frequent class of the test images: what one constant answer scores.
    """
    labels = np.concatenate([shard.labels() for shard in dataset.shards["test"]])
    chance = float(np.bincount(labels).max() / len(labels))
    if accuracy >= chance + NEAR * (1 - chance):
        return None
    mean, std = ([round(float(v), 3) for v in values] for values in (source.mean, source.std))
    classes = ", ".join(dataset.classes[:4]) + (", ..." if len(dataset.classes) > 4 else "")
    return (
        f"accuracy {accuracy:.3f} is near chance, {chance:.3f}. Likely causes: another order of the classes than the "
        f"data's ({classes}); another normalisation than mean {mean} and std {std}; weights that were not loaded from "
        "the file that was meant (ancestor.source, ancestor.weights) or were never trained"
    )
