"""Every baseline, every size it reaches: a complete, finite state dict, the same for the same
seed."""

import dataclasses
import pickle

import pytest
import torch

from wave.baselines import BASELINES, Baseline
from wave.errors import WaveError
from wave.spec import TargetSpec

TARGETS = [
    TargetSpec(16, 4),
    TargetSpec(16, 1),
    TargetSpec(16, 7),
    TargetSpec(8, 4),
    TargetSpec(24, 4),
    TargetSpec(32, 4),
    TargetSpec(8, 3),
    TargetSpec(24, 6),
    TargetSpec(32, 2),
    TargetSpec(8, 6),
    TargetSpec(16, 3, num_classes=3),
    TargetSpec(32, 5, num_classes=3),
    TargetSpec(16, 4, img_size=12),
    TargetSpec(8, 2, img_size=16, patch_size=8),
    TargetSpec(24, 4, img_size=16),
]
RANDOM = {"timm_default", "kaiming", "mimetic", "heur_lg"}
REACH = {
    "timm_default": None,
    "kaiming": None,
    "mimetic": None,
    "weight_selection": "shrinking only",
    "weight_selection_classifier": "shrinking only",
    "weight_selection_heads": "shrinking only",
    "ligo": "growth only",
    "tleg": "depth only",
    "sws": "depth only",
    "heur_lg": "depth only",
    "shared_block": "depth only",
    "dct": None,
    "dct_scaled": None,
    "wavelet": None,
}


def start(baseline: Baseline, ancestor, family):
    """What the method reads: the ancestor, or its own stage 1, not yet trained."""
    return baseline.stage1(family, 0, ancestor) if baseline.stage1 else ancestor


@pytest.fixture
def short_ligo(monkeypatch: pytest.MonkeyPatch):
    """Two steps instead of a hundred: these tests look at shapes."""
    module = __import__("wave.baselines.ligo", fromlist=["STEPS"])
    monkeypatch.setattr(module, "STEPS", 2)


def test_names():
    assert dict(BASELINES) == {b.name: b for b in BASELINES.values()}
    assert set(BASELINES) == set(REACH)
    assert (
        {n for n, b in BASELINES.items() if b.needs_batches}
        == {n for n, b in BASELINES.items() if b.steps}
        == {"ligo"}
    )
    assert {n for n, b in BASELINES.items() if b.stage1} == {"tleg", "sws", "shared_block"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASELINES["ligo"].steps = 0  # type: ignore[misc]


@pytest.mark.parametrize("name", REACH)
def test_reach(name: str, family):
    source = family.size
    smaller, larger = TargetSpec(8, 3), TargetSpec(24, 5)
    deeper, shallower, mixed = TargetSpec(16, 6), TargetSpec(16, 2), TargetSpec(24, 2)
    reach = BASELINES[name].reach
    assert reach(source, source) is None
    refused = {
        None: [],
        "shrinking only": [larger, deeper, mixed],
        "growth only": [smaller, shallower, mixed],
        "depth only": [smaller, larger, mixed],
    }[REACH[name]]
    for target in (smaller, larger, deeper, shallower, mixed):
        assert reach(source, target) == (REACH[name] if target in refused else None)


@pytest.mark.parametrize("name", REACH)
def test_every_reachable_size_loads(name: str, ancestor, family, batches_of, short_ligo):
    baseline = BASELINES[name]
    source, reached, before = start(baseline, ancestor, family), 0, torch.get_rng_state()
    for target in TARGETS:
        if baseline.reach(family.size, target) is not None:
            continue
        reached += 1
        full = family.resolve(target)
        batches = batches_of(full.img_size, full.num_classes)
        state = baseline.initialise(source, family, target, 3, batches=batches)
        model = family.create(target).eval()
        model.load_state_dict(state, strict=True)
        assert all(
            torch.isfinite(t).all() and t.dtype == torch.float32 and not t.requires_grad
            for t in state.values()
        )
        assert torch.isfinite(model(torch.randn(2, 1, full.img_size, full.img_size))).all()
    assert reached >= 5
    torch.set_rng_state(before)


@pytest.mark.parametrize("name", REACH)
def test_unreachable_sizes_are_refused_with_the_reason(name: str, ancestor, family, batches):
    baseline = BASELINES[name]
    for target in TARGETS:
        reason = baseline.reach(family.size, target)
        if reason is not None:
            with pytest.raises(WaveError, match=reason):
                baseline.initialise(
                    start(baseline, ancestor, family), family, target, 0, batches=batches
                )


@pytest.mark.parametrize("name", REACH)
def test_seeds(name: str, ancestor, family, batches, short_ligo):
    baseline = BASELINES[name]
    target = TargetSpec(16, 4) if name != "ligo" else TargetSpec(24, 5)
    source = start(baseline, ancestor, family)
    global_state = torch.get_rng_state()
    one, again, other = (
        baseline.initialise(source, family, target, s, batches=batches) for s in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), global_state)
    assert all(torch.equal(one[k], again[k]) for k in one)
    differs = {k for k in one if not torch.equal(one[k], other[k])}
    if name in RANDOM | {"ligo"}:
        assert "blocks.0.attn.qkv.weight" in differs
    elif name == "weight_selection":
        assert differs == {"head.weight"}
    else:
        assert not differs


@pytest.mark.parametrize("name", REACH)
def test_the_ancestor_is_left_alone(name: str, ancestor, family, batches, short_ligo):
    baseline, before = BASELINES[name], {k: v.clone() for k, v in ancestor.state_dict().items()}
    state = baseline.initialise(
        start(baseline, ancestor, family), family, family.size, 0, batches=batches
    )
    for tensor in state.values():
        tensor.add_(1)
    assert all(torch.equal(v, before[k]) for k, v in ancestor.state_dict().items())


@pytest.mark.parametrize(
    "name",
    sorted(set(REACH) - RANDOM - {"weight_selection", "tleg", "sws", "shared_block", "ligo"}),
)
def test_the_ancestors_own_size_is_the_ancestor(name: str, ancestor, family):
    state = BASELINES[name].initialise(ancestor, family, family.size, 0)
    for key, value in ancestor.state_dict().items():
        torch.testing.assert_close(state[key], value)


@pytest.mark.parametrize("name", REACH)
def test_other_classes_draw_the_classifier(name: str, ancestor, family, batches_of, short_ligo):
    baseline, target = BASELINES[name], TargetSpec(16, 4, num_classes=3)
    state = baseline.initialise(
        start(baseline, ancestor, family), family, target, 5, batches=batches_of(8, 3)
    )
    assert state["head.weight"].shape == (3, 16)


def test_a_stage1_method_asks_for_its_own_model(ancestor, family):
    sws = BASELINES["sws"].stage1(family)
    for given, name in ((ancestor, "VisionTransformer"), (sws, "sws")):
        with pytest.raises(WaveError, match=f"tleg reads its own trained stage 1, not {name}"):
            BASELINES["tleg"].initialise(given, family, TargetSpec(16, 2), 0)


def test_plain_methods_can_be_pickled():
    for name in set(REACH) - {"tleg", "sws", "shared_block"}:
        assert pickle.loads(pickle.dumps(BASELINES[name])).name == name
