"""JSON and tensors that somebody else wrote: read within limits, refused at once, in one line that
names the file."""

import json
import math
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.wave.test_storage import example, refused, reseal
from wave import TargetSpec, Templates, WaveError
from wave.json_file import DEEPEST, JsonError, parse_json, read_json
from wave.tensor_file import (
    check_dense,
    check_layers,
    read_safetensors,
    read_torch,
    shapes_in,
    weights,
)

DEEP = "[" * 100_000 + "]" * 100_000
NUMBER = "1" + "0" * 400


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (DEEP, "nested more than 64 deep"),
        ('{"a":' * 500 + "1" + "}" * 500, "nested more than 64 deep"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "nested more than 64 deep"),
        ('{"a": ' + NUMBER + "}", "a number of 401 digits"),
        ('{"a": 1e999}', "1e999 is beyond float64"),
        ('{"a": ' + NUMBER + ".5}", "is beyond float64"),
        ('{"a": NaN}', "NaN is no number"),
        ("-Infinity", "-Infinity is no number"),
        ("{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
    ],
)
def test_json_beyond_its_limits_is_one_line_at_once(text: str | bytes, words: str) -> None:
    start = time.process_time()
    with pytest.raises(JsonError, match=words) as caught:
        parse_json(text, "x.json")
    assert time.process_time() - start < 1
    assert str(caught.value).startswith("x.json: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_json_within_its_limits_is_what_json_says(tmp_path: Path) -> None:
    text = (
        '{"a": [1, -2.5e3, 12345678901234567890, "x", null, true], "b": '
        + "[" * 62
        + "]" * 62
        + "}"
    )
    assert parse_json(text, "x") == json.loads(text)
    (tmp_path / "x.json").write_text(text)
    assert read_json(tmp_path / "x.json") == json.loads(text)


def test_no_more_of_a_file_is_read_than_the_limit(tmp_path: Path) -> None:
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    with pytest.raises(JsonError, match="more than 64 MiB of JSON"):
        read_json(tmp_path / "x.json")


KINDS: dict[str, tuple[Callable[[], Tensor], str]] = {
    "float64 beyond float32": (
        lambda: torch.tensor([1e300, 1.0], dtype=torch.float64),
        "float64 values that float32",
    ),
    "nan": (lambda: torch.tensor([math.nan, 1.0]), "NaN or infinite"),
    "complex": (lambda: torch.ones(2, dtype=torch.complex64), r"complex \(complex64\)"),
    "sparse": (lambda: torch.ones(2).to_sparse(), r"sparse \(sparse_coo\)"),
    "sparse rows": (lambda: torch.eye(2).to_sparse_csr(), r"sparse \(sparse_csr\)"),
    "quantised": (
        lambda: torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8),
        r"quantised \(qint8\)",
    ),
    "meta": (lambda: torch.ones(2, device="meta"), "on the meta device"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
    "jagged": (
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
        "nested",
    ),
    "whole numbers": (lambda: torch.ones(2, dtype=torch.int64), r"of whole numbers \(int64\)"),
    "truth values": (lambda: torch.ones(2, dtype=torch.bool), r"of whole numbers \(bool\)"),
}


@pytest.mark.filterwarnings("ignore")  # torch's own, on what is new and on what is old
@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_that_is_no_weight_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    make, words = KINDS[kind]
    torch.save({"a.weight": make()}, tmp_path / "x.pt")
    with pytest.raises(WaveError, match=f"x.pt: tensor a.weight (is|holds) {words}"):
        weights(tmp_path / "x.pt", "a.weight", read_torch(tmp_path / "x.pt")["a.weight"])
    if kind in ("float64 beyond float32", "complex", "whole numbers"):  # what safetensors can hold
        save_file({"a.weight": make()}, tmp_path / "x.safetensors")
        with pytest.raises(WaveError, match=f"x.safetensors: tensor a.weight (is|holds) {words}"):
            read_safetensors(tmp_path / "x.safetensors", {"a.weight": (2,)}, "")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_of_every_width_are_weights(dtype: torch.dtype, tmp_path: Path) -> None:
    read = weights(tmp_path, "a", torch.tensor([0.5, -2.0], dtype=dtype))
    assert read.dtype == torch.float32
    assert read.tolist() == [0.5, -2.0]
    check_dense(tmp_path, "a", read)


def test_a_file_that_unpacks_to_more_than_it_is_does_not_unpack(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "x.pt")
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as whole,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in whole.infolist():
            packed.writestr(entry.filename, whole.read(entry))
    assert (tmp_path / "bomb.pt").stat().st_size < 20_000
    with pytest.raises(WaveError, match="bytes that unpack to 41"):
        read_torch(tmp_path / "bomb.pt")
    assert read_torch(tmp_path / "x.pt")["a"].shape == (1 << 20,)


def test_code_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(pickle.dumps(print))
    with pytest.raises(pickle.UnpicklingError):
        read_torch(tmp_path / "x.pt")


def test_tensors_that_the_model_lacks_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    header = json.dumps(
        {"a": {"dtype": "F32", "shape": [1 << 31], "data_offsets": [0, 1 << 33]}}
    ).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + (1 << 33))  # 8 GiB that take no room on the disk
    assert shapes_in(path) == {"a": (1 << 31,)}
    with pytest.raises(
        WaveError, match=r"tensor a has shape \(2147483648,\), the model's is \(2,\); set"
    ):
        read_safetensors(path, {"a": (2,)}, "set it right")


def test_a_description_is_held_against_the_file_before_anything_is_built(tmp_path: Path) -> None:
    found = {"blocks.0.norm1.weight": (32,), "blocks.1.norm1.weight": (32,), "head.bias": (5,)}
    check_layers(tmp_path, found, "blocks.", 2, 32)
    check_layers(tmp_path, found, "blocks.", None, None)
    for depth, width in ((1024, 32), (2, 16384), (1024, None), (None, 64)):
        with pytest.raises(WaveError, match=r"the description beside it says (1024|16384|64)"):
            check_layers(tmp_path, found, "blocks.", depth, width)


def test_templates_that_describe_what_they_do_not_hold_are_refused_in_a_second(
    tmp_path: Path,
) -> None:
    example().save(tmp_path / "t")
    for size in ({"depth": 1024, "embed_dim": 16384}, {"depth": 1024}, {"embed_dim": 16384}):
        reseal(tmp_path / "t", lambda meta, size=size: meta["auxiliary"].update(size))
        start = time.process_time()
        refused(tmp_path / "t", "the description beside it says")
        assert time.process_time() - start < 1
        reseal(tmp_path / "t", lambda meta: meta["auxiliary"].update(depth=1, embed_dim=16))
    assert Templates.load(tmp_path / "t").size == TargetSpec(16, 1, 5, 16, 8)
