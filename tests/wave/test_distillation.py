"""Distillation and resizing in one call, on tiny models and on any iterable of images."""

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from tests.wave.models import CLASSES, exact, images, tiny
from wave import Metrics, Recipe, TargetSpec, Templates, WaveError, distil, initialise, resize

SIZES = [TargetSpec(8, 1), TargetSpec(16, 2), TargetSpec(24, 3)]


def batches(count: int = 4, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (images(size, seed=i), torch.randint(CLASSES, (size,), generator=generator))
        for i in range(count)
    ]


def test_templates_of_one_call_give_any_size_and_are_saved_and_read_back(tmp_path):
    model = tiny()
    templates = distil(model, batches(), SIZES, steps=6, templates=6, device="cpu")
    templates.save(tmp_path / "templates")
    again = Templates.load(tmp_path / "templates")
    for target in (*SIZES, TargetSpec(12, 2, num_heads=2)):
        made, read = initialise(templates, target), initialise(again, target)
        assert made.embed_dim == target.embed_dim
        assert len(made.blocks) == target.depth
        assert torch.equal(made.eval()(images()), read.eval()(images()))


def test_the_loss_falls_and_progress_is_told():
    seen: list[Metrics] = []
    recipe = Recipe(steps=1, lr=3e-3, ce_weight=0, log_every=10)
    data = [batch for batch, _ in batches()]
    distil(
        tiny(),
        data,
        SIZES[1:2],
        steps=120,
        templates=2,
        recipe=recipe,
        device="cpu",
        progress=seen.append,
    )
    assert [m["step"] for m in seen] == list(range(10, 121, 10))
    assert seen[-1]["loss"] < 0.5 * seen[0]["loss"]


def test_images_alone_teach_by_the_ancestors_logits():
    """Labels are read where there are some: the same images with labels give other templates."""
    alone = distil(
        tiny(), [batch for batch, _ in batches()], SIZES, steps=4, templates=4, device="cpu"
    )
    with_labels = distil(tiny(), batches(), SIZES, steps=4, templates=4, device="cpu")
    assert not torch.equal(alone.bank["fc1"], with_labels.bank["fc1"])


def test_a_data_loader_is_read_again_when_it_ends_and_the_model_stays():
    model = tiny()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    data = DataLoader(TensorDataset(images(10), torch.arange(10) % CLASSES), batch_size=5)
    distil(model, data, steps=5, templates=4, device="cpu")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("loader", "says"),
    [
        (iter(batches()), "only once"),
        ([], "no batch"),
        ([torch.zeros(2, 3, 16, 16, dtype=torch.uint8)], "uint8"),
        ([{"image": 1}], "must be a float tensor"),
    ],
)
def test_a_loader_that_cannot_serve_is_named(loader, says):
    with pytest.raises(WaveError, match=says):
        distil(tiny(), loader, SIZES, steps=2, templates=4, device="cpu")


def test_labels_in_the_recipe_without_labels_in_the_loader():
    with pytest.raises(WaveError, match="images alone"):
        distil(
            tiny(), [images(4)], SIZES, steps=2, templates=4, recipe=Recipe(steps=2), device="cpu"
        )


def test_the_same_size_and_whole_multiples_keep_the_function():
    model = tiny()
    wanted = model(images())
    for target in (TargetSpec(16, 2), TargetSpec(32, 2), TargetSpec(16, 4)):
        torch.testing.assert_close(
            resize(model, target, images(), exact()).eval()(images()), wanted, atol=1e-4, rtol=0
        )


def test_resizing_is_a_plain_model_of_the_size_with_other_classes_too():
    made = resize(tiny(), TargetSpec(24, 3, num_classes=7), images())
    assert made(images()).shape == (3, 7)
    assert made.embed_dim == 24
