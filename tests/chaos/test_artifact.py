"""Fault 11: a templates artifact with changed bytes is refused in one line or is the same; never other weights."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.chaos.conftest import Note
from tests.wave.models import exact, spec_of, tiny
from wave import Family, TargetSpec, Templates, WaveError, condense
from wave.storage import META, TENSORS

BYTES, VALUES, HEADERS = 400, 400, 200
"""How many mutations of each kind: raw bytes, JSON values with right checksums, tensor headers with right checksums."""
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 10**6, 10**12, 2**63, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "8", "../../etc/passwd", "\x00", "\ud800", "a" * 5000, [], [1], [[]], {}, {"embed_dim": 8}, {"": None}),
)
Mutate = Callable[[Path, random.Random], None]


@pytest.fixture(scope="module")
def saved() -> Templates:
    ancestor = tiny("class token")
    auxiliary = condense(ancestor, spec_of(ancestor, count=4), size=TargetSpec(16, 1))
    info = {"ancestor": "tiny", "mean": [0.5], "metrics": {"accuracy": 0.25}, "classes": ["eins", "zwei"]}
    return Templates.of(auxiliary, Family.of(ancestor), exact(symmetry="split", strength=0.25, seed=3), info)


def same_weights(one: Templates, other: Templates) -> bool:
    pairs = ((one.bank, other.bank), (one.state, other.state))
    return all(a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in pairs)


def rest(templates: Templates) -> tuple[Any, ...]:
    """What an artifact says beside its tensors."""
    return (templates.spec, templates.family, templates.size, templates.options, templates.info)


def flip(name: str) -> Mutate:
    """One to five places of a file get other bits or bytes, or lose or gain some."""

    def mutate(folder: Path, rng: random.Random) -> None:
        data = bytearray((folder / name).read_bytes())
        for _ in range(rng.choice((1, 1, 2, 5))):
            place = rng.randrange(len(data) + 1)
            kind = rng.randrange(5)
            if kind == 0 and place < len(data):
                data[place] ^= 1 << rng.randrange(8)
            elif kind == 1 and place < len(data):
                data[place] = rng.randrange(256)
            elif kind == 2:
                del data[place : place + rng.choice((1, 8, 1000))]
            elif kind == 3:
                data[place:place] = rng.randbytes(rng.choice((1, 8, 1000)))
            else:
                data = data[:place] + data[: rng.randrange(64)] + data[place:]
        (folder / name).write_bytes(bytes(data))

    return mutate


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key below ``tree``."""
    for key in tree if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from places(tree[key])


def sealed(folder: Path, meta: dict[str, Any]) -> None:
    """Write the JSON with right checksums, as a program would that means what it writes."""
    meta = {k: v for k, v in meta.items() if k != "checksum"} | {
        "sha256": hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    }
    meta["checksum"] = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
    (folder / META).write_text(json.dumps(meta))


def edit(folder: Path, rng: random.Random) -> None:
    """A JSON value becomes another one, is left out, or moves to another place."""
    meta = json.loads((folder / META).read_text())
    container, key = rng.choice(list(places(meta)))
    kind = rng.randrange(4)
    if kind == 0 and isinstance(container, dict):
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[rng.choice(("colour", "depth", "", "__class__"))] = container[key]
    else:
        container[key] = rng.choice(ODD)
    sealed(folder, meta)


def header(folder: Path, rng: random.Random) -> None:
    """A value in the header of the tensors' file becomes another one."""
    raw = (folder / TENSORS).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    table = json.loads(raw[8 : 8 + size])
    container, key = rng.choice(list(places(table)))
    container[key] = rng.choice((*ODD, "F16", "BF16", "F8_E4M3", "C64", "BOOL", "I64", "F4", [0], [4, 8, 8], [0, 8]))
    text = json.dumps(table).encode()
    length = rng.choice((len(text), len(text), len(text), 0, 2**63, len(text) + 8))
    (folder / TENSORS).write_bytes(length.to_bytes(8, "little") + text + raw[8 + size :])
    sealed(folder, json.loads((folder / META).read_text()))


@pytest.mark.parametrize(
    ("mutate", "times", "sealed_json"),
    [
        (flip(META), BYTES // 2, False),
        (flip(TENSORS), BYTES // 2, False),
        (edit, VALUES, True),
        (header, HEADERS, False),
    ],
    ids=["bytes of the JSON", "bytes of the tensors", "values of the JSON", "header of the tensors"],
)
def test_a_mutated_artifact(
    saved: Templates,
    tmp_path: Path,
    mutate: Mutate,
    times: int,
    sealed_json: bool,
    note: Note,
    request: pytest.FixtureRequest,
) -> None:
    """A JSON that was written with its checksum means what it says; else all of the artifact is as it was saved."""
    refused = 0
    for number in range(times):
        saved.save(tmp_path / "t")
        mutate(tmp_path / "t", random.Random(number))
        loaded, text = None, ""
        try:
            loaded = Templates.load(tmp_path / "t")
        except WaveError as error:
            refused, text = refused + 1, str(error)
        if loaded is None:
            assert "\n" not in text and str(tmp_path) in text, f"mutation {number}: {text}"
        else:
            assert same_weights(loaded, saved), f"mutation {number}: other weights"
            assert sealed_json or rest(loaded) == rest(saved), f"mutation {number}: another meaning"
    assert refused > times // 3
    note(f"11 artifact mutated, {request.node.callspec.id}", times)
