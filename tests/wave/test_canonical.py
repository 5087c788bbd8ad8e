"""The canonical form: every family's function is kept, and what stands first carries most."""

import pytest
import torch

from tests.wave.models import FAMILIES, exact, images, spec_of, tiny
from wave import Family, Resampling, TargetSpec, canonical, condense, resample
from wave.typed import blocks_of

TURNED = {
    "class token",
    "registers",
    "layer scale",
    "distilled",
    "rmsnorm",
    "no positions",
    "class token, avg",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_function_is_kept(family: str):
    ancestor = tiny(family)
    before = {k: v.clone() for k, v in ancestor.state_dict().items()}
    other = canonical(ancestor, images(8))
    torch.testing.assert_close(
        other(images(seed=2)), ancestor(images(seed=2)), atol=1e-5, rtol=1e-5
    )
    assert all(torch.equal(v, before[k]) for k, v in ancestor.state_dict().items())
    assert Family.of(other) == Family.of(ancestor)
    changed = {k for k, v in other.state_dict().items() if not torch.equal(v, before[k])}
    assert {f"blocks.{i}.mlp.fc1.weight" for i in range(2)} <= changed
    if family in TURNED:
        assert "patch_embed.proj.weight" in changed
        assert torch.equal(blocks_of(other)[0].norm1.weight, torch.ones(16))


def test_leading_channels_are_principal_components_and_ones_stay():
    ancestor = tiny(embed_dim=64, num_heads=8)
    with torch.no_grad():  # a stream that lives in few directions
        for block in blocks_of(ancestor):
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight[:, 8:] = 0
    shares: list[float] = []
    for model in (ancestor, canonical(ancestor, images(8))):
        seen: list[torch.Tensor] = []
        model.blocks[1].norm1.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0]))
        model(images(8))
        stream = seen[0].flatten(0, 1)
        stream = stream - stream.mean(1, keepdim=True)
        shares.append(
            float(stream.detach()[:, :32].square().sum() / stream.detach().square().sum())
        )
    assert shares[0] < 0.7 < 0.9 < shares[1]


def test_heads_and_hidden_units_stand_in_the_order_of_what_they_write():
    model = canonical(tiny(), images(8))
    for block in blocks_of(model):
        kept: dict[str, torch.Tensor] = {}
        for name, layer in (("heads", block.attn.proj), ("hidden", block.mlp.fc2)):
            layer.register_forward_pre_hook(
                lambda _, x, n=name, k=kept: k.__setitem__(n, x[0].flatten(0, 1))
            )
        model(images(8))
        hidden = kept["hidden"].square().mean(0) * block.mlp.fc2.weight.square().sum(0)
        assert bool((hidden.diff() <= 1e-6).all())
        first, second = (
            (kept["heads"][:, h] @ block.attn.proj.weight[:, h].T).square().mean()
            for h in (slice(8), slice(8, 16))
        )
        assert first > second


def test_inside_a_head_rows_are_orthogonal_balanced_and_in_order():
    q, k, v = canonical(tiny(qkv_bias=False), images(8)).blocks[0].attn.qkv.weight.chunk(3)
    for part in (q[:8], k[8:], v[:8]):
        gram = part @ part.T
        torch.testing.assert_close(gram, gram.diagonal().diag(), atol=1e-4, rtol=1e-4)
        assert bool((gram.diagonal().diff() <= 1e-6).all())
    torch.testing.assert_close(q[:8].square().sum(1), k[:8].square().sum(1))


def test_fewer_templates_lose_less_and_narrow_models_are_closer():
    ancestor = tiny(embed_dim=64, num_heads=8, depth=3)
    with torch.no_grad():
        for block in blocks_of(ancestor):
            block.attn.qkv.weight[:, 8:] *= 0.1
            block.mlp.fc1.weight[:, 8:] *= 0.1
    wanted = ancestor(images(16))
    apart: dict[str, list[float]] = {"as it is": [], "canonical": []}
    for name, start in (("as it is", ancestor), ("canonical", canonical(ancestor, images(16)))):
        family = Family.of(start)
        condensed = condense(start, spec_of(start, count=24)).eval()
        small = family.create(TargetSpec(48, 3))
        small.load_state_dict(
            resample(
                start.state_dict(),
                family.size,
                family.resolve(TargetSpec(48, 3)),
                spec_of(start),
                Resampling(),
            )
        )
        apart[name] = [
            float((m.eval()(images(16)) - wanted).detach().square().mean())
            for m in (condensed, small)
        ]
    assert all(b < a for a, b in zip(apart["as it is"], apart["canonical"], strict=True)), apart


def test_growth_of_a_canonical_model_keeps_the_function_too():
    model = canonical(tiny(), images(8))
    family, target = Family.of(model), TargetSpec(32, 2)
    grown = family.create(target)
    grown.load_state_dict(
        resample(model.state_dict(), family.size, family.resolve(target), spec_of(model), exact())
    )
    torch.testing.assert_close(grown.eval()(images()), model(images()), atol=1e-5, rtol=1e-5)
