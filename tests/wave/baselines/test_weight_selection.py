"""Weight selection: its indices, and whole tensors against a loop over elements."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wave.baselines import BASELINES
from wave.baselines.weight_selection import select, select_heads
from wave.spec import TargetSpec


@pytest.mark.parametrize(
    ("source", "target", "indices"),
    [
        (8, 4, [0, 2, 4, 6]),
        (9, 3, [0, 3, 6]),
        (5, 5, [0, 1, 2, 3, 4]),
        (6, 1, [0]),
        (8, 3, [0, 4, 7]),  # 0, 3.5, 7; torch rounds halves to even
        (6, 4, [0, 2, 3, 5]),
        (10, 4, [0, 3, 6, 9]),
    ],
)
def test_examples(source: int, target: int, indices: list[int]):
    assert select(source, target).tolist() == indices


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 200))
def test_indices_ascend_inside_the_axis(a: int, b: int):
    source, target = max(a, b), min(a, b)
    index = select(source, target).tolist()
    assert len(index) == target
    assert index[0] == 0
    assert index[-1] < source
    assert all(x < y for x, y in itertools.pairwise(index))


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 6), st.integers(1, 6))
def test_selections_by_divisors_nest(small: int, factor: int, further: int):
    """Choosing from a choice is choosing at once when each length divides the next."""
    middle, large = small * factor, small * factor * further
    assert torch.equal(select(large, middle)[select(middle, small)], select(large, small))


@settings(deadline=None)
@given(st.integers(2, 12), st.integers(1, 12), st.sampled_from([2, 4]), st.sampled_from([1, 3]))
def test_whole_heads(a: int, b: int, head_dim: int, parts: int):
    source, target = max(a, b), min(a, b)
    index = select_heads(source * head_dim, target * head_dim, head_dim, parts).tolist()
    expected = [
        p * source * head_dim + h * head_dim + c
        for p in range(parts)
        for h in select(source, target).tolist()
        for c in range(head_dim)
    ]
    assert index == expected


@pytest.mark.parametrize("target", [TargetSpec(8, 4), TargetSpec(16, 2), TargetSpec(8, 3)])
def test_as_released(ancestor, family, target: TargetSpec):
    source = ancestor.state_dict()
    state = BASELINES["weight_selection"].initialise(ancestor, family, target, 0)
    drawn = BASELINES["timm_default"].initialise(ancestor, family, target, 0)
    for name, tensor in state.items():
        if name.startswith("head"):
            assert torch.equal(tensor, drawn[name])
            continue
        old = source[name]
        for position in itertools.product(*(range(n) for n in tensor.shape)):
            # every axis here divides: 16 to 8 and its multiples
            where = tuple(
                i * (o // n) for i, o, n in zip(position, old.shape, tensor.shape, strict=True)
            )
            assert tensor[position] == old[where]


def test_uneven_width(ancestor, family):
    """From 24 to 16 nothing divides: rows and columns by rounded even spacing."""
    wide = family.create(TargetSpec(24, 2))
    other = type(family).of(wide)
    state = BASELINES["weight_selection"].initialise(wide, other, TargetSpec(16, 1), 0)
    rows = [round(i * 71 / 47) for i in range(48)]
    columns = [round(j * 23 / 15) for j in range(16)]
    weight = wide.state_dict()["blocks.0.attn.qkv.weight"]
    assert torch.equal(state["blocks.0.attn.qkv.weight"], weight[rows][:, columns])


def test_classifier_is_selected_too(ancestor, family):
    for name in ("weight_selection_classifier", "weight_selection_heads"):
        state = BASELINES[name].initialise(ancestor, family, TargetSpec(8, 2), 0)
        assert torch.equal(state["head.weight"], ancestor.state_dict()["head.weight"][:, ::2])
        assert torch.equal(state["head.bias"], ancestor.state_dict()["head.bias"])


def test_head_aware_takes_whole_heads(ancestor, family):
    source = ancestor.state_dict()
    state = BASELINES["weight_selection_heads"].initialise(ancestor, family, TargetSpec(8, 2), 0)
    name = "blocks.1.attn.{}"
    kept = [16 * third + channel for third in range(3) for channel in range(8)]
    assert torch.equal(
        state[name.format("qkv.weight")], source[name.format("qkv.weight")][kept][:, ::2]
    )
    assert torch.equal(state[name.format("qkv.bias")], source[name.format("qkv.bias")][kept])
    assert torch.equal(
        state[name.format("proj.weight")], source[name.format("proj.weight")][::2, :8]
    )
    plain = BASELINES["weight_selection_classifier"].initialise(
        ancestor, family, TargetSpec(8, 2), 0
    )
    same = {k for k in state if torch.equal(state[k], plain[k])}
    assert set(state) - same == {
        f"blocks.{i}.attn.{n}" for i in range(2) for n in ("qkv.weight", "qkv.bias", "proj.weight")
    }


def test_depth_alone_is_the_ancestors_first_layers(ancestor, family, images):
    state = BASELINES["weight_selection_classifier"].initialise(
        ancestor, family, TargetSpec(16, 3), 0
    )
    model = family.create(TargetSpec(16, 3)).eval()
    model.load_state_dict(state)
    x = ancestor.norm_pre(ancestor._pos_embed(ancestor.patch_embed(images)))
    for block in ancestor.blocks[:3]:
        x = block(x)
    torch.testing.assert_close(model(images), ancestor.forward_head(ancestor.norm(x)))
