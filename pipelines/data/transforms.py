"""timm's transforms of an image for training and evaluation, and those of whole batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.auto_augment import posterize
from timm.data.transforms_factory import create_transform
from torch import Tensor

from wave.errors import WaveError


@dataclass(frozen=True)
class Augment:
    """What training does to images. Shares are probabilities, 0 = off; ``random_crop`` is the least area kept, 0 = off.

    ``policy`` (timm's auto-augment), ``color_jitter`` and ``reprob`` (random erasing) need encoded images.
    """

    policy: str = ""
    hflip: float = 0.0
    random_crop: float = 0.0
    color_jitter: float = 0.0
    reprob: float = 0.0

    @property
    def encoded_only(self) -> list[str]:
        """Names, as in the configuration, of the settings in use that need encoded images."""
        given = {"augment": self.policy, "color_jitter": self.color_jitter, "reprob": self.reprob}
        return [name for name, value in given.items() if value]


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    """uint8 (C, H, W)."""
    array = np.asarray(image, dtype=np.uint8)
    return np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))


CROP = 0.875
"""The part of an encoded image's shorter side that evaluation sees, timm's default; saved models say the same."""


def eval_pixels(shape: Sequence[int]) -> Callable[[Image.Image], NDArray[np.uint8]]:
    """Resize and centre crop to ``shape`` (C, H, W) in uint8: what evaluation sees, before the normalisation."""
    transform = create_transform(input_size=_size(shape), interpolation="bicubic", crop_pct=CROP, normalize=False)
    return lambda image: transform(image).numpy()  # type: ignore[union-attr, operator]


def train_transform(
    shape: Sequence[int], mean: Sequence[float], std: Sequence[float], augment: Augment
) -> Callable[[Image.Image], Tensor]:
    """timm's training transform: a normalised float32 (C, H, W) tensor.

    Without ``random_crop`` the greatest centred square is taken, as evaluation does without its margin.
    """
    whole = augment.random_crop == 0
    try:
        transform: Any = create_transform(
            input_size=_size(shape),
            is_training=True,
            scale=(1.0, 1.0) if whole else (augment.random_crop, 1.0),
            ratio=(1.0, 1.0) if whole else (3 / 4, 4 / 3),
            hflip=augment.hflip,
            color_jitter=augment.color_jitter,
            auto_augment=augment.policy or None,
            interpolation="bicubic",
            mean=tuple(mean),
            std=tuple(std),
            re_prob=augment.reprob,
            re_mode="pixel",
        )
        return _with_posterize(transform)
    except (AssertionError, ValueError, KeyError, IndexError):
        raise WaveError(
            f"augment={augment.policy!r} is not a timm policy; one that works: rand-m9-mstd0.5-inc1"
        ) from None


def _with_posterize(transform: Any) -> Any:
    """``transform`` with timm's posterize repaired: it may ask for 0 bits, which Pillow 13 refuses (before: black)."""
    for part in transform.transforms:
        ops = getattr(part, "ops", None) or [op for row in getattr(part, "policy", ()) for op in row]
        for op in ops:
            if op.aug_fn is posterize:
                op.aug_fn = _posterize
    return transform


def _posterize(image: Image.Image, bits: int, **options: Any) -> Image.Image:
    return posterize(image, bits, **options) if bits > 0 else Image.new(image.mode, image.size)


def _size(shape: Sequence[int]) -> tuple[int, int]:
    return int(shape[1]), int(shape[2])


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (B, C, H, W) to float32: (images / 255 - mean) / std a channel."""
    centre, spread = (torch.tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (mean, std))
    return (images.float() / 255 - centre) / spread


def bilinear(images: Tensor, side: int) -> Tensor:
    """float32 (n, C, H, W) at ``side`` pixels; the same tensor where it has them."""
    if images.shape[-1] == side:
        return images
    return torch.nn.functional.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)


def resized(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """uint8 (n, C, H, W) at ``side`` pixels, bilinear; the same array where it has them."""
    if images.shape[-1] == side:
        return images
    return bilinear(torch.from_numpy(images).float(), side).round().clamp(0, 255).byte().numpy()


def crop_and_flip(images: Tensor, augment: Augment, draws: NDArray[np.float64]) -> Tensor:
    """Random crops (area uniform in [random_crop, 1], square, resized back) and mirroring of float32 (B, C, H, W).

    ``draws`` (B, 4) are uniform numbers in [0, 1): area, x, y, mirror. Bilinear, edges repeated.
    """
    if not augment.hflip and not augment.random_crop:
        return images
    area, x, y, mirror = torch.from_numpy(draws).float().unbind(1)
    side = torch.sqrt(1 - (1 - augment.random_crop) * area) if augment.random_crop else torch.ones_like(area)
    flip = torch.where(mirror < augment.hflip, -1.0, 1.0)
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = side * flip, side
    theta[:, 0, 2], theta[:, 1, 2] = (1 - side) * (2 * x - 1), (1 - side) * (2 * y - 1)
    grid = torch.nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
