"""The whole pipeline on real digits: two Ray Train workers, Ray Tune with a failing size, a real database."""

import csv
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.pipelines.support import command, python, tiny
from wave.initialisation import initialise
from wave.spec import TargetSpec
from wave.storage import Templates

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

SIZES = ["d032-l02", "d048-l02", "d032-l03", "d048-l03"]
BROKEN = "d048-l03"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where one run was made while something stood in the way of one size's checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    obstacle = folder / "runs/digits/checkpoints" / f"{BROKEN}.pt"
    (obstacle / "in the way").mkdir(parents=True)
    done = command(folder, "run", *tiny("initialise.max_failures=1"))
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    assert done.returncode == 2, done.stdout + done.stderr
    return folder


def registered(folder: Path) -> dict[str, int]:
    """Alias to version, read from the database by MLflow in another process."""
    code = """
        import json, mlflow
        mlflow.set_tracking_uri("sqlite:///mlflow.db")
        print(json.dumps({k: int(v) for k, v in mlflow.MlflowClient().get_registered_model("digits").aliases.items()}))
    """
    return json.loads(python(folder, code))


def test_one_failing_size_does_not_stop_the_rest(folder: Path) -> None:
    assert registered(folder).keys() == set(SIZES) - {BROKEN}
    errors = [text for text in (folder / "stderr").read_text().splitlines() if text.startswith("error:")]
    assert len(errors) == 1 and BROKEN in errors[0] and "same command again" in errors[0]
    results = json.loads((folder / "runs/digits/results.json").read_text())
    assert list(results["failed"]) == [BROKEN]


def test_progress_is_plain_text_with_counts(folder: Path) -> None:
    text = (folder / "stdout").read_text()
    assert "stage 1: step 80/80" in text and "images/s" in text and "1 failed, 0 left" in text
    assert all(character.isprintable() or character == "\n" for character in text)


def test_stage_1_ran_on_two_workers_and_beats_chance(folder: Path) -> None:
    templates = Templates.load(folder / "runs/digits/templates")
    record = json.loads((folder / "runs/digits/templates.json").read_text())
    assert record["accuracy"] > 0.5
    assert templates.info["metrics"]["workers"] == 2


def test_results_say_what_each_size_can_do(folder: Path) -> None:
    with (folder / "runs/digits/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["size"] for row in rows] == SIZES[:3]
    for row in rows:
        assert float(row["accuracy_before"]) > 0.3
        assert float(row["accuracy_after"]) > float(row["accuracy_scratch"])
        assert row["alias"] == f"digits@{row['size']}" and int(row["parameters"]) > 0


def test_a_size_is_read_back_by_mlflow_and_timm_alone_bit_equal(folder: Path) -> None:
    code = """
        import sys, mlflow, timm
        mlflow.set_tracking_uri("sqlite:///mlflow.db")
        path = mlflow.artifacts.download_artifacts("models:/digits@d048-l02", dst_path="pulled")
        model = timm.create_model("local-dir:" + path, pretrained=True)
        from safetensors.torch import save_file
        save_file(model.state_dict(), "read.safetensors")
        assert "wave" not in sys.modules and "pipelines" not in sys.modules
        print(path)
    """
    python(folder, code)
    read, kept = (
        load_file(folder / "read.safetensors"),
        load_file(folder / "runs/digits/models/d048-l02/model.safetensors"),
    )
    assert read.keys() == kept.keys() and all(read[name].equal(kept[name]) for name in kept)


def test_templates_alone_give_a_model_of_a_size_nobody_asked_for(folder: Path) -> None:
    model = initialise(Templates.load(folder / "runs/digits/templates"), TargetSpec(64, 5))
    assert (model.embed_dim, len(model.blocks)) == (64, 5)


def test_the_same_command_again_does_only_what_is_missing_or_damaged(folder: Path) -> None:
    before, models = registered(folder), folder / "runs/digits/models"
    damaged, obstacle = models / "d032-l02/model.safetensors", folder / "runs/digits/checkpoints" / f"{BROKEN}.pt"
    whole = damaged.read_bytes()
    made_first = json.loads((models / "d032-l02.json").read_text())
    damaged.write_bytes(whole[:5000])
    kept = {p: p.stat().st_mtime_ns for p in models.glob("*/model.safetensors") if p != damaged}
    (obstacle / "in the way").rmdir()
    obstacle.rmdir()
    done = command(folder, "run", *tiny("initialise.max_failures=1"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "d032-l02 has changed since it was made" in done.stdout
    assert "4 sizes, 2 already there, 2 to do" in done.stdout
    after = registered(folder)
    assert after.keys() == set(SIZES) and before.items() <= after.items()  # the damaged one is the same version
    assert damaged.read_bytes() == whole
    made_again = json.loads((models / "d032-l02.json").read_text())
    assert made_again["accuracy_scratch"] == made_first["accuracy_scratch"]  # whatever its trial drew before
    assert len(kept) == 2 and all(p.stat().st_mtime_ns == t for p, t in kept.items())


def test_models_commands_list_show_and_pull(folder: Path) -> None:
    listed = command(folder, "models", "list")
    assert listed.returncode == 0 and all(f"digits@{name}" in listed.stdout for name in SIZES[:3])
    shown = command(folder, "models", "show", "digits@d032-l02")
    assert "templates_digest" in shown.stdout and "timm.create_model" in shown.stdout
    pulled = command(folder, "models", "pull", "digits@d032-l02", "here")
    assert pulled.returncode == 0 and (folder / "here/model.safetensors").is_file()
