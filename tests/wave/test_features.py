"""Features: growth that keeps the function has the ancestor's own, and training brings other sizes
closer."""

from collections.abc import Iterator

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from tests.wave.models import exact, images, tiny
from wave import (
    KINDS,
    Batch,
    Family,
    MultiSize,
    Recipe,
    TargetSpec,
    Teacher,
    TemplateSpec,
    Trainer,
    condense,
)
from wave.features import Match, distance, read

FAMILIES = ["class token", "no class token, avg", "distilled", "registers", "layer scale"]


def grown(family: str, count: int | None = None) -> tuple[VisionTransformer, MultiSize]:
    """An ancestor, and templates that hold all of it unless there are only ``count`` of them."""
    ancestor = tiny(family, depth=3)
    found, blocks = Family.of(ancestor), {"qkv": 36, "proj": 12, "fc1": 48, "fc2": 48}
    counts = {kind: count or blocks[kind] for kind in KINDS}
    spec = TemplateSpec(dict.fromkeys(KINDS, (8, 8)), counts, found.head_dim, found.mlp_ratio)
    return ancestor, MultiSize(condense(ancestor, spec), found, found.size, exact()).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_features_lead_to_the_model_s_own_logits(family: str):
    model = tiny(family).eval()
    found = read(model, images())
    torch.testing.assert_close(found.logits, model(images()))
    assert len(found.tokens) == len(model.blocks) - 1
    tokens = model.norm_pre(model._pos_embed(model.patch_embed(images())))
    torch.testing.assert_close(found.tokens[0], model.blocks[0](tokens))


@pytest.mark.parametrize("family", FAMILIES)
def test_growth_that_keeps_the_function_is_at_no_distance(family: str):
    ancestor, sizes = grown(family)
    wide = TargetSpec(2 * ancestor.embed_dim, len(ancestor.blocks))
    with torch.no_grad():
        for targets in ([], [wide]):
            _, apart = sizes(images(), targets, read(ancestor, images()))
            assert apart < 1e-8
        ancestor.get_parameter("blocks.0.mlp.fc2.bias")[0] += (
            1  # now its tokens differ from the first block on
        )
        _, apart = sizes(images(), [wide], read(ancestor, images()))
        assert apart > 1e-4


def test_a_cropped_size_is_compared_by_the_channels_it_has():
    ancestor, sizes = grown("class token")
    cropped = TargetSpec(12, 3, num_heads=2)
    _, apart = sizes(images(), [cropped], read(ancestor, images()))
    apart.backward()
    assert (
        apart.isfinite()
        and sizes.auxiliary.get_parameter("blocks.1.mlp.fc2.scalers").grad.abs().sum() > 0
    )
    assert sizes._match(cropped).channels == tuple(range(12))


def test_layers_and_channels_are_those_that_a_size_is_read_off():
    ancestor, sizes = grown("class token")
    size, spec = sizes.size, sizes.auxiliary.get_submodule("templates").spec
    target = sizes.family.resolve(TargetSpec(size.embed_dim // 2, 2 * size.depth))
    found = Match.of(size, size, target, spec, exact())
    assert len(set(found.channels)) == len(found.channels) == target.embed_dim
    assert [source for _, source in found.layers] == list(range(size.depth - 1))
    assert all(layer < target.depth - 1 for layer, _ in found.layers)
    one = sizes.family.resolve(TargetSpec(size.embed_dim, 1))
    assert Match.of(size, size, one, spec, exact()).layers == ()
    features = read(sizes._bound(one), images()), read(ancestor, images())
    assert 0 < distance(*features, Match.of(size, size, one, spec, exact())) < torch.inf


def test_training_by_features_alone_brings_a_size_closer():
    ancestor, sizes = grown("class token", count=2)
    target = TargetSpec(ancestor.embed_dim, 2)
    teacher = Teacher(ancestor, [0.0], [1.0])
    recipe = Recipe(steps=30, lr=3e-3, kl_weight=0.0, ce_weight=1e-9, log_every=1)
    trainer = Trainer(
        sizes, recipe, 30, teacher=teacher, sampler=lambda _: [target], feature_weight=1.0
    )

    def batches(start: int) -> Iterator[Batch]:
        while True:
            yield Batch(images(), torch.zeros(len(images()), dtype=torch.long))

    losses = [metrics["loss"] for metrics in trainer.run(batches)]
    assert losses[-1] < 0.7 * losses[0]
