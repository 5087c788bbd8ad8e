"""The algebra against independent slow forms in float64."""

import doctest
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wave import kron
from wave.kron import balance, fit_scalers, fit_templates, from_blocks, kron_sum, to_blocks

SIDES = st.integers(1, 4)
ORDERS = st.sampled_from(["tile", "interleave"])
ours = settings(max_examples=30, deadline=None)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@ours
@given(SIDES, SIDES, SIDES, SIDES, SIDES, ORDERS, st.integers(0, 99))
def test_the_equation_is_a_sum_of_krons(
    n: int, a: int, b: int, p: int, q: int, order: kron.Order, seed: int
):
    templates, scalers = draw(n, a, b, seed=seed), draw(n, p, q, seed=seed + 1)
    pairs = zip(templates, scalers, strict=True)
    dense = sum(
        (torch.kron(s, t) if order == "tile" else torch.kron(t, s) for t, s in pairs),
        torch.zeros(()),
    )
    torch.testing.assert_close(kron_sum(templates, scalers, order), dense)


@ours
@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 99))
def test_tile_puts_scaled_templates_side_by_side(a: int, b: int, p: int, q: int, seed: int):
    templates, scalers = draw(2, a, b, seed=seed), draw(2, p, q, seed=seed + 1)
    weight = kron_sum(templates, scalers)
    for i in range(p):
        for j in range(q):
            block = scalers[0, i, j] * templates[0] + scalers[1, i, j] * templates[1]
            torch.testing.assert_close(weight[i * a : (i + 1) * a, j * b : (j + 1) * b], block)


@ours
@given(SIDES, SIDES, SIDES, SIDES, ORDERS, st.integers(0, 99))
def test_blocks_there_and_back(a: int, b: int, p: int, q: int, order: kron.Order, seed: int):
    weight = draw(p * a, q * b, seed=seed)
    blocks = to_blocks(weight, (a, b), order)
    assert blocks.shape == (p * q, a * b)
    assert torch.equal(from_blocks(blocks, (p, q), (a, b), order), weight)


def test_the_orders_differ():
    templates, scalers = draw(1, 2, 2, seed=0), draw(1, 2, 2, seed=1)
    assert not torch.allclose(
        kron_sum(templates, scalers, "tile"), kron_sum(templates, scalers, "interleave")
    )


@pytest.mark.parametrize("order", ["tile", "interleave"])
def test_gradients(order: kron.Order):
    templates, scalers = (
        draw(3, 2, 3, seed=0).requires_grad_(),
        draw(3, 2, 2, seed=1).requires_grad_(),
    )
    assert torch.autograd.gradcheck(lambda t, s: kron_sum(t, s, order), (templates, scalers))


@ours
@given(
    st.integers(1, 3),
    st.integers(2, 4),
    st.integers(2, 4),
    SIDES,
    SIDES,
    ORDERS,
    st.integers(0, 99),
)
def test_fit_scalers_recovers_what_the_templates_can_build(
    n: int, a: int, b: int, p: int, q: int, order: kron.Order, seed: int
):
    templates, scalers = draw(n, a, b, seed=seed), draw(n, p, q, seed=seed + 1)
    torch.testing.assert_close(
        fit_scalers(kron_sum(templates, scalers, order), templates, order), scalers
    )


def test_fit_scalers_is_least_squares():
    weight, templates = draw(6, 8, seed=0), draw(3, 2, 4, seed=1)
    scalers = fit_scalers(weight, templates)
    residual = to_blocks(weight - kron_sum(templates, scalers), (2, 4))
    assert (residual @ templates.reshape(3, 8).T).abs().max() < 1e-12  # normal equations


@ours
@given(st.integers(1, 6), ORDERS, st.integers(0, 99))
def test_fit_templates_is_optimal_and_balanced(count: int, order: kron.Order, seed: int):
    weights = [draw(6, 8, seed=seed), draw(4, 4, seed=seed + 1)]
    templates, scalers = fit_templates(weights, (2, 4), count, order)
    error = sum(
        ((w - kron_sum(templates, s, order)) ** 2).sum()
        for w, s in zip(weights, scalers, strict=True)
    )
    # Oracle: every block cut by indexing, and the energy that the best approximation of that rank
    # leaves.
    rows = []
    for weight in weights:
        p, q = weight.shape[0] // 2, weight.shape[1] // 4
        for i in range(p):
            for j in range(q):
                tiles = weight[2 * i : 2 * i + 2, 4 * j : 4 * j + 4]
                rows.append((tiles if order == "tile" else weight[i::p, j::q]).flatten())
    values = torch.linalg.svdvals(torch.stack(rows))
    assert math.isclose(
        float(error), float((values[count:] ** 2).sum()), rel_tol=1e-9, abs_tol=1e-12
    )
    rms = [
        float(x.square().mean().sqrt())
        for x in (templates, torch.cat([s.flatten() for s in scalers]))
    ]
    assert math.isclose(*rms, rel_tol=1e-9)


def test_balance_keeps_the_product():
    templates, scalers = draw(2, 3, 3, seed=0) * 100, [draw(2, 2, 2, seed=1) / 100]
    even, (small,) = balance(templates, scalers)
    torch.testing.assert_close(kron_sum(even, small), kron_sum(templates, scalers[0]))


def test_the_example_runs():
    result = doctest.testmod(kron, extraglobs={"torch": torch})
    assert result.attempted
    assert not result.failed
