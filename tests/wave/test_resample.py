"""Other depths and widths: the function is kept where theory says so, and each option has the
effect it claims."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

from tests.wave.models import FAMILIES, exact, images, randomise, spec_of, tiny
from wave import (
    KINDS,
    Family,
    Resampling,
    TargetSpec,
    TemplateBank,
    TemplateSpec,
    WaveError,
    condense,
    resample,
    templated,
)
from wave.layers import depth_map
from wave.vit import own_state
from wave.width import block_map, split_factors

ours = settings(max_examples=50, deadline=None)


def auxiliary(
    family: str = "class token", spec: TemplateSpec | None = None, **arguments: object
) -> tuple[nn.Module, Family]:
    """A templated model of random numbers in place of a distilled one."""
    plain = tiny(family, **arguments)
    found = Family.of(plain)
    model = templated(plain, TemplateBank(spec or spec_of(plain)))
    randomise(model)
    return model.eval(), found


def resized(model: nn.Module, family: Family, target: TargetSpec, options: Resampling) -> nn.Module:
    """The templated model of another size, from the same templates and the resampled own state."""
    full, bank = family.resolve(target), model.get_submodule("templates")
    state = resample(own_state(model), family.size, full, bank.spec, options)
    other = templated(family.create(full), bank)
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.startswith(("templates.", "head")) for name in missing)
    return other.eval()


def check_function_kept(
    family: str, target: TargetSpec, options: Resampling, **arguments: object
) -> None:
    model, found = auxiliary(family, **arguments)
    other = resized(model, found, target, options)
    with torch.no_grad():
        wanted, got = (
            model(images(pixels=found.size.img_size)),
            other(images(pixels=found.size.img_size)),
        )
    assert wanted.std() > 0.01
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("symmetry", ["none", "split"])
@pytest.mark.parametrize(
    "size", [(32, 2), (48, 2), (16, 5), (32, 5)], ids=lambda s: "x".join(map(str, s))
)
@pytest.mark.parametrize("family", FAMILIES)
def test_growth_by_whole_multiples_keeps_the_function(
    family: str, size: tuple[int, int], symmetry: str
):
    check_function_kept(family, TargetSpec(*size), exact(symmetry=symmetry))


@pytest.mark.parametrize("symmetry", ["none", "split"])
@pytest.mark.parametrize("width", [128, 192])
def test_growth_from_64_channels(width: int, symmetry: str):
    arguments = {"embed_dim": 64, "depth": 3, "num_heads": 4}
    check_function_kept(
        "class token", TargetSpec(width, 4), exact(symmetry=symmetry, strength=0.5), **arguments
    )


@pytest.mark.parametrize("blocks", [(4, 8), (8, 4), (16, 16), (2, 2)])
def test_growth_with_blocks_of_other_shapes(blocks: tuple[int, int]):
    spec = TemplateSpec(dict.fromkeys(KINDS, blocks), dict.fromkeys(KINDS, 3), 8)
    model, family = auxiliary(spec=spec)
    for options in (exact(), exact(symmetry="split")):
        other = resized(model, family, TargetSpec(32, 2), options)
        torch.testing.assert_close(other(images()), model(images()), atol=1e-5, rtol=1e-5)


def test_growth_with_one_shared_head_whose_blocks_are_full_size_is_a_depth_change_only():
    spec = TemplateSpec(
        {"qkv": (48, 16), "proj": (16, 16), "fc1": (64, 16), "fc2": (16, 64)},
        dict.fromkeys(KINDS, 2),
        8,
    )
    model, family = auxiliary(spec=spec)
    resized(model, family, TargetSpec(16, 4), exact())
    with pytest.raises(WaveError, match="embed_dim"):
        resized(model, family, TargetSpec(24, 2), exact())


def test_interleave_changes_widths_in_equal_blocks_only():
    square = TemplateSpec.uniform(8, 3, order="interleave")
    model, family = auxiliary(spec=square)
    resized(model, family, TargetSpec(32, 3), exact())
    mixed = TemplateSpec(
        {"qkv": (8, 8), "proj": (8, 8), "fc1": (16, 8), "fc2": (8, 16)},
        dict.fromkeys(KINDS, 3),
        8,
        order="interleave",
    )
    model, family = auxiliary(spec=mixed)
    resized(model, family, TargetSpec(16, 3), exact())
    with pytest.raises(WaveError, match="use order=tile"):
        resized(model, family, TargetSpec(32, 2), exact())


def test_interleave_keeps_the_function_of_one_head():
    """With one head in both sizes nothing is cut across: the block map alone is on trial (MLP,
    stream, scalers)."""
    spec = TemplateSpec.uniform(8, 3, order="interleave")
    model, family = auxiliary(spec=spec, embed_dim=8, num_heads=1)
    for block in model.blocks:
        nn.init.zeros_(
            block.attn.proj.scalers
        )  # attention reads whole heads, which interleaving mixes
    other = resized(model, family, TargetSpec(16, 2), exact())
    torch.testing.assert_close(other(images()), model(images()), atol=1e-5, rtol=1e-5)


def test_a_dense_state_grows_by_the_same_code():
    plain = tiny("registers")
    family = Family.of(plain)
    state = resample(
        dict(plain.named_parameters()),
        family.size,
        family.resolve(TargetSpec(32, 3)),
        spec_of(plain),
        exact(),
    )
    grown = family.create(TargetSpec(32, 3))
    grown.load_state_dict(state, strict=True)
    torch.testing.assert_close(grown.eval()(images()), plain(images()), atol=1e-5, rtol=1e-5)


# --- depth ---


@ours
@given(st.integers(1, 12), st.integers(1, 24))
def test_the_depth_map_runs_from_the_first_layer_to_the_last(source: int, target: int):
    found = depth_map(source, target)
    assert len(found) == target
    assert found == sorted(found)
    assert found[0] == 0
    if target > 1:
        assert found[-1] == source - 1


def scalers(state: dict[str, Tensor]) -> list[float]:
    return [
        float(state[f"blocks.{i}.mlp.fc1.scalers"].detach().flatten()[0]) for i in range(len(state))
    ]


def depths(options: Resampling, source: int, target: int) -> list[float]:
    """One number a layer, i for auxiliary layer i, after the change of depth."""
    state = {f"blocks.{i}.mlp.fc1.scalers": torch.full((2, 8, 2), float(i)) for i in range(source)}
    sizes = [TargetSpec(16, depth, 5, 16, 8) for depth in (source, target)]
    return scalers(resample(state, *sizes, TemplateSpec.uniform(8, 2), options))


def test_nearest_repeats_and_drops_whole_layers():
    assert depths(Resampling(depth="nearest"), 3, 6) == [0, 0, 1, 1, 2, 2]
    assert depths(Resampling(depth="nearest"), 6, 3) == [0, 3, 5]
    assert depths(Resampling(depth="nearest"), 4, 1) == [0]


def test_linear_interpolates_between_neighbours():
    found = depths(Resampling(depth="linear"), 3, 5)
    assert found == pytest.approx([0, 0.5, 1, 1.5, 2])
    assert depths(Resampling(depth="linear"), 4, 4) == [0, 1, 2, 3]


def test_identity_copies_every_layer_once_and_falls_back_to_nearest_when_shrinking():
    model, family = auxiliary()
    state = resample(
        own_state(model), family.size, family.resolve(TargetSpec(16, 5)), spec_of(tiny()), exact()
    )
    silent = [
        i
        for i in range(5)
        if not state[f"blocks.{i}.attn.proj.scalers"].any()
        and not state[f"blocks.{i}.mlp.fc2.bias"].any()
    ]
    assert silent == [1, 2, 3]
    assert depths(Resampling(depth="identity"), 6, 3) == [0, 3, 5]


# --- width ---


@ours
@given(st.integers(1, 12), st.integers(1, 24), st.sampled_from(["leading", "even"]))
def test_the_block_map_copies_all_blocks_equally_often(source: int, target: int, width: str):
    found = block_map(source, target, width)
    assert (
        found == sorted(found)
        if width == "even"
        else found[:source] == list(range(min(source, target)))
    )
    counts = [found.count(i) for i in range(source)]
    assert sum(counts) == target
    assert max(counts) - min(counts) <= 1
    if target % source == 0:
        assert set(counts) == {target // source}


@pytest.mark.parametrize(("width", "heads"), [("even", (0, 2)), ("leading", (0, 1))])
def test_shrinking_selects_whole_heads_in_order(width: str, heads: tuple[int, int]):
    plain = tiny(embed_dim=32, num_heads=4)
    family, spec = Family.of(plain), TemplateSpec.uniform(8, 6)
    options = Resampling(width=width, width_scale="none", symmetry="split")
    state = resample(
        dict(plain.named_parameters()),
        family.size,
        family.resolve(TargetSpec(16, 2)),
        spec,
        options,
    )
    rows = [i for head in heads for i in range(8 * head, 8 * head + 8)]  # of 4 heads
    old = dict(plain.named_parameters())
    assert torch.equal(state["pos_embed"], old["pos_embed"][..., rows])
    assert torch.equal(state["head.weight"], old["head.weight"][:, rows])
    assert torch.equal(state["norm.bias"], old["norm.bias"][rows])
    qkv = [third * 32 + r for third in range(3) for r in rows]
    assert torch.equal(
        state["blocks.1.attn.qkv.weight"], old["blocks.1.attn.qkv.weight"][qkv][:, rows]
    )
    units = range(0, 16, 2) if width == "even" else range(8)
    hidden = [i for unit in units for i in range(8 * unit, 8 * unit + 8)]
    assert torch.equal(
        state["blocks.1.mlp.fc2.weight"], old["blocks.1.mlp.fc2.weight"][rows][:, hidden]
    )


@pytest.mark.parametrize("width", ["leading", "even"])
@pytest.mark.parametrize(
    ("scale", "factor"),
    [("none", 1.0), ("sqrt", math.sqrt(1 / 2)), ("copies", 1 / 2), ("auto", 1 / 2)],
)
def test_the_reading_side_alone_is_scaled(scale: str, factor: float, width: str):
    plain = tiny()
    family = Family.of(plain)
    options = Resampling(width=width, width_scale=scale, symmetry="none")
    old = dict(plain.named_parameters())
    state = resample(old, family.size, family.resolve(TargetSpec(32, 2)), spec_of(plain), options)
    rows = (
        [*range(8), *range(8), *range(8, 16), *range(8, 16)]
        if width == "even"
        else [*range(16)] * 2
    )
    torch.testing.assert_close(state["head.weight"], factor * old["head.weight"][:, rows])
    torch.testing.assert_close(
        state["blocks.0.attn.proj.weight"], factor * old["blocks.0.attn.proj.weight"][rows][:, rows]
    )
    for name in ("norm.weight", "pos_embed", "blocks.0.attn.proj.bias", "patch_embed.proj.weight"):
        dim = 0 if name == "patch_embed.proj.weight" else -1
        torch.testing.assert_close(state[name], old[name].index_select(dim, torch.tensor(rows)))


def test_when_shrinking_auto_is_sqrt():
    plain = tiny(embed_dim=32, num_heads=4)
    family, old = Family.of(plain), dict(plain.named_parameters())
    one, other = (
        resample(
            old,
            family.size,
            family.resolve(TargetSpec(16, 2)),
            spec_of(plain),
            Resampling(width_scale=scale),
        )
        for scale in ("auto", "sqrt")
    )
    assert all(torch.equal(v, other[k]) for k, v in one.items())
    torch.testing.assert_close(one["head.weight"], math.sqrt(2) * old["head.weight"][:, :16])


def test_unequal_copies_are_divided_by_their_own_number():
    plain = tiny()
    family = Family.of(plain)
    old = dict(plain.named_parameters())
    state = resample(old, family.size, family.resolve(TargetSpec(24, 2)), spec_of(plain), exact())
    head = state["head.weight"]
    torch.testing.assert_close(head[:, :8] + head[:, 16:], old["head.weight"][:, :8])
    torch.testing.assert_close(head[:, 8:16], old["head.weight"][:, 8:])


# --- symmetry ---


@ours
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=12),
    st.integers(1, 5),
    st.floats(0, 1),
    st.integers(0, 99),
)
def test_split_factors_average_to_one_over_the_copies(
    groups: list[int], rows: int, strength: float, seed: int
):
    index = sorted(groups)
    factors = split_factors(index, rows, strength, torch.Generator().manual_seed(seed))
    for i in set(index):
        mean = factors[:, [k for k, g in enumerate(index) if g == i]].mean(1)
        torch.testing.assert_close(mean, torch.ones(rows), atol=1e-5, rtol=1e-5)


def test_split_factors_differ_by_row_and_grow_with_the_strength():
    weak, strong = (
        split_factors([0, 0], 4, s, torch.Generator().manual_seed(0)) for s in (0.1, 0.9)
    )
    assert len(set(weak[:, 0].tolist())) == 4
    assert (weak - 1).abs().max() < (strong - 1).abs().max()


def test_noise_changes_the_matrices_and_the_seed_changes_the_noise():
    model, family = auxiliary()
    target, spec = family.resolve(TargetSpec(32, 2)), spec_of(tiny())
    plain, noisy, again, other = (
        resample(own_state(model), family.size, target, spec, exact(symmetry=s, seed=seed))
        for s, seed in (("none", 0), ("noise", 0), ("noise", 0), ("noise", 1))
    )
    name = "blocks.0.attn.proj.scalers"
    relative = (noisy[name] - plain[name]).square().mean().sqrt() / plain[
        name
    ].square().mean().sqrt()
    assert 0.05 < float(relative.detach()) < 0.2  # strength 0.1
    assert torch.equal(noisy[name], again[name])
    assert not torch.equal(noisy[name], other[name])
    assert torch.equal(noisy["norm.weight"], plain["norm.weight"])
    smaller = resample(
        own_state(model),
        family.size,
        family.resolve(TargetSpec(8, 2)),
        spec,
        exact(symmetry="noise"),
    )
    fewer = resample(own_state(model), family.size, family.resolve(TargetSpec(8, 2)), spec, exact())
    assert all(torch.equal(v, fewer[k]) for k, v in smaller.items())


def difference_of_copies(symmetry: str) -> float:
    """How far copied channels of the residual stream differ, relative to their size, after a few
    steps."""
    model, family = auxiliary()
    grown = resized(model, family, TargetSpec(32, 2), exact(symmetry=symmetry))
    optimizer = torch.optim.AdamW(grown.parameters(), lr=3e-3)
    x, y = images(batch=8), torch.arange(8) % 5
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(grown(x), y).backward()
        optimizer.step()
    stream: list[Tensor] = []
    grown.blocks[-1].register_forward_hook(lambda *a: stream.append(a[2].detach()))
    grown(x)
    first, second = stream[0].chunk(2, -1)
    return float((first - second).std() / first.std())


def test_copies_stay_identical_without_and_diverge_with_a_broken_symmetry():
    assert difference_of_copies("none") < 1e-4
    assert difference_of_copies("split") > 1e-2
    assert difference_of_copies("noise") > 1e-2


# --- images, heads, gradients, bad options ---


def test_other_images_and_patches_are_resized_by_timm():
    model, family = auxiliary("registers")
    state = own_state(model)
    found = resample(
        state,
        family.size,
        family.resolve(TargetSpec(16, 2, img_size=32, patch_size=4)),
        spec_of(tiny()),
        exact(),
    )
    expected = resample_abs_pos_embed(state["pos_embed"], [8, 8], [2, 2], num_prefix_tokens=3)
    torch.testing.assert_close(found["pos_embed"], expected)
    assert torch.equal(found["pos_embed"][:, :3], state["pos_embed"][:, :3])
    assert found["patch_embed.proj.weight"].shape == (16, 3, 4, 4)


def test_the_head_is_kept_for_the_same_classes_only():
    model, family = auxiliary("distilled")
    names = {
        c: set(
            resample(
                own_state(model),
                family.size,
                family.resolve(TargetSpec(16, 2, c)),
                spec_of(tiny()),
                exact(),
            )
        )
        for c in (5, 6)
    }
    assert {n for n in names[5] if n.startswith("head")} == {
        "head.weight",
        "head.bias",
        "head_dist.weight",
        "head_dist.bias",
    }
    assert names[5] - names[6] == {n for n in names[5] if n.startswith("head")}


@pytest.mark.parametrize("target", [(16, 2), (32, 5), (8, 1), (24, 3)])
def test_the_map_is_linear_and_gradients_flow_through_it(target: tuple[int, int]):
    model, family = auxiliary()
    full, spec = family.resolve(TargetSpec(*target)), spec_of(tiny())
    options = Resampling(depth="linear", symmetry="split")
    one = {k: v.detach() for k, v in own_state(model).items()}
    two = {k: torch.randn_like(v) for k, v in one.items()}
    both = resample({k: 2 * one[k] + two[k] for k in one}, family.size, full, spec, options)
    a, b = (resample(s, family.size, full, spec, options) for s in (one, two))
    for name, value in both.items():
        torch.testing.assert_close(value, 2 * a[name] + b[name], atol=1e-5, rtol=1e-5)
    result = resample(own_state(model), family.size, full, spec, options)
    sum(v.square().sum() for v in result.values()).backward()
    assert model.get_parameter("blocks.0.attn.qkv.scalers").grad.abs().sum() > 0


@pytest.mark.parametrize(
    "change",
    [
        {"depth": "cubic"},
        {"width_scale": "half"},
        {"symmetry": "mirror"},
        {"strength": -0.1},
        {"strength": math.nan},
    ],
)
def test_impossible_options(change: dict[str, object]):
    with pytest.raises(WaveError, match=next(iter(change))):
        Resampling(**change)


def test_a_width_that_the_map_cannot_reach_is_named():
    blocks = {
        "qkv": (24, 8),
        "proj": (8, 8),
        "fc1": (8, 8),
        "fc2": (8, 8),
    }  # a block of qkv is half of q, k and v
    spec = TemplateSpec(blocks, dict.fromkeys(KINDS, 3), 8)
    model, family = auxiliary(spec=spec)
    with pytest.raises(
        WaveError, match=r"embed_dim 16 is not a multiple of 24.* depth only: use embed_dim=16"
    ):
        resized(model, family, TargetSpec(24, 2), exact())
    resized(model, family, TargetSpec(16, 3), exact())


def test_condense_of_an_ancestor_then_growth_keeps_what_was_condensed():
    plain = tiny()
    model = condense(plain, spec_of(plain, count=8)).eval()
    other = resized(model, Family.of(plain), TargetSpec(32, 4), exact(symmetry="split"))
    torch.testing.assert_close(other(images()), model(images()), atol=1e-5, rtol=1e-5)
