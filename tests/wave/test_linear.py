"""The layer and the bank: the weight they build, its precision, and who owns what."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from wave import KINDS, TargetSpec, TemplateBank, TemplatedLinear, TemplateSpec, WaveError, kron_sum
from wave.shape import Shape
from wave.spec import AXES

SPEC = TemplateSpec.uniform(8, 3)
WHOLE = SPEC.shape(TargetSpec(16, 1))


def test_forward_is_a_linear_layer_with_the_built_weight():
    bank = TemplateBank(SPEC)
    layer = TemplatedLinear(bank, "fc1", WHOLE, bias=True)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 5, 16)
    assert layer.scalers.shape == (3, 8, 2)
    expected = F.linear(x, kron_sum(bank("fc1"), layer.scalers), layer.bias)
    torch.testing.assert_close(layer(x), expected)


def test_the_layer_owns_scalers_and_bias_and_the_bank_the_templates():
    bank = TemplateBank(SPEC)
    layer = TemplatedLinear(bank, "proj", WHOLE, bias=True)
    assert {n for n, _ in layer.named_parameters()} == {"scalers", "bias"}
    assert list(TemplatedLinear(bank, "proj", WHOLE, bias=False).state_dict()) == ["scalers"]
    assert set(bank.state_dict()) == set(KINDS)
    layer(torch.randn(1, 16)).sum().backward()
    assert bank.get_parameter("proj").grad is not None
    assert bank.get_parameter("qkv").grad is None


def test_the_weight_is_built_in_float32_under_autocast():
    layer = TemplatedLinear(TemplateBank(SPEC), "qkv", WHOLE, bias=False)
    outside = layer.weight
    with torch.autocast("cpu", torch.bfloat16):
        inside = layer.weight
        assert (
            layer(torch.randn(2, 16)).dtype == torch.bfloat16
        )  # the layer's own product is autocast's
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


def test_random_factors_give_weights_of_timms_scale():
    spec = TemplateSpec.uniform(16, 32)
    shape = spec.shape(TargetSpec(128, 1))
    layer = TemplatedLinear(
        TemplateBank(spec, generator=torch.Generator().manual_seed(0)), "fc2", shape, bias=False
    )
    assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.15)


def test_given_templates_are_copied_as_float32_and_their_shapes_checked():
    tensors = {kind: torch.randn(3, 8, 8, dtype=torch.float64) for kind in KINDS}
    bank = TemplateBank(SPEC, tensors)
    assert bank("qkv").dtype == torch.float32
    tensors["qkv"].zero_()
    assert bank("qkv").abs().sum() > 0
    with pytest.raises(WaveError, match=r"fc2 have shape \(2, 8, 8\).*\(3, 8, 8\)"):
        TemplateBank(SPEC, {**tensors, "fc2": torch.zeros(2, 8, 8)})


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 8),
    st.integers(1, 70),
    st.sampled_from([4, 8, 16]),
    st.sampled_from(KINDS),
)
def test_a_cropped_weight_is_a_slice_of_the_whole_one(
    heads: int, head_dim: int, hidden: int, block: int, kind: str
):
    """Against the slow form: rows and columns of the weight of all blocks, picked one by one."""
    spec, shape = (
        TemplateSpec.uniform(8, 3, block),
        Shape(heads * head_dim, heads, head_dim, hidden),
    )
    layer = TemplatedLinear(TemplateBank(spec), kind, shape, bias=True)
    whole = kron_sum(layer.bank(kind), layer.scalers)
    attn = -(-heads * 8 // max(8, block)) * max(
        8, block
    )  # the heads of the templates, whole blocks of them
    if head_dim == 8 and (heads * 8) % block == 0 == hidden % block:
        attn = heads * 8
    channels = [8 * h + c for h in range(heads) for c in range(head_dim)]
    picked = {
        "embed": [*range(heads * head_dim)],
        "hidden": [*range(hidden)],
        "attn": channels,
        "qkv": [third * attn + c for third in range(3) for c in channels],
    }
    rows, columns = (picked[axis] for axis in AXES[kind])
    assert torch.equal(layer.weight, whole[rows][:, columns])
    assert (
        layer.weight.shape
        == (layer.out_features, layer.in_features)
        == (len(layer.bias), len(columns))
    )
    layer(torch.randn(2, len(columns))).sum().backward()
    assert layer.scalers.grad.isfinite().all()


def test_a_whole_weight_is_not_copied():
    layer = TemplatedLinear(TemplateBank(SPEC), "fc1", WHOLE, bias=False)
    assert layer.outer == layer.shape
    assert layer.weight.grad_fn.name() == kron_sum(layer.bank("fc1"), layer.scalers).grad_fn.name()


def test_an_impossible_shape_is_refused():
    with pytest.raises(
        WaveError, match=r"head_dim is 16; these templates were made for 8.*num_heads=2 or more"
    ):
        TemplatedLinear(TemplateBank(SPEC), "qkv", Shape(16, 1, 16, 64), bias=True)
    whole = TemplateBank(TemplateSpec.uniform(8, 3, order="interleave"))
    with pytest.raises(
        WaveError,
        match=r"embed_dim=12, 3 heads of 4 cannot be built .*nearest valid widths: 8 and 16",
    ):
        TemplatedLinear(whole, "qkv", Shape(12, 3, 4, 48), bias=True)
