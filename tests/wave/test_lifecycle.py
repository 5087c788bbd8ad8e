"""What happens to a templated model in a training program: copied, pickled, saved, checkpointed,
cast, compiled."""

import copy
import shutil
from pathlib import Path

import cloudpickle
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.wave.models import exact, images, spec_of, tiny
from wave import MultiSize, TargetSpec, condense, materialise
from wave.family import Family


def small(count: int = 8, **arguments: object) -> nn.Module:
    ancestor = tiny(**arguments)
    return condense(ancestor, spec_of(ancestor, count=count)).eval()


def multi() -> MultiSize:
    family = Family.of(tiny())
    return MultiSize(small(), family, family.size, exact(symmetry="split"), always=True).eval()


def gradients(model: nn.Module, *arguments: object) -> dict[str, torch.Tensor]:
    model.zero_grad()
    output = model(images(), *arguments)
    sum(z.square().sum() for z in (output if isinstance(output, list) else [output])).backward()
    return {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}


def test_templates_stand_once_in_the_state_dict_and_among_the_parameters():
    model = small()
    state = model.state_dict()
    assert [k for k in state if k.startswith("templates.")] == [
        f"templates.{k}" for k in ("qkv", "proj", "fc1", "fc2")
    ]
    assert sum(v.shape == (8, 8, 8) for v in state.values()) == 4
    assert set(state) == {k for k, _ in model.named_parameters(remove_duplicate=False)}
    assert not any(
        k.endswith(("qkv.weight", "proj.weight", "fc1.weight")) and "blocks" in k for k in state
    )
    assert set(multi().state_dict()) == {f"auxiliary.{k}" for k in state}


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda m: cloudpickle.loads(cloudpickle.dumps(m))]
)
def test_a_copy_is_equal_and_shares_nothing(duplicate):
    model = small()
    other = duplicate(model)
    assert torch.equal(other(images()), model(images()))
    with torch.no_grad():
        other.get_parameter("templates.fc1").zero_()  # the copy's layers read the copy's bank
    assert not torch.allclose(other(images()), model(images()))
    assert all(
        m.__dict__["bank"] is other.get_submodule("templates")
        for m in other.modules()
        if hasattr(m, "scalers")
    )


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda m: cloudpickle.loads(cloudpickle.dumps(m))]
)
def test_a_copy_of_all_sizes_is_equal_and_shares_nothing(duplicate):
    model, targets = multi(), [TargetSpec(32, 3)]
    before = model(images(), targets)
    other = duplicate(model)
    torch.testing.assert_close(other(images(), targets), before)
    with torch.no_grad():
        other.auxiliary.get_parameter("templates.fc1").zero_()
    assert all(
        not torch.allclose(a, b) for a, b in zip(other(images(), targets), before, strict=True)
    )
    torch.testing.assert_close(model(images(), targets), before)


def test_safetensors_save_and_load(tmp_path: Path):
    model, other = small(), condense(tiny(seed=5), spec_of(tiny(), count=8)).eval()
    save_file(model.state_dict(), tmp_path / "m.safetensors")  # refuses tensors that share memory
    other.load_state_dict(load_file(tmp_path / "m.safetensors"), strict=True)
    assert torch.equal(other(images()), model(images()))


def test_activation_checkpointing_gives_equal_gradients():
    model = small()
    expected = gradients(model)
    model.set_grad_checkpointing(True)
    found = gradients(model)
    assert {k for k in expected if k.startswith("templates.")} == {
        f"templates.{k}" for k in ("qkv", "proj", "fc1", "fc2")
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_activation_checkpointing_of_all_sizes_gives_equal_gradients(
    monkeypatch: pytest.MonkeyPatch,
):
    model, targets = multi().train(), [TargetSpec(32, 3), TargetSpec(8, 1)]
    expected = gradients(model, targets)
    model.set_grad_checkpointing(True)
    calls = []
    real = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(
        "torch.utils.checkpoint.checkpoint", lambda *a, **k: calls.append(1) or real(*a, **k)
    )
    found = gradients(model, targets)
    assert all(s.grad_checkpointing for s in model._skeletons.values())
    assert found.keys() == expected.keys() == dict(model.named_parameters()).keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_autocast_trains_float32_parameters():
    model = small()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images())
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), model(images()), atol=0.1, rtol=0.1)
    output.float().sum().backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())
    assert model.get_parameter("templates.qkv").grad.abs().sum() > 0


def test_moved_to_another_dtype_the_bank_goes_along():
    model = small().to(torch.float64)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model(images().double()).dtype == torch.float64
    assert {v.dtype for v in materialise(model).values()} == {torch.float64}


def test_compiled_blocks_give_equal_outputs_and_gradients():
    """Traced whole, forward and backward; the backend needs no C++ compiler."""
    model = small()
    expected, wanted = gradients(model), model(images()).detach()
    for block in model.blocks:
        block.compile(backend="aot_eager", fullgraph=True)
    try:
        found = gradients(model)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
        torch.testing.assert_close(model(images()).detach(), wanted, atol=1e-5, rtol=1e-5)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-4)
    finally:
        torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("g++") is None, reason="inductor on a CPU needs a C++ compiler (g++)"
)
def test_the_default_compiler_gives_an_equal_layer():
    layer = small(count=4, depth=1).get_submodule("blocks.0.mlp.fc1")
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        expected = layer(x)
        layer.compile()
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    torch._dynamo.reset()
