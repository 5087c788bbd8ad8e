"""The loss against its formula, the schedule against its values, and a training that resumes as if
never cut."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.wave.models import exact, spec_of, tiny
from wave import (
    Batch,
    Diverged,
    Family,
    MultiSize,
    Recipe,
    SizeSampler,
    TargetSpec,
    Teacher,
    Trainer,
    WaveError,
    condense,
)
from wave.losses import distillation_loss
from wave.measure import all_logits
from wave.optimiser import parameter_groups

MEAN, STD = (0.5,) * 3, (0.5,) * 3


def stream(step: int) -> Iterator[Batch]:
    """Endless batches, each a function of its step alone."""
    for i in itertools.count(step):
        generator = torch.Generator().manual_seed(i)
        yield Batch(
            torch.randn(6, 3, 16, 16, generator=generator),
            torch.randint(0, 5, (6,), generator=generator),
        )


def model(seed: int = 0) -> nn.Module:
    ancestor = tiny(seed=seed)
    return condense(ancestor, spec_of(ancestor, count=4))


def trainer(net: nn.Module | None = None, steps: int = 6, **settings: object) -> Trainer:
    extra = {
        k: settings.pop(k)
        for k in ("teacher", "sampler", "seed", "feature_weight", "annealing")
        if k in settings
    }
    recipe = Recipe(**{"steps": steps, "lr": 1e-2, "log_every": 1, **settings})
    return Trainer(model() if net is None else net, recipe, steps, num_classes=5, **extra)


# --- the loss ---


def slow_loss(z: Tensor, y: Tensor, teacher: Tensor | None, recipe: Recipe) -> float:
    """The formula, one image and one class at a time, in float64."""

    def softmax(row: list[float], tau: float) -> list[float]:
        top = max(row)
        e = [math.exp((v - top) / tau) for v in row]
        return [v / sum(e) for v in e]

    total, k = 0.0, z.shape[1]
    for i, row in enumerate(z.tolist()):
        wanted = [float(c == y[i]) for c in range(k)] if y.ndim == 1 else y[i].tolist()
        wanted = [(1 - recipe.label_smoothing) * w + recipe.label_smoothing / k for w in wanted]
        total -= recipe.ce_weight * sum(
            w * math.log(p) for w, p in zip(wanted, softmax(row, 1), strict=True)
        )
        if teacher is not None:
            p, q = softmax(teacher[i].tolist(), recipe.tau), softmax(row, recipe.tau)
            total += (
                recipe.kl_weight
                * recipe.tau**2
                * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            )
    return total / len(z)


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tau": 3.0},
        {"kl_weight": 0.0},
        {"ce_weight": 0.0},
        {"tau": 0.5, "kl_weight": 0.3, "ce_weight": 2.0, "label_smoothing": 0.1},
    ],
)
def test_the_loss_is_the_formula(settings: dict[str, float], probabilities: bool):
    z, t = (3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    y = torch.tensor([0, 3, 4, 4])
    target = torch.softmax(torch.randn(4, 5), 1) if probabilities else y
    recipe = Recipe(steps=1, **settings)
    for teacher in (t, None):
        found = float(distillation_loss(z, target, teacher, recipe))
        assert found == pytest.approx(slow_loss(z, target, teacher, recipe), rel=1e-5)


def test_the_loss_is_computed_in_float32_and_vanishes_for_equal_logits():
    z = torch.randn(4, 5)
    recipe = Recipe(steps=1, ce_weight=0.0, tau=4.0)
    assert float(
        distillation_loss(z, torch.zeros(4, dtype=torch.long), z, recipe)
    ) == pytest.approx(0, abs=1e-6)
    assert (
        distillation_loss(
            z.bfloat16(), torch.zeros(4, dtype=torch.long), z.bfloat16(), recipe
        ).dtype
        == torch.float32
    )


def test_the_loss_of_several_sizes_is_their_mean():
    family = Family.of(tiny())
    multi = MultiSize(model(), family, family.size, exact(), always=True)
    sizes = [TargetSpec(32, 2), TargetSpec(8, 1)]
    run = trainer(multi, sampler=lambda _: sizes)
    batch = next(stream(0))
    expected = [
        float(distillation_loss(z, batch.labels, None, run.recipe).detach())
        for z in multi(batch.images, sizes)
    ]
    assert next(run.run(stream))["loss"] == pytest.approx(sum(expected) / 3, rel=1e-5)


# --- the optimiser ---


def test_weight_decay_spares_norms_biases_tokens_and_positions_also_inside_multisize():
    family = Family.of(tiny("registers"))
    for net in (
        model(),
        MultiSize(model(), family, family.size, exact(), always=True),
        tiny("registers"),
        tiny("distilled"),
    ):
        names = {id(p): n for n, p in net.named_parameters()}
        groups = parameter_groups(net, Recipe(steps=1))
        decayed = {names[id(p)] for g in groups if g["weight_decay"] for p in g["params"]}
        spared = {names[id(p)] for g in groups if not g["weight_decay"] for p in g["params"]}
        assert decayed | spared == set(names.values())
        assert not any(n.endswith(("bias", "token", "pos_embed")) or "norm" in n for n in decayed)
        assert all(n.endswith(("weight", "scalers", "qkv", "proj", "fc1", "fc2")) for n in decayed)
        assert any(n.endswith("pos_embed") for n in spared)


def test_rates_of_templates_and_scalers_are_scaled_and_zero_freezes():
    net = model()
    names = {id(p): n for n, p in net.named_parameters()}
    scales: dict[float, set[str]] = {}
    for group in parameter_groups(net, Recipe(steps=1, template_lr_scale=0.0, scaler_lr_scale=3.0)):
        scales.setdefault(group["lr_scale"], set()).update(names[id(p)] for p in group["params"])
    assert set(scales) == {1.0, 3.0}
    assert scales[3.0] == {n for n in names.values() if n.endswith("scalers")}
    before = {k: v.clone() for k, v in net.state_dict().items()}
    list(trainer(net, template_lr_scale=0.0).run(stream))
    changed = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {k for k in before if not k.startswith("templates.")}


def test_a_group_keeps_its_share_of_the_rate_in_every_step():
    run = trainer(
        model(), steps=10, warmup_steps=2, lr=1e-3, min_lr=1e-5, template_lr_scale=1e-3, log_every=1
    )
    for _ in run.run(stream):
        rates = {group["lr_scale"]: group["lr"] for group in run.optimizer.param_groups}
        assert rates[1e-3] == pytest.approx(1e-3 * rates[1.0])
        assert 0 < rates[1e-3] <= 1e-6


def test_gradients_are_clipped_to_the_norm():
    norms = []
    for clip in (0.25, 0.0):
        run = trainer(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), steps=1, clip_grad=clip)
        list(run.run(stream))
        norms.append(float(torch.cat([p.grad.flatten() for p in run.inner.parameters()]).norm()))
    assert norms[0] == pytest.approx(0.25, rel=1e-4)
    assert norms[1] > 0.3


def rates(**settings: object) -> list[float]:
    return [
        m["lr"]
        for m in trainer(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), **settings).run(stream)
    ]


def test_the_rate_falls_along_a_cosine():
    expected = [1e-3 + (1e-2 - 1e-3) * (1 + math.cos(math.pi * i / 8)) / 2 for i in range(8)]
    assert rates(steps=8, min_lr=1e-3) == pytest.approx(expected)


def test_the_rate_warms_up_linearly_from_the_smallest_and_ends_there():
    found = rates(steps=10, min_lr=1e-3, warmup_steps=4)
    # timm's own shape: the cosine runs over all steps, and the warm-up replaces its beginning.
    cosine = [1e-3 + 9e-3 * (1 + math.cos(math.pi * t / 10)) / 2 for t in range(4, 11)]
    assert found == pytest.approx([1e-3 + 9e-3 * t / 4 for t in (1, 2, 3)] + cosine)


# --- the loop ---


def test_it_learns():
    fixed = next(stream(0))
    losses = [m["loss"] for m in trainer(steps=30).run(lambda _: itertools.repeat(fixed))]
    assert losses[-1] < 0.3 * losses[0]


def test_metrics_are_means_over_the_steps_between_reports():
    each = [m["loss"] for m in trainer(steps=5).run(stream)]
    found = list(trainer(steps=5, log_every=2).run(stream))
    assert [m["step"] for m in found] == [2, 4, 5]
    assert [m["loss"] for m in found] == pytest.approx(
        [sum(each[:2]) / 2, sum(each[2:4]) / 2, each[4]], rel=1e-5
    )
    assert all(m["images_per_second"] > 0 and m["steps"] == 5 for m in found)
    assert found[-1]["seconds_left"] == 0


EVERYTHING: dict[str, Callable[[], dict[str, object]]] = {
    "plain": dict,
    "ema": lambda: {"ema_decay": 0.9},
    "mixup and cutmix": lambda: {"mixup": 0.5, "cutmix": 0.5, "label_smoothing": 0.1, "seed": 3},
    "teacher": lambda: {"teacher": Teacher(tiny(seed=7), MEAN, STD), "tau": 2.0},
    "annealing": lambda: {
        "teacher": Teacher(tiny(seed=7), MEAN, STD),
        "tau": 2.0,
        "annealing": True,
    },
    "warm-up": lambda: {"warmup_steps": 3, "scaler_lr_scale": 2.0},
    "bfloat16": lambda: {"precision": "bfloat16"},
    "checkpointing": lambda: {"checkpoint_activations": True},
    "sizes": lambda: {
        "sampler": SizeSampler([TargetSpec(32, 2), TargetSpec(8, 1), TargetSpec(24, 3)], seed=2)
    },
    "features": lambda: {
        "teacher": Teacher(tiny(seed=7), MEAN, STD),
        "sampler": SizeSampler([TargetSpec(32, 2), TargetSpec(8, 1), TargetSpec(24, 3)], seed=2),
        "feature_weight": 1.0,
        "precision": "bfloat16",
        "checkpoint_activations": True,
    },
    "all": lambda: {
        "ema_decay": 0.9,
        "mixup": 0.5,
        "warmup_steps": 2,
        "precision": "bfloat16",
        "teacher": Teacher(tiny(seed=7), MEAN, STD),
        "sampler": SizeSampler([TargetSpec(32, 2), TargetSpec(8, 1), TargetSpec(24, 3)], seed=2),
    },
}


def start(name: str, seed: int = 0) -> Trainer:
    settings = EVERYTHING[name]()
    net = model(seed)
    if "sampler" in settings:
        family = Family.of(tiny())
        net = MultiSize(net, family, family.size, exact(symmetry="split"), always=True)
    return trainer(net, steps=7, **settings)


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_resumed_training_is_bit_equal_to_one_never_cut(name: str, tmp_path):
    whole = start(name)
    lines = list(whole.run(stream))
    cut = start(name)
    first = list(cut.run(stream, until=3))
    torch.save(cut.state_dict(), tmp_path / "state.pt")
    resumed = start(name, seed=1)  # other weights: the state must bring everything
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.step == 3
    second = list(resumed.run(stream))
    assert [m["loss"] for m in lines] == [m["loss"] for m in first + second]
    assert [m["lr"] for m in lines] == [m["lr"] for m in first + second]
    for a, b in ((whole.inner, resumed.inner), (whole.result, resumed.result)):
        other = b.state_dict()
        assert all(torch.equal(v, other[k]) for k, v in a.state_dict().items())


def test_annealing_goes_from_the_teacher_to_the_labels():
    """Step s of n has s/n of the labels' loss, the first none."""
    teacher = Teacher(tiny(seed=7), MEAN, STD)
    run = trainer(teacher=teacher, tau=2.0, ce_weight=3.0, annealing=True, steps=4)
    for line in run.run(stream, until=3):
        batch, share = next(stream(line["step"])), line["step"] / 4
        with torch.no_grad():
            z, wanted = run.inner(batch.images), teacher(batch.images)
        logits = slow_loss(z, batch.labels, wanted, replace(run.recipe, ce_weight=0.0))
        labels = slow_loss(z, batch.labels, None, run.recipe)
        assert float(run._loss(batch).detach()) == pytest.approx(
            (1 - share) * logits + share * labels, rel=1e-5
        )
    with pytest.raises(WaveError, match="give a teacher, or batches with its logits"):
        next(trainer(annealing=True).run(stream))
    with pytest.raises(
        WaveError, match="the recipe has kl_weight=1 and ce_weight=0; give both a weight"
    ):
        trainer(teacher=teacher, ce_weight=0.0, annealing=True)
    begun = trainer(teacher=teacher, tau=2.0, annealing=True)
    plain = trainer(teacher=teacher, tau=2.0, ce_weight=0.0)
    first = next(stream(0))
    assert float(begun._loss(first).detach()) == pytest.approx(
        float(plain._loss(first).detach()), rel=1e-6
    )


def test_options_change_the_training():
    """Each of them, or a resume that ignored it would still be bit-equal."""
    ends = {
        name: [m["loss"] for m in start(name).run(stream)]
        for name in EVERYTHING
        if name != "checkpointing"
    }
    assert ends.pop("ema") == ends["plain"]  # the average is beside the training
    assert len({tuple(v) for v in ends.values()}) == len(ends)


def test_the_average_is_what_is_kept():
    run = trainer(ema_decay=0.5, steps=3)
    list(run.run(stream))
    assert run.result is not run.inner
    assert not torch.equal(
        run.result.get_parameter("head.weight"), run.inner.get_parameter("head.weight")
    )
    plain = trainer()
    assert plain.result is plain.inner


def test_mixing_leaves_the_loaders_images_alone_and_keeps_the_labels_mass():
    fixed = next(stream(0))
    before = fixed.images.clone()
    losses = [
        m["loss"]
        for m in trainer(mixup=1.0, cutmix=1.0, lr=1e-7, min_lr=0.0).run(
            lambda _: itertools.repeat(fixed)
        )
    ]
    assert torch.equal(fixed.images, before)
    assert (
        max(losses) - min(losses) > 5e-3
    )  # drawn anew in every step, at a rate that moves nothing
    odd = Batch(fixed.images[:5], fixed.labels[:5])
    with pytest.raises(WaveError, match="mix pairs, and a batch here has 5 images"):
        list(trainer(mixup=1.0).run(lambda _: itertools.repeat(odd)))


def test_labels_are_smoothed_once_with_mixing():
    fixed = next(stream(0))
    same = Batch(
        fixed.images[:1].repeat(6, 1, 1, 1), torch.full((6,), 2)
    )  # mixing equal images changes nothing
    values = [
        next(trainer(label_smoothing=0.3, **mix).run(lambda _: itertools.repeat(same)))["loss"]
        for mix in ({}, {"mixup": 1.0}, {"cutmix": 1.0})
    ]
    assert values[1:] == pytest.approx([values[0]] * 2, rel=1e-5)


def test_cached_teacher_logits_equal_computed_ones():
    teacher = Teacher(tiny(seed=7), MEAN, STD)

    def cached(step: int) -> Iterator[Batch]:
        return (b._replace(teacher_logits=all_logits(teacher, [b])) for b in stream(step))

    computed = [m["loss"] for m in trainer(teacher=teacher).run(stream)]
    assert [m["loss"] for m in trainer().run(cached)] == pytest.approx(computed, rel=1e-6)
    assert [m["loss"] for m in trainer().run(stream)] != pytest.approx(computed, rel=1e-2)
    with pytest.raises(WaveError, match="mixup and cutmix"):
        next(trainer(mixup=0.5).run(cached))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training_and_names_the_step(bad: float):
    def broken(step: int) -> Iterator[Batch]:
        for i, batch in enumerate(stream(step)):
            yield batch._replace(images=batch.images * bad) if i == 2 else batch

    run = trainer().run(broken)
    assert [next(run)["step"], next(run)["step"]] == [1, 2]
    with pytest.raises(Diverged, match="at step 3"):
        next(run)


def test_compiled_blocks_train_alike(monkeypatch: pytest.MonkeyPatch):
    compiled: list[nn.Module] = []
    real = nn.Module.compile

    def traced_only(module: nn.Module) -> None:  # the default backend takes minutes
        compiled.append(module)
        real(module, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", traced_only)
    losses = [[m["loss"] for m in trainer(steps=2, compile=c).run(stream)] for c in (False, True)]
    torch._dynamo.reset()
    assert [type(m).__name__ for m in compiled] == ["Block", "Block"]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": None},
        {"epochs": 3},
        {"steps": 0},
        {"batch_size": 0},
        {"log_every": 0},
        {"lr": 0.0},
        {"lr": math.nan},
        {"tau": 0.0},
        {"weight_decay": -1.0},
        {"kl_weight": 0.0, "ce_weight": 0.0},
        {"clip_grad": -1.0},
        {"label_smoothing": 1.0},
        {"ema_decay": 1.0},
        {"precision": "float16"},
        {"min_lr": 1.0},
        {"template_lr_scale": -1.0},
        {"steps": "4"},
        {"lr": "fast"},
    ],
    ids=str,
)
def test_impossible_recipes(change: dict[str, object]):
    with pytest.raises(WaveError) as caught:
        Recipe(**{"steps": 5, **change})
    assert next(iter(change)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_number_of_steps():
    assert Recipe(steps=7).total_steps(100) == 7
    assert Recipe(epochs=3).total_steps(100) == 300
    assert Recipe(epochs=3, batch_size=32).num_images(100) == 3 * 4 * 32
    with pytest.raises(WaveError, match="warmup_steps=5 must be smaller than all 5 steps"):
        Recipe(steps=5, warmup_steps=5).total_steps(1)
