"""Every shape rule, and that its error names what works."""

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wave import KINDS, TargetSpec, TemplateSpec, WaveError
from wave.shape import Shape

SPEC = TemplateSpec.uniform(8, 6)


def test_names():
    assert TargetSpec(96, 6).name == "d096-l06"
    assert (
        TargetSpec(1280, 32, num_classes=100, img_size=32, patch_size=4).name
        == "d1280-l32-c100-i32-p4"
    )
    assert TargetSpec(24, 6, num_heads=2, mlp_ratio=2).name == "d024-l06-h2-m2"
    assert TargetSpec(24, 6, mlp_ratio=2.5).name == "d024-l06-m2_5"
    assert TargetSpec(96, 6).title == "96 x 6"
    assert TargetSpec(24, 6, num_heads=2, mlp_ratio=2.5).title == "24 x 6, 2 heads, mlp_ratio 2.5"


def test_what_is_written_of_a_size_is_what_is_given_of_it():
    assert TargetSpec(96, 6).to_json() == {"embed_dim": 96, "depth": 6}
    full = TargetSpec(96, 6, num_heads=12, mlp_ratio=2.0)
    assert full.to_json() == {"embed_dim": 96, "depth": 6, "num_heads": 12, "mlp_ratio": 2.0}
    assert TargetSpec(**full.to_json()) == full


@pytest.mark.parametrize(
    "field", [f.name for f in dataclasses.fields(TargetSpec) if f.name != "mlp_ratio"]
)
@pytest.mark.parametrize("value", [0, -1, 2.0, "8", True])
def test_a_size_is_whole_numbers(field: str, value: object):
    with pytest.raises(WaveError, match=field):
        TargetSpec(**{"embed_dim": 8, "depth": 1, field: value})


@pytest.mark.parametrize("value", [0, -1.0, 0.1, True, "4", math.nan, math.inf])
def test_an_mlp_has_hidden_channels(value: object):
    with pytest.raises(WaveError, match=r"mlp_ratio=.* does not give embed_dim=8 a hidden channel"):
        TargetSpec(8, 1, mlp_ratio=value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": "random"}, "tile"),
        ({"blocks": {"qkv": (8, 8)}}, "exactly"),
        ({"counts": dict.fromkeys(KINDS, 0)}, "at least 1"),
        ({"blocks": dict.fromkeys(KINDS, (0, 8))}, "at least 1"),
        ({"counts": dict.fromkeys(KINDS, 65)}, "64 already build every weight"),
        ({"head_dim": 0}, "head_dim"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio"),
    ],
)
def test_impossible_templates(change: dict[str, object], message: str):
    with pytest.raises(WaveError, match=message):
        dataclasses.replace(SPEC, **change)


def test_an_impossible_width_names_the_nearest():
    rule = (
        r"embed_dim=20 is not a multiple of head_dim=8; nearest valid widths are 16 and 24, "
        r"or give num_heads, as in"
    )
    with pytest.raises(WaveError, match=rf"^{rule} num_heads=4 of 5 channels each$"):
        SPEC.shape(TargetSpec(20, 1))
    with pytest.raises(WaveError, match=r"embed_dim=16 .*nearest valid widths: 24$"):
        TemplateSpec.uniform(8, 6, block=12).check(Shape(16, 2, 8, 64), whole=True)
    with pytest.raises(
        WaveError, match=r"num_heads=5 does not divide embed_dim=24; nearest: 4 and 6"
    ):
        SPEC.shape(TargetSpec(24, 1, num_heads=5))
    wide = TemplateSpec(
        dict.fromkeys(KINDS, (7, 7)) | {"proj": (8, 8)}, dict.fromkeys(KINDS, 2), 8, mlp_ratio=4.01
    )
    with pytest.raises(WaveError, match=r"embed_dim=9 cannot be built"):
        wide.check(Shape(9, 1, 9 - 1, 36), whole=True)
    wide.check(Shape(9, 3, 3, 36))  # cropped


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from([4, 8, 12]),
    st.sampled_from([2, 4, 6]),
    st.integers(1, 100),
    st.sampled_from([2.0, 3.0, 4.0]),
)
def test_the_nearest_widths_are_valid_and_nothing_between_is(
    head_dim: int, side: int, width: int, ratio: float
):
    spec = TemplateSpec.uniform(head_dim, 2, side, ratio)

    def valid(d: int) -> bool:
        return d > 0 and d % head_dim == 0 and d % side == 0 and int(d * ratio) % side == 0

    if valid(width):
        shape = spec.shape(TargetSpec(width, 1))
        assert spec.enclosing(shape) == shape
        for kind in KINDS:
            (p, q), (a, b) = spec.grid(kind, shape), spec.blocks[kind]
            rows = {"qkv": 3 * width, "proj": width, "fc1": int(ratio * width), "fc2": width}[kind]
            assert (p * a, q * b) == (rows, int(ratio * width) if kind == "fc2" else width)
        return
    below, above = max((d for d in range(width) if valid(d)), default=None), width
    while not valid(above):
        above += 1
    assert spec.nearest(width) == ([below, above] if below else [above])


def test_counting():
    assert SPEC.num_parameters() == 4 * 6 * 64
    # At width 16, a layer has 6x2 + 2x2 + 8x2 + 2x8 places for each of 6 templates.
    assert SPEC.num_scalers(TargetSpec(16, 3)) == 3 * 6 * (12 + 4 + 16 + 16)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.integers(1, 8), st.integers(1, 99), st.sampled_from([2, 4, 12]))
def test_the_enclosing_shape_is_whole_and_no_larger_than_it_must_be(
    heads: int, head_dim: int, hidden: int, side: int
):
    spec, shape = TemplateSpec.uniform(8, 2, side), Shape(heads * head_dim, heads, head_dim, hidden)
    outer, unit = spec.enclosing(shape), spec.unit("embed")
    assert outer.head_dim == 8
    assert 0 <= outer.embed - shape.embed < unit
    assert 0 <= outer.length("attn") - heads * 8 < unit
    assert 0 <= outer.hidden - hidden < spec.unit("hidden")
    assert all(outer.length(axis) % side == 0 for axis in ("embed", "attn", "hidden"))


def test_counting_of_a_cropped_size():
    # 12 channels in 3 heads of 4: 2 blocks of the stream, 3 heads of the templates; 30 hidden
    # units: 4 blocks.
    size = TargetSpec(12, 1, num_heads=3, mlp_ratio=2.5)
    assert SPEC.num_scalers(size) == 6 * (9 * 2 + 2 * 3 + 4 * 2 + 2 * 4)


def test_the_unit_of_the_width_map_holds_whole_heads_and_blocks():
    spec = TemplateSpec(
        {"qkv": (8, 4), "proj": (4, 8), "fc1": (24, 4), "fc2": (12, 16)}, dict.fromkeys(KINDS, 2), 8
    )
    assert spec.unit("embed") == 24  # lcm of 8, 4 and the 12 rows of fc2
    assert spec.unit("hidden") == 48  # lcm of 24 and 16


def test_json_there_and_back():
    spec = TemplateSpec(
        {"qkv": (8, 4), "proj": (4, 8), "fc1": (24, 4), "fc2": (12, 16)},
        {"qkv": 1, "proj": 2, "fc1": 3, "fc2": 4},
        head_dim=8,
        mlp_ratio=3.5,
        order="interleave",
    )
    assert TemplateSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": 3},
        {"blocks": {"qkv": [8]}},
        {"counts": {"qkv": "many"}},
        {"head_dim": "8"},
        {"head_dim": 0},
        {"order": 1},
    ],
)
def test_damaged_json(change: dict[str, object]):
    with pytest.raises(WaveError):
        TemplateSpec.from_json({**SPEC.to_json(), **change})
    with pytest.raises(WaveError):
        TemplateSpec.from_json({k: v for k, v in SPEC.to_json().items() if k not in change})
