"""A run's name, and where its paths end up in a job."""

import os
import shlex
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.jobs import run_spec as run


def load(folder: Path, text: str, *overrides: str) -> run.Run:
    file = folder / "x.toml"
    file.write_text(text)
    return run.load(file, overrides)


def test_the_id_follows_from_the_settings_and_not_from_how_they_are_written(tmp_path: Path) -> None:
    plain = load(tmp_path, 'name = "digits"\nseed = 3\n[distil]\nworkers = 2\n')
    other = load(tmp_path, '# remark\nseed=0\nname="digits"\n', "distil.workers=2", "seed=3")
    assert plain.id("/o") == other.id("/o")
    assert plain.id("/o").startswith("digits-")
    assert load(tmp_path, 'name = "digits"\nseed = 4\n[distil]\nworkers = 2\n').id("/o") != plain.id("/o")
    assert plain.id("/elsewhere") != plain.id("/o")  # nothing of what is in one folder is in the other


def test_overrides_are_toml_values_or_words(tmp_path: Path) -> None:
    tree = load(tmp_path, 'name = "x"', "a.b=[1, 2]", "a.c=word", 'a.d="quoted"', "a.e=true", "f=").tree
    assert tree == {"name": "x", "a": {"b": [1, 2], "c": "word", "d": "quoted", "e": True}, "f": ""}


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("name = ", (), "is not TOML"),
        ("seed = 1", (), "needs name"),
        ('name = "../x"', (), "needs name"),
        ('name = "x"', ("seed",), "must read KEY=VALUE"),
        ('name = "x"', ("a=" + "[" * 5000,), "more brackets in brackets"),
        ("a = " + "[" * 5000, (), "is not TOML"),
        ("a = " + "9" * 5000, (), "is not TOML"),
        ('name = "x"', ("a=\udcff",), "no text in UTF-8"),
        ('name = "x"', ("a..b=1",), "must read KEY=VALUE"),
        ('name = "x"', ("name.a=1",), "is a value there"),
        ('name = "x"', ("name=a\x00b",), "needs name"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ClusterError, match=message) as caught:
        load(tmp_path, text, *overrides)
    assert "\n" not in str(caught.value).replace("\\n", "")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="cannot be read: No such file"):
        run.load(tmp_path / "none.toml")


def test_relative_paths_go_below_the_storage_and_absolute_ones_stay(tmp_path: Path) -> None:
    wanted = load(tmp_path, 'name = "x"\n[data]\npath = "data/x"\n[ancestor]\nsource = "checkpoint:a b.pt"\n')
    assert run.anchored(wanted, "/mnt/s") == [
        'output="/mnt/s/runs/x"',
        'data.path="/mnt/s/data/x"',
        'ancestor.source="checkpoint:/mnt/s/a b.pt"',
    ]
    there = load(tmp_path, 'name = "x"\noutput = "/o"\n[data]\npath = "/d"\n[ancestor]\nsource = "timm:vit"\n')
    assert run.anchored(there, "") == []
    assert run.output(there, "") == "/o"


def test_an_override_of_a_path_is_anchored_too_and_the_line_survives_a_shell(tmp_path: Path) -> None:
    wanted = load(tmp_path, 'name = "x"', "output=a b/$HOME;c")
    line = run.command("x.toml", wanted, "/s", "http://m:5000")
    # The last setting of a key counts, so the anchored one stands behind the person's.
    settings = [word for word in shlex.split(line) if word.startswith("output=")]
    assert settings == ["output=a b/$HOME;c", 'output="/s/a b/$HOME;c"']


@pytest.mark.parametrize("key", ["output", "data.path", "data.source"])
def test_a_uri_is_no_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(ClusterError, match=f"{key} = 's3://bucket/x' is a URI; give a folder that every node sees"):
        run.anchored(load(tmp_path, 'name = "x"', f"{key}=s3://bucket/x"), "/mnt/s")


@pytest.mark.parametrize(
    "setting",
    [
        *("data.source=https://u:geheim@h/x", "mlflow.tracking_uri=http://h/?Password=geheim"),
        *("mlflow.tracking_uri=postgresql://h/db?token=geheim", "ancestor.source=timm:x://a:geheim@b"),
    ],
)
def test_no_secret_of_any_setting_is_sent(tmp_path: Path, setting: str) -> None:
    with pytest.raises(ClusterError, match=f"{setting.partition('=')[0]} holds a password") as caught:
        load(tmp_path, 'name = "x"', setting)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("path", ["../up", "a/../../up", "a\x00b"])
def test_no_path_leaves_the_storage(tmp_path: Path, path: str) -> None:
    with pytest.raises(ClusterError, match="leaves the storage folder"):
        run.anchored(load(tmp_path, 'name = "x"', f"output={path}"), "/mnt/s")


def test_without_a_storage_relative_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="give --storage DIR"):
        run.anchored(load(tmp_path, 'name = "x"'), "")
    with pytest.raises(ClusterError, match="absolute"):
        run.check_storage("mnt/s")
    assert run.check_storage(os.sep + "mnt") == "/mnt"


def test_the_mlflow_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment:1")
    plain = load(tmp_path, 'name = "x"')
    named = load(tmp_path, 'name = "x"\n[mlflow]\ntracking_uri = "http://file:1"')
    assert run.tracking(plain, "", "http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    assert run.tracking(named, "", "http://127.0.0.1:5000") == "http://file:1"
    assert run.tracking(named, "http://flag:1", "") == "http://flag:1"
    assert run.tracking(plain, "", "") == "http://environment:1"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    for given, message in (
        ("", "give --mlflow"),
        ("sqlite:///mlflow.db", "not a server"),
        ("http://me:secret@h:1", "holds a password"),
        ("me:secret@h:1", "holds a password"),
        ("http://h:1?password=secret", "holds a password"),
        ("http://h:99999", "is none: Port out of range"),
        ("http://[::1", "is none: Invalid IPv6 URL"),
        ("127.0.0.1:5000", "'127.0.0.1:5000' is not a server"),
        ("nonsense", "'nonsense' is not a server"),
    ):
        with pytest.raises(ClusterError, match=message) as caught:
            run.tracking(plain, given, "")
        assert "secret" not in str(caught.value)
    with pytest.raises(ClusterError, match="holds a password"):  # also where another address wins: it would be sent
        load(tmp_path, 'name = "x"\n[mlflow]\ntracking_uri = "http://me:secret@h:1"')
