"""DCT and wavelet resizing against explicit matrices and loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wave.baselines import BASELINES, dct, wavelet
from wave.baselines.dct import dct_matrix, keep_low, keep_sums, keep_values
from wave.baselines.spectral import resize_state
from wave.baselines.wavelet import haar, inverse_haar, num_levels, resize
from wave.family import Family
from wave.spec import TargetSpec

lengths = st.integers(1, 20)


def signal(*shape: int) -> torch.Tensor:
    return torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape))
    )


@settings(deadline=None)
@given(lengths)
def test_dct_matrix_is_orthonormal_and_is_the_cosines(n: int):
    matrix = dct_matrix(n)
    torch.testing.assert_close(
        matrix @ matrix.T, torch.eye(n, dtype=torch.float64), atol=1e-10, rtol=0
    )
    for k in range(n):
        norm = math.sqrt((1 if k == 0 else 2) / n)
        for i in range(n):
            assert float(matrix[k, i]) == pytest.approx(
                norm * math.cos(math.pi * (i + 0.5) * k / n), abs=1e-12
            )


@settings(deadline=None)
@given(lengths, lengths)
def test_dct_keeps_the_low_band_and_nothing_else(n: int, length: int):
    x = signal(n)
    before, after = dct_matrix(n) @ x, dct_matrix(length) @ keep_low(x, 0, length)
    low = min(n, length)
    torch.testing.assert_close(after[:low], before[:low], atol=1e-10, rtol=0)
    torch.testing.assert_close(
        after[low:], torch.zeros(length - low, dtype=torch.float64), atol=1e-10, rtol=0
    )
    assert float(after.norm() ** 2) == pytest.approx(float((before[:low] ** 2).sum()))


@settings(deadline=None)
@given(lengths, lengths)
def test_scales_of_the_three_forms(n: int, length: int):
    ones = torch.full((n,), 3.0, dtype=torch.float64)
    torch.testing.assert_close(
        keep_values(ones, 0, length), torch.full((length,), 3.0, dtype=torch.float64)
    )
    assert float(keep_sums(ones, 0, length).sum()) == pytest.approx(3.0 * n)
    assert float(keep_low(ones, 0, length).square().sum()) == pytest.approx(9.0 * n)


@settings(deadline=None)
@given(lengths, lengths)
def test_keep_sums_is_the_unnormalised_pair(n: int, length: int):
    """X[k] = sum x cos, zero-padded or cut, then (X[0] + 2 sum X[k] cos) / length, as the released
    code computes."""
    x = signal(n)
    big = [
        sum(float(x[i]) * math.cos(math.pi * k * (2 * i + 1) / (2 * n)) for i in range(n))
        for k in range(n)
    ]
    expected = [
        (
            big[0]
            + 2
            * sum(
                big[k] * math.cos(math.pi * k * (2 * i + 1) / (2 * length))
                for k in range(1, min(n, length))
            )
        )
        / length
        for i in range(length)
    ]
    assert keep_sums(x, 0, length).tolist() == pytest.approx(expected, abs=1e-9)


def test_dct_acts_on_one_axis_and_returns_from_growing():
    x = signal(3, 5, 4)
    grown = keep_low(x, 1, 9)
    assert grown.shape == (3, 9, 4)
    torch.testing.assert_close(grown[2, :, 1], keep_low(x[2, :, 1], 0, 9))
    torch.testing.assert_close(keep_low(grown, 1, 5), x)
    assert keep_low(x, 1, 5) is x


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 3))
def test_haar_reconstructs_and_keeps_energy(half: int, rows: int):
    x = signal(rows, 2 * half)
    low, high = haar(x)
    torch.testing.assert_close(inverse_haar(low, high), x)
    assert float(low.norm() ** 2 + high.norm() ** 2) == pytest.approx(float(x.norm() ** 2))
    torch.testing.assert_close(low / math.sqrt(2), x.unflatten(1, (half, 2)).mean(-1))


def test_wavelet_halves_and_doubles():
    x = signal(8, 3)
    torch.testing.assert_close(resize(x, 0, 4), x.unflatten(0, (4, 2)).mean(1))
    torch.testing.assert_close(resize(x, 0, 2), x.unflatten(0, (2, 4)).mean(1))
    torch.testing.assert_close(resize(x, 0, 16), x.repeat_interleave(2, 0))
    torch.testing.assert_close(resize(resize(x, 0, 32), 0, 8), x)
    assert resize(x, 0, 8) is x


@settings(deadline=None)
@given(lengths, lengths)
def test_wavelet_reaches_every_length_and_keeps_constants(n: int, length: int):
    out = resize(torch.full((2, n, 3), 5.0), 1, length)
    torch.testing.assert_close(out, torch.full((2, length, 3), 5.0))
    levels = num_levels(n, length)
    assert 2**-0.51 <= length / n / 2**levels <= 2**0.51


def kron_axes(tensor: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
    """Each axis times its matrix, by one explicit Kronecker product."""
    whole = maps[0]
    for m in maps[1:]:
        whole = torch.kron(whole.contiguous(), m.contiguous())
    return (whole @ tensor.flatten()).reshape([len(m) for m in maps])


@pytest.mark.parametrize("target", [TargetSpec(8, 3), TargetSpec(24, 6), TargetSpec(8, 6)])
@pytest.mark.parametrize("method", ["dct_scaled", "wavelet"])
def test_whole_models_against_explicit_matrices(ancestor, family, method: str, target: TargetSpec):
    one = {"dct_scaled": keep_values, "wavelet": resize}[method]
    state = BASELINES[method].initialise(ancestor, family, target, 0)
    source = ancestor.state_dict()

    def matrix(n: int, length: int) -> torch.Tensor:
        return one(torch.eye(n, dtype=torch.float64), 0, length)

    width, depth, factor = (
        matrix(16, target.embed_dim),
        matrix(4, target.depth),
        16 / target.embed_dim,
    )
    stack = torch.stack([source[f"blocks.{i}.attn.proj.weight"] for i in range(4)]).double()
    expected = factor * kron_axes(stack, [depth, width, width])
    qkv = (
        torch.stack([source[f"blocks.{i}.attn.qkv.weight"] for i in range(4)])
        .double()
        .unflatten(1, (3, 16))
    )
    qkv_expected = factor * kron_axes(qkv, [depth, torch.eye(3).double(), width, width]).flatten(
        1, 2
    )
    norms = torch.stack([source[f"blocks.{i}.norm1.weight"] for i in range(4)]).double()
    for i in range(target.depth):
        for name, value in (
            ("attn.proj.weight", expected[i]),
            ("attn.qkv.weight", qkv_expected[i]),
            ("norm1.weight", kron_axes(norms, [depth, width])[i]),
        ):
            torch.testing.assert_close(
                state[f"blocks.{i}.{name}"].double(), value, atol=1e-5, rtol=1e-4
            )
    torch.testing.assert_close(
        state["head.weight"].double(),
        factor * source["head.weight"].double() @ width.T,
        atol=1e-5,
        rtol=1e-4,
    )
    torch.testing.assert_close(
        state["pos_embed"][0].double(),
        source["pos_embed"][0].double() @ width.T,
        atol=1e-5,
        rtol=1e-4,
    )


def test_scaled_dct_of_the_four_matrices_is_the_orthonormal_transform(ancestor, family):
    state = BASELINES["dct_scaled"].initialise(ancestor, family, TargetSpec(24, 4), 0)
    old = ancestor.state_dict()["blocks.2.mlp.fc1.weight"]
    new = state["blocks.2.mlp.fc1.weight"]
    torch.testing.assert_close(new, keep_low(keep_low(old, 0, 96), 1, 24), atol=1e-5, rtol=1e-4)
    assert float(new.norm()) == pytest.approx(float(old.norm()), rel=1e-4)


@pytest.mark.parametrize("target", [TargetSpec(8, 2), TargetSpec(24, 6)])
def test_dct_as_released(ancestor, family, target: TargetSpec):
    """Standardise each layer, three unnormalised transforms, undo with the statistics of layer
    min(j, L - 1)."""
    state = BASELINES["dct"].initialise(ancestor, family, target, 0)
    source = ancestor.state_dict()
    for name, sizes in (
        ("attn.qkv.weight", (3, 1)),
        ("mlp.fc2.bias", (1,)),
        ("norm2.weight", (1,)),
    ):
        layers = [source[f"blocks.{i}.{name}"].double() for i in range(4)]
        stats = [(w.mean(), w.std()) for w in layers]
        stack = torch.stack([(w - m) / (s + 1e-8) for w, (m, s) in zip(layers, stats, strict=True)])
        maps = [keep_sums(torch.eye(4).double(), 0, target.depth)]
        maps += [keep_sums(torch.eye(16 * k).double(), 0, target.embed_dim * k) for k in sizes]
        built = kron_axes(stack, maps)
        for j in range(target.depth):
            mean, std = stats[min(j, 3)]
            torch.testing.assert_close(
                state[f"blocks.{j}.{name}"].double(), built[j] * std + mean, atol=1e-4, rtol=1e-3
            )


def test_wavelet_doubling_without_attention_keeps_the_function(ancestor, images):
    """Copies side by side, the reading side halved: exact where no head is cut (attention's values
    set to zero)."""
    family = Family.of(ancestor)
    model = family.create(family.size).eval()
    state = {k: v.clone() for k, v in ancestor.state_dict().items()}
    for i in range(4):
        state[f"blocks.{i}.attn.proj.weight"].zero_()
    model.load_state_dict(state)
    wide = family.create(TargetSpec(32, 4)).eval()
    wide.load_state_dict(BASELINES["wavelet"].initialise(model, family, TargetSpec(32, 4), 0))
    torch.testing.assert_close(wide(images), model(images), atol=1e-5, rtol=1e-4)


def test_resize_state_calls_for_every_width_axis_once(ancestor, family):
    calls: list[tuple[int, int]] = []

    def spy(tensor: torch.Tensor, dim: int, length: int) -> torch.Tensor:
        calls.append((tensor.shape[dim], length))
        return keep_values(tensor, dim, length)

    resize_state(dict(ancestor.state_dict()), family, TargetSpec(8, 3), spy)
    assert set(calls) == {(4, 3), (16, 8), (64, 32)}
    assert (
        dct.BASELINE.reach(family.size, TargetSpec(8, 9))
        is None
        is wavelet.BASELINE.reach(family.size, family.size)
    )
