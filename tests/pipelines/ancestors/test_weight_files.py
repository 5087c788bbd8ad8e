"""Checkpoint files in the forms that training programs leave: which weights are read, what is said, what is refused."""

import argparse
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipelines.ancestors.reading import Read, load_directory, read_checkpoint, read_directory
from wave.errors import WaveError

NAME = "vit_tiny_patch16_224"
MODEL: dict[str, Any] = {
    "img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 5, "in_chans": 1
}  # fmt: skip
HEADS = {"num_heads": 4}
"""What no tensor tells."""
State = dict[str, Tensor]


@pytest.fixture
def plain() -> State:
    torch.manual_seed(0)
    return timm.create_model(NAME, **MODEL).state_dict()


def scaled(state: State, by: float) -> State:
    return {name: tensor * by for name, tensor in state.items()}


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def read(path: Path, content: object, **more: Any) -> Read:
    torch.save(content, path)
    return read_checkpoint(path, NAME, HEADS, **more)


def same(found: Read, state: State) -> bool:
    mine = found.model.state_dict()
    return mine.keys() == state.keys() and all(torch.equal(mine[name], state[name]) for name in state)


ARGS = argparse.Namespace(model=NAME, lr=1e-3, nested={"a": [1, None]})
TWO: dict[str, Callable[[State, State], dict[str, Any]]] = {
    "timm's train.py": lambda raw, ema: {"state_dict": raw, "state_dict_ema": ema, "args": ARGS, "epoch": 3},
    "DeiT": lambda raw, ema: {"model": raw, "model_ema": ema, "args": ARGS},
    "wrapped by two": lambda raw, ema: {"model": under("module._orig_mod.", raw), "model_ema": under("module.", ema)},
    "DINO": lambda raw, ema: {"student": under("module.backbone.", raw), "teacher": under("backbone.", ema)},
    "Lightning": lambda raw, ema: {"state_dict": {**under("model.", raw), **under("ema_model.", ema)}},
}


@pytest.mark.parametrize("form", TWO)
def test_averaged_weights_come_first_and_raw_ones_on_request(form: str, tmp_path: Path, plain: State) -> None:
    ema, content = scaled(plain, 1.5), TWO[form](plain, scaled(plain, 1.5))
    for wanted, state in ((None, ema), ("ema", ema), ("raw", plain)):
        found = read(tmp_path / "x.pth", content, which=wanted)
        assert same(found, state)
        assert found.which == (wanted or "ema")
        words = "averaged (EMA) weights" if found.which == "ema" else "raw weights"
        assert any(note.startswith(words) for note in found.notes), found.notes


def test_averaged_weights_alone_are_read_and_raw_ones_are_not_made_up(tmp_path: Path, plain: State) -> None:
    assert same(read(tmp_path / "x.pth", {"state_dict_ema": plain, "epoch": 1}), plain)
    with pytest.raises(WaveError, match=r"holds no raw weights, only state_dict_ema; leave out ancestor.weights"):
        read(tmp_path / "x.pth", {"state_dict_ema": plain}, which="raw")
    for content in ({"model": plain}, plain):
        with pytest.raises(WaveError, match="holds no EMA weights, only"):
            read(tmp_path / "x.pth", content, which="ema")


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.",
        "backbone.",
        "encoder.",
        "teacher.",
        "teacher.backbone.",
        "module.model.net.",
        "anything.",
        "model._orig_mod.",
    ],
)
def test_prefixes_are_left_out(prefix: str, tmp_path: Path, plain: State) -> None:
    found = read(tmp_path / "x.pth", {"state_dict": under(prefix, plain)})
    assert same(found, plain)
    if not {*prefix.split("."), ""} <= {"module", "_orig_mod", ""}:
        assert any(prefix.removeprefix("module.") in note for note in found.notes), found.notes


def test_a_classifier_beside_its_model_is_its_own_and_the_rest_is_counted(tmp_path: Path, plain: State) -> None:
    body = {name: tensor for name, tensor in plain.items() if not name.startswith("head.")}
    head = {"fc.weight": plain["head.weight"], "fc.bias": plain["head.bias"]}
    found = read(tmp_path / "x.pth", {**under("backbone.", body), **head, "loss.center": torch.ones(3)})
    assert same(found, plain)
    assert any("fc.weight" in note for note in found.notes)
    assert any("1 tensors beside the model are left out, such as loss.center" in note for note in found.notes)


def test_two_models_of_which_neither_is_the_average_are_named(tmp_path: Path, plain: State) -> None:
    with pytest.raises(WaveError, match="holds 2 models, under the prefixes 'left\\.' and 'right\\.'; keep"):
        read(tmp_path / "x.pth", {**under("left.", plain), **under("right.", plain)})


def test_what_does_not_fit_below_a_prefix_names_the_prefix_and_the_tensor(tmp_path: Path, plain: State) -> None:
    short = {name: tensor for name, tensor in plain.items() if name != "norm.bias"}
    words = r"tensor norm.bias is missing; .*names begin with encoder\., which was left out"
    with pytest.raises(WaveError, match=words):
        read(tmp_path / "x.pth", under("encoder.", short))


def test_a_file_without_a_vit_says_what_it_holds_and_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(WaveError, match=r"are named conv1.weight, .*expected are names such as timm's patch_embed"):
        read(tmp_path / "x.pth", {"conv1.weight": torch.ones(1), "bn1.bias": torch.ones(1)})
    with pytest.raises(WaveError, match="holds no state dict of tensors; it holds epoch, optimizer"):
        read(tmp_path / "x.pth", {"epoch": 1, "optimizer": {}})


class _Own:
    """A type that no list allows."""


def test_a_whole_module_is_refused_with_the_line_that_saves_its_state(tmp_path: Path) -> None:
    path, model = tmp_path / "x.pth", timm.create_model(NAME, **MODEL)
    for content in (model, {"model": model, "epoch": 3}):
        with pytest.raises(WaveError) as caught:
            read(path, content)
        words = str(caught.value)
        assert "a whole pickled module (timm.models.vision_transformer.VisionTransformer)" in words
        assert f"torch.save(torch.load({str(path)!r}, weights_only=False).state_dict(), 'weights.pth')" in words
        assert "\n" not in words
    with pytest.raises(WaveError, match=r"refused, it holds more than tensors \(.*_Own.*\), which could run code"):
        read(path, {"state_dict": {}, "hyper": _Own()})


def test_a_script_is_refused_with_the_line_that_saves_its_state(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with pytest.warns(FutureWarning):
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with pytest.raises(WaveError, match=r"a TorchScript archive.*torch\.jit\.load\('.*x\.pt', 'cpu'\)\.state_dict\(\)"):
        read_checkpoint(path, NAME, HEADS)


class _Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_a_namespace_is_read_and_nothing_in_it_is_executed(tmp_path: Path, plain: State) -> None:
    hostile = argparse.Namespace(lr=1, run=_Hostile(tmp_path / "ran"))
    with pytest.raises(WaveError, match="could run code"):
        read(tmp_path / "x.pth", {"state_dict": plain, "args": hostile})
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(hostile))
    assert (tmp_path / "ran").is_dir(), "it does run where it is let"


def test_a_tensor_that_repeats_what_it_stores_is_not_unrolled(tmp_path: Path, plain: State) -> None:
    huge = torch.zeros(1).expand(1 << 40)
    with pytest.raises(WaveError, match=r"tensor norm.bias repeats what it stores"):
        read(tmp_path / "x.pth", {**plain, "norm.bias": huge})


def _config(**more: Any) -> dict[str, Any]:
    arguments = {name: value for name, value in MODEL.items() if name != "num_classes"}
    return {"architecture": NAME, "num_classes": 5, "model_args": arguments, **more}


STATISTICS = {"mean": [0.5], "std": [0.25], "input_size": [1, 16, 16]}


@pytest.mark.parametrize("form", ["bin", "old configuration", "shards", "shards of pickles"])
def test_folders_of_timm(form: str, tmp_path: Path, plain: State) -> None:
    old = form == "old configuration"
    config = _config(**STATISTICS) if old else _config(pretrained_cfg=STATISTICS)
    (tmp_path / "config.json").write_text(json.dumps(config))
    halves = [dict(list(plain.items())[::2]), dict(list(plain.items())[1::2])]
    if form == "bin":
        torch.save(plain, tmp_path / "pytorch_model.bin")
    elif old:
        save_file(plain, tmp_path / "model.safetensors")
    else:
        stem, ending = ("model", "safetensors") if form == "shards" else ("pytorch_model", "bin")
        names = [f"{stem}-0000{i}-of-00002.{ending}" for i in (1, 2)]
        for name, half in zip(names, halves, strict=True):
            save_file(half, tmp_path / name) if form == "shards" else torch.save(half, tmp_path / name)
        places = {key: name for name, half in zip(names, halves, strict=True) for key in half}
        (tmp_path / f"{stem}.{ending}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    found = read_directory(tmp_path)
    assert same(found, plain)
    assert (found.mean, found.std) == ((0.5,), (0.25,))
    assert load_directory(tmp_path)[0].num_classes == 5


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "sub/x.safetensors", ".hidden"])
def test_an_index_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(_config(pretrained_cfg=STATISTICS)))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(WaveError, match="shards lie beside their index"):
        read_directory(tmp_path)


def test_what_an_index_names_and_no_shard_holds_is_named(tmp_path: Path, plain: State) -> None:
    (tmp_path / "config.json").write_text(json.dumps(_config(pretrained_cfg=STATISTICS)))
    save_file(plain, tmp_path / "a.safetensors")
    index = {"weight_map": {**dict.fromkeys(plain, "a.safetensors"), "more": "a.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WaveError, match="none of its files holds the tensor more"):
        read_directory(tmp_path)


def test_a_backbone_is_read_as_one_and_refused_with_what_to_do(tmp_path: Path, plain: State) -> None:
    body = {name: tensor for name, tensor in plain.items() if not name.startswith("head.")}
    assert read(tmp_path / "x.pth", body).model.num_classes == 0
    (tmp_path / "config.json").write_text(json.dumps({**_config(pretrained_cfg=STATISTICS), "num_classes": 0}))
    save_file(body, tmp_path / "model.safetensors")
    assert read_directory(tmp_path).model.num_classes == 0
    with pytest.raises(WaveError, match=r"a backbone, it has no classifier; .* fine-tune it with one for this data"):
        load_directory(tmp_path)


def test_the_tensors_tell_the_size_and_only_the_heads_are_asked_for(tmp_path: Path, plain: State) -> None:
    torch.save(plain, tmp_path / "x.pth")
    with pytest.raises(WaveError, match=r"holds a model of embed_dim=32, and no tensor tells its heads; set num_heads"):
        read_checkpoint(tmp_path / "x.pth", NAME, {})
    model = read_checkpoint(tmp_path / "x.pth", NAME, HEADS).model
    assert (model.embed_dim, len(model.blocks), model.num_classes, model.in_chans) == (32, 2, 5, 1)
    assert (model.patch_embed.img_size, model.patch_embed.patch_size) == ((16, 16), (4, 4))


@pytest.mark.parametrize(
    "arguments",
    [
        {"reg_tokens": 4}, {"reg_tokens": 3, "no_embed_class": True}, {"init_values": 0.1}, {"qkv_bias": False},
        {"pre_norm": True}, {"global_pool": "avg"}, {"mlp_ratio": 2.7}, {"qk_norm": True},
        {"class_token": False, "global_pool": "avg"},
    ],
)  # fmt: skip
def test_parts_that_have_tensors_need_no_argument(arguments: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model(NAME, **{**MODEL, **arguments}).eval()
    torch.save(model.state_dict(), tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth", NAME, {} if "qk_norm" in arguments else HEADS).model.eval()
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(found(images), cast(nn.Module, model)(images))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"embed_dim": 48}, "holds a model of embed_dim=32; ancestor.model_args says embed_dim=48"),
        ({"depth": 3, "patch_size": 2}, "depth=2 and .*|patch_size=4 and depth=2; .* says patch_size=2 and depth=3"),
        ({"num_classes": 10}, "num_classes=5; ancestor.model_args says num_classes=10"),
        ({"in_chans": 3}, "in_chans=1; ancestor.model_args says in_chans=3"),
        ({"mlp_ratio": 2.0}, "mlp_ratio=4; ancestor.model_args says mlp_ratio=2.0"),
        ({"reg_tokens": 1}, "reg_tokens=0; ancestor.model_args says reg_tokens=1"),
    ],
)
def test_contradictions_are_named(wrong: dict[str, Any], words: str, tmp_path: Path, plain: State) -> None:
    torch.save(plain, tmp_path / "x.pth")
    with pytest.raises(WaveError, match=words):
        read_checkpoint(tmp_path / "x.pth", NAME, {**HEADS, **wrong})


def test_other_images_resample_the_positions_with_a_word(tmp_path: Path, plain: State) -> None:
    torch.save(plain, tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth", NAME, {**HEADS, "img_size": 24})
    assert found.model.patch_embed.img_size == (24, 24)
    assert any("positions of 16x16 images are resampled, as timm does, for 24" in note for note in found.notes)
