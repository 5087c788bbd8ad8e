"""What the tests of data sets and batches share: an error's one line, an image file, batches taken and compared."""

import io
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from wave.errors import WaveError
from wave.recipe import Batch


def line(call: Any, *args: Any, **kwargs: Any) -> str:
    """The one line of the error that a call raises."""
    with pytest.raises(WaveError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def file_bytes(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None) -> bytes:
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind)
    return buffer.getvalue()


def take(batches: Any, start: int, count: int) -> list[Batch]:
    return list(islice(batches(start), count))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return all(torch.equal(x.images, y.images) and torch.equal(x.labels, y.labels) for x, y in zip(a, b, strict=True))
