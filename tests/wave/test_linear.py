"""The layer and the bank: the weight they build, its precision, and who owns what."""

import pytest
import torch
from torch.nn import functional as F

from wave import KINDS, TemplateBank, TemplatedLinear, TemplateSpec, WaveError, kron_sum

SPEC = TemplateSpec.uniform(8, 3)


def test_forward_is_a_linear_layer_with_the_built_weight():
    bank = TemplateBank(SPEC)
    layer = TemplatedLinear(bank, "fc1", 16, bias=True)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 5, 16)
    assert layer.scalers.shape == (3, 8, 2)
    expected = F.linear(x, kron_sum(bank("fc1"), layer.scalers), layer.bias)
    torch.testing.assert_close(layer(x), expected)


def test_the_layer_owns_scalers_and_bias_and_the_bank_the_templates():
    bank = TemplateBank(SPEC)
    layer = TemplatedLinear(bank, "proj", 16, bias=True)
    assert {n for n, _ in layer.named_parameters()} == {"scalers", "bias"}
    assert list(TemplatedLinear(bank, "proj", 16, bias=False).state_dict()) == ["scalers"]
    assert set(bank.state_dict()) == set(KINDS)
    layer(torch.randn(1, 16)).sum().backward()
    assert bank.get_parameter("proj").grad is not None
    assert bank.get_parameter("qkv").grad is None


def test_the_weight_is_built_in_float32_under_autocast():
    layer = TemplatedLinear(TemplateBank(SPEC), "qkv", 16, bias=False)
    outside = layer.weight
    with torch.autocast("cpu", torch.bfloat16):
        inside = layer.weight
        assert layer(torch.randn(2, 16)).dtype == torch.bfloat16  # the layer's own product is autocast's
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


def test_random_factors_give_weights_of_timms_scale():
    spec = TemplateSpec.uniform(16, 32)
    layer = TemplatedLinear(TemplateBank(spec, generator=torch.Generator().manual_seed(0)), "fc2", 128, bias=False)
    assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.15)


def test_given_templates_are_copied_as_float32_and_their_shapes_checked():
    tensors = {kind: torch.randn(3, 8, 8, dtype=torch.float64) for kind in KINDS}
    bank = TemplateBank(SPEC, tensors)
    assert bank("qkv").dtype == torch.float32
    tensors["qkv"].zero_()
    assert bank("qkv").abs().sum() > 0
    with pytest.raises(WaveError, match=r"fc2 have shape \(2, 8, 8\).*\(3, 8, 8\)"):
        TemplateBank(SPEC, {**tensors, "fc2": torch.zeros(2, 8, 8)})


def test_an_impossible_width_is_refused():
    with pytest.raises(WaveError, match="nearest valid widths: 16 and 24"):
        TemplatedLinear(TemplateBank(SPEC), "qkv", 20, bias=True)
