"""Files made to cost more than they are: refused from what their header says, in one line, at once."""

import ast
import gzip
import json
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pipelines.ancestors import reading, timm_models
from pipelines.data import checksums as digests
from pipelines.data.convert import idx
from pipelines.data.dataset import open_dataset
from pipelines.data.image_file import LARGEST, decode
from pipelines.data.transforms import eval_pixels
from pipelines.report.run_page import run_page
from pipelines.runtime.workspace import Workspace
from tests.pipelines.support import ROOT
from tests.wave.models import tiny
from wave.errors import WaveError
from wave.export import save_model

DEEP = "[" * 100_000 + "]" * 100_000
NUMBER = "1" + "0" * 400

# --- one reader for each kind ---

READERS = {
    "json.load": "wave/json_file.py",
    "json.loads": "wave/json_file.py",
    "torch.load": "wave/tensor_file.py",
    "safe_open": "wave/tensor_file.py",
    "load_file": "wave/tensor_file.py",
    "Image.open": "pipelines/data/image_file.py",
    "gzip.open": "pipelines/data/convert/idx.py",
    "gzip.decompress": "pipelines/data/convert/idx.py",
}
OURS = {"local_login.py"}
"""Reads a file that only we can write, for commands that load nothing else."""


def test_each_kind_of_file_has_one_reader() -> None:
    """Who reads such a file elsewhere reads it without limits."""
    found: dict[str, set[str]] = {}
    for file in [*(ROOT / "wave").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in READERS and file.name not in OURS:
                found.setdefault(name, set()).add(file.relative_to(ROOT).as_posix())
    assert found == {name: {READERS[name]} for name in found}
    assert {"json.loads", "torch.load", "safe_open", "Image.open", "gzip.open"} <= found.keys()


# --- JSON, wherever it is read ---


def _record(folder: Path, text: str) -> object:
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model.json").write_text(text)
    return Workspace(folder).noted(folder / "model")


def _kept_digests(folder: Path, text: str) -> object:
    (folder / "a").write_text("a")
    (folder / digests.NAME).write_text(text)
    return len(digests.digests([folder / "a"])) - 1


def _report(folder: Path, text: str) -> object:
    (folder / "results.json").write_text(text)
    return run_page(str(folder))


def _configuration(folder: Path, text: str) -> object:
    (folder / "config.json").write_text(text)
    return reading.load_directory(folder)


def _shards(folder: Path, text: str) -> object:
    schema = pa.schema([pa.field("image", pa.binary(), False), pa.field("label", pa.int64(), False)], {b"wave": text})
    for split in ("train", "test"):
        table = pa.table([pa.array([b"x"]), pa.array([0])], schema=schema)
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return open_dataset(folder)


@pytest.mark.parametrize("text", [DEEP, '{"a": ' + NUMBER + "}", '{"mean": [1e999], "std": [NaN]}'])
@pytest.mark.parametrize("read", [_record, _kept_digests, _report, _configuration, _shards])
def test_json_beyond_its_limits(read: Callable[[Path, str], object], text: str, tmp_path: Path) -> None:
    start = time.process_time()
    if read in (_record, _kept_digests):  # what is only kept is made again
        assert not read(tmp_path, text)
    else:
        with pytest.raises(WaveError, match=str(tmp_path)) as caught:
            read(tmp_path, text)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 700
    assert time.process_time() - start < 2


def test_a_shape_that_no_memory_holds(tmp_path: Path) -> None:
    meta = {"format": 1, "encoding": "raw", "classes": ["a"], "mean": [0.5], "std": [0.5]}
    for shape in ([1, 10**6, 10**6], [10**9, 8, 8], [1, 8, 10**12]):
        with pytest.raises(WaveError, match="impossible"):
            _shards(tmp_path, json.dumps({**meta, "shape": shape}))


# --- models ---


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(tiny("class token"), tmp_path / "m", (0.5,) * 3, (0.5,) * 3)
    return tmp_path / "m"


@pytest.mark.parametrize("size", [{"depth": 1024, "embed_dim": 16384}, {"depth": 1024}, {"embed_dim": 16384}])
@pytest.mark.parametrize("beside", ["weights", "no weights"])
def test_a_config_of_1024_layers_is_refused_in_a_second(size: dict[str, int], beside: str, model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config["model_args"] |= {"num_heads": 8, **size}
    (model / "config.json").write_text(json.dumps(config))
    if beside == "no weights":
        (model / "model.safetensors").unlink()
        if len(size) < 2:
            return  # a model that fits; nothing but its weights is missing
    start = time.process_time()
    with pytest.raises(WaveError, match=r"no such file|the description beside it says"):
        reading.load_directory(model)
    assert time.process_time() - start < 1


def test_arguments_that_no_memory_holds_are_refused_in_a_second() -> None:
    for args in ({"depth": 1024, "embed_dim": 16384}, {"depth": 1024, "mlp_ratio": 1e4}):
        start = time.process_time()
        with pytest.raises(WaveError, match=r"takes \d+ GB, this machine has"):
            timm_models.create("vit_giant_patch14_224", {**args, "num_heads": 16}, "ancestor", "meta")
        assert time.process_time() - start < 1


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_float64_beyond_float32_is_refused_by_name(ending: str, model: Path) -> None:
    state = load_file(model / "model.safetensors")
    state["head.weight"] = state["head.weight"].double() * 1e300
    path = model / f"x.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save({"state_dict": state}, path)
    with pytest.raises(WaveError, match=rf"x.{ending}: tensor head.weight holds float64 values that float32 cannot"):
        reading.read_checkpoint(path, "vit_tiny_patch16_224", {"num_heads": 2})


# --- IDX ---


def test_of_a_gzip_file_no_more_is_unpacked_than_its_header_says(tmp_path: Path) -> None:
    path = tmp_path / "t.gz"
    head = bytes((0, 0, 8, 3)) + struct.pack(">III", 2, 4, 4)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(head)
        for _ in range(256):
            file.write(bytes(1 << 20))
    assert path.stat().st_size < 2 << 20
    tracemalloc.start()
    with pytest.raises(WaveError, match="has more than 32 bytes of values; its header says 2 x 4 x 4"):
        idx.read_idx(path, 3)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_a_header_that_no_memory_holds(tmp_path: Path) -> None:
    for pack in (gzip.compress, bytes):
        (tmp_path / "t").write_bytes(pack(bytes((0, 0, 8, 3)) + b"\xff" * 12 + bytes(99)))
        tracemalloc.start()
        with pytest.raises(WaveError, match="its header says 4294967295 x 4294967295 x 4294967295 bytes; this machine"):
            idx.read_idx(tmp_path / "t", 3)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


# --- images ---


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _webp(width: int, height: int) -> bytes:
    still = BytesIO()
    Image.new("RGB", (2, 2)).save(still, "WEBP", lossless=True)
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    frame = bytes(6) + bytes((1, 0, 0, 1, 0, 0, 10, 0, 0, 0)) + still.getvalue()[12:]
    parts = ((b"VP8X", bytes((2, 0, 0, 0)) + canvas), (b"ANIM", bytes(6)), (b"ANMF", frame))
    body = b"WEBP" + b"".join(name + struct.pack("<I", len(data)) + data for name, data in parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _jpeg(width: int, height: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "JPEG", progressive=True)
    data = bytearray(stream.getvalue())
    at = data.index(b"\xff\xc2") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def _tiff(width: int, height: int) -> bytes:
    """10 x 10 pixels in one tile of ``width`` x ``height``."""
    sizes = {256: 10, 257: 10, 258: 8, 259: 8, 262: 1, 277: 1, 322: width, 323: height, 324: 200, 325: 30}
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sizes.items())
    data = b"II*\0" + struct.pack("<IH", 8, len(sizes)) + tags + bytes(4)
    return data + bytes(200 - len(data)) + zlib.compress(bytes(100))


def _gif(width: int, height: int) -> bytes:
    frame = b"," + struct.pack("<HHHH", 0, 0, width, height) + bytes((0, 2, 2, 0x4C, 1, 0)) + b";"
    return b"GIF89a" + struct.pack("<HH", width, height) + bytes((0x80, 0, 0)) + bytes(6) + frame


def _ppm(width: int, height: int) -> bytes:
    return f"P6 {width} {height} 255\n".encode()


HEADERS = {
    "png": (_png, 13_000, 13_000),
    "png, one pixel wide": (_png, 1, 60_000_000),
    "png, one pixel high": (_png, 100_000, 1),
    "png, four billion": (_png, 2**31 - 1, 2**31 - 1),
    "webp": (_webp, 16_383, 16_383),
    "webp, below Pillow's own limit": (_webp, 13_000, 13_000),
    "jpeg": (_jpeg, 13_000, 13_000),
    "jpeg, the most": (_jpeg, 65_500, 65_500),
    "tiff": (_tiff, 60_000, 30_000),
    "gif": (_gif, 13_000, 13_000),
    "ppm": (_ppm, 13_000, 13_000),
    "ppm, one pixel high": (_ppm, 60_000_000, 1),
}


def test_a_header_cannot_make_an_image_cost_gigabytes(tmp_path: Path) -> None:
    for name, (make, width, height) in HEADERS.items():
        (tmp_path / name).write_bytes(make(width, height))
        assert (tmp_path / name).stat().st_size < 1000
    code = f"""
        import resource, sys
        from pathlib import Path
        from pipelines.data.image_file import decode
        from wave.errors import WaveError
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for path in sorted(Path({str(tmp_path)!r}).iterdir()):
            try:
                print(decode(path.read_bytes(), (3, 224, 224), path.name, draft=32).size)
            except WaveError as error:
                print(error)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    script = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    *said, grown = done.stdout.splitlines()
    for name, line in zip(sorted(HEADERS), said, strict=True):
        assert line.startswith(f"{name}: the image "), line
    assert int(grown) < 64 << 10, f"{grown} KiB"


def test_images_at_the_limits_are_read() -> None:
    for width, height in ((4000, 3000), (3000, 20), (1, 500)):
        stream = BytesIO()
        Image.new("RGB", (width, height), (9, 9, 9)).save(stream, "PNG")
        image = decode(stream.getvalue(), (3, 224, 224), "x")
        assert image.size == (width, height)
        assert eval_pixels((3, 224, 224))(image).max() == 9
    assert LARGEST == 8192**2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_every_known_format_is_read(kind: str) -> None:
    stream = BytesIO()
    Image.new("RGB", (12, 34), (80, 80, 80)).save(stream, kind)
    assert decode(stream.getvalue(), (3, 8, 8), "x").size == (12, 34)


def test_formats_that_start_a_program_are_not_read() -> None:
    with pytest.raises(WaveError, match="it is PostScript, which is not read"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", (3, 8, 8), "x")


def test_a_set_is_no_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred bytes of Parquet may say that there are a billion rows."""
    meta = {"format": 1, "encoding": "raw", "classes": ["a"], "mean": [0.5], "std": [0.5], "shape": [1, 64, 64]}
    schema = pa.schema(
        [pa.field("image", pa.binary(), False), pa.field("label", pa.int64(), False)], {b"wave": json.dumps(meta)}
    )
    for split in ("train", "test"):
        table = pa.table([pa.array([bytes(4096)] * 512), pa.array(np.zeros(512, np.int64))], schema=schema)
        pq.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet", compression="zstd")
    dataset = open_dataset(tmp_path)
    assert dataset.arrays("train")[0].shape == (512, 1, 64, 64)
    monkeypatch.setattr("pipelines.data.dataset.memory_bytes", lambda: 1 << 20)
    with pytest.raises(WaveError, match=r"512 train images take 0.0021 GB, this machine has 0.00105"):
        dataset.arrays("train")
