"""LiGO: B W A^T by explicit matrices, identity coefficients, and training that touches coefficients
alone."""

import pytest
import torch
from torch import nn

from wave.baselines import BASELINES, ligo
from wave.baselines.base import dense_state
from wave.baselines.ligo import Growth, grow_last, grow_rows
from wave.errors import WaveError
from wave.spec import TargetSpec


def identity_depth(growth: Growth, source: int) -> None:
    """Each layer copies the ancestor's layer l mod L."""
    with torch.no_grad():
        for i, mixing in enumerate(growth.mixing):
            for c in mixing.values():
                c.zero_()
                c[:, i % source] = 1


def test_growing_is_a_product_with_stacked_matrices():
    generator = torch.Generator().manual_seed(0)
    w, a_out, a_in = (
        torch.randn(*s, dtype=torch.float64, generator=generator) for s in ((5, 4), (3, 5), (2, 4))
    )
    b_out, b_in = torch.cat([torch.eye(5), a_out]), torch.cat([torch.eye(4), a_in])
    torch.testing.assert_close(grow_last(grow_rows(w, a_out), a_in), b_out @ w @ b_in.T)
    torch.testing.assert_close(grow_rows(w[:, 0], a_out), b_out @ w[:, 0])
    patches = w.reshape(5, 1, 2, 2)
    torch.testing.assert_close(grow_rows(patches, a_out).flatten(1), b_out @ w)
    assert grow_rows(w, None) is w


def test_identity_coefficients_give_the_ancestor(ancestor, family, images):
    growth = Growth(dense_state(ancestor), family, TargetSpec(16, 4), 0).eval()
    identity_depth(growth, 4)
    torch.testing.assert_close(growth(images), ancestor(images))


def test_identity_coefficients_stack_layers(ancestor, family, images):
    growth = Growth(dense_state(ancestor), family, TargetSpec(16, 6), 0).eval()
    identity_depth(growth, 4)
    x = ancestor.norm_pre(ancestor._pos_embed(ancestor.patch_embed(images)))
    for i in (0, 1, 2, 3, 0, 1):
        x = ancestor.blocks[i](x)
    torch.testing.assert_close(growth(images), ancestor.forward_head(ancestor.norm(x)))


def test_zero_new_rows_keep_the_ancestor_in_the_corner(ancestor, family):
    growth = Growth(dense_state(ancestor), family, TargetSpec(24, 4), 0)
    identity_depth(growth, 4)
    with torch.no_grad():
        for p in [growth.embed, *(a for w in growth.widths for a in w.values())]:
            p.zero_()
    state = growth.state()
    for i in range(4):
        for name, rows, columns in (
            ("attn.proj", 16, 16),
            ("mlp.fc1", 64, 16),
            ("mlp.fc2", 16, 64),
        ):
            grown, old = (
                state[f"blocks.{i}.{name}.weight"],
                ancestor.state_dict()[f"blocks.{i}.{name}.weight"],
            )
            assert torch.equal(grown[:rows, :columns], old)
            assert grown.abs().sum().item() == pytest.approx(old.abs().sum().item(), rel=1e-5)
    qkv = state["blocks.0.attn.qkv.weight"].unflatten(0, (3, 24))
    assert torch.equal(
        qkv[:, :16, :16].flatten(0, 1), ancestor.state_dict()["blocks.0.attn.qkv.weight"]
    )


def test_every_tensor_against_explicit_matrices(ancestor, family):
    source, target = dense_state(ancestor), TargetSpec(24, 5)
    growth = Growth(source, family, target, 3)
    state = {k: v.detach().double() for k, v in growth.state().items()}
    old = {k: v.double() for k, v in source.items()}

    def stacked(a: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.eye(a.shape[1]), a.detach()]).double()

    embed = stacked(growth.embed)
    for layer in range(5):
        mixing = {k.replace("/", "."): v.detach().double() for k, v in growth.mixing[layer].items()}
        b = {k: stacked(a) for k, a in growth.widths[layer].items()}

        def mixed(name: str, part: int = 0, parts: int = 1, mixing=mixing) -> torch.Tensor:
            layers = [old[f"blocks.{j}.{name}"].chunk(parts)[part] for j in range(4)]
            return sum(mixing[name][part, j] * w for j, w in enumerate(layers))

        def check(name: str, expected: torch.Tensor, layer=layer) -> None:
            torch.testing.assert_close(
                state[f"blocks.{layer}.{name}"], expected, atol=1e-5, rtol=1e-4
            )

        qkv = [
            (b[k], mixed("attn.qkv.weight", i, 3), mixed("attn.qkv.bias", i, 3))
            for i, k in enumerate("qkv")
        ]
        check("attn.qkv.weight", torch.cat([bk @ w @ embed.T for bk, w, _ in qkv]))
        check("attn.qkv.bias", torch.cat([bk @ bias for bk, _, bias in qkv]))
        check("attn.proj.weight", embed @ mixed("attn.proj.weight") @ b["v"].T)
        check("attn.proj.bias", embed @ mixed("attn.proj.bias"))
        check("mlp.fc1.weight", b["ffn"] @ mixed("mlp.fc1.weight") @ embed.T)
        check("mlp.fc1.bias", b["ffn"] @ mixed("mlp.fc1.bias"))
        check("mlp.fc2.weight", embed @ mixed("mlp.fc2.weight") @ b["ffn"].T)
        check("norm1.weight", embed @ mixed("norm1.weight"))
    torch.testing.assert_close(
        state["head.weight"], old["head.weight"] @ embed.T, atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(state["pos_embed"], old["pos_embed"] @ embed.T, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        state["patch_embed.proj.weight"].flatten(1),
        embed @ old["patch_embed.proj.weight"].flatten(1),
        atol=1e-5,
        rtol=1e-4,
    )


def test_the_start_is_stacked_and_normalised(ancestor, family):
    growth = Growth(dense_state(ancestor), family, TargetSpec(24, 6), 0)
    for i, mixing in enumerate(growth.mixing):
        for name, c in mixing.items():
            assert len(c) == (3 if "qkv" in name else 1)
            torch.testing.assert_close(c.sum(1), torch.ones(len(c)))
            assert (c.argmax(1) == i % 4).all()
            assert (c >= 0).all()
    torch.testing.assert_close(growth.embed.sum(1), torch.ones(8))
    assert growth.widths[0]["ffn"].shape == (32, 64)


def test_only_coefficients_are_trained(ancestor, family, images, batches):
    growth = Growth(dense_state(ancestor), family, TargetSpec(24, 5), 0)
    assert sum(p.numel() for p in growth.parameters()) == sum(
        [
            8 * 16,
            5 * (3 * 8 * 16 + 32 * 64),
            5 * 4 * sum(3 if "qkv" in n else 1 for n in growth.stacks),
        ]
    )
    growth(images).sum().backward()
    assert all(p.grad is not None for p in growth.parameters())
    assert not any(isinstance(m, nn.Linear) for m in growth.modules())


def test_steps_on_the_coefficients_help(ancestor, family, batches, monkeypatch):
    """30 steps here; the registered method takes 100."""
    assert BASELINES["ligo"].steps == ligo.STEPS == ligo.RECIPE.steps == 100
    monkeypatch.setattr(ligo, "STEPS", 30)
    target = TargetSpec(24, 5)
    state = BASELINES["ligo"].initialise(ancestor, family, target, 0, batches=batches)
    before, after = family.create(target).eval(), family.create(target).eval()
    before.load_state_dict(Growth(dense_state(ancestor), family, target, 0).state())
    after.load_state_dict(state)
    stream = batches(1000)
    data = [next(stream) for _ in range(20)]
    losses = [
        sum(nn.functional.cross_entropy(m(b.images), b.labels).item() for b in data) / 20
        for m in (before, after)
    ]
    assert losses[1] < 0.97 * losses[0]


def test_without_batches(ancestor, family):
    with pytest.raises(WaveError, match="needs batches"):
        BASELINES["ligo"].initialise(ancestor, family, TargetSpec(24, 4), 0)
