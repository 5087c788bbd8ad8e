"""Several sizes in one forward: equal to the models they stand for, with the gradient in the right
place."""

import math

import pytest
import torch
from torch import nn

from tests.wave.models import exact, images, spec_of, tiny
from wave import (
    Family,
    MultiSize,
    Resampling,
    SizeSampler,
    TargetSpec,
    Templates,
    WaveError,
    condense,
    initialise,
    resample,
)
from wave.multisize import inverse_cost
from wave.vit import own_state

SIZES = [
    TargetSpec(8, 1),
    TargetSpec(16, 4),
    TargetSpec(24, 2),
    TargetSpec(32, 3),
    TargetSpec(16, 2),
]
CROPPED = [TargetSpec(12, 2, num_heads=2), TargetSpec(20, 3, num_heads=4, mlp_ratio=2.3)]
OPTIONS = [Resampling(), exact(), exact(symmetry="noise", depth="linear")]


def build(options: Resampling, family: str = "class token") -> MultiSize:
    ancestor = tiny(family)
    found = Family.of(ancestor)
    return MultiSize(
        condense(ancestor, spec_of(ancestor, count=8)), found, found.size, options, always=True
    ).eval()


@pytest.mark.parametrize("options", OPTIONS, ids=["default", "exact", "noise"])
@pytest.mark.parametrize("family", ["class token", "distilled", "registers", "layer scale"])
def test_logits_are_those_of_the_plain_models_that_initialise_gives(
    family: str, options: Resampling
):
    model = build(options, family)
    templates = Templates.of(model.auxiliary, model.family, options, {})
    targets = [*SIZES, *CROPPED]
    logits = model(images(), targets)
    assert len(logits) == 1 + len(targets)
    torch.testing.assert_close(logits[0], model.auxiliary(images()))
    for target, found in zip(targets, logits[1:], strict=True):
        plain = initialise(templates, target).eval()
        torch.testing.assert_close(found, plain(images()), atol=1e-5, rtol=1e-5)


def test_the_skeleton_is_built_once_and_reads_the_present_parameters():
    model, target = build(exact()), TargetSpec(32, 3)
    before = model(images(), [target])[1]
    skeleton = next(iter(model._skeletons.values()))
    with torch.no_grad():
        model.auxiliary.get_parameter("blocks.0.attn.qkv.scalers").mul_(2)
        model.auxiliary.get_parameter("head.bias").add_(1)
    after = model(images(), [target])[1]
    assert next(iter(model._skeletons.values())) is skeleton
    assert not torch.allclose(before, after)
    plain = initialise(Templates.of(model.auxiliary, model.family, exact(), {}), target).eval()
    torch.testing.assert_close(after, plain(images()), atol=1e-5, rtol=1e-5)


def test_the_gradient_of_a_sampled_size_alone_reaches_templates_and_auxiliary_scalers():
    model, target = build(exact(symmetry="split")), TargetSpec(32, 3)
    model(images(), [target])[1].square().sum().backward()
    grads = {k: p.grad for k, p in model.named_parameters()}
    assert all(g is not None and g.abs().sum() > 0 for k, g in grads.items() if "qkv.bias" not in k)
    # The slow form: a separate model of that size, its gradients pulled back through the map by
    # autograd.
    own = {k: v.detach().clone().requires_grad_() for k, v in own_state(model.auxiliary).items()}
    bank = model.auxiliary.get_submodule("templates")
    state = resample(own, model.size, model.family.resolve(target), bank.spec, model.options)
    plain = initialise(
        Templates.of(model.auxiliary, model.family, model.options, {}), target
    ).eval()
    dense = {k: v for k, v in state.items() if not k.endswith(".scalers")}
    for k, v in state.items():
        if k.endswith(".scalers"):
            kind = k.split(".")[3]
            blocks = [torch.kron(s, t) for s, t in zip(v, bank(kind).detach(), strict=True)]
            dense[k.replace(".scalers", ".weight")] = torch.stack(blocks).sum(0)
    torch.func.functional_call(plain, dense, images()).square().sum().backward()
    for name, tensor in own.items():
        torch.testing.assert_close(grads[f"auxiliary.{name}"], tensor.grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("target", CROPPED, ids=[t.name for t in CROPPED])
def test_the_gradient_of_a_cropped_size_reaches_templates_and_auxiliary_scalers(target: TargetSpec):
    model = build(Resampling())
    model(images(), [target])[1].square().sum().backward()
    grads = {k: p.grad for k, p in model.named_parameters()}
    assert all(
        g.isfinite().all() and g.abs().sum() > 0 for k, g in grads.items() if "qkv.bias" not in k
    )


def test_one_optimiser_step_on_a_size_lowers_its_loss():
    model, target = build(Resampling()), TargetSpec(24, 3)
    y = torch.tensor([0, 1, 2])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        loss = nn.functional.cross_entropy(model(images(), [target])[1], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[1] < losses[0]


def test_training_mode_reaches_every_size():
    model = build(exact())
    model.train()(images(), [TargetSpec(32, 3)])
    assert all(s.training for s in model._skeletons.values())
    model.eval()(images(), [TargetSpec(32, 3)])
    assert not any(s.training for s in model._skeletons.values())


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (TargetSpec(20, 2), "nearest valid widths are 16 and 24"),
        (TargetSpec(16, 2, num_classes=7), "d016-l02-c7 has 7 classes"),
        (TargetSpec(16, 2, img_size=32), "32 pixels"),
    ],
)
def test_sizes_that_cannot_share_the_batch(target: TargetSpec, words: str):
    with pytest.raises(WaveError, match=words):
        build(exact())(images(), [target])


def test_another_patch_size_reads_the_same_batch():
    assert build(exact())(images(), [TargetSpec(16, 2, patch_size=4)])[1].shape == (3, 5)


def test_the_sampler_is_a_function_of_step_and_seed():
    sampler, again, other = (
        SizeSampler(SIZES, 2, seed=4),
        SizeSampler(SIZES, 2, seed=4),
        SizeSampler(SIZES, 2, seed=5),
    )
    drawn = [sampler(step) for step in range(200)]
    assert drawn == [again(step) for step in range(200)]
    assert drawn[50:60] == [sampler(step) for step in range(50, 60)]  # no memory of earlier calls
    assert drawn != [other(step) for step in range(200)]
    assert all(len({t.name for t in targets}) == 2 for targets in drawn)
    for target in SIZES:  # equal chance, within five standard deviations
        share = sum(target in targets for targets in drawn)
        assert abs(share - 80) < 5 * math.sqrt(200 * 0.4 * 0.6)


def test_sizes_alone_give_a_gradient_to_every_parameter_and_zero_to_layers_that_none_reads():
    model, small = build(exact()), TargetSpec(16, 1)
    model.always = False
    both = model(images(), [small, TargetSpec(32, 3)])
    model.always = True
    _, *same = model(images(), [small, TargetSpec(32, 3)])
    assert len(both) == 2
    torch.testing.assert_close(both, same)
    model.always = False
    model(images(), [small])[0].sum().backward()
    grads = {k: p.grad for k, p in model.named_parameters()}
    assert all(g is not None for g in grads.values())
    depth = len(model.auxiliary.blocks)
    read = [
        bool(grads[f"auxiliary.blocks.{i}.mlp.fc1.scalers"].abs().sum() > 0) for i in range(depth)
    ]
    assert sum(read) == 1, "a model of one layer reads one layer"
    assert len(model(images())) == 1, "without sizes the auxiliary model reads the images"


def test_weights_draw_each_size_in_proportion():
    drawn = [
        SizeSampler(SIZES, 1, seed=1, weights=inverse_cost(SIZES, 1))(step)[0]
        for step in range(2000)
    ]
    weights = inverse_cost(SIZES, 1)
    for target, weight in zip(SIZES, weights, strict=True):
        share = weight / sum(weights)
        assert abs(drawn.count(target) - 2000 * share) < 5 * math.sqrt(2000 * share * (1 - share))
    spent = [drawn.count(t) * t.depth * t.embed_dim**2 for t in SIZES]
    assert max(spent) < 1.5 * min(spent), "each size takes the same share of the computing"


def test_the_sampler_draws_no_more_sizes_than_there_are():
    assert sorted(t.name for t in SizeSampler(SIZES, 99)(3)) == sorted(t.name for t in SIZES)
    with pytest.raises(WaveError, match="per_step=0 must be at least 1"):
        SizeSampler(SIZES, 0)
    assert SizeSampler([], 1)(0) == []
    torch.manual_seed(0)
    before = torch.get_rng_state()
    SizeSampler(SIZES)(1)
    assert torch.equal(torch.get_rng_state(), before)
