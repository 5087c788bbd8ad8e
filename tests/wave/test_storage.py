"""Artifacts on disk: read back bit-equal, and every defect is one line that names the file."""

import contextlib
import dataclasses
import hashlib
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.wave.models import CLASSES, FAMILIES, exact, images, spec_of, tiny
from wave import Family, TargetSpec, Templates, WaveError, condense, initialise, save_model
from wave.files import replacing
from wave.storage import META, TENSORS

INFO = {
    "ancestor": "tiny",
    "mean": [0.5, 0.5, 0.5],
    "metrics": {"accuracy": 0.25},
    "classes": ["eins", "zwei"],
}


def example(family: str = "class token") -> Templates:
    ancestor = tiny(family)
    auxiliary = condense(ancestor, spec_of(ancestor, count=4), size=TargetSpec(16, 1))
    return Templates.of(
        auxiliary, Family.of(ancestor), exact(symmetry="split", strength=0.25, seed=3), INFO
    )


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    example().save(tmp_path / "templates")
    return tmp_path / "templates"


def equal(a: Templates, b: Templates) -> bool:
    plain = all(
        getattr(a, f) == getattr(b, f) for f in ("spec", "family", "size", "options", "info")
    )
    tensors = [(a.bank, b.bank), (a.state, b.state)]
    return plain and all(
        x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in tensors
    )


def refused(directory: Path, words: str) -> None:
    with pytest.raises(WaveError, match=words) as caught:
        Templates.load(directory)
    assert "\n" not in str(caught.value)
    assert str(directory) in str(caught.value)


def reseal(
    directory: Path,
    change: Callable[[dict], None] | None = None,
    tensors: Callable[[dict[str, Tensor]], None] | None = None,
):
    """Change an artifact and make its checksums right again, as another program might write it."""
    meta = json.loads((directory / META).read_text())
    if tensors is not None:
        values = load_file(directory / TENSORS)
        tensors(values)
        save_file(values, directory / TENSORS)
        meta["sha256"] = hashlib.sha256((directory / TENSORS).read_bytes()).hexdigest()
    if change is not None:
        change(meta)
    meta["checksum"] = hashlib.sha256(
        json.dumps({k: v for k, v in meta.items() if k != "checksum"}, sort_keys=True).encode()
    ).hexdigest()
    (directory / META).write_text(json.dumps(meta))


@pytest.mark.parametrize("family", FAMILIES)
def test_read_back_bit_equal(family: str, tmp_path: Path):
    saved = example(family)
    digest = saved.save(tmp_path / "t")
    loaded = Templates.load(tmp_path / "t")
    assert equal(saved, loaded)
    assert loaded.digest == digest
    assert len(digest) == 64
    assert loaded.size == TargetSpec(16, 1, 5, 16, 8)
    assert torch.equal(loaded.auxiliary().eval()(images()), saved.auxiliary().eval()(images()))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["t", META, TENSORS]


def test_the_digest_is_of_the_content(tmp_path: Path):
    one = example()
    digests = [one.save(tmp_path / "a"), one.save(tmp_path / "b"), one.save(tmp_path / "a")]
    assert len(set(digests)) == 1
    other = dataclasses.replace(one, bank={**one.bank, "fc1": one.bank["fc1"] * 2})
    assert other.save(tmp_path / "c") != digests[0]
    assert dataclasses.replace(one, info={}).save(tmp_path / "d") != digests[0]


def test_resealing_alone_is_accepted(artifact: Path):
    before = Templates.load(artifact)
    reseal(artifact, lambda meta: None, lambda values: None)
    assert equal(before, Templates.load(artifact))


def test_missing_files(artifact: Path, tmp_path: Path):
    refused(
        tmp_path / "nowhere", r"^[^(]*templates.json: No such file.*templates artifact is a folder"
    )
    (artifact / TENSORS).unlink()
    refused(artifact, TENSORS)
    refused(artifact / META, "Not a directory")


@pytest.mark.parametrize("name", [META, TENSORS])
@pytest.mark.parametrize("keep", [0, 1, 7, 200, -1])
def test_cut_short(artifact: Path, name: str, keep: int):
    file = artifact / name
    file.write_bytes(file.read_bytes()[:keep])
    if (name, keep) == (META, -1):  # the line's end is no content
        assert equal(Templates.load(artifact), example())
    else:
        refused(artifact, name)


@pytest.mark.parametrize("name", [META, TENSORS])
def test_any_changed_byte_is_an_error_or_changes_nothing(artifact: Path, name: str):
    file, original, rng, wanted = (
        artifact / name,
        (artifact / name).read_bytes(),
        random.Random(0),
        example(),
    )
    accepted = 0
    for i in range(60):
        data = bytearray(original)
        place = rng.randrange(len(data))
        kind = i % 4
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place] = rng.randrange(256)
        elif kind == 2:
            del data[place : place + rng.randrange(1, 9)]
        else:
            data[place:place] = rng.randbytes(rng.randrange(1, 9))
        file.write_bytes(bytes(data))
        with contextlib.suppress(WaveError):
            assert equal(Templates.load(artifact), wanted)
            accepted += 1
    assert accepted < 15


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "3",
        '"x"',
        "{}",
        "{",
        "[" * 100000,
        "1" * 5000,
        '{"format": NaN}',
        '{"format": "wave-templates"}',
    ],
)
def test_other_json(artifact: Path, text: str):
    (artifact / META).write_text(text)
    refused(artifact, META)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_version_is_named(artifact: Path, version: object):
    reseal(artifact, lambda meta: meta.update(version=version))
    refused(artifact, f"version {version!r}.*reads 1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.pop("templates.fc1"), "templates.fc1 is missing"),
        (lambda v: v.pop("auxiliary.head.bias"), "auxiliary.head.bias is missing"),
        (lambda v: v.update(extra=torch.zeros(1)), "extra is unknown"),
        (
            lambda v: v.update({"templates.fc1": torch.zeros(4, 8, 4)}),
            r"templates.fc1 is torch.float32 \(4, 8, 4\).*\(4, 8, 8\)",
        ),
        (lambda v: v.update({"auxiliary.norm.bias": torch.zeros(17)}), r"norm.bias.*\(16,\)"),
        (lambda v: v.update({"templates.qkv": v["templates.qkv"].double()}), "must be float32"),
        (lambda v: v["templates.qkv"][0, 0].fill_(math.nan), "templates.qkv holds NaN"),
        (
            lambda v: v["auxiliary.pos_embed"].fill_(math.inf),
            "auxiliary.pos_embed holds NaN or infinite",
        ),
    ],
)
def test_wrong_tensors_with_right_checksums(
    artifact: Path, change: Callable[[dict[str, Tensor]], None], words: str
):
    reseal(artifact, tensors=change)
    refused(artifact, words)


def test_not_a_safetensors_file_with_a_right_checksum(artifact: Path):
    (artifact / TENSORS).write_bytes(b"PK" + bytes(100))
    digest = hashlib.sha256((artifact / TENSORS).read_bytes()).hexdigest()
    reseal(artifact, lambda meta: meta.update(sha256=digest))
    refused(artifact, "not a safetensors file")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("spec"),
        lambda m: m.pop("info"),
        lambda m: m["spec"].update(head_dim="8"),
        lambda m: m["spec"].update(head_dim=0),
        lambda m: m["spec"].update(order="mirror"),
        lambda m: m["spec"]["counts"].pop("qkv"),
        lambda m: m["family"].update(architecture="resnet_of_nowhere"),
        lambda m: m["family"].update(architecture="resnet18"),
        lambda m: m["family"].update(head_dim=0),
        lambda m: m["family"].update(mlp_ratio="4"),
        lambda m: m["family"].update(model_args={"no_such_argument": 1}),
        lambda m: m["family"].update(model_args=[1]),
        lambda m: m["auxiliary"].update(depth=0),
        lambda m: m["auxiliary"].update(depth=2),
        lambda m: m["auxiliary"].update(colour=1),
        lambda m: m["resampling"].update(depth="cubic"),
        lambda m: m["resampling"].update(strength="a"),
        lambda m: m.update(info=3),
    ],
)
def test_wrong_fields_with_right_checksums(artifact: Path, change: Callable[[dict], object]):
    reseal(artifact, lambda meta: change(meta) and None)
    with pytest.raises(WaveError) as caught:
        Templates.load(artifact)
    assert "\n" not in str(caught.value)


# --- plain timm directories ---


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_is_read_by_timm_alone_bit_equal(family: str, tmp_path: Path):
    ancestor = tiny(family)
    auxiliary = condense(ancestor, spec_of(ancestor, count=4))
    templates = Templates.of(auxiliary, Family.of(ancestor), exact(), {})
    model = initialise(templates, TargetSpec(24, 3)).eval()
    save_model(model, tmp_path / "m", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    read = timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True).eval()
    assert all(torch.equal(v, read.state_dict()[k]) for k, v in model.state_dict().items())
    assert read.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(read(images()), model(images()))
    assert Family.of(read).create(TargetSpec(8, 1))(images()).shape == (
        3,
        CLASSES,
    )  # and it is an ancestor again
    data = timm.data.resolve_model_data_config(read)
    assert [*data["mean"], *data["std"], *data["input_size"]] == [
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
        3,
        16,
        16,
    ]
    assert data["crop_pct"] == 1.0


def test_nothing_of_the_architectures_own_checkpoint_is_claimed(tmp_path: Path):
    model = tiny(in_chans=1)
    save_model(model, tmp_path / "m", (0.1,), (0.4,), ["a", "b", "c", "d", "e"])
    text = (tmp_path / "m" / "config.json").read_text()
    config = json.loads(text)
    assert config["label_names"] == ["a", "b", "c", "d", "e"]
    assert config["pretrained_cfg"]["tag"] == "wave"
    for claim in ("augreg", "in21k", "in1k", "apache", "http", "timm/", "2106.10270"):
        assert claim not in text
    assert config["num_classes"] == 5
    assert not any(
        isinstance(v, str) and v.startswith("/") for v in config["pretrained_cfg"].values()
    )


# --- whole or not at all ---


def test_replacing_leaves_nothing_on_an_error(tmp_path: Path):
    target = tmp_path / "sub" / "there"
    with pytest.raises(ZeroDivisionError), replacing(target) as folder:
        _ = (folder / "half").write_text("x") / 0
    assert list((tmp_path / "sub").iterdir()) == []
    with replacing(target) as folder:
        (folder / "one").write_text("1")
    with pytest.raises(ZeroDivisionError), replacing(target) as folder:
        _ = (folder / "two").write_text("2") / 0
    assert [p.name for p in (tmp_path / "sub").rglob("*")] == ["there", "one"]
    with replacing(target) as folder:
        (folder / "three").write_text("3")
    assert [p.name for p in (tmp_path / "sub").rglob("*")] == ["there", "three"]
    assert target.stat().st_mode & 0o777 == 0o755


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(WaveError, match="notes is a file"):
        example().save(tmp_path / "notes")
    assert [p.name for p in tmp_path.iterdir()] == ["notes"]
    assert (tmp_path / "notes").read_text() == "mine"


def test_an_unserialisable_info_leaves_nothing(tmp_path: Path):
    with pytest.raises(TypeError):
        dataclasses.replace(example(), info={"a": object()}).save(tmp_path / "t")
    assert list(tmp_path.iterdir()) == []
