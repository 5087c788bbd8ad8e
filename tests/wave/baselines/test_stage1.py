"""TLEG, SWS and one shared block: the rules, the model that is trained, and the models read off
it."""

import copy
import io

import cloudpickle
import pytest
import torch

from wave.baselines import BASELINES, Stage1
from wave.baselines.shared_block import one_block
from wave.baselines.sws import num_stages, stages
from wave.baselines.tleg import linear_expansion
from wave.recipe import Recipe
from wave.spec import KINDS, TargetSpec
from wave.teacher import Teacher
from wave.train import Trainer
from wave.vit import PATHS, materialise

METHODS = ("tleg", "sws", "shared_block")


@pytest.fixture(params=METHODS)
def stage(request, family) -> Stage1:
    """With templates and small tensors moved away from their start."""
    model = BASELINES[request.param].stage1(family, 1)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(
                    0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
                )
    return model


def layer_of(name: str, depth: int) -> list[dict[int, float]]:
    """Scalers by template of each layer, written out."""
    if name == "tleg":
        return [{0: 1.0, 1: layer / depth} for layer in range(depth)]
    if name == "sws":
        return [{int((layer + 0.5) * 2 / depth): 1.0} for layer in range(depth)]
    return [{0: 1.0} for _ in range(depth)]


def test_rules():
    assert linear_expansion(4).tolist() == [[1, 0], [1, 0.25], [1, 0.5], [1, 0.75]]
    assert one_block(3).tolist() == [[1], [1], [1]]
    assert stages(16, 5).sum(0).tolist() == [3, 3, 4, 3, 3]
    assert stages(16, 5).argmax(1).tolist() == sorted(stages(16, 5).argmax(1).tolist())
    assert stages(3, 2).argmax(1).tolist() == [0, 1, 1]
    assert [num_stages(depth) for depth in (1, 2, 4, 6, 12, 16)] == [1, 2, 2, 2, 4, 5]


@pytest.mark.parametrize("depth", [1, 3, 4, 7])
def test_a_model_of_any_depth_is_the_mixture(stage: Stage1, family, depth: int, ancestor):
    state = BASELINES[stage.name].initialise(stage, family, TargetSpec(16, depth), 0)
    own = dict(stage.named_parameters())
    for layer, mixture in enumerate(layer_of(stage.name, depth)):
        for kind in KINDS:
            templates = own[f"auxiliary.templates.{kind}"]
            expected = sum(s * templates[t] for t, s in mixture.items())
            torch.testing.assert_close(
                state[f"blocks.{layer}.{'.'.join(PATHS[kind])}.weight"], expected
            )
        for key in ("norm1/weight", "attn.qkv.bias".replace(".", "/"), "mlp/fc2/bias"):
            expected = sum(s * own[f"small.{t}.{key}"] for t, s in mixture.items())
            torch.testing.assert_close(state[f"blocks.{layer}.{key.replace('/', '.')}"], expected)
    for key in ("pos_embed", "norm.weight", "head.weight", "patch_embed.proj.weight"):
        assert torch.equal(state[key], own[f"auxiliary.{key}"])


def test_the_auxiliary_model_computes_what_its_state_says(stage: Stage1, family, images):
    plain = family.create(family.size).eval()
    plain.load_state_dict(stage.state(family.size, 0))
    stage.eval()
    torch.testing.assert_close(stage(images), plain(images))


def test_it_is_our_equation_with_full_size_templates(stage: Stage1):
    assert stage.spec.blocks == {
        "qkv": (48, 16),
        "proj": (16, 16),
        "fc1": (64, 16),
        "fc2": (16, 64),
    }
    for name, p in stage.named_parameters():
        assert p.requires_grad != name.endswith(".scalers")
    assert all(p.shape[1:] == (1, 1) for n, p in stage.named_parameters() if n.endswith(".scalers"))
    dense = materialise(stage.auxiliary)
    state = stage.state(stage.family.size, 0)
    for layer in range(4):
        name = f"blocks.{layer}.mlp.fc1.weight"
        torch.testing.assert_close(dense[name], state[name])


def test_gradients_reach_templates_and_small_tensors(stage: Stage1, images):
    stage(images).square().sum().backward()
    for name, p in stage.named_parameters():
        if p.requires_grad:
            assert p.grad is not None, name
            assert torch.isfinite(p.grad).all()


def test_checkpointing_gives_the_same_gradients(stage: Stage1, images):
    other = copy.deepcopy(stage)
    other.set_grad_checkpointing()
    for model in (stage, other):
        model.train()(images).square().sum().backward()
    for (name, p), q in zip(stage.named_parameters(), other.parameters(), strict=True):
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, msg=name)


@pytest.mark.parametrize("name", METHODS)
def test_random_start_is_timms(name: str, family):
    state = BASELINES[name].stage1(family, 4).state(family.size, 0)
    fresh = family.create(family.size).state_dict()
    for key, value in state.items():
        if "norm" in key or (key.startswith("blocks.") and key.endswith("bias")):
            torch.testing.assert_close(value, fresh[key], msg=key)
    first = state["blocks.0.mlp.fc1.weight"]
    assert first.std() == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize("name", METHODS)
def test_start_at_the_ancestor_is_least_squares(name: str, family, ancestor):
    state = BASELINES[name].stage1(family, 0, ancestor).state(family.size, 0)
    source = ancestor.state_dict()
    rules = {"tleg": linear_expansion(4), "sws": stages(4, 2), "shared_block": one_block(4)}
    s = rules[name].double()
    for key in ("attn.qkv.weight", "mlp.fc2.bias", "norm2.weight"):
        layers = torch.stack([source[f"blocks.{i}.{key}"] for i in range(4)]).double()
        built = torch.stack([state[f"blocks.{i}.{key}"] for i in range(4)]).double()
        # the residual of a least-squares fit is orthogonal to every column of the design
        torch.testing.assert_close(
            s.T @ (layers - built).flatten(1),
            torch.zeros(s.shape[1], built[0].numel()).double(),
            atol=1e-5,
            rtol=0,
        )
    assert torch.equal(state["head.weight"], source["head.weight"])
    if name == "shared_block":
        mean = sum(source[f"blocks.{i}.mlp.fc1.weight"] for i in range(4)) / 4
        torch.testing.assert_close(state["blocks.2.mlp.fc1.weight"], mean)


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("name", METHODS)
def test_trained_like_every_stage_1(name: str, family, ancestor, batches, ema):
    stage = BASELINES[name].stage1(family, 0)
    before = stage.state(family.size, 0)
    trainer = Trainer(
        stage,
        Recipe(steps=12, lr=3e-3, ema_decay=ema, log_every=4),
        12,
        teacher=Teacher(ancestor, (0.5,), (0.5,)),
    )
    losses = [m["loss"] for m in trainer.run(batches)]
    assert losses[-1] < losses[0]
    after = BASELINES[name].initialise(trainer.result, family, TargetSpec(16, 2), 0)
    assert not torch.equal(after["blocks.1.attn.qkv.weight"], before["blocks.1.attn.qkv.weight"])
    for model in (stage, trainer.result):
        assert all(
            (p == s).all()
            for p, s in zip(scalers(model), scalers(BASELINES[name].stage1(family, 0)), strict=True)
        )


def scalers(model: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach() for n, p in model.named_parameters() if n.endswith(".scalers")]


def test_copies_and_files_after_a_step(stage: Stage1, images, family):
    expected = stage(images)
    for other in (copy.deepcopy(stage), cloudpickle.loads(cloudpickle.dumps(stage))):
        torch.testing.assert_close(other(images), expected)
    file = io.BytesIO()
    torch.save(stage.state_dict(), file)
    file.seek(0)
    empty = BASELINES[stage.name].stage1(family, 99)
    empty.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(empty(images), expected)


def test_baselines_decay_no_norm_and_no_bias(stage: Stage1):
    for name, p in stage.named_parameters():
        if name.startswith("small."):
            assert p.ndim == 1
