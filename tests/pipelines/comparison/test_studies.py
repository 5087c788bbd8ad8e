"""The comparison's settings and results file: variants, the smoke budget, what a cell's key depends on, kept once."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.comparison.cells import Cell, unreachable
from pipelines.comparison.checks import check_transfer
from pipelines.comparison.results_file import make_ready
from pipelines.comparison.results_log import ResultsLog
from pipelines.comparison.variants import variants
from pipelines.config.data import Data
from pipelines.config.experiment import Experiment, load, parse, resolved
from pipelines.config.toml import apply_overrides, read_toml
from pipelines.data.convert.convert import prepared
from pipelines.data.transforms import resized
from pipelines.registry.store import open_store
from pipelines.stages import distil
from tests.pipelines.support import ROOT
from wave.errors import WaveError
from wave.spec import TargetSpec

FILE = ROOT / "pipelines/experiments/fashion_mnist_comparison.toml"
ARTIFACTS = ROOT / "benchmarks/artifacts"
CELL = Cell("dct", 96, 4, 0, 1e-3, (50, 200), "fashion-mnist")
NO_STUDIES = "evaluate.studies=[]"
VARIANT = 'evaluate.variants=[{name="wave_few", set=["templates.count=8"]}]'


def log(path: Path, experiment: Experiment) -> ResultsLog:
    store = open_store(f"sqlite:///{path}/mlflow.db", "comparison", path)
    return ResultsLog(path / "rows.jsonl", variants(experiment), store)


def test_a_variant_changes_our_method_and_nothing_else() -> None:
    found = variants(load(FILE, [NO_STUDIES, VARIANT]))
    assert found["wave_few"].templates.count == 8 and found["wave"].templates.count != 8
    assert found["wave_few"].ancestor == found["wave"].ancestor


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ('evaluate.variants=[{name="few", set=["templates.count=8"]}]', "wave_"),
        ('evaluate.variants=[{name="wave_x", set=["ancestor.source=train"]}]', "not about our method"),
        ('evaluate.variants=[{name="wave_x", set=["templates.cuont=8"]}]', "cuont"),
        ('evaluate.studies=[{name="a", methods=["wave_none"], sizes=[{embed_dim=96, depth=4}]}]', "known are wave"),
    ],
)
def test_a_variant_that_cannot_be_is_one_line(override: str, text: str) -> None:
    with pytest.raises(WaveError, match=text):
        variants(load(FILE, [NO_STUDIES, override]))


@pytest.mark.parametrize(
    "twice", ["seeds=[0, 0]", "steps=[50, 50]", "learning_rates=[1e-3, 1e-3]", "methods=['dct', 'dct']", "sizes"]
)
def test_nothing_stands_twice_in_a_study(twice: str) -> None:
    size = "{embed_dim=96, depth=4}"
    lists = {"methods": "['dct']", "sizes": f"[{size}]"}
    key, _, value = twice.partition("=")
    lists[key] = value or f"[{size}, {size}]"
    study = ", ".join(f"{k}={v}" for k, v in lists.items())
    with pytest.raises(WaveError, match=f"{key} names .* more than once"):
        load(FILE, [f'evaluate.studies=[{{name="one", {study}}}]'])


def test_the_papers_preset_is_its_two_stages_and_is_read_back_equal() -> None:
    paper = load(FILE, ["preset=paper"])
    assert load(FILE).distil.sizes is not None
    assert paper.distil.sizes is None and paper.initialise.scalers == paper.templates.start == "random"
    assert load(FILE).distil.anneals and not paper.distil.anneals and paper.distil.recipe.kl_weight == 1
    assert paper.distil.recipe.ce_weight == 1 and paper.distil.recipe.steps == load(FILE).distil.recipe.steps
    assert parse(paper.model_dump(mode="json")) == paper
    with pytest.raises(WaveError, match=r'--set preset="paper" trains random scalers: give \[initialise.recipe\]'):
        load(FILE, ["preset=paper", "initialise.recipe=", "initialise.compare_scratch=false", "initialise.subset=0"])


def test_the_smoke_budget_reduces_once_and_has_a_name_of_its_own() -> None:
    small = load(FILE, ["budget=smoke"])
    assert small.name == "fashion-mnist-smoke" and small.output == "runs/fashion-mnist-smoke"
    assert small.distil.recipe.steps == 2 and small.evaluate.results == ""
    full = load(FILE)
    for few, study in zip(small.evaluate.studies, full.evaluate.studies, strict=True):
        ours = [m for m in study.methods if m.startswith("wave_")]
        assert few.methods == [m for m in study.methods if m not in ours[1:-1]]
    again = parse(small.model_dump(mode="json"))
    assert again == small
    assert resolved(again) == resolved(small)


def test_a_key_depends_on_what_the_rows_depend_on(tmp_path: Path) -> None:
    table = read_toml(FILE)
    here = log(tmp_path, parse(table))
    moved = log(tmp_path, parse(apply_overrides(table, ["distil.workers=1", "distil.recipe.steps=9000"])))
    ours, tleg = replace(CELL, method="wave"), replace(CELL, method="tleg")
    assert here.key(CELL) == moved.key(CELL)  # no stage 1 of its own
    assert here.key(ours) != moved.key(ours) and here.key(tleg) != moved.key(tleg)
    assert len({here.key(c) for c in (CELL, replace(CELL, seed=1), replace(CELL, lr=3e-4), ours, tleg)}) == 5
    faster = log(tmp_path, parse(apply_overrides(table, ["distil.workers=1"])))
    assert faster.key(ours) == here.key(ours)
    distilled = replace(CELL, distilled=True)
    labels = log(tmp_path, parse(apply_overrides(table, ["distil.annealing=false"])))
    assert labels.key(CELL) == here.key(CELL)
    assert all(labels.key(c) != here.key(c) for c in (ours, tleg, distilled))
    mirrored = log(tmp_path, parse(apply_overrides(table, ["data.hflip=0.5"])))
    assert all(mirrored.key(c) != here.key(c) for c in (CELL, ours, tleg))  # the ancestor's training too


@pytest.mark.parametrize("name", ["fashion-mnist", "digits-to-fashion"])
def test_committed_templates_are_those_of_the_file(name: str) -> None:
    """A run in a clone that holds the artifact makes them again if this key changes."""
    file = FILE.with_name(f"{name.replace('-', '_')}.toml")
    origin, templates = (
        json.loads((ARTIFACTS / name / f"{part}.json").read_text()) for part in ("ancestor", "templates")
    )
    assert distil.key(load(file), origin) == templates["key"]
    for other in ("distil.feature_weight=1", "initialise.width_scale=none"):
        assert distil.key(load(file, [other]), origin) != templates["key"]


def test_data_of_a_study_fits_the_ancestor_and_has_a_name_of_its_own(tmp_path: Path) -> None:
    first, second, small = (tmp_path / name / "digits" for name in "abc")
    own, other = (prepared(Data(path=str(path), convert="digits", image_size=28)) for path in (first, second))
    check_transfer(own, {"one": own})
    with pytest.raises(WaveError, match=r"one: .*/b/digits and .*/a/digits have the same name"):
        check_transfer(own, {"one": other})
    with pytest.raises(WaveError, match="has 9 classes, and the ancestor is for 10; give data with 10"):
        check_transfer(own, {"one": replace(other, path=small, meta=replace(other.meta, classes=other.classes[:9]))})


@pytest.mark.parametrize(
    ("method", "steps", "key"),
    [
        ("dct", (50, 200), "18664a4cf3bd4e13"),
        ("timm_default", (50, 200, 800, 1500, 3000), "96ae9f919a45445c"),
    ],
)
def test_keys_of_committed_rows_stay(method: str, steps: tuple[int, ...], key: str, tmp_path: Path) -> None:
    """Hours of committed rows are lost if one of these changes."""
    assert log(tmp_path, load(FILE)).key(replace(CELL, method=method, steps=steps)) == key


def test_a_cell_on_other_data_depends_on_the_ancestors_data_too(tmp_path: Path) -> None:
    table, cell = read_toml(FILE), replace(CELL, dataset="digits-28", transfer=True)
    here, other = (log(tmp_path, parse(apply_overrides(table, s))) for s in ([], ["data.path=data/other"]))
    assert here.key(cell) != other.key(cell) and here.key(CELL) == other.key(CELL)


def test_a_cell_is_kept_once_and_logged(tmp_path: Path) -> None:
    here = log(tmp_path, load(FILE))
    here.keep(
        CELL,
        [{"steps": 0, "accuracy": 0.5, "seconds": 1.0}, {"steps": 200, "accuracy": 0.7, "seconds": 2.0}],
        {"ancestor_dataset": "fashion-mnist"},
    )
    here.keep(CELL, [{"steps": 0, "accuracy": 0.1, "seconds": 1.0}])
    here.close("FINISHED")
    again = log(tmp_path, load(FILE))
    assert [row["accuracy"] for row in again.rows([CELL])] == [0.5, 0.7]
    assert {row["ancestor_dataset"] for row in again.rows([CELL])} == {"fashion-mnist"}
    assert again.best_rate([CELL, replace(CELL, lr=3e-4)]) == CELL.lr
    assert again.store is not None
    logged = again.store.client().search_runs([again.store.experiment_id], "tags.kind = 'cell'")
    assert [run.data.metrics["accuracy_200"] for run in logged] == [0.7]


def test_cells_that_were_kept_and_not_logged_are_logged_once(tmp_path: Path) -> None:
    alone = ResultsLog(tmp_path / "rows.jsonl", {"": load(FILE)})  # no store, as when it was killed between the two
    for lr in (1e-3, 3e-4):
        alone.keep(replace(CELL, lr=lr), [{"steps": 200, "accuracy": 0.7, "seconds": 2.0, "images": 12800, "macs": 5}])
    here = log(tmp_path, load(FILE))
    never = replace(CELL, lr=3e-3)
    assert here.log_kept([CELL, never]) == 1 and here.log_kept([CELL, replace(CELL, lr=3e-4), never]) == 1
    here.close("FINISHED")
    assert log(tmp_path, load(FILE)).log_kept([CELL, replace(CELL, lr=3e-4)]) == 0
    assert here.store is not None
    logged = here.store.client().search_runs([here.store.experiment_id], "tags.kind = 'cell'")
    assert [run.data.metrics for run in logged] == [
        {"accuracy_200": 0.7, "seconds": 2.0, "images": 12800.0, "macs": 5.0}
    ] * 2


def test_a_line_that_is_no_result_is_named(tmp_path: Path) -> None:
    result = '{"key": "a", "steps": 0, "accuracy": 0.5, "seconds": 1.0}\n'
    for wrong in ("not json", '{"key": "b"}', "3", '{"key": "b", "steps": "0", "accuracy": 0.5, "seconds": 1.0}'):
        (tmp_path / "rows.jsonl").write_text(result + wrong + "\n")
        with pytest.raises(WaveError, match="line 2 is not a result"):
            log(tmp_path, load(FILE))
    (tmp_path / "rows.jsonl").write_text(result + "not json")  # and no end: whosever it is, it is not cut
    with pytest.raises(WaveError, match="line 2 is not a result"):
        log(tmp_path, load(FILE))
    assert (tmp_path / "rows.jsonl").read_text() == result + "not json"


@pytest.mark.parametrize(
    "rest",
    ['{"method": "dct", "ste', '{"me', '{"key": "b", "steps": 0, "accuracy": 0.5, "seconds": 1.0, "budget": 50}\n'],
)
def test_what_was_cut_off_is_done_again(rest: str, tmp_path: Path) -> None:
    result = '{"key": "a", "steps": 50, "accuracy": 0.5, "seconds": 1.0, "budget": 50}\n'
    path = tmp_path / "rows.jsonl"
    path.write_text(result + rest)
    assert list(log(tmp_path, load(FILE)).kept) == ["a"]
    assert path.read_text() == result + rest  # a report may read it while it is written
    make_ready(path)
    with path.open("a") as file:
        file.write(result.replace('"a"', '"b"'))
    again = log(tmp_path, load(FILE)).kept
    assert list(again) == ["a", "b"] and again["b"][-1]["steps"] == 50


def test_variants_of_ours_reach_every_size() -> None:
    source, wide = TargetSpec(96, 6), TargetSpec(144, 3)
    assert unreachable("wave_few", source, wide) is None and unreachable("tleg", source, wide) == "depth only"


def test_images_of_another_set_are_brought_to_the_models_size() -> None:
    image = np.zeros((2, 1, 8, 8), np.uint8)
    image[:, :, :4] = 200
    large = resized(image, 28)
    assert large.shape == (2, 1, 28, 28) and large.dtype == np.uint8 and large[0, 0, 0, 0] == 200
    assert resized(image, 8) is image
