"""Mutated template artifacts: an equal result or one clear line, never a traceback or silently different weights."""

import contextlib
import hashlib
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.wave.models import spec_of, tiny
from wave import Family, TargetSpec, Templates, WaveError, condense
from wave.resample import Resampling
from wave.storage import META, TENSORS

RAW, SEALED = 600, 600
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 7, 2**31, 2**63, 10**400, 0.5, -1e308, 1e400, float("nan"), "", "x", "\x00", "../x"),
    *([], {}, [[]], {"a": 1}, "9" * 5000, [1, 2, 3]),
)


@pytest.fixture(scope="module")
def original() -> Templates:
    ancestor = tiny()
    auxiliary = condense(ancestor, spec_of(ancestor, count=4), size=TargetSpec(16, 1))
    return Templates.of(auxiliary, Family.of(ancestor), Resampling(), {"metrics": {"accuracy": 0.5}})


def changed(data: bytes, rng: random.Random) -> bytes:
    """One of: a bit flipped, a byte drawn anew, a stretch lost, a stretch doubled, zeros written over, the end lost."""
    raw, place = bytearray(data), rng.randrange(len(data))
    stretch = rng.randrange(1, 64)
    match rng.randrange(6):
        case 0:
            raw[place] ^= 1 << rng.randrange(8)
        case 1:
            raw[place] = rng.randrange(256)
        case 2:
            del raw[place : place + stretch]
        case 3:
            raw[place:place] = raw[place : place + stretch]
        case 4:
            raw[place : place + stretch] = bytes(len(raw[place : place + stretch]))
        case _:
            del raw[place:]
    return bytes(raw)


def same(loaded: Templates, wanted: Templates) -> bool:
    plain = all(getattr(loaded, f) == getattr(wanted, f) for f in ("spec", "family", "size", "options", "info"))
    pairs = ((dict(loaded.bank), dict(wanted.bank)), (dict(loaded.state), dict(wanted.state)))
    return plain and all(a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in pairs)  # type: ignore[index]


@pytest.mark.parametrize("name", [META, TENSORS])
def test_random_bytes(original: Templates, tmp_path: Path, name: str, note: Callable[[str, int], None]) -> None:
    original.save(tmp_path / "t")
    file, rng, refused = tmp_path / "t" / name, random.Random(name), 0
    data = file.read_bytes()
    for _ in range(RAW):
        file.write_bytes(changed(data, rng))
        try:
            loaded = Templates.load(tmp_path / "t")
        except WaveError as error:
            refused += 1
            assert "\n" not in str(error) and name in str(error)
        else:
            assert same(loaded, original)
    assert refused > RAW * 0.8
    file.write_bytes(data)
    assert same(Templates.load(tmp_path / "t"), original)
    note(f"11 {name} mutated", RAW)


def seal(folder: Path, meta: dict[str, Any]) -> None:
    """Write the JSON with right checksums, as a program that makes mistakes would."""
    meta["sha256"] = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    rest = {k: v for k, v in meta.items() if k != "checksum"}
    meta["checksum"] = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    (folder / META).write_text(json.dumps(meta))


def leaves(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON tree."""
    keys: Any = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [pair for key in keys for pair in ((value, key), *leaves(value[key]))]


def test_wrong_values_under_right_checksums(
    original: Templates, tmp_path: Path, note: Callable[[str, int], None]
) -> None:
    """No checksum helps here: every field is checked where it is read, and nothing but a WaveError comes out."""
    original.save(tmp_path / "t")
    text, rng, refused = (tmp_path / "t" / META).read_text(), random.Random(1), 0
    for _ in range(SEALED):
        meta = json.loads(text)
        container, key = rng.choice([pair for pair in leaves(meta) if pair[1] not in ("checksum", "sha256")])
        if rng.random() < 0.2:
            del container[key]
        else:
            container[key] = rng.choice(VALUES)
        seal(tmp_path / "t", meta)
        try:
            Templates.load(tmp_path / "t")
        except WaveError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > SEALED / 3
    note("11 wrong values, right checksums", SEALED)


def test_wrong_headers_under_right_checksums(
    original: Templates, tmp_path: Path, note: Callable[[str, int], None]
) -> None:
    """The safetensors header (names, types, shapes, offsets) mutated, the checksum right."""
    original.save(tmp_path / "t")
    file, rng = tmp_path / "t" / TENSORS, random.Random(2)
    data, meta, refused = file.read_bytes(), json.loads((tmp_path / "t" / META).read_text()), 0
    length = struct.unpack("<Q", data[:8])[0]
    for _ in range(SEALED // 2):
        header = changed(data[: 8 + length], rng)
        file.write_bytes(header + data[8 + length :])
        seal(tmp_path / "t", meta)
        with contextlib.suppress(WaveError):
            refused += 1
            assert same(Templates.load(tmp_path / "t"), original)
            refused -= 1
    assert refused > SEALED / 4
    note("11 safetensors header, right checksum", SEALED // 2)
