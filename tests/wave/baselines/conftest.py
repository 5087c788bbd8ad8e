"""A tiny ancestor that differs from any fresh model, and batches of random images."""

from collections.abc import Callable, Iterator

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from wave.family import Family
from wave.recipe import Batch


@pytest.fixture(scope="session")
def ancestor() -> VisionTransformer:
    """Width 16, depth 4, two heads of 8, images 8x8 of one channel, 5 classes; every tensor is away
    from its start."""
    torch.manual_seed(7)
    model = timm.create_model(
        "vit_tiny_patch16_224",
        embed_dim=16,
        depth=4,
        num_heads=2,
        img_size=8,
        patch_size=4,
        in_chans=1,
        num_classes=5,
    )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


@pytest.fixture(scope="session")
def family(ancestor: VisionTransformer) -> Family:
    return Family.of(ancestor)


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    return torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def make_batches(img_size: int = 8, classes: int = 5) -> Callable[[int], Iterator[Batch]]:
    """Four noisy images a step whose brightness is their label."""

    def run(start: int) -> Iterator[Batch]:
        step = start
        while True:
            generator = torch.Generator().manual_seed(step)
            labels = torch.randint(0, classes, (4,), generator=generator)
            yield Batch(
                torch.randn(4, 1, img_size, img_size, generator=generator)
                + labels.view(-1, 1, 1, 1),
                labels,
            )
            step += 1

    return run


@pytest.fixture
def batches() -> Callable[[int], Iterator[Batch]]:
    return make_batches()


@pytest.fixture
def batches_of() -> Callable[..., Callable[[int], Iterator[Batch]]]:
    return make_batches
