"""timm's default, Kaiming and mimetic against their definitions; Heur-LG's layers."""

import math

import pytest
import torch

from wave.baselines import BASELINES
from wave.baselines.heur_lg import num_inherited
from wave.baselines.mimetic import noisy_identity, split
from wave.seeding import seeded
from wave.spec import TargetSpec

WIDE = TargetSpec(64, 2)


def test_timm_default_is_what_timm_draws(family, ancestor):
    state = BASELINES["timm_default"].initialise(ancestor, family, WIDE, 11)
    with seeded(11):
        expected = family.create(WIDE).state_dict()
    assert all(torch.equal(state[key], value) for key, value in expected.items())
    assert state["blocks.0.mlp.fc1.weight"].std() == pytest.approx(0.02, rel=0.05)
    assert not state["blocks.0.mlp.fc1.bias"].any()


@pytest.mark.parametrize("seed", [0, 7])
def test_a_drawn_classifier_is_not_the_ancestors_own_start(family, ancestor, seed: int):
    """Same seed, same size: the ancestor's features would fit it better than any other."""
    torch.manual_seed(seed)
    began = family.create(family.size).state_dict()["head.weight"]
    for name in ("timm_default", "weight_selection", "heur_lg"):
        drawn = BASELINES[name].initialise(ancestor, family, family.size, seed)["head.weight"]
        assert torch.cosine_similarity(drawn.flatten(), began.flatten(), dim=0).abs() < 0.4


def test_kaiming_variance_is_two_over_fan_in(family, ancestor):
    state = BASELINES["kaiming"].initialise(ancestor, family, WIDE, 0)
    for key in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
        weight = state[f"blocks.1.{key}.weight"]
        assert weight.std() * math.sqrt(weight.shape[1] / 2) == pytest.approx(1, rel=0.05)
        assert not state[f"blocks.1.{key}.bias"].any()
    patch = state["patch_embed.proj.weight"]
    assert patch.std() * math.sqrt(patch[0].numel() / 2) == pytest.approx(1, rel=0.1)
    assert torch.equal(state["norm.weight"], torch.ones(64))


def test_noisy_identity_has_its_mean_and_variance():
    a = noisy_identity(200, 0.7, 0.4, torch.Generator().manual_seed(0))
    off = a[~torch.eye(200, dtype=torch.bool)]
    assert a.diagonal().mean() == pytest.approx(0.4, abs=0.02)
    assert off.std() == pytest.approx(0.7 / math.sqrt(200), rel=0.03)


def test_split_is_the_best_low_rank_product():
    a = torch.randn(12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    left, right = split(a, 5)
    residual = a - left @ right.T
    singular = torch.linalg.svdvals(a)
    torch.testing.assert_close(residual.norm() ** 2, (singular[5:] ** 2).sum())
    torch.testing.assert_close(left.norm(dim=0), right.norm(dim=0))
    full = split(a, 12)
    torch.testing.assert_close(full[0] @ full[1].T, a)


def heads(state, layer: int, head: int, head_dim: int = 8) -> list[torch.Tensor]:
    """W_q, W_k, W_v (D, head_dim) and W_proj (head_dim, D) of one head, in the paper's
    convention."""
    qkv, proj = (state[f"blocks.{layer}.attn.{n}.weight"] for n in ("qkv", "proj"))
    width = proj.shape[0]
    rows = [slice(i * width + head * head_dim, i * width + (head + 1) * head_dim) for i in range(3)]
    return [*(qkv[r].T for r in rows), proj.T[head * head_dim : (head + 1) * head_dim]]


def alignment(product: torch.Tensor) -> float:
    """Cosine of a matrix with the identity."""
    return float(product.trace() / (product.norm() * math.sqrt(len(product))))


def test_mimetic_products_are_noisy_identities(family, ancestor):
    state = BASELINES["mimetic"].initialise(ancestor, family, WIDE, 0)
    random = BASELINES["timm_default"].initialise(ancestor, family, WIDE, 0)
    for layer in range(2):
        total = torch.zeros(64, 64)
        for head in range(8):
            q, k, v, p = heads(state, layer, head)
            # 0.7 Z + 0.7 I, best rank 8 of 64: its largest singular directions lean to the identity
            assert (
                alignment(q @ k.T)
                > 0.15
                > abs(alignment(heads(random, layer, head)[0] @ heads(random, layer, head)[1].T))
            )
            singular = torch.linalg.svdvals(q @ k.T)
            assert singular[7] > 0.5
            assert singular[8] < 1e-4
            total += v @ p
        # all heads together: exactly 0.4 Z - 0.4 I, whose two terms have equal norm
        assert total.diagonal().mean() == pytest.approx(-0.4, abs=0.05)
        assert alignment(total) == pytest.approx(-math.sqrt(0.5), abs=0.05)
        assert (total + 0.4 * torch.eye(64)).std() == pytest.approx(0.4 / 8, rel=0.1)
        assert not state[f"blocks.{layer}.attn.qkv.bias"].any()
    q0, q1 = heads(state, 0, 0)[0], heads(state, 0, 1)[0]
    assert not torch.allclose(q0, q1)
    assert torch.equal(state["blocks.0.mlp.fc1.weight"], random["blocks.0.mlp.fc1.weight"])


def test_mimetic_rebuilt_slowly(family, ancestor):
    """The first head of the first layer from its own SVD in float64."""
    state = BASELINES["mimetic"].initialise(ancestor, family, TargetSpec(16, 1), 5)
    z = torch.randn(16, 16, generator=torch.Generator().manual_seed(5)).double()
    a = (0.7 * z / 4 + 0.7 * torch.eye(16)).double()
    u, s, vh = torch.linalg.svd(a)
    best = sum(s[i] * torch.outer(u[:, i], vh[i]) for i in range(8))
    q, k, _, _ = heads(state, 0, 0)
    torch.testing.assert_close((q @ k.T).double(), best, atol=1e-5, rtol=1e-4)


def test_heur_lg_inherits_the_last_layers_alone(family, ancestor):
    source = ancestor.state_dict()
    for depth in (1, 3, 6):
        target = TargetSpec(16, depth)
        state = BASELINES["heur_lg"].initialise(ancestor, family, target, 2)
        random = BASELINES["timm_default"].initialise(ancestor, family, target, 2)
        for key, value in state.items():
            last = key.startswith(f"blocks.{depth - 1}.")
            expected = (
                source[key.replace(f"blocks.{depth - 1}.", "blocks.3.")] if last else random[key]
            )
            assert torch.equal(value, expected), key


@pytest.mark.parametrize(
    ("source", "target", "count"), [(12, 12, 3), (12, 2, 2), (6, 6, 2), (4, 9, 1), (1, 1, 1)]
)
def test_heur_lg_count(source: int, target: int, count: int):
    assert num_inherited(source, target) == count


def test_heur_lg_takes_several_layers_in_order(family, ancestor, monkeypatch):
    monkeypatch.setattr("wave.baselines.heur_lg.SHARE", 0.75)
    state = BASELINES["heur_lg"].initialise(ancestor, family, TargetSpec(16, 5), 2)
    for new, old in ((4, 3), (3, 2), (2, 1)):
        key = "mlp.fc1.weight"
        assert torch.equal(
            state[f"blocks.{new}.{key}"], ancestor.state_dict()[f"blocks.{old}.{key}"]
        )
