"""The registry against a real SQLite database: once and only once, whatever crashes, and readable with timm alone."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

from pipelines.registry import query as registry
from pipelines.registry import store
from wave.errors import WaveError

SIZE = {
    "embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A timm directory of a small ViT with random weights."""
    folder = tmp_path_factory.mktemp("timm") / "d032-l02"
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **SIZE)
    save_for_hf(model, folder, model_args=SIZE, safe_serialization=True)
    return folder


@pytest.fixture
def family(request: pytest.FixtureRequest) -> str:
    """A registered model of this test alone."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)


@pytest.fixture
def run_id(opened: store.Store, family: str) -> str:
    return registry.batch_run(opened, family, family, {}, {})


def versions(opened: store.Store, family: str) -> list[int]:
    return sorted(int(version.version) for version in opened.client().search_model_versions(f"name = '{family}'"))


def python(code: str, cwd: Path, *args: str, **env: str) -> subprocess.Popen[str]:
    """A fresh interpreter in another folder, with nothing of MLflow's configuration inherited."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_") and key != "PYTHONPATH"}
    kept |= {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"} | env
    command = [sys.executable, "-c", code, *args]
    return subprocess.Popen(command, cwd=cwd, env=kept, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out


def test_the_snippet_gives_bit_equal_weights_in_a_process_without_wave(
    opened: store.Store, plain: Path, family: str, run_id: str, workdir: Path, tmp_path: Path
):
    text = registry.snippet(family, "d032-l02")
    metrics = {"accuracy": 0.5}
    assert registry.publish(opened, plain, family, "d032-l02", run_id, {"depth": 2}, text, metrics) == 1
    row = registry.show_model(opened, family, "d032-l02")
    assert (row.version, row.metrics, row.description) == (1, metrics, text)
    assert row.tags["depth"] == "2"
    lines = row.description.splitlines()[1:-1]
    assert len(lines) == 3
    code = "\n".join(
        [
            *lines,
            "import sys",
            "from safetensors.torch import save_file",
            "assert not any(name.split('.')[0] in ('wave', 'wave_templates', 'pipelines') for name in sys.modules)",
            "save_file(model.state_dict(), sys.argv[1])",
        ]
    )
    saved = tmp_path / "loaded.safetensors"
    # without MLFLOW_TRACKING_URI: MLflow's own default is the mlflow.db of the folder it runs in
    ended(python(code, workdir, str(saved)))
    expected, loaded = load_file(plain / "model.safetensors"), load_file(saved)
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    assert not (workdir / "mlruns").exists()


def test_the_same_publication_is_one_version_and_other_content_another(
    opened: store.Store, plain: Path, family: str, run_id: str, tmp_path: Path
):
    def publish(folder: Path, batch: str = "") -> int:
        return registry.publish(opened, folder, family, "d032-l02", run_id, {}, "", {"accuracy": 0.5}, batch)

    assert [publish(plain), publish(plain)] == [1, 1]
    assert len(opened.client().get_metric_history(run_id, "accuracy")) == 1
    assert publish(plain, batch="another") == 2
    weights = load_file(plain / "model.safetensors")
    weights["head.bias"] = weights["head.bias"] + 1
    save_file(weights, tmp_path / "model.safetensors")
    assert publish(tmp_path) == 3
    assert opened.client().get_registered_model(family).aliases == {"d032-l02": 3}
    assert publish(plain) == 1, "back to the first content"
    assert opened.client().get_registered_model(family).aliases == {"d032-l02": 1}
    assert versions(opened, family) == [1, 2, 3]


STEPS = (
    "create_logged_model",
    "log_model_artifacts",
    "log_batch",
    "finalize_logged_model",
    "create_registered_model",
    "create_model_version",
    "set_registered_model_alias",
)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_process_killed_at_a_step_leaves_nothing_twice(
    opened: store.Store, plain: Path, family: str, run_id: str, monkeypatch: pytest.MonkeyPatch, step: str, moment: str
):
    class Killed(BaseException):
        """Stands for SIGKILL: what would clean up afterwards is cut off too."""

    real = getattr(MlflowClient, step)

    def killed(*args: object, **kwargs: object) -> None:
        if moment == "after":
            real(*args, **kwargs)
        raise Killed

    def publish() -> int:
        return registry.publish(opened, plain, family, "d032-l02", run_id, {}, "", {"accuracy": 0.5})

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, killed)
        patch.setattr(MlflowClient, "delete_registered_model", killed)
        with pytest.raises(Killed):
            publish()
    assert publish() == 1
    assert versions(opened, family) == [1]
    client = opened.client()
    assert client.get_registered_model(family).aliases == {"d032-l02": 1}
    key = registry.publication_key(plain, family, "d032-l02")
    left = client.search_logged_models([opened.experiment_id], f"tags.`wave.key` = '{key}'")
    assert [str(model.status) for model in left] == ["READY"]


def test_a_failing_version_leaves_no_empty_registered_model(
    opened: store.Store, plain: Path, family: str, run_id: str, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*args: object, **kwargs: object) -> None:
        raise MlflowException("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", refuse)
        with pytest.raises(WaveError, match="the disk is full"):
            registry.publish(opened, plain, family, "d032-l02", run_id, {}, "", {})
    assert not opened.client().search_registered_models(f"name = '{family}'")
    assert registry.publish(opened, plain, family, "d032-l02", run_id, {}, "", {}) == 1


WRITER = """
from pipelines.registry import query as registry
numbers = [registry.publish(opened, folder, family, "same", run_id, {}, "", {})]
for index in range(3):
    run = registry.size_run(opened, run_id, f"{family}/{who}/{index}", "size", {}, {"accuracy": 0.5}, {})
    numbers.append(registry.publish(opened, folder, family, f"d{who}-l{index}", run, {"who": who}, "", {}))
answers.put((who, numbers))
"""


def test_four_processes_at_once_lose_nothing(opened: store.Store, plain: Path, family: str, run_id: str):
    """Twelve aliases of their own, and one publication that all four make at the same time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipelines.registry.query"])  # one import of MLflow, not four
    answers = context.Queue()
    given = {"opened": opened, "folder": plain, "family": family, "run_id": run_id, "answers": answers}
    jobs = [context.Process(target=exec, args=(WRITER, {**given, "who": who})) for who in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(timeout=300)
        assert job.exitcode == 0
    printed = dict(answers.get(timeout=10) for _ in jobs)
    rows = registry.list_models(opened, family)
    own = {row.alias: row.version for row in rows if row.alias != "same"}
    assert own == {f"d{who}-l{index}": printed[who][1 + index] for who in range(4) for index in range(3)}
    assert len(set(own.values())) == 12
    assert len({numbers[0] for numbers in printed.values()}) == 1, "all four ended with the same version"
    assert len(versions(opened, family)) == 13
    children = opened.client().search_runs([opened.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    assert len(children) == 12
    assert {child.info.status for child in children} == {"FINISHED"}


def test_an_alias_that_another_process_sets_first(
    opened: store.Store, plain: Path, family: str, run_id: str, monkeypatch: pytest.MonkeyPatch
):
    """Both see no alias and insert it: the database refuses the second insert, and the second look finds it there."""
    real, calls = MlflowClient.set_registered_model_alias, []

    def overtaken(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 1:
            real(*args)
            raise MlflowException("UNIQUE constraint failed: registered_model_aliases.name")
        real(*args)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", overtaken)
    assert registry.publish(opened, plain, family, "d032-l02", run_id, {}, "", {}) == 1
    assert len(calls) == 1
    assert opened.client().get_registered_model(family).aliases == {"d032-l02": 1}


def test_runs_are_found_again_by_their_key(opened: store.Store, family: str, run_id: str):
    assert registry.batch_run(opened, family, family, {"a": 1}, {"git": "x"}) == run_id
    many = {f"p{index}": index for index in range(230)}
    first = registry.size_run(opened, run_id, f"{family}/d032-l02", "d032-l02", many, {"accuracy": 0.5}, {"depth": 2})
    again = registry.size_run(
        opened, run_id, f"{family}/d032-l02", "d032-l02", {"p0": "changed"}, {"accuracy": 0.5, "seconds": 3}, {}
    )
    assert again == first
    client = opened.client()
    run = client.get_run(first)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == run_id
    assert (run.data.params["p0"], len(run.data.params)) == ("0", 230)
    assert run.data.metrics == {"accuracy": 0.5, "seconds": 3}
    assert len(client.get_metric_history(first, "accuracy")) == 1
    assert client.get_run(run_id).info.status == "RUNNING"
    registry.end_batch(opened, run_id, "FAILED")
    assert client.get_run(run_id).info.status == "FAILED"
    assert registry.batch_run(opened, family, family, {"a": 2}, {}) == run_id
    run = client.get_run(run_id)
    assert (run.info.status, run.data.params["a"]) == ("RUNNING", "1")


def test_a_size_whose_logging_fails_is_ended_all_the_same(opened: store.Store, family: str, run_id: str):
    with pytest.raises(WaveError):
        registry.size_run(opened, run_id, f"{family}/bad", "bad", {"name with = and \n": 1}, {}, {})
    found = opened.client().search_runs([opened.experiment_id], f"tags.`wave.key` = '{family}/bad'")
    assert [run.info.status for run in found] == ["FAILED"]


def test_listing_and_pulling(opened: store.Store, plain: Path, family: str, run_id: str, workdir: Path, tmp_path: Path):
    for alias in ("d032-l04", "d032-l02"):
        registry.publish(opened, plain, family, alias, run_id, {"alias": alias}, "", {})
    read = registry.existing_store("", workdir)
    assert [(row.alias, row.tags["alias"]) for row in registry.list_models(read, family)] == [
        ("d032-l02", "d032-l02"),
        ("d032-l04", "d032-l04"),
    ]
    assert {row.alias for row in registry.list_models(read) if row.registered_model == family} == {
        "d032-l02",
        "d032-l04",
    }
    pulled = registry.pull(read, family, "d032-l02", tmp_path / "some" / "where")
    assert sorted(file.name for file in pulled.iterdir()) == ["config.json", "model.safetensors"]
    assert (pulled / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()
    assert [entry.name for entry in pulled.parent.iterdir()] == ["where"]
    with pytest.raises(WaveError, match="not an empty folder"):
        registry.pull(read, family, "d032-l02", pulled)
    with pytest.raises(WaveError, match="has no alias 'd032-l05'; nearest of 2 is 'd032-l0"):
        registry.show_model(read, family, "d032-l05")
    with pytest.raises(WaveError, match=f"no model '{family}x'; nearest of .* is '{family}'"):
        registry.list_models(read, family + "x")


@pytest.mark.parametrize(
    ("name", "alias", "says"),
    [
        ("a/b", "d032", "nearest is 'a-b'"),
        ("a:b", "d032", "nearest is 'a-b'"),
        ("", "d032", "1 to 200"),
        ("x" * 201, "d032", "1 to 200"),
        ("digits", "d 032", "nearest is 'd-032'"),
        ("digits", "latest", "reserved"),
        ("digits", "v12", "reserved"),
    ],
)
def test_names_mlflow_refuses(name: str, alias: str, says: str):
    with pytest.raises(WaveError, match=says):
        registry.check_names(name, alias)


def test_an_empty_folder_is_refused(opened: store.Store, family: str, run_id: str, tmp_path: Path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(WaveError, match="nothing to register"):
            registry.publish(opened, folder, family, "d032-l02", run_id, {}, "", {})
    assert not opened.client().search_registered_models(f"name = '{family}'")
