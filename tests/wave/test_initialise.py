"""Templates and a target to a model: templated for training, plain as the product."""

import pytest
import torch

from tests.wave.models import FAMILIES, exact, images, spec_of, tiny
from wave import (
    Family,
    Resampling,
    TargetSpec,
    TemplatedLinear,
    Templates,
    WaveError,
    condense,
    initialise,
    plain_model,
    target_model,
)
from wave.optimiser import parameter_groups
from wave.recipe import Recipe


def templates(
    family: str = "class token", options: Resampling | None = None
) -> tuple[Templates, torch.nn.Module]:
    ancestor = tiny(family)
    model = condense(ancestor, spec_of(ancestor, count=8)).eval()
    return Templates.of(model, Family.of(ancestor), options or Resampling(), {}), model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_auxiliary_size_is_the_auxiliary_model(family: str):
    found, model = templates(family)
    torch.testing.assert_close(
        initialise(found, found.size).eval()(images()), model(images()), atol=1e-6, rtol=1e-6
    )


def test_the_product_is_plain_and_equals_the_templated_model():
    found, _ = templates()
    target = TargetSpec(24, 3)
    model = target_model(found, target).eval()
    plain = plain_model(found, model).eval()
    assert not any(isinstance(m, TemplatedLinear) for m in plain.modules())
    assert not any("templates" in k or "scalers" in k for k in plain.state_dict())
    torch.testing.assert_close(plain(images()), model(images()), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(initialise(found, target).eval()(images()), plain(images()))


def test_stage_two_trains_everything_but_the_templates():
    found, _ = templates()
    model = target_model(found, TargetSpec(24, 3))
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {f"templates.{k}" for k in ("qkv", "proj", "fc1", "fc2")}
    moved = {id(p) for g in parameter_groups(model, Recipe(steps=1)) for p in g["params"]}
    assert moved == {id(p) for n, p in model.named_parameters() if n not in frozen}
    model(images()).sum().backward()
    assert model.get_parameter("blocks.2.mlp.fc2.scalers").grad is not None


def test_growth_with_the_exact_options_is_the_auxiliary_model():
    found, model = templates(options=exact(symmetry="split"))
    torch.testing.assert_close(
        initialise(found, TargetSpec(48, 5)).eval()(images()), model(images()), atol=1e-5, rtol=1e-5
    )
    other = initialise(found, TargetSpec(48, 5), Resampling(width_scale="none")).eval()
    assert not torch.allclose(other(images()), model(images()), atol=1e-2)


def test_random_scalers_keep_the_templates_only():
    found, _ = templates()
    one, same, other = (
        target_model(found, found.size, scalers="random", seed=s) for s in (0, 0, 1)
    )
    assert torch.equal(one.get_parameter("templates.qkv"), found.bank["qkv"])
    name = "blocks.0.attn.qkv.scalers"
    assert torch.equal(one.get_parameter(name), same.get_parameter(name))
    assert not torch.equal(one.get_parameter(name), other.get_parameter(name))
    assert not torch.equal(one.get_parameter("cls_token"), found.state["cls_token"])


def test_a_fresh_head_depends_on_the_seed_and_the_rest_does_not():
    found, _ = templates()
    one, other = (target_model(found, TargetSpec(16, 2, num_classes=7), seed=s) for s in (0, 1))
    differing = {n for n, p in one.named_parameters() if not torch.equal(p, other.get_parameter(n))}
    assert differing == {"head.weight"}
    assert one(images()).shape == (3, 7)


def test_the_global_random_state_is_left_alone():
    found, _ = templates()
    before = torch.get_rng_state()
    target_model(found, TargetSpec(24, 3), seed=4)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("target", "arguments", "words"),
    [
        (TargetSpec(20, 2), {}, "nearest valid widths are 16 and 24"),
        (TargetSpec(16, 2, img_size=20), {}, "img_size=20"),
        (TargetSpec(16, 2), {"scalers": "ones"}, "resample, random"),
    ],
)
def test_what_cannot_be_initialised(target: TargetSpec, arguments: dict[str, object], words: str):
    with pytest.raises(WaveError, match=words):
        target_model(templates()[0], target, **arguments)
