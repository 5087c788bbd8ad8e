"""The comparison: Fashion-MNIST's own file at its smoke budget, every method, resumed; and plan beside it."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.pipelines.support import ROOT, command
from wave.baselines import BASELINES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

FILE = str(ROOT / "pipelines/experiments/fashion_mnist_comparison.toml")
SMALL = (*("data.source=idx", "data.held_out=100", "budget=smoke", "distil.workers=1"),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with made-up IDX files in Fashion-MNIST's format, and one comparison made from them."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "idx").mkdir()
    generator = np.random.default_rng(0)
    for prefix, count in (("train", 640), ("t10k", 300)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = generator.integers(0, 60, (count, 28, 28), dtype=np.uint8)
        images[np.arange(count), labels * 2] = 255
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">I{array.ndim}I", 0x800 | array.ndim, *array.shape)
            path = folder / "idx" / f"{prefix}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(header + array.tobytes(), 1))
    done = command(folder, "evaluate", FILE, *(f"--set={o}" for o in SMALL), timeout=880)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "stdout").write_text(done.stdout)
    return folder


def rows(folder: Path) -> list[dict[str, object]]:
    text = (folder / "runs/fashion-mnist-smoke/evaluation.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_every_method_has_a_row_at_step_0_and_at_the_end_of_each_size_it_reaches(folder: Path) -> None:
    found = {
        (r["method"], r["embed_dim"], r["depth"]) for r in rows(folder) if r["steps"] in (0, BASELINES["ligo"].steps)
    }
    ours = {"wave", "wave_n7", "wave_n238_aux", "wave_n46", "wave_short", "wave_untrained_all"}
    assert {method for method, _, _ in found} == {*ours, *BASELINES}
    assert any(r["method"] == "wave_paper" for r in rows(folder))  # whose first step is the last of its scalers'
    trained = [r["steps"] for r in rows(folder) if r["method"] == "wave_random_trained"]
    assert trained == [1, 2, 1, 2]  # a step of scalers alone, at each of two sizes
    assert ("tleg", 96, 4) in found and ("tleg", 128, 6) not in found
    for row in rows(folder):
        assert 0 <= float(str(row["accuracy"])) <= 1
        assert {
            "dataset",
            "method",
            "embed_dim",
            "depth",
            "seed",
            "steps",
            "accuracy",
            "seconds",
            "lr",
            "key",
        } <= row.keys()


def test_the_table_says_what_a_method_cannot_reach(folder: Path) -> None:
    table = (folder / "stdout").read_text()
    assert "depth only" in table and "growth only" in table


def test_only_missing_cells_are_done_again(folder: Path) -> None:
    path = folder / "runs/fashion-mnist-smoke/evaluation.jsonl"
    before = path.read_text().splitlines(keepends=True)
    gone = rows(folder)[0]["key"]
    path.write_text("".join(line for line in before if json.loads(line)["key"] != gone))
    done = command(folder, "evaluate", FILE, *(f"--set={o}" for o in SMALL), timeout=880)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 to do" in done.stdout
    again = {(r["key"], r["steps"]): r["accuracy"] for r in rows(folder)}
    first = {(r["key"], r["steps"]): r["accuracy"] for r in map(json.loads, before)}
    assert again == pytest.approx(first) and len(rows(folder)) == len(before)


def test_the_report_is_made_from_the_folder(folder: Path) -> None:
    done = command(folder, "report", "runs/fashion-mnist-smoke")
    assert done.returncode == 0, done.stderr
    page = folder / "runs/fashion-mnist-smoke/report/comparison.html"
    assert str(page) in done.stdout and "Missing:" not in page.read_text()
    pictures = {path.stem for path in page.parent.glob("*.png")}
    studies = {"share_curve", "share_variants", "ablations_curve", "ablations_variants"}
    assert pictures == {"cost", "layers", "templates", *studies}


def test_plan_names_every_size_and_the_minutes(folder: Path) -> None:
    done = command(folder, "plan", FILE, *(f"--set={o}" for o in SMALL))
    assert done.returncode == 0, done.stderr
    assert (
        "d192-l12" in done.stdout
        and "stage 2, 24 sizes" in done.stdout
        and "evaluate, " in done.stdout
        and "minutes here" in done.stdout
    )


def test_a_rate_is_chosen_by_images_that_nothing_was_trained_on(folder: Path) -> None:
    study = '{name="one", methods=["timm_default"], sizes=[{embed_dim=32, depth=2}], seeds=[0], steps=[2]}'
    untrained = study.replace("one", "untrained").replace("steps=[2]", "steps=[0]")
    studies = f"evaluate.studies=[{study}, {untrained}]"
    settings = (studies, "evaluate.learning_rates=[1e-4, 1e-3]", "evaluate.results=rates.jsonl")
    recipe = (f"ancestor.recipe.{text}" for text in ("steps=2", "warmup_steps=0", "log_every=1"))
    small = ("budget=full", "output=runs/fashion-mnist-smoke", "evaluate.variants=[]")  # what smoke has made is there
    arguments = [f"--set={o}" for o in (*SMALL, *small, *recipe, *settings)]
    none = command(folder, "evaluate", FILE, *arguments, "--set=data.held_out=", "--set=data.path=data/none")
    assert none.returncode == 2 and not (folder / "rates.jsonl").exists()
    assert "one: chooses between 2 learning rates by held-out images" in none.stderr and "held_out = 64" in none.stderr
    done = command(folder, "evaluate", FILE, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ancestor: already there" in done.stdout, done.stdout
    kept = [json.loads(line) for line in (folder / "rates.jsonl").read_text().splitlines()]
    tried = {r["lr"]: r["accuracy"] for r in kept if r["held_out"] and r["steps"] == 2}
    tested = [(r["lr"], r["steps"]) for r in kept if not r["held_out"] and r["budget"]]
    assert [(r["steps"], r["images"]) for r in kept if not r["budget"]] == [(0, 0)]
    best = max(tried, key=lambda lr: tried[lr])
    assert tried.keys() == {1e-4, 1e-3} and tested == [(best, 0), (best, 2)]
    assert all(round(a * 100, 6).is_integer() for a in tried.values())  # of 100 images


def test_sizes_of_other_heads_and_mlps_are_compared_where_a_method_reaches_them(folder: Path) -> None:
    sizes = "[{embed_dim=40, depth=2, num_heads=4, mlp_ratio=2}, {embed_dim=64, depth=6}]"
    study = f'{{name="one", methods=["wave", "timm_default", "dct"], sizes={sizes}}}'
    settings = (f"evaluate.studies=[{study}]", "evaluate.variants=[]")
    done = command(folder, "evaluate", FILE, *(f"--set={o}" for o in (*SMALL, *settings)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ancestor's heads and MLP only" in done.stdout
    kept = rows(folder)
    assert {(r["method"], r.get("num_heads"), r.get("mlp_ratio")) for r in kept if r["embed_dim"] == 40} == {
        ("wave", 4, 2.0),
        ("timm_default", 4, 2.0),
    }
    assert all("num_heads" not in r and "mlp_ratio" not in r for r in kept if r["embed_dim"] == 64)


def test_an_unknown_method_is_one_line(folder: Path) -> None:
    done = command(
        folder,
        "evaluate",
        FILE,
        '--set=evaluate.studies=[{name="one", methods=["tlge"], sizes=[{embed_dim=96, depth=4}]}]',
    )
    assert done.returncode == 2 and "tlge" in done.stderr and "Traceback" not in done.stderr
