"""Digests of large files are kept, and never hold for other contents; where they cannot be kept they are computed."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from pipelines.data import checksums as digests


@pytest.fixture
def shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(digests, "WORTH_BYTES", 8)
    monkeypatch.setattr(digests, "SETTLED_SECONDS", -1.0)
    path = tmp_path / "train-00000-of-00001.parquet"
    path.write_bytes(b"contents")
    return path


def sha256(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def test_a_kept_digest_is_used_instead_of_the_bytes(shard: Path) -> None:
    assert digests.digests([shard]) == [sha256(shard)]
    kept = json.loads((shard.parent / digests.NAME).read_text())
    kept[shard.name]["sha256"] = "ab" * 32
    (shard.parent / digests.NAME).write_text(json.dumps(kept))
    assert digests.digests([shard]) == [b"\xab" * 32]


def test_other_contents_of_the_same_size_and_time_are_seen(shard: Path) -> None:
    before, stat = digests.digests([shard]), shard.stat()
    shard.write_bytes(b"Contents")
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert shard.stat().st_mtime_ns == stat.st_mtime_ns
    assert digests.digests([shard]) == [sha256(shard)] != before
    other = shard.with_name("other")
    other.write_bytes(b"elsewher")
    os.replace(other, shard)
    assert digests.digests([shard]) == [sha256(shard)]


def test_what_has_just_been_written_is_not_kept(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "SETTLED_SECONDS", 60.0)
    assert digests.digests([shard]) == [sha256(shard)]
    assert not (shard.parent / digests.NAME).exists()


def test_small_files_leave_nothing_beside_them(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "WORTH_BYTES", 9)
    assert digests.digests([shard]) == [sha256(shard)]
    assert not (shard.parent / digests.NAME).exists()


@pytest.mark.parametrize("kept", ["no JSON", "[1]", '{"train-00000-of-00001.parquet": 3}'])
def test_a_spoilt_file_of_digests_is_written_anew(shard: Path, kept: str) -> None:
    (shard.parent / digests.NAME).write_text(kept)
    assert digests.digests([shard]) == [sha256(shard)]
    assert json.loads((shard.parent / digests.NAME).read_text())[shard.name]["sha256"] == sha256(shard).hex()


def test_where_nothing_can_be_written_the_digest_is_still_right(shard: Path) -> None:
    (shard.parent / digests.NAME).mkdir()  # a read-only folder would not stop root
    assert digests.digests([shard]) == [sha256(shard)]
    assert sorted(p.name for p in shard.parent.iterdir()) == [digests.NAME, shard.name]


def test_a_kept_digest_that_is_none_is_computed_anew(shard: Path) -> None:
    digests.digests([shard])
    kept = json.loads((shard.parent / digests.NAME).read_text())
    kept[shard.name]["sha256"] = "z" * 64
    (shard.parent / digests.NAME).write_text(json.dumps(kept))
    assert digests.digests([shard]) == [sha256(shard)]
