"""The ancestor reads the student's batches: other statistics, channels and image sizes."""

import pytest
import torch
from torch.nn import functional as F

from tests.wave.models import images, tiny
from wave import Teacher, WaveError

OURS = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
THEIRS = ((0.1, 0.2, 0.6), (0.5, 0.25, 0.3))


def normal(pixels: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    return (pixels - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)


def test_equal_statistics_change_nothing():
    model = tiny()
    for statistics in ((), OURS):
        torch.testing.assert_close(Teacher(model, *OURS, *statistics)(images()), model(images()))


def test_other_statistics_see_the_same_picture():
    model, pixels = tiny(), images().sigmoid()
    found = Teacher(model, *OURS, *THEIRS)(normal(pixels, *OURS))
    torch.testing.assert_close(found, model(normal(pixels, *THEIRS)), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, model(normal(pixels, *OURS)), atol=1e-2)


def test_grey_images_are_repeated_for_a_colour_teacher():
    model, pixels = tiny(), images(channels=1).sigmoid()
    found = Teacher(model, (0.5,), (0.2,), *THEIRS)(normal(pixels, (0.5,), (0.2,)))
    torch.testing.assert_close(
        found, model(normal(pixels.expand(-1, 3, -1, -1), *THEIRS)), atol=1e-5, rtol=1e-5
    )
    found = Teacher(model, (0.5,), (0.2,))(normal(pixels, (0.5,), (0.2,)))
    torch.testing.assert_close(found, model(normal(pixels, (0.5,), (0.2,)).expand(-1, 3, -1, -1)))


def test_colour_images_are_averaged_for_a_grey_teacher():
    model, pixels = tiny(in_chans=1), images().sigmoid()
    found = Teacher(model, *OURS, (0.1,), (0.5,))(normal(pixels, *OURS))
    torch.testing.assert_close(
        found, model(normal(pixels.mean(1, keepdim=True), (0.1,), (0.5,))), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("pixels", [8, 32])
def test_images_are_resized_for_the_teacher(pixels: int):
    model, x = tiny(), images(pixels=pixels)
    expected = model(F.interpolate(x, (16, 16), mode="bilinear", antialias=True))
    torch.testing.assert_close(Teacher(model, *OURS)(x), expected)


def test_the_teacher_is_frozen_and_in_evaluation_mode():
    model = tiny(drop_rate=0.9).train()
    teacher = Teacher(model, *OURS)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    logits = teacher(images().requires_grad_())
    assert not logits.requires_grad
    assert torch.equal(logits, teacher(images()))


@pytest.mark.parametrize(
    ("channels", "ours", "theirs"),
    [
        (3, (0.5, 0.5), None),
        (2, (0.5,) * 3, None),
        (3, (0.5,) * 3, (0.5, 0.5)),
        (3, (0.5,), (0.5, 0.5)),
    ],
)
def test_channels_that_cannot_be_matched(
    channels: int, ours: tuple[float, ...], theirs: tuple[float, ...] | None
):
    with pytest.raises(WaveError, match="channels"):
        Teacher(tiny(in_chans=channels), ours, ours, theirs, theirs)
