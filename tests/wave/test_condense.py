"""The start of stage 1: closed form, random, and what an ancestor cannot give."""

import pytest
import torch

from tests.wave.models import FAMILIES, exact, images, spec_of, tiny
from wave import KINDS, Family, TargetSpec, TemplateSpec, WaveError, condense, kron_sum, materialise
from wave.condensation import closed_form
from wave.kron import fit_scalers


@pytest.mark.parametrize("order", ["tile", "interleave"])
@pytest.mark.parametrize("family", FAMILIES)
def test_with_as_many_templates_as_blocks_nothing_is_lost(family: str, order: str):
    ancestor = tiny(family)
    model = condense(
        ancestor, spec_of(ancestor, count=8, block=8, order=order)
    )  # proj has 2 layers of 4 blocks
    for kind, part in (("proj", "attn.proj"),):
        for i in range(2):
            name = f"blocks.{i}.{part}.weight"
            torch.testing.assert_close(
                materialise(model)[name],
                ancestor.get_parameter(name).detach(),
                atol=1e-5,
                rtol=1e-5,
            )
        assert model.get_submodule("templates")(kind).shape == (8, 8, 8)
    small = {k: v for k, v in ancestor.named_parameters() if ".attn." not in k and ".mlp." not in k}
    assert len(small) > 5
    assert all(torch.equal(v, model.get_parameter(k)) for k, v in small.items())


def test_a_complete_basis_gives_the_ancestors_logits():
    ancestor = tiny()
    model = condense(ancestor, TemplateSpec.uniform(8, 4, block=2)).eval()
    torch.testing.assert_close(model(images()), ancestor(images()), atol=1e-4, rtol=1e-4)


def test_fewer_templates_fit_all_layers_together_in_least_squares():
    ancestor, spec = tiny(), TemplateSpec.uniform(8, 3)
    templates, state = closed_form(ancestor, spec)
    errors = dict.fromkeys((1, 3, 6), 0.0)
    for count in errors:
        fewer, own = closed_form(ancestor, TemplateSpec.uniform(8, count))
        for i in range(2):
            weight = ancestor.get_parameter(f"blocks.{i}.mlp.fc1.weight").detach()
            built = kron_sum(fewer["fc1"], own[f"blocks.{i}.mlp.fc1.scalers"])
            errors[count] += float(((weight - built) ** 2).sum())
    assert errors[1] > errors[3] > errors[6] > 0
    for kind, part in (("qkv", "attn.qkv"), ("fc2", "mlp.fc2")):
        weight = ancestor.get_parameter(f"blocks.1.{part}.weight").detach()
        torch.testing.assert_close(
            fit_scalers(weight, templates[kind]),
            state[f"blocks.1.{part}.scalers"],
            atol=1e-5,
            rtol=1e-4,
        )


def test_templates_and_scalers_start_with_equal_rms():
    templates, state = closed_form(tiny(), TemplateSpec.uniform(8, 3))
    for kind, part in zip(KINDS, ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"), strict=True):
        scalers = torch.stack([state[f"blocks.{i}.{part}.scalers"] for i in range(2)])
        assert float(scalers.square().mean().sqrt()) == pytest.approx(
            float(templates[kind].square().mean().sqrt()), rel=1e-4
        )


def test_a_random_start_takes_nothing_from_the_ancestor_and_repeats_with_its_seed():
    ancestor = tiny()
    one, two, other = (
        condense(ancestor, spec_of(ancestor), start="random", seed=s) for s in (0, 0, 1)
    )
    assert all(torch.equal(v, two.state_dict()[k]) for k, v in one.state_dict().items())
    assert not torch.equal(one.get_parameter("templates.qkv"), other.get_parameter("templates.qkv"))
    assert not torch.equal(one.get_parameter("head.weight"), ancestor.get_parameter("head.weight"))


def test_the_global_random_state_is_left_alone():
    ancestor = tiny()
    before = torch.get_rng_state()
    condense(ancestor, spec_of(ancestor), seed=9)
    condense(ancestor, spec_of(ancestor), start="random", seed=9)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_auxiliary_size_is_read_off_the_condensed_one():
    ancestor = tiny()
    spec = spec_of(ancestor, count=8)
    same = condense(ancestor, spec).eval()
    grown = condense(ancestor, spec, size=TargetSpec(32, 4), options=exact()).eval()
    torch.testing.assert_close(grown(images()), same(images()), atol=1e-5, rtol=1e-5)
    assert Family.of(ancestor).size == TargetSpec(16, 2, 5, 16, 8)  # the ancestor is as it was
    assert condense(ancestor, spec, size=TargetSpec(8, 1), start="random")(images()).shape == (3, 5)


@pytest.mark.parametrize(
    ("spec", "arguments", "words"),
    [
        (
            TemplateSpec.uniform(8, 20),
            {},
            "proj: 20 templates of 8x8, but the ancestor has 8 blocks; use at most 8",
        ),
        (TemplateSpec.uniform(8, 2), {"start": "pca"}, "use svd or random"),
        (TemplateSpec.uniform(4, 2), {}, "head_dim is 8; these templates were made for 4"),
        (TemplateSpec.uniform(8, 2, block=12), {}, "nearest valid widths: 24"),
        (TemplateSpec.uniform(8, 2), {"size": TargetSpec(20, 2)}, "embed_dim=20"),
    ],
)
def test_what_cannot_be_condensed(spec: TemplateSpec, arguments: dict[str, object], words: str):
    with pytest.raises(WaveError, match=words):
        condense(tiny(), spec, **arguments)
