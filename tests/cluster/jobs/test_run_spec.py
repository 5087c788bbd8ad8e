"""A run's name, and where its paths end up in a job."""

import os
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.jobs import run_spec as run
from pipelines.config.experiment import load as settings
from pipelines.config.toml import apply_overrides, read_toml
from wave.errors import WaveError

ROOT = Path(__file__).parents[3]

FILE = """
name = "x"
[data]
path = "data/x"
[ancestor]
source = "local-dir:model"
[distil.recipe]
steps = 4
[initialise.recipe]
steps = 4
[targets]
grid = {embed_dim = [32], depth = [2]}
"""
MISTAKES: dict[str, tuple[str, str]] = {
    "no such key": ("distil.recipe.stesp=4", "--set distil.recipe.stesp is not a key; nearest: steps"),
    "blanks in the key": (" distil . recipe . stesp =4", "--set distil.recipe.stesp is not a key; nearest: steps"),
    "no value": ("seed", "--set seed: write section.key=value"),
    "half a key": ("a..b=1", "--set a..b=1: write section.key=value"),
    "a date": ("seed=2026-11-28", "--set seed='2026-11-28' should be a valid integer"),
    "of a value": ("name.a=1", "--set name.a=1: name is not a table; set it whole"),
    "a name that is a path": ("name=../x", "--set name='../x' should be 1 to 64 letters"),
    "brackets without end": ("seed=" + "[" * 5000, "--set seed="),
    "a key of many parts": (".".join("a" * 50_000) + "=1", "a key of more than 32 parts"),
    "bytes that are no text": ("name=\udcff", "holds bytes that are no text in UTF-8"),
    "what a job cannot have": ("cluster.num_cpus=2", "num_cpus has no effect with address='auto'"),
}


def load(folder: Path, text: str, *overrides: str) -> run.Run:
    """As `run.load`, of a few settings that alone are no experiment."""
    (folder / "x.toml").write_text(text)
    tree = apply_overrides(read_toml(folder / "x.toml"), overrides)
    output = str(tree.get("output", f"runs/{tree['name']}"))
    return run.Run(folder / "x.toml", str(tree["name"]), overrides, tree, output, "x")


def test_the_id_follows_from_the_settings_and_not_from_how_they_are_written(tmp_path: Path) -> None:
    plain = load(tmp_path, 'name = "digits"\nseed = 3\n[distil]\nworkers = 2\n')
    other = load(tmp_path, '# remark\nseed=0\nname="digits"\n', "distil.workers=2", "seed=3")
    assert plain.id("/o") == other.id("/o")
    assert plain.id("/o").startswith("digits-")
    assert load(tmp_path, 'name = "digits"\nseed = 4\n[distil]\nworkers = 2\n').id("/o") != plain.id("/o")
    assert plain.id("/elsewhere") != plain.id("/o")  # nothing of what is in one folder is in the other


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each of MISTAKES says, two at a time: each loads what the checks need."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "x.toml").write_text(FILE)

    def ask(override: str) -> str:
        with pytest.raises(ClusterError) as caught:
            run.load(folder / "x.toml", (override,), ROOT)
        return str(caught.value)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(MISTAKES, pool.map(ask, (override for override, _ in MISTAKES.values())), strict=True))


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_the_line_that_run_says(name: str, said: dict[str, str]) -> None:
    assert MISTAKES[name][1] in said[name]
    assert "\n" not in said[name]
    assert len(said[name]) < 400


def test_mistakes_in_the_file_are_the_line_that_run_says(tmp_path: Path) -> None:
    for text, message in (("name = ", "x.toml: not valid TOML"), (None, "x.toml: no such file")):
        (tmp_path / "x.toml").unlink(missing_ok=True)
        if text is not None:
            (tmp_path / "x.toml").write_text(text)
        with pytest.raises(ClusterError, match=message) as caught:
            run.load(tmp_path / "x.toml", (), ROOT)
        with pytest.raises(WaveError) as by_run:
            settings(tmp_path / "x.toml")
        assert str(caught.value) == str(by_run.value)


def test_a_run_is_what_run_makes_of_the_file(tmp_path: Path) -> None:
    """Byte-order mark, comments, blanks in keys, an empty value, and a budget that gives another name and folder."""
    (tmp_path / "x.toml").write_text("\ufeff" + FILE + "[mlflow]\nexperiment = 'e' # one\n", encoding="utf-8")
    overrides = ("budget=smoke", " distil . recipe . lr = 0.5 # half", "mlflow.experiment=")
    wanted = run.load(tmp_path / "x.toml", overrides, ROOT)
    plain = settings(tmp_path / "x.toml", overrides)
    assert (wanted.name, wanted.output, wanted.model) == (plain.name, plain.output, plain.mlflow.registered_model)
    assert (wanted.name, wanted.output) == ("x-smoke", "runs/x-smoke")
    assert wanted.get("distil.recipe.lr") == plain.distil.recipe.lr == 0.5
    assert wanted.get("mlflow") == {}
    assert run.output(wanted, "/s") == "/s/runs/x-smoke"
    assert 'output="/s/runs/x-smoke"' in run.anchored(wanted, "/s")


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
    home = load(tmp_path, 'name = "x"\noutput = "~/o"')
    assert run.anchored(home, "") == []
    assert run.output(home, "") == str(Path.home() / "o")


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
        run._check_secrets(load(tmp_path, 'name = "x"', setting).tree)
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
        run._check_secrets({"mlflow": {"tracking_uri": "http://me:secret@h:1"}})


def test_a_file_that_extends_another_is_one_run_of_both(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(FILE.replace('name = "x"', 'name = "base"\noutput = "runs/of-base"'))
    top = tmp_path / "top.toml"
    top.write_text('extends = "base.toml"\nname = "top"\n[data]\nheld_out = 7\n')
    found = run.load(top, ("seed=3",), ROOT)
    assert found.name == "top" and found.get("data.path") == "data/x" and found.get("data.held_out") == 7
    assert 'data.path="/shared/data/x"' in run.anchored(found, "/shared")
    assert run.output(found, "/shared") == "/shared/runs/of-base"
    top.write_text('extends = "none.toml"\nname = "top"\n')
    with pytest.raises(ClusterError, match=r"top\.toml: extends: .*none\.toml: no such file"):
        run.load(top, (), ROOT)
