"""timm's models: which are templated, what is exported, and which are refused without being
touched."""

import copy
import functools

import pytest
import timm
import torch
from timm.layers import SwiGLU
from timm.models.vision_transformer import ParallelScalingBlock
from torch import nn

from tests.wave.models import FAMILIES, TINY, VIT, images, randomise, spec_of, tiny
from wave import (
    KINDS,
    Family,
    TargetSpec,
    TemplateBank,
    TemplatedLinear,
    TemplateSpec,
    WaveError,
    materialise,
    templated,
)
from wave.vit import axes_of

SIZES = [(8, 1), (16, 1), (16, 3), (24, 2), (40, 2), (48, 4), (64, 1)]
PART = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


def built(family: Family, target: TargetSpec, seed: int = 0, order: str = "tile") -> nn.Module:
    """A templated model of random numbers."""
    spec = TemplateSpec.uniform(family.head_dim, 6, mlp_ratio=family.mlp_ratio, order=order)
    model = templated(family.create(target), TemplateBank(spec))
    randomise(model, seed)
    return model.eval()


def same_logits(family: Family, target: TargetSpec, order: str = "tile") -> None:
    """The exported plain model computes what the templated one does."""
    model = built(family, target, order=order)
    plain = family.create(target)
    plain.load_state_dict(materialise(model), strict=True)
    full = family.resolve(target)
    x = images(channels=family.in_chans, pixels=full.img_size)
    with torch.no_grad():
        wanted, found = model(x), plain.eval()(x)
    assert wanted.std() > 0.01  # an output that does not depend on anything would prove nothing
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_export_equals_the_templated_model_in_every_family(family: str):
    same_logits(Family.of(tiny(family)), TargetSpec(24, 2))


@pytest.mark.parametrize(("width", "depth"), SIZES)
@pytest.mark.parametrize("order", ["tile", "interleave"])
def test_export_equals_the_templated_model_at_every_size(width: int, depth: int, order: str):
    same_logits(Family.of(tiny()), TargetSpec(width, depth), order)


def test_export_with_other_classes_images_patches_and_channels():
    same_logits(
        Family.of(tiny(in_chans=1)), TargetSpec(16, 2, num_classes=7, img_size=24, patch_size=4)
    )


def test_the_exported_weights_are_those_trained_under_bfloat16():
    model = built(Family.of(tiny()), TargetSpec(16, 2))
    with torch.autocast("cpu", torch.bfloat16):
        inside = materialise(model)
    assert all(torch.equal(v, inside[k]) for k, v in materialise(model).items())
    assert all(v.dtype == torch.float32 for v in inside.values())


def swiglu(*args: object, norm_layer: object = None, **kwargs: object) -> nn.Module:
    return SwiGLU(*args, **{k: v for k, v in kwargs.items() if k != "act_layer"})


def make(name: str) -> nn.Module:
    vit = functools.partial(timm.create_model, VIT, **TINY)
    makers = {
        "SwinTransformer": lambda: timm.create_model(
            "swin_tiny_patch4_window7_224", embed_dim=8, depths=(1, 1), num_heads=(1, 1)
        ),
        "ConvNeXt": lambda: timm.create_model(
            "convnext_atto", dims=(4, 4, 4, 4), depths=(1, 1, 1, 1)
        ),
        "Eva": lambda: timm.create_model(
            "eva02_tiny_patch14_224", embed_dim=16, depth=1, num_heads=2
        ),
        "pools by attention": lambda: vit(global_pool="map"),
        "pools by attention .prr": lambda: vit(global_pool="prr"),
        "HybridEmbed": lambda: timm.create_model(
            "vit_tiny_r_s16_p8_224", embed_dim=16, depth=1, num_heads=2
        ),
        "SwiGLU": lambda: vit(mlp_layer=swiglu),
        "ParallelScalingBlock": lambda: vit(block_fn=ParallelScalingBlock),
        "VisionTransformerRelPos": lambda: timm.create_model(
            "vit_relpos_small_patch16_224", embed_dim=16, depth=1, num_heads=2
        ),
        "Linear": lambda: nn.Linear(2, 2),
    }
    return makers[name]()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SwinTransformer", "SwinTransformer is not supported"),
        ("ConvNeXt", "ConvNeXt is not supported"),
        ("Eva", "Eva is not supported.*rotary"),
        ("pools by attention", "has global_pool='map'; supported are token, avg, max, avgmax"),
        ("pools by attention .prr", "has global_pool='prr'; supported are token, avg, max, avgmax"),
        ("HybridEmbed", "patch_embed is HybridEmbed.*PatchEmbed"),
        ("SwiGLU", r"blocks\.0\.mlp is SwiGLU"),
        ("ParallelScalingBlock", r"blocks\.0 is ParallelScalingBlock"),
        ("VisionTransformerRelPos", "VisionTransformerRelPos is not supported"),
        ("Linear", "Linear is not supported"),
    ],
)
def test_what_is_not_supported_is_refused_by_name_and_unchanged(name: str, words: str):
    model = make(name)
    before = {k: type(m) for k, m in model.named_modules()}
    with pytest.raises(WaveError, match=words) as caught:
        templated(model, TemplateBank(TemplateSpec.uniform(8, 2)))
    assert "\n" not in str(caught.value)
    assert {k: type(m) for k, m in model.named_modules()} == before
    with pytest.raises(WaveError, match=words):
        Family.of(model)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (TemplateSpec.uniform(4, 2), "head_dim is 8; these templates were made for 4"),
        (TemplateSpec.uniform(8, 2, block=12, order="interleave"), "nearest valid widths: 24"),
    ],
)
def test_templates_of_another_shape_leave_the_model_unchanged(spec: TemplateSpec, words: str):
    model = tiny()
    before = {k: type(m) for k, m in model.named_modules()}
    with pytest.raises(WaveError, match=words):
        templated(model, TemplateBank(spec))
    assert {k: type(m) for k, m in model.named_modules()} == before


def test_gated_attention_is_refused():
    model = tiny()
    model.blocks[1].attn.gate = nn.Linear(16, 16)
    with pytest.raises(WaveError, match="gated"):
        templated(model, TemplateBank(spec_of(model)))


def test_a_model_that_timm_did_not_create_and_oblong_images_are_refused():
    model = tiny()
    model.pretrained_cfg = {}
    with pytest.raises(WaveError, match="which timm architecture"):
        Family.of(model)
    with pytest.raises(WaveError, match=r"16x24.*square"):
        Family.of(tiny(img_size=(16, 24)))


def test_the_small_tensors_stay_the_ancestors():
    model = tiny("distilled")
    kept = {
        k: v.detach().clone()
        for k, v in model.named_parameters()
        if not any(f"{p}.weight" in k for p in PART.values())
    }
    state = templated(model, TemplateBank(spec_of(model))).state_dict()
    assert "head_dist.bias" in kept
    assert all(torch.equal(state[k], v) for k, v in kept.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_axes_that_grow_are_those_whose_length_does(family: str):
    ancestor = tiny(family)
    found, spec = Family.of(ancestor), spec_of(ancestor)
    wide = dict(found.create(TargetSpec(24, 2)).named_parameters())
    for name, small in ancestor.named_parameters():
        ratios = {
            "embed": 24 / 16,
            "attn": 24 / 16,
            "qkv": 24 / 16,
            "hidden": 24 / 16,
            "head": 1,
            None: 1,
        }
        grows = axes_of(name)
        padded = (*grows, *[None] * (small.ndim - len(grows)))
        assert [s * ratios[a] for s, a in zip(small.shape, padded, strict=True)] == list(
            wide[name].shape
        ), name
        for length, axis in zip(small.shape, padded, strict=True):
            assert axis is None or length == spec.shape(found.size).length(axis), name


# --- the special cases of the method: full-size templates and scalers of 1 x 1 ---


def full_size(
    count: int, depth: int, scalers: torch.Tensor
) -> tuple[nn.Module, dict[str, torch.Tensor], nn.Module]:
    """A real ViT of full-size templates, its templates, and the plain model that is exported from
    it."""
    blocks = {"qkv": (48, 16), "proj": (16, 16), "fc1": (64, 16), "fc2": (16, 64)}
    family = Family.of(tiny())
    bank = TemplateBank(TemplateSpec(blocks, dict.fromkeys(KINDS, count), 8))
    model = templated(family.create(TargetSpec(16, depth)), bank)
    randomise(model)
    for name, p in model.named_parameters():
        if name.endswith(".scalers"):
            assert p.shape == (count, 1, 1)
            p.data.copy_(scalers[int(name.split(".")[1])].view(count, 1, 1))
    plain = family.create(TargetSpec(16, depth))
    plain.load_state_dict(materialise(model))
    return model, {kind: bank(kind).detach() for kind in KINDS}, plain.eval()


def check_layers(plain: nn.Module, wanted: dict[str, list[torch.Tensor]]) -> None:
    """The exported model equals one whose weights are written down directly."""
    direct = copy.deepcopy(plain)
    with torch.no_grad():
        for kind, layers in wanted.items():
            for i, weight in enumerate(layers):
                direct.get_parameter(f"blocks.{i}.{PART[kind]}.weight").copy_(weight)
                torch.testing.assert_close(
                    plain.get_parameter(f"blocks.{i}.{PART[kind]}.weight"), weight
                )
        torch.testing.assert_close(plain(images()), direct(images()))


def test_tleg_is_two_full_size_templates_and_a_straight_line_over_the_layers():
    depth = 4
    _, t, plain = full_size(2, depth, torch.tensor([[1, i / depth] for i in range(depth)]))
    check_layers(plain, {k: [t[k][0] + i / depth * t[k][1] for i in range(depth)] for k in KINDS})


def test_stage_wise_sharing_is_one_template_a_stage():
    stages = [0, 0, 1, 1, 2]
    _, t, plain = full_size(3, 5, torch.eye(3)[stages])
    check_layers(plain, {k: [t[k][s] for s in stages] for k in KINDS})


def test_one_shared_block_is_one_template_with_scaler_one():
    _, t, plain = full_size(1, 3, torch.ones(3, 1))
    check_layers(plain, {k: [t[k][0]] * 3 for k in KINDS})


def test_a_templated_layer_stands_where_each_dense_one_stood():
    model = built(Family.of(tiny()), TargetSpec(16, 3))
    assert [n for n, m in model.named_modules() if isinstance(m, TemplatedLinear)] == [
        f"blocks.{i}.{PART[k]}" for i in range(3) for k in KINDS
    ]
