"""Sizes that are not whole blocks and heads of the templates: what cropping keeps, and that it is
nothing else."""

import hashlib
from collections.abc import Mapping
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.wave.models import exact, images, randomise, spec_of, tiny
from wave import (
    Family,
    Resampling,
    TargetSpec,
    TemplateBank,
    TemplateSpec,
    WaveError,
    condense,
    materialise,
    resample,
    templated,
)
from wave.features import Match
from wave.resampling import channel_map
from wave.typed import blocks_of
from wave.vit import own_state
from wave.width import Width, WidthScale


def zeroed(family: str, channels: int, hidden: int, **arguments: object) -> nn.Module:
    """A model of heads of 8 and 64 hidden units in which only the leading ones of each do
    anything."""
    model = tiny(family, **arguments)
    with torch.no_grad():
        for block in blocks_of(model):
            rows = torch.arange(block.attn.qkv.out_features) % 8 >= channels
            block.attn.qkv.weight[rows] = 0
            if block.attn.qkv.bias is not None:
                block.attn.qkv.bias[rows] = 0
            block.attn.proj.weight[:, rows[: block.attn.proj.in_features]] = 0
            block.mlp.fc2.weight[:, hidden:] = 0
    return model


EXACT = [
    ("class token", TargetSpec(16, 2, num_heads=4), 4, 64),
    ("class token", TargetSpec(16, 2, mlp_ratio=2.3), 8, 36),
    ("class token", TargetSpec(16, 5, mlp_ratio=8.5), 8, 64),
    ("no class token, avg", TargetSpec(32, 3, num_heads=8, mlp_ratio=8), 4, 64),
    ("no qkv bias", TargetSpec(48, 2, num_heads=16), 3, 64),
    ("layer scale", TargetSpec(16, 2, num_heads=4, mlp_ratio=2.3), 4, 36),
    ("distilled", TargetSpec(16, 2, num_heads=4), 4, 64),
]


@pytest.mark.parametrize(
    ("family", "target", "channels", "hidden"), EXACT, ids=[f"{f} {t.name}" for f, t, *_ in EXACT]
)
def test_cropping_what_is_zero_keeps_the_function(
    family: str, target: TargetSpec, channels: int, hidden: int
):
    source = zeroed(family, channels, hidden)
    check_kept(source, target, exact())
    check_kept(source, target, Resampling(symmetry="none", depth="identity"))


def check_kept(source: nn.Module, target: TargetSpec, options: Resampling) -> None:
    found = Family.of(source)
    full = found.resolve(target)
    other = found.create(full)
    other.load_state_dict(resample(source.state_dict(), found.size, full, spec_of(source), options))
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(images()), source(images()), atol=2e-5, rtol=2e-5)


def test_cropping_heads_under_norms_of_q_and_k_keeps_the_function():
    source = zeroed("qk_norm", 4, 64, norm_layer="rmsnorm")
    check_kept(source, TargetSpec(16, 2, num_heads=4), exact())


def test_without_the_factor_on_q_the_function_would_change():
    source = zeroed("class token", 4, 64)
    found, target = Family.of(source), TargetSpec(16, 2, num_heads=4)
    state = resample(
        source.state_dict(), found.size, found.resolve(target), spec_of(source), exact()
    )
    state["blocks.0.attn.qkv.weight"][:16] *= 2**0.5
    other = found.create(target)
    other.load_state_dict(state)
    assert (other.eval()(images()) - source(images())).abs().max() > 1e-3


def test_what_is_kept_are_leading_channels_heads_and_hidden_units():
    source = tiny(embed_dim=32, num_heads=4)
    found, old = Family.of(source), dict(source.named_parameters())
    full = found.resolve(TargetSpec(12, 2, num_heads=2, mlp_ratio=2.5))
    state = resample(
        old, found.size, full, spec_of(source), Resampling(width_scale="none", symmetry="none")
    )
    rows = [third * 32 + head * 8 + c for third in range(3) for head in range(2) for c in range(6)]
    factor = torch.ones(36)
    factor[:12] = (6 / 8) ** 0.5
    name = "blocks.1.attn.qkv"
    torch.testing.assert_close(
        state[f"{name}.weight"], old[f"{name}.weight"][rows][:, :12] * factor[:, None]
    )
    torch.testing.assert_close(state[f"{name}.bias"], old[f"{name}.bias"][rows] * factor)
    assert torch.equal(
        state["blocks.1.attn.proj.weight"], old["blocks.1.attn.proj.weight"][:12][:, rows[:12]]
    )
    assert torch.equal(state["blocks.1.mlp.fc2.weight"], old["blocks.1.mlp.fc2.weight"][:12, :30])
    assert torch.equal(state["blocks.1.mlp.fc1.bias"], old["blocks.1.mlp.fc1.bias"][:30])
    assert torch.equal(state["pos_embed"], old["pos_embed"][..., :12])
    assert torch.equal(state["patch_embed.proj.weight"], old["patch_embed.proj.weight"][:12])
    assert channel_map(spec_of(source), found.size, full, Resampling()) == list(range(12))
    assert Match.of(found.size, found.size, full, spec_of(source), Resampling()).channels == tuple(
        range(12)
    )


def built(
    family: str = "class token", spec: TemplateSpec | None = None
) -> tuple[nn.Module, Family, TemplateBank]:
    plain = tiny(family, embed_dim=32, num_heads=4)
    model = templated(plain, TemplateBank(spec or spec_of(plain)))
    randomise(model)
    return (
        model,
        Family.of(tiny(family, embed_dim=32, num_heads=4)),
        model.get_submodule("templates"),
    )


@settings(max_examples=40, deadline=None)
@given(
    heads=st.integers(1, 6),
    head_dim=st.integers(1, 8),
    ratio=st.sampled_from([None, 1, 1.3, 2.3, 3]),
    width=st.sampled_from(["leading", "even"]), scale=st.sampled_from(["none", "sqrt"]),
    family=st.sampled_from(["class token", "distilled", "qk_norm", "scaled norms"]),
    block=st.sampled_from([4, 8, 16]),
)  # fmt: skip
def test_scalers_of_whole_blocks_then_cropped_are_the_dense_weights_cropped(
    heads: int, head_dim: int, ratio: float | None, width: str, scale: str, family: str, block: int
):
    """The same map on the weights that the templates build, and on the scalers that build them."""
    spec = spec_of(tiny(family, embed_dim=32, num_heads=4), block=block)
    model, found, bank = built(family, spec)
    full = found.resolve(TargetSpec(heads * head_dim, 3, num_heads=heads, mlp_ratio=ratio))
    options = Resampling(width=width, width_scale=scale, symmetry="none")
    other = templated(found.create(full), bank)
    other.load_state_dict(resample(own_state(model), found.size, full, spec, options), strict=False)
    dense = resample(materialise(model), found.size, full, spec, options)
    for name, tensor in materialise(other).items():
        torch.testing.assert_close(tensor, dense[name], atol=1e-5, rtol=1e-5, msg=name)


def test_the_copy_of_a_part_of_a_block_reads_nothing():
    model, found, bank = built()
    full = found.resolve(
        TargetSpec(44, 2, num_heads=11)
    )  # 32 + 12: block 0 twice, block 1 once and a half
    old = own_state(model)["blocks.0.mlp.fc1.scalers"]
    new = resample(own_state(model), found.size, full, bank.spec, exact())[
        "blocks.0.mlp.fc1.scalers"
    ]
    factors = (new[:, :16, :6] / old[:, :16, [0, 1, 2, 3, 0, 1]]).mean((0, 1))
    torch.testing.assert_close(factors, torch.tensor([0.5, 1, 1, 1, 0.5, 0]))


@pytest.mark.parametrize("symmetry", ["none", "split"])
def test_copies_of_a_part_of_the_hidden_units_keep_the_function(symmetry: str):
    model, found, bank = built()
    full = found.resolve(TargetSpec(32, 2, mlp_ratio=6.2))  # 198 of 128: the last block in part
    other = templated(found.create(full), bank)
    state = resample(own_state(model), found.size, full, bank.spec, Resampling(symmetry=symmetry))
    other.load_state_dict(state, strict=False)
    with torch.no_grad():
        torch.testing.assert_close(
            other.eval()(images()), model.eval()(images()), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("width", get_args(Width))
@pytest.mark.parametrize("scale", get_args(WidthScale))
@pytest.mark.parametrize(
    "target",
    [TargetSpec(20, 2, num_heads=4), TargetSpec(36, 3, num_heads=6)],
    ids=["narrow", "wide"],
)
def test_every_combination_of_options_reads_off_a_cropped_size(
    width: Width, scale: WidthScale, target: TargetSpec
):
    ancestor = tiny(embed_dim=24, num_heads=3)
    family, spec = Family.of(ancestor), spec_of(ancestor)
    options = Resampling(width=width, width_scale=scale)
    scalers = own_state(condense(ancestor, spec))
    state = resample(scalers, family.size, family.resolve(target), spec, options)
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())


def test_a_source_is_of_whole_blocks_and_heads():
    model, found, bank = built()
    cropped = found.resolve(TargetSpec(12, 2, num_heads=2))
    with pytest.raises(
        WaveError,
        match=r"embed_dim=12, 2 heads of 6 cannot be built .*nearest valid widths: 8 and 16",
    ):
        resample(own_state(model), cropped, found.size, bank.spec, Resampling())


def test_interleaved_blocks_and_wider_heads_are_refused():
    model, found, bank = built(spec=spec_of(tiny(), order="interleave"))
    for target, words in [
        (TargetSpec(12, 2, num_heads=2), "nearest valid widths"),
        (TargetSpec(32, 2, num_heads=2), "head_dim is 16; .* needs num_heads=4 or more"),
    ]:
        with pytest.raises(WaveError, match=words):
            resample(own_state(model), found.size, found.resolve(target), bank.spec, Resampling())


def test_a_family_leaves_out_what_it_has_anyway():
    found = Family.of(tiny())
    assert found.resolve(TargetSpec(32, 2, num_heads=4, mlp_ratio=4)) == found.resolve(
        TargetSpec(32, 2)
    )
    arguments = found.model_arguments(TargetSpec(12, 2, num_heads=3, mlp_ratio=2.5))
    assert (arguments["num_heads"], arguments["mlp_ratio"]) == (3, 2.5)
    assert (
        found.create(TargetSpec(12, 2, num_heads=3, mlp_ratio=2.5)).blocks[0].mlp.fc1.out_features
        == 30
    )


def digest(state: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        found.update(
            f"{name} {tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes()
        )
    return found.hexdigest()[:16]


WHOLE = {
    16: "63c39e77aaadeda7",
    32: "7d37e3326892f639",
    48: "490ad85fabfb104f",
    80: "4ec271cf88157afe",
}


@pytest.mark.parametrize("width", WHOLE)
def test_whole_sizes_are_read_off_to_the_bit_as_before_there_were_others(width: int):
    model, found, bank = built("distilled")
    state = {
        k: torch.arange(v.numel(), dtype=torch.float32).reshape(v.shape) % 97 / 97
        for k, v in own_state(model).items()
    }
    full = found.resolve(TargetSpec(width, 3))
    assert digest(resample(state, found.size, full, bank.spec, Resampling(seed=3))) == WHOLE[width]
