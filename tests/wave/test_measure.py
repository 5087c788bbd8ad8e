"""Accuracy, logits and cost against direct counting."""

import pytest
import torch

from tests.wave.models import images, tiny
from wave import Batch, accuracy, all_logits, macs, num_parameters


def batches(count: int = 3) -> list[Batch]:
    return [Batch(images(4, seed=i), torch.arange(4) % 5) for i in range(count)]


def test_accuracy_is_the_fraction_of_right_answers_and_the_mode_is_restored():
    model = tiny(drop_rate=0.9).train()
    found = accuracy(model, batches())
    assert model.training
    right = sum(
        int(model.eval()(x[None]).argmax() == y)
        for b in batches()
        for x, y in zip(b.images, b.labels, strict=True)
    )
    assert found == pytest.approx(right / 12)
    perfect = [b._replace(labels=model(b.images).argmax(1)) for b in batches()]
    assert accuracy(model, perfect) == 1.0


def test_logits_are_in_order_and_the_mode_is_restored():
    model = tiny(drop_rate=0.9).train()
    found = all_logits(model, batches())
    assert model.training
    assert found.shape == (12, 5)
    torch.testing.assert_close(found, model.eval()(torch.cat([b.images for b in batches()])))


def test_parameters_are_counted():
    assert num_parameters(torch.nn.Linear(3, 4)) == 16


def test_macs_of_a_vit_are_those_of_its_matrices_and_attention():
    model = tiny().train()
    d, depth, tokens, patches = 16, 2, 5, 4
    dense = patches * 3 * 64 * d + 5 * d  # patch embedding of 8 x 8 x 3, and the head
    blocks = depth * (12 * tokens * d * d + 2 * tokens * tokens * d)
    assert macs(model, 16, 3) == dense + blocks
    assert model.training
