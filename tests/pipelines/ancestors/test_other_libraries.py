"""Models of other libraries, read as timm's: equal outputs, LayerNorm's eps included."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from pipelines.ancestors.reading import Read, load_directory, read_checkpoint, read_directory
from wave.errors import WaveError
from wave.export import save_model
from wave.vit import eps_of, set_eps

EQUAL = 1e-4
SIDE, PATCH, WIDTH, LAYERS, HEADS, CLASSES = 16, 4, 32, 3, 4, 5
IMAGES = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
_SHAPE: dict[str, Any] = {
    "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "image_size": SIDE, "patch_size": PATCH, "num_labels": CLASSES,
}  # fmt: skip
TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ViT": ("ViTForImageClassification", "ViTConfig", {"intermediate_size": 64}),
    "ViT, another eps": ("ViTForImageClassification", "ViTConfig", {"intermediate_size": 64, "layer_norm_eps": 1e-3}),
    "ViT, no bias": ("ViTForImageClassification", "ViTConfig", {"qkv_bias": False, "hidden_act": "quick_gelu"}),
    "ViT, tanh": ("ViTForImageClassification", "ViTConfig", {"hidden_act": "gelu_new"}),
    "DeiT": ("DeiTForImageClassification", "DeiTConfig", {"intermediate_size": 96}),
    "DeiT, distilled": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", {"intermediate_size": 96}),
    "ViT, backbone": ("ViTModel", "ViTConfig", {}),
    "DINOv2": ("Dinov2Model", "Dinov2Config", {"mlp_ratio": 2}),
    "DINOv2, no mask": ("Dinov2Model", "Dinov2Config", {"mlp_ratio": 2, "use_mask_token": False}),
    "DINOv2, registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", {"num_register_tokens": 3}),
}


def shaken(model: Any) -> Any:
    """The model with every parameter moved, those too that start at zero or one."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@torch.no_grad()
def outputs(found: Read) -> Tensor:
    model = found.model.eval()
    return model(IMAGES) if model.num_classes else model.forward_features(IMAGES)


def apart(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max())


def saved(kind: str, folder: Path) -> tuple[Any, Tensor]:
    """A small model of transformers in its folder, and what it computes."""
    name, config, more = TRANSFORMERS[kind]
    torch.manual_seed(0)
    model = shaken(getattr(transformers, name)(getattr(transformers, config)(**_SHAPE, **more)))
    model.save_pretrained(folder)
    with torch.no_grad():
        output = model(IMAGES)
    return model, output.logits if "logits" in output else output.last_hidden_state


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_folders_of_transformers(kind: str, tmp_path: Path) -> None:
    model, wanted = saved(kind, tmp_path)
    found = read_directory(tmp_path)
    assert eps_of(found.model) == model.config.layer_norm_eps
    assert apart(outputs(found), wanted) < EQUAL
    assert any("no preprocessor_config.json" in note and "are assumed" in note for note in found.notes)
    if found.model.num_classes:  # and what a run keeps of it, the eps too
        save_model(found.model, tmp_path / "kept", found.mean, found.std)
        kept = load_directory(tmp_path / "kept")[0]
        assert eps_of(kept) == model.config.layer_norm_eps
        assert apart(outputs(Read(kept)), wanted) < EQUAL


def test_the_comparison_would_see_another_eps_and_another_weight(tmp_path: Path) -> None:
    _, wanted = saved("ViT, another eps", tmp_path)
    found = read_directory(tmp_path)
    set_eps(found.model, 1e-6)
    assert apart(outputs(found), wanted) > 10 * EQUAL
    set_eps(found.model, 1e-3)
    with torch.no_grad():
        weight = cast(Any, found.model.blocks[1]).attn.qkv.weight
        weight[:WIDTH], weight[WIDTH : 2 * WIDTH] = weight[WIDTH : 2 * WIDTH].clone(), weight[:WIDTH].clone()
    assert apart(outputs(found), wanted) > 10 * EQUAL


def test_a_timm_model_in_a_folder_of_transformers(tmp_path: Path) -> None:
    arguments = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": 2, "num_heads": HEADS}
    settings: dict[str, Any] = {"model_args": arguments, "num_labels": CLASSES}
    config = transformers.TimmWrapperConfig(architecture="vit_tiny_patch16_224", **settings)
    model = shaken(transformers.TimmWrapperForImageClassification(config))
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        assert apart(outputs(read_directory(tmp_path)), model(IMAGES).logits) < EQUAL


def test_the_statistics_are_those_of_the_preprocessor_beside_it(tmp_path: Path) -> None:
    saved("ViT", tmp_path)
    transformers.ViTImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(tmp_path)
    found = read_directory(tmp_path)
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert not any("assumed" in note for note in found.notes)


def test_shards_of_transformers(tmp_path: Path) -> None:
    model, wanted = saved("ViT", tmp_path / "whole")
    model.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert (tmp_path / "parts/model.safetensors.index.json").is_file()
    assert apart(outputs(read_directory(tmp_path / "parts")), wanted) < EQUAL


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_swiglu_ffn": True}, "its MLPs are SwiGLU"),
        ({"hidden_act": "mish"}, "hidden_act='mish' is not known here; known: gelu, "),
        ({"num_hidden_layers": 2}, "holds a model of depth=3; the description beside it says depth=2"),
        ({"layer_norm_eps": "x"}, "not a timm or transformers configuration"),
        ({"model_type": "swin"}, "not a timm or transformers configuration"),
    ],
)
def test_what_a_configuration_says_and_the_model_is_not(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    saved("DINOv2", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(WaveError, match=words):
        read_directory(tmp_path)


def test_a_classifier_that_timm_has_not_is_left_out_with_a_word(tmp_path: Path) -> None:
    model = shaken(transformers.Dinov2ForImageClassification(transformers.Dinov2Config(**_SHAPE)))
    model.save_pretrained(tmp_path)
    found = read_directory(tmp_path)
    with torch.no_grad():
        assert apart(outputs(found), model.dinov2(IMAGES).last_hidden_state) < EQUAL
    assert any("class token and the mean patch together" in note for note in found.notes)


def test_torchvisions_family(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vit = torchvision.models.VisionTransformer(SIDE, PATCH, LAYERS, HEADS, WIDTH, 64, num_classes=CLASSES)
    model = shaken(vit)
    torch.save({"model": model.state_dict(), "epoch": 1}, tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth", "vit_base_patch16_224", {"num_heads": HEADS})
    with torch.no_grad():
        assert apart(outputs(found), model(IMAGES)) < EQUAL


class Tower(nn.Module):
    """CLIP's image tower after its paper's code: the names and the arithmetic of OpenAI's and open_clip's."""

    def __init__(self, quick: bool) -> None:
        super().__init__()
        self.quick = quick
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.positional_embedding = nn.Parameter(torch.randn((SIDE // PATCH) ** 2 + 1, WIDTH))
        self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(_Block() for _ in range(LAYERS))
        self.proj = nn.Parameter(torch.randn(WIDTH, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in cast(Any, self.transformer.resblocks):
            y = block.ln_1(x)
            x = x + block.attn(y, y, y, need_weights=False)[0]
            y = block.mlp.c_fc(block.ln_2(x))
            x = x + block.mlp.c_proj(y * torch.sigmoid(1.702 * y) if self.quick else nn.functional.gelu(y))
        return self.ln_post(x[:, 0]) @ self.proj


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mlp = nn.Module()
        self.mlp.c_fc, self.mlp.c_proj = nn.Linear(WIDTH, 96), nn.Linear(96, WIDTH)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("prefix", ["visual.", "module.visual.", ""])
def test_towers_of_clip(prefix: str, quick: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tower = shaken(Tower(quick))
    state = {prefix + name: tensor for name, tensor in tower.state_dict().items()}
    if prefix:
        around = prefix.removesuffix("visual.")
        state |= {f"{around}{name}": torch.ones(2) for name in ("text_projection", "transformer.resblocks.0.ln_1.bias")}
    torch.save(state, tmp_path / "x.pt")
    name = f"vit_base_patch32_clip_{'quickgelu_' if quick else ''}224"
    found = read_checkpoint(tmp_path / "x.pt", name, {"num_heads": HEADS})
    with torch.no_grad():
        assert apart(outputs(found), tower(IMAGES)) < EQUAL
    assert any("QuickGELU" in note for note in found.notes) != quick
    assert any("2 tensors beside the model are left out" in note for note in found.notes) == bool(prefix)


def timm_model(name: str = "vit_tiny_patch16_224", **more: Any) -> Any:
    torch.manual_seed(0)
    arguments = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": LAYERS, "num_heads": HEADS}
    return shaken(timm.create_model(name, **{**arguments, **more}))


def test_timms_trunk_in_open_clip(tmp_path: Path) -> None:
    trunk, projection = timm_model(num_classes=0), torch.randn(CLASSES, WIDTH)
    state = {f"visual.trunk.{name}": tensor for name, tensor in trunk.state_dict().items()}
    torch.save({**state, "visual.head.proj.weight": projection, "logit_scale": torch.ones(())}, tmp_path / "x.pt")
    found = read_checkpoint(tmp_path / "x.pt", "vit_tiny_patch16_224", {"num_heads": HEADS})
    with torch.no_grad():
        assert apart(outputs(found), trunk(IMAGES) @ projection.T) < EQUAL


@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2s_own_files(registers: int, tmp_path: Path) -> None:
    name = "vit_base_patch14_reg4_dinov2" if registers else "vit_base_patch14_dinov2"
    model = timm_model(name, num_classes=0, mlp_ratio=2.0)
    state = dict(model.state_dict())
    if registers:  # there the class token's position is beside it, and the registers have none
        first = torch.randn(1, 1, WIDTH)
        state["register_tokens"] = state.pop("reg_token")
        state["pos_embed"] = torch.cat([first, state["pos_embed"]], 1)
        state["cls_token"] = state["cls_token"] - first
    torch.save({**state, "mask_token": torch.zeros(1, WIDTH)}, tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth", name, {"num_heads": HEADS})
    with torch.no_grad():
        assert apart(outputs(found), model.forward_features(IMAGES)) < EQUAL
    assert any("left out" in note and "mask_token" in note for note in found.notes)


def as_jax(model: Any, prefix: str) -> Mapping[str, Any]:
    """A timm model's weights in the layout of Google's vision transformers."""
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    arrays = {
        "cls": state["cls_token"],
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for i in range(LAYERS):
        own = {name.removeprefix(f"blocks.{i}."): t for name, t in state.items() if name.startswith(f"blocks.{i}.")}
        at, attention = f"Transformer/encoderblock_{i}/", "MultiHeadDotProductAttention_1/"
        rows_of, biases = np.split(own["attn.qkv.weight"], 3), np.split(own["attn.qkv.bias"], 3)
        for part, rows, bias in zip(("query", "key", "value"), rows_of, biases, strict=True):
            arrays[f"{at}{attention}{part}/kernel"] = rows.T.reshape(WIDTH, HEADS, -1)
            arrays[f"{at}{attention}{part}/bias"] = bias.reshape(HEADS, -1)
        arrays[f"{at}{attention}out/kernel"] = own["attn.proj.weight"].T.reshape(HEADS, -1, WIDTH)
        arrays[f"{at}{attention}out/bias"] = own["attn.proj.bias"]
        for norm, name in ((0, "norm1"), (2, "norm2")):
            arrays[f"{at}LayerNorm_{norm}/scale"] = own[f"{name}.weight"]
            arrays[f"{at}LayerNorm_{norm}/bias"] = own[f"{name}.bias"]
        for dense, name in ((0, "mlp.fc1"), (1, "mlp.fc2")):
            arrays[f"{at}MlpBlock_3/Dense_{dense}/kernel"] = own[f"{name}.weight"].T
            arrays[f"{at}MlpBlock_3/Dense_{dense}/bias"] = own[f"{name}.bias"]
    return {prefix + name: array for name, array in arrays.items()}


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_archives_of_jax(prefix: str, tmp_path: Path) -> None:
    model = timm_model(num_classes=CLASSES, mlp_ratio=2.0)
    np.savez(tmp_path / "x.npz", **as_jax(model, prefix))
    found = read_checkpoint(tmp_path / "x.npz", "vit_base_patch16_224", {})  # the heads too are in its shapes
    with torch.no_grad():
        assert apart(outputs(found), model(IMAGES)) < EQUAL


def test_archives_that_are_none(tmp_path: Path) -> None:
    arrays = as_jax(timm_model(num_classes=CLASSES), "")
    cut = {name: array for name, array in arrays.items() if "encoder_norm/bias" not in name}
    other = {name: array for name, array in arrays.items() if "embedding/kernel" not in name}
    wide = {**arrays, "Transformer/encoder_norm/bias": np.full(WIDTH, np.nan, np.float32)}
    wrong = (cut, "timm cannot read it as"), (other, "no ViT of JAX"), (wide, "tensor norm.bias holds NaN")
    for content, words in wrong:
        np.savez(tmp_path / "x.npz", **cast(Any, content))
        with pytest.raises(WaveError, match=words):
            read_checkpoint(tmp_path / "x.npz", "vit_base_patch16_224", {})
    np.savez(tmp_path / "x.npz", a=np.array([{}], dtype=object))
    with pytest.raises(WaveError, match="not a NumPy archive of arrays"):
        read_checkpoint(tmp_path / "x.npz", "vit_base_patch16_224", {})
    (tmp_path / "x.npz").write_bytes(b"PK")
    with pytest.raises(WaveError, match="not a NumPy archive of arrays"):
        read_checkpoint(tmp_path / "x.npz", "vit_base_patch16_224", {})


def test_a_state_dict_of_transformers_has_other_names_than_its_folders(tmp_path: Path) -> None:
    model, wanted = saved("ViT", tmp_path / "folder")
    assert "vit.layers.0.attention.q_proj.weight" in model.state_dict()
    save_file(model.state_dict(), tmp_path / "x.safetensors")
    found = read_checkpoint(tmp_path / "x.safetensors", "vit_base_patch16_224", {"num_heads": HEADS})
    set_eps(found.model, model.config.layer_norm_eps)
    assert apart(outputs(found), wanted) < EQUAL
