"""Fashion-MNIST with a held-out part of its training set in the place of the test set, to choose between variants.

``python -m benchmarks.held_out OUT``: OUT gets the four IDX files of 55,000 and 5,000 training images (as many of each
class; always the same), for ``data.source`` of ``pipelines/experiments/fashion_mnist_tried.toml``.
"""

import gzip
import sys
from pathlib import Path

import numpy as np

from pipelines.data import stratified
from pipelines.idx import read_fashion_mnist

HELD_OUT = 5000


def main(out: str) -> None:
    images, labels = read_fashion_mnist()["train"]
    held = np.zeros(len(labels), bool)
    held[stratified(labels, HELD_OUT, seed=0)] = True
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, part in (("train", ~held), ("t10k", held)):
        for name, values in (("images-idx3", images[part][:, 0]), ("labels-idx1", labels[part].astype(np.uint8))):
            header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
            (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes(), mtime=0))


if __name__ == "__main__":
    main(*sys.argv[1:])
